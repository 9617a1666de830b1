package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A fromAddr is a connection whose other end has an address.
type fromAddr struct {
	net.Conn
	remote net.Addr
}

func (c fromAddr) RemoteAddr() net.Addr { return c.remote }

// dialFrom connects a peer that the broker sees at an address, without CONNECT.
func dialFrom(t testing.TB, b *broker.Broker, addr string) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	p := &peer{t: t, conn: ours, r: mqtt.NewReader(ours, 0), v: packet.V5, end: make(chan struct{})}
	remote := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	go func() {
		defer close(p.end)
		b.ServeLink(context.Background(), mqtt.NewConnLink(fromAddr{theirs, remote}, mqtt.TCP))
	}()
	t.Cleanup(func() { ours.Close() })
	return p
}

func TestConnectionsOfAnAddressAreBoundedAndReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{ConnsPerAddr: 2}})
		try := func(addr string, want packet.ReasonCode) *peer {
			t.Helper()
			c := dialFrom(t, b, addr)
			require.Equal(t, want, c.connect("").Code, addr)
			return c
		}
		first := try("192.0.2.1:1", packet.Success)
		try("192.0.2.1:2", packet.Success)
		try("192.0.2.1:3", packet.QuotaExceeded).closed()
		try("[::ffff:192.0.2.1]:4", packet.QuotaExceeded).closed() // the same
		try("192.0.2.2:1", packet.Success)
		first.close()
		try("192.0.2.1:5", packet.Success)

		try("[2001:db8:0:1::1]:1", packet.Success)
		try("[2001:db8:0:1:ffff::2]:1", packet.Success)
		try("[2001:db8:0:1::3]:1", packet.QuotaExceeded) // of the same /64
		try("[2001:db8:0:2::1]:1", packet.Success)
		for range 5 {
			try("127.0.0.1:1", packet.Success)
			try("[::1]:1", packet.Success)
		}
		require.EqualValues(t, 3, b.Stats().AboveQuota[broker.RefusedAddr])
	})
}

func TestRefusedConnectionsAreBoundedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{ConnsPerAddr: 1}})
		require.Equal(t, packet.Success, dialFrom(t, b, "192.0.2.1:1").connect("").Code)
		var all []*peer
		for range 300 { // without a CONNECT
			all = append(all, dialFrom(t, b, "192.0.2.1:2"))
		}
		synctest.Wait()
		closed := 0
		for _, c := range all {
			select {
			case <-c.end:
				closed++
			default:
			}
		}
		require.Equal(t, 300-256, closed)
		require.EqualValues(t, 1+256, b.Stats().Connections[mqtt.TCP].Now)
		require.Equal(t, packet.Success, dialFrom(t, b, "192.0.2.2:1").connect("").Code, "others get in")
	})
}

func TestTheRateOfConnectionsIsBoundedAndCannotBeResetByLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{ConnRatePerAddr: 5, ConnRate: 10}})
		try := func(addr string) packet.ReasonCode {
			c := dialFrom(t, b, addr)
			code := c.connect("").Code
			c.close()
			return code
		}
		for range 10 {
			require.Equal(t, packet.Success, try("192.0.2.1:1"))
		}
		require.Equal(t, packet.ConnectionRateExceeded, try("192.0.2.1:1"))
		for range 10 {
			require.Equal(t, packet.Success, try("127.0.0.1:1"))
		}
		require.Equal(t, packet.ConnectionRateExceeded, try("127.0.0.1:1"), "of all together")
		time.Sleep(200 * time.Millisecond)
		require.Equal(t, packet.Success, try("192.0.2.1:1"))
		require.Equal(t, packet.ConnectionRateExceeded, try("192.0.2.1:1"))
		s := b.Stats().AboveQuota
		require.EqualValues(t, 2, s[broker.RefusedAddrRate])
		require.EqualValues(t, 1, s[broker.RefusedRate])
		b.Close()
	})
}

// A hundred dialers at once never get above a limit, and what they leave is free
// again.
func TestAHundredDialersNeverGetAboveTheLimits(t *testing.T) {
	const limit = 7
	overTCP := func(t *testing.T, b *broker.Broker) func() *peer {
		addr := serveTCP(t, b)
		return func() *peer {
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			return &peer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
		}
	}
	fromOne := func(t *testing.T, b *broker.Broker) func() *peer {
		return func() *peer { return dialFrom(t, b, "192.0.2.1:1") }
	}
	for name, tt := range map[string]struct {
		cfg  broker.Config
		dial func(*testing.T, *broker.Broker) func() *peer
		code packet.ReasonCode
	}{
		"of the broker":   {broker.Config{MaxConns: limit}, overTCP, packet.ServerBusy},
		"of the listener": {broker.Config{Quotas: broker.Quotas{ConnsPerListener: limit}}, overTCP, packet.ServerBusy},
		"of the address":  {broker.Config{Quotas: broker.Quotas{ConnsPerAddr: limit, ConnRatePerAddr: -1}}, fromOne, packet.QuotaExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			// Whoever is refused has time to read why, on a busy machine too.
			tt.cfg.ConnectTimeout, tt.cfg.DrainTimeout = time.Minute, time.Minute
			b := newBroker(t, &tt.cfg)
			dial := tt.dial(t, b)
			var in, most atomic.Int64
			// attempt reports whether the broker admitted the client, which then
			// stays for a while.
			attempt := func(id string) bool {
				c := dial()
				defer c.conn.Close()
				hello := encode(t, packet.V5, &packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true})
				if _, err := c.conn.Write(hello); err != nil {
					return false // closed at once
				}
				if ack, err := c.read(); err != nil || ack.(*packet.Connack).Code != packet.Success {
					return false
				}
				n := in.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				for range 5 {
					c.ping()
				}
				in.Add(-1) // before the broker can know
				return true
			}
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					for !attempt(fmt.Sprint(i)) {
						runtime.Gosched()
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, most.Load(), int64(limit))
			require.Eventually(t, func() bool { return b.Stats().Connections[mqtt.TCP].Now == 0 }, time.Minute, time.Millisecond)
			var held []*peer
			for i := range limit {
				c := dial()
				require.Equal(t, packet.Success, c.connect(fmt.Sprint("again", i)).Code)
				held = append(held, c)
			}
			require.Equal(t, tt.code, dial().connect("over").Code)
			for _, c := range held {
				c.ping()
				c.conn.Close()
			}
		})
	}
}

// Above its rate a client is not read; nothing is lost and nobody else waits.
func TestAClientAboveItsRateIsHeldBackOnAllItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{MessageRate: 10}})
		sub, pub := connect(t, b, "sub"), connect(t, b, "pub", func(p *packet.Connect) { p.KeepAlive = 1 })
		sub.subscribe(packet.Subscription{Filter: "t"})
		began := time.Now()
		batch := bytes.Repeat(encode(t, packet.V5, &packet.Publish{Topic: "t", Payload: []byte("m")}), 60)
		go pub.conn.Write(batch) // returns when the broker has read all, or pub is closed
		for i := range 60 {
			sub.message("t", "m")
			due := time.Duration(max(0, i+1-10)) * 100 * time.Millisecond
			require.InDelta(t, due, time.Since(began), float64(50*time.Millisecond), i)
		}
		other := connect(t, b, "other")
		other.ping()
		pub.ping() // held back beyond its keep-alive, and still here
		require.EqualValues(t, 50, b.Stats().Throttled[broker.ThrottledClient])
		b.Close()
	})
}

func TestBytesAndSubscriptionsHaveRatesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{ByteRate: 1 << 20, SubscribeRate: 1}})
		c := connect(t, b, "c")
		began := time.Now()
		for range 3 { // the first is in the burst
			c.publish("t", string(make([]byte, 1<<20-100)), 1)
		}
		require.InDelta(t, 2*time.Second, time.Since(began), float64(200*time.Millisecond))
		time.Sleep(time.Minute)
		began = time.Now()
		for range 60 {
			c.subscribe(packet.Subscription{Filter: "a"})
		}
		require.Less(t, time.Since(began), time.Second)
		c.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"})
		require.InDelta(t, 2*time.Second, time.Since(began), float64(200*time.Millisecond))
		b.Close()
	})
}

func TestSubscriptionsOfAllTogetherAreBounded(t *testing.T) {
	b := newBroker(t, &broker.Config{Quotas: broker.Quotas{Subscriptions: 3}})
	c, d := connect(t, b, "c"), connect(t, b, "d")
	require.Equal(t, []packet.ReasonCode{0, 0}, c.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"}).Codes)
	require.Equal(t, []packet.ReasonCode{0x97, 0x97}, d.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"}).Codes)
	require.Equal(t, []packet.ReasonCode{1, 0x97, 1}, c.subscribe(packet.Subscription{Filter: "a", QoS: 1}, packet.Subscription{Filter: "c"}, packet.Subscription{Filter: "b", QoS: 1}).Codes, "those it has may be changed")
	require.Equal(t, []packet.ReasonCode{0}, d.subscribe(packet.Subscription{Filter: "a"}).Codes)
	require.Equal(t, []packet.ReasonCode{0x97}, d.subscribe(packet.Subscription{Filter: "b"}).Codes)
	c.close() // its session ends
	require.Equal(t, []packet.ReasonCode{0}, d.subscribe(packet.Subscription{Filter: "b"}).Codes)
}
