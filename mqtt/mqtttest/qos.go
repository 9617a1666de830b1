package mqtttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

var qosCases = []testCase{
	{"RepeatedPublishBeforePubrelIsDeliveredOnce", func(r *run) { // [MQTT-4.3.3-10]
		r.Attr("mqtt5", "MQTT-4.3.3-10 MQTT-4.3.3-11 MQTT-4.3.3-12")
		r.Attr("mqtt3.1.1", "MQTT-4.3.3-2")
		for _, v := range versions {
			sub, pub := r.clientOf(v, "sub"), r.clientOf(v, "pub")
			sub.subscribe("t", 2)
			m := &packet.Publish{Topic: "t", Payload: []byte("once"), QoS: 2, PacketID: 5}
			pub.send(m)
			require.EqualValues(r, 5, expect[*packet.Pubrec](pub).PacketID)
			m.Dup = true
			pub.send(m)
			again := expect[*packet.Pubrec](pub)
			require.EqualValues(r, 5, again.PacketID)
			require.False(r, again.Code.Failed(), "a repeated PUBLISH is not an error")
			pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 5}})
			require.EqualValues(r, 5, expect[*packet.Pubcomp](pub).PacketID)
			sub.message("t", "once")

			// The identifier is free again: the same packet is a new message,
			// whatever its DUP says.
			m.Payload = []byte("next")
			pub.send(m)
			expect[*packet.Pubrec](pub)
			pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 5}})
			expect[*packet.Pubcomp](pub)
			sub.message("t", "next")
			sub.ping()
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"RepeatedPubrelIsCompletedAgain", func(r *run) { // [MQTT-4.3.3-11], Section 3.7.2.1
		pub := r.client("pub")
		pub.publish("t", "m", 2)
		pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: pub.nextID}})
		comp := expect[*packet.Pubcomp](pub)
		require.Equal(r, pub.nextID, comp.PacketID)
		require.Contains(r, []packet.ReasonCode{packet.Success, packet.PacketIDNotFound}, comp.Code)
		pub.ping()
	}},
	{"PubrelForAnUnknownIdentifierIsNotFound", func(r *run) { // Section 3.7.2.1
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 777}})
			comp := expect[*packet.Pubcomp](p)
			require.EqualValues(r, 777, comp.PacketID)
			if v == packet.V5 {
				require.Equal(r, packet.PacketIDNotFound, comp.Code)
			}
			p.ping()
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"PubrecForAnUnknownIdentifierIsNotFound", func(r *run) { // Section 3.6.2.1
		p := r.client("c")
		p.send(&packet.Pubrec{Ack: packet.Ack{PacketID: 777}})
		rel := expect[*packet.Pubrel](p)
		require.EqualValues(r, 777, rel.PacketID)
		require.Equal(r, packet.PacketIDNotFound, rel.Code)
		p.ping()
	}},
	{"StrayAcknowledgementsAreHarmless", func(r *run) { // Section 4.3: an acknowledgement may cross a lost session
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.send(&packet.Puback{Ack: packet.Ack{PacketID: 9}}, &packet.Pubcomp{Ack: packet.Ack{PacketID: 9}})
			p.ping()
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"UnacknowledgedPublishIsRepeatedOnTheNextConnection", func(r *run) { // [MQTT-4.4.0-1], [MQTT-3.3.1-1]
		r.Attr("mqtt5", "MQTT-4.4.0-1 MQTT-3.3.1-1 MQTT-4.3.2-3")
		r.Attr("mqtt3.1.1", "MQTT-4.4.0-1 MQTT-3.3.1-1 MQTT-4.3.2-1")
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			connect := func() (*peer, *packet.Connack) {
				return r.connect(&packet.Connect{Version: v, ClientID: fmt.Sprint("sub", v), Properties: persistent(v)})
			}
			sub, _ := connect()
			sub.subscribe("t", 1)
			pub := r.client("pub")
			pub.publish("t", "one", 1)
			pub.publish("t", "two", 1)
			one, two := sub.unacked("t", "one"), sub.unacked("t", "two")
			require.NotEqual(r, one.PacketID, two.PacketID)
			sub.kill()

			sub, ack := connect()
			require.True(r, ack.SessionPresent, "[MQTT-3.2.2-3]")
			for _, first := range []*packet.Publish{one, two} {
				m := sub.message("t", string(first.Payload))
				require.True(r, m.Dup, "[MQTT-3.3.1-1]")
				require.Equal(r, first.PacketID, m.PacketID, "[MQTT-4.4.0-1]")
			}
			sub.ping()
			sub.disconnect(packet.NormalDisconnection)
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"AcknowledgedPublishIsNotRepeated", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.3.2-3 MQTT-4.3.3-5")
		sub, _ := r.session("sub", true)
		sub.subscribe("t", 2)
		pub := r.client("pub")
		pub.publish("t", "one", 1)
		pub.publish("t", "two", 2)
		sub.message("t", "one")
		sub.message("t", "two")
		sub.ping() // the acknowledgements have arrived
		sub.kill()
		sub, ack := r.session("sub", false)
		require.True(r, ack.SessionPresent)
		sub.ping()
	}},
	{"OutgoingQoS2GoesOnWhereItWasInterrupted", func(r *run) { // [MQTT-4.3.3-5], [MQTT-4.4.0-1]
		r.Attr("mqtt5", "MQTT-4.3.3-3 MQTT-4.3.3-4 MQTT-4.3.3-5 MQTT-4.3.3-6 MQTT-4.4.0-1")
		sub, _ := r.session("sub", true)
		sub.subscribe("t", 2)
		pub := r.client("pub")

		// Before PUBREC: the PUBLISH again.
		pub.publish("t", "m", 2)
		m := sub.unacked("t", "m")
		sub.kill()
		sub, _ = r.session("sub", false)
		again := sub.unacked("t", "m")
		require.True(r, again.Dup)
		require.Equal(r, m.PacketID, again.PacketID)

		// After PUBREC: the PUBREL, and never the PUBLISH.
		sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: m.PacketID}})
		sub.expectPubrel(m.PacketID)
		sub.kill()
		sub, _ = r.session("sub", false)
		sub.expectPubrel(m.PacketID)
		sub.kill()
		sub, _ = r.session("sub", false)
		sub.expectPubrel(m.PacketID)

		// After PUBCOMP: nothing.
		sub.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: m.PacketID}})
		sub.ping()
		sub.kill()
		sub, ack := r.session("sub", false)
		require.True(r, ack.SessionPresent)
		sub.ping()
	}},
	{"IncomingQoS2IsExactlyOnceAcrossALostConnection", func(r *run) { // [MQTT-4.3.3-10], [MQTT-4.4.0-1]
		r.Attr("mqtt5", "MQTT-4.3.3-10 MQTT-4.3.3-11")
		sub := r.client("sub")
		sub.subscribe("t", 2)
		m := &packet.Publish{Topic: "t", Payload: []byte("once"), QoS: 2, PacketID: 3}
		pub, _ := r.session("pub", true)
		pub.send(m)
		expect[*packet.Pubrec](pub) // lost, as far as pub knows
		sub.message("t", "once")
		pub.kill()

		m.Dup = true
		pub, ack := r.session("pub", false)
		require.True(r, ack.SessionPresent)
		pub.send(m)
		require.EqualValues(r, 3, expect[*packet.Pubrec](pub).PacketID)
		pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 3}})
		expect[*packet.Pubcomp](pub) // lost as well
		pub.kill()

		pub, _ = r.session("pub", false)
		pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 3}})
		require.EqualValues(r, 3, expect[*packet.Pubcomp](pub).PacketID)
		sub.ping()
	}},
	{"FailedPubrecEndsTheExchange", func(r *run) { // [MQTT-4.3.3-4]: no PUBREL after a reason code of 0x80 or more
		r.Attr("mqtt5", "MQTT-4.4.0-2")
		sub, _ := r.session("sub", true)
		sub.subscribe("t", 2)
		pub := r.client("pub")
		pub.publish("t", "m", 2)
		m := sub.unacked("t", "m")
		sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: m.PacketID, Code: packet.ImplementationSpecificError}})
		sub.ping()
		sub.kill()
		sub, _ = r.session("sub", false)
		sub.ping()
	}},
	{"QueuedMessagesArriveInOrderOnTheNextConnection", func(r *run) { // [MQTT-4.1.0-1], Section 4.6
		r.Attr("mqtt5", "MQTT-4.5.0-1 MQTT-3.1.2-5")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-5 MQTT-4.5.0-1 MQTT-4.6.0-5 MQTT-4.6.0-6")
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			connect := func() (*peer, *packet.Connack) {
				return r.connect(&packet.Connect{Version: v, ClientID: fmt.Sprint("sub", v), Properties: persistent(v)})
			}
			sub, _ := connect()
			sub.subscribe("t", 2)
			sub.disconnect(packet.NormalDisconnection)
			pub := r.client("pub")
			for i := range 20 {
				pub.publish("t", fmt.Sprint(i), packet.QoS(1+i%2))
			}
			sub, ack := connect()
			require.True(r, ack.SessionPresent)
			for i := range 20 {
				sub.receiveOrdered("t", fmt.Sprint(i))
			}
			sub.kill()
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
}

// persistent are the CONNECT properties for a session that outlives its
// connection, on versions that need some.
func persistent(v packet.Version) *packet.Properties {
	if v != packet.V5 {
		return nil
	}
	return &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}
}
