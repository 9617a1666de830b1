package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// serveTCP returns the address of a listener that b serves.
func serveTCP(t testing.TB, b *broker.Broker) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- b.Serve(l, mqtt.TCP) }()
	t.Cleanup(func() {
		b.Close()
		require.NoError(t, <-done)
	})
	return l.Addr().String()
}

// dialTCP connects a peer over TCP.
func dialTCP(t testing.TB, addr, id string, change ...func(*packet.Connect)) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	c := &peer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
	require.Equal(t, packet.Success, c.connect(id, change...).Code)
	return c
}

func encode(t testing.TB, v packet.Version, p packet.Packet) []byte {
	t.Helper()
	out, err := p.Append(nil, v)
	require.NoError(t, err)
	return out
}

// BenchmarkQoS0 sends messages of 64 bytes from publishers that write in
// batches to one subscriber each, over TCP, and waits until every one has arrived.
func BenchmarkQoS0(b *testing.B) {
	benchmarkQoS0(b, nil)
}

// BenchmarkQoS0WithACL is BenchmarkQoS0 with an Authorizer, whose decisions are
// remembered.
func BenchmarkQoS0WithACL(b *testing.B) {
	benchmarkQoS0(b, &broker.Config{ACL: &aclFunc{
		f: func(context.Context, *broker.ClientInfo, broker.Action, string) (bool, error) { return true, nil },
	}})
}

func benchmarkQoS0(b *testing.B, cfg *broker.Config) {
	for _, pairs := range []int{1, 8} {
		b.Run(fmt.Sprintf("pairs=%d", pairs), func(b *testing.B) {
			br := newBroker(b, cfg)
			addr := serveTCP(b, br)
			type pair struct{ pub, sub *peer }
			var all []pair
			for i := range pairs {
				p := pair{dialTCP(b, addr, fmt.Sprint("pub", i), v311), dialTCP(b, addr, fmt.Sprint("sub", i), v311)}
				p.sub.subscribe(packet.Subscription{Filter: fmt.Sprint("bench/", i)})
				all = append(all, p)
			}
			each := b.N/pairs + 1
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for i, p := range all {
				one := encode(b, packet.V311, &packet.Publish{Topic: fmt.Sprint("bench/", i), Payload: make([]byte, 64)})
				wg.Go(func() {
					batch := bytes.Repeat(one, 256)
					for n := each; n > 0; n -= 256 {
						if _, err := p.pub.conn.Write(batch[:len(one)*min(n, 256)]); err != nil {
							b.Error(err)
							return
						}
					}
					routed(b, br, p.pub)
				})
				wg.Go(func() {
					if _, err := io.CopyN(io.Discard, p.sub.conn, int64(each*len(one))); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(each*pairs)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// routed returns when the broker has routed all that pub has sent. If the machine had
// no time for a subscriber within StallTimeout, the broker has dropped messages of QoS
// 0, as it must, and the benchmark ends in failure: it would wait for them for ever.
func routed(b *testing.B, br *broker.Broker, pub *peer) {
	_, err := pub.conn.Write(encode(b, packet.V311, &packet.Pingreq{}))
	if err == nil {
		_, err = pub.read()
	}
	if err != nil {
		b.Error(err)
	}
	if n := br.Stats().Dropped[broker.DropQueueFull]; n > 0 {
		b.Errorf("%d messages were dropped: a subscriber got no time to read", n)
		br.Close() // the subscribers' connections end
	}
}

// BenchmarkFanOut sends messages of 64 bytes from one publisher to 100 subscribers.
func BenchmarkFanOut(b *testing.B) {
	br := newBroker(b, nil)
	addr := serveTCP(b, br)
	const subs = 100
	pub := dialTCP(b, addr, "pub", v311)
	one := encode(b, packet.V311, &packet.Publish{Topic: "bench", Payload: make([]byte, 64)})
	each := b.N/subs + 1
	var wg sync.WaitGroup
	for i := range subs {
		s := dialTCP(b, addr, fmt.Sprint("sub", i), v311)
		s.subscribe(packet.Subscription{Filter: "bench"})
		wg.Go(func() {
			if _, err := io.CopyN(io.Discard, s.conn, int64(each*len(one))); err != nil {
				b.Error(err)
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	batch := bytes.Repeat(one, 256)
	for n := each; n > 0; n -= 256 {
		if _, err := pub.conn.Write(batch[:len(one)*min(n, 256)]); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.ReportMetric(float64(each*subs)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkIdle measures what an idle connection costs: all of the broker's side
// and none of the client's, which is a bare socket that was measured before.
func BenchmarkIdle(b *testing.B) {
	const conns = 2000
	for b.Loop() {
		br, err := broker.New(nil)
		require.NoError(b, err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)

		// The sockets of both sides, without a broker. What they cost is the
		// difference to the kernel's and the runtime's own; a bare server
		// would hold its half too, so half of it counts.
		before := inUse()
		clients := make([]net.Conn, conns)
		servers := make(chan net.Conn, conns)
		for i := range clients {
			clients[i], err = net.Dial("tcp", l.Addr().String())
			require.NoError(b, err)
			c, err := l.Accept()
			require.NoError(b, err)
			servers <- c
		}
		sockets := inUse() - before

		var wg sync.WaitGroup
		for i := range clients {
			s := <-servers
			wg.Go(func() { br.ServeLink(context.Background(), mqtt.NewConnLink(s, mqtt.TCP)) })
			_, err := clients[i].Write(encode(b, packet.V311, &packet.Connect{
				Version: packet.V311, ClientID: fmt.Sprintf("client-%06d", i), CleanStart: true, KeepAlive: 60}))
			require.NoError(b, err)
			_, err = io.ReadFull(clients[i], make([]byte, 4))
			require.NoError(b, err)
			_, err = clients[i].Write(encode(b, packet.V311, &packet.Subscribe{PacketID: 1,
				Subscriptions: []packet.Subscription{{Filter: fmt.Sprintf("devices/%06d/commands", i)}}}))
			require.NoError(b, err)
			_, err = io.ReadFull(clients[i], make([]byte, 5))
			require.NoError(b, err)
		}
		for range 3 { // stacks shrink with garbage collections
			runtime.GC()
			time.Sleep(10 * time.Millisecond)
		}
		broker := inUse() - before - sockets
		b.ReportMetric(float64(broker+sockets/2)/conns, "B/conn")
		b.ReportMetric(float64(broker)/conns, "B/conn-above-socket")
		b.ReportMetric(float64(runtime.NumGoroutine())/conns, "goroutines/conn")
		br.Close()
		wg.Wait()
		l.Close()
		for _, c := range clients {
			c.Close()
		}
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
