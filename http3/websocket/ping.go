package websocket

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/gobwas/ws"
)

// maxQueue is how many control frames wait for room. Of the pings that come
// meanwhile the latest are answered.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3
const maxQueue = 16

// A control is a control frame.
type control struct {
	op      ws.OpCode
	content []byte
}

// Ping sends a ping and waits until the peer has answered it. Meanwhile a Read
// must wait.
func (c *Conn) Ping(ctx context.Context) error {
	answered := make(chan bool)
	name := c.expectPong(answered)
	defer c.forgetPong(name)
	if err := c.writeFrame(ctx, ws.Header{Fin: true, OpCode: ws.OpPing}, []byte(name)); err != nil {
		return err
	}
	select {
	case <-answered:
		return nil
	case <-c.ended:
		return c.final()
	case <-ctx.Done():
		return fmt.Errorf("websocket: ping: %w", context.Cause(ctx))
	}
}

// expectPong returns the content of a ping; answered is closed with its answer.
func (c *Conn) expectPong(answered chan bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pingCount++
	name := strconv.FormatUint(c.pingCount, 10)
	if c.pings == nil {
		c.pings = make(map[string]chan bool)
	}
	c.pings[name] = answered
	return name
}

func (c *Conn) forgetPong(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pings, name)
}

// takePong acts on an answer; others than expected mean nothing.
func (c *Conn) takePong(content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answered, ok := c.pings[string(content)]; ok {
		delete(c.pings, string(content))
		close(answered)
	}
}

// answerPing queues a pong.
func (c *Conn) answerPing(content []byte) { c.enqueue(control{ws.OpPong, content}) }

// enqueue sends a frame as soon as there is room, without waiting for it.
func (c *Conn) enqueue(f control) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if len(c.queue) == maxQueue {
		c.queue = append(c.queue[:0], c.queue[1:]...)
	}
	c.queue = append(c.queue, f)
	if !c.flushing {
		c.flushing = true
		c.wg.Go(c.flush) // ends when all are sent, or with the connection
	}
}

// flush sends the queue.
func (c *Conn) flush() {
	for c.flushOnce() {
	}
}

// flushOnce reports whether there may be more to send.
func (c *Conn) flushOnce() bool {
	if c.writeMu.lock(context.Background(), c.ended) != nil {
		return false
	}
	more, err := c.sendQueue()
	c.writeMu.unlock()
	if err != nil {
		_ = c.lost(err)
	}
	return more
}

// sendQueue sends what waits. writeMu is held.
func (c *Conn) sendQueue() (more bool, err error) {
	c.mu.Lock()
	more = len(c.queue) > 0 && c.err == nil
	c.flushing = more
	c.mu.Unlock()
	if !more {
		return false, nil
	}
	out := c.startOutput()
	defer outBuffers.Put(out)
	_, err = c.s.Write(out.b)
	return err == nil, err
}

// heartbeat sends pings and ends the connection of a peer that is silent. It
// ends with the connection.
func (c *Conn) heartbeat(h Heartbeat) {
	next := time.Now().Add(h.Interval)
	var unanswered time.Time // when the first ping was sent since which nothing came; zero: none
	check := next
	for {
		wake := next
		if !unanswered.IsZero() && check.Before(next) {
			wake = check
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-c.ended:
			timer.Stop()
			return
		case <-timer.C:
		}
		now := time.Now()
		if c.heard.Load() >= unanswered.UnixNano() {
			unanswered = time.Time{}
		}
		if !unanswered.IsZero() && !now.Before(check) {
			// Nobody hears a peer who does not listen.
			since := c.waiting.Load()
			if since == 0 {
				since = now.UnixNano()
			}
			check = time.Unix(0, max(since, unanswered.UnixNano())).Add(h.Timeout)
			if !now.Before(check) {
				_, _ = c.end(&CloseError{Code: StatusAbnormal, Err: ErrHeartbeat}, false) // sends nothing
				return
			}
		}
		if !now.Before(next) {
			next = now.Add(h.Interval)
			c.mu.Lock()
			c.pingCount++
			name := strconv.FormatUint(c.pingCount, 10)
			c.mu.Unlock()
			c.enqueue(control{ws.OpPing, []byte(name)})
			if unanswered.IsZero() {
				unanswered = now
				check = now.Add(h.Timeout)
			}
		}
	}
}
