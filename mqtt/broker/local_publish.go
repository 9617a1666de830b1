package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// Publish publishes a message from inside the program. It waits for subscribers
// whose queue is full as a publishing client would be made to wait, at most
// Config.HoldTimeout, and copies p.
//
// The code is what a client would find in its acknowledgement:
// packet.NoMatchingSubscribers, or packet.QuotaExceeded if the retained store, or
// the queue of a [Local], had no room. It does not say what a Local will do with
// the message. The packet identifier, DUP, topic alias and subscription
// identifiers of p are ignored. A p that is not valid is a [*packet.Error]. If ctx
// ends first, the error is ctx's, and the subscribers whose queues were full have
// not got the message.
func (b *Broker) Publish(ctx context.Context, p *packet.Publish) (packet.ReasonCode, error) {
	return b.publish(ctx, p, nil)
}

// Publish is [Broker.Publish] with the name of the Local as publisher. A Local
// publishes with it while it works on messages: it is then known not to wait for
// itself.
func (l *Local) Publish(ctx context.Context, p *packet.Publish) (packet.ReasonCode, error) {
	return l.b.publish(ctx, p, l.c)
}

var sources = sync.Pool{New: func() any { return new(source) }}

func (b *Broker) publish(ctx context.Context, p *packet.Publish, self *client) (packet.ReasonCode, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := p.Check(packet.V5); err != nil {
		return 0, err
	}
	if p.Size(packet.V5) > int(b.cfg.Limits.MaximumPacketSize) {
		return 0, &packet.Error{Code: packet.PacketTooLarge, Reason: "PUBLISH: larger than the maximum packet size"}
	}
	if !b.begin() {
		return 0, ErrClosed
	}
	defer b.running.Done()
	from := ""
	if self != nil {
		from = self.id
	}
	src := sources.Get().(*source)
	src.init(b, nil)
	src.ctx, src.self, src.now = ctx, self, time.Now()
	code := b.route(src, session.NewMessage(src.now, p, from))
	src.flush()
	if src.refused != 0 {
		code = src.refused
	}
	src.ctx, src.self, src.refused, src.timer = nil, nil, 0, nil
	sources.Put(src)
	return code, ctx.Err()
}

// deliverLocal is deliver for a Local.
func (src *source) deliverLocal(c *client, m *session.Message, d session.Delivery) bool {
	l := c.local
	e := &LocalMessage{
		l: l, msg: m, QoS: d.QoS, Retain: d.Retain, SubscriptionIDs: slices.Clone(d.SubscriptionIDs),
		own: src.ctx != nil && !src.late,
	}
	if src.cn != nil && src.ack.c == src.cn.client { // not a will
		e.conn = src.cn
	}
	c.mu.Lock()
	taken := src.pushUntil(l, e)
	c.mu.Unlock()
	if src.holding {
		src.unhold()
	}
	if !taken && d.QoS > packet.AtMostOnce {
		src.refuse(packet.QuotaExceeded)
	}
	return taken
}

// pushUntil puts e into l's queue, or waits, or gives up. The caller holds c.mu.
func (src *source) pushUntil(l *Local, e *LocalMessage) bool {
	c := l.c
	for {
		if c.gone {
			src.ignored++
			return false
		}
		// A Local that is held back, or that publishes to itself, cannot make
		// room by waiting.
		own := src.self == c
		limit := l.max
		if own || l.holds > 0 && e.QoS > packet.AtMostOnce {
			limit = 2 * max(l.max, defaultQueue)
		}
		if l.bytes == 0 || l.bytes+e.cost() <= limit {
			if e.QoS > packet.AtMostOnce {
				e.owed = src.owe()
			}
			l.push(src.now, e)
			return true
		}
		wait := src.localPatience(c, e.QoS)
		if own {
			wait = 0
		}
		if wait <= 0 {
			if dropped := l.dropQoS0(); dropped > 0 {
				src.dropped += dropped
				continue
			}
			src.dropped++
			return false
		}
		src.interrupt()
		src.wait(c, wait)
	}
}

// localPatience returns how much longer to wait for a Local with a full queue.
// The caller holds c.mu.
func (src *source) localPatience(c *client, qos packet.QoS) time.Duration {
	idle := src.now.Sub(c.progress)
	wait := src.b.cfg.StallTimeout - idle
	if wait <= 0 && !c.stalled {
		c.stalled = true
		src.b.count.stalled.Add(1)
	}
	if wait <= 0 && qos > packet.AtMostOnce && c.local.qos0 == 0 {
		wait = src.b.cfg.HoldTimeout - idle
	}
	return min(wait, src.left())
}

// refuse makes code the acknowledgement of the message at hand. No lock is held.
func (src *source) refuse(code packet.ReasonCode) {
	if src.refused == 0 {
		src.refused = code
	}
	if o := src.owe(); o != nil {
		o.refuse(code)
		o.pay(src.now)
	}
}
