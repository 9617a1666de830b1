package broker

import (
	"context"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// What happens to a message whose subscriber's queue is full:
//
//   - The subscriber is live: it has taken bytes, or acknowledged something,
//     within its patience. The publisher's reading goroutine waits for room.
//   - It is stalled. QoS 0 messages are dropped from its queue, oldest first,
//     until the queue is at three quarters, and nobody waits. It is live again
//     with the next byte that it takes.
//   - It is stalled and nothing is left to drop. A QoS 0 message is dropped; a
//     message of QoS 1 or 2 waits until nothing has moved for HoldTimeout, then
//     the subscriber is disconnected with Quota exceeded (0x97).
//   - It is offline. Nobody waits; QoS 0 messages in its queue make room.
//
// Patience is Config.StallTimeout. It ends early with a subscriber whose carrier
// hears nothing from its host: one that does not read for a moment must not
// lose anything, and one that has vanished must not hold up publishers.
//
// A publisher waits for one message no longer than Config.HoldTimeout, all its
// subscribers together: after that, the message is treated as if those that
// are still full were stalled. So a publisher gets at least one message through
// per HoldTimeout however many subscribers dribble, and two clients that
// publish to each other without reading hold each other for one StallTimeout.
// Messages of QoS 1 and 2 to a client that is itself held back do not wait at
// first; see spill.

// pressure is a client's part in back-pressure. It is guarded by client.mu.
type pressure struct {
	room     chan struct{} // closed when there is room again; nil: nobody waits
	progress time.Time     // when the subscriber last took something, or had nothing to take
	heard    uint64        // packets that have come from its host
	heardAt  time.Time     // when they were found to be that many
	stalled  bool          // found stalled, and no progress since
	slow     slowness
}

// patience returns how much longer to wait for c, which has a connection. The
// caller holds mu.
func (c *client) patience(now time.Time) time.Duration {
	wait := c.b.cfg.StallTimeout - now.Sub(c.progress)
	packets, within := c.conn.link.Heard()
	if within == 0 {
		return wait
	}
	if packets != c.heard {
		c.heard, c.heardAt = packets, now
	}
	return min(wait, within-now.Sub(c.heardAt))
}

// progressed notes that the subscriber took something. The caller holds mu.
func (c *client) progressed(now time.Time) {
	c.stalled = false
	c.progress = now
	c.drained()
	if c.conn != nil {
		c.heard, _ = c.conn.link.Heard()
		c.heardAt = now
	}
}

// wakeWaiting lets publishers look again. The caller holds mu.
func (c *client) wakeWaiting() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// deliver gives m to c. It reports whether c's session took it.
func (src *source) deliver(c *client, m *session.Message, d session.Delivery) bool {
	if c.local != nil {
		return src.deliverLocal(c, m, d)
	}
	if src.unit.skip != nil && src.unit.skip[c.id] {
		return true
	}
	c.mu.Lock()
	r := session.Ignored
	if !c.gone {
		r = src.enqueue(c, m, d)
	}
	if r == session.Full {
		return src.deliverFull(c, m, d)
	}
	return src.delivered(c, r)
}

// enqueue gives m to the machine, but not past what was spilled. The caller
// holds mu.
func (c *client) enqueue(now time.Time, m *session.Message, d session.Delivery) session.DeliverResult {
	if d.QoS > packet.AtMostOnce && !c.spill.empty() {
		return session.Full
	}
	return c.s.Deliver(now, m, d)
}

// deliverFull goes on where deliver found the queue full. The caller holds
// c.mu, which is released.
func (src *source) deliverFull(c *client, m *session.Message, d session.Delivery) bool {
	c.foundFull(src.now)
	ok := src.tryUntil(c, m, d)
	c.reportSlow(src.now)
	if src.holding {
		src.unhold()
	}
	return ok
}

// hold and unhold mark that the publisher is held back. No lock is held.
func (src *source) hold() {
	src.holding = true
	switch {
	case src.cn != nil:
		src.cn.hold()
	case src.self != nil:
		src.self.local.hold(1)
	}
}

func (src *source) unhold() {
	src.holding = false
	switch {
	case src.cn != nil:
		src.cn.release(src.now)
	case src.self != nil:
		src.self.local.hold(-1)
	}
}

// publisher is done when nobody waits for the message at hand any more; nil if
// nobody does to begin with.
func (src *source) publisher() context.Context {
	if src.cn != nil {
		return src.cn.link.Context()
	}
	return src.ctx
}

func (src *source) tryUntil(c *client, m *session.Message, d session.Delivery) bool {
	for {
		if src.spillTo(c, m, d) {
			return src.delivered(c, session.Queued)
		}
		wait := src.patienceWith(c)
		if wait <= 0 {
			dropped, ok := c.s.Overflow(src.now)
			src.dropped += dropped
			c.slow.dropped += uint64(dropped)
			if ok {
				r := src.enqueue(c, m, d)
				if r != session.Full {
					return src.delivered(c, r)
				}
			}
			if wait = src.lastPatienceWith(c, d.QoS); wait <= 0 {
				var fx []session.Effect
				if d.QoS > packet.AtMostOnce && src.blames() {
					fx = c.disconnectLocked(src.now, packet.QuotaExceeded, "queue full and nothing taken")
				}
				c.slow.dropped++
				c.mu.Unlock()
				src.dropped++
				src.later(c, fx)
				return false
			}
		}
		src.interrupt()
		src.wait(c, wait)
		r := session.Ignored
		if !c.gone {
			r = src.enqueue(c, m, d)
		}
		if r != session.Full {
			return src.delivered(c, r)
		}
	}
}

// delivered ends a delivery whose result is not Full. The caller holds c.mu,
// which is released.
func (src *source) delivered(c *client, r session.DeliverResult) bool {
	if r == session.Queued {
		src.touch(c)
	}
	c.mu.Unlock()
	if r == session.Ignored {
		src.ignored++
	}
	return r == session.Queued
}

// patienceWith returns how much longer to wait for c, not above zero if c is
// offline or stalled. The caller holds c.mu.
func (src *source) patienceWith(c *client) time.Duration {
	if c.conn == nil || c.conn.closing {
		return 0
	}
	c.kick(src.now) // what it has not been offered it cannot take
	wait := c.patience(src.now)
	if wait <= 0 && !c.stalled {
		c.stalled = true
		src.b.count.stalled.Add(1)
	}
	return min(wait, src.left())
}

// lastPatienceWith returns how much longer to wait before a message with qos is
// lost to c and c disconnected for it. The caller holds c.mu.
func (src *source) lastPatienceWith(c *client, qos packet.QoS) time.Duration {
	if qos == packet.AtMostOnce || c.conn == nil || c.conn.closing {
		return 0
	}
	return min(src.b.cfg.HoldTimeout-src.now.Sub(c.progress), src.left())
}

// left returns how much longer the message at hand may be held up.
func (src *source) left() time.Duration {
	if !src.blames() {
		return 0
	}
	return src.b.cfg.HoldTimeout - src.waited
}

// blames reports whether there is a publisher who waits, so that having waited
// in vain is the subscriber's fault.
func (src *source) blames() bool {
	p := src.publisher()
	return p != nil && p.Err() == nil && src.b.ctx.Err() == nil
}

// wait waits for room in c's queue, at most d. The caller holds c.mu, which is
// released meanwhile.
func (src *source) wait(c *client, d time.Duration) {
	if c.room == nil {
		c.room = make(chan struct{})
	}
	room := c.room
	c.mu.Unlock()

	// Whoever has output from this source must not wait with us.
	src.flush()
	if src.timer == nil {
		src.timer = time.NewTimer(d)
	} else {
		src.timer.Reset(d)
	}
	if !src.holding {
		src.hold()
	}
	began := time.Now()
	select {
	case <-room:
	case <-src.timer.C:
	case <-src.publisher().Done():
	case <-src.b.ctx.Done():
	}
	src.timer.Stop()
	src.now = time.Now()
	held := src.now.Sub(began)
	src.waited += held
	src.b.count.pushedBack.Add(1)
	src.b.count.pushedBackFor.Add(int64(held))
	c.mu.Lock()
}
