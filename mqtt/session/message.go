package session

import (
	"bytes"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Message is a published message, shared by every session that it is
// delivered to. It is immutable.
type Message struct {
	// Publish owns its memory. PacketID is 0, Dup false, and there is neither a
	// topic alias nor a subscription identifier among its properties.
	Publish packet.Publish
	From    string    // client ID of the publisher, for No Local
	Expires time.Time // zero: never

	// Received is when the message came to the server, in Unix nanoseconds, for
	// whoever measures how long it takes to be delivered; 0: nobody does. It is set
	// before the message is given to a session.
	Received int64
}

// NewMessage returns the message in p, published now by the client from. It
// copies what p may share with a buffer. p must be valid, as Decode makes it: it
// is not checked again for each subscriber.
func NewMessage(now time.Time, p *packet.Publish, from string) *Message {
	m := newMessage(p.Payload)
	m.From = from
	m.Publish.Topic = p.Topic
	m.Publish.QoS = p.QoS
	m.Publish.Retain = p.Retain
	if p.Properties != nil {
		m.Publish.Properties = messageProperties(p.Properties)
		if e := p.Properties.MessageExpiry; e.Set {
			m.Expires = now.Add(time.Duration(e.Value) * time.Second)
		}
	}
	return m
}

// newMessage returns a message with a copy of a payload. A small payload shares
// the message's memory.
func newMessage(payload []byte) *Message {
	const small = 64
	if n := len(payload); 0 < n && n <= small {
		m := new(struct {
			Message
			payload [small]byte
		})
		copy(m.payload[:], payload)
		m.Publish.Payload = m.payload[:n:n]
		return &m.Message
	}
	return &Message{Publish: packet.Publish{Payload: bytes.Clone(payload)}}
}

// messageProperties returns what a subscriber may see of p. Everything else
// belongs to one connection or one packet.
func messageProperties(p *packet.Properties) *packet.Properties {
	if !p.PayloadFormat.Set && !p.MessageExpiry.Set && p.ContentType == "" &&
		p.ResponseTopic == "" && p.CorrelationData == nil && len(p.User) == 0 {
		return nil
	}
	return &packet.Properties{
		PayloadFormat:   p.PayloadFormat,
		MessageExpiry:   p.MessageExpiry,
		ContentType:     p.ContentType,
		ResponseTopic:   p.ResponseTopic,
		CorrelationData: bytes.Clone(p.CorrelationData),
		User:            append([]packet.UserProperty(nil), p.User...),
	}
}

// Expired reports whether m may no longer be delivered [MQTT-3.3.2-5].
func (m *Message) Expired(now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// remaining is the Message Expiry Interval to send now: what was received
// minus the time that m has waited here [MQTT-3.3.2-6], in seconds, rounded to the
// nearest, but 0 only when nothing is left. A message that did not wait keeps its
// value, even if the writer's now is a little earlier than the message's.
func (m *Message) remaining(now time.Time) packet.Opt[uint32] {
	if m.Expires.IsZero() {
		return packet.Opt[uint32]{}
	}
	left := max(m.Expires.Sub(now), 0)
	seconds := uint32(left.Round(time.Second) / time.Second)
	if left > 0 {
		seconds = max(seconds, 1)
	}
	return packet.Some(seconds)
}

// A Delivery says how a message goes to one subscriber.
type Delivery struct {
	QoS             packet.QoS // the lower of the message's and the subscription's
	Retain          bool       // the RETAIN flag to send
	SubscriptionIDs []uint32   // of all matching subscriptions of this session; copied
	// Stream is where the subscription delivers, see [Session.StreamOf]. A
	// stream that is not open means the control stream, and so does one of
	// another Connection than the present one; 0 is the present one.
	Stream     mqtt.StreamID
	Connection uint32
}

// A DeliverResult says what became of a message.
type DeliverResult uint8

const (
	Queued  DeliverResult = iota // will be sent
	Full                         // the queue has no room: nothing was queued; the caller waits, or calls Overflow, or gives up
	Ignored                      // not for this session: offline and QoS 0, larger than the client's Maximum Packet Size, expired, ended
)
