package mqtttest

import (
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

var retainCases = []testCase{
	{"RetainedMessageIsSentToNewSubscribers", func(r *run) { // [MQTT-3.3.1-5], [MQTT-3.3.1-8]
		r.Attr("mqtt5", "MQTT-3.3.1-5")
		r.Attr("mqtt3.1.1", "MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-8")
		for _, v := range versions {
			pub := r.clientOf(v, "pub")
			pub.retain("t", "first", 1)
			pub.retain("t", "last", 2)
			pub.disconnect(packet.NormalDisconnection)
			sub := r.clientOf(v, "sub")
			sub.subscribe("t", 1)
			m := sub.message("t", "last")
			require.True(r, m.Retain)
			require.Equal(r, packet.AtLeastOnce, m.QoS)
			require.False(r, m.Dup)
			sub.ping() // the first one is gone
			sub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"RetainedMessageOfQoS0IsKept", func(r *run) { // Section 3.3.1.3
		pub := r.client("pub")
		pub.retain("t", "m", 0)
		sub := r.client("sub")
		sub.subscribe("t", 2)
		m := sub.message("t", "m")
		require.True(r, m.Retain)
		require.Equal(r, packet.AtMostOnce, m.QoS)
	}},
	{"EmptyRetainedMessageClears", func(r *run) { // [MQTT-3.3.1-6], [MQTT-3.3.1-7]
		r.Attr("mqtt5", "MQTT-3.3.1-6 MQTT-3.3.1-7")
		live, pub := r.client("live"), r.client("pub")
		live.subscribe("t", 0)
		pub.retain("t", "m", 1)
		live.message("t", "m")
		pub.retain("t", "", 1)
		require.False(r, live.message("t", "").Retain) // forwarded like any other
		sub := r.client("sub")
		sub.subscribe("t", 1)
		sub.ping()
	}},
	{"MessageWithoutRetainLeavesTheRetainedOne", func(r *run) { // [MQTT-3.3.1-8]
		r.Attr("mqtt5", "MQTT-3.3.1-8")
		pub := r.client("pub")
		pub.retain("t", "kept", 1)
		pub.publish("t", "passing", 1)
		sub := r.client("sub")
		sub.subscribe("t", 1)
		sub.message("t", "kept")
		sub.ping()
	}},
	{"WildcardsFindRetainedMessages", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.7.2-1")
		pub := r.client("pub")
		for _, topic := range []string{"a/1", "a/2", "a/2/x", "b/1", "$hidden/a"} {
			pub.retain(topic, topic, 1)
		}
		for filter, want := range map[string][]string{
			"a/+": {"a/1", "a/2"},
			"a/#": {"a/1", "a/2", "a/2/x"},
			"+/1": {"a/1", "b/1"},
			"#":   {"a/1", "a/2", "a/2/x", "b/1"}, // [MQTT-4.7.2-1]
		} {
			sub := r.client("sub")
			sub.subscribe(filter, 1)
			var got []string
			for range want {
				m := expect[*packet.Publish](sub)
				require.True(r, m.Retain)
				sub.ack(m)
				got = append(got, m.Topic)
			}
			require.ElementsMatch(r, want, got, filter)
			sub.ping()
			sub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"RetainHandlingDecidesAtSubscribe", func(r *run) { // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
		r.Attr("mqtt5", "MQTT-3.3.1-9 MQTT-3.3.1-10 MQTT-3.3.1-11")
		r.client("pub").retain("t", "m", 1)
		sub := r.client("sub")
		sub.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, RetainHandling: 2})
		sub.ping() // never
		sub.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, RetainHandling: 1})
		sub.ping() // it exists
		sub.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, RetainHandling: 0})
		sub.message("t", "m") // always
		require.Equal(r, []packet.ReasonCode{packet.Success}, sub.unsubscribe("t"))
		sub.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, RetainHandling: 1})
		sub.message("t", "m") // it is new
		sub.ping()
	}},
	{"RetainAsPublishedKeepsTheFlag", func(r *run) { // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
		r.Attr("mqtt5", "MQTT-3.3.1-12 MQTT-3.3.1-13")
		pub := r.client("pub")
		kept, cleared := r.client("kept"), r.client("cleared")
		kept.subscribeTo(packet.Subscription{Filter: "t", QoS: 1, RetainAsPublished: true})
		cleared.subscribeTo(packet.Subscription{Filter: "t", QoS: 1})
		pub.retain("t", "one", 1)
		require.True(r, kept.message("t", "one").Retain)
		require.False(r, cleared.message("t", "one").Retain)
		pub.publish("t", "two", 1)
		require.False(r, kept.message("t", "two").Retain)
		require.False(r, cleared.message("t", "two").Retain)
	}},
	{"RetainedMessageKeepsItsProperties", func(r *run) {
		pub := r.client("pub")
		pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("m"), QoS: 1, Retain: true, Properties: &packet.Properties{
			ContentType: "text/plain", User: []packet.UserProperty{{Key: "k", Value: "v"}},
		}})
		pub.kill()
		sub := r.client("sub")
		sub.subscribe("t", 1)
		m := sub.message("t", "m")
		require.NotNil(r, m.Properties)
		require.Equal(r, "text/plain", m.Properties.ContentType)
		require.Equal(r, []packet.UserProperty{{Key: "k", Value: "v"}}, m.Properties.User)
	}},
	{"ExpiredRetainedMessageIsGone", func(r *run) { // [MQTT-3.3.2-5], Section 4.3: seconds
		r.Attr("mqtt5", "MQTT-3.3.2-5")
		pub := r.client("pub")
		pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("m"), QoS: 1, Retain: true, Properties: &packet.Properties{
			MessageExpiry: packet.Some[uint32](1),
		}})
		r.wait(1)
		sub := r.client("sub")
		sub.subscribe("t", 1)
		sub.ping()
	}},
}
