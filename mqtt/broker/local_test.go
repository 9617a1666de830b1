package broker_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func newLocal(t testing.TB, b *broker.Broker, cfg *broker.LocalConfig, filters ...string) *broker.Local {
	t.Helper()
	l, err := b.NewLocal(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	for i, f := range filters {
		require.NoError(t, l.Subscribe(uint32(i+1), packet.Subscription{Filter: f, QoS: 2}))
	}
	return l
}

// next returns the next message, which must be payload.
func next(t testing.TB, l *broker.Local, payload string) *broker.LocalMessage {
	t.Helper()
	m, err := l.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, payload, string(m.Publish().Payload))
	return m
}

// nothing requires that l has no message now. It is for a synctest bubble.
func nothing(t testing.TB, l *broker.Local) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	m, err := l.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "got %v", m)
}

func TestALocalGetsMessagesWithTheirPublishersIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "t")
		pub := connect(t, b, "pub", func(p *packet.Connect) { p.Username = packet.Some("ann") })
		pub.send(&packet.Publish{Topic: "t", Payload: []byte("one"), Properties: &packet.Properties{ContentType: "text/plain"}})
		m := next(t, l, "one")
		c := m.Client()
		require.Equal(t, "pub", c.ClientID)
		require.Equal(t, "ann", c.Username)
		require.Equal(t, packet.V5, c.Version)
		require.Equal(t, mqtt.TCP, c.Carrier)
		require.False(t, c.Local)
		require.Equal(t, "text/plain", m.Publish().Properties.ContentType)
		require.Equal(t, []uint32{1}, m.SubscriptionIDs)
		m.Done(packet.Success)
		require.Zero(t, b.Stats().QueuedBytes)

		// What does not come from a connection has a name only.
		_, err := b.Publish(t.Context(), &packet.Publish{Topic: "t", Payload: []byte("two")})
		require.NoError(t, err)
		require.Equal(t, broker.ClientInfo{Local: true}, next(t, l, "two").Client())
		dies := connect(t, b, "dies", will("t", "three", 0))
		dies.close()
		require.Equal(t, broker.ClientInfo{ClientID: "dies"}, next(t, l, "three").Client())
	})
}

func TestALocalsDoneIsTheAcknowledgement(t *testing.T) {
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused := packet.NotAuthorized
				if version < packet.V5 {
					refused = packet.Success // has no words for it
				}
				b := newBroker(t, nil)
				one, two := newLocal(t, b, nil, "t"), newLocal(t, b, nil, "#")
				sub, pub := connect(t, b, "sub"), connect(t, b, "pub", func(p *packet.Connect) { p.Version = version })
				sub.subscribe(packet.Subscription{Filter: "t", QoS: 0})

				pub.send(&packet.Publish{Topic: "t", Payload: []byte("a"), QoS: 1, PacketID: 1})
				sub.message("t", "a")
				a1, a2 := next(t, one, "a"), next(t, two, "a")
				pub.send(&packet.Publish{Topic: "u", Payload: []byte("b"), QoS: 1, PacketID: 2})
				b2 := next(t, two, "b")
				b2.Done(packet.NotAuthorized)
				a1.Done(packet.Success)
				pub.ping() // neither is acknowledged: b waits for a, and a for the second Local [MQTT-4.6.0-2]
				a2.Done(packet.Success)
				a2.Done(packet.NotAuthorized) // too late
				require.Equal(t, packet.Ack{PacketID: 1, Code: packet.Success}, receive[*packet.Puback](pub).Ack)
				require.Equal(t, packet.Ack{PacketID: 2, Code: refused}, receive[*packet.Puback](pub).Ack)

				pub.send(&packet.Publish{Topic: "u", Payload: []byte("c"), QoS: 2, PacketID: 3})
				next(t, two, "c").Done(packet.NotAuthorized)
				require.Equal(t, packet.Ack{PacketID: 3, Code: refused}, receive[*packet.Pubrec](pub).Ack)
				if version >= packet.V5 { // the identifier is free again [MQTT-4.3.3-9]
					pub.send(&packet.Publish{Topic: "u", Payload: []byte("d"), QoS: 2, PacketID: 3})
					next(t, two, "d").Done(packet.Success)
					receive[*packet.Pubrec](pub)
				}
			})
		})
	}
}

func TestAnAcknowledgementSurvivesItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "t")
		pub := connect(t, b, "pub", keep(60))
		pub.send(&packet.Publish{Topic: "t", Payload: []byte("a"), QoS: 2, PacketID: 1})
		m := next(t, l, "a")
		pub.close()
		m.Done(packet.Success)
		pub = connect(t, b, "pub", keep(60), resume)
		pub.send(&packet.Publish{Topic: "t", Payload: []byte("a"), QoS: 2, PacketID: 1, Dup: true})
		receive[*packet.Pubrec](pub)
		nothing(t, l) // once
	})
}

func TestALocalGetsOneCopyForOverlappingSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "a/+", "a/#", "a/b")
		pub := connect(t, b, "pub")
		pub.send(&packet.Publish{Topic: "a/b", Payload: []byte("x")})
		m := next(t, l, "x")
		require.ElementsMatch(t, []uint32{1, 2, 3}, m.SubscriptionIDs)
		m.Done(0)
		l.Unsubscribe("a/+", "a/b")
		pub.send(&packet.Publish{Topic: "a/b", Payload: []byte("y")})
		require.Equal(t, []uint32{2}, next(t, l, "y").SubscriptionIDs)
		nothing(t, l)
	})
}

func TestALocalSharesASubscriptionWithClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "$share/g/t")
		sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
		sub.subscribe(packet.Subscription{Filter: "$share/g/t"})
		const n = 10
		go func() {
			for range n {
				pub.send(&packet.Publish{Topic: "t", Payload: []byte("x")})
			}
		}()
		for range n / 2 {
			next(t, l, "x").Done(0)
			sub.message("t", "x")
		}
		nothing(t, l)
	})
}

func TestALocalGetsRetainedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		pub := connect(t, b, "pub")
		// Many times what its queue holds.
		const n, size = 100, 2000
		for i := range n {
			pub.send(&packet.Publish{Topic: fmt.Sprint("t/", i), Payload: make([]byte, size), Retain: true})
		}
		pub.ping()
		l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 10 * size}, "t/#")
		require.LessOrEqual(t, b.Stats().QueuedBytes, int64(10*size))
		seen := make(map[string]bool)
		for range n {
			m, err := l.Next(t.Context())
			require.NoError(t, err)
			require.True(t, m.Retain)
			require.Equal(t, "pub", m.Client().ClientID)
			seen[m.Publish().Topic] = true
			m.Done(0)
		}
		require.Len(t, seen, n)
		nothing(t, l)
		require.NoError(t, l.Subscribe(1, packet.Subscription{Filter: "t/#", RetainHandling: 1}))
		nothing(t, l)
	})
}

func TestASlowLocalPushesPublishersBackAndLosesNothing(t *testing.T) {
	for qos := range packet.ExactlyOnce {
		t.Run(fmt.Sprint("qos", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, nil)
				l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 64 << 10}, "t")
				pub := connect(t, b, "pub", v311)
				const n = 500
				go io.Copy(io.Discard, pub.conn)
				go flood(pub, "t", qos, n, 1000)
				for i := range n {
					m, err := l.Next(t.Context())
					require.NoError(t, err)
					require.Equal(t, i, number(m.Publish()))
					require.LessOrEqual(t, b.Stats().QueuedBytes, int64(64<<10))
					time.Sleep(10 * time.Millisecond)
					m.Done(0)
				}
				s := b.Stats()
				require.Zero(t, s.Dropped[broker.DropQueueFull])
				require.NotZero(t, s.PushedBack)
				require.Zero(t, s.QueuedBytes)
			})
		})
	}
}

func TestAStalledLocalLosesQoS0AndRefusesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		newLocal(t, b, &broker.LocalConfig{QueueBytes: 64 << 10}, "t")
		live, pub := connect(t, b, "live"), connect(t, b, "pub")
		live.subscribe(packet.Subscription{Filter: "t"})
		const n = 200
		began := time.Now()
		go flood(pub, "t", 0, n, 1000)
		for i := range n {
			require.Equal(t, i, number(receiveMessage(live)))
		}
		require.InDelta(t, time.Second, time.Since(began), float64(50*time.Millisecond), "waited for once")
		s := b.Stats()
		require.EqualValues(t, 1, s.Stalled)
		require.NotZero(t, s.Dropped[broker.DropQueueFull])
		require.LessOrEqual(t, s.QueuedBytes, int64(64<<10))

		// QoS 1 takes the place of what is left of QoS 0, without waiting.
		began = time.Now()
		for i := range uint16(10) {
			pub.send(&packet.Publish{Topic: "t", Payload: make([]byte, 1000), QoS: 1, PacketID: i + 1})
			receiveMessage(live)
		}
		require.Zero(t, time.Since(began))
	})
}

func TestAMessageForAFullAndStalledLocalIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 10 << 10}, "t")
		pub := connect(t, b, "pub")
		began := time.Now()
		const n = 10
		for i := range uint16(n) {
			pub.send(&packet.Publish{Topic: "t", Payload: make([]byte, 1000), QoS: 1, PacketID: i + 1})
		}
		code, err := b.Publish(t.Context(), &packet.Publish{Topic: "t", Payload: make([]byte, 1000), QoS: 1})
		require.NoError(t, err)
		require.Equal(t, packet.QuotaExceeded, code)
		require.InDelta(t, 5*time.Second, time.Since(began), float64(50*time.Millisecond))
		codes := make(map[packet.ReasonCode]int)
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			m, err := l.Next(ctx)
			cancel()
			if err != nil {
				break
			}
			m.Done(0)
		}
		for range n {
			codes[receive[*packet.Puback](pub).Code]++
		}
		require.NotZero(t, codes[packet.Success])
		require.NotZero(t, codes[packet.QuotaExceeded])
		require.Equal(t, n, codes[packet.Success]+codes[packet.QuotaExceeded])
	})
}

func TestAClientAndALocalThatAnswerEachOtherDoNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Limits: session.Limits{QueueBytes: 32 << 10, ReceiveMaximum: 200}})
		l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 16 << 10}, "request")
		c := connect(t, b, "c")
		c.subscribe(packet.Subscription{Filter: "response", QoS: 1})
		const n = 2000
		go func() {
			for {
				m, err := l.Next(t.Context())
				if err != nil {
					return
				}
				_, err = l.Publish(t.Context(), &packet.Publish{Topic: "response", Payload: m.Publish().Payload, QoS: 1})
				if err != nil {
					return
				}
				m.Done(0)
			}
		}()
		// The client acknowledges what it gets behind what it has to send.
		began := time.Now()
		toSend := make(chan packet.Packet, 2*n)
		go func() {
			for p := range toSend {
				out, _ := p.Append(nil, c.v)
				if _, err := c.conn.Write(out); err != nil {
					return
				}
			}
		}()
		request := func(i int) {
			toSend <- &packet.Publish{Topic: "request", Payload: make([]byte, 1000), QoS: 1, PacketID: uint16(i%200 + 1)}
		}
		for i := range 200 {
			request(i)
		}
		for sent, acked, got := 200, 0, 0; acked < n || got < n; {
			p, err := c.read()
			require.NoError(t, err)
			switch p := p.(type) {
			case *packet.Puback:
				require.Equal(t, packet.Success, p.Code)
				if acked++; sent < n {
					request(sent)
					sent++
				}
			case *packet.Publish:
				got++
				toSend <- &packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}}
			}
		}
		close(toSend)
		require.Less(t, time.Since(began), 500*time.Millisecond, "somebody waited for a time-out")
		require.Zero(t, b.Stats().Dropped[broker.DropQueueFull])
	})
}

func TestALocalThatPublishesToItselfDoesNotWaitForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 10 << 10}, "t")
		began := time.Now()
		codes := make(map[packet.ReasonCode]int)
		for range 3000 {
			code, err := l.Publish(t.Context(), &packet.Publish{Topic: "t", Payload: make([]byte, 1000), QoS: 1})
			require.NoError(t, err)
			codes[code]++
		}
		require.Zero(t, time.Since(began))
		require.NotZero(t, codes[packet.Success])
		require.NotZero(t, codes[packet.QuotaExceeded])
		require.LessOrEqual(t, b.Stats().QueuedBytes, int64(2<<20))
		require.NoError(t, l.Subscribe(1, packet.Subscription{Filter: "other", NoLocal: true}))
		code, err := l.Publish(t.Context(), &packet.Publish{Topic: "other"})
		require.NoError(t, err)
		require.Equal(t, packet.Success, code)
	})
}

func TestPublishFromInsideReachesClientsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Limits: session.Limits{QueueBytes: 16 << 10}})
		code, err := b.Publish(t.Context(), &packet.Publish{Topic: "t", Payload: []byte("x"), Retain: true})
		require.NoError(t, err)
		require.Equal(t, packet.NoMatchingSubscribers, code)
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "t", QoS: 2})
		require.True(t, sub.message("t", "x").Retain)

		const n = 1000
		done := make(chan error, 1)
		go func() {
			for i := range n {
				p := &packet.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1}
				if code, err := b.Publish(t.Context(), p); err != nil || code != packet.Success {
					done <- fmt.Errorf("%d: %v, %w", i, code, err)
					return
				}
			}
			done <- nil
		}()
		synctest.Wait() // the queue is full
		for i := range n {
			require.Equal(t, fmt.Sprint(i), string(receiveMessage(sub).Payload))
		}
		require.NoError(t, <-done)
		s := b.Stats()
		require.NotZero(t, s.PushedBack)
		require.Zero(t, s.Dropped[broker.DropQueueFull])

		// It does not wait longer than its context.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		for err == nil {
			_, err = b.Publish(ctx, &packet.Publish{Topic: "t", Payload: make([]byte, 1000)})
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)

		for _, bad := range []*packet.Publish{
			{Topic: ""}, {Topic: "a/#"}, {Topic: "t", QoS: 3}, {Topic: "t", Payload: make([]byte, 1<<20)},
			{Topic: "t", Properties: &packet.Properties{ContentType: "\xff"}},
			{Topic: "t", Properties: &packet.Properties{WillDelay: packet.Some[uint32](1)}},
		} {
			var e *packet.Error
			_, err = b.Publish(t.Context(), bad)
			require.ErrorAs(t, err, &e, "%v", bad.Topic)
		}
	})
}

func TestClosingTheBrokerEndsEveryLocalAndPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, &broker.LocalConfig{QueueBytes: 1}, "t")
		full := newLocal(t, b, &broker.LocalConfig{QueueBytes: 1}, "full")
		ended := make(chan error, 1)
		go func() {
			_, err := l.Next(t.Context())
			ended <- err
		}()
		published := make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				_, err = b.Publish(t.Context(), &packet.Publish{Topic: "full", QoS: 1})
			}
			published <- err
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, b.Close())
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, <-ended, net.ErrClosed)
		require.ErrorIs(t, <-published, net.ErrClosed)
		_, err := b.NewLocal(nil)
		require.ErrorIs(t, err, broker.ErrClosed)
		require.NoError(t, full.Close())
	})
}

func TestClosingALocalRefusesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "t")
		pub := connect(t, b, "pub")
		pub.send(&packet.Publish{Topic: "t", Payload: []byte("a"), QoS: 1, PacketID: 1},
			&packet.Publish{Topic: "t", Payload: []byte("b"), QoS: 1, PacketID: 2})
		a := next(t, l, "a")
		pub.ping()
		require.NoError(t, l.Close())
		_, err := l.Next(t.Context())
		require.ErrorIs(t, err, broker.ErrClosed)
		require.ErrorIs(t, l.Subscribe(0, packet.Subscription{Filter: "t"}), broker.ErrClosed)
		a.Done(packet.Success)
		require.Equal(t, packet.Success, receive[*packet.Puback](pub).Code)
		require.Equal(t, packet.ImplementationSpecificError, receive[*packet.Puback](pub).Code)
		pub.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: 3})
		require.Equal(t, packet.NoMatchingSubscribers, receive[*packet.Puback](pub).Code)
		require.Zero(t, b.Stats().QueuedBytes)
		require.Zero(t, b.Stats().Subscriptions)
	})
}

func TestALocalIsNotGivenWhatHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l := newLocal(t, b, nil, "t")
		pub := connect(t, b, "pub")
		pub.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: 1, Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)}})
		pub.ping()
		time.Sleep(time.Second)
		nothing(t, l)
		require.Equal(t, packet.Success, receive[*packet.Puback](pub).Code)
		require.Zero(t, b.Stats().QueuedBytes)
	})
}

func TestALocalRefusesASubscriptionThatMQTTDoesNotHave(t *testing.T) {
	b := newBroker(t, nil)
	l := newLocal(t, b, nil)
	for _, s := range []packet.Subscription{
		{Filter: ""}, {Filter: "a/#/b"}, {Filter: "$share/g"}, {Filter: "t", QoS: 3}, {Filter: "$share/g/t", NoLocal: true},
	} {
		require.Error(t, l.Subscribe(0, s), s.Filter)
	}
	_, err := b.NewLocal(&broker.LocalConfig{QueueBytes: -1})
	require.ErrorContains(t, err, "negative")
	require.Zero(t, b.Stats().Subscriptions)
}

// BenchmarkLocal publishes and receives inside the program.
func BenchmarkLocal(b *testing.B) {
	br := newBroker(b, nil)
	l := newLocal(b, br, nil, "t")
	p := &packet.Publish{Topic: "t", Payload: make([]byte, 64)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := br.Publish(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		m, err := l.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		m.Done(0)
	}
}
