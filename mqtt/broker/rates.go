package broker

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// Whose rate a client had to wait for, in Stats.Throttled.
const (
	ThrottledClient   = "client"
	ThrottledAddr     = "address"
	ThrottledListener = "listener"
	ThrottledAll      = "all"
)

var allThrottles = [...]string{ThrottledClient, ThrottledAddr, ThrottledListener, ThrottledAll}

// A sharedRate holds several clients together to a number of messages and of bytes
// a second. Those above it wait, one behind the other, and pay when their packet is
// let through: what a client that goes away would still have sent is no debt of the
// others. Who has gone gives up its turn as soon as its Link ends. QUIC's does with the
// connection; TCP's does not while nothing is read, and what came before the end is
// not to be lost: it is let through in its turn.
type sharedRate struct {
	index           int                          // of its counter
	messages, bytes atomic.Pointer[rate.Limiter] // nil: no limit
	turn            chan struct{}                // who has put something in waits for the rate
	changed         chan struct{}                // holds something: whose turn it is must look again
	waiting         atomic.Int64
}

func (s *sharedRate) init(index int) {
	s.index = index
	s.turn = make(chan struct{}, 1)
	s.changed = make(chan struct{}, 1)
}

// set changes the rates. Broker.mu is held, or nobody knows s yet.
func (s *sharedRate) set(messages, bytes float64, maxPacket uint32) {
	change := func(p *atomic.Pointer[rate.Limiter], perSecond float64, least int) {
		l := newRate(perSecond, 1)
		if l == nil {
			p.Store(nil)
			return
		}
		l.SetBurst(max(l.Burst(), least))
		if old := p.Load(); old != nil { // what it has let through counts
			old.SetLimit(l.Limit())
			old.SetBurst(l.Burst())
			return
		}
		p.Store(l)
	}
	change(&s.messages, messages, 1)
	change(&s.bytes, bytes, largest(maxPacket))
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// recovered reports whether nothing would be forgotten with s.
func (s *sharedRate) recovered(now time.Time) bool {
	for _, l := range []*rate.Limiter{s.messages.Load(), s.bytes.Load()} {
		if l != nil && l.TokensAt(now) < float64(l.Burst()) {
			return false
		}
	}
	return true
}

// A toll is what a packet has yet to pay of a rate.
type toll struct {
	rate *atomic.Pointer[rate.Limiter] // which may change until it is paid
	n    int                           // 0: nothing
}

// due returns what the rate takes now, nil and 0 for nothing. A packet that is larger
// than a rate which has become less takes all that it has.
func (t *toll) due() (*rate.Limiter, int) {
	l := t.rate.Load()
	if l == nil || t.n == 0 {
		return nil, 0
	}
	return l, min(t.n, l.Burst())
}

// paid reports whether nothing has to be paid any more, and pays if the rate allows it.
func (t *toll) paid(now time.Time) bool {
	l, n := t.due()
	if l != nil && !l.AllowN(now, n) {
		return false
	}
	t.n = 0
	return true
}

// in returns after what time to try to pay; it is 0 if that is now.
func (t *toll) in(now time.Time) time.Duration {
	l, n := t.due()
	if l == nil {
		return 0
	}
	missing := float64(n) - l.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	// A rate may be so small that a Duration does not hold what it takes, and the time
	// that is missing so short that it rounds to none.
	seconds := min(missing/float64(l.Limit()), time.Hour.Seconds())
	return max(time.Duration(seconds*float64(time.Second)), time.Microsecond)
}

// share waits until a packet is within a rate of several clients. It reports false
// if the connection ends first.
func (in *inlet) share(s *sharedRate, p packet.Packet, size int) bool {
	messages, bytes := toll{rate: &s.messages}, toll{&s.bytes, size}
	if _, ok := p.(*packet.Publish); ok {
		messages.n = 1
	}
	if l, _ := messages.due(); l == nil {
		if l, _ := bytes.due(); l == nil {
			return true
		}
	}
	if s.waiting.Load() == 0 {
		// Not the source's time, which may be of a while ago: a limiter must not
		// be told of times in another order.
		now := time.Now()
		if messages.paid(now) && bytes.paid(now) {
			return true
		}
	}
	return in.shareInTurn(s, messages, bytes)
}

// shareInTurn is share for a packet that has to wait: for those before it, or for
// what it takes.
func (in *inlet) shareInTurn(s *sharedRate, messages, bytes toll) bool {
	cn := in.cn
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	return in.heldBack(s.index, func() bool {
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-cn.link.Context().Done():
			return false
		case <-cn.b.ctx.Done():
			return false
		}
		for {
			now := time.Now()
			d := max(messages.in(now), bytes.in(now))
			// Both at once: who goes away between them would have paid for nothing.
			if d == 0 && messages.paid(now) && bytes.paid(now) {
				return true
			}
			if !cn.pass(d, s.changed) {
				return false
			}
		}
	})
}

// heldBack calls wait while nothing is read from the client. No lock is held.
func (in *inlet) heldBack(why int, wait func() bool) bool {
	cn, src := in.cn, &in.src
	cn.b.count.throttled[why].Add(1)
	src.flush() // whoever has output from this source must not wait with us
	in.tell()
	cn.hold()
	defer func() {
		src.now = time.Now()
		cn.release(src.now)
	}()
	return wait()
}

// pass lets time pass, less if something comes from enough, which may be nil. It
// reports false if the connection ends first.
func (cn *conn) pass(d time.Duration, enough <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-enough:
		return true
	case <-cn.link.Context().Done():
	case <-cn.b.ctx.Done():
	}
	return false
}

// A listenerUse is what a listener's connections have of the broker together.
type listenerUse struct {
	conns atomic.Int64
	rates sharedRate
}
