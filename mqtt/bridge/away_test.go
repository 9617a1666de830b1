package bridge_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func sequence(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func TestARemoteBrokerThatIsAwayLosesNothing(t *testing.T) {
	for qos := packet.AtMostOnce; qos <= packet.ExactlyOnce; qos++ {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := newSite(t, "a"), newSite(t, "b")
				br := a.bridge(b, bridge.Config{Forward: everything})
				pub := a.client("publisher")
				publish := func(from, to int) {
					for i := from; i < to; i++ {
						a.publish(pub, "x", fmt.Sprint(i), qos)
					}
					time.Sleep(time.Hour) // the retries of the bridge
				}

				// The bridge starts without it.
				publish(0, 100)
				s := br.Status()
				require.False(t, s.Connected)
				require.ErrorIs(t, s.Err, net.ErrClosed)
				require.Equal(t, 100, s.Queued)
				require.Positive(t, s.QueueBytes)
				box := b.subscribe("#")
				b.listen()
				connected(t, br)
				require.Equal(t, sequence(0, 100), box.payloads())
				require.EqualValues(t, 1, br.Status().Connections)

				// It is killed, and comes back without memory.
				b.stop()
				synctest.Wait() // what has QoS 0 and was on its way would be lost
				publish(100, 300)
				require.False(t, br.Status().Connected)
				b.restart()
				box = b.subscribe("#")
				b.listen()
				connected(t, br)
				require.Equal(t, sequence(100, 300), box.payloads())
				s = br.Status()
				require.Zero(t, s.Queued)
				require.EqualValues(t, 300, s.Forwarded)
				require.EqualValues(t, 2, s.Connections)
				require.Equal(t, make(map[bridge.Drop]uint64), only(s.Dropped))
			})
		})
	}
}

// only returns the reasons for which something was dropped.
func only(dropped map[bridge.Drop]uint64) map[bridge.Drop]uint64 {
	some := make(map[bridge.Drop]uint64)
	for d, n := range dropped {
		if n > 0 {
			some[d] = n
		}
	}
	return some
}

func TestConnectionsThatBreakAtRandomLoseAndDuplicateNothing(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, forward := range []bool{true, false} {
			t.Run(fmt.Sprintf("MQTT %v, forward %v", v, forward), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := newSite(t, "a"), newSite(t, "b").listen()
					cfg := bridge.Config{Remote: client.Config{Version: v, ClientID: "bridge"}}
					from, to := a, b
					if forward {
						cfg.Forward = everything
					} else {
						cfg.Subscribe, from, to = everything, b, a
					}
					br := a.bridge(b, cfg)
					connected(t, br)
					box := to.subscribe("#")
					pub := from.client("publisher")
					random := rand.New(rand.NewPCG(1, 2)) // the same kills each time
					// How often the bridge gets a connection between the black-outs depends
					// on when it tries again, which is random: this goes on until it had
					// enough of them.
					const atLeast, enough, atMost = 1500, 6, 15000
					messages := 0
					few := func() bool { return br.Status().Connections < enough && messages < atMost }
					for ; messages < atLeast || messages%2 != 0 || few(); messages++ {
						i := messages
						_, err := pub.Publish(t.Context(), &packet.Publish{Topic: fmt.Sprint("x/", i%3), Payload: fmt.Append(nil, i), QoS: 1 + packet.QoS(i%2)})
						require.NoError(t, err)
						switch random.IntN(20) {
						case 0:
							b.drop()
							if random.IntN(2) == 0 { // it may come back, and be dropped again at once or later
								time.Sleep(time.Duration(random.IntN(8000)) * time.Millisecond)
							}
						case 1: // a black-out
							b.hide()
							time.Sleep(time.Duration(random.IntN(100)) * time.Second)
							b.listen()
						case 2:
							time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
						}
					}
					for range 100 {
						time.Sleep(time.Minute)
						synctest.Wait()
					}
					twice, once := map[string]int{}, map[string]int{}
					last := map[string]int{}
					for _, p := range box.take() {
						var n int
						_, err := fmt.Sscan(string(p.Payload), &n)
						require.NoError(t, err)
						if n%2 == 0 { // QoS 1
							if twice[string(p.Payload)]++; twice[string(p.Payload)] > 1 {
								continue
							}
						} else {
							once[string(p.Payload)]++
							key := p.Topic
							require.Greater(t, n, last[key]-1, "QoS 2 keeps its order")
							last[key] = n
						}
					}
					require.Len(t, twice, messages/2, "QoS 1: at least once")
					require.Len(t, once, messages/2, "QoS 2: not lost")
					for payload, n := range once {
						require.Equal(t, 1, n, "QoS 2: %s", payload)
					}
					s := br.Status()
					require.GreaterOrEqual(t, s.Connections, uint64(enough))
					require.Empty(t, only(s.Dropped))
					require.Zero(t, s.Queued)
				})
			})
		}
	}
}

func TestAFullQueueDropsTheOldestOfQoS0First(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b")
		const limit = 100_000
		br := a.bridge(b, bridge.Config{Forward: everything, QueueBytes: limit})
		pub := a.client("publisher")
		payload := func(i int) string { return fmt.Sprintf("%01000d", i) }
		for i := range 100 {
			a.publish(pub, "x", payload(i), 0)
		}
		synctest.Wait()
		s := br.Status()
		require.LessOrEqual(t, s.QueueBytes, limit)
		room := s.Queued
		require.Greater(t, room, 70)
		require.EqualValues(t, 100-room, s.Dropped[bridge.QueueFull])

		for i := range 100 { // they take the place of those
			a.publish(pub, "y", payload(i), 1)
		}
		synctest.Wait()
		s = br.Status()
		require.LessOrEqual(t, s.QueueBytes, limit)
		require.InDelta(t, room, s.Queued, 1)
		require.EqualValues(t, 200-s.Queued, s.Dropped[bridge.QueueFull])

		box := b.subscribe("#")
		b.listen()
		connected(t, br)
		synctest.Wait()
		got := box.take()
		require.Len(t, got, s.Queued)
		for i, p := range got {
			require.Equal(t, "y", p.Topic)
			require.Equal(t, payload(i), string(p.Payload))
		}
		require.Zero(t, br.Status().QueueBytes)
	})
}

// A message that the local broker has not taken when the bridge ends stays with the
// remote one.
func TestWhatTheLocalBrokerHasNotAcknowledgedStaysWithTheRemoteOne(t *testing.T) {
	for _, qos := range []packet.QoS{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			a, b := newSite(t, "a"), newSite(t, "b").listen()
			cfg := bridge.Config{Subscribe: everything, Name: "n", Remote: client.Config{ClientID: "bridge"}}
			br := a.bridge(b, cfg)
			connected(t, br)
			require.NoError(t, a.b.Close()) // nobody takes anything
			b.publish(b.client("publisher"), "x", "1", qos)
			synctest.Wait()
			require.Zero(t, br.Status().Received)
			require.NoError(t, br.Close())

			a.restart()
			box := a.subscribe("#")
			connected(t, a.bridge(b, cfg))
			require.Equal(t, []string{"1"}, box.payloads())
		})
	}
}

func TestShutdownSendsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b")
		br := a.bridge(b, bridge.Config{Forward: everything})
		pub := a.client("publisher")
		for i := range 1000 {
			a.publish(pub, "x", fmt.Sprint(i), 2)
		}
		box := b.subscribe("#")
		b.listen()
		for !br.Status().Connected {
			time.Sleep(time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, br.Shutdown(ctx))
		require.Equal(t, sequence(0, 1000), box.payloads())
		require.NoError(t, br.Close())
	})
}

func TestShutdownDoesNotWaitForABrokerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b")
		br := a.bridge(b, bridge.Config{Forward: everything})
		a.publish(a.client("publisher"), "x", "1", 1)
		before := time.Now()
		require.NoError(t, br.Shutdown(t.Context()))
		require.Less(t, time.Since(before), time.Second)
	})
}

// A broker of 3.1.1 that knows no bridges, as most: the CONNECT with the mark is
// refused.
func plain(t *testing.T, b *broker.Broker, marked *int) func(context.Context, *url.URL) (net.Conn, error) {
	return func(context.Context, *url.URL) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { // ends with the connection
			defer theirs.Close()
			first := make([]byte, 9) // up to the protocol level, for packets below 128 bytes
			for n := 0; n < len(first); {
				m, err := theirs.Read(first[n:])
				if err != nil {
					return
				}
				n += m
			}
			if first[8]&0x80 != 0 {
				*marked++
				rest := make([]byte, 1000)
				_, _ = theirs.Read(rest)
				_, _ = theirs.Write([]byte{0x20, 2, 0, 1})
				return
			}
			_ = b.ServeLink(t.Context(), mqtt.NewConnLink(&prefixed{theirs, first}, mqtt.TCP))
		}()
		return ours, nil
	}
}

// A prefixed connection reads something first.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

func TestABrokerWithoutBridgesGetsWhatCannotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b")
		marked := 0
		remote := func(id string) client.Config {
			return client.Config{Version: packet.V311, ClientID: id, Dial: plain(t, b.b, &marked)}
		}
		box := b.subscribe("#")
		apart := a.bridge(b, bridge.Config{Name: "apart", Remote: remote("1"),
			Forward: []bridge.Rule{{Filter: "up/#"}}, Subscribe: []bridge.Rule{{Filter: "down/#"}}})
		connected(t, apart)
		require.Equal(t, 1, marked)
		a.publish(a.client("publisher"), "up/x", "1", 1)
		require.Equal(t, []string{"1"}, box.payloads())

		looping := a.bridge(b, bridge.Config{Name: "looping", Remote: remote("2"),
			Forward: []bridge.Rule{{Filter: "up/#", To: "all/$1"}}, Subscribe: []bridge.Rule{{Filter: "+/x"}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		s := looping.Status()
		require.False(t, s.Connected)
		require.ErrorContains(t, s.Err, `what is forwarded from "up/#" would come back by "+/x"`)
		require.Zero(t, s.Connections)
	})
}

func TestConfigurationsThatAreWrongAreRefusedWithAReason(t *testing.T) {
	local, err := broker.New(nil)
	require.NoError(t, err)
	require.NoError(t, local.Close())
	for want, change := range map[string]func(*bridge.Config){
		"Config.Name":                         func(c *bridge.Config) { c.Name = "a b" },
		"Config.Local is missing":             func(c *bridge.Config) { c.Local = nil },
		"nothing to carry":                    func(c *bridge.Config) { c.Forward = nil },
		"forward: rule 2: ":                   func(c *bridge.Config) { c.Forward = append(slices.Clone(everything), bridge.Rule{Filter: "#/a"}) },
		"no $2":                               func(c *bridge.Config) { c.Forward = []bridge.Rule{{Filter: "+", To: "$2"}} },
		"subscribe: rule 1: QoS 3":            func(c *bridge.Config) { c.Subscribe = []bridge.Rule{{Filter: "+", MaxQoS: packet.Some(packet.QoS(3))}} },
		"cannot be negative":                  func(c *bridge.Config) { c.QueueBytes = -1 },
		"bridge: n: local broker: ":           func(*bridge.Config) {}, // it is closed
		"remote broker: client: URL is empty": func(c *bridge.Config) { c.Remote.URL = "" },
		"Config.KeepAlive is larger ":         func(c *bridge.Config) { c.Remote.KeepAlive = 100 * time.Hour },
	} {
		cfg := bridge.Config{Name: "n", Local: local, Forward: everything, Remote: client.Config{URL: "mqtt://localhost"}}
		change(&cfg)
		_, err := bridge.New(&cfg)
		require.ErrorContains(t, err, want)
	}
	_, err = bridge.New(nil)
	require.Error(t, err)
}
