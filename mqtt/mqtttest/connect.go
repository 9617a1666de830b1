package mqtttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

var versions = []packet.Version{packet.V31, packet.V311, packet.V5}

var connectCases = []testCase{
	{"ConnectIsAcceptedInEveryVersion", func(r *run) {
		r.Attr("mqtt5", "MQTT-3.1.4-5 MQTT-3.2.2-2 MQTT-4.2.0-1")
		r.Attr("mqtt3.1.1", "MQTT-3.1.4-4 MQTT-3.2.2-1 MQTT-7.0.0-2 MQTT-7.1.1-1")
		for _, v := range versions {
			p, ack := r.connect(&packet.Connect{Version: v, ClientID: "c", CleanStart: true, KeepAlive: 60})
			require.False(r, ack.SessionPresent, "[MQTT-3.2.2-2]")
			p.ping()
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"ConnackNamesTheLimitsThatAreNotTheDefault", func(r *run) { // Section 3.2.2.3
		r.start(&broker.Config{Limits: session.Limits{ReceiveMaximum: 7, MaximumPacketSize: 5000, TopicAliasMaximum: 3, KeepAliveMax: 30}})
		_, ack := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, KeepAlive: 60})
		require.NotNil(r, ack.Properties)
		require.Equal(r, packet.Some[uint16](7), ack.Properties.ReceiveMaximum)
		require.Equal(r, packet.Some[uint32](5000), ack.Properties.MaximumPacketSize)
		require.Equal(r, packet.Some[uint16](3), ack.Properties.TopicAliasMaximum)
		require.Equal(r, packet.Some[uint16](30), ack.Properties.ServerKeepAlive, "[MQTT-3.1.2-21]")
		require.EqualValues(r, 1, ack.Properties.RetainAvailable.Or(1), "retained messages work")
		require.EqualValues(r, 1, ack.Properties.WildcardSubAvailable.Or(1))
		require.EqualValues(r, 1, ack.Properties.SubIDsAvailable.Or(1))
		require.EqualValues(r, 1, ack.Properties.SharedSubAvailable.Or(1))
		require.False(r, ack.Properties.MaximumQoS.Set, "QoS 2 works; 2 must not be sent: Section 3.2.2.3.4")
		require.Empty(r, ack.Properties.AssignedClientID)
	}},
	{"ConnackLowersASessionExpiryAboveTheServersMaximum", func(r *run) { // Section 3.2.2.3.2
		r.start(&broker.Config{Limits: session.Limits{SessionExpiryMax: time.Minute}})
		_, ack := r.session("c", true)
		require.NotNil(r, ack.Properties)
		require.Equal(r, packet.Some[uint32](60), ack.Properties.SessionExpiry)
	}},
	{"EmptyClientIDIsAssignedOneThatWorks", func(r *run) { // [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
		r.Attr("mqtt5", "MQTT-3.1.3-6 MQTT-3.1.3-7 MQTT-3.2.2-16")
		p1, ack1 := r.session("", true)
		_, ack2 := r.session("", true)
		require.NotNil(r, ack1.Properties)
		require.NotNil(r, ack2.Properties)
		id := ack1.Properties.AssignedClientID
		require.NotEmpty(r, id)
		require.NotEqual(r, id, ack2.Properties.AssignedClientID)
		p1.disconnect(packet.NormalDisconnection)
		_, ack := r.session(id, false)
		require.True(r, ack.SessionPresent)
	}},
	{"EmptyClientIDIsAcceptedFrom311WithCleanSessionOnly", func(r *run) { // MQTT 3.1.1 [MQTT-3.1.3-6] to [MQTT-3.1.3-9]
		r.Attr("mqtt3.1.1", "MQTT-3.1.3-6 MQTT-3.1.3-8 MQTT-3.1.3-9 MQTT-3.2.2-4 MQTT-3.2.2-5")
		p, _ := r.connect(&packet.Connect{Version: packet.V311, CleanStart: true})
		p.ping()
		q := r.dial()
		q.version = packet.V311
		q.sendRaw(connect311(0x00, str("")))
		q.expectRefused(packet.ClientIDNotValid)
		p.ping()
	}},
	{"EmptyClientIDIsRefusedFrom31", func(r *run) { // MQTT 3.1, CONNECT: Identifier Rejected
		p := r.dial()
		p.version = packet.V31
		p.sendRaw(frame(0x10, str("MQIsdp"), []byte{3, 0x02, 0, 0}, str("")))
		p.expectRefused(packet.ClientIDNotValid)
	}},
	{"UnknownProtocolVersionIsRefused", func(r *run) { // [MQTT-3.1.2-2]
		r.Attr("mqtt5", "MQTT-3.1.2-2")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-2")
		p := r.dial()
		p.version = packet.V5
		p.sendRaw(frame(0x10, str("MQTT"), []byte{6, 0x02, 0, 0, 0}, str("c")))
		p.expectRefused(packet.UnsupportedProtocolVersion)
		q := r.dial()
		q.version = packet.V311
		q.sendRaw(frame(0x10, str("MQTT"), []byte{2, 0x02, 0, 0}, str("c")))
		q.expectRefused(packet.UnsupportedProtocolVersion)
	}},
	{"UnknownProtocolNameIsNotAnswered", func(r *run) { // [MQTT-3.1.2-1]
		r.Attr("mqtt5", "MQTT-3.1.2-1")
		r.Attr("mqtt3.1.1", "MQTT-3.1.2-1")
		p := r.dial()
		p.sendRaw(frame(0x10, str("HTTP"), []byte{5, 0x02, 0, 0, 0}, str("c")))
		p.expectEndAfterAtMost(packet.UnsupportedProtocolVersion)
	}},
	{"FirstPacketMustBeConnect", func(r *run) { // [MQTT-3.1.0-1]
		r.Attr("mqtt5", "MQTT-3.14.0-1")
		other := r.client("other")
		for _, b := range [][]byte{
			frame(0xC0),
			frame(0x30, str("t"), []byte{0}),
			frame(0x82, []byte{0, 1, 0}, str("t"), []byte{0}),
			frame(0xE0),
		} {
			p := r.dial()
			p.sendRaw(b)
			p.expectEnd()
		}
		other.ping()
	}},
	{"SecondConnectIsAProtocolError", func(r *run) { // [MQTT-3.1.0-2]
		r.Attr("mqtt5", "MQTT-3.1.0-2 MQTT-3.2.0-2")
		r.Attr("mqtt3.1.1", "MQTT-3.1.0-2")
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.send(&packet.Connect{Version: v, ClientID: "c", CleanStart: true})
			p.expectDisconnect(packet.ProtocolError)
		}
	}},
	{"ReservedConnectFlagIsMalformed", func(r *run) { // [MQTT-3.1.2-3]
		p := r.dial()
		p.sendRaw(connect5(0x03, str("c")))
		p.expectRefused(packet.MalformedPacket)
		q := r.dial()
		q.sendRaw(connect311(0x03, str("c")))
		q.expectEnd()
	}},
	{"WillQoSThreeIsMalformed", func(r *run) { // [MQTT-3.1.2-12]
		p := r.dial()
		p.sendRaw(connect5(0x02|0x04|0x18, str("c"), []byte{0}, str("t"), str("m")))
		p.expectRefused(packet.MalformedPacket)
	}},
	{"WillFlagsWithoutAWillAreMalformed", func(r *run) { // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
		for _, flags := range []byte{0x02 | 0x08, 0x02 | 0x20} {
			p := r.dial()
			p.sendRaw(connect5(flags, str("c")))
			p.expectRefused(packet.MalformedPacket, packet.ProtocolError)
		}
	}},
	{"TruncatedConnectIsMalformed", func(r *run) { // Section 4.13.1
		p := r.dial()
		p.sendRaw(connect5(0x02)) // no client identifier
		p.expectRefused(packet.MalformedPacket)
		q := r.dial()
		q.sendRaw(connect5(0x02, str("c"), []byte("more")))
		q.expectRefused(packet.MalformedPacket)
	}},
	{"RepeatedConnectPropertyIsAProtocolError", func(r *run) { // Section 3.1.2.11.2
		p := r.dial()
		p.sendRaw(frame(0x10, str("MQTT"), []byte{5, 0x02, 0, 0, 10, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1}, str("c")))
		p.expectRefused(packet.ProtocolError)
	}},
	{"ZeroReceiveMaximumIsAProtocolError", func(r *run) { // Section 3.1.2.11.3
		p := r.dial()
		p.sendRaw(frame(0x10, str("MQTT"), []byte{5, 0x02, 0, 0, 3, 0x21, 0, 0}, str("c")))
		p.expectRefused(packet.ProtocolError)
	}},
	{"ZeroMaximumPacketSizeIsAProtocolError", func(r *run) { // Section 3.1.2.11.4
		p := r.dial()
		p.sendRaw(frame(0x10, str("MQTT"), []byte{5, 0x02, 0, 0, 5, 0x27, 0, 0, 0, 0}, str("c")))
		p.expectRefused(packet.ProtocolError)
	}},
	{"NulInTheClientIDIsMalformed", func(r *run) { // [MQTT-1.5.4-2]
		p := r.dial()
		p.sendRaw(connect5(0x02, str("a\x00b")))
		p.expectRefused(packet.MalformedPacket)
	}},
	{"UnknownAuthenticationMethodIsRefused", func(r *run) { // [MQTT-4.12.0-1]
		r.Attr("mqtt5", "MQTT-4.12.0-1 MQTT-4.12.0-4 MQTT-4.13.2-1")
		p := r.dial()
		p.send(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{AuthMethod: "SCRAM-SHA-1"}})
		p.expectRefused(packet.BadAuthenticationMethod)
	}},
	{"ConnectionWithoutConnectIsClosed", func(r *run) { // Section 3.1.4, a reasonable amount of time
		r.start(&broker.Config{ConnectTimeout: 8 * time.Second})
		silent := r.dial()
		begun := r.dial()
		begun.sendRaw([]byte{0x10, 0x20, 0x00}) // the beginning of a CONNECT
		begun.expectEnd()
		silent.expectEnd()
		r.client("c").ping() // one that is in time is not affected
	}},
	{"ConnectMayArriveByteByByte", func(r *run) {
		p := r.dial()
		for _, b := range p.encode(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}) {
			p.sendRaw([]byte{b})
		}
		require.Equal(r, packet.Success, expect[*packet.Connack](p).Code)
		p.ping()
	}},
	{"PacketsMayBeSplitAnywhere", func(r *run) {
		p := r.client("c")
		wire := p.encode(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "split/+"}}})
		wire = append(wire, p.encode(&packet.Publish{Topic: "split/t", Payload: []byte("payload")})...)
		for i := 1; i < len(wire); i++ {
			p.sendRaw(wire[:i])
			p.sendRaw(wire[i:])
			expect[*packet.Suback](p)
			p.message("split/t", "payload")
		}
	}},
	{"PacketsMayArriveAllAtOnce", func(r *run) { // [MQTT-3.1.4-5]: before CONNACK as well
		r.Attr("mqtt5", "MQTT-3.2.0-1")
		p := r.dial()
		p.send(
			&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true},
			&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t"}}},
			&packet.Publish{Topic: "t", Payload: []byte("one")},
			&packet.Publish{Topic: "t", Payload: []byte("two")},
			&packet.Pingreq{},
		)
		require.Equal(r, packet.Success, expect[*packet.Connack](p).Code)
		got := map[packet.Type]int{}
		var payloads []string
		for range 4 {
			pk, err := p.receive()
			require.NoError(r, err)
			got[pk.Type()]++
			if m, ok := pk.(*packet.Publish); ok {
				payloads = append(payloads, string(m.Payload))
			}
		}
		require.Equal(r, map[packet.Type]int{packet.SUBACK: 1, packet.PUBLISH: 2, packet.PINGRESP: 1}, got)
		require.Equal(r, []string{"one", "two"}, payloads)
	}},
	{"NothingAfterARefusedConnectIsProcessed", func(r *run) { // [MQTT-3.1.4-6]
		r.Attr("mqtt5", "MQTT-3.1.4-6")
		watch := r.client("watch")
		watch.subscribe("#", 0)
		p := r.dial()
		p.sendRaw(append(connect5(0x03, str("c")), p.encode(&packet.Publish{Topic: "t", Payload: []byte("x")})...))
		p.expectRefused(packet.MalformedPacket)
		watch.ping()
	}},
	{"VersionsShareOnePortAndTheirMessages", func(r *run) {
		subs := map[packet.Version]*peer{}
		for _, v := range versions {
			subs[v] = r.clientOf(v, "sub")
			subs[v].disconnect(packet.NormalDisconnection)
			subs[v] = r.clientOf(v, "sub-"+string('0'+rune(v)))
			subs[v].subscribe("t", packet.ExactlyOnce)
		}
		for _, v := range versions {
			pub := r.clientOf(v, "pub")
			pub.publish("t", "m", packet.ExactlyOnce)
			for _, sub := range subs {
				require.Equal(r, packet.ExactlyOnce, sub.message("t", "m").QoS)
			}
			pub.disconnect(packet.NormalDisconnection)
		}
	}},
	{"ClientThatAsksForNoProblemInformationGetsNone", func(r *run) { // [MQTT-3.1.2-29]
		r.start(&broker.Config{Limits: session.Limits{MaxSubscriptions: 1}})
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{
			RequestProblemInfo: packet.Some[byte](0),
		}})
		p.subscribe("one", 0)
		ack := p.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "two"}}})
		require.True(r, ack.Codes[0].Failed())
		if ack.Properties != nil {
			require.Empty(r, ack.Properties.ReasonString)
			require.Empty(r, ack.Properties.User)
		}
		p.ping()
	}},
}
