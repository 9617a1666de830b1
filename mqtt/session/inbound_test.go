package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestAReceivedMessageIsRoutedWithoutWhatBelongsToThePacket(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	sent := &packet.Publish{
		Topic: "a/b", Payload: []byte("hello"), QoS: 1, PacketID: 9, Dup: true, Retain: true,
		Properties: &packet.Properties{
			TopicAlias: packet.Some[uint16](1), MessageExpiry: packet.Some[uint32](5),
			CorrelationData: []byte("c"), User: []packet.UserProperty{{Key: "k", Value: "v"}},
		},
	}
	wire, err := sent.Append(nil, packet.V5)
	require.NoError(t, err)
	fx := b.s.Receive(nil, b.now, mqtt.ControlStream, decode(t, wire, packet.V5))
	clear(wire) // the buffer is used for something else

	require.Equal(t, []session.Effect{{
		Kind: session.EffectRoute, PacketID: 9,
		Message: &session.Message{
			From: "client", Expires: start.Add(5 * time.Second),
			Publish: packet.Publish{
				Topic: "a/b", Payload: []byte("hello"), QoS: 1, Retain: true,
				Properties: &packet.Properties{
					MessageExpiry: packet.Some[uint32](5), CorrelationData: []byte("c"),
					User: []packet.UserProperty{{Key: "k", Value: "v"}},
				},
			},
		},
	}}, fx)
}

// [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]
func TestRoutedAcknowledgesWithTheCode(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(publish(1, 1))
	b.receive(publish(2, 2))
	require.Empty(t, b.sent(), "not before it is routed")
	b.s.Routed(b.now, mqtt.ControlStream, 1, packet.NoMatchingSubscribers)
	b.s.Routed(b.now, mqtt.ControlStream, 2, packet.NoMatchingSubscribers)
	require.Equal(t, []packet.Packet{puback(1, 0x10), pubrec(2, 0x10)}, b.sent())
}

func TestAcknowledgementsOf3xHaveNoCode(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.3.5-2")
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311}, session.Attach{})
	b.receive(publish(1, 1))
	b.receive(publish(2, 2))
	b.s.Routed(b.now, mqtt.ControlStream, 1, packet.NotAuthorized)
	b.s.Routed(b.now, mqtt.ControlStream, 2, packet.NotAuthorized)
	require.Equal(t, []packet.Packet{puback(1, 0), pubrec(2, 0)}, b.sent())
	b.receive(pubrel(2, 0))
	require.Equal(t, []packet.Packet{pubcomp(2, 0)}, b.sent())
}

// [MQTT-4.6.0-2], [MQTT-4.6.0-3]
func TestAcknowledgementsKeepTheOrderOfThePublishPackets(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for id := uint16(1); id <= 4; id++ {
		b.receive(publish(id, packet.QoS(1+id%2)))
	}
	b.s.Routed(b.now, mqtt.ControlStream, 4, 0)
	b.s.Routed(b.now, mqtt.ControlStream, 2, 0)
	b.receive(&packet.Pingreq{})
	require.Equal(t, []packet.Packet{&packet.Pingresp{}}, b.sent(), "what does not depend on the router does not wait")
	b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
	require.Equal(t, []packet.Packet{pubrec(1, 0), puback(2, 0)}, b.sent())
	b.s.Routed(b.now, mqtt.ControlStream, 3, 0)
	require.Equal(t, []packet.Packet{pubrec(3, 0), puback(4, 0)}, b.sent())
}

// [MQTT-4.3.3-10]
func TestARepeatedQoS2PublishIsAcknowledgedAndNotRoutedAgain(t *testing.T) {
	for _, routed := range []bool{true, false} {
		t.Run(fmt.Sprintf("routed before the connection was lost: %v", routed), func(t *testing.T) {
			b := connected(t, session.Limits{}, packet.Properties{})
			require.Len(t, b.receive(publish(1, 2)), 1)
			if routed {
				b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
			}
			b.reconnect(packet.Properties{})
			again := publish(1, 2)
			again.Dup = true
			require.Empty(t, b.receive(again))
			require.Empty(t, b.receive(again), "twice, even")
			if !routed {
				require.Empty(t, b.sent())
				b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
			}
			require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sent())
			b.receive(pubrel(1, 0))
			require.Equal(t, []packet.Packet{pubcomp(1, 0)}, b.sent())
			// [MQTT-4.3.3-12]: the identifier is free.
			require.Len(t, b.receive(publish(1, 2)), 1)
		})
	}
}

func TestAnExchangeOfAnEarlierConnectionGoesOnOnAnyStream(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Len(t, b.receiveOn(4, publish(1, 2)), 1)
	require.Len(t, b.receiveOn(8, publish(2, 2)), 1)
	b.s.Routed(b.now, 4, 1, 0)
	b.reconnect(packet.Properties{})
	require.Empty(t, b.receive(publish(1, 2)))
	require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sent())
	require.Empty(t, b.receiveOn(12, publish(2, 2)))
	require.Empty(t, b.sentOn(12))
	b.s.Routed(b.now, 8, 2, 0)
	require.Equal(t, []packet.Packet{pubrec(2, 0)}, b.sentOn(12))
	b.receiveOn(12, pubrel(2, 0))
	require.Equal(t, []packet.Packet{pubcomp(2, 0)}, b.sentOn(12))
}

// [MQTT-4.3.3-9]
func TestARefusedQoS2MessageFreesItsIdentifier(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.3-9")
	for _, lost := range []bool{false, true} {
		b := connected(t, session.Limits{}, packet.Properties{})
		b.receive(publish(1, 2))
		if lost {
			b.s.Detach(nil, b.now)
		}
		b.s.Routed(b.now, mqtt.ControlStream, 1, packet.NotAuthorized)
		if lost {
			b.connect(nil)
		} else {
			require.Equal(t, []packet.Packet{pubrec(1, packet.NotAuthorized)}, b.sent())
		}
		require.Len(t, b.receive(publish(1, 2)), 1, "a new message")
	}
}

func TestPubrelOfAnUnknownIdentifierGetsPubcomp(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Empty(t, b.receive(pubrel(77, 0)))
	require.Equal(t, []packet.Packet{pubcomp(77, packet.PacketIDNotFound)}, b.sent())
	b = newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311}, session.Attach{})
	b.receive(pubrel(77, 0))
	require.Equal(t, []packet.Packet{pubcomp(77, 0)}, b.sent())
}

func TestPubrelBeforePubrecIsAProtocolError(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(publish(1, 2))
	b.closed(b.receive(pubrel(1, 0)), packet.ProtocolError)
}

// [MQTT-3.3.4-7]
func TestMoreThanReceiveMaximumIsRefused(t *testing.T) {
	limits := session.Limits{ReceiveMaximum: 2}
	b := connected(t, limits, packet.Properties{})
	b.receive(publish(1, 1))
	b.receiveOn(4, publish(2, 2)) // counted over all streams
	b.closed(b.receive(publish(3, 1)), packet.ReceiveMaximumExceeded)

	b = connected(t, limits, packet.Properties{})
	for id := uint16(1); id < 100; id++ {
		// A place is free again when PUBACK, PUBCOMP or a failed PUBREC is sent.
		require.Len(t, b.receive(publish(id, 1)), 1)
		b.s.Routed(b.now, mqtt.ControlStream, id, 0)
		b.sent()
		require.Len(t, b.receive(publish(id, 2)), 1)
		b.s.Routed(b.now, mqtt.ControlStream, id, 0)
		b.sent()
		require.Len(t, b.receive(publish(id+1, 2)), 1)
		b.s.Routed(b.now, mqtt.ControlStream, id+1, packet.QuotaExceeded)
		b.sent()
		require.Empty(t, b.receive(pubrel(id, 0)))
		b.sent()
		require.Len(t, b.receive(publish(0, 0)), 1)
	}
	require.True(t, b.s.Connected())
	b.receive(publish(1, 2))
	b.receive(publish(2, 2))
	b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
	b.sent() // PUBREC alone frees nothing
	b.closed(b.receive(publish(3, 2)), packet.ReceiveMaximumExceeded)
}

func TestAClientOf3xIsPushedBackInsteadOfRefused(t *testing.T) {
	b := newBench(t, session.Limits{ReceiveMaximum: 2})
	b.attach(&packet.Connect{Version: packet.V311}, session.Attach{})
	id := uint16(1)
	for ; !b.s.Paused(); id++ {
		require.Len(t, b.receive(publish(id, 1)), 1)
		b.s.Routed(b.now, mqtt.ControlStream, id, 0)
	}
	require.Less(t, id, uint16(10000))
	require.Len(t, b.sent(), int(id-1))
	require.False(t, b.s.Paused())
}

func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for range 1 << 20 {
		if fx := b.s.Receive(nil, b.now, mqtt.ControlStream, &packet.Pingreq{}); len(fx) > 0 {
			require.Equal(t, packet.QuotaExceeded, fx[0].Code)
			return
		}
	}
	t.Fatal("a million PINGRESP wait")
}

func TestTopicAliasesResolvePerStream(t *testing.T) {
	b := connected(t, session.Limits{TopicAliasMaximum: 2}, packet.Properties{})
	alias := func(topic string, a uint16) *packet.Publish {
		return &packet.Publish{Topic: topic, Properties: &packet.Properties{TopicAlias: packet.Some(a)}}
	}
	require.Equal(t, "one", b.receive(alias("one", 1))[0].Message.Publish.Topic)
	require.Equal(t, "two", b.receive(alias("two", 2))[0].Message.Publish.Topic)
	require.Equal(t, "other", b.receiveOn(4, alias("other", 1))[0].Message.Publish.Topic)
	fx := b.receive(alias("", 1))
	require.Equal(t, "one", fx[0].Message.Publish.Topic)
	require.Nil(t, fx[0].Message.Publish.Properties)
	require.Equal(t, "other", b.receiveOn(4, alias("", 1))[0].Message.Publish.Topic)
	require.Equal(t, "uno", b.receive(alias("uno", 1))[0].Message.Publish.Topic, "set anew")
	require.Equal(t, "uno", b.receive(alias("", 1))[0].Message.Publish.Topic)
	b.closed(b.receive(alias("x", 3)), packet.TopicAliasInvalid) // [MQTT-3.3.2-9]

	b.reconnect(packet.Properties{}) // [MQTT-3.3.2-7]: aliases end with the connection
	b.closed(b.receive(alias("", 1)), packet.ProtocolError)
}

// [MQTT-3.3.4-6]
func TestASubscriptionIdentifierFromAClientIsAProtocolError(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	p := publish(0, 0)
	p.Properties = &packet.Properties{SubscriptionIDs: []uint32{1}}
	b.closed(b.s.Receive(nil, b.now, mqtt.ControlStream, p), packet.ProtocolError)
}

func TestPacketsThatAClientMayNotSendCloseTheConnection(t *testing.T) {
	for _, p := range []packet.Packet{
		&packet.Connect{Version: packet.V5}, // [MQTT-3.1.0-2]
		&packet.Connack{},
		&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{0}},
		&packet.Unsuback{PacketID: 1, Codes: []packet.ReasonCode{0}},
		&packet.Pingresp{},
		&packet.Auth{Code: packet.ReAuthenticate}, // [MQTT-4.12.0-7]
	} {
		t.Run(fmt.Sprintf("%T", p), func(t *testing.T) {
			b := connected(t, session.Limits{}, packet.Properties{})
			b.closed(b.s.Receive(nil, b.now, mqtt.ControlStream, p), packet.ProtocolError)
			require.Empty(t, b.receive(publish(1, 1)), "nothing is received after EffectClose")
			require.Empty(t, b.sent(), "and nothing sent after DISCONNECT") // [MQTT-3.14.4-1]
		})
	}
}

func TestPingreqGetsPingresp(t *testing.T) { // [MQTT-3.12.4-1]
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Empty(t, b.receive(&packet.Pingreq{}))
	require.Equal(t, []packet.Packet{&packet.Pingresp{}}, b.sent())
}

func TestARepeatedPublishCountsOnceAgainstReceiveMaximum(t *testing.T) {
	b := connected(t, session.Limits{ReceiveMaximum: 1}, packet.Properties{})
	require.Len(t, b.receive(publish(1, 2)), 1)
	b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
	for range 3 {
		require.Empty(t, b.receive(publish(1, 2)))
		require.Equal(t, []packet.Packet{pubrec(1, 0)}, b.sent())
	}
	b.receive(pubrel(1, 0))
	b.sent()
	require.Len(t, b.receive(publish(2, 1)), 1)
}

// A SUBACK has a code for each filter, so few of them can be large.
func TestLargeAnswersThatNobodyReadsPauseEarlier(t *testing.T) {
	b := connected(t, session.Limits{MaxSubscriptions: 1}, packet.Properties{})
	p := &packet.Subscribe{PacketID: 1}
	for range 64 << 10 {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: "a"})
	}
	for range 2 {
		require.False(t, b.s.Paused())
		b.s.Receive(nil, b.now, mqtt.ControlStream, p)
		b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	}
	require.True(t, b.s.Paused())
	require.Len(t, b.sent(), 2)
	require.False(t, b.s.Paused())

	// A stream that ends takes its answers along.
	for range 2 {
		b.s.Receive(nil, b.now, 4, p)
		b.s.Subscribed(b.now, 4, 1, nil)
	}
	require.True(t, b.s.Paused())
	b.s.StreamClosed(nil, b.now, 4)
	require.False(t, b.s.Paused())
}

func TestTheTopicsBehindAliasesAreBoundedInBytes(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	set := func(stream mqtt.StreamID, alias uint16) []session.Effect {
		return b.receiveOn(stream, &packet.Publish{
			Topic:      strings.Repeat("t", 60_000),
			Properties: &packet.Properties{TopicAlias: packet.Some(alias)},
		})
	}
	// A topic that takes another's place and a stream that ends make room.
	for stream := range mqtt.StreamID(10) {
		for alias := range uint16(16) {
			require.Equal(t, session.EffectRoute, set(4+4*stream, 1+alias/2)[0].Kind)
		}
		b.s.StreamClosed(nil, b.now, 4+4*stream)
	}
	for alias := range uint16(17) {
		require.Equal(t, session.EffectRoute, set(0, 1+alias)[0].Kind)
	}
	b.closed(set(4, 1), packet.QuotaExceeded)
	b.reconnect(packet.Properties{})
	require.Equal(t, session.EffectRoute, set(0, 1)[0].Kind)
}
