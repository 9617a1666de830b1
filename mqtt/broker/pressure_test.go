package broker_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// flood publishes n numbered messages of size bytes as fast as it can.
func flood(c *peer, topic string, q packet.QoS, n, size int) {
	const batch = 50
	var out []byte
	for i := range n {
		payload := make([]byte, size)
		binary.BigEndian.PutUint64(payload, uint64(i))
		p := &packet.Publish{Topic: topic, Payload: payload, QoS: q}
		if q > 0 {
			p.PacketID = uint16(i%1000) + 1
		}
		out, _ = p.Append(out, c.v)
		if i%batch == batch-1 || i == n-1 {
			if _, err := c.conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

func number(p *packet.Publish) int { return int(binary.BigEndian.Uint64(p.Payload)) }

func TestASlowButLiveSubscriberLosesNothing(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Millisecond, 900 * time.Millisecond} {
		t.Run(pause.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, nil)
				sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
				sub.subscribe(packet.Subscription{Filter: "t"})
				const n = 5000
				go flood(pub, "t", 0, n, 1000)
				for i := range n {
					if i%100 == 0 {
						time.Sleep(pause)
					}
					require.Equal(t, i, number(receive[*packet.Publish](sub)))
				}
				s := b.Stats()
				require.Zero(t, s.Dropped[broker.DropQueueFull])
				require.Zero(t, s.Stalled)
				if pause > 0 {
					require.NotZero(t, s.PushedBack)
				}
			})
		})
	}
}

func TestAStalledSubscriberIsWaitedForOnceAndLosesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		pub, live, dead := connect(t, b, "pub"), connect(t, b, "live"), connect(t, b, "dead")
		live.subscribe(packet.Subscription{Filter: "t"})
		dead.subscribe(packet.Subscription{Filter: "t"})
		const n = 20000
		began := time.Now()
		go flood(pub, "t", 0, n, 1000)
		for i := range n {
			require.Equal(t, i, number(receive[*packet.Publish](live)))
		}
		require.InDelta(t, time.Second, time.Since(began), float64(50*time.Millisecond))
		synctest.Wait() // until the other has been given the last message, and what was dropped is counted
		s := b.Stats()
		require.EqualValues(t, 1, s.Stalled)
		require.NotZero(t, s.Dropped[broker.DropQueueFull])
		require.LessOrEqual(t, s.QueuedBytes, int64(1<<20))

		// It comes back: what is left is in order, ends with the newest, and
		// together with what was dropped is everything.
		got, last := 0, -1
		for last < n-1 {
			i := number(receive[*packet.Publish](dead))
			require.Greater(t, i, last)
			got, last = got+1, i
		}
		require.EqualValues(t, n, uint64(got)+s.Dropped[broker.DropQueueFull])
		go flood(pub, "t", 0, 1, 1000)
		receive[*packet.Publish](live)
		receive[*packet.Publish](dead)
	})
}

func TestASubscriberThatTakesNoQoS1IsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Limits: session.Limits{QueueBytes: 64 << 10}})
		pub, live, dead := connect(t, b, "pub"), connect(t, b, "live"), connect(t, b, "dead", keep(3600))
		live.subscribe(packet.Subscription{Filter: "t", QoS: 1})
		dead.subscribe(packet.Subscription{Filter: "t", QoS: 1})
		const n = 500
		began := time.Now()
		go flood(pub, "t", 1, n, 1000)
		go io.Copy(io.Discard, pub.conn)
		for i := range n {
			require.Equal(t, i, number(receiveMessage(live)))
		}
		require.InDelta(t, 5*time.Second, time.Since(began), float64(100*time.Millisecond))
		<-dead.end
		s := b.Stats()
		require.EqualValues(t, 1, s.Disconnects[packet.QuotaExceeded])
		require.Equal(t, 3, s.Sessions, "its session goes on")
		require.NotZero(t, s.QueuedBytes)
		require.NotZero(t, s.Dropped[broker.DropQueueFull])
	})
}

func TestClientsThatPublishToEachOtherDoNotDeadlock(t *testing.T) {
	t.Run("without reading", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			one, two := connect(t, b, "one"), connect(t, b, "two")
			one.subscribe(packet.Subscription{Filter: "one"})
			two.subscribe(packet.Subscription{Filter: "two"})
			began := time.Now()
			done := make(chan struct{})
			go func() { flood(one, "two", 0, 10000, 1000); done <- struct{}{} }()
			go func() { flood(two, "one", 0, 10000, 1000); done <- struct{}{} }()
			<-done
			<-done
			require.LessOrEqual(t, time.Since(began), 3*time.Second)
		})
	})
	for _, q := range []packet.QoS{0, 1} {
		t.Run(fmt.Sprint("reading QoS ", q, " loses nothing"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logged
				b := newBroker(t, &broker.Config{Logger: log.logger(), Limits: session.Limits{QueueBytes: 64 << 10, ReceiveMaximum: 1000}})
				peers := []*peer{connect(t, b, "0"), connect(t, b, "1")}
				for i, p := range peers {
					p.subscribe(packet.Subscription{Filter: fmt.Sprint(i), QoS: q})
				}
				const n = 3000
				began := time.Now()
				done := make(chan struct{})
				var outs []chan packet.Packet
				for i, p := range peers {
					out := make(chan packet.Packet, 2*n) // of one goroutine, in order
					outs = append(outs, out)
					window := make(chan struct{}, 1000) // Receive Maximum
					go func() {
						for m := range out {
							b, _ := m.Append(nil, p.v)
							if _, err := p.conn.Write(b); err != nil {
								return
							}
						}
					}()
					go func() {
						for k := range n {
							payload := binary.BigEndian.AppendUint64(nil, uint64(k))
							m := &packet.Publish{Topic: fmt.Sprint(1 - i), Payload: append(payload, make([]byte, 500)...), QoS: q}
							if q > 0 {
								window <- struct{}{}
								m.PacketID = uint16(k%1000) + 1
							}
							out <- m
						}
					}()
					go func() {
						defer func() { done <- struct{}{} }()
						got, acked := 0, 0
						for got < n || q > 0 && acked < n {
							m, err := p.read()
							if err != nil {
								t.Errorf("%d: after %d messages: %v", i, got, err)
								return
							}
							switch m := m.(type) {
							case *packet.Publish:
								if number(m) != got {
									t.Errorf("%d: got message %d, want %d", i, number(m), got)
								}
								got++
								if m.QoS > 0 {
									out <- &packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}}
								}
							case *packet.Puback:
								<-window
								acked++
							}
						}
					}()
				}
				<-done
				<-done
				require.Empty(t, log.String())
				require.Zero(t, b.Stats().Dropped[broker.DropQueueFull])
				require.Zero(t, time.Since(began), "nobody waited for a timeout")
				for i, p := range peers {
					p.close()
					close(outs[i])
				}
			})
		})
	}
}

func TestAPublisherThatIsHeldBackIsNotDeadForItsKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{
			Limits: session.Limits{QueueBytes: 128 << 10}, StallTimeout: 20 * time.Second, HoldTimeout: time.Minute,
		})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		pub := connect(t, b, "pub", func(p *packet.Connect) { p.KeepAlive = 2 })
		go func() {
			flood(pub, "t", 0, 10, 100<<10)
			for { // the client does its part
				time.Sleep(time.Second)
				if _, err := pub.conn.Write([]byte{0xc0, 0}); err != nil {
					return
				}
			}
		}()
		go io.Copy(io.Discard, pub.conn)
		for i := range 10 {
			time.Sleep(10 * time.Second) // far beyond 1.5 x 2 s
			require.Equal(t, i, number(receive[*packet.Publish](sub)))
		}
		time.Sleep(time.Minute)
		require.EqualValues(t, 0, b.Stats().Disconnects[packet.KeepAliveTimeout])
		pub.conn.Close()
		time.Sleep(2 * time.Second) // until the client has noticed
	})
}
