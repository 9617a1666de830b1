package broker_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A pipeListener accepts what is put into it.
type pipeListener struct {
	conns chan net.Conn
	end   chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.end) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// servePipes returns what connects peers to a listener of b.
func servePipes(t *testing.T, b *broker.Broker) func() *peer {
	l := &pipeListener{conns: make(chan net.Conn), end: make(chan struct{})}
	go b.Serve(l, mqtt.TCP) // ends with b
	return func() *peer {
		ours, theirs := net.Pipe()
		l.conns <- theirs
		t.Cleanup(func() { ours.Close() })
		return &peer{t: t, conn: ours, r: mqtt.NewReader(ours, 0), v: packet.V5}
	}
}

func TestClientsShareTheRatesOfTheirAddressTheirListenerAndTheBroker(t *testing.T) {
	for name, tt := range map[string]struct {
		quotas broker.Quotas
		apart  bool // another address and another listener have a rate of their own
	}{
		broker.ThrottledAddr:     {broker.Quotas{MessageRatePerAddr: 10}, true},
		broker.ThrottledListener: {broker.Quotas{MessageRatePerListener: 10}, true},
		broker.ThrottledAll:      {broker.Quotas{TotalMessageRate: 10}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, &broker.Config{Quotas: tt.quotas})
				one, two := servePipes(t, b), servePipes(t, b)
				if name == broker.ThrottledAddr {
					one = func() *peer { return dialFrom(t, b, "192.0.2.1:1") }
					two = func() *peer { return dialFrom(t, b, "192.0.2.2:1") }
				}
				sub := connect(t, b, "sub")
				sub.subscribe(packet.Subscription{Filter: "#"})
				began := time.Now()
				send := func(c *peer, n int) {
					require.Equal(t, packet.Success, c.connect("").Code)
					batch := bytes.Repeat(encode(t, packet.V5, &packet.Publish{Topic: "t", Payload: []byte("m")}), n)
					go c.conn.Write(batch) // returns when the broker has read all
				}
				send(one(), 20)
				send(one(), 20)
				for i := range 40 {
					sub.message("t", "m")
					due := time.Duration(max(0, i+1-10)) * 100 * time.Millisecond
					require.InDelta(t, due, time.Since(began), float64(50*time.Millisecond), i)
				}
				other := two()
				send(other, 1)
				at := time.Now()
				sub.message("t", "m")
				require.Equal(t, tt.apart, time.Since(at) < 50*time.Millisecond)
				s := b.Stats().Throttled
				require.GreaterOrEqual(t, s[name], uint64(30))
				require.Zero(t, s[broker.ThrottledClient])

				// What is shared changes at once, for those who are connected too.
				require.NoError(t, b.Reconfigure(nil))
				at = time.Now()
				go other.conn.Write(bytes.Repeat(encode(t, packet.V5, &packet.Publish{Topic: "t", Payload: []byte("m")}), 50))
				for range 50 {
					sub.message("t", "m")
				}
				require.Zero(t, time.Since(at))
				b.Close()
			})
		})
	}
}

// aPacketOfOneMiB takes all that a rate of bytes has at once.
func aPacketOfOneMiB(topic string) *packet.Publish {
	return &packet.Publish{Topic: topic, Payload: make([]byte, 1<<20-100), QoS: 1, PacketID: 1}
}

func TestAChangeOfASharedRateHoldsAtOnceForThoseWhoWaitForIt(t *testing.T) {
	for name, tt := range map[string]struct {
		to   *broker.Config
		last time.Duration // until the last of three is let through
	}{
		"none":                    {nil, 0},
		"more":                    {&broker.Config{Quotas: broker.Quotas{TotalByteRate: 1 << 20}}, 3 * time.Second},
		"less than what they are": {&broker.Config{Quotas: broker.Quotas{TotalByteRate: 1000}, Limits: session.Limits{MaximumPacketSize: 1000}}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, &broker.Config{Quotas: broker.Quotas{TotalByteRate: 1000}})
				first := connect(t, b, "first")
				first.send(aPacketOfOneMiB("big"))
				receive[*packet.Puback](first)
				var all sync.WaitGroup
				for range 3 { // a quarter of an hour each
					c := connect(t, b, "")
					c.send(aPacketOfOneMiB("big"))
					all.Go(func() {
						p, err := c.read()
						assert.NoError(t, err)
						assert.IsType(t, new(packet.Puback), p)
					})
				}
				time.Sleep(time.Second)
				began := time.Now()
				require.NoError(t, b.Reconfigure(tt.to))
				all.Wait()
				require.LessOrEqual(t, time.Since(began), tt.last+50*time.Millisecond)
				require.GreaterOrEqual(t, time.Since(began), tt.last*9/10-time.Second)
				b.Close()
			})
		})
	}
}

func TestWhoGoesAwayWhileItWaitsForASharedRateIsNoDebtOfTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{TotalMessageRate: 1, TotalByteRate: 1 << 20}})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		first := connect(t, b, "first")
		first.send(aPacketOfOneMiB("big"))
		receive[*packet.Puback](first)
		var links []mqtt.Link
		var ends []chan struct{}
		for range 20 {
			ours, theirs := net.Pipe()
			defer ours.Close()
			link := mqtt.NewConnLink(theirs, mqtt.QUIC)
			c := &peer{t: t, conn: ours, r: mqtt.NewReader(ours, 0), v: packet.V5, end: make(chan struct{})}
			go func() {
				defer close(c.end)
				b.ServeLink(context.Background(), link)
			}()
			require.Equal(t, packet.Success, c.connect("").Code)
			c.send(aPacketOfOneMiB("big"))
			links, ends = append(links, link), append(ends, c.end)
		}
		synctest.Wait()
		require.EqualValues(t, 20, b.Stats().Throttled[broker.ThrottledAll], "all wait")
		time.Sleep(500 * time.Millisecond)

		// The carrier notices that its peer is gone, and has the Link end.
		began := time.Now()
		for _, link := range links {
			link.CloseWithCode(mqtt.LinkNormal)
		}
		for _, end := range ends {
			<-end
		}
		require.Zero(t, time.Since(began), "nobody keeps its turn")
		connect(t, b, "pub").send(&packet.Publish{Topic: "t", Payload: []byte("m")})
		sub.message("t", "m")
		require.InDelta(t, 500*time.Millisecond, time.Since(began), float64(50*time.Millisecond), "what was left of the first's second")
		b.Close()
	})
}

func TestWhatATCPClientSentBeforeItWentAwayIsLetThroughInItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{TotalMessageRate: 1}})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		began := time.Now()
		for _, payload := range []string{"stays", "goes", "next"} {
			c := connect(t, b, payload)
			c.send(&packet.Publish{Topic: "t", Payload: []byte(payload)})
			synctest.Wait()
			if payload == "goes" {
				c.conn.Close()
			}
		}
		for i, payload := range []string{"stays", "goes", "next"} {
			sub.message("t", payload)
			require.InDelta(t, time.Duration(i)*time.Second, time.Since(began), float64(50*time.Millisecond))
		}
		b.Close()
	})
}

func TestConnectionsWithoutASessionAreBoundedByAddressAndAllTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{ConnectTimeout: 10 * time.Second, Quotas: broker.Quotas{PendingPerAddr: 2, Pending: 3}})
		// Slower than anybody has to be: a byte of CONNECT each second.
		drip := func(c *peer) {
			hello := encode(t, packet.V5, &packet.Connect{Version: packet.V5, ClientID: "a client identifier of some length", CleanStart: true})
			for _, x := range hello {
				if _, err := c.conn.Write([]byte{x}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.1:2"} {
			c := dialFrom(t, b, addr)
			go drip(c)
		}
		synctest.Wait()
		require.Equal(t, 2, b.Stats().Pending)
		require.Equal(t, packet.ServerBusy, dialFrom(t, b, "192.0.2.1:3").connect("").Code)
		stays := dialFrom(t, b, "192.0.2.2:1")
		require.Equal(t, packet.Success, stays.connect("").Code, "with a session it is not one of them")
		dialFrom(t, b, "192.0.2.2:2")
		synctest.Wait()
		require.Equal(t, 3, b.Stats().Pending)
		require.Equal(t, packet.ServerBusy, dialFrom(t, b, "192.0.2.3:1").connect("").Code)
		s := b.Stats().AboveQuota
		require.EqualValues(t, 1, s[broker.RefusedAddrPending])
		require.EqualValues(t, 1, s[broker.RefusedPending])
		time.Sleep(11 * time.Second)
		synctest.Wait()
		require.Zero(t, b.Stats().Pending, "their time is over")
		require.Equal(t, packet.Success, dialFrom(t, b, "192.0.2.1:4").connect("").Code)
		stays.ping()
		b.Close()
	})
}

func TestNetworksThatAreNotAllowedAreClosedBeforeAnythingIsRead(t *testing.T) {
	networks := func(list ...string) (all []netip.Prefix) {
		for _, s := range list {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	b := newBroker(t, &broker.Config{Quotas: broker.Quotas{
		Allow: networks("192.0.2.0/24", "2001:db8::/32"), Deny: networks("192.0.2.128/25"),
	}})
	refused := []string{"192.0.2.129:1", "[::ffff:192.0.2.129]:1", "198.51.100.1:1", "[2001:db9::1]:1", "127.0.0.1:1"}
	for _, addr := range refused {
		dialFrom(t, b, addr).closed()
	}
	for _, addr := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
		require.Equal(t, packet.Success, dialFrom(t, b, addr).connect("").Code, addr)
	}
	connect(t, b, "without an address")
	require.EqualValues(t, len(refused), b.Stats().AboveQuota[broker.RefusedNetwork])
	require.NoError(t, b.Reconfigure(&broker.Config{Quotas: broker.Quotas{Deny: networks("2001:db8::/32")}}))
	require.Equal(t, packet.Success, dialFrom(t, b, "127.0.0.1:1").connect("").Code)
	dialFrom(t, b, "[2001:db8::1]:1").closed()
	_, err := broker.New(&broker.Config{Quotas: broker.Quotas{Deny: make([]netip.Prefix, 1)}})
	require.ErrorContains(t, err, "not valid")
	_, err = broker.New(&broker.Config{Quotas: broker.Quotas{Deny: networks("::ffff:192.0.2.0/120")}})
	require.ErrorContains(t, err, "network of IPv4")
}
