package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// none checks that a packet has neither reason string nor user property, whatever
// it answers.
func none(t *testing.T, p packet.Packet) {
	t.Helper()
	var props *packet.Properties
	switch p := p.(type) {
	case *packet.Connack:
		props = p.Properties
	case *packet.Puback:
		props = p.Properties
	case *packet.Pubrec:
		props = p.Properties
	case *packet.Pubrel:
		props = p.Properties
	case *packet.Pubcomp:
		props = p.Properties
	case *packet.Suback:
		props = p.Properties
	case *packet.Unsuback:
		props = p.Properties
	default:
		require.Failf(t, "unexpected packet", "%T", p)
	}
	if props != nil {
		require.Empty(t, props.ReasonString, "%T", p)
		require.Empty(t, props.User, "%T", p)
	}
}

func TestAnswersToFailuresCarryTheirCodesAlone(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-29 MQTT-3.2.2-19 MQTT-3.2.2-20 MQTT-3.4.2-2 MQTT-3.4.2-3 MQTT-3.5.2-2 MQTT-3.5.2-3 MQTT-3.6.2-2 MQTT-3.6.2-3")
	t.Attr("mqtt5", "MQTT-3.7.2-2 MQTT-3.7.2-3 MQTT-3.9.2-1 MQTT-3.9.2-2 MQTT-3.11.2-1 MQTT-3.11.2-2")
	for _, info := range []packet.Opt[byte]{{}, packet.Some[byte](0), packet.Some[byte](1)} {
		b := newBench(t, session.Limits{})
		none(t, b.connect(&packet.Properties{RequestProblemInfo: info}))
		b.receive(publish(1, 1))
		b.receive(publish(2, 2))
		b.s.Routed(b.now, mqtt.ControlStream, 1, packet.NotAuthorized)
		b.s.Routed(b.now, mqtt.ControlStream, 2, packet.QuotaExceeded)
		b.receive(pubrec(77, 0))
		b.receive(pubrel(78, 0))
		b.receive(subscribe(3, "a"))
		b.s.Subscribed(b.now, mqtt.ControlStream, 3, []packet.ReasonCode{packet.NotAuthorized})
		b.receive(&packet.Unsubscribe{PacketID: 4, Filters: []string{"a"}})
		b.s.Unsubscribed(b.now, mqtt.ControlStream, 4, []packet.ReasonCode{packet.NotAuthorized})
		types := map[packet.Type]bool{}
		for _, p := range b.sent() {
			none(t, p)
			types[p.Type()] = true
		}
		require.Len(t, types, 6)
	}
}

func TestDisconnectHasOnlyAReasonThatFits(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.14.2-2 MQTT-3.14.2-3 MQTT-3.14.2-4 MQTT-3.1.2-24")
	const reason = "twenty-five letters of it"
	disconnect := func(most uint32) *packet.Disconnect {
		b := connected(t, session.Limits{}, packet.Properties{MaximumPacketSize: packet.Some(most)})
		b.s.Disconnect(nil, b.now, packet.QuotaExceeded, reason)
		all := b.sent()
		require.Len(t, all, 1)
		wire, err := all[0].Append(nil, packet.V5)
		require.NoError(t, err)
		require.LessOrEqual(t, len(wire), int(most))
		d := all[0].(*packet.Disconnect)
		require.Equal(t, packet.QuotaExceeded, d.Code)
		if d.Properties != nil {
			require.False(t, d.Properties.SessionExpiry.Set)
			require.Empty(t, d.Properties.User)
		}
		return d
	}
	const fits = 2 + 1 + 1 + 1 + 2 + uint32(len(reason)) // header, code, properties
	require.Equal(t, reason, disconnect(fits).Properties.ReasonString)
	require.Nil(t, disconnect(fits-1).Properties)
}

func TestNothingFollowsDisconnect(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.14.4-1")
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(publish(1, 2))
	b.deliver("a", "waits", 1)
	b.s.Disconnect(nil, b.now, packet.AdministrativeAction, "")
	all := b.sent()
	require.IsType(t, &packet.Disconnect{}, all[len(all)-1])
	b.s.Routed(b.now, mqtt.ControlStream, 1, packet.Success)
	b.receive(&packet.Pingreq{})
	b.receive(publish(2, 1))
	b.deliver("a", "late", 0)
	require.Empty(t, b.sent())
}

func TestNothingIsSentAgainWhileTheConnectionLasts(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.4.0-1 MQTT-4.3.2-3 MQTT-4.3.3-3 MQTT-4.3.3-5 MQTT-4.3.3-6 MQTT-3.3.1-1")
	t.Attr("mqtt3.1.1", "MQTT-4.4.0-1 MQTT-4.3.2-1 MQTT-4.3.3-1 MQTT-2.3.1-4 MQTT-3.3.1-1")
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		b := newBench(t, session.Limits{})
		connect := func() {
			c := &packet.Connect{Version: v}
			if v == packet.V5 {
				c.Properties = &packet.Properties{SessionExpiry: packet.Some[uint32](36000)}
			}
			b.attach(c, session.Attach{})
		}
		connect()
		b.deliver("a", "one", 1)
		b.deliver("a", "two", 2)
		b.deliver("a", "three", 2)
		first := b.publishes()
		require.Len(t, first, 3)
		for _, p := range first {
			require.False(t, p.Dup)
		}
		b.receive(pubrec(first[2].PacketID, 0))
		require.Equal(t, []packet.Packet{pubrel(first[2].PacketID, 0)}, b.sent())
		for range 1000 {
			b.pass(time.Minute)
			b.receive(&packet.Pingreq{})
			require.Empty(t, b.s.Tick(nil, b.now))
			require.Equal(t, []packet.Packet{&packet.Pingresp{}}, b.sent())
		}
		b.s.Detach(nil, b.now)
		connect()
		var again []packet.Packet
		for _, p := range first[:2] {
			dup := *p
			dup.Dup = true
			again = append(again, &dup)
		}
		require.ElementsMatch(t, append(again, pubrel(first[2].PacketID, 0)), b.sent())
	}
}

func TestTheSessionLastsWhileThereIsAConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.1.0-1 MQTT-4.1.0-2 MQTT-3.1.2-23")
	t.Attr("mqtt3.1.1", "MQTT-4.1.0-1 MQTT-4.1.0-2")
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		b := newBench(t, session.Limits{SessionExpiryMax: 2 * time.Second})
		connect := func() {
			c := &packet.Connect{Version: v}
			if v == packet.V5 {
				c.Properties = &packet.Properties{SessionExpiry: packet.Some[uint32](2)}
			}
			b.attach(c, session.Attach{})
		}
		connect()
		b.receive(subscribe(1, "a"))
		b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
		b.deliver("a", "in flight", 1)
		b.receive(publish(2, 2))
		b.s.Routed(b.now, mqtt.ControlStream, 2, 0)
		b.sent()
		b.pass(1000 * time.Hour)
		require.Empty(t, b.s.Tick(nil, b.now))
		require.False(t, b.s.Ended())
		require.Contains(t, b.subscriptions(), "a")
		require.Empty(t, b.receive(publish(2, 2)), "the exchange is known")
		b.sent()

		// Gone for a second, all is still there; for two, nothing is.
		b.s.Detach(nil, b.now)
		b.pass(time.Second)
		require.Empty(t, b.s.Tick(nil, b.now))
		connect()
		require.Equal(t, "in flight", string(b.publishes()[0].Payload))
		require.Contains(t, b.subscriptions(), "a")
		b.s.Detach(nil, b.now)
		b.pass(2 * time.Second)
		require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(b.s.Tick(nil, b.now)))
		require.True(t, b.s.Ended())
		require.Empty(t, b.subscriptions())
	}
}

func TestAnExchangeIsCompletedThoughItsMessageHasExpired(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.3-13")
	b := connected(t, session.Limits{}, packet.Properties{})
	p := publish(1, 2)
	p.Properties = &packet.Properties{MessageExpiry: packet.Some[uint32](1)}
	fx := b.receive(p)
	b.pass(time.Minute)
	require.True(t, fx[0].Message.Expired(b.now))
	b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
	require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sent())
	b.receive(pubrel(1, 0))
	require.Equal(t, []packet.Packet{pubcomp(1, 0)}, b.sent())
}

func TestTheSendQuotaBeginsAtTheReceiveMaximum(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.9.0-1 MQTT-4.9.0-2 MQTT-3.3.4-9")
	for _, most := range []packet.Opt[uint16]{packet.Some[uint16](1), packet.Some[uint16](2), packet.Some[uint16](65535), {}} {
		b := connected(t, session.Limits{MaxInflight: 10}, packet.Properties{ReceiveMaximum: most})
		for range 20 {
			b.deliver("a", "x", 1)
			b.deliver("a", "y", 2)
		}
		require.Len(t, b.publishes(), int(min(most.Or(65535), 10)))
	}
}

func TestAPacketThatThereIsNoRoomForEndsTheConnection(t *testing.T) {
	t.Attr("mqtt3.1.1", "server: MQTT-4.8.0-2")
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311, CleanStart: true}, session.Attach{})
	for range 1 << 20 { // none of the answers is taken
		if fx := b.receive(&packet.Pingreq{}); len(fx) > 0 {
			require.Equal(t, []session.EffectKind{session.EffectClose}, kinds(fx))
			return
		}
	}
	require.Fail(t, "a million answers wait")
}

func TestAFailedAcknowledgementIsOne(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.4.0-2 MQTT-4.3.3-4")
	b := connected(t, session.Limits{}, packet.Properties{ReceiveMaximum: packet.Some[uint16](2)})
	b.deliver("a", "one", 1)
	b.deliver("a", "two", 2)
	b.deliver("a", "three", 0)
	all := b.publishes()
	require.Len(t, all, 3)
	b.receive(puback(all[0].PacketID, packet.NotAuthorized))
	b.receive(pubrec(all[1].PacketID, packet.UnspecifiedError))
	require.Empty(t, b.sent())
	b.deliver("a", "four", 1)
	b.deliver("a", "five", 1)
	require.Len(t, b.publishes(), 2, "their places are free")
	b.reconnect(packet.Properties{})
	var payloads []string
	for _, p := range b.publishes() {
		payloads = append(payloads, string(p.Payload))
	}
	require.Equal(t, []string{"four", "five"}, payloads)
}

func TestAcknowledgementsComeWhenTheMessageIsTaken(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.2-4 MQTT-4.3.3-8 MQTT-4.3.3-10")
	t.Attr("mqtt3.1.1", "MQTT-4.3.2-2 MQTT-4.3.3-2")
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		b := newBench(t, session.Limits{})
		b.attach(&packet.Connect{Version: v, CleanStart: true}, session.Attach{})
		b.receive(publish(1, 1))
		b.receive(publish(2, 2))
		require.Empty(t, b.sent(), "nobody has taken them")
		b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
		b.s.Routed(b.now, mqtt.ControlStream, 2, 0)
		require.Equal(t, []packet.Packet{puback(1, 0), pubrec(2, 0)}, b.sent())
		require.Empty(t, b.receive(publish(2, 2)), "routed once")
		require.Equal(t, []packet.Packet{pubrec(2, 0)}, b.sent())
		b.receive(pubrel(2, 0))
		require.Equal(t, []packet.Packet{pubcomp(2, 0)}, b.sent())
		require.Len(t, b.receive(publish(2, 2)), 1, "another message")
	}
}

func TestSubackOf311HasFourCodes(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.9.3-1 MQTT-3.9.3-2 MQTT-3.8.4-5")
	codes := []packet.ReasonCode{0, 1, 2}
	for c := range 256 {
		if c := packet.ReasonCode(c); c.Failed() && c.AllowedIn(packet.SUBACK) {
			codes = append(codes, c)
		}
	}
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311, CleanStart: true}, session.Attach{})
	p := &packet.Subscribe{PacketID: 1}
	for i := range codes {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: strings.Repeat("a", i+1), QoS: 2})
	}
	b.receive(p)
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, slices.Clone(codes))
	got := b.sent()[0].(*packet.Suback).Codes
	require.Len(t, got, len(codes))
	for i, c := range codes {
		if c.Failed() {
			c = 0x80
		}
		require.Equal(t, c, got[i])
	}
}

func TestAWillIsOfItsConnectionAlone(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-8 MQTT-3.1.2-10 MQTT-3.1.3-9")
	b := newBench(t, session.Limits{})
	b.connectWithWill(10, 36000)
	b.s.Detach(nil, b.now)
	b.pass(9 * time.Second)
	b.connect(&packet.Properties{SessionExpiry: packet.Some[uint32](36000)}) // without a will
	b.pass(time.Hour)
	require.Empty(t, b.s.Tick(nil, b.now))
	require.Empty(t, b.s.Detach(nil, b.now))
	b.pass(time.Hour)
	require.Empty(t, b.s.Tick(nil, b.now), "neither the old one nor another")

	b.connectWithWill(10, 36000)
	b.s.Detach(nil, b.now)
	b.pass(10 * time.Second)
	require.Equal(t, []session.EffectKind{session.EffectWill}, kinds(b.s.Tick(nil, b.now)))
	b.pass(time.Hour)
	require.Empty(t, b.s.Tick(nil, b.now))
}

func TestResponseInformationIsForThoseWhoAskForIt(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-28")
	for asked, want := range map[packet.Opt[byte]]string{{}: "", packet.Some[byte](0): "", packet.Some[byte](1): "answers/"} {
		b := newBench(t, session.Limits{})
		ack := b.attach(&packet.Connect{Version: packet.V5, Properties: &packet.Properties{RequestResponseInfo: asked}},
			session.Attach{ResponseInfo: "answers/"})
		require.Equal(t, want, ack.Properties.ResponseInfo)
	}
}
