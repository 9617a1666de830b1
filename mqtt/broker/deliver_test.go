package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestMessagesArriveWithTheLowerQoS(t *testing.T) {
	b := newBroker(t, nil)
	for _, granted := range []packet.QoS{0, 1, 2} {
		sub := connect(t, b, "sub")
		require.Equal(t, []packet.ReasonCode{packet.ReasonCode(granted)},
			sub.subscribe(packet.Subscription{Filter: "t/+", QoS: granted}).Codes)
		for _, q := range []packet.QoS{0, 1, 2} {
			pub := connect(t, b, "pub")
			done := make(chan struct{})
			go func() {
				defer close(done)
				pub.publish("t/x", "hello", q)
			}()
			m := sub.message("t/x", "hello")
			require.Equal(t, min(q, granted), m.QoS)
			switch m.QoS {
			case 1:
				sub.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})
			case 2:
				sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: m.PacketID}})
				receive[*packet.Pubrel](sub)
				sub.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: m.PacketID}})
			}
			sub.ping()
			<-done
			pub.close()
		}
		sub.close()
	}
}

func TestAnUnsubscribedClientGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := connect(t, b, "a")
		c.subscribe(packet.Subscription{Filter: "t"}, packet.Subscription{Filter: "u"})
		c.send(&packet.Unsubscribe{PacketID: 2, Filters: []string{"t", "v"}})
		require.Equal(t, []packet.ReasonCode{packet.Success, packet.NoSubscriptionExisted}, receive[*packet.Unsuback](c).Codes)
		c.publish("t", "no", 0)
		c.publish("u", "yes", 0)
		c.message("u", "yes")
		require.Equal(t, 1, b.Stats().Subscriptions)
	})
}

func TestOverlappingSubscriptionsGetOneCopyWithEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := connect(t, b, "a")
		for i, f := range []packet.Subscription{
			{Filter: "t/#", QoS: 0}, {Filter: "t/+", QoS: 2, RetainAsPublished: true}, {Filter: "t/x", QoS: 1},
		} {
			c.send(&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{f},
				Properties: &packet.Properties{SubscriptionIDs: []uint32{uint32(i + 10)}}})
			receive[*packet.Suback](c)
		}
		for i := range 20 { // enough sessions for the index
			connect(t, b, fmt.Sprint("many", i)).subscribe(packet.Subscription{Filter: "t/#"}, packet.Subscription{Filter: "t/x"})
		}
		pub := connect(t, b, "pub")
		pub.send(&packet.Publish{Topic: "t/x", Payload: []byte("p"), QoS: 1, PacketID: 3, Retain: true})
		receive[*packet.Puback](pub)
		m := c.message("t/x", "p")
		require.Equal(t, packet.AtLeastOnce, m.QoS)
		require.True(t, m.Retain)
		require.ElementsMatch(t, []uint32{10, 11, 12}, m.Properties.SubscriptionIDs)
		c.silent(time.Second)
	})
}

func TestNoLocalKeepsAClientsOwnMessagesFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		c := connect(t, b, "a")
		c.subscribe(packet.Subscription{Filter: "t", NoLocal: true})
		c.publish("t", "mine", 0)
		connect(t, b, "b").publish("t", "theirs", 0)
		c.message("t", "theirs")
		c.silent(time.Second)
	})
}

func TestRetainedMessages(t *testing.T) {
	retain := func(c *peer, topic, payload string, change ...func(*packet.Publish)) {
		p := &packet.Publish{Topic: topic, Payload: []byte(payload), Retain: true}
		for _, f := range change {
			f(p)
		}
		c.send(p)
		c.ping()
	}
	test := func(name string, f func(t *testing.T, b *broker.Broker, pub, sub *peer)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, nil)
				f(t, b, connect(t, b, "pub"), connect(t, b, "sub"))
			})
		})
	}
	test("go to new subscriptions with RETAIN", func(t *testing.T, b *broker.Broker, pub, sub *peer) {
		retain(pub, "t/1", "old")
		retain(pub, "t/1", "new")
		retain(pub, "t/2", "other")
		retain(pub, "t/2", "") // deleted
		sub.subscribe(packet.Subscription{Filter: "t/#"})
		require.True(t, sub.message("t/1", "new").Retain)
		retain(pub, "t/1", "live")
		require.False(t, sub.message("t/1", "live").Retain)
		sub.silent(time.Second)
		require.Equal(t, 1, b.Stats().Retained)
	})
	test("follow Retain Handling", func(t *testing.T, b *broker.Broker, pub, sub *peer) {
		retain(pub, "t", "x")
		sub.subscribe(packet.Subscription{Filter: "t", RetainHandling: 2})
		sub.silent(time.Second)
		sub.subscribe(packet.Subscription{Filter: "t", RetainHandling: 1})
		sub.silent(time.Second) // not new
		sub.subscribe(packet.Subscription{Filter: "t", RetainHandling: 0})
		sub.message("t", "x")
		sub.send(&packet.Unsubscribe{PacketID: 2, Filters: []string{"t"}})
		receive[*packet.Unsuback](sub)
		sub.subscribe(packet.Subscription{Filter: "t", RetainHandling: 1})
		sub.message("t", "x")
	})
	test("are not for shared subscriptions", func(t *testing.T, b *broker.Broker, pub, sub *peer) {
		retain(pub, "t", "x")
		sub.subscribe(packet.Subscription{Filter: "$share/g/t"})
		sub.silent(time.Second)
	})
	test("expire", func(t *testing.T, b *broker.Broker, pub, sub *peer) {
		retain(pub, "t", "x", func(p *packet.Publish) {
			p.Properties = &packet.Properties{MessageExpiry: packet.Some[uint32](10)}
		})
		require.Equal(t, 1, b.Stats().Retained)
		time.Sleep(4 * time.Second)
		sub.subscribe(packet.Subscription{Filter: "t"})
		require.Equal(t, packet.Some[uint32](6), sub.message("t", "x").Properties.MessageExpiry)
		time.Sleep(7 * time.Second)
		require.Zero(t, b.Stats().Retained)
		require.Zero(t, b.Stats().RetainedBytes)
		sub.subscribe(packet.Subscription{Filter: "t"})
		sub.silent(time.Second)
	})
	t.Run("above the limit are refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log logged
			b := newBroker(t, &broker.Config{MaxRetained: 2, MaxRetainedBytes: 2048, Logger: log.logger()})
			c := connect(t, b, "a")
			c.subscribe(packet.Subscription{Filter: "#"})
			for i, size := range []int{10, 10, 10} {
				synctest.Wait() // with nothing to write the broker sends PUBACK first
				c.send(&packet.Publish{Topic: fmt.Sprint(i), Payload: make([]byte, size), Retain: true, QoS: 1, PacketID: 1})
				if i < 2 {
					require.Equal(t, fmt.Sprint(i), receiveMessage(c).Topic)
					continue
				}
				require.Equal(t, packet.QuotaExceeded, receive[*packet.Puback](c).Code)
			}
			c.send(&packet.Publish{Topic: "1", Payload: make([]byte, 2000), Retain: true, QoS: 1, PacketID: 1})
			require.Equal(t, packet.QuotaExceeded, receive[*packet.Puback](c).Code)
			require.EqualValues(t, 2, b.Stats().Dropped[broker.DropRetained])
			require.Equal(t, 2, b.Stats().Retained)
			require.Contains(t, log.String(), "retained store is full")
			c.silent(time.Second)
		})
	})
	t.Run("that do not fit the queue wait without anyone waiting for them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, &broker.Config{Limits: session.Limits{QueueBytes: 8 << 10}})
			pub := connect(t, b, "pub")
			for i := range 100 {
				retain(pub, fmt.Sprintf("t/%d", i), string(make([]byte, 1000)))
			}
			for _, q := range []packet.QoS{0, 1} {
				sub := connect(t, b, "sub")
				sub.subscribe(packet.Subscription{Filter: "t/+", QoS: q})
				pub.ping()
				retain(pub, "t/50", "newer")
				seen := map[string]int{}
				var last string // of t/50, which may have been on its way already
				for len(seen) < 100 || last != "newer" {
					m := receiveMessage(sub)
					seen[m.Topic]++
					if m.Topic == "t/50" {
						last = string(m.Payload)
					} else {
						require.Equal(t, 1, seen[m.Topic])
					}
				}
				sub.silent(time.Second)
				sub.send(&packet.Disconnect{})
				sub.close()
				retain(pub, "t/50", string(make([]byte, 1000)))
			}
		})
	})
}

// receiveMessage returns the next PUBLISH and acknowledges it; PUBACKs for
// what the peer published itself are passed over.
func receiveMessage(c *peer) *packet.Publish {
	c.t.Helper()
	for {
		p, err := c.read()
		require.NoError(c.t, err)
		switch p := p.(type) {
		case *packet.Publish:
			if p.QoS == 1 {
				c.send(&packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}})
			}
			return p
		case *packet.Puback:
			require.False(c.t, p.Code.Failed())
		default:
			require.Fail(c.t, "unexpected packet", "%#v", p)
		}
	}
}

func TestSharedSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		pub := connect(t, b, "pub")
		members := []*peer{connect(t, b, "m0", keep(60)), connect(t, b, "m1", keep(60))}
		for _, m := range members {
			m.subscribe(packet.Subscription{Filter: "$share/g/t/+", QoS: 1})
		}
		for i := range 10 {
			pub.publish("t/x", fmt.Sprint(i), 0)
		}
		pub.ping()
		for i := range 5 { // in rotation
			a, b := receiveMessage(members[0]), receiveMessage(members[1])
			require.ElementsMatch(t, []string{fmt.Sprint(2 * i), fmt.Sprint(2*i + 1)}, []string{string(a.Payload), string(b.Payload)})
		}

		members[0].close()
		for i := range 4 { // the live one gets all
			pub.publish("t/x", fmt.Sprint(i), 1)
			require.Equal(t, fmt.Sprint(i), string(receiveMessage(members[1]).Payload))
		}
		members[1].close()
		pub.publish("t/x", "lost", 0)
		pub.ping()
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropNoMember])
		pub.publish("t/x", "kept", 1)
		got := 0
		for i := range members {
			c := dial(t, b)
			require.True(t, c.connect(fmt.Sprint("m", i), resume, keep(60)).SessionPresent)
			c.conn.SetReadDeadline(time.Now().Add(time.Second))
			if p, err := c.read(); err == nil {
				require.Equal(t, "kept", string(p.(*packet.Publish).Payload))
				got++
			}
		}
		require.Equal(t, 1, got)
	})
}
