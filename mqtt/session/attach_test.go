package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestConnackAnnouncesTheLimitsAndWhatDiffersFromConnect(t *testing.T) {
	limits := session.Limits{
		ReceiveMaximum: 7, MaximumPacketSize: 900, TopicAliasMaximum: 3,
		SessionExpiryMax: time.Minute, KeepAliveMax: 30,
	}
	b := newBench(t, limits)
	ack := b.attach(&packet.Connect{
		Version: packet.V5, KeepAlive: 60,
		Properties: &packet.Properties{
			SessionExpiry:       packet.Some[uint32](0xFFFFFFFF),
			RequestResponseInfo: packet.Some[byte](1),
		},
	}, session.Attach{SessionPresent: true, AssignedClientID: true, ResponseInfo: "answers/"})

	require.Equal(t, &packet.Connack{
		SessionPresent: true, // [MQTT-3.2.2-3]
		Properties: &packet.Properties{
			SessionExpiry:     packet.Some[uint32](60),
			ReceiveMaximum:    packet.Some[uint16](7),
			MaximumPacketSize: packet.Some[uint32](900),
			AssignedClientID:  "client", // [MQTT-3.2.2-16]
			TopicAliasMaximum: packet.Some[uint16](3),
			ServerKeepAlive:   packet.Some[uint16](30), // [MQTT-3.2.2-21]
			ResponseInfo:      "answers/",
		},
	}, ack)
}

func TestConnackOmitsWhatIsAsTheClientAskedOrAsTheDefault(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-22")
	b := newBench(t, session.Limits{ReceiveMaximum: 65535, MaximumPacketSize: 1 << 31, KeepAliveMax: 60})
	ack := b.attach(&packet.Connect{
		Version: packet.V5, KeepAlive: 60,
		Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](3600)},
	}, session.Attach{ResponseInfo: "not asked for"}) // [MQTT-3.1.2-28]
	require.Equal(t, &packet.Connack{
		Properties: &packet.Properties{TopicAliasMaximum: packet.Some[uint16](64)},
	}, ack)
}

func TestConnackOf3xHasNoProperties(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		b := newBench(t, session.Limits{KeepAliveMax: 1})
		ack := b.attach(&packet.Connect{Version: v, KeepAlive: 60}, session.Attach{SessionPresent: true})
		require.Nil(t, ack.Properties)
		require.Equal(t, v == packet.V311, ack.SessionPresent)
	}
}

func TestNothingIsSentBeforeConnack(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.0-1")
	b := newBench(t, session.Limits{})
	b.s.Attach(b.now, &packet.Connect{Version: packet.V5}, session.Attach{})
	require.Empty(t, b.s.Receive(nil, b.now, mqtt.ControlStream, &packet.Pingreq{}))
	b.s.Receive(nil, b.now, 4, &packet.Pubrel{Ack: packet.Ack{PacketID: 1}})
	require.False(t, b.s.HasOutput(4))
	require.Nil(t, b.next(4))
	require.Equal(t, session.Queued, b.deliver("a", "1", 0))
	all := b.sent()
	require.IsType(t, (*packet.Connack)(nil), all[0])
	require.IsType(t, (*packet.Pingresp)(nil), all[1])
	require.IsType(t, (*packet.Publish)(nil), all[2])
	require.IsType(t, (*packet.Pubcomp)(nil), b.next(4))
}

// [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4], [MQTT-3.3.1-1]
func TestResumptionSendsAgainInTheOriginalOrderWithDup(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for i, qos := range []packet.QoS{1, 2, 1, 2, 2} {
		require.Equal(t, session.Queued, b.deliver("a", string('a'+rune(i)), qos))
	}
	require.Len(t, b.publishes(), 5)
	// The PUBRECs come in another order than the PUBLISH packets.
	b.receive(pubrec(5, 0))
	b.receive(pubrec(2, 0))
	require.Len(t, b.sent(), 2)
	b.deliver("a", "waits", 1)

	b.reconnect(packet.Properties{})
	all := b.sent()
	require.Len(t, all, 6)
	require.Equal(t, pubrel(5, 0), all[0])
	require.Equal(t, pubrel(2, 0), all[1])
	for i, want := range []struct {
		id      uint16
		payload string
	}{{1, "a"}, {3, "c"}, {4, "d"}} {
		p := all[2+i].(*packet.Publish)
		require.Equal(t, want.id, p.PacketID)
		require.Equal(t, want.payload, string(p.Payload))
		require.True(t, p.Dup)
	}
	p := all[5].(*packet.Publish)
	require.Equal(t, "waits", string(p.Payload))
	require.False(t, p.Dup)
	require.Equal(t, uint16(6), p.PacketID)
}

// [MQTT-4.9.0-1]: what is sent again counts, too.
func TestResumptionKeepsToASmallerReceiveMaximum(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	for range 5 {
		b.deliver("a", "x", 1)
	}
	require.Len(t, b.publishes(), 5)
	b.deliver("a", "new", 1)

	b.reconnect(packet.Properties{ReceiveMaximum: packet.Some[uint16](2)})
	b.deliver("a", "zero", 0)
	first := b.publishes()
	require.Len(t, first, 3)
	require.Equal(t, []uint16{1, 2, 0}, []uint16{first[0].PacketID, first[1].PacketID, first[2].PacketID}, "QoS 0 does not wait")
	for id := uint16(1); id <= 4; id++ {
		b.receive(puback(id, 0))
		next := b.publishes()
		require.Len(t, next, 1)
		require.Equal(t, id+2, next[0].PacketID)
		require.Equal(t, id+2 <= 5, next[0].Dup)
	}
}

func TestASessionMayResumeWithAnotherVersion(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	m := session.NewMessage(b.now, &packet.Publish{Topic: "a", Payload: []byte("x"), Properties: &packet.Properties{ContentType: "text"}}, "other")
	b.s.Deliver(b.now, m, session.Delivery{QoS: 1})
	require.Equal(t, "text", b.publishes()[0].Properties.ContentType)
	b.s.Detach(nil, b.now)
	b.attach(&packet.Connect{Version: packet.V311}, session.Attach{SessionPresent: true})
	p := b.publishes()[0]
	require.Nil(t, p.Properties)
	require.True(t, p.Dup)
	b.s.Detach(nil, b.now)
	b.connect(nil)
	require.Equal(t, "text", b.publishes()[0].Properties.ContentType)
}

func TestOfflineQueuesQoS1And2AndIgnoresQoS0(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.deliver("a", "lost with the connection", 0)
	b.s.Detach(nil, b.now)
	require.Zero(t, b.s.QueueBytes())
	require.Equal(t, session.Ignored, b.deliver("a", "0", 0))
	require.Equal(t, session.Queued, b.deliver("a", "1", 1))
	require.Equal(t, session.Queued, b.deliver("a", "2", 2))
	require.Nil(t, b.next(mqtt.ControlStream))
	b.connect(nil)
	all := b.publishes()
	require.Len(t, all, 2)
	require.Equal(t, "1", string(all[0].Payload))
	require.Equal(t, "2", string(all[1].Payload))
}

// [MQTT-3.1.2-24], [MQTT-3.2.0-1]: a server that may not send CONNACK may send
// nothing else either.
func TestAClientThatTakesNoConnackIsDisconnected(t *testing.T) {
	connect := &packet.Connect{
		Version: packet.V5, ClientID: "client", KeepAlive: 60,
		Properties: &packet.Properties{MaximumPacketSize: packet.Some[uint32](10), SessionExpiry: packet.Some[uint32](60)},
	}
	begin := func() *bench {
		b := newBench(t, session.Limits{})
		require.Equal(t, session.Queued, b.deliver("a", "x", 1))
		b.s.Attach(b.now, connect, session.Attach{})
		require.False(t, b.s.HasOutput(mqtt.ControlStream))
		require.Nil(t, b.next(mqtt.ControlStream))
		require.Equal(t, b.now, b.s.Deadline())
		return b
	}
	closes := func(b *bench, fx []session.Effect) {
		require.Equal(t, []session.EffectKind{session.EffectClose}, kinds(fx))
		require.Equal(t, packet.PacketTooLarge, fx[0].Code)
		require.Empty(t, b.sent())
		require.Empty(t, b.s.Detach(nil, b.now))
	}
	b := begin()
	closes(b, b.s.Tick(nil, b.now))
	b = begin()
	closes(b, b.receive(publish(1, 1)))

	// The session lives on, for a connection that takes more.
	b.connect(nil)
	require.Len(t, b.publishes(), 1)

	// What the client can do without is left out.
	b = newBench(t, session.Limits{})
	ack := b.attach(&packet.Connect{Version: packet.V5, Properties: &packet.Properties{
		MaximumPacketSize: packet.Some[uint32](40), RequestResponseInfo: packet.Some[byte](1),
	}}, session.Attach{ResponseInfo: "response/topics/of/a/length/that/is/not/small"})
	require.Empty(t, ack.Properties.ResponseInfo)
}

func TestAConnectLessensASessionByItsWillAndItsLife(t *testing.T) {
	hour := &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}
	s := session.New("c", session.Limits{})
	s.Attach(start, &packet.Connect{Version: packet.V5, Properties: hour}, session.Attach{})
	s.Detach(nil, start)
	require.False(t, s.Lessens(&packet.Connect{Version: packet.V5, Properties: hour}))
	require.False(t, s.Lessens(&packet.Connect{Version: packet.V311}), "which lives for ever")
	require.True(t, s.Lessens(&packet.Connect{Version: packet.V5}))
	require.True(t, s.Lessens(&packet.Connect{Version: packet.V311, CleanStart: true}))
	require.True(t, s.Lessens(&packet.Connect{Version: packet.V5, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](3599)}}))

	will := &packet.Will{Topic: "t", Properties: &packet.Properties{WillDelay: packet.Some[uint32](60)}}
	s.Attach(start, &packet.Connect{Version: packet.V5, Properties: hour, Will: will}, session.Attach{SessionPresent: true})
	s.Detach(nil, start)
	require.True(t, s.Lessens(&packet.Connect{Version: packet.V5, Properties: hour}), "the will is pending")
}
