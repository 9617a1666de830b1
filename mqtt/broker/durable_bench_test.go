package broker_test

import (
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
	"github.com/anyquic/anyquic/mqtt/store/pebblestore"
)

// storeDir is where benchmarks write: DURABLE_DIR, or a folder that goes away.
func storeDir(b *testing.B) string {
	if dir := os.Getenv("DURABLE_DIR"); dir != "" {
		d, err := os.MkdirTemp(dir, "bench")
		require.NoError(b, err)
		b.Cleanup(func() { os.RemoveAll(d) })
		return d
	}
	return b.TempDir()
}

// Eight publishers with windows of 256 send 64 bytes with QoS 1 to eight durable
// subscribers, each to one, over TCP on loopback. With a store each PUBACK comes
// after an fsync.
func BenchmarkDurableQoS1(b *testing.B) {
	b.Run("memory", func(b *testing.B) { benchmarkQoS1(b, nil, 0) })
	b.Run("always", func(b *testing.B) { benchmarkQoS1(b, openStore(b), 0) })
	b.Run("interval=100ms", func(b *testing.B) { benchmarkQoS1(b, openStore(b), 100*time.Millisecond) })
}

func openStore(b *testing.B) store.Store {
	s, err := pebblestore.Open(storeDir(b), nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	return s
}

func benchmarkQoS1(b *testing.B, s store.Store, interval time.Duration) {
	br, err := broker.New(&broker.Config{Store: s, SyncInterval: interval})
	require.NoError(b, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	go br.Serve(l, mqtt.TCP) // ends with Close
	b.Cleanup(func() { br.Close() })
	const pairs, window = 8, 256
	dialTCP := func(id string) *peer {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		p := &peer{t: b, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
		require.Equal(b, packet.Success, p.connect(id, keep(3600)).Code)
		return p
	}
	var all sync.WaitGroup
	start := make(chan struct{})
	each := max(b.N/pairs, 1)
	for i := range pairs {
		topic := fmt.Sprint("bench/", i)
		sub, pub := dialTCP(fmt.Sprint("sub", i)), dialTCP(fmt.Sprint("pub", i))
		sub.subscribe(packet.Subscription{Filter: topic, QoS: 1})
		all.Go(func() {
			defer sub.conn.Close()
			var out []byte
			for n := 0; n < each; {
				p, err := sub.read()
				if err != nil {
					b.Error(err)
					return
				}
				if p, ok := p.(*packet.Publish); ok {
					n++
					out, _ = (&packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}}).Append(out, packet.V5)
				}
				if !sub.r.Ready() || len(out) > 4000 {
					sub.conn.Write(out)
					out = out[:0]
				}
			}
			sub.conn.Write(out)
		})
		all.Go(func() {
			defer pub.conn.Close()
			<-start
			p := &packet.Publish{Topic: topic, Payload: make([]byte, 64), QoS: 1}
			var out []byte
			sent, acked := 0, 0
			for acked < each {
				for sent < each && sent-acked < window {
					p.PacketID = uint16(sent%60000 + 1)
					out, _ = p.Append(out, packet.V5)
					sent++
				}
				pub.conn.Write(out)
				out = out[:0]
				for {
					if _, err := pub.read(); err != nil {
						b.Error(err)
						return
					}
					acked++
					if !pub.r.Ready() || acked == each {
						break
					}
				}
			}
		})
	}
	b.ResetTimer()
	close(start)
	all.Wait()
	b.ReportMetric(float64(each*pairs)/b.Elapsed().Seconds(), "msg/s")
	if st := br.Stats().Store; st != nil {
		b.ReportMetric(float64(each*pairs)/float64(st.Group.Commits), "msg/commit")
	}
}

// A broker starts with a million retained messages.
func BenchmarkStartWithRetained(b *testing.B) {
	const messages = 1_000_000
	dir := storeDir(b)
	s, err := pebblestore.Open(dir, nil)
	require.NoError(b, err)
	var batch store.Batch
	for i := range messages {
		m := retainedMessage(i)
		r := store.Record{Kind: store.Retained, Message: m}
		key := r.AppendKey(nil)
		value, err := r.AppendValue(nil, key)
		require.NoError(b, err)
		batch.Put(key, value)
		if batch.Len() == 10000 {
			require.NoError(b, s.Apply(&batch, false))
			batch.Reset()
		}
	}
	require.NoError(b, s.Apply(&batch, true))
	require.NoError(b, s.Close())
	b.ReportAllocs()
	for b.Loop() {
		s, err := pebblestore.Open(dir, nil)
		require.NoError(b, err)
		br, err := broker.New(&broker.Config{Store: s, MaxRetainedBytes: -1})
		require.NoError(b, err)
		b.StopTimer()
		require.Equal(b, messages, br.Stats().Retained)
		require.NoError(b, br.Close())
		require.NoError(b, s.Close())
		b.StartTimer()
	}
}

func retainedMessage(i int) *session.Message {
	return session.NewMessage(time.Time{}, &packet.Publish{
		Topic: fmt.Sprintf("site/%d/building/%d/sensor/%d", i%100, i/100%100, i/10000), Payload: make([]byte, 64), Retain: true,
	}, "publisher")
}
