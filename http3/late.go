package http3

import (
	"sync"
	"time"
)

// lateFlush is how long what the codec has to say because of a message may wait.
// Nothing depends on it (see codec), and of all messages of that time it takes one
// packet, in place of one for each.
const lateFlush = 5 * time.Millisecond

// A late flushes an own stream some time after there is something to write.
type late struct {
	mu    sync.Mutex
	timer *time.Timer // guarded by mu; nil before the first time
	armed bool        // guarded by mu; the timer runs, or what it calls
	over  bool        // guarded by mu; the connection has ended
}

// flushLater is flush, but not now. Errors end the connection.
func (c *Conn) flushLater() {
	if !c.codec.isPending() {
		return
	}
	l := &c.late
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.armed || l.over {
		return
	}
	l.armed = true
	c.wg.Add(1) // until it has run or endLate stops it
	if l.timer == nil {
		l.timer = time.AfterFunc(lateFlush, c.flushLate)
	} else {
		l.timer.Reset(lateFlush)
	}
}

func (c *Conn) flushLate() {
	defer c.wg.Done()
	c.late.mu.Lock()
	c.late.armed = false // what comes from here on may not be written
	c.late.mu.Unlock()
	if err := c.flush(); err != nil {
		c.lost(err)
	}
}

// endLate is called when the connection has ended, by a goroutine that wg counts.
func (c *Conn) endLate() {
	l := &c.late
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.armed && l.timer.Stop() {
		c.wg.Done()
	}
}
