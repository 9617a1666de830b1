//go:build ngtcp2 && cgo

package ngtcp2

import "github.com/anyquic/anyquic/ngtcp2/internal/capi"

// A remainder is what the application has not read of a stream whose connection
// has ended, unless this side ended it: it stays readable. It is in Go's memory,
// as the library's is freed with the connection, and no more than the windows
// that the connection had.
type remainder struct {
	data   []byte // in order, behind what was detached before
	fin    bool   // the peer has closed the stream, and data is all of it
	reason error  // for the connection's end
}

// keep makes what has arrived outlive the connection. The caller holds c.mu.
func (s *recvStream) keep(reason error) {
	cs := s.s.cs
	if cs == nil || s.failed.Load() != nil {
		return
	}
	ch := cs.RecvChunks()
	s.left.Store(&remainder{data: appendChunks(nil, ch), fin: cs.RecvFinished(), reason: reason})
	capi.FreeChunks(ch)
	s.kept = true
	s.end()
	if s.mu.TryLock() { // if not, Read does it
		s.adopt()
		s.mu.Unlock()
	}
	s.wake()
}

func appendChunks(b []byte, ch *capi.Chunk) []byte {
	if n := chunkBytes(ch); n > 0 && b == nil {
		b = make([]byte, 0, n)
	}
	for ; ch != nil; ch = ch.Next() {
		b = append(b, ch.Bytes()...)
	}
	return b
}

// settle is adopt for those who do not hold mu.
func (s *recvStream) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopt()
}

// adopt takes over what keep has left, behind what was detached before. The caller
// holds mu.
func (s *recvStream) adopt() {
	r := s.left.Swap(nil)
	if r == nil {
		return
	}
	if s.head != nil {
		data := make([]byte, 0, len(s.rest)+chunkBytes(s.next)+len(r.data))
		data = appendChunks(append(data, s.rest...), s.next)
		r.data = append(data, r.data...)
		capi.FreeChunks(s.head)
		s.head, s.next = nil, nil
	}
	s.rest, s.fin, s.over, s.consumed = r.data, s.fin || r.fin, r.reason, 0
	if s.failed.Load() != nil { // drop was quicker
		s.rest = nil
	} else if len(s.rest) == 0 && !s.fin {
		s.conclude(s.over)
	}
}

// readOver is Read when there is nothing left, and nothing to come. The caller
// holds mu.
func (s *recvStream) readOver(p []byte) (int, error) {
	n := s.copy(p)
	if len(s.rest) == 0 {
		s.rest = nil // it may be the end of much memory
	}
	switch {
	case n > 0:
		s.read.Add(uint64(n))
		s.wake() // there may be another reader
		return n, nil
	case s.fin:
		return s.finish()
	}
	s.conclude(s.over)
	s.wake()
	return 0, *s.failed.Load()
}

// conclude makes every Read from now on return err, unless one has been told
// something else.
func (s *recvStream) conclude(err error) {
	if s.failed.CompareAndSwap(nil, &err) {
		s.deadline.stop()
	}
}

// drop is CancelRead after the end of the connection, whose reason Read then
// returns.
func (s *recvStream) drop(reason error) {
	s.conclude(reason)
	s.release()
	s.mu.Lock()
	s.adopt()
	if s.over != nil {
		s.rest = nil
	}
	s.mu.Unlock()
	s.wake()
}
