package mqtttest

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// statement311Cases are for the statements of MQTT 3.1.1 that other cases prove
// for MQTT 5 alone.
var statement311Cases = []testCase{
	{"RetainWorksFor311", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.3.1-6 MQTT-3.3.1-8 MQTT-3.3.1-9 MQTT-3.3.1-10 MQTT-3.3.1-11 MQTT-3.3.1-12 MQTT-3.8.4-3")
		live, pub := r.clientOf(packet.V311, "live"), r.clientOf(packet.V311, "pub")
		live.subscribe("t", 1)
		pub.retain("t", "kept", 1)
		require.False(r, live.message("t", "kept").Retain)
		pub.publish("t", "passing", 1)
		require.False(r, live.message("t", "passing").Retain)
		late := r.clientOf(packet.V311, "late")
		for range 2 { // subscribing again sends it again
			late.subscribe("t", 1)
			require.True(r, late.message("t", "kept").Retain)
			late.ping()
		}
		pub.retain("t", "", 1)
		require.False(r, live.message("t", "").Retain)
		late.message("t", "")
		later := r.clientOf(packet.V311, "later")
		later.subscribe("t", 1)
		later.ping()
		require.Zero(r, r.broker.Stats().Retained)
	}},
	{"WillOf311MayBeRetained", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-10 MQTT-3.1.2-17")
		w := r.watcher()
		c := willed(packet.V311, "kept")
		c.Will.Retain = true
		p, _ := r.connect(c)
		p.kill()
		w.message("will", "kept")
		late := r.clientOf(packet.V311, "late")
		late.subscribe("will", 1)
		require.True(r, late.message("will", "kept").Retain)
		r.clientOf(packet.V311, "willed").kill()
		w.noWill() // it was published once
	}},
	{"TopicsOf311MatchAsTheyAre", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.3.2-3 MQTT-4.7.2-1 MQTT-4.7.3-4")
		sub, exact, pub := r.clientOf(packet.V311, "sub"), r.clientOf(packet.V311, "exact"), r.clientOf(packet.V311, "pub")
		sub.subscribe("#", 1)
		sub.subscribe("+/b", 1)
		exact.subscribe("$own/#", 1)
		exact.subscribe("a/b", 1)
		for _, topic := range []string{"$own/b", "A/b", "a/b/", "/a/b", "a//b", "a/b"} {
			pub.publish(topic, topic, 1)
		}
		exact.message("$own/b", "$own/b")
		exact.message("a/b", "a/b")
		exact.ping()
		got := map[string]bool{}
		for _, m := range sub.drain() {
			require.Equal(r, m.Topic, string(m.Payload))
			require.False(r, strings.HasPrefix(m.Topic, "$"))
			got[m.Topic] = true
		}
		require.Len(r, got, 5)
	}},
	{"UnsubscribeOf311LetsExchangesFinish", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-3")
		sub, pub := r.clientOf(packet.V311, "sub"), r.clientOf(packet.V311, "pub")
		sub.subscribe("a/+", 2)
		sub.unsubscribe("a/b", "a/#") // neither is the same filter
		pub.publish("a/b", "m", 2)
		m := sub.unacked("a/b", "m")
		sub.unsubscribe("a/+")
		sub.ack(m)
		pub.publish("a/b", "late", 2)
		sub.ping()
	}},
	{"WhatFollowsARefused311ConnectIsIgnored", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.1.4-5 MQTT-3.2.2-5")
		watch := r.client("watch")
		watch.subscribe("#", 0)
		for _, connect := range [][]byte{connect311(0x03, str("c")), connect311(0x00, str(""))} {
			p := r.dial()
			p.version = packet.V311
			p.sendRaw(append(connect, p.encode(&packet.Publish{Topic: "t", Payload: []byte("x")})...))
			for {
				pk, err := p.receive()
				if err != nil {
					break
				}
				require.NotEqual(r, packet.Success, pk.(*packet.Connack).Code)
			}
		}
		watch.ping()
	}},
	{"SessionsOf311AreTheirIdentifiers", func(r *run) {
		r.Attr("mqtt3.1.1", "MQTT-3.1.3-2 MQTT-3.2.2-2 MQTT-3.2.2-3")
		a, ack := r.connect(&packet.Connect{Version: packet.V311, ClientID: "a"})
		require.False(r, ack.SessionPresent)
		a.subscribe("t", 1)
		a.kill()
		b, ack := r.connect(&packet.Connect{Version: packet.V311, ClientID: "A"})
		require.False(r, ack.SessionPresent)
		r.clientOf(packet.V311, "pub").publish("t", "m", 1)
		b.ping()
		a, ack = r.connect(&packet.Connect{Version: packet.V311, ClientID: "a"})
		require.True(r, ack.SessionPresent)
		a.message("t", "m")
	}},
}
