//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// A stream is what the directions of a stream have in common. It is found by
// its ID until the library has forgotten it and the application needs nothing
// of it any more.
type stream struct {
	c    *conn
	id   int64
	recv *recvStream // nil if only this side sends
	send *sendStream // nil if only the peer sends
	both *bidiStream // nil unless there are both

	cs      *capi.Stream // guarded by c.mu; nil when it was given back
	closed  bool         // guarded by c.mu: the library has nothing to do with it any more
	taken   bool         // guarded by c.mu: the application has it
	counted bool         // guarded by c.mu: in streamCounts.open
	left    int8         // guarded by c.mu: directions that have not ended
}

// A bidiStream is a stream with both directions, in one piece of memory.
type bidiStream struct {
	stream stream
	recvStream
	sendStream
}

type uniRecvStream struct {
	stream stream
	recvStream
}

type uniSendStream struct {
	stream stream
	sendStream
}

// newStream makes the Go side of cs.
func (c *conn) newStream(cs *capi.Stream, id int64, sends, receives bool) *stream {
	var s *stream
	switch {
	case sends && receives:
		b := new(bidiStream)
		s = &b.stream
		s.both, s.recv, s.send = b, &b.recvStream, &b.sendStream
		s.left = 2
	case receives:
		b := new(uniRecvStream)
		s = &b.stream
		s.recv = &b.recvStream
		s.left = 1
	default:
		b := new(uniSendStream)
		s = &b.stream
		s.send = &b.sendStream
		s.left = 1
	}
	s.c, s.cs, s.id = c, cs, id
	if s.recv != nil {
		s.recv.s = s
	}
	if s.send != nil {
		s.send.init(s)
	}
	return s
}

// addStream makes s known. The caller holds c.mu.
func (c *conn) addStream(s *stream) {
	if c.streams == nil {
		c.streams = make(map[int64]*stream)
	}
	c.streams[s.id] = s
}

// take gives the stream to the application: it is one of the open ones. The
// caller holds c.mu.
func (s *stream) take() {
	s.taken = true
	if s.left > 0 {
		s.counted = true
		s.c.counts.open++
		if s.both != nil {
			s.c.exchanges++
		}
	}
}

// endDirection is called once for each direction. The caller holds c.mu.
func (s *stream) endDirection() {
	s.left--
	if s.left == 0 && s.counted {
		s.counted = false
		s.c.counts.open--
		if s.both != nil {
			s.c.exchanges--
		}
	}
}

// event handles what the library has reported about the stream. The caller
// holds c.mu.
func (s *stream) event(ev *capi.Event) {
	switch ev.Type {
	case capi.Readable:
		if s.recv != nil {
			s.recv.readable()
		}
	case capi.Writable:
		if s.send != nil {
			s.c.wakeLater(&s.send.waiter)
		}
	case capi.StreamReset:
		if s.recv != nil {
			s.recv.fail(s.error(ev.Code, true))
		}
	case capi.StopSending:
		if s.send != nil {
			s.send.fail(s.error(ev.Code, true))
		}
	case capi.StreamFinished:
		if s.send != nil {
			s.send.finished = true
		}
	case capi.StreamClosed:
		s.closed = true
		if s.send != nil {
			s.send.wake()
		}
	}
	s.tryFree()
}

// error is what the application is told after a direction was cancelled.
func (s *stream) error(code uint64, remote bool) error {
	return &transport.StreamError{StreamID: transport.StreamID(s.id), Code: transport.ErrorCode(code), Remote: remote}
}

// tryFree gives the stream back to the library when neither needs it any more.
// If it returns true the caller, who holds c.mu, flushes: the peer is to be told
// that it may open more.
func (s *stream) tryFree() bool {
	// A stream that nobody has accepted takes one of the places that the peer
	// has, even if it was reset: what waits for Accept is bounded.
	if s.cs == nil || !s.closed || !s.taken || s.recv != nil && !s.recv.settled() {
		return false
	}
	raised := s.cs.FreeStream()
	s.cs = nil
	if s.c.streams[s.id] == s {
		delete(s.c.streams, s.id)
	}
	return raised
}

// endStreams ends all streams, and those who wait for one. The caller holds
// c.mu.
func (c *conn) endStreams(end *ending) {
	for _, s := range c.streams {
		if end.keeps && s.taken && s.recv != nil {
			s.recv.keep(end.reason)
		}
		s.fail(end.reason)
		s.cs = nil // freed with the connection
	}
	c.streams = nil
	c.counts.open, c.exchanges = 0, 0
	for kind := range c.opening {
		c.opening[kind] = nil // they look at the connection's context
		c.accepting[kind].wake()
	}
}

// rejectStreams ends the streams that carried early data which the server has
// refused: the library has forgotten them, and their IDs are used again. The
// caller holds mu.
func (c *conn) rejectStreams() {
	for _, s := range c.streams {
		s.counted = false
		s.fail(transport.ErrEarlyDataRejected)
		if s.cs != nil {
			s.cs.FreeStream()
			s.cs = nil
		}
	}
	c.streams = nil
	c.counts.open, c.exchanges = 0, 0
}

// fail ends both directions. The caller holds c.mu.
func (s *stream) fail(err error) {
	if s.recv != nil && !s.recv.kept {
		s.recv.fail(err)
	}
	if s.send != nil {
		s.send.fail(err)
	}
}

func (s *bidiStream) StreamID() transport.StreamID { return transport.StreamID(s.stream.id) }

func (s *bidiStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *bidiStream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesRead: s.read.Load(), BytesWritten: s.written.Load()}
}

// A waiter is where goroutines wait for something that a lock guards. Who wakes
// it wakes one of them, or the next that comes: whoever finds that there is
// something for another to do, or nothing to wait for any more, wakes again.
// It takes memory once somebody waits.
type waiter struct{ token atomic.Pointer[chan struct{}] }

// wait returns the channel to wait on. It must be called before the look at
// what is waited for.
func (w *waiter) wait() <-chan struct{} {
	for {
		if p := w.token.Load(); p != nil {
			return *p
		}
		ch := make(chan struct{}, 1)
		w.token.CompareAndSwap(nil, &ch)
	}
}

// waiting returns the channel if somebody has waited before, or nil.
func (w *waiter) waiting() <-chan struct{} {
	if p := w.token.Load(); p != nil {
		return *p
	}
	return nil
}

func (w *waiter) wake() {
	if p := w.token.Load(); p != nil {
		select {
		case *p <- struct{}{}:
		default:
		}
	}
}

// A deadline is a bound on the calls of one direction. It takes memory once it
// is set.
type deadline struct {
	passed atomic.Bool

	mu    sync.Mutex
	at    time.Time   // guarded by mu; zero for none
	timer *time.Timer // guarded by mu; nil until the first deadline in the future

	// ended is closed when passed is set. It is nil until somebody asks.
	ended chan struct{} // guarded by mu
}

// done returns a channel that is closed when the deadline has passed.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended == nil {
		d.ended = make(chan struct{})
		if d.passed.Load() {
			close(d.ended)
		}
	}
	return d.ended
}

// pass says that the deadline has passed. The caller holds mu.
func (d *deadline) pass() {
	if !d.passed.Swap(true) && d.ended != nil {
		close(d.ended)
	}
}

// reopen says that there is another deadline, or none. The caller holds mu.
func (d *deadline) reopen() {
	if d.passed.Swap(false) {
		d.ended = nil
	}
}

// set moves the deadline. When it has passed, the waiter is woken.
func (d *deadline) set(t time.Time, w *waiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	if t.IsZero() {
		d.reopen()
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.pass()
		w.wake()
		return
	}
	d.reopen()
	if d.timer == nil {
		d.timer = time.AfterFunc(left, func() { d.fire(w) })
	} else {
		d.timer.Reset(left)
	}
}

// fire is called by the timer, perhaps for a deadline that was moved since.
func (d *deadline) fire(w *waiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() || d.passed.Load() {
		return
	}
	if left := time.Until(d.at); left > 0 {
		d.timer.Reset(left)
		return
	}
	d.pass()
	w.wake()
}

// stop ends the timer for good: the direction has ended.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}

// err is what a call that is bounded by d returns.
func (d *deadline) err() error {
	if d.passed.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}
