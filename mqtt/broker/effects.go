package broker

import (
	"fmt"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// apply does what c's machine wants done. No lock is held.
func (b *Broker) apply(src *source, c *client, fx []session.Effect) {
	for i := range fx {
		e := &fx[i]
		switch e.Kind {
		case session.EffectRoute:
			if b.durable.refuses(e) {
				b.durable.refuse(src, c, e)
				continue
			}
			// Before the unit, which others' commits wait for: a hook may take its time.
			_, name := splitDelayed(e.Message.Publish.Topic)
			may := src.mayPublish(name)
			if b.durable != nil {
				src.beginUnit(c, e)
			}
			src.ack, src.owed = target{c, e.Stream, e.PacketID}, nil
			code := packet.NotAuthorized
			if may {
				code = b.accept(src, c, e.Message)
			}
			owed := src.owed
			if owed != nil {
				src.interrupt()
			}
			src.ack, src.owed = target{}, nil
			switch {
			case owed != nil:
				owed.code = code
				owed.pay(src.now)
			case e.PacketID != 0:
				c.mu.Lock()
				if src.unit.split {
					c.journal.split = true
				}
				c.s.Routed(src.now, e.Stream, e.PacketID, code)
				src.touch(c)
				c.mu.Unlock()
			}
			if b.durable != nil {
				src.endUnit()
			}
		case session.EffectWill:
			if reserved(e.Message.Publish.Topic) {
				b.count.dropDenied.Add(1)
				continue
			}
			// It may come in the middle of another's message, whose
			// acknowledgement is none of its business.
			src.interrupt()
			if !b.wills.may(src, c, &e.Message.Publish) {
				continue
			}
			b.count.wills.Add(1)
			ack, owed, whole := src.ack, src.owed, src.unit
			src.ack, src.owed, src.unit = target{}, nil, unit{}
			b.accept(src, c, e.Message)
			src.ack, src.owed, src.unit = ack, owed, whole
		case session.EffectSubscribe:
			b.subscribe(src, c, e)
		case session.EffectUnsubscribe:
			for _, f := range e.Unsubscribe.Filters {
				b.subs.tree.Unsubscribe(f, c)
			}
			c.mu.Lock()
			for _, f := range e.Unsubscribe.Filters {
				c.asked.set(f, "")
			}
			c.s.Unsubscribed(src.now, e.Stream, e.Unsubscribe.PacketID, nil)
			src.touch(c)
			c.mu.Unlock()
		case session.EffectClose:
			c.mu.Lock()
			if c.conn != nil {
				c.conn.end(src.now, e.Code, e.Reason, e.Link)
			}
			c.mu.Unlock()
		case session.EffectReset:
			c.mu.Lock()
			cn := c.conn
			c.mu.Unlock()
			if cn != nil {
				cn.resetStream(e.Stream, e.Code, e.Reason)
			}
		case session.EffectAuth:
			b.reauthenticate(c, e.Auth)
		case session.EffectEnd:
			b.forget(c)
		}
	}
}

// subscribe carries out a SUBSCRIBE of which the session admits every filter.
func (b *Broker) subscribe(src *source, c *client, e *session.Effect) {
	p := e.Subscribe
	if b.durable.failing() && b.refuseSubscribe(src, c, e) {
		return
	}
	var id uint32
	if p.Properties != nil && len(p.Properties.SubscriptionIDs) > 0 {
		id = p.Properties.SubscriptionIDs[0]
	}
	granted := src.granted(p, e.New)
	for i, s := range p.Subscriptions {
		if granted != nil && granted[i].Failed() {
			continue
		}
		sub := newSubscription(e.Stream, e.Connection)
		sub.id, sub.qos, sub.noLocal, sub.asPublished = id, s.QoS, s.NoLocal, s.RetainAsPublished
		b.subs.tree.Subscribe(s.Filter, c, sub)
	}
	c.mu.Lock()
	if c.gone {
		// Ended while we were at it, perhaps before the tree knew.
		c.mu.Unlock()
		for _, s := range p.Subscriptions {
			b.subs.tree.Unsubscribe(s.Filter, c)
		}
		return
	}
	for i, s := range p.Subscriptions {
		if granted == nil || !granted[i].Failed() {
			c.asked.set(s.Filter, src.asked[s.Filter])
		}
	}
	c.s.Subscribed(src.now, e.Stream, p.PacketID, granted)
	src.touch(c)
	c.mu.Unlock()
	for i, s := range p.Subscriptions {
		// [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
		if granted != nil && granted[i].Failed() || s.RetainHandling == 2 || s.RetainHandling == 1 && !e.New[i] {
			continue
		}
		b.sendRetained(src, c, s, id, e)
	}
}

// codeString returns how logs name a reason code.
func codeString(c packet.ReasonCode) string { return fmt.Sprintf("0x%02X %v", uint8(c), c) }

// onDataStream reports whether a data stream may carry packets of type t.
func onDataStream(t packet.Type) bool { return t >= packet.PUBLISH && t <= packet.UNSUBACK }
