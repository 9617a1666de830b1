package broker_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// oneInFlight is for a subscriber whose queue fills as soon as it does not acknowledge.
func oneInFlight(p *packet.Connect) {
	p.Properties = &packet.Properties{ReceiveMaximum: packet.Some[uint16](1)}
}

func TestASlowSubscriberIsReportedOnceAndNotWhenItKeepsUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		b := newBroker(t, &broker.Config{
			Logger: log.logger(), Limits: session.Limits{QueueBytes: 8 << 10}, StallTimeout: 100 * time.Millisecond, HoldTimeout: time.Hour,
		})
		slow, pub := connect(t, b, "slow", oneInFlight), connect(t, b, "pub")
		slow.subscribe(packet.Subscription{Filter: "t", QoS: 1})
		lines := func() int { return strings.Count(log.String(), "mqtt: slow subscriber") }
		payload := make([]byte, 1<<10)
		message := func() *packet.Publish { return receive[*packet.Publish](slow) }
		go func() { // ends when the subscriber has taken them
			for i := range 20 {
				pub.send(&packet.Publish{Topic: "t", Payload: payload, QoS: 1, PacketID: uint16(i + 1)})
			}
		}()
		first := message()
		time.Sleep(500 * time.Millisecond)
		list, found := b.Clients(broker.ClientQuery{Slow: true})
		require.Equal(t, 1, found)
		require.Equal(t, "slow", list[0].ClientID)
		require.True(t, list[0].Connected)
		require.Greater(t, list[0].QueueBytes, 4<<10)
		require.EqualValues(t, 1, b.Stats().Slow)
		require.Zero(t, lines(), "a burst is not worth a line")

		// One acknowledgement after the other, each so late that it stays slow.
		ids := first.PacketID
		acknowledge := func() {
			slow.send(&packet.Puback{Ack: packet.Ack{PacketID: ids}})
			ids = message().PacketID
		}
		for range 5 {
			time.Sleep(time.Second)
			acknowledge()
		}
		require.Equal(t, 1, lines())
		require.Regexp(t, `slow subscriber" client=slow remote=pipe carrier=tcp for=\d\S+ stalled=\w+ queue_bytes=\d+ inflight=[01] dropped=0 rtt=0s others=0`, log.String())
		go func() { // whatever the publisher gets
			for {
				if _, err := pub.read(); err != nil {
					return
				}
			}
		}()
		for range 14 {
			acknowledge()
		}
		slow.ping()
		list, found = b.Clients(broker.ClientQuery{Slow: true})
		require.Zero(t, found, "%+v", list)
		require.Equal(t, 1, lines())
	})
}

func TestSlowSubscribersShareALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		b := newBroker(t, &broker.Config{
			Logger: log.logger(), Limits: session.Limits{QueueBytes: 4 << 10}, StallTimeout: 10 * time.Millisecond,
		})
		const n = 5
		for i := range n {
			c := connect(t, b, string(rune('a'+i)))
			c.subscribe(packet.Subscription{Filter: "t"}) // and reads nothing more
		}
		pub := connect(t, b, "pub")
		lines := func() int { return strings.Count(log.String(), "mqtt: slow subscriber") }
		flood := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				for range 10 {
					pub.send(&packet.Publish{Topic: "t", Payload: make([]byte, 8<<10)})
				}
				pub.ping()
			}
		}
		flood(5 * time.Second)
		require.Equal(t, n, b.Stats().SlowNow)
		require.Equal(t, 1, lines(), log.String())
		for _, c := range []string{"x", "y"} { // two more become slow
			connect(t, b, c).subscribe(packet.Subscription{Filter: "t"})
		}
		flood(11 * time.Second)
		require.Equal(t, 1, lines())
		connect(t, b, "z").subscribe(packet.Subscription{Filter: "t"})
		flood(3 * time.Second)
		require.Equal(t, 2, lines())
		require.Contains(t, log.String(), "others=6")

		list, found := b.Clients(broker.ClientQuery{Limit: 2})
		require.Equal(t, n+4, found)
		require.Len(t, list, 2)
		require.GreaterOrEqual(t, list[0].Slow, list[1].Slow)
		require.Positive(t, list[0].Dropped)
		var dropped uint64
		list, _ = b.Clients(broker.ClientQuery{})
		for _, c := range list {
			dropped += c.Dropped
		}
		require.Equal(t, b.Stats().Dropped[broker.DropQueueFull], dropped)
	})
}

func TestAClientThatIsKickedKeepsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c, old := connect(t, b, "new", keep(100)), connect(t, b, "old", v311, resume)
		require.True(t, b.Kick("new"))
		require.Equal(t, packet.AdministrativeAction, receive[*packet.Disconnect](c).Code)
		c.close()
		require.True(t, b.Kick("old"))
		old.closed()
		require.False(t, b.Kick("new"), "it is not connected")
		require.False(t, b.Kick("nobody"))
		require.EqualValues(t, 2, b.Stats().Disconnects[packet.AdministrativeAction])
		again := dial(t, b)
		require.True(t, again.connect("new", keep(100), resume).SessionPresent)
	})
}
