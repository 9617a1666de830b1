//go:build ngtcp2 && cgo

package ngtcp2

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// reportStep is how much Read consumes before it tells the library, if there is
// more to read: the peer's credit for other streams depends on it.
const reportStep = 128 << 10

// A recvStream is the receiving direction of a stream.
//
// What has arrived is detached from the library in the form of chunks, which
// Read copies from without the connection's lock: the loop goes on meanwhile.
// mu comes before conn.mu.
type recvStream struct {
	s        *stream
	waiter   // for data, the end or the deadline
	deadline deadline
	failed   atomic.Pointer[error] // what Read returns, once it is decided; set with c.mu
	read     atomic.Uint64         // bytes

	mu       sync.Mutex
	head     *capi.Chunk // guarded by mu; detached, nil if all was read
	next     *capi.Chunk // guarded by mu; the one after that of rest
	rest     []byte      // guarded by mu; of the current chunk
	consumed int         // guarded by mu; bytes that the library does not know are read
	fin      bool        // guarded by mu; there is no more
	over     error       // guarded by mu; why the connection has ended: rest is all that is left

	left atomic.Pointer[remainder] // until adopt has it; set with c.mu

	detached bool // guarded by c.mu: head is not nil, perhaps
	ended    bool // guarded by c.mu: the direction has
	kept     bool // guarded by c.mu: what had arrived has outlived the connection
}

// Read implements transport.ReceiveStream.
func (s *recvStream) Read(p []byte) (int, error) {
	for {
		arrived := (<-chan struct{})(nil)
		n, err := s.tryRead(p, &arrived)
		if s.failed.Load() != nil {
			s.release() // what failed it could not
		}
		if s.left.Load() != nil {
			s.settle() // what kept it could not
		}
		if arrived == nil {
			return n, err
		}
		<-arrived
	}
}

// tryRead reads what there is. If there is nothing, it sets arrived.
func (s *recvStream) tryRead(p []byte, arrived *<-chan struct{}) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopt()
	if s.fin && len(s.rest) == 0 && len(p) > 0 {
		return s.finish() // even if the deadline has passed
	}
	if err := s.err(); err != nil {
		s.wake() // the others who wait too
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.over != nil {
		return s.readOver(p)
	}
	n := s.copy(p)
	switch {
	case len(s.rest) == 0:
		ch := s.waiting() // before the look at what has arrived
		if err := s.refill(n == 0); err != nil && n == 0 {
			s.wake()
			return 0, err
		}
		if s.over != nil && n == 0 {
			return s.readOver(p)
		}
		if n < len(p) && len(s.rest) > 0 {
			n += s.copy(p[n:])
			if len(s.rest) == 0 {
				_ = s.refill(false) // the next Read finds the error
			}
		}
		if n == 0 && !s.fin {
			if ch == nil {
				ch = s.wait()
				s.wake() // look again: what came meanwhile woke nobody
			}
			*arrived = ch
			return 0, nil
		}
	case s.consumed >= reportStep:
		s.report()
	}
	s.read.Add(uint64(n))
	if n == 0 { // and fin
		return s.finish()
	}
	if len(s.rest) > 0 || s.fin || s.over != nil {
		s.wake() // there may be another reader
	}
	return n, nil
}

// finish is Read at the end of the stream. The caller holds mu.
func (s *recvStream) finish() (int, error) {
	if !s.failed.CompareAndSwap(nil, &eof) {
		s.wake()
		return 0, *s.failed.Load()
	}
	s.deadline.stop()
	s.wake()
	return 0, io.EOF
}

var eof = io.EOF

// err is what Read returns at once.
func (s *recvStream) err() error {
	if p := s.failed.Load(); p != nil {
		return *p
	}
	return s.deadline.err()
}

// copy copies from the chunks. The caller holds mu.
func (s *recvStream) copy(p []byte) int {
	n := 0
	for n < len(p) && len(s.rest) > 0 {
		k := copy(p[n:], s.rest)
		n += k
		s.rest = s.rest[k:]
		for len(s.rest) == 0 && s.next != nil {
			s.rest, s.next = s.next.Bytes(), s.next.Next()
		}
	}
	s.consumed += n
	return n
}

// refill gives back the chunks that were read, and takes what has arrived
// since. If wait is false, it does neither while a callback of the handshake may
// be running. The caller holds mu.
func (s *recvStream) refill(wait bool) error {
	c := s.s.c
	if wait {
		if err := c.enterBefore(&s.deadline); err != nil {
			if end := c.ending.Load(); end == nil || !end.keeps {
				return err
			}
			c.mu.Lock() // whoever has it tears the connection down
		}
	} else if !c.lockBriefly() {
		return nil
	}
	defer c.unlock()
	if r := c.reason(); r != nil {
		c.tearDown()
		if s.adopt(); s.over != nil {
			return nil
		}
		return r
	}
	cs := s.s.cs
	if cs == nil { // the stream is over
		return nil
	}
	s.reportLocked(cs)
	if s.head != nil {
		c.cc.Recycle(s.head)
		s.head = nil
	}
	if s.failed.Load() == nil {
		s.head = cs.RecvChunks()
	}
	s.detached = s.head != nil
	if s.head != nil {
		s.rest, s.next = s.head.Bytes(), s.head.Next()
		for len(s.rest) == 0 && s.next != nil {
			s.rest, s.next = s.next.Bytes(), s.next.Next()
		}
	}
	if len(s.rest) == 0 && !s.fin && cs.RecvFinished() {
		s.fin = true
		s.end()
	}
	if s.s.tryFree() {
		c.flush(c.ep.now())
	}
	return nil
}

// report returns credit to the peer. The caller holds mu.
func (s *recvStream) report() {
	c := s.s.c
	if !c.lockBriefly() {
		return // a later Read does
	}
	defer c.unlock()
	if s.s.cs != nil && c.reason() == nil {
		s.reportLocked(s.s.cs)
	}
}

// reportLocked is report for those who hold c.mu.
func (s *recvStream) reportLocked(cs *capi.Stream) {
	if s.consumed == 0 {
		return
	}
	due := cs.Consumed(s.consumed)
	s.consumed = 0
	if due {
		s.s.c.flush(s.s.c.ep.now())
	}
}

// readable is called when data or the end has arrived. The caller holds c.mu.
func (s *recvStream) readable() {
	if s.failed.Load() != nil {
		s.discard()
		return
	}
	s.s.c.wakeLater(&s.waiter)
}

// discard drops what has arrived and will not be read: it must not use up the
// connection's window. The caller holds c.mu.
func (s *recvStream) discard() {
	cs := s.s.cs
	if cs == nil {
		return
	}
	ch := cs.RecvChunks()
	if n := chunkBytes(ch); n > 0 {
		cs.Consumed(n)
	}
	if ch != nil {
		s.s.c.cc.Recycle(ch)
	}
}

func chunkBytes(ch *capi.Chunk) (n int) {
	for ; ch != nil; ch = ch.Next() {
		n += len(ch.Bytes())
	}
	return n
}

// fail ends the direction for good. The caller holds c.mu.
func (s *recvStream) fail(err error) {
	if !s.failed.CompareAndSwap(nil, &err) {
		return
	}
	s.end()
	s.deadline.stop()
	s.discard()
	if s.mu.TryLock() { // if not, Read releases them
		s.releaseLocked()
		s.mu.Unlock()
	}
	s.wake()
}

// release gives back what was detached and will not be read.
func (s *recvStream) release() {
	c := s.s.c
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == nil {
		return
	}
	if !c.lockBriefly() {
		if c.ep.group.run(s.releaseLater) {
			return
		}
		c.mu.Lock() // the endpoint closes, and waits for the callback as well
	}
	s.releaseLocked()
	s.s.tryFree()
	c.flush(c.ep.now()) // the peer may wait for the window that this has taken
	c.unlock()
}

// releaseLater is release when the callback has ended that has the connection. It
// takes the locks one after the other: release may not have returned yet.
func (s *recvStream) releaseLater() {
	c := s.s.c
	c.mu.Lock()
	c.unlock()
	s.release()
}

// releaseLocked is release for those who hold mu and c.mu.
func (s *recvStream) releaseLocked() {
	if s.head != nil {
		left := len(s.rest) + chunkBytes(s.next) + s.consumed
		if cs := s.s.cs; cs != nil && s.s.c.cc != nil {
			if left > 0 {
				cs.Consumed(left)
			}
			s.s.c.cc.Recycle(s.head)
		} else {
			capi.FreeChunks(s.head)
		}
		s.head, s.next, s.rest, s.consumed = nil, nil, nil, 0
	}
	s.detached = false
}

// end is called when the direction has ended. The caller holds c.mu.
func (s *recvStream) end() {
	if !s.ended {
		s.ended = true
		s.s.endDirection()
	}
}

// settled reports whether the library may forget the direction. The caller
// holds c.mu.
func (s *recvStream) settled() bool { return s.ended && !s.detached }

// CancelRead implements transport.ReceiveStream.
func (s *recvStream) CancelRead(code transport.ErrorCode) {
	c := s.s.c
	if reason := c.lock(); reason != nil {
		s.drop(reason)
		return
	}
	defer c.unlock()
	if s.failed.Load() != nil {
		return
	}
	said := s.s.cs != nil && !s.ended
	if said {
		s.s.cs.StopSending(wireCode(code))
	}
	s.fail(s.s.error(wireCode(code), false))
	if s.s.tryFree() || said {
		c.flush(c.ep.now())
	}
}

// SetReadDeadline implements transport.ReceiveStream.
func (s *recvStream) SetReadDeadline(t time.Time) error {
	if s.failed.Load() == nil {
		s.deadline.set(t, &s.waiter)
	}
	return nil
}

// StreamID implements transport.ReceiveStream.
func (s *recvStream) StreamID() transport.StreamID { return transport.StreamID(s.s.id) }

// Stats implements transport.ReceiveStream.
func (s *recvStream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesRead: s.read.Load()}
}
