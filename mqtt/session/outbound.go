package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Deliver queues a message for the client. It keeps m and copies the rest.
func (s *Session) Deliver(now time.Time, m *Message, d Delivery) DeliverResult {
	if s.state == ended || s.state != connected && d.QoS == packet.AtMostOnce {
		return Ignored
	}
	if m.Expired(now) { // [MQTT-3.3.2-5]
		s.expired++
		return Ignored
	}
	if s.bridge && !s.mayCross(m) {
		return Ignored
	}
	cost := deliveryCost(m, &d)
	// The cost is above the encoded size: only a message near the limit is
	// worth a closer look.
	if s.maxPacket != 0 && cost > int(s.maxPacket) && s.state == connected {
		var e entry
		if e.init(m, &d, 0); s.tooBig(now, &e) {
			s.tooLarge++
			return Ignored
		}
	}
	if s.bytes > 0 && s.bytes+cost > s.limits.QueueBytes {
		return Full
	}
	s.bytes += cost
	if !m.Expires.IsZero() {
		s.expires = earlier(s.expires, m.Expires)
	}
	l := s.lane(d.Stream)
	if l == nil || d.Connection != 0 && d.Connection != s.connection {
		l = &s.main
	}
	queue := &l.qos12
	if d.QoS == packet.AtMostOnce {
		queue = &l.qos0
	}
	e := queue.add()
	e.init(m, &d, cost)
	s.seq++
	e.seq = s.seq
	s.tellQueued(e)
	return Queued
}

// tooBig reports whether a message, without an alias, is larger than the client
// takes [MQTT-3.1.2-24].
func (s *Session) tooBig(now time.Time, e *entry) bool {
	if s.maxPacket == 0 {
		return false
	}
	var id [1]uint32
	o := newOutgoing(e, &id)
	return o.size(s.version, now) > int64(s.maxPacket)
}

// HasOutput reports whether Next has something for a stream. It may be wrong if
// all messages that wait have expired.
func (s *Session) HasOutput(stream mqtt.StreamID) bool {
	l := s.lane(stream)
	control := stream == mqtt.ControlStream
	switch {
	case l == nil || l.broken || s.silent || s.state != connected && s.state != closing:
		return false
	case s.connack != nil:
		return control
	case l.control.n > 0 || l.ready > 0 || l.packets.n > 0:
		return true
	case s.state == closing:
		return control && s.bye != nil
	}
	return l.qos0.n > 0 || control && (s.cut != nil || s.again > 0 && s.held < int32(s.quota)) ||
		l.qos12.n > 0 && s.windowOpen()
}

// windowOpen reports whether a new message of QoS 1 or 2 may be sent:
// [MQTT-3.3.4-9], [MQTT-4.9.0-2].
func (s *Session) windowOpen() bool {
	return s.held < int32(s.quota) && s.out.len() < int(s.limits.MaxInflight)
}

// Next returns the next packet to write on a stream, and counts it as sent.
func (s *Session) Next(now time.Time, stream mqtt.StreamID) (Outgoing, bool) {
	l := s.lane(stream)
	if l == nil || l.broken || s.silent || s.state != connected && s.state != closing {
		return Outgoing{}, false
	}
	control := stream == mqtt.ControlStream
	if s.connack != nil || l.control.n > 0 || l.ready > 0 || l.packets.n > 0 || s.state == closing {
		if p := s.nextPacket(l, control); p != nil {
			return Outgoing{Packet: p}, true
		}
		if s.connack != nil || s.state == closing {
			return Outgoing{}, false
		}
	}
	if control && s.again > 0 {
		// While the window is open this goes first; new messages of QoS 1 and 2
		// follow when all is sent [MQTT-4.6.0-1].
		if o, ok := s.sendAgain(now); ok {
			return o, true
		}
	}
	if control && s.cut != nil {
		if o, ok := s.sendCut(now); ok {
			return o, true
		}
	}
	for {
		e, ok := s.pick(l)
		if !ok {
			return Outgoing{}, false
		}
		// Neither takes an identifier or a place in the window.
		if s.dropExpired(now, &e) {
			continue
		}
		if s.tooBig(now, &e) { // [MQTT-3.1.2-24], [MQTT-3.1.2-25]
			s.bytes -= e.cost()
			s.tooLarge++
			s.tellDropped(&e)
			continue
		}
		o := newOutgoing(&e, &s.sentID)
		if e.qos() == packet.AtMostOnce {
			s.bytes -= e.cost()
		} else {
			f := s.out.add(e, stream)
			s.tellSent(e.seq, &f.entry)
			o.ID = packetID(f.seq)
			s.held++
			l.owes = true
		}
		if control {
			s.useAlias(&o, now)
		}
		return o, true
	}
}

// pick takes the message that has waited longest and may be sent.
func (s *Session) pick(l *lane) (entry, bool) {
	open := l.qos12.n > 0 && s.windowOpen()
	switch {
	case l.qos0.n > 0 && (!open || l.qos0.at(0).seq < l.qos12.at(0).seq):
		return l.qos0.pop(), true
	case open:
		return l.qos12.pop(), true
	}
	return entry{}, false
}

// useAlias gives a message on the control stream a topic alias, if that makes
// it no larger than the client takes.
func (s *Session) useAlias(o *Outgoing, now time.Time) {
	if s.aliases.max == 0 {
		return
	}
	topic := o.Message.Publish.Topic
	alias, known := s.aliases.get(topic)
	if alias == 0 {
		return
	}
	o.Alias, o.AliasKnown = alias, known
	if known {
		return
	}
	if s.maxPacket != 0 && o.size(s.version, now) > int64(s.maxPacket) {
		o.Alias = 0
		return
	}
	s.aliases.learned(topic, alias)
}

// complete ends the exchange of f.
func (s *Session) complete(f *flight) {
	s.tellCompleted(&f.entry)
	if f.msg != nil {
		s.bytes -= f.cost()
	}
	if f.held {
		s.held--
	}
	if f.again {
		s.again--
	}
	s.out.remove(f)
}

func (s *Session) receivePuback(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Ack) []Effect {
	s.openLane(stream)
	f := s.out.find(p.PacketID)
	if f == nil {
		return fx // of a message that was discarded
	}
	if f.qos() != packet.AtLeastOnce {
		return s.fail(fx, now, stream, packet.ProtocolError, "PUBACK for a QoS 2 message")
	}
	// Whatever the code, the message is acknowledged [MQTT-4.4.0-2].
	s.complete(f)
	return fx
}

func (s *Session) receivePubrec(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Ack) []Effect {
	l := s.openLane(stream)
	f := s.out.find(p.PacketID)
	switch {
	case f == nil:
		if !p.Code.Failed() {
			s.queueAnswer(l, answer{id: p.PacketID, kind: packet.PUBREL, code: packet.PacketIDNotFound})
		}
		return fx
	case f.qos() != packet.ExactlyOnce:
		return s.fail(fx, now, stream, packet.ProtocolError, "PUBREC for a QoS 1 message")
	case p.Code.Failed():
		// The exchange is complete, without PUBREL [MQTT-4.4.0-2].
		s.complete(f)
		return fx
	case f.state == sent:
		s.bytes -= f.cost()
		if f.again {
			s.again--
		}
		s.tellReleased(&f.entry, s.out.rels+1)
		s.out.release(f)
	}
	f.stream, l.owes = stream, true
	s.queueAnswer(l, answer{id: p.PacketID, kind: packet.PUBREL}) // [MQTT-4.3.3-4]
	return fx
}

func (s *Session) receivePubcomp(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Ack) []Effect {
	s.openLane(stream)
	f := s.out.find(p.PacketID)
	if f == nil {
		return fx
	}
	if f.state != released {
		return s.fail(fx, now, stream, packet.ProtocolError, "PUBCOMP before PUBREC")
	}
	s.complete(f)
	return fx
}
