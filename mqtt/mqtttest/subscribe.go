package mqtttest

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

var subscribeCases = []testCase{
	{"SubackAnswersEveryFilterInOrder", func(r *run) { // [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7]
		r.Attr("mqtt5", "MQTT-3.8.4-5 MQTT-3.8.4-6 MQTT-3.8.4-7 MQTT-3.9.3-1")
		r.Attr("mqtt3.1.1", "MQTT-3.8.4-4 MQTT-3.8.4-5 MQTT-3.9.3-1 MQTT-3.8.3-2")
		for _, v := range versions {
			p := r.clientOf(v, "c")
			ack := p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{
				{Filter: "a", QoS: 2}, {Filter: "b", QoS: 0}, {Filter: "c/#", QoS: 1}, {Filter: "+/d", QoS: 2},
			}})
			require.Equal(r, []packet.ReasonCode{packet.GrantedQoS2, packet.GrantedQoS0, packet.GrantedQoS1, packet.GrantedQoS2}, ack.Codes)
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"InvalidFilterIsMalformed", func(r *run) { // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], Section 4.13
		r.Attr("mqtt5", "MQTT-4.7.1-1 MQTT-4.7.1-2 MQTT-4.7.3-1")
		r.Attr("mqtt3.1.1", "MQTT-4.7.1-2 MQTT-4.7.1-3 MQTT-4.7.3-1")
		other := r.client("other")
		for _, bad := range []string{"a/#/b", "a#", "a+/b", "#/a", "+a", ""} {
			// 0x8F is for filters that are correctly formed: Section 3.9.3.
			p := r.client("c")
			p.sendRaw(frame(0x82, []byte{0, 1, 0}, str("good"), []byte{1}, str(bad), []byte{1}))
			p.expectDisconnect(packet.MalformedPacket, packet.ProtocolError)
			q := r.clientOf(packet.V311, "c")
			q.sendRaw(frame(0x82, []byte{0, 1}, str(bad), []byte{1}))
			q.expectDisconnect()
		}
		other.ping()
		require.Zero(r, r.broker.Stats().Subscriptions)
	}},
	{"FilterThatIsRefusedLeavesTheOthers", func(r *run) { // [MQTT-3.8.4-5], [MQTT-3.8.4-7]
		r.Attr("mqtt5", "MQTT-3.8.4-5 MQTT-3.8.4-7")
		r.Attr("mqtt3.1.1", "MQTT-3.8.4-5 MQTT-3.9.3-2")
		r.start(&broker.Config{Limits: session.Limits{MaxSubscriptions: 1}})
		p, pub := r.client("c"), r.client("pub")
		ack := p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "good", QoS: 1}, {Filter: "more", QoS: 1}}})
		require.Equal(r, []packet.ReasonCode{packet.GrantedQoS1, packet.QuotaExceeded}, ack.Codes)
		old := r.clientOf(packet.V311, "old")
		ack = old.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "good", QoS: 1}, {Filter: "more", QoS: 1}}})
		require.Equal(r, []packet.ReasonCode{packet.GrantedQoS1, packet.UnspecifiedError}, ack.Codes, "MQTT 3.1.1 [MQTT-3.9.3-2]")
		pub.publish("more", "m", 1)
		pub.publish("good", "m", 1)
		p.message("good", "m")
		old.message("good", "m")
		p.ping()
		old.ping()
	}},
	{"VeryDeepFilterEndsNobody", func(r *run) { // Section 3.9.3: it may be refused, in its place
		p := r.client("c")
		deep := strings.Repeat("a/", 20_000) + "#"
		ack := p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: deep, QoS: 1}, {Filter: "good", QoS: 1}}})
		require.Contains(r, []packet.ReasonCode{packet.GrantedQoS1, packet.TopicFilterInvalid, packet.QuotaExceeded, packet.ImplementationSpecificError}, ack.Codes[0])
		require.Equal(r, packet.GrantedQoS1, ack.Codes[1])
		p.ping()
	}},
	{"WildcardsMatchAsSpecified", func(r *run) { // Section 4.7.1
		r.Attr("mqtt5", "MQTT-3.3.2-3")
		sub, pub := r.client("sub"), r.client("pub")
		for _, c := range []struct {
			filter string
			match  []string
			not    []string
		}{
			{"sport/tennis/#", []string{"sport/tennis", "sport/tennis/player1", "sport/tennis/player1/ranking"}, []string{"sport", "sport/tennisx"}},
			{"sport/+", []string{"sport/tennis", "sport/"}, []string{"sport", "sport/tennis/player1"}},
			{"+/+", []string{"/finance", "a/b"}, []string{"finance", "a/b/c"}},
			{"/+", []string{"/finance"}, []string{"finance", "a/finance"}},
			{"+", []string{"finance"}, []string{"/finance"}},
			{"#", []string{"a", "/", "a/b/c/d/e"}, nil},
			{"a/+/c/#", []string{"a/b/c", "a/b/c/d", "a//c"}, []string{"a/c", "a/b/b/c"}},
		} {
			sub.subscribe(c.filter, 1)
			for _, topic := range c.not {
				pub.publish(topic, "not", 1)
			}
			for _, topic := range c.match {
				pub.publish(topic, c.filter, 1)
				sub.message(topic, c.filter)
			}
			require.Equal(r, []packet.ReasonCode{packet.Success}, sub.unsubscribe(c.filter))
		}
	}},
	{"WildcardsDoNotMatchTopicsThatBeginWithADollar", func(r *run) { // [MQTT-4.7.2-1]
		r.Attr("mqtt5", "MQTT-4.7.2-1")
		sub, exact, pub := r.client("sub"), r.client("exact"), r.client("pub")
		sub.subscribe("#", 1)
		sub.subscribe("+/news", 1)
		exact.subscribe("$own/#", 1)
		pub.publish("$own/news", "m", 1)
		exact.message("$own/news", "m")
		sub.ping()
	}},
	{"SubscriptionIsReplacedByTheSameFilter", func(r *run) { // [MQTT-3.8.4-3], [MQTT-3.8.4-4]
		r.Attr("mqtt5", "MQTT-3.8.4-3 MQTT-3.8.4-4")
		sub, pub := r.client("sub"), r.client("pub")
		pub.retain("t", "retained", 2)
		sub.subscribe("t", 0)
		require.Equal(r, packet.AtMostOnce, sub.message("t", "retained").QoS)
		sub.subscribe("t", 2)
		require.Equal(r, packet.ExactlyOnce, sub.message("t", "retained").QoS, "retained messages must be sent again")
		pub.publish("t", "m", 2)
		require.Equal(r, packet.ExactlyOnce, sub.message("t", "m").QoS)
		sub.ping() // one copy
	}},
	{"UnsubscribeStopsTheMessages", func(r *run) { // [MQTT-3.10.4-1], [MQTT-3.11.3-1], [MQTT-3.11.3-2]
		r.Attr("mqtt5", "MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-6 MQTT-3.11.3-1 MQTT-3.11.3-2")
		r.Attr("mqtt3.1.1", "MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-6")
		for _, v := range versions {
			sub, pub := r.clientOf(v, "sub"), r.client("pub")
			sub.subscribe("a", 1)
			sub.subscribe("b", 1)
			codes := sub.unsubscribe("a", "never")
			if v == packet.V5 {
				require.Equal(r, []packet.ReasonCode{packet.Success, packet.NoSubscriptionExisted}, codes)
			}
			pub.publish("a", "m", 1)
			pub.publish("b", "m", 1)
			sub.message("b", "m")
			sub.ping()
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"UnsubscribeComparesFiltersCharacterByCharacter", func(r *run) { // [MQTT-3.10.4-1]
		r.Attr("mqtt5", "MQTT-3.10.4-1")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("a/+", 1)
		require.Equal(r, []packet.ReasonCode{packet.NoSubscriptionExisted, packet.NoSubscriptionExisted}, sub.unsubscribe("a/b", "a/#"))
		pub.publish("a/b", "m", 1)
		sub.message("a/b", "m")
	}},
	{"UnsubscribeLetsExchangesFinish", func(r *run) { // [MQTT-3.10.4-3]
		r.Attr("mqtt5", "MQTT-3.10.4-3")
		sub, pub := r.client("sub"), r.client("pub")
		sub.subscribe("t", 2)
		pub.publish("t", "m", 2)
		m := sub.unacked("t", "m")
		require.Equal(r, []packet.ReasonCode{packet.Success}, sub.unsubscribe("t"))
		sub.ack(m)
		sub.ping()
	}},
	{"NoLocalKeepsOwnMessagesAway", func(r *run) { // [MQTT-3.8.3-3]
		r.Attr("mqtt5", "MQTT-3.8.3-3")
		a, b := r.client("a"), r.client("b")
		a.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, NoLocal: true})
		a.publish("t", "own", 1)
		a.ping()
		b.publish("t", "other", 1)
		a.message("t", "other")
		a.ping()
	}},
	{"NoLocalOutlivesTheConnection", func(r *run) {
		a, _ := r.session("a", true)
		a.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, NoLocal: true})
		a.kill()
		a, ack := r.session("a", false)
		require.True(r, ack.SessionPresent)
		a.publish("t", "own", 1)
		a.ping()
	}},
	{"SubscriptionIdentifierComesWithItsMessages", func(r *run) { // [MQTT-3.3.4-3], [MQTT-3.3.4-4]
		r.Attr("mqtt5", "MQTT-3.3.4-3")
		sub, pub := r.client("sub"), r.client("pub")
		withID := func(filter string, id uint32) {
			ack := sub.suback(&packet.Subscribe{
				Subscriptions: []packet.Subscription{{Filter: filter, QoS: 1}},
				Properties:    &packet.Properties{SubscriptionIDs: []uint32{id}},
			})
			require.Equal(r, packet.GrantedQoS1, ack.Codes[0])
		}
		withID("a", 1)
		withID("b", 268_435_455)
		sub.subscribe("c", 1)
		pub.publish("a", "m", 1)
		require.Equal(r, []uint32{1}, sub.message("a", "m").Properties.SubscriptionIDs)
		pub.publish("b", "m", 1)
		require.Equal(r, []uint32{268_435_455}, sub.message("b", "m").Properties.SubscriptionIDs)
		pub.publish("c", "m", 1)
		if m := sub.message("c", "m"); m.Properties != nil {
			require.Empty(r, m.Properties.SubscriptionIDs)
		}
		withID("a", 7) // replaced
		pub.publish("a", "m", 1)
		require.Equal(r, []uint32{7}, sub.message("a", "m").Properties.SubscriptionIDs)
	}},
	{"OverlappingSubscriptionsDeliverTheHighestQoSAndAllIdentifiers", func(r *run) { // [MQTT-3.3.4-2], [MQTT-3.3.4-4], [MQTT-3.3.4-5]
		r.Attr("mqtt5", "MQTT-3.3.4-2 MQTT-3.3.4-4")
		sub, pub := r.client("sub"), r.client("pub")
		for i, s := range []packet.Subscription{{Filter: "a/b", QoS: 0}, {Filter: "a/+", QoS: 2}, {Filter: "#", QoS: 1}} {
			sub.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{s}, Properties: &packet.Properties{SubscriptionIDs: []uint32{uint32(i + 1)}}})
		}
		pub.publish("a/b", "m", 2)
		// One copy with all identifiers, or one for each subscription with
		// its own: the sum is the same.
		var ids []uint32
		var highest packet.QoS
		for len(ids) < 3 {
			m := sub.message("a/b", "m")
			require.NotNil(r, m.Properties)
			require.NotEmpty(r, m.Properties.SubscriptionIDs)
			ids = append(ids, m.Properties.SubscriptionIDs...)
			highest = max(highest, m.QoS)
		}
		require.ElementsMatch(r, []uint32{1, 2, 3}, ids)
		require.Equal(r, packet.ExactlyOnce, highest)
		sub.ping()
	}},
	{"SubscriptionIdentifierOutlivesTheConnection", func(r *run) { // Section 4.1: part of the subscription
		sub, _ := r.session("sub", true)
		sub.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}, Properties: &packet.Properties{SubscriptionIDs: []uint32{9}}})
		sub.kill()
		r.client("pub").publish("t", "m", 1)
		sub, _ = r.session("sub", false)
		require.Equal(r, []uint32{9}, sub.message("t", "m").Properties.SubscriptionIDs)
	}},
	{"SubscriptionIdentifierOfAPublisherIsAProtocolError", func(r *run) { // [MQTT-3.3.4-6]
		p := r.client("c")
		p.sendRaw(frame(0x30, str("t"), []byte{2, 0x0B, 1}, []byte("m")))
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"SubscriberMayPublishToItself", func(r *run) {
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.subscribe("t", 0)
			p.send(&packet.Publish{Topic: "t", Payload: []byte("m")})
			p.message("t", "m")
			p.disconnect(packet.NormalDisconnection)
		}
	}},
}
