package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// An Outgoing packet: either Packet, or Message with the rest. It is valid
// until the next call of Next.
type Outgoing struct {
	Packet          packet.Packet // nil for a message
	Message         *Message
	ID              uint16
	QoS             packet.QoS
	Dup, Retain     bool
	SubscriptionIDs []uint32
	Alias           uint16 // topic alias to send, 0 none
	AliasKnown      bool   // the topic is left out
}

// newOutgoing returns the packet for a message, but for its identifier and alias.
// A single subscription identifier is put into id.
func newOutgoing(e *entry, id *[1]uint32) Outgoing {
	return Outgoing{
		Message: e.msg, QoS: e.qos(), Retain: e.retain(),
		SubscriptionIDs: e.subscriptionIDs(id),
	}
}

// Append appends the packet, encoded in version v. It fails, with dst unchanged,
// only for a message that is not valid in v.
func (o *Outgoing) Append(dst []byte, v packet.Version, now time.Time) ([]byte, error) {
	if o.Packet != nil {
		return o.Packet.Append(dst, v)
	}
	return packet.AppendPublish(dst, v, &o.Message.Publish, o.header(now))
}

func (o *Outgoing) size(v packet.Version, now time.Time) int64 {
	return int64(packet.PublishSize(v, &o.Message.Publish, o.header(now)))
}

func (o *Outgoing) header(now time.Time) packet.PublishHeader {
	return packet.PublishHeader{
		PacketID: o.ID, QoS: o.QoS, Dup: o.Dup, Retain: o.Retain,
		SubscriptionIDs: o.SubscriptionIDs,
		Alias:           o.Alias, OmitTopic: o.AliasKnown,
		Expiry:  o.Message.remaining(now),
		Checked: true, // see NewMessage
	}
}

// A scratch holds the answer that Next returned last, so that answers need no
// memory of their own.
type scratch struct {
	puback  packet.Puback
	pubrec  packet.Pubrec
	pubrel  packet.Pubrel
	pubcomp packet.Pubcomp
}

func (s *Session) answerPacket(a answer) packet.Packet {
	if a.kind == packet.PINGRESP {
		return &packet.Pingresp{}
	}
	if s.scratch == nil {
		s.scratch = new(scratch)
	}
	ack := packet.Ack{PacketID: a.id, Code: a.code}
	switch a.kind {
	case packet.PUBACK:
		s.scratch.puback.Ack = ack
		return &s.scratch.puback
	case packet.PUBREC:
		s.scratch.pubrec.Ack = ack
		return &s.scratch.pubrec
	case packet.PUBREL:
		s.scratch.pubrel.Ack = ack
		return &s.scratch.pubrel
	default:
		s.scratch.pubcomp.Ack = ack
		return &s.scratch.pubcomp
	}
}

// nextPacket returns the next packet of a lane that is not a PUBLISH, or nil.
func (s *Session) nextPacket(l *lane, control bool) packet.Packet {
	if s.connack != nil {
		if !control {
			return nil // nothing before CONNACK [MQTT-3.2.0-1]
		}
		p := s.connack
		s.connack = nil
		if s.fits(p) {
			return p
		}
	}
	if l.control.n > 0 {
		return s.answerPacket(s.sent(l.control.pop()))
	}
	if l.ready > 0 {
		l.ready--
		return s.answerPacket(s.sent(l.answers.pop()))
	}
	for l.packets.n > 0 {
		p := l.packets.pop()
		s.answers -= int32(weight(p))
		if s.fits(p) {
			return p
		}
	}
	if p := s.bye; p != nil && control && s.state == closing {
		// What becomes ready later, on any stream, must not follow [MQTT-3.14.4-1].
		s.bye, s.silent = nil, true
		if !s.fits(p) {
			p.Properties = nil // [MQTT-3.14.2-3]
		}
		if s.fits(p) {
			return p
		}
	}
	return nil
}

// sent counts an answer as sent.
func (s *Session) sent(a answer) answer {
	s.answers--
	if a.frees {
		s.inbound--
	}
	return a
}

// fits reports whether the client takes a packet of this size [MQTT-3.1.2-24].
func (s *Session) fits(p packet.Packet) bool {
	if s.maxPacket == 0 {
		return true
	}
	b, err := p.Append(nil, s.version)
	return err == nil && int64(len(b)) <= int64(s.maxPacket)
}
