package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A ring is a queue in a circular buffer, whose length is a power of two. It
// takes no memory until it is used.
type ring[T any] struct {
	buf     []T
	head, n uint32
}

// keepRing is the largest buffer, in elements, that an empty ring keeps.
const keepRing = 16

func (r *ring[T]) at(i uint32) *T { return &r.buf[(r.head+i)&uint32(len(r.buf)-1)] }

func (r *ring[T]) push(v T) { *r.add() = v }

// add appends a zero element and returns it, valid until the next call of
// another method.
func (r *ring[T]) add() *T {
	if int(r.n) == len(r.buf) {
		r.grow()
	}
	r.n++
	return r.at(r.n - 1)
}

func (r *ring[T]) grow() {
	grown := make([]T, max(4, 2*len(r.buf)))
	for i := range r.n {
		grown[i] = *r.at(i)
	}
	r.buf, r.head = grown, 0
}

func (r *ring[T]) pop() T {
	var zero T
	p := r.at(0)
	v := *p
	*p = zero
	r.head++
	if r.n--; r.n == 0 && len(r.buf) > keepRing {
		*r = ring[T]{}
	}
	return v
}

// filter keeps the elements that keep says yes to, in order.
func (r *ring[T]) filter(keep func(*T) bool) {
	var zero T
	var kept uint32
	for i := range r.n {
		if p := r.at(i); keep(p) {
			if q := r.at(kept); p != q {
				*q, *p = *p, zero
			}
			kept++
		} else {
			*p = zero
		}
	}
	if r.n = kept; kept == 0 && len(r.buf) > keepRing {
		*r = ring[T]{}
	}
}

// An entry is a message on its way to the client. Beside the shared message it
// holds what is this subscriber's. There are many and they come and go at the
// rate of the messages, so it is small, and what is needed to drop it is in it.
type entry struct {
	msg  *Message
	ids  *[]uint32 // subscription identifiers, if there is more than one
	seq  uint64    // order of arrival while it waits; of sending when in flight
	size uint32    // see cost
	how  uint32    // QoS in 2 bits, RETAIN in 1, the only subscription identifier in 28; 0: none, or see ids
}

// entryOverhead is what an entry costs beside its encoded message: its place in
// a queue and in the window, and the Message itself.
const entryOverhead = 256

// init makes e, which is zero, the entry of m for a delivery. size is the
// result of deliveryCost.
func (e *entry) init(m *Message, d *Delivery, size int) {
	how := uint32(d.QoS)
	if d.Retain {
		how |= 1 << 2
	}
	switch len(d.SubscriptionIDs) {
	case 0:
	case 1:
		how |= d.SubscriptionIDs[0] << 3
	default:
		ids := append([]uint32(nil), d.SubscriptionIDs...)
		e.ids = &ids
	}
	e.msg, e.size, e.how = m, uint32(size), how
}

// deliveryCost is the cost of the entry of m for a delivery.
func deliveryCost(m *Message, d *Delivery) int {
	n := entryOverhead + messageSize(&m.Publish)
	if len(d.SubscriptionIDs) > 1 {
		n += 5 * len(d.SubscriptionIDs)
	}
	return n
}

func (e *entry) qos() packet.QoS { return packet.QoS(e.how & 3) }
func (e *entry) retain() bool    { return e.how&(1<<2) != 0 }

// subscriptionIDs returns the entry's subscription identifiers. A single one is
// put into buf, which is the caller's.
func (e *entry) subscriptionIDs(buf *[1]uint32) []uint32 {
	switch id := e.how >> 3; {
	case e.ids != nil:
		return *e.ids
	case id != 0:
		buf[0] = id
		return buf[:]
	}
	return nil
}

// cost is what the entry counts against [Limits.QueueBytes].
func (e *entry) cost() int { return int(e.size) }

// messageSize is the encoded size of p as a PUBLISH of MQTT 5, give or take the
// length fields.
func messageSize(p *packet.Publish) int {
	n := len(p.Topic) + len(p.Payload) + 16
	if q := p.Properties; q != nil {
		n += len(q.ContentType) + len(q.ResponseTopic) + len(q.CorrelationData) + 16
		for i := range q.User {
			n += len(q.User[i].Key) + len(q.User[i].Value) + 5
		}
	}
	return n
}

// Overflow makes room for a message that found the queue [Full]. It drops
// messages that have expired and then the oldest waiting QoS 0 messages, until
// the queue is at three quarters of its limit. It reports how many it dropped;
// ok is false if there was nothing to drop.
func (s *Session) Overflow(now time.Time) (dropped int, ok bool) {
	if !s.expires.IsZero() && !now.Before(s.expires) {
		dropped = s.dropAllExpired(now)
	}
	goal := s.limits.QueueBytes - s.limits.QueueBytes/4
	for dropped == 0 || s.bytes > goal {
		l := s.oldestQoS0()
		if l == nil {
			break
		}
		s.bytes -= l.qos0.at(0).cost()
		l.qos0.pop()
		dropped++
	}
	return dropped, dropped > 0
}

// dropAllExpired drops what has expired and returns how many messages that were:
// those at the front of the queues, where they are if all messages live equally
// long, or, if there are none, all.
func (s *Session) dropAllExpired(now time.Time) (dropped int) {
	front := func(r *ring[entry]) {
		for r.n > 0 && s.dropExpired(now, r.at(0)) {
			r.pop()
			dropped++
		}
	}
	s.eachLane(func(l *lane) {
		front(&l.qos0)
		front(&l.qos12)
	})
	if dropped > 0 {
		return dropped
	}
	s.expires = time.Time{}
	keep := func(e *entry) bool {
		if s.dropExpired(now, e) {
			dropped++
			return false
		}
		if at := e.msg.Expires; !at.IsZero() {
			s.expires = earlier(s.expires, at)
		}
		return true
	}
	s.eachLane(func(l *lane) {
		l.qos0.filter(keep)
		l.qos12.filter(keep)
	})
	return dropped
}

// earlier returns the earlier of two times, of which a may be zero: none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// oldestQoS0 returns the lane with the oldest waiting QoS 0 message, or nil.
func (s *Session) oldestQoS0() *lane {
	var oldest *lane
	if s.main.qos0.n > 0 {
		oldest = &s.main
	}
	if len(s.data) == 0 {
		return oldest
	}
	for _, l := range s.data {
		if l.qos0.n > 0 && (oldest == nil || l.qos0.at(0).seq < oldest.qos0.at(0).seq) {
			oldest = l
		}
	}
	return oldest
}

func (s *Session) dropExpired(now time.Time, e *entry) bool {
	if !e.msg.Expired(now) {
		return false
	}
	s.bytes -= e.cost()
	s.expired++
	s.tellDropped(e)
	return true
}

// waiting is how many messages wait to be sent for the first time.
func (s *Session) waiting() int {
	var n uint32
	s.eachLane(func(l *lane) { n += l.qos0.n + l.qos12.n })
	return int(n)
}
