package broker

import (
	"log/slog"
	"sync"

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
	left     bool       // guarded by mu; the store has messages that found no room in tree
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
		old, ok := r.tree.Delete(name)
		if ok {
			r.drop(old)
		}
		if ok || r.left {
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
		r.left = true
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
