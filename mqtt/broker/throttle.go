package broker

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A throttle holds a client to its rates, on all of its streams together.
type throttle struct {
	messages, bytes, filters *rate.Limiter // nil: no limit
}

// newThrottle returns nil if there is nothing to hold to.
func newThrottle(q *Quotas, maxPacket uint32) *throttle {
	t := &throttle{
		messages: newRate(q.MessageRate, 1),
		bytes:    newRate(q.ByteRate, 1),
		filters:  newRate(q.SubscribeRate, 60),
	}
	if t.messages == nil && t.bytes == nil && t.filters == nil {
		return nil
	}
	if t.bytes != nil { // the largest packet must get through
		t.bytes.SetBurst(max(t.bytes.Burst(), int(min(maxPacket, 1<<30))+5))
	}
	return t
}

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

// throttled waits until a packet is within its client's rates. It reports false
// if the connection ends first. No lock is held: meanwhile nothing is read, and
// flow control holds the client back.
func (in *inlet) throttled(p packet.Packet, size int) bool {
	cn, src := in.cn, &in.src
	d := cn.throttle.delay(src.now, p, size)
	if d <= 0 {
		return true
	}
	cn.b.count.throttled.Add(1)
	src.flush() // whoever has output from this source must not wait with us
	in.tell()
	cn.hold()
	defer func() {
		src.now = time.Now()
		cn.release(src.now)
	}()
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
