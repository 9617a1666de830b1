package mqtttest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

var publishCases = []testCase{
	{"MessageIsDeliveredWithTheLowerQoS", func(r *run) { // [MQTT-3.8.4-8]
		r.Attr("mqtt5", "MQTT-3.8.4-8 MQTT-3.3.4-1 MQTT-4.3.1-1 MQTT-4.3.2-2 MQTT-4.3.3-2")
		r.Attr("mqtt3.1.1", "MQTT-3.8.4-6 MQTT-3.3.4-1 MQTT-3.3.1-9 MQTT-4.3.1-1")
		for _, v := range versions {
			sub, pub := r.clientOf(v, "sub"), r.clientOf(v, "pub")
			for granted := packet.AtMostOnce; granted <= packet.ExactlyOnce; granted++ {
				for sent := packet.AtMostOnce; sent <= packet.ExactlyOnce; sent++ {
					topic := fmt.Sprintf("q/%d/%d", granted, sent)
					sub.subscribe(topic, granted)
					pub.publish(topic, "m", sent)
					m := sub.message(topic, "m")
					require.Equal(r, min(granted, sent), m.QoS)
					require.False(r, m.Dup, "[MQTT-3.3.1-3]")
					require.False(r, m.Retain, "[MQTT-3.3.1-12]")
				}
			}
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"MessagesKeepTheirOrder", func(r *run) { // [MQTT-4.6.0-6]
		r.Attr("mqtt5", "MQTT-4.6.0-5 MQTT-4.6.0-6")
		for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
			sub, pub := r.client("sub"), r.client("pub")
			sub.subscribe("t", q)
			var burst []packet.Packet
			const n = 100
			for i := range n {
				m := &packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: q}
				if q > 0 {
					m.PacketID = pub.id()
				}
				burst = append(burst, m)
			}
			pub.send(burst...)
			for i := range n {
				sub.receiveOrdered("t", fmt.Sprint(i))
			}
			pub.kill()
			sub.kill()
		}
	}},
	{"PayloadMayBeEmpty", func(r *run) { // Section 3.3.3
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 1)
		pub.publish("t", "", 1)
		sub.message("t", "")
	}},
	{"LargePayloadArrivesWhole", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.2.0-1")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 1)
		payload := strings.Repeat("0123456789abcdef", 60_000) // 960,000 bytes
		pub.publish("t", payload, 1)
		m := expect[*packet.Publish](sub)
		require.True(r, payload == string(m.Payload), "the payload differs")
		sub.ack(m)
	}},
	{"TopicsAreCaseSensitiveAndKeepTheirLevels", func(r *run) { // [MQTT-4.7.3-4], Section 4.7.3
		r.Attr("mqtt5", "MQTT-4.7.3-4 MQTT-3.3.2-3")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("a/b", 1)
		sub.subscribe("/", 1)
		sub.subscribe("ä/\u4e16", 1)
		for _, other := range []string{"A/b", "a/b/", "/a/b", "a", "a//b"} {
			pub.publish(other, "other", 1)
		}
		for _, topic := range []string{"a/b", "/", "ä/\u4e16"} {
			pub.publish(topic, "m", 1)
			sub.message(topic, "m")
		}
		sub.ping()
	}},
	{"PropertiesOfAMessageAreForwarded", func(r *run) { // [MQTT-3.3.2-4], -15, -16, -17, -18, -20
		r.Attr("mqtt5", "MQTT-3.3.2-4 MQTT-3.3.2-15 MQTT-3.3.2-16 MQTT-3.3.2-17 MQTT-3.3.2-18 MQTT-3.3.2-20")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 2)
		user := []packet.UserProperty{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: ""}}
		for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
			pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("m"), QoS: q, Properties: &packet.Properties{
				PayloadFormat:   packet.Some[byte](1),
				ContentType:     "text/plain",
				ResponseTopic:   "answer",
				CorrelationData: []byte{0, 1, 2},
				User:            user,
			}})
			m := sub.message("t", "m")
			require.NotNil(r, m.Properties)
			require.Equal(r, packet.Some[byte](1), m.Properties.PayloadFormat)
			require.Equal(r, "text/plain", m.Properties.ContentType)
			require.Equal(r, "answer", m.Properties.ResponseTopic)
			require.Equal(r, []byte{0, 1, 2}, m.Properties.CorrelationData)
			require.Equal(r, user, m.Properties.User, "the order must be kept")
		}
	}},
	{"PropertiesAreLeftOutForClientsThatHaveNone", func(r *run) {
		sub, pub := r.clientOf(packet.V311, "sub"), r.client("pub")
		sub.subscribe("t", 1)
		pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("m"), QoS: 1, Properties: &packet.Properties{ContentType: "text/plain"}})
		require.Nil(r, sub.message("t", "m").Properties)
	}},
	{"MessageIsAcknowledgedWithoutSubscribers", func(r *run) { // Section 3.4.2.1: success, or that nobody is there
		pub := r.client("pub")
		for _, q := range []packet.QoS{1, 2} {
			code := pub.publishPacket(&packet.Publish{Topic: "nobody", Payload: []byte("m"), QoS: q})
			require.Contains(r, []packet.ReasonCode{packet.Success, packet.NoMatchingSubscribers}, code)
		}
		sub := r.client("sub")
		sub.subscribe("somebody", 0)
		code := pub.publishPacket(&packet.Publish{Topic: "somebody", Payload: []byte("m"), QoS: 1})
		require.Equal(r, packet.Success, code)
		sub.message("somebody", "m")
	}},
	{"RequestFindsItsResponse", func(r *run) { // Section 4.10
		requester, responder := r.client("requester"), r.client("responder")
		requester.subscribe("answers/requester", 1)
		responder.subscribe("questions", 1)
		requester.publishPacket(&packet.Publish{Topic: "questions", Payload: []byte("?"), QoS: 1, Properties: &packet.Properties{
			ResponseTopic: "answers/requester", CorrelationData: []byte("42"),
		}})
		q := responder.message("questions", "?")
		responder.publishPacket(&packet.Publish{Topic: q.Properties.ResponseTopic, Payload: []byte("!"), QoS: 1, Properties: &packet.Properties{
			CorrelationData: q.Properties.CorrelationData,
		}})
		require.Equal(r, []byte("42"), requester.message("answers/requester", "!").Properties.CorrelationData)
	}},
	{"MessageOfASlowReaderWaitsForIt", func(r *run) {
		// More than the kernel's buffers or a stream's window hold: the
		// broker must go on when the reader does.
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 1)
		payload := bytes.Repeat([]byte("x"), 100_000)
		const n = 8
		for range n {
			pub.publishPacket(&packet.Publish{Topic: "t", Payload: payload, QoS: 1})
		}
		for range n {
			m := expect[*packet.Publish](sub)
			require.Len(r, m.Payload, len(payload))
			sub.ack(m)
		}
		sub.ping()
	}},
}

// receiveOrdered is message for a burst: the exchanges of several messages
// overlap, so what belongs to earlier ones is answered on the way.
func (p *peer) receiveOrdered(topic, payload string) {
	p.r.Helper()
	for {
		pk, err := p.receive()
		require.NoError(p.r, err)
		switch pk := pk.(type) {
		case *packet.Pubrel:
			p.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: pk.PacketID}})
			continue
		case *packet.Publish:
			require.Equal(p.r, topic, pk.Topic)
			require.Equal(p.r, payload, string(pk.Payload))
			switch pk.QoS {
			case packet.AtLeastOnce:
				p.send(&packet.Puback{Ack: packet.Ack{PacketID: pk.PacketID}})
			case packet.ExactlyOnce:
				p.send(&packet.Pubrec{Ack: packet.Ack{PacketID: pk.PacketID}})
			}
			return
		default:
			require.Failf(p.r, "unexpected packet", "%T", pk)
		}
	}
}
