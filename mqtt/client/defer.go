package client

import (
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Defer is for handlers that pass a message on: it puts off the acknowledgement
// of the message that the handler was called with until done is called, instead
// of when the handler returns. It must be called by the handler itself, from the
// goroutine that it was called by; done may be called from any. The packet is
// valid until the handler returns all the same; [Clone] copies it.
//
// A code of 0x80 or above refuses the message, as far as MQTT can say so: with
// MQTT 5 and QoS 1 and 2. It must be one that PUBACK can have. Only the first call
// of done counts; if several handlers have deferred one message, all must be done,
// and the first refusal counts. Acknowledgements keep the order of the
// messages [MQTT-4.6.0-2], so one that is never done holds up those behind it.
//
// The server may have Config.ReceiveMaximum messages without acknowledgement on
// their way, which bounds the messages of QoS 1 and 2 that are deferred. With
// QoS 0 Defer does nothing.
func (c *Client) Defer() (done func(code packet.ReasonCode)) {
	d := c.dispatch
	a := d.current
	if a == nil {
		return func(packet.ReasonCode) {}
	}
	a.parts.Add(1)
	a.deferred = true
	var once sync.Once
	return func(code packet.ReasonCode) { once.Do(func() { c.acknowledge(a, code) }) }
}

// An acknowledgement is owed for a message with QoS 1 or 2.
type acknowledgement struct {
	order    ackOrder
	session  uint64
	id       uint16
	deferred bool // the dispatcher's goroutine only
	parts    atomic.Int32
	refused  atomic.Uint32 // reason code; 0: none
	due      bool          // guarded by Client.mu
}

// An ackOrder names messages whose acknowledgements keep their order.
type ackOrder struct {
	epoch  uint64
	stream mqtt.StreamID
	qos    packet.QoS
}

// begin notes that the message at hand may be deferred; end that its handlers
// have returned.
func (d *dispatcher) begin(b *batch, qos packet.QoS, id uint16) {
	a := d.spare
	if a == nil {
		a = new(acknowledgement)
	}
	d.spare = nil
	a.order, a.session, a.id = ackOrder{b.epoch, b.stream, qos}, b.session, id
	a.parts.Store(1)
	d.current = a
}

// end is called with Client.mu.
func (d *dispatcher) end() {
	a := d.current
	d.current = nil
	if !a.deferred && len(d.owed) == 0 {
		d.spare = a
		d.c.m.acknowledge(a, 0)
		return
	}
	if d.owed == nil {
		d.owed = make(map[ackOrder][]*acknowledgement)
	}
	d.owed[a.order] = append(d.owed[a.order], a)
	if a.parts.Add(-1) == 0 {
		d.due(a)
	}
}

// acknowledge is one call of what Defer returned.
func (c *Client) acknowledge(a *acknowledgement, code packet.ReasonCode) {
	if code.Failed() {
		a.refused.CompareAndSwap(0, uint32(code))
	}
	if a.parts.Add(-1) > 0 {
		return
	}
	c.mu.Lock()
	c.dispatch.due(a)
	c.flush()
	c.unlock()
}

// due acknowledges a and what waited for it. Client.mu is held.
func (d *dispatcher) due(a *acknowledgement) {
	a.due = true
	q := d.owed[a.order]
	for len(q) > 0 && q[0].due {
		d.c.m.acknowledge(q[0], packet.ReasonCode(q[0].refused.Load()))
		q[0] = nil
		q = q[1:]
	}
	if len(q) == 0 {
		delete(d.owed, a.order)
	} else {
		d.owed[a.order] = q
	}
}
