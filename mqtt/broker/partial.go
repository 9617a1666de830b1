package broker

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A message of QoS 2 that some of its subscribers have no room for reaches them
// later than the others: its publisher waits, or it is spilled. Until the last
// one has it there is no PUBREC, and a publisher who finds the server anew sends it
// again. Those who had it must not get it twice. So, in the unit in which they
// got it, it is written down that they have.
//
// A unit is what becomes durable together with respect to one message of QoS 2.
type unit struct {
	open  bool      // between Begin and End of the group
	late  bool      // was interrupted: each that gets the message from now on is noted with it
	split bool      // there are records of kind Partial
	given []*client // durable ones that have the message since the unit was opened
	msg   *session.Message
	hash  uint64          // of msg; 0: not yet made
	skip  map[string]bool // clients that have the message from an earlier process; nil: none
}

// messageHash tells messages apart that come under one packet identifier.
func messageHash(p *packet.Publish) uint64 {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p.Topic))))
	h.Write([]byte(p.Topic))
	h.Write(p.Payload)
	return binary.BigEndian.Uint64(h.Sum(nil)) | 1 // 0 is none
}

// beginUnit is called before a message that e brings is routed. No lock is held.
func (src *source) beginUnit(c *client, e *session.Effect) {
	if e.PacketID == 0 || e.Message.Publish.QoS != packet.ExactlyOnce {
		return
	}
	c.mu.Lock()
	known := c.partial[e.PacketID]
	delete(c.partial, e.PacketID)
	durable := c.s.Durable()
	c.mu.Unlock()
	if !durable {
		return
	}
	src.unit.open, src.unit.msg = true, e.Message
	if known != nil {
		src.unit.hashed()
		src.unit.split = true // of an earlier process
		src.unit.skip = make(map[string]bool)
		for id, hash := range known {
			src.unit.skip[id] = hash == src.unit.hash
		}
	}
	src.b.durable.group.Begin()
}

// enqueue gives m to c and notes that c has it. The caller holds c.mu.
func (src *source) enqueue(c *client, m *session.Message, d session.Delivery) session.DeliverResult {
	u := &src.unit
	if !u.open && !u.late || c.journal == nil {
		return c.enqueue(src.now, m, d)
	}
	if u.late {
		c.journal.noteWith(src.ack, u.hash)
		defer c.journal.noted()
	}
	r := c.enqueue(src.now, m, d)
	if r == session.Queued && u.open && d.QoS > packet.AtMostOnce && c.s.Durable() {
		u.given = append(u.given, c)
	}
	return r
}

// noteWith has it written down that the journal's client has the message that
// is to be acknowledged to t, together with the next message that it gets before
// noted. The caller holds client.mu.
func (j *journal) noteWith(t target, hash uint64) {
	j.also = func(b *store.Batch) { t.putPartial(j.d, b, j.id, hash) }
}

func (j *journal) noted() { j.also = nil }

// hashed returns the hash of the message at hand; 0 if it needs none.
func (u *unit) hashed() uint64 {
	if u.msg != nil && u.hash == 0 {
		u.hash = messageHash(&u.msg.Publish)
	}
	return u.hash
}

// interrupt ends the unit before the message is with everybody.
func (src *source) interrupt() {
	u := &src.unit
	if !u.open {
		return
	}
	d := src.b.durable
	if src.ack.c == nil { // a delayed message: its record stays until everybody has it
		src.endUnit()
		return
	}
	hash := u.hashed()
	d.group.Update(func(b *store.Batch) {
		for _, c := range u.given {
			src.ack.putPartial(d, b, c.id, hash)
		}
	})
	clear(u.given)
	u.given = u.given[:0]
	u.open, u.late, u.split = false, true, true
	d.group.End()
}

// endUnit ends what beginUnit began.
func (src *source) endUnit() {
	u := &src.unit
	if u.open {
		src.b.durable.group.End()
	}
	clear(u.given)
	*u = unit{given: u.given[:0]}
}

// putPartial notes that recipient has the message that is to be acknowledged to t,
// unless t's session has ended: nobody will send that message again.
func (t *target) putPartial(d *durable, b *store.Batch, recipient string, hash uint64) {
	if t.c.journal.ended {
		return
	}
	d.put(b, &store.Record{Kind: store.Partial, ClientID: t.c.id, ID: t.id, Recipient: recipient, Hash: hash})
}

// dropPartial forgets who had the message with an identifier.
func (j *journal) dropPartial(b *store.Batch, id uint16) {
	prefix := append(store.AppendSessionKey(nil, j.id), byte(store.Partial))
	b.DeletePrefix(binary.BigEndian.AppendUint16(prefix, id))
}
