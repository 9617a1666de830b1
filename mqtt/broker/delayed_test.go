package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// delayed runs f in virtual time with a broker that delays what is published.
func delayed(t *testing.T, limit broker.Delayed, f func(t *testing.T, b *broker.Broker)) {
	t.Helper()
	limit.Enabled = true
	synctest.Test(t, func(t *testing.T) {
		f(t, newBroker(t, &broker.Config{Delayed: limit}))
	})
}

// puback publishes with QoS 1 and returns the reason code.
func (c *peer) puback(p *packet.Publish) packet.ReasonCode {
	c.t.Helper()
	p.QoS, p.PacketID = 1, 9
	c.send(p)
	return receive[*packet.Puback](c).Code
}

func TestADelayedMessageIsAcknowledgedNowAndPublishedThen(t *testing.T) {
	for qos := packet.AtMostOnce; qos <= packet.ExactlyOnce; qos++ {
		delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
			sub := connect(t, b, "sub")
			sub.subscribe(packet.Subscription{Filter: "#", QoS: 2}, packet.Subscription{Filter: "$delayed/#", QoS: 2})
			pub := connect(t, b, "pub")
			began := time.Now()
			pub.publish("$delayed/3600/a/b", "later", qos) // with its acknowledgements
			pub.ping()
			require.Less(t, time.Since(began), time.Second)
			s := b.Stats()
			require.Equal(t, 1, s.Delayed)
			require.Positive(t, s.DelayedBytes)
			sub.silent(time.Hour - time.Since(began) - time.Millisecond)
			p := sub.message("a/b", "later")
			require.Equal(t, qos, p.QoS)
			require.GreaterOrEqual(t, time.Since(began), time.Hour)
			require.Less(t, time.Since(began), time.Hour+100*time.Millisecond)
			s = b.Stats()
			require.Zero(t, s.Delayed)
			require.Zero(t, s.DelayedBytes)
		})
	}
}

func TestDelayedMessagesComeInTheOrderOfTheirTimes(t *testing.T) {
	delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#", QoS: 1})
		pub := connect(t, b, "pub")
		for i, seconds := range []int{30, 10, 20, 0, 10, 10} {
			pub.publish(fmt.Sprintf("$delayed/%d/x", seconds), fmt.Sprint(i), 0)
		}
		for _, payload := range []string{"3", "1", "4", "5", "2", "0"} {
			sub.message("x", payload)
		}
	})
}

func TestManyMessagesThatAreDueAtOnceWaitForTheirSubscriber(t *testing.T) {
	delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#", QoS: 1})
		pub := connect(t, b, "pub")
		const messages = 5000 // of 1 KB: more than the subscriber's queue holds
		payload := strings.Repeat("p", 1000)
		for i := range messages {
			pub.publish("$delayed/60/x", fmt.Sprint(i, payload), 0)
		}
		time.Sleep(time.Minute + 500*time.Millisecond) // the queue is full, and nobody is stalled
		for i := range messages {
			sub.message("x", fmt.Sprint(i, payload))
		}
		s := b.Stats()
		require.Positive(t, s.PushedBack)
		require.Zero(t, s.Dropped[broker.DropQueueFull])
	})
}

func TestADelayedMessageExpiresAndIsRetainedAsIfPublishedThen(t *testing.T) {
	delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
		pub := connect(t, b, "pub")
		pub.send(&packet.Publish{Topic: "$delayed/100/x", Payload: []byte("p"), Retain: true,
			Properties: &packet.Properties{MessageExpiry: packet.Some(uint32(10))}})
		pub.ping()
		require.Zero(t, b.Stats().Retained)
		time.Sleep(101 * time.Second)
		require.Equal(t, 1, b.Stats().Retained)
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"})
		require.InDelta(t, 9, sub.message("x", "p").Properties.MessageExpiry.Value, 1)
		time.Sleep(10 * time.Second)
		require.Zero(t, b.Stats().Retained)
	})
}

func TestADelayedWillIsPublishedLater(t *testing.T) {
	delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"})
		began := time.Now()
		connect(t, b, "gone", will("$delayed/30/x", "will", 0)).close()
		sub.message("x", "will")
		require.GreaterOrEqual(t, time.Since(began), 30*time.Second)
	})
}

func TestWhatCannotBeDelayedIsRefused(t *testing.T) {
	delayed(t, broker.Delayed{MaxMessages: 3, MaxBytes: 2000, MaxDelay: time.Hour}, func(t *testing.T, b *broker.Broker) {
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"}, packet.Subscription{Filter: "$delayed/#"})
		pub := connect(t, b, "pub")
		for _, topic := range []string{
			"$delayed/", "$delayed/5", "$delayed/5/", "$delayed//x", "$delayed/x/x", "$delayed/-5/x", "$delayed/5.0/x", "$delayed/5s/x",
			"$delayed/3601/x", "$delayed/99999999999999999999/x", "$delayed/4294967297/x",
			"$delayed/5/$delayed/5/x", "$delayed/5/" + strings.Repeat("/", 128),
		} {
			require.Equal(t, packet.TopicNameInvalid, pub.puback(&packet.Publish{Topic: topic}), topic)
		}
		large := &packet.Publish{Topic: "$delayed/5/x", Payload: make([]byte, 2000)}
		require.Equal(t, packet.QuotaExceeded, pub.puback(large))
		for range 3 {
			require.Equal(t, packet.Success, pub.puback(&packet.Publish{Topic: "$delayed/3600/x"}))
		}
		require.Equal(t, packet.QuotaExceeded, pub.puback(&packet.Publish{Topic: "$delayed/1/x"}))
		require.EqualValues(t, 14, b.Stats().Dropped[broker.DropDelayed])
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropLevels])
		for range 3 {
			sub.message("x", "")
		}
		require.Equal(t, packet.Success, pub.puback(&packet.Publish{Topic: "$delayed/1/x"}), "there is room again")
		require.Equal(t, packet.Success, pub.puback(&packet.Publish{Topic: "$delayed"}), "a topic as any other")
	})
}

func TestWithoutDelayedPublishingItsTopicsAreRefused(t *testing.T) {
	b := newBroker(t, nil)
	pub := connect(t, b, "pub")
	require.Equal(t, packet.TopicNameInvalid, pub.puback(&packet.Publish{Topic: "$delayed/5/x"}))
	old := connect(t, b, "old", v311)
	old.publish("$delayed/5/x", "", 1) // 3.1.1 can only be acknowledged
	require.EqualValues(t, 2, b.Stats().Dropped[broker.DropDelayed])
	require.Zero(t, b.Stats().Delayed)
}

func TestTheBrokerEndsWithMessagesThatAreNotDue(t *testing.T) {
	delayed(t, broker.Delayed{}, func(t *testing.T, b *broker.Broker) {
		pub := connect(t, b, "pub")
		for i := range 100 {
			pub.publish(fmt.Sprintf("$delayed/%d/x", i), "", 0)
		}
		pub.ping()
		time.Sleep(50 * time.Second)
		require.NoError(t, b.Close())
	})
}

func TestADelayThatIsTooLongForTheTimersIsRefused(t *testing.T) {
	for _, d := range []time.Duration{-1, 1<<63 - 1} {
		_, err := broker.New(&broker.Config{Delayed: broker.Delayed{MaxDelay: d}})
		require.ErrorContains(t, err, "Delayed.MaxDelay")
	}
}
