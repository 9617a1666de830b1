package broker

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A throttle holds a client to its rates, on all of its streams together.
type throttle struct {
	messages, bytes, filters *rate.Limiter  // nil: no limit
	shared                   [3]*sharedRate // of its address, its listener and all; nil: none
}

func (cn *conn) newThrottle() *throttle {
	q, maxPacket := &cn.limits.quotas, cn.limits.session.MaximumPacketSize
	t := &throttle{
		messages: newRate(q.MessageRate, 1),
		bytes:    newRate(q.ByteRate, 1),
		filters:  newRate(q.SubscribeRate, 60),
	}
	if t.bytes != nil {
		t.bytes.SetBurst(max(t.bytes.Burst(), largest(maxPacket)))
	}
	if u := cn.place.addr; u != nil {
		t.shared[0] = &u.rates
	}
	if l := cn.place.listener; l != nil {
		t.shared[1] = &l.rates
	}
	t.shared[2] = &cn.b.admission.rates
	return t
}

// largest returns what the bytes of a rate must let through at once: the largest
// packet.
func largest(maxPacket uint32) int { return int(min(maxPacket, 1<<30)) + 5 }

// delay takes a packet into account and returns how long to wait before it is
// dealt with.
func (t *throttle) delay(now time.Time, p packet.Packet, size int) time.Duration {
	d := take(t.bytes, now, size)
	switch p := p.(type) {
	case *packet.Publish:
		d = max(d, take(t.messages, now, 1))
	case *packet.Subscribe:
		d = max(d, take(t.filters, now, len(p.Subscriptions)))
	case *packet.Unsubscribe:
		d = max(d, take(t.filters, now, len(p.Filters)))
	}
	return d
}

func take(l *rate.Limiter, now time.Time, n int) time.Duration {
	if l == nil {
		return 0
	}
	return l.ReserveN(now, min(n, l.Burst())).DelayFrom(now)
}

// throttled waits until a packet is within its client's rates, and those that it
// shares with others. It reports false if the connection ends first. No lock is held:
// meanwhile nothing is read, and flow control holds the client back.
func (in *inlet) throttled(p packet.Packet, size int) bool {
	cn := in.cn
	if d := cn.throttle.delay(in.src.now, p, size); d > 0 {
		if !in.heldBack(0, func() bool { return cn.pass(d, nil) }) {
			return false
		}
	}
	for _, s := range cn.throttle.shared {
		if s != nil && !in.share(s, p, size) {
			return false
		}
	}
	return true
}
