//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// A sendStream is the sending direction of a stream. What is written is copied
// into the library's memory and sent by the writer's own goroutine, as far as
// the network takes it.
type sendStream struct {
	s        *stream
	waiter          // for room, the end or the deadline: the Write that has its turn
	turns    waiter // for that turn: the other Writes
	deadline deadline
	written  atomic.Uint64 // bytes
	prio     atomic.Uint32 // transport.Priority: urgency, and incremental as 0x100

	// All guarded by c.mu.
	failed   error           // what Write returns, once it was cancelled
	writing  bool            // a Write has its turn
	closed   bool            // by Close
	finished bool            // all data and the FIN are acknowledged
	ended    bool            // the direction has
	ctx      context.Context // nil until Context is called
	cancel   context.CancelFunc
}

const incremental = 0x100

// smallWrite is how much, in bytes, a Write to one of many streams leaves to be sent
// together with those to the others.
const smallWrite = 8 << 10

func (s *sendStream) init(st *stream) {
	s.s = st
	s.prio.Store(uint32(transport.DefaultPriority.Urgency) | incremental)
}

// Write implements transport.SendStream.
func (s *sendStream) Write(p []byte) (int, error) { return s.write(p, false) }

// WriteLast implements transport.SendStream.
func (s *sendStream) WriteLast(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, s.Close()
	}
	return s.write(p, true)
}

// write hands p over, and the end of the stream right behind it if p is the last.
func (s *sendStream) write(p []byte, last bool) (int, error) {
	c := s.s.c
	var room <-chan struct{}
	n := 0
	turn := false // of this Write, among several at once
	soon := false // it is flushed when all is written
	if err := c.enterBefore(&s.deadline); err != nil {
		return 0, err
	}
	for {
		err := s.writeErr()
		if err == nil && (turn || !s.writing) {
			s.writing, turn = true, true
			k := s.s.cs.Write(p[n:])
			n += k
			if last && n == len(p) {
				s.finish()
			}
			if k > 0 && !c.cc.Held() {
				// While a handshake may call the application, the lock that is given
				// back for a moment may not be had again before the deadline.
				soon = len(p) <= smallWrite && n == len(p) && c.hs.Load() == nil && c.busy(s.s)
				if !soon {
					c.flush(c.ep.now())
				}
			}
			if n < len(p) {
				err = s.writeErr() // flush may have ended the connection
			}
		}
		if err != nil || turn && n == len(p) {
			break
		}
		// Whoever has the turn is told of the end too, and wakes the next.
		wait := room
		if !turn {
			wait = s.turns.wait()
		} else if room == nil {
			room = s.wait()
			if s.deadline.err() != nil {
				continue // what passed before there was a channel woke nobody
			}
			wait = room
		}
		c.unlock()
		<-wait
		if err := c.enterBefore(&s.deadline); err != nil {
			s.abandon(turn)
			s.written.Add(uint64(n))
			return n, err
		}
	}
	err := error(nil)
	if n < len(p) || !turn {
		err = s.writeErr()
	}
	if turn {
		s.writing = false
	}
	if soon {
		c.flushSoon()
	} else {
		c.unlock()
	}
	s.turns.wake() // another may have its turn, or fails too
	if n > 0 {
		s.written.Add(uint64(n))
	}
	return n, err
}

// abandon ends a Write that a callback of the handshake keeps from the
// connection, and its turn with the callback.
func (s *sendStream) abandon(turn bool) {
	if turn {
		c := s.s.c
		c.ep.group.run(func() { // if the endpoint closes, nobody writes any more
			c.mu.Lock()
			s.writing = false
			c.unlock()
			s.turns.wake()
		})
	}
	s.turns.wake()
}

// writeErr is what Write returns at once. The caller holds c.mu.
func (s *sendStream) writeErr() error {
	switch c := s.s.c; {
	case c.reason() != nil:
		return c.reason()
	case s.failed != nil:
		return s.failed
	case s.closed || s.s.cs == nil:
		return net.ErrClosed
	}
	return s.deadline.err()
}

// Close implements transport.SendStream. It ends a Write in progress: what that
// has handed over is sent, the rest is not.
func (s *sendStream) Close() error {
	c := s.s.c
	if !c.enter(nil) {
		return c.reason()
	}
	defer c.unlock()
	if s.closed {
		return nil
	}
	if err := c.reason(); err != nil {
		return err
	}
	if s.failed != nil {
		s.closed = true
		return s.failed
	}
	s.finish()
	c.flush(c.ep.now())
	return nil
}

// finish puts the end of the stream behind what was written. The caller holds c.mu
// and flushes.
func (s *sendStream) finish() {
	s.closed = true
	if s.s.cs != nil {
		s.s.cs.Finish()
	}
	s.end()
	s.wake()
}

// CancelWrite implements transport.SendStream.
func (s *sendStream) CancelWrite(code transport.ErrorCode) {
	c := s.s.c
	if c.lock() != nil {
		return
	}
	defer c.unlock()
	if s.failed != nil || s.finished || s.s.cs == nil {
		return
	}
	s.s.cs.Reset(wireCode(code))
	s.fail(s.s.error(wireCode(code), false))
	s.s.tryFree()
	c.flush(c.ep.now())
}

// fail ends the direction for good. The caller holds c.mu.
func (s *sendStream) fail(err error) {
	if s.failed != nil || s.finished {
		return
	}
	s.failed = err
	s.deadline.stop()
	s.end()
	s.wake()
}

// end is called when the direction has ended. The caller holds c.mu.
func (s *sendStream) end() {
	if s.ended {
		return
	}
	s.ended = true
	s.s.endDirection()
	if s.cancel != nil {
		s.cancel()
	}
}

// SetWriteDeadline implements transport.SendStream.
func (s *sendStream) SetWriteDeadline(t time.Time) error {
	s.deadline.set(t, &s.waiter)
	return nil
}

// SetPriority implements transport.SendStream.
func (s *sendStream) SetPriority(p transport.Priority) {
	urgency := min(p.Urgency, 7)
	v := uint32(urgency)
	if p.Incremental {
		v |= incremental
	}
	c := s.s.c
	if !c.enter(nil) {
		return
	}
	defer c.unlock()
	s.prio.Store(v)
	if s.s.cs != nil && c.cc != nil {
		s.s.cs.SetPriority(urgency, p.Incremental)
	}
}

// Priority implements transport.SendStream.
func (s *sendStream) Priority() transport.Priority {
	v := s.prio.Load()
	return transport.Priority{Urgency: uint8(v), Incremental: v&incremental != 0}
}

// Context implements transport.SendStream.
func (s *sendStream) Context() context.Context {
	c := s.s.c
	if !c.enter(nil) {
		return c.ctx // which is done
	}
	defer c.unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		if s.ended || c.reason() != nil {
			s.cancel()
		}
	}
	return s.ctx
}

// StreamID implements transport.SendStream.
func (s *sendStream) StreamID() transport.StreamID { return transport.StreamID(s.s.id) }

// Stats implements transport.SendStream.
func (s *sendStream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesWritten: s.written.Load()}
}
