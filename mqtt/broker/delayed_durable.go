package broker

import (
	"container/heap"
	"time"

	"github.com/anyquic/anyquic/mqtt/store"
)

// With a store delayed messages are in it from their acknowledgement until they
// are published: the record goes in the unit in which the message enters its
// subscribers' queues, so that a crash neither loses nor repeats it. Where a full queue
// makes one unit impossible the record goes last, since a second copy is better
// than none: there is no publisher who would send it again.

// delay puts e into the store.
func (d *durable) delay(e *delayedMessage) {
	if d == nil {
		return
	}
	d.group.Update(func(b *store.Batch) {
		d.nextID++
		e.id = d.nextID
		r := &store.Record{Kind: store.Delayed, Number: e.id, Message: e.m, Due: e.due, Asked: e.asked, Client: e.who.saved()}
		if e.who != nil {
			r.State.Version = e.who.Version
		}
		d.put(b, r)
	})
}

// undelay takes e out of the store, without its being published.
func (d *durable) undelay(e *delayedMessage) {
	if d == nil {
		return
	}
	d.group.Update(func(b *store.Batch) {
		d.once(b, &store.Record{Kind: store.Delayed, Number: e.id})
	})
}

// restore takes a message that is in the store, whatever the limits are now: it was
// acknowledged. The timer is set by start.
func (s *delayedStore) restore(r *store.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &delayedMessage{m: r.Message, who: restoreInfo(r), asked: r.Asked, due: r.Due, id: r.Number}
	e.size = e.cost()
	s.push(e)
}

// start sets the timer, when everything is there that what was restored may be
// published to. What became due while the broker was down is published at once.
func (s *delayedStore) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.heap) > 0 {
		s.timer.Reset(s.heap[0].due)
	}
}

// push adds e behind those that are due at the same time. The caller holds mu.
func (s *delayedStore) push(e *delayedMessage) {
	s.seq++
	e.seq = s.seq
	s.bytes += e.size
	heap.Push(&s.heap, e)
}

// publish publishes e.
func (s *delayedStore) publish(src *source, e *delayedMessage) {
	d := s.b.durable
	if d == nil {
		s.b.route(src, e.m)
		return
	}
	d.group.Begin()
	src.unit.open = true
	s.b.route(src, e.m)
	// A broker that closed while the message waited for room has not given it to
	// everybody.
	if src.unit.open || s.b.ctx.Err() == nil {
		d.undelay(e)
	}
	src.endUnit()
}

// waitForStore waits while the store cannot be written, or more has piled up than is
// being written, or until the broker is closed: what is due stays where it is.
func (s *delayedStore) waitForStore(src *source) {
	s.b.durable.throttle(src)
	for s.b.durable.failing() {
		src.flush()
		if s.b.isClosing() || !s.b.sleep(100*time.Millisecond) {
			return
		}
	}
}
