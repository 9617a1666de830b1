package mqtttest

import (
	"fmt"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

var limitCases = []testCase{
	{"ReceiveMaximumOfOneHoldsTheSecondPublish", func(r *run) { // [MQTT-3.3.4-9]
		r.Attr("mqtt5", "MQTT-3.3.4-9 MQTT-4.9.0-2")
		for q := packet.AtLeastOnce; q <= packet.ExactlyOnce; q++ {
			sub, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: true, Properties: &packet.Properties{
				ReceiveMaximum: packet.Some[uint16](1),
			}})
			sub.subscribe("t", q)
			sub.subscribe("free", 0)
			pub := r.client("pub")
			pub.publish("t", "one", q)
			pub.publish("t", "two", q)
			one := sub.unacked("t", "one")
			sub.ping() // the second one waits
			pub.publish("free", "zero", 0)
			sub.message("free", "zero") // QoS 0 does not
			sub.ack(one)
			sub.message("t", "two")
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"FailedPubrecGivesTheQuotaBack", func(r *run) { // Section 4.9
		sub, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: true, Properties: &packet.Properties{
			ReceiveMaximum: packet.Some[uint16](1),
		}})
		sub.subscribe("t", 2)
		pub := r.client("pub")
		pub.publish("t", "one", 2)
		pub.publish("t", "two", 2)
		one := sub.unacked("t", "one")
		sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: one.PacketID, Code: packet.UnspecifiedError}})
		sub.message("t", "two")
	}},
	{"ReceiveMaximumHoldsOnTheNextConnectionToo", func(r *run) { // Section 4.9: the quota is initialised, then retransmission counts
		connect := func(clean bool) *peer {
			p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: clean, Properties: &packet.Properties{
				SessionExpiry: packet.Some[uint32](3600), ReceiveMaximum: packet.Some[uint16](2),
			}})
			return p
		}
		sub := connect(true)
		sub.subscribe("t", 1)
		pub := r.client("pub")
		for i := range 4 {
			pub.publish("t", fmt.Sprint(i), 1)
		}
		sub.unacked("t", "0")
		sub.unacked("t", "1")
		sub.ping()
		sub.kill()
		sub = connect(false)
		zero, one := sub.unacked("t", "0"), sub.unacked("t", "1")
		sub.ping()
		sub.ack(zero)
		two := sub.unacked("t", "2")
		require.False(r, two.Dup)
		sub.ping()
		sub.ack(one)
		sub.ack(two)
		sub.message("t", "3")
	}},
	{"MoreThanTheServersReceiveMaximumIsRefused", func(r *run) { // [MQTT-3.3.4-7], [MQTT-3.3.4-8], reason code 0x93
		r.start(&broker.Config{Limits: session.Limits{ReceiveMaximum: 2}})
		p, other := r.client("p"), r.client("other")
		send := func(id uint16) { p.send(&packet.Publish{Topic: "t", QoS: 2, PacketID: id}) }
		send(1)
		send(2)
		require.EqualValues(r, 1, expect[*packet.Pubrec](p).PacketID)
		require.EqualValues(r, 2, expect[*packet.Pubrec](p).PacketID)
		p.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 1}})
		expect[*packet.Pubcomp](p)
		send(3) // there is room again
		expect[*packet.Pubrec](p)
		send(4)
		p.expectDisconnect(packet.ReceiveMaximumExceeded)
		other.ping()
	}},
	{"PacketAboveTheClientsMaximumIsNotSent", func(r *run) { // [MQTT-3.1.2-24], [MQTT-3.1.2-25]
		r.Attr("mqtt5", "MQTT-3.1.2-24 MQTT-3.1.2-25")
		sub, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: true, Properties: &packet.Properties{
			MaximumPacketSize: packet.Some[uint32](100),
			ReceiveMaximum:    packet.Some[uint16](1), // an occupied slot would show
		}})
		sub.subscribe("t", 1)
		pub := r.client("pub")
		// 2 bytes of header, 3 of topic, 2 of identifier, 1 of properties
		fits, large := strings.Repeat("f", 92), strings.Repeat("l", 93)
		pub.publish("t", large, 1)
		pub.publish("t", fits, 1)
		sub.message("t", fits)
		pub.publish("t", large, 1)
		pub.publish("t", "after", 1)
		sub.message("t", "after")
		sub.ping()
	}},
	{"PacketAboveTheServersMaximumIsRefused", func(r *run) { // [MQTT-3.2.2-15], reason code 0x95
		r.start(&broker.Config{Limits: session.Limits{MaximumPacketSize: 200}})
		sub, pub, other := r.client("sub"), r.client("pub"), r.client("other")
		sub.subscribe("t", 0)
		fits := strings.Repeat("f", 200-3-3-1) // of header, topic, properties
		pub.publish("t", fits, 0)
		sub.message("t", fits)
		pub.send(&packet.Publish{Topic: "t", Payload: []byte(fits + "x")})
		pub.expectDisconnect(packet.PacketTooLarge)
		other.ping()
		sub.ping()
	}},
	{"TopicsOfTenThousandLevelsAreRefused", func(r *run) { // reason codes 0x90 and 0x8F
		deep := strings.Repeat("a/", 10_000) + "b"
		for _, v := range versions {
			sub, p := r.clientOf(v, "sub"), r.clientOf(v, "p")
			sub.subscribe("#", 2)
			ack := p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: deep}, {Filter: "x", QoS: 1}, {Filter: strings.Repeat("+/", 10_000) + "#"}}})
			refused := packet.TopicFilterInvalid
			if v < packet.V5 {
				refused = packet.UnspecifiedError // all that it has
			}
			require.Equal(r, []packet.ReasonCode{refused, 1, refused}, ack.Codes)
			for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
				code := p.publishPacket(&packet.Publish{Topic: deep, QoS: q})
				if v >= packet.V5 && q > 0 {
					require.Equal(r, packet.TopicNameInvalid, code)
				}
			}
			sub.ping()
			p.retain(deep, "r", 1)
			require.Zero(r, r.broker.Stats().Retained)
			p.publish(strings.Repeat("a/", 127)+"b", "m", 1) // 128 are not too many
			sub.message(strings.Repeat("a/", 127)+"b", "m")
			sub.disconnect(packet.NormalDisconnection)
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"SubscriptionsAboveTheLimitsAreRefused", func(r *run) { // reason code 0x97
		r.start(&broker.Config{Limits: session.Limits{MaxSubscriptions: 100, SubscriptionBytes: 70_000}})
		p, pub := r.client("p"), r.client("pub")
		var many []packet.Subscription
		for i := range 150 {
			many = append(many, packet.Subscription{Filter: fmt.Sprint("f/", i)})
		}
		for i, code := range p.suback(&packet.Subscribe{Subscriptions: many}).Codes {
			require.Equal(r, i >= 100, code == packet.QuotaExceeded, "%d: %v", i, code)
		}
		require.Equal(r, 100, r.broker.Stats().Subscriptions)
		require.Equal(r, []packet.ReasonCode{0, 0}, p.unsubscribe("f/0", "f/1"))
		long := strings.Repeat("l", 65_535)
		require.Equal(r, []packet.ReasonCode{0, packet.QuotaExceeded}, p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{
			{Filter: long}, {Filter: long[:10_000]},
		}}).Codes, "their bytes have a limit too")
		pub.publish(long, "m", 0)
		p.message(long, "m")
		pub.publish("f/99", "m", 0)
		p.message("f/99", "m")
	}},
	{"HugePacketIsRefusedAtItsHeader", func(r *run) { // Section 4.13: before 256 MB have arrived
		p, other := r.client("p"), r.client("other")
		p.sendRaw([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F})
		p.expectDisconnect(packet.PacketTooLarge)
		q := r.dial()
		q.sendRaw([]byte{0x10, 0xFF, 0xFF, 0xFF, 0x7F})
		q.expectEndAfterAtMost(packet.PacketTooLarge)
		other.ping()
	}},
	{"TopicAliasStandsForItsTopic", func(r *run) { // Section 3.3.2.3.4, [MQTT-3.3.2-12]
		r.Attr("mqtt5", "MQTT-3.1.2-27")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("#", 1)
		aliased := func(topic string, alias uint16, payload string) {
			pub.publishPacket(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, Properties: &packet.Properties{TopicAlias: packet.Some(alias)}})
		}
		aliased("a", 1, "set")
		aliased("b", 2, "set")
		aliased("", 1, "used")
		aliased("c", 1, "changed")
		aliased("", 1, "used")
		aliased("", 2, "used")
		for _, want := range [][2]string{{"a", "set"}, {"b", "set"}, {"a", "used"}, {"c", "changed"}, {"c", "used"}, {"b", "used"}} {
			m := sub.message(want[0], want[1])
			if m.Properties != nil {
				require.False(r, m.Properties.TopicAlias.Set, "the subscriber allows none: [MQTT-3.1.2-26], [MQTT-3.1.2-27]")
			}
		}
	}},
	{"InvalidTopicAliasIsRefused", func(r *run) { // [MQTT-3.3.2-8], [MQTT-3.3.2-9], reason code 0x94
		r.Attr("mqtt5", "MQTT-3.3.2-8")
		r.start(&broker.Config{Limits: session.Limits{TopicAliasMaximum: 5}})
		for _, alias := range []byte{0, 6} {
			p := r.client("p")
			p.sendRaw(frame(0x30, str("t"), []byte{3, 0x23, 0, alias}))
			p.expectDisconnect(packet.TopicAliasInvalid)
		}
		p := r.client("p")
		p.publishPacket(&packet.Publish{Topic: "t", QoS: 1, Properties: &packet.Properties{TopicAlias: packet.Some[uint16](5)}})
		p.ping()
	}},
	{"UnknownTopicAliasIsAProtocolError", func(r *run) { // Section 3.3.4
		p := r.client("p")
		p.sendRaw(frame(0x30, str(""), []byte{3, 0x23, 0, 1}))
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"TopicAliasEndsWithItsConnection", func(r *run) { // [MQTT-3.3.2-7]
		r.Attr("mqtt5", "MQTT-3.3.2-7")
		p, _ := r.session("p", true)
		p.publishPacket(&packet.Publish{Topic: "t", QoS: 1, Properties: &packet.Properties{TopicAlias: packet.Some[uint16](1)}})
		p.kill()
		p, ack := r.session("p", false)
		require.True(r, ack.SessionPresent)
		p.sendRaw(frame(0x30, str(""), []byte{3, 0x23, 0, 1}))
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"TopicAliasOfTheServerStaysWithinTheClientsMaximum", func(r *run) { // [MQTT-3.1.2-26]
		r.Attr("mqtt5", "MQTT-3.1.2-26 MQTT-3.3.2-8 MQTT-3.3.2-11")
		sub, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "sub", CleanStart: true, Properties: &packet.Properties{
			TopicAliasMaximum: packet.Some[uint16](2),
		}})
		sub.subscribe("#", 0)
		pub := r.client("pub")
		known := map[uint16]string{}
		for round := range 3 {
			for _, topic := range []string{"a", "b", "c"} {
				payload := fmt.Sprint(topic, round)
				pub.publish(topic, payload, 1)
				m := expect[*packet.Publish](sub)
				got := m.Topic
				if m.Properties != nil && m.Properties.TopicAlias.Set {
					alias := m.Properties.TopicAlias.Value
					require.LessOrEqual(r, alias, uint16(2))
					require.NotZero(r, alias)
					if got == "" {
						got = known[alias]
					}
					known[alias] = got
				}
				require.Equal(r, topic, got)
				require.Equal(r, payload, string(m.Payload))
			}
		}
	}},
}
