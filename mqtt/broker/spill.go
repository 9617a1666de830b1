package broker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A spill is a second queue for messages of QoS 1 and 2 to a client that is
// itself held back. It holds as much as the first queue, and at least 1 MiB.
//
// Two clients that publish to each other could otherwise hold each other for
// ever: what would make room in either's queue are acknowledgements, and they
// lie unread behind messages for the other. So whoever would close such a
// circle, of any number of clients or of one that publishes to itself, does not
// wait but spills, and reads on until it comes to the acknowledgements.
//
// A message in a spill is not acknowledged to its publisher until it has left:
// so a publisher has no more messages in spills than Receive Maximum, and
// its acknowledgements are never further away than that.
//
// While there is a spill, messages of QoS 1 and 2 go behind it, which keeps
// them in order. It is guarded by client.mu.
type spill struct {
	list  []spilled
	next  int
	bytes int
}

type spilled struct {
	m    *session.Message
	d    session.Delivery // owns its subscription identifiers
	owed *owed            // nil: nobody waits for an acknowledgement
}

// owed is the acknowledgement of a message that is in spills.
type owed struct {
	c       *client // the publisher
	stream  mqtt.StreamID
	id      uint16
	code    packet.ReasonCode // set before the router gives up its share of parts
	parts   atomic.Int32      // spills and Locals that have the message, and the router while it works
	hash    uint64            // see partial.go; 0: it need not be written down who has the message
	refused atomic.Uint32     // reason code in place of code; 0: none
}

// owe adds a part to the acknowledgement of the message at hand, which it makes
// if there is none yet. It returns nil if nobody waits for one.
func (src *source) owe() *owed {
	if src.ack.id == 0 {
		return nil
	}
	if src.owed == nil {
		src.owed = &owed{c: src.ack.c, stream: src.ack.stream, id: src.ack.id, hash: src.unit.hashed()}
		src.owed.parts.Store(1)
	}
	src.owed.parts.Add(1)
	return src.owed
}

// refuse makes code that of the acknowledgement if it is a failure and the first
// one.
func (o *owed) refuse(code packet.ReasonCode) {
	if code.Failed() {
		o.refused.CompareAndSwap(0, uint32(code))
	}
}

// pay sends the acknowledgement when the last part is paid. No lock is held.
func (o *owed) pay(now time.Time) {
	if o.parts.Add(-1) > 0 {
		return
	}
	code := o.code
	if refused := o.refused.Load(); refused != 0 {
		code = packet.ReasonCode(refused)
	}
	o.c.mu.Lock()
	if o.hash != 0 {
		o.c.journal.split = true
	}
	o.c.s.Routed(now, o.stream, o.id, code)
	o.c.kick(now)
	o.c.mu.Unlock()
}

// settle pays for what has left the spill. No lock is held.
func (c *client) settle(now time.Time) {
	if !c.mustPay.Load() {
		return
	}
	c.mu.Lock()
	paid := c.paid
	c.paid = nil
	c.mustPay.Store(false)
	c.mu.Unlock()
	for _, o := range paid {
		o.pay(now)
	}
}

// left notes that e has left the spill, one way or another. The caller holds mu
// and sees to it that settle is called.
func (c *client) left(e *spilled) {
	if e.owed != nil {
		c.paid = append(c.paid, e.owed)
		c.mustPay.Store(true)
	}
	*e = spilled{}
}

// spilledOverhead is about what an entry costs besides the message.
const spilledOverhead = 96

func (s *spill) empty() bool { return s.next == len(s.list) }

func (s *spilled) cost() int { return s.m.Publish.Size(packet.V5) + spilledOverhead }

// spillTo puts m into c's spill if c is held back, by others or by this very
// delivery, or if the publisher has a spill of its own and so must be read; and
// if there is room. The caller holds c.mu.
func (src *source) spillTo(c *client, m *session.Message, d session.Delivery) bool {
	if d.QoS == packet.AtMostOnce || src.publisher() == nil || c.conn == nil || c.gone || c.conn.closing {
		return false
	}
	if c.conn != src.cn && c.conn.holds.Load() == 0 && (src.cn == nil || !src.cn.spilling.Load()) {
		return false
	}
	e := spilled{m: m, d: d}
	cost := e.cost()
	if c.spill.bytes+cost > max(2*c.half, defaultQueue) {
		return false
	}
	e.d.SubscriptionIDs = slices.Clone(d.SubscriptionIDs)
	c.spill.bytes += cost
	e.owed = src.owe()
	c.spill.list = append(c.spill.list, e)
	c.conn.spilling.Store(true)
	return true
}

// unspill moves what the queue has room for. It reports whether that was
// anything. The caller holds mu.
func (c *client) unspill(now time.Time) bool {
	s := &c.spill
	moved := false
	for !s.empty() {
		e := &s.list[s.next]
		if e.owed != nil && e.owed.hash != 0 && c.journal != nil {
			c.journal.noteWith(target{e.owed.c, e.owed.stream, e.owed.id}, e.owed.hash)
		}
		r := c.s.Deliver(now, e.m, e.d)
		if c.journal != nil {
			c.journal.noted()
		}
		if r == session.Full {
			break
		}
		s.bytes -= e.cost()
		c.left(e)
		s.next++
		moved = true
	}
	switch {
	case s.empty():
		*s = spill{}
		if c.conn != nil {
			c.conn.spilling.Store(false)
		}
	case s.next > len(s.list)/2:
		s.list = slices.Delete(s.list, 0, s.next)
		s.next = 0
	}
	return moved
}

// leaveSpill ends the spill with the connection: the session keeps what it has
// room for. The caller holds mu.
func (c *client) leaveSpill(now time.Time) {
	c.unspill(now)
	c.dropSpill()
}

// dropSpill drops and counts what is left. The caller holds mu.
func (c *client) dropSpill() {
	s := &c.spill
	c.b.count.dropQueueFull.Add(uint64(len(s.list) - s.next))
	for i := range s.list[s.next:] {
		c.left(&s.list[s.next+i])
	}
	*s = spill{}
}
