//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

const maxDatagram = 1 << 16

// A plainSocket works on any net.PacketConn. One goroutine reads, another runs
// the timers.
type plainSocket struct {
	sink   sink
	pc     net.PacketConn
	local  netip.AddrPort
	timers timers

	over   atomic.Bool    // no use of pc from now on
	done   chan struct{}  // closed with over
	rearm  chan struct{}  // capacity 1: the earliest timer has changed
	wg     sync.WaitGroup // alarm
	reader sync.WaitGroup
	ending sync.Once
	closed atomic.Bool
	fault  sync.Once
	stuck  error // set by release: the reader waits for a packet still

	wakeups atomic.Uint64 // of alarm
}

func openPlain(k sink, pc net.PacketConn) (*plainSocket, error) {
	if pc.LocalAddr() == nil {
		return nil, errors.New("ngtcp2: the socket has no local address")
	}
	local, err := k.addrPort(pc.LocalAddr())
	if err != nil {
		return nil, err
	}
	s := &plainSocket{sink: k, pc: pc, local: local, done: make(chan struct{}), rearm: make(chan struct{}, 1)}
	s.timers.kick = s.kick
	return s, nil
}

func (s *plainSocket) start() {
	s.reader.Go(s.read) // ended by end
	s.wg.Go(s.alarm)    // likewise
}

func (s *plainSocket) own()                      {}
func (s *plainSocket) localAddr() netip.AddrPort { return s.local }
func (s *plainSocket) netConn() net.PacketConn   { return s.pc }
func (s *plainSocket) wake(c sleeper)            { s.timers.set(c) }
func (s *plainSocket) forget(c sleeper)          { s.timers.forget(c) }

func (s *plainSocket) kick() {
	select {
	case s.rearm <- struct{}{}:
	default:
	}
}

// send implements socket: each packet on its own. A packet that cannot be sent
// is lost, as it may be further on.
func (s *plainSocket) send(_ blocker, out *capi.Output, buf []byte) bool {
	if s.over.Load() || out.N <= 0 {
		return false
	}
	to := s.sink.netAddr(out.Path.Remote)
	size := out.Segment
	if size <= 0 {
		size = out.N
	}
	for b := buf[:out.N]; len(b) > 0; {
		n := min(size, len(b))
		if _, err := s.pc.WriteTo(b[:n], to); err != nil && errors.Is(err, net.ErrClosed) {
			s.fail(err)
			return false
		}
		b = b[n:]
	}
	return false
}

// read hands over what arrives until the socket ends.
func (s *plainSocket) read() {
	buf := make([]byte, maxDatagram)
	b := new(batch)
	failures := 0
	for {
		n, from, err := s.pc.ReadFrom(buf)
		if s.over.Load() {
			return
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				// Somebody has set a deadline on a socket that is ours.
				if s.pc.SetReadDeadline(time.Time{}) == nil && failures < maxFailures {
					failures++
					continue
				}
			} else if temporary(err) && failures < maxFailures {
				failures++
				continue
			}
			s.fail(err)
			return
		}
		failures = 0
		if n == 0 {
			continue
		}
		remote, err := s.sink.addrPort(from)
		if err != nil {
			continue
		}
		*b = batch{path: capi.Path{Local: s.local, Remote: remote}, data: buf[:n], now: s.sink.now()}
		s.sink.route(s, b)
	}
}

// maxFailures bounds the reads that may fail one after another.
const maxFailures = 100

// temporary reports whether a later read may succeed: a UDP socket reports the
// fate of packets that it has sent in this way.
func temporary(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	ne, ok := errors.AsType[*net.OpError](err)
	return ok && ne.Temporary()
}

// alarm runs the timers until the socket ends.
func (s *plainSocket) alarm() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := s.sink.now()
		for c := s.timers.due(now); c != nil; c = s.timers.due(now) {
			c.expired(now)
			if s.over.Load() {
				return
			}
		}
		var fire <-chan time.Time
		if until := s.timers.sleep(); until != capi.NoExpiry {
			timer.Reset(waitFor(until, s.sink.now()))
			fire = timer.C
		}
		select {
		case <-fire:
		case <-s.rearm:
		case <-s.done:
			return
		}
		s.wakeups.Add(1)
		s.timers.awake()
	}
}

// waitFor returns how long it is until a time.
func waitFor(until, now uint64) time.Duration {
	if until <= now {
		return 0
	}
	return time.Duration(min(until-now, uint64(time.Hour)))
}

// fail reports that pc is of no use any more, once.
func (s *plainSocket) fail(err error) {
	if s.over.Load() {
		return
	}
	s.fault.Do(func() { s.sink.socketFailed(s, &socketError{err}) })
}

// end stops the goroutines: it makes the blocked reader return and waits. If
// unblock fails, the reader ends with the next packet that arrives, or with pc.
func (s *plainSocket) end(unblock func() error) {
	s.ending.Do(func() {
		s.over.Store(true)
		close(s.done)
		if s.stuck = unblock(); s.stuck == nil {
			s.reader.Wait()
		}
		s.wg.Wait()
		s.timers.close()
	})
}

func (s *plainSocket) close() (err error) {
	if s.closed.Swap(true) {
		return nil
	}
	s.end(func() error {
		err = s.pc.Close()
		return nil // nobody reads from it any more
	})
	if errors.Is(err, net.ErrClosed) {
		return nil // by somebody else
	}
	return err
}

func (s *plainSocket) release() {
	if s.closed.Swap(true) {
		return
	}
	s.end(func() error {
		if err := s.pc.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return fmt.Errorf("ngtcp2: the socket is being read from still: %w", err)
		}
		return nil
	})
	s.pc.SetReadDeadline(time.Time{})
}

// A socketError ends the connections of a socket that does not work any more.
type socketError struct{ err error }

func (e *socketError) Error() string   { return "ngtcp2: the socket has failed: " + e.err.Error() }
func (e *socketError) Unwrap() []error { return []error{net.ErrClosed, e.err} }
