package session_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func (b *bench) subscribeOn(stream mqtt.StreamID, id uint16, filter string) {
	b.t.Helper()
	require.Len(b.t, b.receiveOn(stream, subscribe(id, filter)), 1)
	b.s.Subscribed(b.now, stream, id, nil)
	require.IsType(b.t, (*packet.Suback)(nil), b.next(stream))
}

func TestAcknowledgementsGoToTheStreamOfThePublish(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receiveOn(4, publish(1, 1))
	b.receiveOn(8, publish(1, 2)) // the same identifier on another stream
	b.receive(publish(1, 2))
	for _, stream := range []mqtt.StreamID{0, 4, 8} {
		b.s.Routed(b.now, stream, 1, 0)
	}
	require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sentOn(0))
	require.Equal(t, []packet.Packet{puback(1, 0)}, b.sentOn(4))
	require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sentOn(8))
	b.receiveOn(8, pubrel(1, 0))
	require.Equal(t, []packet.Packet{pubcomp(1, 0)}, b.sentOn(8))
	b.receive(pubrel(1, 0))
	require.Equal(t, []packet.Packet{pubcomp(1, 0)}, b.sentOn(0), "that of stream 0 is another exchange")
}

func TestMessagesGoToTheStreamOfTheSubscription(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{TopicAliasMaximum: packet.Some[uint16](9)})
	b.subscribeOn(4, 1, "topic/4")
	require.Equal(t, mqtt.StreamID(4), b.s.StreamOf("topic/4"))
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("unknown"))
	for qos := range packet.QoS(3) {
		b.s.Deliver(b.now, b.message("topic/4", "x", 2), session.Delivery{QoS: qos, Stream: b.s.StreamOf("topic/4")})
	}
	b.deliver("topic/0", "x", 1)
	require.Len(t, b.sentOn(0), 1)
	all := b.sentOn(4)
	require.Len(t, all, 3)
	for _, p := range all {
		require.Nil(t, p.(*packet.Publish).Properties, "no topic alias on a data stream")
	}
	require.Equal(t, uint16(2), all[1].(*packet.Publish).PacketID, "identifiers are the session's")
	b.receiveOn(4, puback(2, 0))
	b.receiveOn(4, pubrec(3, 0))
	require.Equal(t, []packet.Packet{pubrel(3, 0)}, b.sentOn(4))
	require.Empty(t, b.sentOn(0))
}

func TestTheLastSubscribeMovesTheSubscription(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.subscribeOn(4, 1, "a")
	b.subscribeOn(8, 1, "a")
	require.Equal(t, mqtt.StreamID(8), b.s.StreamOf("a"))
	b.subscribeOn(0, 1, "a")
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
	b.subscribeOn(4, 1, "a")
	require.Equal(t, mqtt.StreamID(4), b.s.StreamOf("a"))

	// UNSUBSCRIBE works from any stream.
	b.receive(&packet.Unsubscribe{PacketID: 1, Filters: []string{"a"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Equal(t, []packet.Packet{&packet.Unsuback{PacketID: 1, Codes: []packet.ReasonCode{0}}}, b.sent())
	require.Empty(t, b.subscriptions())
}

func TestWhenADataStreamClosesTheControlStreamTakesOver(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{ReceiveMaximum: packet.Some[uint16](1)})
	b.subscribeOn(4, 1, "a")
	send := func(stream mqtt.StreamID, payload string, qos packet.QoS) {
		require.Equal(t, session.Queued, b.s.Deliver(b.now, b.message("a", payload, qos), session.Delivery{QoS: qos, Stream: stream}))
	}
	send(4, "in flight", 1)
	require.Len(t, b.sentOn(4), 1)
	send(0, "1", 1)
	send(4, "2", 1)
	send(0, "3", 1)
	send(4, "4", 0)
	require.Empty(t, b.s.StreamClosed(nil, b.now, 4))
	require.True(t, b.s.Connected())
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
	send(4, "5", 0) // the router has not heard of it yet

	var got []string
	for id := range uint16(4) {
		for _, p := range b.publishes() {
			got = append(got, string(p.Payload))
		}
		// The first of them acknowledges what was sent on the data stream.
		b.receive(puback(id+1, 0))
	}
	require.Equal(t, []string{"in flight", "4", "5", "1", "2", "3"}, got)
}

// The stream may have ended before the client read what was sent on it.
func TestWhatWasSentOnAStreamThatEndedIsSentAgainOnTheControlStream(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{ReceiveMaximum: packet.Some[uint16](4)})
	b.subscribeOn(4, 1, "a")
	for _, qos := range []packet.QoS{1, 2, 2, 2} {
		b.s.Deliver(b.now, b.message("a", "x", qos), session.Delivery{QoS: qos, Stream: 4})
	}
	require.False(t, b.s.Unsettled(4))
	require.Len(t, b.sentOn(4), 4)
	require.True(t, b.s.Unsettled(4))
	b.deliver("a", "waits", 1)
	b.receiveOn(4, pubrec(4, 0))
	b.receiveOn(4, pubrec(3, 0))
	require.Equal(t, []packet.Packet{pubrel(4, 0)}, []packet.Packet{b.next(4)}) // that of 3 is not sent before the end
	b.s.StreamClosed(nil, b.now, 4)
	require.False(t, b.s.Unsettled(4))

	all := b.sent()
	require.Equal(t, []packet.Packet{pubrel(4, 0), pubrel(3, 0)}, all[:2], "in the order of the PUBRECs")
	require.Len(t, all, 4, "Receive Maximum holds")
	for i, p := range all[2:] {
		require.True(t, p.(*packet.Publish).Dup)
		require.Equal(t, uint16(i+1), p.(*packet.Publish).PacketID)
	}
	b.receive(puback(1, 0))
	require.Equal(t, "waits", string(b.publishes()[0].Payload))

	// Once, unless the connection ends as well.
	require.Empty(t, b.sent())
	b.reconnect(packet.Properties{})
	require.Len(t, b.sent(), 4)
}

func TestAMessageAcknowledgedOnAnotherStreamIsNotSentAgain(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.subscribeOn(4, 1, "a")
	for range 2 {
		b.s.Deliver(b.now, b.message("a", "x", 2), session.Delivery{QoS: 2, Stream: 4})
	}
	require.Len(t, b.sentOn(4), 2)
	b.s.StreamClosed(nil, b.now, 4)
	require.True(t, b.s.HasOutput(0))
	b.receiveOn(8, pubrec(1, 0)) // the client goes on where it likes
	require.Equal(t, []packet.Packet{pubrel(1, 0)}, b.sentOn(8))
	require.Equal(t, uint16(2), b.publishes()[0].PacketID)
	// That stream has the exchange now.
	b.s.StreamClosed(nil, b.now, 8)
	require.Equal(t, []packet.Packet{pubrel(1, 0)}, b.sent())
	b.receive(pubcomp(1, 0))
	require.Equal(t, 1, b.s.Inflight())
}

func TestAClientGoesOnWithAnExchangeOfAStreamThatEnded(t *testing.T) {
	b := connected(t, session.Limits{ReceiveMaximum: 2}, packet.Properties{})
	route := func(stream mqtt.StreamID, p *packet.Publish) int {
		fx := b.receiveOn(stream, p)
		for _, f := range fx {
			require.Equal(t, session.EffectRoute, f.Kind)
			b.s.Routed(b.now, f.Stream, f.PacketID, 0)
		}
		return len(fx)
	}
	again := func(id uint16) *packet.Publish {
		p := publish(id, 2)
		p.Dup = true
		return p
	}
	require.Equal(t, 1, route(4, publish(1, 2)))
	require.Equal(t, 1, route(4, publish(2, 2)))
	b.s.StreamClosed(nil, b.now, 4)

	// The first goes on with PUBLISH, the second, whose PUBREC came, with PUBREL.
	require.Zero(t, route(0, again(1)))
	require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sent())
	b.receiveOn(8, pubrel(2, 0))
	require.Equal(t, []packet.Packet{pubcomp(2, 0)}, b.sentOn(8))
	b.receive(pubrel(1, 0))
	require.Equal(t, []packet.Packet{pubcomp(1, 0)}, b.sent())

	// The news of the end may come later than what the client does next.
	require.Equal(t, 1, route(8, publish(3, 2)))
	require.Zero(t, route(12, again(3)))
	require.Equal(t, []packet.Packet{pubrec(3, 0)}, b.sentOn(12))
	b.s.StreamClosed(nil, b.now, 8)
	b.receiveOn(12, pubrel(3, 0))
	require.Equal(t, []packet.Packet{pubcomp(3, 0)}, b.sentOn(12))

	// Without DUP it is another message: some clients count for each stream.
	require.Equal(t, 1, route(8, publish(1, 2)))
	b.s.StreamClosed(nil, b.now, 8)
	require.Equal(t, 1, route(0, publish(1, 2)))
	require.Zero(t, route(0, again(1)))
	b.receive(pubrel(1, 0))
	require.Equal(t, 1, route(12, again(1)), "the old exchange was given up")
	require.True(t, b.s.Connected(), "places of Receive Maximum come back")
}

func TestADeliveryForAStreamOfAnEarlierConnectionGoesToTheControlStream(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.subscribeOn(4, 1, "a")
	d := session.Delivery{QoS: 1, Stream: 4, Connection: b.s.Connection()}
	b.s.Deliver(b.now, b.message("a", "x", 1), d)
	require.Len(t, b.sentOn(4), 1)
	b.receiveOn(4, puback(1, 0))
	b.reconnect(packet.Properties{})
	b.subscribeOn(4, 1, "b")
	b.s.Deliver(b.now, b.message("a", "x", 1), d)
	require.Empty(t, b.sentOn(4))
	require.Len(t, b.publishes(), 1)
}

func TestSubscriptionsOfDataStreamsDeliverOnTheControlStreamAfterAReconnect(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.subscribeOn(4, 1, "a")
	b.reconnect(packet.Properties{})
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
	b.receiveOn(4, publish(0, 0)) // another stream with the same ID
	b.s.Deliver(b.now, b.message("a", "x", 0), session.Delivery{Stream: b.s.StreamOf("a")})
	require.Len(t, b.sentOn(0), 1)
}

func TestAPacketThatIsNotAllowedOnADataStreamResetsThatStreamOnly(t *testing.T) {
	for _, p := range []packet.Packet{
		&packet.Connect{Version: packet.V5}, &packet.Connack{}, &packet.Pingreq{}, &packet.Pingresp{},
		&packet.Disconnect{}, &packet.Auth{Code: packet.ReAuthenticate},
		&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{0}}, // allowed in this direction never
		&packet.Publish{Properties: &packet.Properties{TopicAlias: packet.Some[uint16](1)}},
	} {
		b := connected(t, session.Limits{}, packet.Properties{})
		b.subscribeOn(4, 1, "a")
		b.receiveOn(4, publish(1, 1))
		fx := b.s.Receive(nil, b.now, 4, p)
		require.Equal(t, []session.EffectKind{session.EffectReset}, kinds(fx), "%T", p)
		require.Equal(t, mqtt.StreamID(4), fx[0].Stream)
		require.Equal(t, packet.ProtocolError, fx[0].Code)
		b.s.Routed(b.now, 4, 1, 0)
		require.False(t, b.s.HasOutput(4))
		require.Nil(t, b.next(4))
		require.Empty(t, b.s.Receive(nil, b.now, 4, p), "it is dead already")
		require.Empty(t, b.receiveOn(4, publish(2, 2)))
		require.Equal(t, mqtt.StreamID(4), b.s.StreamOf("a"), "the control stream goes on when the reset is out")
		require.Empty(t, b.s.StreamClosed(nil, b.now, 4))
		require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
		require.True(t, b.s.Connected())
	}
}

// A message on a data stream takes a place in the window while the control
// stream still has messages to send again.
func TestResumptionGoesOnWhileADataStreamSends(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for range 8 {
		b.deliver("a", "x", 1)
	}
	require.Len(t, b.publishes(), 8)
	b.reconnect(packet.Properties{})
	b.subscribeOn(4, 1, "b")
	for id := uint16(1); id <= 4; id++ {
		require.Equal(t, id, b.next(0).(*packet.Publish).PacketID)
		b.receive(puback(id, 0))
	}
	for range 20 {
		b.s.Deliver(b.now, b.message("b", "y", 1), session.Delivery{QoS: 1, Stream: 4})
	}
	require.Len(t, b.sentOn(4), 20)
	var again []uint16
	for _, p := range b.publishes() {
		require.True(t, p.Dup)
		again = append(again, p.PacketID)
	}
	require.Equal(t, []uint16{5, 6, 7, 8}, again)
}

func TestAClosedStreamGivesThePlacesOfItsUnsentAnswersBack(t *testing.T) {
	b := connected(t, session.Limits{ReceiveMaximum: 2}, packet.Properties{})
	for range 10 {
		require.Len(t, b.receiveOn(4, publish(1, 1)), 1)
		require.Len(t, b.receiveOn(4, publish(2, 1)), 1)
		b.s.Routed(b.now, 4, 1, 0)
		b.s.StreamClosed(nil, b.now, 4)
		b.s.Routed(b.now, 4, 2, 0)
	}
	require.True(t, b.s.Connected())
}

// A client counts a message once that it sends again on another stream, even if the
// session has not heard of the end of the first.
func TestAMessageSentAgainOnAnotherStreamTakesOnePlace(t *testing.T) {
	b := connected(t, session.Limits{ReceiveMaximum: 2}, packet.Properties{})
	for i := range mqtt.StreamID(20) {
		p := publish(1, 1)
		p.Dup = i > 0
		require.Len(t, b.receiveOn(4*(i+1), p), 1)
		b.s.Routed(b.now, 4*(i+1), 1, 0)
	}
	require.Len(t, b.receive(publish(2, 2)), 1, "there is a place")
	b.s.Routed(b.now, 0, 2, 0)
	require.Equal(t, []packet.Packet{pubrec(2, 0)}, b.sent())
	b.receiveOn(4, pubrel(2, 0))                                        // its PUBCOMP is not read any more
	b.receiveOn(8, pubrel(2, 0))                                        // once more
	require.Len(t, b.receive(publish(3, 1)), 1, "the exchange is over") // 1 and 3
	require.Equal(t, packet.ReceiveMaximumExceeded, b.receive(publish(4, 1))[0].Code)
}
