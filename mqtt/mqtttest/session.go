package mqtttest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

var sessionCases = []testCase{
	{"SessionEndsWithItsConnectionByDefault", func(r *run) { // Section 3.1.2.11.2
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true})
		p.subscribe("t", 1)
		p.disconnect(packet.NormalDisconnection)
		p, ack := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c"})
		require.False(r, ack.SessionPresent, "[MQTT-3.2.2-2]")
		r.client("pub").publish("t", "m", 1)
		p.ping()
	}},
	{"SessionOutlivesItsConnectionOnRequest", func(r *run) { // [MQTT-3.1.2-5], [MQTT-3.1.2-23], [MQTT-3.2.2-3]
		r.Attr("mqtt5", "MQTT-3.1.2-5 MQTT-3.1.2-6 MQTT-3.1.2-23 MQTT-3.2.2-3 MQTT-4.5.0-1")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-4 MQTT-3.1.2-5 MQTT-3.2.2-2 MQTT-3.2.2-3 MQTT-4.5.0-1")
		for _, v := range versions {
			id := fmt.Sprint("c", v)
			p, ack := r.connect(&packet.Connect{Version: v, ClientID: id, Properties: persistent(v)})
			require.False(r, ack.SessionPresent)
			p.subscribe("t", 1)
			p.disconnect(packet.NormalDisconnection)
			pub := r.client("pub")
			pub.publish("t", "m", 1)
			p, ack = r.connect(&packet.Connect{Version: v, ClientID: id, Properties: persistent(v)})
			// The flag is reserved in MQTT 3.1.
			require.Equal(r, v != packet.V31, ack.SessionPresent)
			p.message("t", "m")
			p.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"CleanStartDiscardsTheSession", func(r *run) { // [MQTT-3.1.2-4], [MQTT-3.2.2-2]
		r.Attr("mqtt5", "MQTT-3.1.2-4 MQTT-3.1.4-4 MQTT-3.2.2-2")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-6 MQTT-3.1.4-3 MQTT-3.2.2-1")
		for _, v := range versions {
			id := fmt.Sprint("c", v)
			p, _ := r.connect(&packet.Connect{Version: v, ClientID: id, Properties: persistent(v)})
			p.subscribe("t", 1)
			p.disconnect(packet.NormalDisconnection)
			p, ack := r.connect(&packet.Connect{Version: v, ClientID: id, CleanStart: true})
			require.False(r, ack.SessionPresent)
			pub := r.client("pub")
			pub.publish("t", "m", 1)
			p.ping()
			p.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"CleanSessionOf311EndsWithItsConnection", func(r *run) { // MQTT 3.1.1 [MQTT-3.1.2-6]
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-6 MQTT-3.2.2-3")
		p, _ := r.connect(&packet.Connect{Version: packet.V311, ClientID: "c", CleanStart: true})
		p.subscribe("t", 1)
		p.disconnect(packet.NormalDisconnection)
		_, ack := r.connect(&packet.Connect{Version: packet.V311, ClientID: "c"})
		require.False(r, ack.SessionPresent)
	}},
	{"SessionExpires", func(r *run) { // [MQTT-3.1.2-23], Section 3.1.2.11.2
		r.Attr("mqtt5", "MQTT-4.1.0-2")
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{
			SessionExpiry: packet.Some[uint32](1),
		}})
		p.kill()
		for end := time.Now().Add(patience); r.broker.Stats().Sessions > 0 && time.Now().Before(end); {
			r.wait(1) // it begins when the broker has seen the end
		}
		_, ack := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c"})
		require.False(r, ack.SessionPresent)
	}},
	{"DisconnectMayShortenTheSession", func(r *run) { // Section 3.14.2.2.2
		p, _ := r.session("c", true)
		p.send(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](0)}})
		p.expectEnd()
		_, ack := r.session("c", false)
		require.False(r, ack.SessionPresent)
	}},
	{"DisconnectMustNotGiveASessionThatHasNone", func(r *run) { // [MQTT-3.14.2-2], Section 3.14.2.2.2
		p := r.client("c")
		p.send(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](60)}})
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"TakeoverEndsTheOldConnection", func(r *run) { // [MQTT-3.1.4-3]
		r.Attr("mqtt5", "MQTT-3.1.4-3 MQTT-3.14.4-1 MQTT-3.14.4-2")
		r.Attr("mqtt3.1.1", "MQTT-3.1.4-2")
		for _, v := range versions {
			old := r.clientOf(v, "c")
			next := r.clientOf(v, "c")
			old.expectDisconnect(packet.SessionTakenOver)
			next.ping()
			next.disconnect(packet.NormalDisconnection)
		}
	}},
	{"TakeoverKeepsTheSession", func(r *run) { // [MQTT-3.1.2-5], [MQTT-3.1.4-3]
		r.Attr("mqtt5", "MQTT-3.1.2-5 MQTT-3.1.4-3")
		old, _ := r.session("c", true)
		old.subscribe("t", 1)
		pub := r.client("pub")
		pub.publish("t", "in flight", 1)
		m := old.unacked("t", "in flight")
		next, ack := r.session("c", false)
		require.True(r, ack.SessionPresent)
		old.expectDisconnect(packet.SessionTakenOver)
		again := next.message("t", "in flight")
		require.True(r, again.Dup)
		require.Equal(r, m.PacketID, again.PacketID)
		pub.publish("t", "m", 1)
		next.message("t", "m")
	}},
	{"TakeoverInQuickSuccessionLeavesOne", func(r *run) {
		var old []*peer
		for range 10 {
			p, _ := r.session("c", false)
			old = append(old, p)
		}
		last := old[len(old)-1]
		for _, p := range old[:len(old)-1] {
			p.expectDisconnect(packet.SessionTakenOver)
		}
		last.ping()
	}},
	{"QueuedMessageExpires", func(r *run) { // [MQTT-3.3.2-5]
		r.Attr("mqtt5", "MQTT-3.3.2-5 MQTT-3.3.2-6")
		sub, _ := r.session("sub", true)
		sub.subscribe("t", 1)
		sub.disconnect(packet.NormalDisconnection)
		pub := r.client("pub")
		pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("short"), QoS: 1, Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)}})
		pub.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("long"), QoS: 1, Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](100)}})
		r.wait(1)
		sub, _ = r.session("sub", false)
		m := sub.message("t", "long")
		require.NotNil(r, m.Properties)
		left := m.Properties.MessageExpiry
		require.True(r, left.Set)
		require.Less(r, left.Value, uint32(100), "[MQTT-3.3.2-6]: less the time it waited")
		require.Greater(r, left.Value, uint32(100-patience.Seconds()))
		sub.ping()
	}},
	{"SessionsOfDifferentClientsAreApart", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.3-2")
		a, _ := r.session("a", true)
		b, ack := r.session("A", true)
		require.False(r, ack.SessionPresent)
		a.subscribe("t", 1)
		r.client("pub").publish("t", "m", 1)
		a.message("t", "m")
		b.ping()
	}},
}
