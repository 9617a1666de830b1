package broker

import (
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A replay is the retained messages that a subscriber has not been given for
// want of room in its queue. Nobody waits for it: whenever the queue has drained
// to half, the next ones go in. A message that waits takes a pointer, however many
// subscribers it waits for. The zero replay is empty.
type replay struct {
	parts []replayPart // in the order of their subscriptions; none is empty
	waits int          // messages of all parts
}

// A replayPart is what waits for one subscription.
type replayPart struct {
	kept []*kept
	d    session.Delivery // with the subscription's QoS
}

// match returns the retained messages for a new subscription with an identifier,
// or 0. It takes no lock.
func (r *retainedStore) match(subscriber string, s packet.Subscription, id uint32) replayPart {
	part := replayPart{d: session.Delivery{QoS: s.QoS, Retain: true}} // [MQTT-3.3.1-8]
	if id != 0 {
		part.d.SubscriptionIDs = []uint32{id}
	}
	r.tree.Match(s.Filter, func(_ string, k *kept) bool {
		if !s.NoLocal || k.m.From != subscriber {
			part.kept = append(part.kept, k)
		}
		return true
	})
	return part
}

// add lets p wait, behind what waits already.
func (r *replay) add(p replayPart) {
	if len(p.kept) > 0 {
		r.parts = append(r.parts, p)
		r.waits += len(p.kept)
	}
}

// front returns what is to be given next and how; nil if nothing waits.
func (r *replay) front() (*kept, session.Delivery) {
	if r.waits == 0 {
		return nil, session.Delivery{}
	}
	p := &r.parts[0]
	d := p.d
	d.QoS = min(d.QoS, p.kept[0].m.Publish.QoS)
	return p.kept[0], d
}

// pop takes away what front returned.
func (r *replay) pop() {
	r.waits--
	p := &r.parts[0]
	p.kept[0] = nil
	p.kept = p.kept[1:]
	switch {
	case r.waits == 0:
		*r = replay{}
	case len(p.kept) == 0:
		*p = replayPart{}
		r.parts = r.parts[1:]
	}
}

// discard takes away what drop says yes to, by topic, and returns how many those were.
func (r *replay) discard(drop func(name string) bool) int {
	was := r.waits
	r.waits = 0
	for i := range r.parts {
		p := &r.parts[i]
		p.kept = slices.DeleteFunc(p.kept, func(k *kept) bool { return drop(k.m.Publish.Topic) })
		r.waits += len(p.kept)
	}
	r.parts = slices.DeleteFunc(r.parts, func(p replayPart) bool { return len(p.kept) == 0 })
	return was - r.waits
}

// sendRetained sends c the retained messages for a new subscription. None are
// sent for a shared one.
func (b *Broker) sendRetained(src *source, c *client, s packet.Subscription, id uint32, e *session.Effect) {
	part := b.retained.match(c.id, s, id)
	if len(part.kept) == 0 {
		return
	}
	part.d.Stream, part.d.Connection = e.Stream, e.Connection
	c.mu.Lock()
	var fx []session.Effect
	if c.replay.waits > 2*b.retained.tree.Len()+1024 {
		fx = c.disconnectLocked(src.now, packet.QuotaExceeded, "subscribes faster than it takes retained messages")
	} else {
		c.replay.add(part)
		c.refill(src.now)
		src.touch(c)
	}
	c.mu.Unlock()
	c.settle(src.now)
	b.apply(src, c, fx)
}

// refill moves what was spilled to the queue, and waiting retained messages
// while that is less than half full. It reports whether it moved any. The caller holds mu.
func (c *client) refill(now time.Time) bool {
	moved := !c.spill.empty() && c.unspill(now)
	if c.gone || !c.spill.empty() {
		return moved
	}
	for c.replay.waits > 0 && c.s.QueueBytes() < c.half {
		k, d := c.replay.front()
		// A newer one has reached the subscriber as any other message.
		if c.b.retained.current(k) {
			if c.s.Deliver(now, k.m, d) == session.Full {
				break
			}
			moved = true
		}
		c.replay.pop()
	}
	return moved
}

// leaveReplay ends the replay with the connection: what the client was promised
// with QoS 1 or 2 goes to the queue as far as there is room. The caller holds mu.
func (c *client) leaveReplay(now time.Time) {
	c.leaveSpill(now)
	for c.replay.waits > 0 {
		k, d := c.replay.front()
		if d.QoS > packet.AtMostOnce && c.b.retained.current(k) && c.s.Deliver(now, k.m, d) == session.Full {
			break
		}
		c.replay.pop()
	}
	c.b.count.dropQueueFull.Add(uint64(c.replay.waits))
	c.replay = replay{}
}
