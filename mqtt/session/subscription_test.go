package session_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

func subscribe(id uint16, filters ...string) *packet.Subscribe {
	p := &packet.Subscribe{PacketID: id}
	for _, f := range filters {
		p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: f, QoS: 1})
	}
	return p
}

func (b *bench) subscriptions() map[string]session.Subscription {
	all := map[string]session.Subscription{}
	for sub := range b.s.Subscriptions() {
		all[sub.Filter] = sub
	}
	return all
}

// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-3], [MQTT-3.8.4-6]
func TestSubscribeKeepsTheListAndSendsSuback(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	p := &packet.Subscribe{
		PacketID: 5,
		Subscriptions: []packet.Subscription{
			{Filter: "a", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 1},
			{Filter: "refused"},
			{Filter: "b", QoS: 2},
		},
		Properties: &packet.Properties{SubscriptionIDs: []uint32{42}},
	}
	fx := b.receive(p)
	require.Len(t, fx, 1)
	require.Equal(t, session.EffectSubscribe, fx[0].Kind)
	require.Equal(t, p.Subscriptions, fx[0].Subscribe.Subscriptions)
	require.Equal(t, p.Properties, fx[0].Subscribe.Properties)
	require.Equal(t, []bool{true, true, true}, fx[0].New)
	require.Empty(t, b.subscriptions(), "not yet granted")

	b.s.Subscribed(b.now, mqtt.ControlStream, 5, []packet.ReasonCode{2, packet.NotAuthorized, 1})
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 5, Codes: []packet.ReasonCode{2, 0x87, 1}}}, b.sent())
	require.Equal(t, map[string]session.Subscription{
		"a": {Subscription: p.Subscriptions[0], ID: 42},
		"b": {Subscription: packet.Subscription{Filter: "b", QoS: 1}, ID: 42},
	}, b.subscriptions())

	// A second SUBSCRIBE replaces the options; the filter is not new.
	fx = b.receive(subscribe(6, "a", "refused"))
	require.Equal(t, []bool{false, true}, fx[0].New)
	b.s.Subscribed(b.now, mqtt.ControlStream, 6, []packet.ReasonCode{1, packet.NotAuthorized})
	require.Equal(t, session.Subscription{Subscription: packet.Subscription{Filter: "a", QoS: 1}}, b.subscriptions()["a"])
	b.sent()

	// One that fails leaves the old subscription alone.
	b.receive(subscribe(7, "a"))
	b.s.Subscribed(b.now, mqtt.ControlStream, 7, []packet.ReasonCode{packet.NotAuthorized})
	require.Contains(t, b.subscriptions(), "a")
}

// [MQTT-3.8.4-5]
func TestAFilterTwiceInOneSubscribeIsNewOnce(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Equal(t, []bool{true, false}, b.receive(subscribe(1, "a", "a"))[0].New)
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{1, 1}}}, b.sent())
	require.Len(t, b.subscriptions(), 1)
}

func TestSubscriptionsBeyondTheLimitAreRefusedOneByOne(t *testing.T) {
	b := connected(t, session.Limits{MaxSubscriptions: 2}, packet.Properties{})
	fx := b.receive(subscribe(1, "a", "b", "c", "a", "d"))
	require.Len(t, fx[0].Subscribe.Subscriptions, 3)
	require.Equal(t, []bool{true, true, false}, fx[0].New)
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{1, 1, 0x97, 1, 0x97}}}, b.sent())
	require.Empty(t, b.receive(subscribe(2, "c")))
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 2, Codes: []packet.ReasonCode{0x97}}}, b.sent())

	// Unsubscribing makes room, and so does a filter that was not granted.
	b.receive(&packet.Unsubscribe{PacketID: 3, Filters: []string{"a"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 3, nil)
	b.receive(subscribe(4, "c"))
	b.s.Subscribed(b.now, mqtt.ControlStream, 4, []packet.ReasonCode{packet.NotAuthorized})
	require.Len(t, b.receive(subscribe(5, "d")), 1)
}

// [MQTT-3.10.4-4], [MQTT-3.10.4-5]
func TestUnsubscribeAnswersForEachFilter(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(subscribe(1, "a", "b"))
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	b.sent()
	u := &packet.Unsubscribe{PacketID: 2, Filters: []string{"a", "x", "a"}}
	require.Equal(t, []session.Effect{{Kind: session.EffectUnsubscribe, PacketID: 2, Unsubscribe: u}}, b.receive(u))
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 2, nil)
	require.Equal(t, []packet.Packet{&packet.Unsuback{PacketID: 2, Codes: []packet.ReasonCode{0, 0x11, 0x11}}}, b.sent())
	require.Equal(t, []string{"b"}, keys(b.subscriptions()))

	b.receive(&packet.Unsubscribe{PacketID: 3, Filters: []string{"b"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 3, []packet.ReasonCode{packet.NotAuthorized})
	require.Equal(t, []string{"b"}, keys(b.subscriptions()))
}

func keys(m map[string]session.Subscription) []string {
	var all []string
	for k := range maps.Keys(m) {
		all = append(all, k)
	}
	return all
}

// [MQTT-2.2.1-3]
func TestAPacketIdentifierThatIsInUseIsRefused(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(subscribe(1, "a"))
	require.Empty(t, b.receive(subscribe(1, "b", "c")))
	require.Empty(t, b.receive(&packet.Unsubscribe{PacketID: 1, Filters: []string{"a"}}))
	require.Empty(t, b.receive(publish(1, 1)))
	require.Empty(t, b.receive(publish(1, 2)))
	require.Len(t, b.receiveOn(4, publish(1, 2)), 1, "on another stream it is another identifier")
	const inUse = packet.PacketIDInUse
	require.Equal(t, []packet.Packet{
		puback(1, inUse), pubrec(1, inUse),
		&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{inUse, inUse}},
		&packet.Unsuback{PacketID: 1, Codes: []packet.ReasonCode{inUse}},
	}, b.sent())
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Len(t, b.receive(publish(1, 2)), 1)
	require.Empty(t, b.receive(subscribe(1, "b")), "the QoS 2 exchange uses it now")
}

// [MQTT-3.8.3-4]
func TestNoLocalOnASharedSubscriptionIsAProtocolError(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	fx := b.s.Receive(nil, b.now, mqtt.ControlStream, &packet.Subscribe{
		PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "$share/g/a", NoLocal: true}},
	})
	b.closed(fx, packet.ProtocolError)
}

func TestASubscribeThatOutlivesItsConnectionTakesEffectWithoutSuback(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receiveOn(4, subscribe(1, "a"))
	b.reconnect(packet.Properties{})
	require.Len(t, b.receiveOn(4, subscribe(1, "b")), 1, "the identifier belongs to the old connection")
	b.s.Subscribed(b.now, 4, 1, nil)
	require.Empty(t, b.sentOn(4))
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
	b.s.Subscribed(b.now, 4, 1, nil)
	require.Len(t, b.sentOn(4), 1)
	require.Len(t, b.subscriptions(), 2)
}

// Section 3.9.3: 0x8F is for a filter that is correctly formed but not allowed.
// Others of the same packet are not affected [MQTT-3.8.4-5].
func TestAFilterThatIsNotAllowedIsRefusedInItsPlace(t *testing.T) {
	deep := strings.Repeat("a/", topic.MaxLevels-1) + "a"
	for v, code := range map[packet.Version]packet.ReasonCode{packet.V5: 0x8F, packet.V311: 0x80} {
		b := newBench(t, session.Limits{})
		b.attach(&packet.Connect{Version: v, ClientID: "client", CleanStart: true}, session.Attach{})
		fx := b.receive(subscribe(1, deep+"/a", "good", deep))
		require.Len(t, fx[0].Subscribe.Subscriptions, 2)
		b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
		require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{code, 1, 1}}}, b.sent())
		require.Len(t, b.subscriptions(), 2)
	}
}

// To a client of 3.x "$share" is a level as any other, so nothing is malformed;
// but it has shared subscriptions here, and "$share/g" is none.
func TestAClientOf3xIsRefusedWhatLooksLikeASharedSubscription(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311, ClientID: "client", CleanStart: true}, session.Attach{})
	fx := b.receive(subscribe(1, "$share/g", "$share/g/a", "$share//a", "$share/+/a", "$share/g/", "$shared/a"))
	require.Equal(t, subscribe(1, "$share/g/a", "$shared/a").Subscriptions, fx[0].Subscribe.Subscriptions)
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{0x80, 1, 0x80, 0x80, 0x80, 1}}}, b.sent())
}

func TestTheFiltersOfASessionAreBoundedInBytes(t *testing.T) {
	b := connected(t, session.Limits{SubscriptionBytes: 8}, packet.Properties{})
	grant := func(p *packet.Subscribe) []packet.ReasonCode {
		b.receive(p)
		b.s.Subscribed(b.now, mqtt.ControlStream, p.PacketID, nil)
		return b.sent()[0].(*packet.Suback).Codes
	}
	require.Equal(t, []packet.ReasonCode{1, 1, 0x97, 1, 1}, grant(subscribe(1, "aaaa", "bbb", "cc", "d", "aaaa")))
	b.receive(&packet.Unsubscribe{PacketID: 2, Filters: []string{"bbb", "bbb", "x"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 2, nil)
	b.sent()
	require.Equal(t, []packet.ReasonCode{0x97, 1, 0x97}, grant(subscribe(3, "cccc", "ccc", "e")))

	// One that was not granted takes no room.
	b.receive(&packet.Unsubscribe{PacketID: 4, Filters: []string{"ccc"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 4, nil)
	b.receive(subscribe(5, "fff"))
	b.s.Subscribed(b.now, mqtt.ControlStream, 5, []packet.ReasonCode{packet.NotAuthorized})
	b.sent()
	require.Equal(t, []packet.ReasonCode{1}, grant(subscribe(6, "ggg")))
}

func TestAMillionSubscriptionsOfOneClientStopAtTheLimit(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	const all, each = 1_000_000, 10_000
	granted, refused := 0, 0
	for from := 0; from < all; from += each {
		var filters []string
		for i := range each {
			filters = append(filters, fmt.Sprint("f/", from+i))
		}
		for range b.receive(subscribe(1, filters...)) {
			b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
		}
		for _, code := range b.sent()[0].(*packet.Suback).Codes {
			switch code {
			case 1:
				granted++
			case packet.QuotaExceeded:
				refused++
			}
		}
	}
	require.Equal(t, 65_536, granted)
	require.Equal(t, all-65_536, refused)
	require.Len(t, b.subscriptions(), granted)
	require.True(t, b.s.Connected())
}

func TestFiltersWithMoreLevelsThanTheLimitAreRefused(t *testing.T) {
	b := connected(t, session.Limits{TopicLevels: 3}, packet.Properties{})
	b.receive(subscribe(1, "a/b/c", "a/b/c/d", "+/+/+/#"))
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Equal(t, []packet.Packet{&packet.Suback{PacketID: 1, Codes: []packet.ReasonCode{1, 0x8F, 0x8F}}}, b.sent())
}

// The caller may answer in any order. What it takes from the list meanwhile makes no
// room for more than the maximum.
func TestASubscribeThatIsCarriedOutKeepsItsPlaces(t *testing.T) {
	b := connected(t, session.Limits{MaxSubscriptions: 2}, packet.Properties{})
	require.Len(t, b.receive(subscribe(1, "a", "b")), 1)
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, nil)
	require.Len(t, b.receive(subscribe(2, "a", "b")), 1)
	require.Len(t, b.receive(&packet.Unsubscribe{PacketID: 3, Filters: []string{"a"}}), 1)
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 3, nil)
	require.True(t, b.s.Revoke("b"))
	require.Empty(t, b.subscriptions())
	require.Empty(t, b.receive(subscribe(4, "c")), "there is no room")
	b.s.Subscribed(b.now, mqtt.ControlStream, 2, []packet.ReasonCode{0, packet.NotAuthorized})
	require.Len(t, b.subscriptions(), 1)
	require.Len(t, b.receive(subscribe(5, "c")), 1, "the place of b is free")
	require.Equal(t, 2, b.s.Stats().Subscriptions)
}
