package client

import (
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// flightOverhead is what a flight costs beside its packet, bytes.
const flightOverhead = 192

// A flight is a message on its way to the server: one with QoS 1 or 2, or one with
// QoS 0 that was published while there was no connection.
type flight struct {
	prev, next *flight

	wire     []byte // the PUBLISH, encoded without DUP and without a valid packet identifier
	idAt     int    // where in wire the packet identifier belongs, unless qos is 0
	seq      uint64 // names it in the session log; 0: there is none
	topicLen int    // the topic is before it
	qos      packet.QoS

	slot      slot
	stream    mqtt.StreamID // that it was sent on
	id        uint16        // 0: none yet
	released  bool          // PUBREC has come: PUBREL is what may be repeated
	sent      bool          // on this connection
	ever      bool          // within this session, so that sending again needs DUP
	seen      bool          // ever sent to any server
	abandoned bool          // nobody waits for it any more
	finished  bool

	wait chan outcome // capacity 1, for Publish; or
	done func(error)  // for PublishAsync, may be nil
}

type outcome struct {
	result Result
	err    error
}

// newFlight encodes p.
func newFlight(p *packet.Publish, v packet.Version) (*flight, error) {
	h := packet.PublishHeader{QoS: p.QoS, Retain: p.Retain}
	if p.QoS > packet.AtMostOnce {
		h.PacketID = 1
	}
	wire, err := packet.AppendPublish(make([]byte, 0, packet.PublishSize(v, p, h)), v, p, h)
	if err != nil {
		return nil, err
	}
	_, n, err := packet.ParseHeader(wire)
	if err != nil {
		return nil, err
	}
	return &flight{wire: wire, idAt: n + 2 + len(p.Topic), topicLen: len(p.Topic), qos: p.QoS}, nil
}

const (
	flagRetain = 0x01
	flagDup    = 0x08
)

func (f *flight) retain() bool { return f.wire[0]&flagRetain != 0 }

func (f *flight) cost() int { return len(f.wire) + flightOverhead }

// fate says what to report if the flight ends now without an answer.
func (f *flight) fate() PublishState {
	if f.seen {
		return MaybeSent
	}
	return NotSent
}

func (f *flight) append(dst []byte, dup bool) []byte {
	at := len(dst)
	dst = append(dst, f.wire...)
	if f.qos > packet.AtMostOnce {
		dst[at+f.idAt], dst[at+f.idAt+1] = byte(f.id>>8), byte(f.id)
	}
	if dup {
		dst[at] |= flagDup
	}
	return dst
}

// outbound are the messages that are not acknowledged: first those that are
// released, in the order of their PUBRECs, then the others in the order in which
// they were submitted. That is also the order in which PUBREL ([MQTT-4.6.0-4]) and
// PUBLISH ([MQTT-4.6.0-1]) are sent, and sent again.
type outbound struct {
	first, last *flight
	released    *flight // the last one that is
	cursor      *flight // the first one not sent on this connection; nil: all are
	byID        map[uint16]*flight
	inFlight    int       // sent on this connection and not acknowledged
	flights     int       // all of them
	queued      int       // bytes of all flights
	zeros       []*flight // those with QoS 0, the oldest first

	aliasMax   uint16            // topic aliases we may use on this connection
	aliasesOut map[string]uint16 // of this connection
}

// window is how many messages may be in flight: the server's Receive Maximum
// ([MQTT-3.3.4-7]) and our own limit.
func (m *machine) window() int { return min(int(m.server.receiveMaximum), m.cfg.inflightMax) }

// submit takes f over. It fails if the server has said that it would refuse it.
func (m *machine) submit(f *flight) error {
	if m.connected {
		if code := m.refusal(f.qos, f.retain(), len(f.wire)); code != 0 {
			return &PublishError{State: NotSent, Code: code}
		}
	}
	m.log.put(f)
	m.enqueue(f)
	return nil
}

// refusal returns the reason code with which the server would refuse a PUBLISH of
// size bytes, 0 if it would not.
func (m *machine) refusal(qos packet.QoS, retain bool, size int) packet.ReasonCode {
	switch {
	case qos > m.server.maximumQoS:
		return packet.QoSNotSupported // [MQTT-3.2.2-11]
	case retain && !m.server.retain:
		return packet.RetainNotSupported // [MQTT-3.2.2-14]
	case size > m.server.maxPacket:
		return packet.PacketTooLarge // [MQTT-3.2.2-15]
	}
	return 0
}

// nextFlight returns the next message to send within the window, or the PUBREL of
// one that is not sent on this connection yet, which needs no room.
func (m *machine) nextFlight() (outgoing, bool) {
	for f := m.cursor; f != nil; f = m.cursor {
		if f.released {
			m.cursor = f.next
			f.sent, f.stream = true, mqtt.ControlStream
			m.inFlight++
			return outgoing{stream: mqtt.ControlStream, kind: packet.PUBREL, id: f.id}, true
		}
		if f.qos > packet.AtMostOnce && m.inFlight >= m.window() {
			break
		}
		if code := m.refusal(f.qos, f.retain(), len(f.wire)); code != 0 {
			m.finish(f, Result{}, &PublishError{State: f.fate(), Code: code})
			continue
		}
		if f.qos == packet.AtMostOnce {
			f.seen = true
			m.finish(f, Result{}, nil)
			return outgoing{stream: m.streamOf(m.slots.ofFlight(f)), kind: packet.PUBLISH, flight: f}, true
		}
		if f.id == 0 {
			if f.id = m.newID(); f.id == 0 {
				break
			}
			m.outbound.byID[f.id] = f
			m.log.sent(f)
		}
		m.cursor = f.next
		// [MQTT-3.3.1-1]: DUP marks what is sent again within a session.
		dup := f.ever
		f.sent, f.ever, f.seen = true, true, true
		m.inFlight++
		f.slot = m.slots.ofFlight(f)
		f.stream = m.streamOf(f.slot)
		return outgoing{stream: f.stream, kind: packet.PUBLISH, id: f.id, flight: f, dup: dup}, true
	}
	return outgoing{}, false
}

// finish removes f and reports how it ended. Its packet identifier is free again.
func (m *machine) finish(f *flight, r Result, err error) {
	if m.cursor == f {
		m.cursor = f.next
	}
	if m.outbound.released == f {
		m.outbound.released = f.prev
	}
	m.unlink(f)
	if f.qos == packet.AtMostOnce {
		m.outbound.finishZero(f)
	}
	m.log.done(f)
	if f.id != 0 {
		delete(m.outbound.byID, f.id)
	}
	if f.sent {
		m.inFlight--
	}
	m.flights--
	m.queued -= f.cost()
	f.finished = true
	if !f.abandoned {
		m.completed = append(m.completed, completion{flight: f, result: r, err: err})
	}
}

// unlink takes f out of the list.
func (o *outbound) unlink(f *flight) {
	if f.prev == nil {
		o.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		o.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
}

// release moves f, which has got its PUBREC, behind the others that have.
func (o *outbound) release(f *flight) {
	f.released = true
	if o.cursor == f {
		o.cursor = f.next
	}
	o.unlink(f)
	f.prev = o.released
	if f.prev == nil {
		f.next, o.first = o.first, f
	} else {
		f.next, f.prev.next = f.prev.next, f
	}
	if f.next == nil {
		o.last = f
	} else {
		f.next.prev = f
	}
	o.released = f
}

// giveUp is for a flight that nobody waits for any more. It reports what may have
// become of it: a flight that was never sent is taken back, one that was sent must
// be brought to its end, for the server counts on it.
func (m *machine) giveUp(f *flight) PublishState {
	f.abandoned = true
	if f.id == 0 {
		m.finish(f, Result{}, nil)
	}
	return m.fateOf(f)
}

func (m *machine) receivePuback(a *packet.Ack) error {
	f := m.outbound.byID[a.PacketID]
	if f == nil {
		return nil // of an earlier session, or a second one
	}
	if f.qos != packet.AtLeastOnce || !f.ever {
		return &ProtocolError{packet.ProtocolError, "PUBACK for a message that has another QoS or was not sent"}
	}
	m.finish(f, resultOf(a), refusedBy(a))
	return nil
}

func (m *machine) receivePubrec(stream mqtt.StreamID, a *packet.Ack) error {
	f := m.outbound.byID[a.PacketID]
	switch {
	case f == nil && a.Code.Failed():
		return nil
	case f == nil:
		// MQTT 5, Section 3.6.2.1: the server learns that there is nothing
		// to release. In 3.x the code is left out.
		m.sendAck(stream, packet.PUBREL, a.PacketID, packet.PacketIDNotFound)
		return nil
	case f.qos != packet.ExactlyOnce || !f.ever:
		return &ProtocolError{packet.ProtocolError, "PUBREC for a message that has another QoS or was not sent"}
	case a.Code.Failed():
		// [MQTT-4.3.3-4]: no PUBREL after a PUBREC with 0x80 or more.
		m.finish(f, Result{}, refusedBy(a))
		return nil
	}
	if !f.released {
		// On a resumed session, while PUBRELs of earlier PUBRECs are still to
		// be sent, this one waits for its turn behind them.
		m.log.released(f)
		waits := m.cursor != nil && m.cursor.released
		m.outbound.release(f)
		if !f.sent && !waits {
			// It takes the place of a PUBLISH that waits for the window.
			f.sent = true
			m.inFlight++
		}
	}
	if !f.sent {
		return nil
	}
	f.stream = stream
	m.sendAck(stream, packet.PUBREL, a.PacketID, 0)
	return nil
}

func (m *machine) receivePubcomp(a *packet.Ack) error {
	f := m.outbound.byID[a.PacketID]
	if f == nil {
		return nil
	}
	if !f.released {
		return &ProtocolError{packet.ProtocolError, "PUBCOMP before PUBREL"}
	}
	// PacketIDNotFound says that the server has forgotten what it had
	// accepted: it was released before.
	m.finish(f, Result{}, nil)
	return nil
}

// suspendOutbound ends the connection.
func (m *machine) suspendOutbound() {
	for f := m.outbound.first; f != nil; f = f.next {
		f.sent = false
	}
	m.inFlight = 0
	m.cursor = nil
	m.aliasMax = 0
	clear(m.aliasesOut)
}

// resumeOutbound lets everything be sent on the new connection, in order.
func (m *machine) resumeOutbound() {
	m.cursor = m.outbound.first
	m.aliasMax = min(m.server.topicAliases, m.cfg.topicAliases) // [MQTT-3.2.2-17]
}

// outgoingAlias returns the topic alias to send a QoS 0 message to topic with, 0
// for none; and whether the server knows it, so that the topic is left out. Flights
// have no alias: they may be sent again on a connection that does not know it.
func (m *machine) outgoingAlias(topic string) (alias uint16, known bool) {
	if alias = m.aliasesOut[topic]; alias != 0 {
		return alias, true
	}
	if n := len(m.aliasesOut); n < int(m.aliasMax) {
		return uint16(n + 1), false
	}
	return 0, false
}

// setAlias notes that alias was sent together with topic.
func (m *machine) setAlias(topic string, alias uint16) {
	if m.aliasesOut == nil {
		m.aliasesOut = make(map[string]uint16)
	}
	m.aliasesOut[topic] = alias
}

// loseOutbound is for a server that has lost the session: what it did not accept
// is a new message.
func (m *machine) loseOutbound() {
	for f := m.outbound.first; f != nil; {
		next := f.next
		switch {
		case f.released:
			m.finish(f, Result{}, &PublishError{State: MaybeSent,
				Reason: "the server lost the session after it had accepted the message"})
		case f.abandoned:
			m.finish(f, Result{}, nil)
		default:
			delete(m.outbound.byID, f.id)
			f.id, f.ever = 0, false
		}
		f = next
	}
}

func resultOf(a *packet.Ack) Result {
	r := Result{Code: a.Code}
	if a.Properties != nil {
		r.Reason = a.Properties.ReasonString
	}
	return r
}

func refusedBy(a *packet.Ack) error {
	if !a.Code.Failed() {
		return nil
	}
	return &PublishError{State: Refused, Code: a.Code, Reason: resultOf(a).Reason}
}
