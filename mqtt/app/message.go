package app

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Message is a message that a handler got. Payload and Properties may be shared
// with other subscribers and must not be modified.
type Message struct {
	Topic      string
	Payload    []byte
	QoS        packet.QoS
	Retain     bool // it was published before, and kept
	Properties *packet.Properties

	ctx      context.Context
	app      *App
	from     backend
	route    *route
	client   func() broker.ClientInfo
	params   []string // nil until asked for
	delivery *delivery
	ended    atomic.Bool // its part of the delivery has ended
}

// Param returns what the pattern's wildcard number i matched, from 0; "" if there
// is none. For a # that is all the levels that were left.
func (m *Message) Param(i int) string {
	if m.params == nil {
		m.params = m.route.params(m.Topic)
	}
	if i < 0 || i >= len(m.params) {
		return ""
	}
	return m.params[i]
}

// Named returns what the pattern's wildcard of a name matched; "" if there is
// none.
func (m *Message) Named(name string) string {
	if name == "" {
		return ""
	}
	return m.Param(slices.Index(m.route.names, name))
}

// Pattern returns the pattern that the handler was added with.
func (m *Message) Pattern() string { return m.route.text }

// Client says who published the message, as far as that is known. Inside a broker
// that is everything if it came directly from a client, and the ClientID of a
// will or a retained message. Over a client connection MQTT does not tell: only
// Carrier is set, to what carried the message here.
func (m *Message) Client() broker.ClientInfo { return m.client() }

// Text returns the payload, which must be UTF-8: otherwise the error refuses the
// message with Payload format invalid (0x99).
func (m *Message) Text() (string, error) {
	if !utf8.Valid(m.Payload) {
		return "", Reasonf(packet.PayloadFormatInvalid, "the payload is not UTF-8")
	}
	return string(m.Payload), nil
}

// JSON decodes the payload into v. The error refuses the message with Payload
// format invalid (0x99).
func (m *Message) JSON(v any) error {
	if err := json.Unmarshal(m.Payload, v); err != nil {
		return Reasonf(packet.PayloadFormatInvalid, "%v", err)
	}
	return nil
}

// ResponseTopic returns where the publisher wants a reply; "" if it wants none, or
// if Config.MayReply refuses the topic.
func (m *Message) ResponseTopic() string {
	if m.Properties == nil || m.Properties.ResponseTopic == "" {
		return ""
	}
	topic := m.Properties.ResponseTopic
	may := m.app.cfg.MayReply
	if may == nil && topic[0] == '$' || may != nil && !may(m, topic) {
		return ""
	}
	return topic
}

// Reply publishes payload to the message's response topic, with its correlation
// data and its QoS (MQTT 5, Section 4.10). The error is [ErrNoReply] if there is none.
// It waits as [App.Publish] does, until the handler's context is done.
func (m *Message) Reply(payload []byte) error { return m.reply(payload, "") }

// ReplyJSON is Reply with v encoded as JSON.
func (m *Message) ReplyJSON(v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return m.reply(payload, "application/json")
}

func (m *Message) reply(payload []byte, contentType string) error {
	topic := m.ResponseTopic()
	if topic == "" {
		return ErrNoReply
	}
	return m.from.publish(m.ctx, &packet.Publish{
		Topic: topic, Payload: payload, QoS: m.QoS,
		Properties: &packet.Properties{
			CorrelationData: bytes.Clone(m.Properties.CorrelationData), ContentType: contentType,
		},
	})
}

// Publish publishes another message by the broker or client that this one came
// from, with the QoS of this one. It waits as [App.Publish] does, until the
// handler's context is done.
func (m *Message) Publish(topic string, payload []byte) error {
	return m.from.publish(m.ctx, &packet.Publish{Topic: topic, Payload: payload, QoS: m.QoS})
}

// Request is [App.Request] by the broker or client that the message came from. The
// handler of the response must not be the one that asks, nor another one of the
// same pattern and topic.
func (m *Message) Request(ctx context.Context, topic string, payload []byte) (*packet.Publish, error) {
	return m.from.request(ctx, topic, payload)
}
