package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Receive takes a packet that the client sent on a stream and appends what is to
// be done. The session keeps nothing of a PUBLISH or an acknowledgement; it keeps
// the slices of a SUBSCRIBE or UNSUBSCRIBE until that is answered. After
// EffectClose it takes nothing more.
func (s *Session) Receive(fx []Effect, now time.Time, stream mqtt.StreamID, p packet.Packet) []Effect {
	if s.state != connected {
		return fx
	}
	if s.silent {
		return s.Tick(fx, now)
	}
	if l := s.lane(stream); l != nil && l.broken {
		return fx
	}
	// Packets of every stream show that the client is alive.
	s.since = now
	// Data streams carry the packets of publishing and subscribing only.
	if t := p.Type(); stream != mqtt.ControlStream && (t < packet.PUBLISH || t > packet.UNSUBACK) {
		return s.fail(fx, now, stream, packet.ProtocolError, "packet not allowed on a data stream")
	}
	if s.answers >= maxAnswers {
		return s.close(fx, packet.QuotaExceeded, "too many packets to answer", mqtt.LinkControlDown)
	}
	switch p := p.(type) {
	case *packet.Publish:
		return s.receivePublish(fx, now, stream, p)
	case *packet.Puback:
		return s.receivePuback(fx, now, stream, &p.Ack)
	case *packet.Pubrec:
		return s.receivePubrec(fx, now, stream, &p.Ack)
	case *packet.Pubrel:
		return s.receivePubrel(fx, now, stream, &p.Ack)
	case *packet.Pubcomp:
		return s.receivePubcomp(fx, now, stream, &p.Ack)
	case *packet.Subscribe:
		return s.receiveSubscribe(fx, now, stream, p)
	case *packet.Unsubscribe:
		return s.receiveUnsubscribe(fx, stream, p)
	case *packet.Pingreq:
		s.queueAnswer(&s.main, answer{kind: packet.PINGRESP}) // [MQTT-3.12.4-1]
		return fx
	case *packet.Disconnect:
		return s.receiveDisconnect(fx, now, p)
	case *packet.Connect:
		return s.fail(fx, now, stream, packet.ProtocolError, "second CONNECT") // [MQTT-3.1.0-2]
	case *packet.Auth:
		return s.receiveAuth(fx, now, p)
	}
	return s.fail(fx, now, stream, packet.ProtocolError, "packet that only servers send")
}

func (s *Session) queueAnswer(l *lane, a answer) {
	l.control.push(a)
	s.answers++
}

func (s *Session) receivePublish(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Publish) []Effect {
	l := s.openLane(stream)
	topic := p.Topic
	if p.Properties != nil {
		if len(p.Properties.SubscriptionIDs) > 0 { // [MQTT-3.3.4-6]
			return s.fail(fx, now, stream, packet.ProtocolError, "PUBLISH: subscription identifier from a client")
		}
		if a := p.Properties.TopicAlias; a.Set {
			// [MQTT-3.3.2-8], [MQTT-3.3.2-9]
			if a.Value == 0 || a.Value > s.limits.TopicAliasMaximum {
				return s.fail(fx, now, stream, packet.TopicAliasInvalid, "PUBLISH: topic alias out of range")
			}
			if topic != "" {
				if s.aliasIn += int32(l.aliases.set(a.Value, topic)); s.aliasIn > maxAliasBytes {
					return s.close(fx, packet.QuotaExceeded, "PUBLISH: too much topic behind aliases", mqtt.LinkControlDown)
				}
			} else if topic = l.aliases.get(a.Value); topic == "" { // Section 3.3.2.3.4
				return s.fail(fx, now, stream, packet.ProtocolError, "PUBLISH: unknown topic alias")
			}
		}
	}
	if p.QoS == packet.AtMostOnce {
		return append(fx, Effect{Kind: EffectRoute, Stream: stream, Message: s.message(now, p, topic)})
	}

	st, repeated := receivedState(0), false
	if p.QoS == packet.ExactlyOnce {
		st, repeated = s.findReceived(stream, p.PacketID, p.Dup)
	}
	holds := st&counted == 0
	if holds {
		if p.Dup {
			s.reclaim(stream, p.PacketID)
		}
		// [MQTT-3.3.4-7]; a client of 3.x is not told of the maximum.
		if s.version >= packet.V5 && s.inbound >= int32(s.limits.ReceiveMaximum) {
			return s.close(fx, packet.ReceiveMaximumExceeded, "PUBLISH: receive maximum exceeded", mqtt.LinkControlDown)
		}
		// A client of 3.x can use every identifier, on every stream it opens.
		if p.QoS == packet.ExactlyOnce && !repeated && len(s.received) >= packetIDs {
			return s.close(fx, packet.ReceiveMaximumExceeded, "PUBLISH: too many incomplete QoS 2 exchanges", mqtt.LinkControlDown)
		}
		s.inbound++
	}
	if repeated {
		// Until PUBREL, a PUBLISH with this identifier is the same message: it
		// is acknowledged again and not routed again [MQTT-4.3.3-10].
		s.received.put(stream, p.PacketID, st|counted)
		l.owes = true
		if !l.unsent(p.PacketID) {
			s.queueAck(l, answer{id: p.PacketID, kind: packet.PUBREC, ready: st&routing == 0})
		}
		return fx
	}
	if s.findOp(stream, p.PacketID) != nil {
		// The identifier belongs to a SUBSCRIBE or UNSUBSCRIBE [MQTT-2.2.1-3].
		a := answer{id: p.PacketID, kind: packet.PUBACK, code: packet.PacketIDInUse, ready: true, frees: true}
		if p.QoS == packet.ExactlyOnce {
			a.kind = packet.PUBREC
		}
		s.queueAck(l, a)
		return fx
	}
	// The place of the acknowledgement is reserved now, so that acknowledgements
	// keep the order of the PUBLISH packets: [MQTT-4.6.0-2], [MQTT-4.6.0-3].
	if p.QoS == packet.ExactlyOnce {
		s.received.put(stream, p.PacketID, routing|counted)
		l.owes = true
		s.queueAck(l, answer{id: p.PacketID, kind: packet.PUBREC})
	} else {
		s.queueAck(l, answer{id: p.PacketID, kind: packet.PUBACK, frees: true})
	}
	return append(fx, Effect{Kind: EffectRoute, Stream: stream, PacketID: p.PacketID, Message: s.message(now, p, topic)})
}

func (s *Session) message(now time.Time, p *packet.Publish, topic string) *Message {
	m := NewMessage(now, p, s.clientID)
	m.Publish.Topic = topic
	s.mark(m)
	return m
}

// queueAck reserves the place of a PUBACK or PUBREC.
func (s *Session) queueAck(l *lane, a answer) {
	l.answers.push(a)
	s.answers++
	l.settle()
}

// Routed says that the message of an EffectRoute has been taken over, or was
// refused with a code of 0x80 or above. The acknowledgement is sent as soon as
// those of all PUBLISH packets that came before on its stream are.
func (s *Session) Routed(now time.Time, stream mqtt.StreamID, id uint16, code packet.ReasonCode) {
	if s.version < packet.V5 {
		// 3.x can only acknowledge (MQTT 3.1.1, [MQTT-3.3.5-2]).
		code = packet.Success
	}
	stream = s.routedOn(stream, id)
	var a *answer
	l := s.lane(stream)
	if l != nil {
		a = l.pending(id)
	}
	if st := s.received[receivedKey{stream, id}]; st&routing != 0 {
		if code.Failed() {
			// The identifier may be used anew [MQTT-4.3.3-9].
			s.received.remove(stream, id)
		} else {
			s.received.put(stream, id, st&^routing)
			if s.Durable() {
				s.journal.Received(id)
			}
		}
	}
	if a == nil {
		return
	}
	a.code, a.ready = code, true
	if a.kind == packet.PUBREC {
		a.frees = code.Failed()
	}
	l.settle()
}

// Unrouted takes the place of [Session.Routed] for a message that was not taken
// over and is not acknowledged: the caller ends the connection.
func (s *Session) Unrouted(stream mqtt.StreamID, id uint16) {
	stream = s.routedOn(stream, id)
	if s.received[receivedKey{stream, id}]&routing != 0 {
		s.received.remove(stream, id)
	}
}

// routedOn returns the stream on which the message that was routed for a stream
// is to be acknowledged now. It is another one if the connection has ended
// meanwhile: carried, or the stream on which the client sent the message again.
func (s *Session) routedOn(stream mqtt.StreamID, id uint16) mqtt.StreamID {
	if len(s.received) == 0 || s.received[receivedKey{stream, id}]&routing != 0 {
		return stream
	}
	const want = routing | resumed
	for _, other := range [...]mqtt.StreamID{carried, mqtt.ControlStream} {
		if s.received[receivedKey{other, id}]&want == want {
			return other
		}
	}
	for other := range s.data {
		if s.received[receivedKey{other, id}]&want == want {
			return other
		}
	}
	return stream
}

// receivePubrel completes an exchange of QoS 2 from the client.
func (s *Session) receivePubrel(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Ack) []Effect {
	l := s.openLane(stream)
	st, ok := s.findReceived(stream, p.PacketID, true)
	if !ok {
		s.reclaim(stream, p.PacketID)
		s.queueAnswer(l, answer{id: p.PacketID, kind: packet.PUBCOMP, code: packet.PacketIDNotFound})
		return fx
	}
	if st&routing != 0 {
		return s.fail(fx, now, stream, packet.ProtocolError, "PUBREL before PUBREC")
	}
	// [MQTT-4.3.3-11], [MQTT-4.3.3-12]
	s.received.remove(stream, p.PacketID)
	s.tellForgotten(p.PacketID)
	s.queueAnswer(l, answer{id: p.PacketID, kind: packet.PUBCOMP, frees: st&counted != 0})
	return fx
}

// receiveDisconnect ends the connection as the client wishes.
func (s *Session) receiveDisconnect(fx []Effect, now time.Time, p *packet.Disconnect) []Effect {
	if p.Properties != nil && p.Properties.SessionExpiry.Set {
		want := p.Properties.SessionExpiry.Value
		if s.zeroExpiry && want != 0 { // Section 3.14.2.2.2
			return s.fail(fx, now, mqtt.ControlStream, packet.ProtocolError, "DISCONNECT: session expiry interval was 0 in CONNECT")
		}
		s.expiry = s.limits.capExpiry(want)
	}
	if p.Code == packet.NormalDisconnection {
		s.will = nil // [MQTT-3.14.4-3]
	}
	s.tellState()
	s.state, s.silent = closing, true
	return append(fx, Effect{Kind: EffectClose, Code: p.Code, Reason: "DISCONNECT from the client", Link: mqtt.LinkNormal})
}
