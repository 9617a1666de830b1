package broker

import (
	"log/slog"
	"sync"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// A retainedStore holds the retained messages (MQTT 5, Section 3.3.1.3).
type retainedStore struct {
	tree    *topic.Retained[*kept]
	durable *durable // nil without a store

	mu       sync.Mutex // serialises put and expiry
	max      int        // guarded by mu; messages; negative: no limit
	maxBytes int64      // guarded by mu; negative: no limit
	bytes    int64      // guarded by mu
	sys      int        // guarded by mu; of tree, messages of the broker about itself
}

// A kept message is one in the store.
type kept struct {
	m     *session.Message
	size  int64             // bytes
	timer *timerwheel.Timer // fires when it expires; nil: never
}

func (r *retainedStore) init(max int, maxBytes int64) {
	r.tree, r.max, r.maxBytes = topic.NewRetained[*kept](), max, maxBytes
}

func (r *retainedStore) limit(max int, maxBytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.max, r.maxBytes = max, maxBytes
}

func (r *retainedStore) size() (n int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tree.Len() - r.sys, r.bytes
}

// keptOverhead is about what the store needs for a message besides its bytes.
const keptOverhead = 256

// put keeps m in place of what its topic had, or removes that if m has no
// payload [MQTT-3.3.1-6]. It reports false if there is no room for m.
func (r *retainedStore) put(b *Broker, m *session.Message) bool {
	name := m.Publish.Topic
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(m.Publish.Payload) == 0 {
		if old, ok := r.tree.Delete(name); ok {
			r.drop(old)
			r.durable.unretain(m)
		}
		return true
	}
	size := keptSize(m)
	old, replaces := r.tree.Get(name)
	var was int64
	if replaces {
		was = old.size
	}
	if !r.room(!replaces, size-was) {
		return false
	}
	r.set(b, m, size)
	r.durable.retain(m)
	return true
}

// restore is put for a message that is in the store already, under a topic that
// has none in memory.
func (r *retainedStore) restore(b *Broker, m *session.Message) bool {
	size := keptSize(m)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.room(true, size) {
		return false
	}
	r.set(b, m, size)
	return true
}

func keptSize(m *session.Message) int64 { return int64(m.Publish.Size(packet.V5)) + keptOverhead }

// room reports whether there is room for more bytes, and for a topic if it is another.
// The caller holds mu.
func (r *retainedStore) room(another bool, bytes int64) bool {
	return !(another && r.max >= 0 && r.tree.Len()-r.sys >= r.max || r.maxBytes >= 0 && r.bytes+bytes > r.maxBytes)
}

// set makes m what its topic has. The caller holds mu.
func (r *retainedStore) set(b *Broker, m *session.Message, size int64) {
	k := &kept{m: m, size: size}
	if !m.Expires.IsZero() {
		k.timer = new(timerwheel.Timer)
		k.timer.Init(b.wheel, func() { r.expire(k) })
		k.timer.Reset(m.Expires)
	}
	old, replaced := r.tree.Set(m.Publish.Topic, k)
	r.bytes += size
	if replaced {
		r.drop(old)
	}
}

// drop takes what is not in the tree any more off the books. The caller holds mu.
func (r *retainedStore) drop(k *kept) {
	r.bytes -= k.size
	if k.timer != nil {
		k.timer.Stop()
	}
}

// expire removes k if it still is what its topic has. It runs on the wheel's
// goroutine.
func (r *retainedStore) expire(k *kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tree.DeleteIf(k.m.Publish.Topic, func(now *kept) bool { return now == k }) {
		r.bytes -= k.size
		r.durable.unretain(k.m)
	}
}

// current reports whether k still is what its topic has.
func (r *retainedStore) current(k *kept) bool {
	now, ok := r.tree.Get(k.m.Publish.Topic)
	return ok && now == k
}

// A replay is the retained messages that a subscriber has not been sent for
// want of room in its queue. Nobody waits for it: whenever the queue has drained
// to half, the next ones go in.
type replay struct {
	list []replayed
	next int
}

type replayed struct {
	k  *kept
	d  session.Delivery
	id uint32 // subscription identifier
}

// sendRetained sends c the retained messages for a new subscription. None are
// sent for a shared one.
func (b *Broker) sendRetained(src *source, c *client, s packet.Subscription, id uint32, e *session.Effect) {
	var list []replayed
	b.retained.tree.Match(s.Filter, func(_ string, k *kept) bool {
		if s.NoLocal && k.m.From == c.id {
			return true
		}
		list = append(list, replayed{k: k, id: id, d: session.Delivery{
			QoS: min(s.QoS, k.m.Publish.QoS), Retain: true, Stream: e.Stream, Connection: e.Connection, // [MQTT-3.3.1-8]
		}})
		return true
	})
	if len(list) == 0 {
		return
	}
	c.mu.Lock()
	r := &c.replay
	tooMany := len(r.list)-r.next > 2*b.retained.tree.Len()+1024
	if !tooMany {
		r.list = append(r.list[r.next:], list...)
		r.next = 0
		c.refill(src.now)
		src.touch(c)
	}
	var fx []session.Effect
	if tooMany {
		fx = c.disconnectLocked(src.now, packet.QuotaExceeded, "subscribes faster than it takes retained messages")
	}
	c.mu.Unlock()
	c.settle(src.now)
	b.apply(src, c, fx)
}

// refill moves what was spilled to the queue, and waiting retained messages
// while that is less than half full. It reports whether it moved any. The caller holds mu.
func (c *client) refill(now time.Time) bool {
	moved := !c.spill.empty() && c.unspill(now)
	r := &c.replay
	if r.next == len(r.list) || c.gone || !c.spill.empty() {
		return moved
	}
	for r.next < len(r.list) && c.s.QueueBytes() < c.half {
		e := &r.list[r.next]
		// A newer one has reached the subscriber as any other message.
		if c.b.retained.current(e.k) {
			if c.send(now, e) == session.Full {
				break
			}
			moved = true
		}
		*e = replayed{}
		r.next++
	}
	if r.next == len(r.list) {
		*r = replay{}
	}
	return moved
}

func (c *client) send(now time.Time, e *replayed) session.DeliverResult {
	if e.id != 0 {
		e.d.SubscriptionIDs = []uint32{e.id}
	}
	return c.s.Deliver(now, e.k.m, e.d)
}

// leaveReplay ends the replay with the connection: what the client was promised
// with QoS 1 or 2 goes to the queue as far as there is room. The caller holds mu.
func (c *client) leaveReplay(now time.Time) {
	c.leaveSpill(now)
	r := &c.replay
	for ; r.next < len(r.list); r.next++ {
		e := &r.list[r.next]
		if e.d.QoS > packet.AtMostOnce && c.b.retained.current(e.k) && c.send(now, e) == session.Full {
			break
		}
	}
	c.b.count.dropQueueFull.Add(uint64(len(r.list) - r.next))
	*r = replay{}
}

// retainRefused says once per connection that the store is full: a client of 3.x,
// or one that publishes with QoS 0, cannot be told.
func (src *source) retainRefused(c *client) {
	if src.saidFull {
		return
	}
	src.saidFull = true
	src.b.log.Warn("mqtt: retained store is full: message refused",
		slog.String("client", c.id),
		slog.Int("messages", src.b.retained.tree.Len()))
}
