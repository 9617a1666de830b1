package client

import (
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An inboundID names a message from the server. Packet identifiers belong to a
// session, but servers exist that count them per stream.
type inboundID struct {
	stream mqtt.StreamID
	id     uint16
}

// A reception is a message with QoS 1 or 2 that has arrived and whose exchange is
// not complete.
type reception struct {
	qos       packet.QoS
	delivered bool   // the application has had it
	owed      uint64 // epoch in which an acknowledgement is owed

	cut  bool          // of a data stream that has ended: what has no DUP is another message
	from mqtt.StreamID // that stream
}

type inbound struct {
	// received holds QoS 1 messages from PUBLISH to PUBACK, within one
	// connection; and QoS 2 messages from PUBLISH to PUBCOMP, within one
	// session: that is what makes it exactly once ([MQTT-4.3.3-10]).
	received map[inboundID]reception

	aliases []string // topics by alias, of this connection; index 0 is unused
}

// receivePublish handles a PUBLISH and reports whether to deliver it. If so, its
// topic is complete and free of aliases, and, for QoS 1 and 2, delivered must be
// called after the application has had it.
func (m *machine) receivePublish(stream mqtt.StreamID, p *packet.Publish) (bool, error) {
	if p.Properties != nil && p.Properties.TopicAlias.Set {
		if err := m.resolveAlias(p); err != nil {
			return false, err
		}
	} else if p.Topic == "" {
		return false, &ProtocolError{packet.ProtocolError, "PUBLISH without topic and topic alias"}
	}
	if p.QoS == packet.AtMostOnce {
		return true, nil
	}
	key := inboundID{stream, p.PacketID}
	r, known := m.received[key]
	if known && m.version == packet.V31 && !p.Dup && r.owed != m.epoch {
		known = false // the server has lost the session and begins anew
	}
	if known && r.cut && !p.Dup {
		known = false
		m.log.forgot(key, r)
	}
	switch {
	case known && r.qos != p.QoS:
		return false, &ProtocolError{packet.PacketIDInUse, "packet identifier of another message"}
	case known:
		// The message itself is on its way to the application, or was there.
		r.owed, r.cut = m.epoch, false
		if r.delivered {
			m.sendAck(stream, packet.PUBREC, p.PacketID, 0)
		}
		m.received[key] = r
		return false, nil
	}
	// [MQTT-3.3.4-9]. Receptions of earlier connections may be among them: the
	// server sends those again, and they count again.
	if m.version >= packet.V5 && len(m.received) >= int(m.cfg.receiveMaximum) && m.owedNow() >= int(m.cfg.receiveMaximum) {
		return false, &ProtocolError{packet.ReceiveMaximumExceeded, "more messages than the receive maximum"}
	}
	m.received[key] = reception{qos: p.QoS, owed: m.epoch}
	return true, nil
}

func (m *machine) resolveAlias(p *packet.Publish) error {
	alias := p.Properties.TopicAlias.Value
	switch {
	case alias == 0 || int(alias) >= len(m.aliases):
		return &ProtocolError{packet.TopicAliasInvalid, "topic alias above the topic alias maximum"}
	case p.Topic != "":
		m.aliases[alias] = p.Topic
	case m.aliases[alias] == "":
		return &ProtocolError{packet.ProtocolError, "topic alias without a topic"}
	default:
		p.Topic = m.aliases[alias]
	}
	p.Properties.TopicAlias = packet.Opt[uint16]{}
	return nil
}

// owedNow counts the messages of this connection that are not acknowledged.
func (m *machine) owedNow() int {
	n := 0
	for _, r := range m.received {
		if r.owed == m.epoch {
			n++
		}
	}
	return n
}

// delivered is called after the application has had a message with QoS 1 or 2
// that arrived on connection epoch in the given session.
func (m *machine) delivered(epoch, session uint64, stream mqtt.StreamID, qos packet.QoS, id uint16) {
	m.acknowledge(&acknowledgement{order: ackOrder{epoch, stream, qos}, session: session, id: id}, 0)
}

// acknowledge is delivered with a reason code, which refuses the message if it is
// 0x80 or above and the version has words for that.
func (m *machine) acknowledge(a *acknowledgement, code packet.ReasonCode) {
	stream, id := a.order.stream, a.id
	if a.session != m.session {
		return // the server has forgotten it as well
	}
	if m.version < packet.V5 {
		code = 0
	}
	key := inboundID{stream, id}
	if a.order.qos == packet.AtLeastOnce {
		// A QoS 1 message of an earlier connection is sent again by the server.
		if a.order.epoch == m.epoch && m.connected {
			delete(m.received, key)
			m.sendAck(stream, packet.PUBACK, id, code)
		}
		return
	}
	r, ok := m.received[key]
	if !ok {
		stream, key.stream = mqtt.ControlStream, mqtt.ControlStream
		if r, ok = m.received[key]; !ok || r.from == mqtt.ControlStream {
			return
		}
	}
	if code.Failed() && m.connected && r.owed == m.epoch {
		delete(m.received, key) // the identifier is free [MQTT-4.3.3-9]
		m.sendAck(stream, packet.PUBREC, id, code)
		return
	}
	r.delivered = true
	m.received[key] = r
	m.log.received(key, r)
	if m.connected && r.owed == m.epoch {
		m.sendAck(stream, packet.PUBREC, id, 0)
	}
}

func (m *machine) receivePubrel(stream mqtt.StreamID, a *packet.Ack) error {
	key := inboundID{stream, a.PacketID}
	r, ok := m.received[key]
	switch {
	case !ok:
		// A second PUBREL, or one from a session that this client does not
		// know. In 3.x the code is left out.
		m.sendAck(stream, packet.PUBCOMP, a.PacketID, packet.PacketIDNotFound)
	case r.qos != packet.ExactlyOnce || !r.delivered:
		return &ProtocolError{packet.ProtocolError, "PUBREL before PUBREC"}
	default:
		delete(m.received, key)
		m.log.forgot(key, r)
		m.sendAck(stream, packet.PUBCOMP, a.PacketID, 0)
	}
	return nil
}

func (m *machine) suspendInbound() {
	for key, r := range m.received {
		if r.qos == packet.AtLeastOnce {
			delete(m.received, key)
		}
	}
	m.cutInbound(mqtt.ControlStream)
}

func (m *machine) loseInbound() { clear(m.received) }

// resumeInbound prepares for n topic aliases: they end with the connection
// ([MQTT-3.3.2-7]).
func (m *machine) resumeInbound(n uint16) {
	clear(m.aliases)
	if m.version >= packet.V5 && n > 0 && m.aliases == nil {
		m.aliases = make([]string, int(n)+1)
	}
}
