package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestADeliveryCarriesWhatIsTheSubscribers(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	m := b.message("a", "x", 2)
	ids := []uint32{7, 9}
	require.Equal(t, session.Queued, b.s.Deliver(b.now, m, session.Delivery{QoS: 1, Retain: true, SubscriptionIDs: ids}))
	ids[0] = 1 // copied
	require.Equal(t, session.Queued, b.s.Deliver(b.now, m, session.Delivery{SubscriptionIDs: []uint32{268435455}}))
	require.Equal(t, session.Queued, b.s.Deliver(b.now, m, session.Delivery{}))
	all := b.publishes()
	require.Equal(t, &packet.Publish{
		Topic: "a", Payload: []byte("x"), QoS: 1, PacketID: 1, Retain: true,
		Properties: &packet.Properties{SubscriptionIDs: []uint32{7, 9}}, // [MQTT-3.3.4-4]
	}, all[0])
	require.Equal(t, []uint32{268435455}, all[1].Properties.SubscriptionIDs)
	require.Nil(t, all[2].Properties)
	require.Equal(t, packet.Publish{Topic: "a", Payload: []byte("x"), QoS: 2}, m.Publish, "the shared message is as it was")
}

// [MQTT-3.3.4-9], [MQTT-4.9.0-2], [MQTT-4.9.0-3]
func TestTheWindowIsTheSmallerOfReceiveMaximumAndMaxInflight(t *testing.T) {
	for _, c := range []struct{ client, server, want uint16 }{{3, 10, 3}, {10, 3, 3}, {65535, 4, 4}} {
		b := connected(t, session.Limits{MaxInflight: c.server}, packet.Properties{ReceiveMaximum: packet.Some(c.client)})
		for range 20 {
			b.deliver("a", "x", 1)
		}
		require.Len(t, b.publishes(), int(c.want))
		require.False(t, b.s.HasOutput(mqtt.ControlStream))
		b.deliver("a", "passes", 0)
		b.receive(&packet.Pingreq{})
		all := b.sent()
		require.Len(t, all, 2)
		require.IsType(t, (*packet.Pingresp)(nil), all[0])
		require.Equal(t, "passes", string(all[1].(*packet.Publish).Payload))
		require.Empty(t, b.receive(puback(1, packet.UnspecifiedError)), "a failure frees its place too") // [MQTT-4.4.0-2]
		require.Len(t, b.publishes(), 1)
	}
}

func TestMessagesKeepTheOrderOfDeliveryWhileTheWindowIsOpen(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for i := range 30 {
		b.deliver("a", string('a'+rune(i)), packet.QoS(i%3))
	}
	for i, p := range b.publishes() {
		require.Equal(t, string('a'+rune(i)), string(p.Payload))
	}
}

// [MQTT-4.3.3-4], [MQTT-4.3.3-6]
func TestAQoS2ExchangeSendsPublishThenPubrel(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.deliver("a", "x", 2)
	require.Equal(t, uint16(1), b.publishes()[0].PacketID)
	require.Positive(t, b.s.QueueBytes())
	b.receive(pubrec(1, packet.NoMatchingSubscribers))
	require.Equal(t, []packet.Packet{pubrel(1, 0)}, b.sent())
	require.Zero(t, b.s.QueueBytes(), "the message is no longer needed")
	require.Equal(t, 1, b.s.Inflight())
	b.receive(pubrec(1, 0))
	require.Equal(t, []packet.Packet{pubrel(1, 0)}, b.sent())
	require.Empty(t, b.receive(pubcomp(1, 0)))
	require.Zero(t, b.s.Inflight())
	require.Empty(t, b.receive(pubcomp(1, 0)), "a second PUBCOMP means nothing")
}

// [MQTT-4.4.0-2]
func TestAFailedPubrecEndsTheExchangeWithoutPubrel(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.deliver("a", "x", 2)
	b.sent()
	require.Empty(t, b.receive(pubrec(1, packet.QuotaExceeded)))
	require.Empty(t, b.sent())
	require.Zero(t, b.s.Inflight())
	require.Zero(t, b.s.QueueBytes())
	b.reconnect(packet.Properties{})
	require.Empty(t, b.sent())
}

func TestPubrecOfAnUnknownIdentifierGetsPubrel(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Empty(t, b.receive(pubrec(5, 0)))
	require.Equal(t, []packet.Packet{pubrel(5, packet.PacketIDNotFound)}, b.sent())
	require.Empty(t, b.receive(puback(5, 0)), "an unknown PUBACK needs no answer")
}

func TestAnAcknowledgementOfTheWrongKindIsAProtocolError(t *testing.T) {
	for _, c := range []struct {
		qos packet.QoS
		ack packet.Packet
	}{{1, pubrec(1, 0)}, {2, puback(1, 0)}, {2, pubcomp(1, 0)}, {1, pubcomp(1, 0)}} {
		b := connected(t, session.Limits{}, packet.Properties{})
		b.deliver("a", "x", c.qos)
		b.sent()
		b.closed(b.receive(c.ack), packet.ProtocolError)
	}
}

// [MQTT-2.2.1-4]
func TestPacketIdentifiersWrapAroundThoseInFlight(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.2.1-4 MQTT-4.3.2-1 MQTT-4.3.3-1")
	t.Attr("mqtt3.1.1", "MQTT-2.3.1-4 MQTT-2.3.1-1 MQTT-4.3.2-1 MQTT-4.3.3-1")
	b := connected(t, session.Limits{}, packet.Properties{})
	// 1 and 3 are never acknowledged.
	for range 3 {
		b.deliver("a", "x", 1)
	}
	b.sent()
	b.receive(puback(2, 0))
	last := uint16(3)
	for i := range 140000 {
		b.deliver("a", "x", 1)
		o, ok := b.s.Next(b.now, mqtt.ControlStream)
		require.True(t, ok)
		want := last + 1
		switch last {
		case 65535:
			want = 2
		case 2:
			want = 4
		}
		if want != o.ID {
			require.Equal(t, want, o.ID, "message %d", i)
		}
		last = o.ID
		b.s.Receive(nil, b.now, mqtt.ControlStream, &packet.Puback{Ack: packet.Ack{PacketID: o.ID}})
	}
	require.Equal(t, 2, b.s.Inflight())
	b.reconnect(packet.Properties{})
	all := b.publishes()
	require.Equal(t, []uint16{1, 3}, []uint16{all[0].PacketID, all[1].PacketID})
}

func TestEveryPacketIdentifierCanBeInFlight(t *testing.T) {
	b := connected(t, session.Limits{MaxInflight: 65535, QueueBytes: 1 << 30}, packet.Properties{})
	m := b.message("a", "x", 2)
	used := map[uint16]bool{}
	for range 65536 {
		b.s.Deliver(b.now, m, session.Delivery{QoS: 2})
	}
	for b.s.HasOutput(mqtt.ControlStream) {
		o, ok := b.s.Next(b.now, mqtt.ControlStream)
		require.True(t, ok)
		used[o.ID] = true
	}
	require.Len(t, used, 65535)
	require.False(t, used[0])
	b.receive(pubrec(30000, packet.UnspecifiedError))
	o, ok := b.s.Next(b.now, mqtt.ControlStream)
	require.True(t, ok)
	require.Equal(t, uint16(30000), o.ID)
}

// [MQTT-3.3.2-5], [MQTT-3.3.2-6]
func TestMessageExpiryCountsTheTimeInTheQueue(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.2-5 MQTT-3.3.2-6")
	b := connected(t, session.Limits{}, packet.Properties{})
	m := session.NewMessage(b.now, &packet.Publish{Topic: "a", Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](10)}}, "other")
	for range 2 {
		for qos := range packet.QoS(3) {
			require.Equal(t, session.Queued, b.s.Deliver(b.now, m, session.Delivery{QoS: qos}))
		}
	}
	require.Equal(t, packet.Some[uint32](10), b.next(0).(*packet.Publish).Properties.MessageExpiry)
	b.pass(3500 * time.Millisecond)
	p := b.next(0).(*packet.Publish)
	require.Equal(t, packet.Some[uint32](7), p.Properties.MessageExpiry)
	b.pass(6500 * time.Millisecond)
	require.Empty(t, b.sent())
	require.Equal(t, uint32(4), b.s.Stats().Expired)
	require.Equal(t, session.Ignored, b.s.Deliver(b.now, m, session.Delivery{}))
	b.receive(puback(p.PacketID, 0))
	require.Zero(t, b.s.QueueBytes())
}

// [MQTT-4.3.3-7]: expiry does not apply to what was sent.
func TestAMessageInFlightDoesNotExpire(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.3-7")
	b := connected(t, session.Limits{}, packet.Properties{})
	m := session.NewMessage(b.now, &packet.Publish{Topic: "a", Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)}}, "other")
	b.s.Deliver(b.now, m, session.Delivery{QoS: 2})
	b.sent()
	b.pass(time.Minute)
	b.reconnect(packet.Properties{})
	p := b.publishes()[0]
	require.True(t, p.Dup)
	require.Equal(t, packet.Some[uint32](0), p.Properties.MessageExpiry)
}

// [MQTT-3.1.2-24], [MQTT-3.1.2-25]
func TestAMessageLargerThanTheClientTakesUsesNoIdentifier(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-24 MQTT-3.1.2-25")
	b := connected(t, session.Limits{}, packet.Properties{MaximumPacketSize: packet.Some[uint32](100)})
	fits := b.message("a", string(make([]byte, 100-2-3-2-1)), 1)
	tooLarge := b.message("a", string(make([]byte, 100-2-3-2-1+1)), 1)
	require.Equal(t, session.Ignored, b.s.Deliver(b.now, tooLarge, session.Delivery{QoS: 1}))
	require.Equal(t, session.Ignored, b.s.Deliver(b.now, fits, session.Delivery{QoS: 1, SubscriptionIDs: []uint32{1}}))
	require.Equal(t, session.Queued, b.s.Deliver(b.now, fits, session.Delivery{QoS: 1}))
	require.Equal(t, uint16(1), b.publishes()[0].PacketID)
	b.s.Detach(nil, b.now)

	// Offline nobody knows what the next connection takes.
	require.Equal(t, session.Queued, b.s.Deliver(b.now, tooLarge, session.Delivery{QoS: 1}))
	require.Equal(t, session.Queued, b.deliver("a", "small", 1))
	b.connect(&packet.Properties{MaximumPacketSize: packet.Some[uint32](100 - 1), SessionExpiry: packet.Some[uint32](9)})
	all := b.publishes()
	require.Len(t, all, 1, "what was in flight is too large for this connection, too")
	require.Equal(t, "small", string(all[0].Payload))
	require.Equal(t, uint16(2), all[0].PacketID)
	require.Equal(t, uint32(4), b.s.Stats().TooLarge)
	b.receive(puback(2, 0))
	require.Zero(t, b.s.QueueBytes())
	require.Zero(t, b.s.Inflight())
}

func TestNoPacketIsLargerThanTheClientTakes(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{MaximumPacketSize: packet.Some[uint32](40)})
	fx := b.s.Disconnect(nil, b.now, packet.QuotaExceeded, "a long sentence that says why this is so")
	require.Len(t, fx, 1)
	d := b.next(0).(*packet.Disconnect)
	require.Equal(t, packet.QuotaExceeded, d.Code)
	require.Nil(t, d.Properties) // [MQTT-3.14.2-3]
}

// [MQTT-3.1.2-26], [MQTT-3.1.2-27]
func TestTopicAliasesAreUsedUpToTheClientsMaximum(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-26 MQTT-3.1.2-27 MQTT-3.3.2-11")
	b := connected(t, session.Limits{}, packet.Properties{TopicAliasMaximum: packet.Some[uint16](2)})
	type seen struct {
		topic string
		alias packet.Opt[uint16]
	}
	send := func(topic string) seen {
		b.deliver(topic, "x", 1)
		p := b.publishes()[0]
		if p.Properties == nil {
			return seen{topic: p.Topic}
		}
		return seen{p.Topic, p.Properties.TopicAlias}
	}
	require.Equal(t, seen{"topic/1", packet.Some[uint16](1)}, send("topic/1"))
	require.Equal(t, seen{"", packet.Some[uint16](1)}, send("topic/1"))
	require.Equal(t, seen{topic: "a"}, send("a"), "shorter than the property")
	require.Equal(t, seen{"topic/2", packet.Some[uint16](2)}, send("topic/2"))
	require.Equal(t, seen{topic: "topic/3"}, send("topic/3"))
	require.Equal(t, seen{"", packet.Some[uint16](2)}, send("topic/2"))

	b.reconnect(packet.Properties{TopicAliasMaximum: packet.Some[uint16](1)})
	all := b.publishes()
	require.Equal(t, "topic/1", all[0].Topic, "a new connection begins without aliases") // [MQTT-3.3.2-7]
	require.Equal(t, "", all[1].Topic)

	b.reconnect(packet.Properties{})
	require.Equal(t, seen{topic: "topic/1"}, func() seen { p := b.publishes()[0]; return seen{topic: p.Topic} }())
}

func TestAnAliasDoesNotMakeAMessageTooLarge(t *testing.T) {
	m := session.NewMessage(start, &packet.Publish{Topic: "topic", Payload: make([]byte, 20)}, "other")
	size := packet.PublishSize(packet.V5, &m.Publish, packet.PublishHeader{})
	for extra := range uint32(4) {
		b := connected(t, session.Limits{}, packet.Properties{
			TopicAliasMaximum: packet.Some[uint16](2), MaximumPacketSize: packet.Some(uint32(size) + extra),
		})
		b.s.Deliver(b.now, m, session.Delivery{})
		o, ok := b.s.Next(b.now, mqtt.ControlStream)
		if !ok { // CONNACK itself is larger
			t.Fatal("nothing sent")
		}
		require.Equal(t, extra == 3, o.Alias != 0, "extra %d", extra)
	}
}

func TestTheQueueIsBoundedInBytes(t *testing.T) {
	const limit = 16 << 10
	b := connected(t, session.Limits{QueueBytes: limit}, packet.Properties{ReceiveMaximum: packet.Some[uint16](5)})
	n := 0
	for b.deliver("a", string(make([]byte, 500)), packet.QoS(n%3)) == session.Queued {
		n++
	}
	require.Greater(t, n, 10)
	require.LessOrEqual(t, b.s.QueueBytes(), limit)
	// What is in flight counts until it is acknowledged.
	first := b.publishes()
	require.Equal(t, 5, b.s.Inflight())
	before := b.s.QueueBytes()
	require.Positive(t, before)
	for _, p := range first {
		switch p.QoS {
		case 1:
			b.receive(puback(p.PacketID, 0))
		case 2:
			b.receive(pubrec(p.PacketID, 0))
		}
	}
	require.Less(t, b.s.QueueBytes(), before)
	b.s.End(nil, b.now)
	require.Zero(t, b.s.QueueBytes())
}

func TestAnEmptyQueueTakesOneMessageHoweverLarge(t *testing.T) {
	b := connected(t, session.Limits{QueueBytes: 1000}, packet.Properties{})
	require.Equal(t, session.Queued, b.deliver("a", string(make([]byte, 5000)), 0))
	require.Equal(t, session.Full, b.deliver("a", "x", 0))
	require.Len(t, b.publishes(), 1)
	require.Zero(t, b.s.QueueBytes())
}

func TestOverflowDropsTheOldestQoS0First(t *testing.T) {
	b := connected(t, session.Limits{QueueBytes: 16 << 10}, packet.Properties{})
	n := 0
	for ; b.deliver("a", fmt.Sprintf("%500d", n), packet.QoS(n%2)) == session.Queued; n++ {
	}
	dropped, ok := b.s.Overflow(b.now)
	require.True(t, ok)
	require.LessOrEqual(t, b.s.QueueBytes(), 12<<10)
	require.Equal(t, session.Queued, b.deliver("a", "new", 0))
	all := b.publishes()
	require.Len(t, all, n-dropped+1)
	require.Equal(t, fmt.Sprintf("%500d", 1), string(all[0].Payload), "QoS 1 is kept")
	zeros := 0
	for _, p := range all[:len(all)-1] {
		if p.QoS == 0 {
			require.Equal(t, fmt.Sprintf("%500d", 2*(dropped+zeros)), string(p.Payload))
			zeros++
		}
	}
}

func TestOverflowSaysWhenThereIsNothingToDrop(t *testing.T) {
	b := connected(t, session.Limits{QueueBytes: 4 << 10}, packet.Properties{})
	for b.deliver("a", "x", 1) == session.Queued {
	}
	dropped, ok := b.s.Overflow(b.now)
	require.Zero(t, dropped)
	require.False(t, ok)
}

func TestOverflowDropsWhatHasExpiredOfAnyQoS(t *testing.T) {
	b := connected(t, session.Limits{QueueBytes: 4 << 10}, packet.Properties{})
	m := session.NewMessage(b.now, &packet.Publish{Topic: "a", Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)}}, "other")
	b.deliver("a", "kept", 1)
	for b.s.Deliver(b.now, m, session.Delivery{QoS: 1}) == session.Queued {
	}
	b.pass(time.Second)
	dropped, ok := b.s.Overflow(b.now)
	require.True(t, ok)
	require.Equal(t, int(b.s.Stats().Expired), dropped)
	require.Equal(t, "kept", string(b.publishes()[0].Payload))
}

// What has expired at the front of the queue goes first, then all that has.
func TestOverflowFindsWhatHasExpiredAnywhere(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for _, seconds := range []uint32{1, 1, 0, 1, 2, 0, 1} {
		p := &packet.Publish{Topic: "a"}
		if seconds != 0 {
			p.Properties = &packet.Properties{MessageExpiry: packet.Some(seconds)}
		}
		b.s.Deliver(b.now, session.NewMessage(b.now, p, "other"), session.Delivery{QoS: 1})
	}
	overflow := func() int {
		dropped, ok := b.s.Overflow(b.now)
		require.Equal(t, dropped > 0, ok)
		return dropped
	}
	require.Zero(t, overflow())
	b.pass(time.Second)
	require.Equal(t, 2, overflow())
	require.Equal(t, 2, overflow())
	require.Zero(t, overflow())
	b.pass(time.Second)
	require.Equal(t, 1, overflow())
	require.Zero(t, overflow())
	require.Len(t, b.publishes(), 2)
	require.Equal(t, 5, int(b.s.Stats().Expired))
}

func TestAnAcknowledgementMayComeBeforeItsMessageIsSentAgain(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for qos := range packet.QoS(3) {
		b.deliver("a", "x", qos)
		b.deliver("a", "y", qos)
	}
	require.Len(t, b.publishes(), 6) // QoS 1: 1 and 2, QoS 2: 3 and 4
	b.reconnect(packet.Properties{})
	b.receive(puback(1, 0))
	b.receive(pubrec(3, 0))
	all := b.sent()
	require.Len(t, all, 3)
	require.Equal(t, pubrel(3, 0), all[0])
	require.Equal(t, uint16(2), all[1].(*packet.Publish).PacketID)
	require.Equal(t, uint16(4), all[2].(*packet.Publish).PacketID)
	b.receive(puback(2, 0))
	b.receive(pubrec(4, packet.UnspecifiedError))
	b.receive(pubcomp(3, 0))
	require.Empty(t, b.sent())
	require.Zero(t, b.s.Inflight())
	require.Zero(t, b.s.QueueBytes())
}
