package allhttp

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// defaultRaceDelay is what the working group of Happy Eyeballs recommends for
// the time between attempts, RFC 8305.
const defaultRaceDelay = 250 * time.Millisecond

// A race is QUIC against TCP, for all requests that need a connection to an
// origin at the time. It goes on after it is decided, until both have ended.
type race struct {
	origin  string
	decided chan struct{} // closed when the fields that follow are set

	http3  bool   // QUIC has won
	err    error  // nobody has
	reason Reason // why it is this one

	mu       sync.Mutex
	prepared net.Conn // the connection that has won, until it is taken; guarded by mu
	users    int      // requests that may take it; guarded by mu
}

// A start says when the two set out.
type start int

const (
	quicFirst  start = iota // TCP follows after the delay
	together                // nobody waits
	tcpFirst                // QUIC only if TCP fails
	quicBehind              // only QUIC: there is TCP
)

// join returns the race for an origin, and starts it if there is none; nil: t is
// closed. The caller leaves it. Of ctx only the values count.
func (t *Transport) join(ctx context.Context, origin string, s start) *race {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil
	}
	r := t.races[origin]
	if r == nil {
		r = &race{origin: origin, decided: make(chan struct{})}
		t.races[origin] = r
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(t.ctx, cancel)
		t.wg.Go(func() { // ends with both connections made or failed, or with t
			defer cancel()
			defer stop()
			t.run(ctx, r, s)
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.races, origin)
		})
	}
	r.mu.Lock()
	r.users++
	r.mu.Unlock()
	return r
}

// run runs a race to its end.
func (t *Transport) run(ctx context.Context, r *race, s start) {
	type tcpResult struct {
		conn net.Conn
		err  error
	}
	quic, tcp := make(chan error, 1), make(chan tcpResult, 1)
	tcpCtx, cancelTCP := context.WithCancel(ctx)
	defer cancelTCP()
	startQUIC := func() {
		t.wg.Go(func() { // ends with ctx or the handshake
			_, err := t.h3.Connect(ctx, r.origin)
			quic <- err
		})
	}
	startTCP := func() {
		t.wg.Go(func() { // ends with tcpCtx or the handshake
			c, err := t.dialRace(tcpCtx, r.origin)
			tcp <- tcpResult{c, err}
		})
	}
	var timer <-chan time.Time
	quicRuns, tcpRuns := s != tcpFirst, s == together || s == tcpFirst
	if quicRuns {
		startQUIC()
	}
	if tcpRuns {
		startTCP()
	}
	tcpWorks := s == quicBehind
	switch s {
	case quicFirst:
		tm := time.NewTimer(t.raceDelay())
		defer tm.Stop()
		timer = tm.C
	case quicBehind:
		r.decide(false, ReasonConnected, nil)
	}
	var quicErr, tcpErr error
	for quicRuns || tcpRuns {
		select {
		case <-timer:
			timer = nil
			tcpRuns = true
			startTCP()
		case err := <-quic:
			quicRuns = false
			if quicErr = err; err == nil {
				timer = nil
				cancelTCP()
				t.suspect.Store(false)
				r.decide(true, reasonAfter(tcpErr), nil)
				break
			}
			if tcpWorks && ctx.Err() == nil {
				t.blame(quicErr)
			}
			if timer != nil {
				timer = nil
				tcpRuns = true
				startTCP()
			}
		case res := <-tcp:
			tcpRuns = false
			if tcpErr = res.err; res.err == nil {
				tcpWorks = true
				switch {
				case quicErr != nil:
					t.blame(quicErr)
				case s == quicFirst && quicRuns:
					t.suspect.Store(true) // until it is heard of
				}
				r.offer(res.conn, reasonAfter(quicErr))
				break
			}
			if s == tcpFirst && !quicRuns && ctx.Err() == nil {
				quicRuns = true
				t.forgive(r.origin)
				startQUIC()
			}
		}
	}
	r.decide(false, ReasonFailed, raceError(tcpErr, quicErr))
}

func reasonAfter(other error) Reason {
	if other != nil {
		return ReasonFailed
	}
	return ReasonRace
}

// raceError says why there is no connection at all.
func raceError(tcp, quic error) error {
	switch {
	case quic == nil:
		return tcp
	case tcp == nil:
		return quic
	}
	return fmt.Errorf("%w; %w", tcp, quic)
}

// decide ends the race for the requests. The first decision counts.
func (r *race) decide(http3 bool, reason Reason, err error) {
	select {
	case <-r.decided:
	default:
		r.http3, r.reason, r.err = http3, reason, err
		close(r.decided)
	}
}

// offer decides for TCP, unless QUIC has won.
func (r *race) offer(c net.Conn, reason Reason) {
	r.mu.Lock()
	select {
	case <-r.decided:
	default:
		if r.users > 0 {
			r.prepared, c = c, nil
		}
		r.decide(false, reason, nil)
	}
	r.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// take returns the connection that has won, or nil.
func (r *race) take() net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.prepared
	r.prepared = nil
	return c
}

// leave is called when a request has its connection. What nobody took is closed.
func (r *race) leave() {
	r.mu.Lock()
	r.users--
	last := r.users == 0
	r.mu.Unlock()
	if last {
		if c := r.take(); c != nil {
			c.Close()
		}
	}
}
