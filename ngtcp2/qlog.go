//go:build ngtcp2 && cgo

package ngtcp2

import (
	"io"
	"sync"
)

// qlogQueue is how much of a log may wait for the application's writer, in
// bytes. What comes when it is full is left out.
const qlogQueue = 1 << 20

// A qlogFile writes a connection's log, in a goroutine that there is only as
// long as there is something to write. A nil qlogFile writes nothing.
type qlogFile struct {
	w     io.WriteCloser
	group *group

	mu      sync.Mutex
	queue   []byte // guarded by mu
	running bool   // guarded by mu
	closed  bool   // guarded by mu
}

// openQLog asks the application for a log; nil: it wants none. No lock is held.
func (c *conn) openQLog() *qlogFile {
	if c.cfg.cfg.QLog == nil {
		return nil
	}
	w := c.cfg.cfg.QLog(clone(c.id), c.client)
	if w == nil {
		return nil
	}
	return &qlogFile{w: w, group: &c.ep.group}
}

// flushQLog hands over what the library has logged. The caller holds mu.
func (c *conn) flushQLog() {
	if c.qlog != nil && c.cc != nil {
		c.qlog.write(c.cc.QLogChunk())
	}
}

func (f *qlogFile) write(p []byte) {
	if len(p) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.queue)+len(p) > qlogQueue {
		return // p is whole records
	}
	f.queue = append(f.queue, p...)
	f.start()
}

// close closes the writer behind what waits.
func (f *qlogFile) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.start()
	}
}

// start lets run run. The caller holds mu.
func (f *qlogFile) start() {
	if f.running {
		return
	}
	f.running = true
	if !f.group.run(f.run) { // until the queue is empty
		// Nobody waits any more for goroutines of this endpoint: all its
		// connections have ended.
		f.queue = nil
		f.running = false
	}
}

func (f *qlogFile) run() {
	for {
		f.mu.Lock()
		p, closed := f.queue, f.closed
		f.queue = nil
		if len(p) == 0 {
			if !closed {
				f.running = false
			}
			f.mu.Unlock()
			if closed {
				f.w.Close()
			}
			return
		}
		f.mu.Unlock()
		_, _ = f.w.Write(p) // there is nobody to tell
	}
}
