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

// [MQTT-3.1.2-22]
func TestASilentClientIsDisconnectedAfterOneAndAHalfKeepAlives(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V5, KeepAlive: 10}, session.Attach{})
	require.Equal(t, b.now.Add(15*time.Second), b.s.Deadline())
	b.pass(14 * time.Second)
	require.Empty(t, b.s.Tick(nil, b.now))
	b.receiveOn(4, publish(0, 0)) // packets of every stream count
	require.Equal(t, b.now.Add(15*time.Second), b.s.Deadline())
	b.pass(15*time.Second - 1)
	require.Empty(t, b.s.Tick(nil, b.now))
	b.pass(1)
	fx := b.s.Tick(nil, b.now)
	require.Equal(t, mqtt.LinkControlDown, fx[0].Link)
	b.closed(fx, packet.KeepAliveTimeout)
	require.Zero(t, b.s.Deadline())
}

func TestKeepAliveZeroIsOff(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	require.Zero(t, b.s.Deadline())
	b.pass(1000 * time.Hour)
	require.Empty(t, b.s.Tick(nil, b.now))
}

func TestTheServerKeepAliveIsHeldAgainstTheClient(t *testing.T) {
	b := newBench(t, session.Limits{KeepAliveMax: 20})
	ack := b.attach(&packet.Connect{Version: packet.V5}, session.Attach{})
	require.Equal(t, packet.Some[uint16](20), ack.Properties.ServerKeepAlive)
	require.Equal(t, b.now.Add(30*time.Second), b.s.Deadline())
}

func willOf(delay uint32) *packet.Will {
	return &packet.Will{
		Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: true,
		Properties: &packet.Properties{WillDelay: packet.Some(delay), MessageExpiry: packet.Some[uint32](5)},
	}
}

func (b *bench) connectWithWill(delay, expiry uint32) {
	b.t.Helper()
	b.attach(&packet.Connect{
		Version: packet.V5, Will: willOf(delay), Properties: &packet.Properties{SessionExpiry: packet.Some(expiry)},
	}, session.Attach{})
}

// [MQTT-3.1.2-8]
func TestTheWillIsPublishedAfterItsDelay(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.connectWithWill(10, 100)
	require.Empty(t, b.s.Detach(nil, b.now))
	require.Equal(t, b.now.Add(10*time.Second), b.s.Deadline())
	b.pass(10 * time.Second)
	require.Equal(t, []session.Effect{{Kind: session.EffectWill, Message: &session.Message{
		From: "client", Expires: b.now.Add(5 * time.Second),
		Publish: packet.Publish{
			Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: true,
			Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](5)},
		},
	}}}, b.s.Tick(nil, b.now))
	require.Empty(t, b.s.Tick(nil, b.now), "once") // [MQTT-3.1.2-10]
	require.Equal(t, b.now.Add(90*time.Second), b.s.Deadline())
	b.pass(90 * time.Second)
	require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(b.s.Tick(nil, b.now)))
	require.True(t, b.s.Ended())
	require.Zero(t, b.s.Deadline())
}

// [MQTT-3.1.3-9]
func TestANewConnectionCancelsADelayedWill(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.3-9")
	b := newBench(t, session.Limits{})
	b.connectWithWill(10, 100)
	b.s.Detach(nil, b.now)
	b.pass(9 * time.Second)
	b.connect(&packet.Properties{SessionExpiry: packet.Some[uint32](100)})
	b.pass(time.Hour)
	require.Empty(t, b.s.Tick(nil, b.now))
	require.Empty(t, b.s.Detach(nil, b.now), "nor is it sent later")
}

func TestTheWillIsPublishedAtTheEndOfTheSessionIfThatIsEarlier(t *testing.T) {
	both := []session.EffectKind{session.EffectWill, session.EffectEnd}
	b := newBench(t, session.Limits{})
	b.connectWithWill(100, 10)
	b.s.Detach(nil, b.now)
	require.Equal(t, b.now.Add(10*time.Second), b.s.Deadline())
	b.pass(10 * time.Second)
	require.Equal(t, both, kinds(b.s.Tick(nil, b.now)))

	b = newBench(t, session.Limits{})
	b.connectWithWill(100, 0)
	require.Equal(t, both, kinds(b.s.Detach(nil, b.now)))

	b = newBench(t, session.Limits{})
	b.connectWithWill(100, 1000)
	b.s.Detach(nil, b.now)
	require.Equal(t, both, kinds(b.s.End(nil, b.now)), "another client begins with a clean start")
	require.Empty(t, b.s.End(nil, b.now))
}

// [MQTT-3.14.4-3]
func TestOnlyANormalDisconnectRemovesTheWill(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.14.4-3")
	for code, want := range map[packet.ReasonCode][]session.EffectKind{
		packet.NormalDisconnection: nil,
		packet.DisconnectWithWill:  {session.EffectWill},
		packet.UnspecifiedError:    {session.EffectWill},
	} {
		b := newBench(t, session.Limits{})
		b.connectWithWill(0, 100)
		b.deliver("a", "not sent to a client that left", 1)
		fx := b.receive(&packet.Disconnect{Code: code})
		require.Equal(t, []session.EffectKind{session.EffectClose}, kinds(fx))
		require.Equal(t, mqtt.LinkNormal, fx[0].Link)
		require.Empty(t, b.sent())
		require.Equal(t, want, kinds(b.s.Detach(nil, b.now)), "code %v", code)
	}
}

func TestTheWillIsPublishedWhenTheServerDisconnects(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.connectWithWill(0, 100)
	b.closed(b.s.Disconnect(nil, b.now, packet.SessionTakenOver, ""), packet.SessionTakenOver)
	require.Equal(t, []session.EffectKind{session.EffectWill}, kinds(b.s.Detach(nil, b.now)))
}

func TestAWillWaitsForTheTickOfWhoLeaves(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.connectWithWill(0, 100)
	will := b.s.Will()
	require.NotNil(t, will)
	b.s.Leave(b.now)
	b.s.Leave(b.now.Add(time.Hour)) // is nothing new
	require.Same(t, will, b.s.Will())
	require.Equal(t, b.now, b.s.Deadline())
	// Who ticks may have looked at the clock before.
	require.Equal(t, []session.EffectKind{session.EffectWill}, kinds(b.s.Tick(nil, b.now.Add(-time.Second))))
	require.Nil(t, b.s.Will())
	require.Empty(t, b.s.Tick(nil, b.now))
}

func TestSessionExpiry(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.1.0-2")
	const forever = 0xFFFFFFFF
	opt := packet.Some[uint32]
	for _, c := range []struct {
		max     time.Duration
		connect packet.Opt[uint32]
		bye     packet.Opt[uint32]
		want    time.Duration // -1: never
	}{
		{0, packet.Opt[uint32]{}, packet.Opt[uint32]{}, 0},
		{0, opt(30), packet.Opt[uint32]{}, 30 * time.Second},
		{0, opt(forever), packet.Opt[uint32]{}, 24 * time.Hour},
		{-1, opt(forever), packet.Opt[uint32]{}, -1},
		{-1, opt(forever - 1), packet.Opt[uint32]{}, (forever - 1) * time.Second},
		{time.Minute, opt(3600), packet.Opt[uint32]{}, time.Minute},
		{time.Minute, opt(30), opt(0), 0},
		{time.Minute, opt(30), opt(3600), time.Minute},
		{0, opt(30), opt(40), 40 * time.Second},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			b := newBench(t, session.Limits{SessionExpiryMax: c.max})
			b.connect(&packet.Properties{SessionExpiry: c.connect})
			b.receive(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: c.bye}})
			fx := b.s.Detach(nil, b.now)
			switch c.want {
			case 0:
				require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(fx))
				return
			case -1:
				require.Zero(t, b.s.Deadline())
				return
			}
			require.Empty(t, fx)
			require.Equal(t, b.now.Add(c.want), b.s.Deadline())
			b.pass(c.want - 1)
			require.Empty(t, b.s.Tick(nil, b.now))
			b.pass(1)
			require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(b.s.Tick(nil, b.now)))
			require.Equal(t, session.Ignored, b.deliver("a", "x", 1))
		})
	}
}

func TestDisconnectMayNotGiveAnExpiryToASessionWithoutOne(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V5, Will: willOf(0)}, session.Attach{})
	b.closed(b.receive(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](1)}}), packet.ProtocolError)
	require.Equal(t, []session.EffectKind{session.EffectWill, session.EffectEnd}, kinds(b.s.Detach(nil, b.now)))

	b = newBench(t, session.Limits{})
	b.connect(nil)
	fx := b.receive(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](0)}})
	require.Equal(t, packet.NormalDisconnection, fx[0].Code)
}

func TestACleanSessionOf3xEndsWithItsConnection(t *testing.T) {
	b := newBench(t, session.Limits{})
	b.attach(&packet.Connect{Version: packet.V311, CleanStart: true}, session.Attach{})
	b.receive(&packet.Disconnect{})
	require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(b.s.Detach(nil, b.now)))

	b = newBench(t, session.Limits{SessionExpiryMax: time.Hour})
	b.attach(&packet.Connect{Version: packet.V311}, session.Attach{})
	require.Empty(t, b.s.Detach(nil, b.now))
	require.Equal(t, b.now.Add(time.Hour), b.s.Deadline())
}

func TestDisconnectFlushesAnswersFirst(t *testing.T) {
	b := connected(t, session.Limits{}, packet.Properties{})
	b.receive(publish(1, 1))
	b.s.Routed(b.now, mqtt.ControlStream, 1, 0)
	b.deliver("a", "stays queued", 1)
	fx := b.s.Disconnect(nil, b.now, packet.ServerShuttingDown, "bye")
	require.Equal(t, []session.Effect{{
		Kind: session.EffectClose, Code: packet.ServerShuttingDown, Reason: "bye", Link: mqtt.LinkNormal,
	}}, fx)
	all := b.sent()
	require.Len(t, all, 2)
	require.Equal(t, puback(1, 0), all[0])
	require.Equal(t, "bye", all[1].(*packet.Disconnect).Properties.ReasonString)
	require.Empty(t, b.s.Disconnect(nil, b.now, packet.ServerShuttingDown, "again"))
	b.reconnect(packet.Properties{})
	require.Equal(t, "stays queued", string(b.publishes()[0].Payload))
}
