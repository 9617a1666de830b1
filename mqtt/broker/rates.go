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
// a second. Those above it wait, one behind the other: what a client that goes away
// would still have sent is no debt of the others.
type sharedRate struct {
	index           int                          // of its counter
	messages, bytes atomic.Pointer[rate.Limiter] // nil: no limit
	turn            chan struct{}                // who has put something in waits for the rate
	waiting         atomic.Int64
}

func (s *sharedRate) init(index int) {
	s.index = index
	s.turn = make(chan struct{}, 1)
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
		if old := p.Load(); old != nil { // its debt stays
			old.SetLimit(l.Limit())
			old.SetBurst(l.Burst())
			return
		}
		p.Store(l)
	}
	change(&s.messages, messages, 1)
	change(&s.bytes, bytes, largest(maxPacket))
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

// A toll is what a packet takes of a rate.
type toll struct {
	l *rate.Limiter // nil: nothing
	n int
}

// share waits until a packet is within a rate of several clients. It reports false
// if the connection ends first.
func (in *inlet) share(s *sharedRate, p packet.Packet, size int) bool {
	var messages, bytes toll
	if l := s.messages.Load(); l != nil {
		if _, ok := p.(*packet.Publish); ok {
			messages = toll{l, 1}
		}
	}
	if l := s.bytes.Load(); l != nil {
		bytes = toll{l, size}
	}
	if messages.l == nil && bytes.l == nil {
		return true
	}
	if s.waiting.Load() == 0 {
		// Not the source's time, which may be of a while ago: a limiter must not
		// be told of times in another order.
		now := time.Now()
		if messages.paid(now) {
			messages = toll{}
			if bytes.paid(now) {
				return true
			}
		}
	}
	return in.shareInTurn(s, messages, bytes)
}

// paid reports whether the rate has what t takes, and takes it.
func (t toll) paid(now time.Time) bool {
	return t.l == nil || t.l.AllowN(now, min(t.n, t.l.Burst()))
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
		now := time.Now()
		return cn.pass(max(take(messages.l, now, messages.n), take(bytes.l, now, bytes.n)))
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

// pass lets time pass. It reports false if the connection ends first.
func (cn *conn) pass(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
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
