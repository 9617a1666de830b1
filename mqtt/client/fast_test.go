package client

import (
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// countedConn counts writes.
type countedConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func TestWhatIsPublishedWhileAWriteIsUnderWayGoesOutInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		var writes atomic.Int32
		cfg.Dial = func(ctx context.Context, u *url.URL) (net.Conn, error) {
			conn, err := l.dial(ctx, u)
			return countedConn{conn, &writes}, err
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		writes.Store(0)
		const n = 200
		for i := range n {
			require.NoError(t, c.PublishAsync(t.Context(), msg("t", packet.QoS(i%3)), nil))
			if i == 0 {
				synctest.Wait() // the writer is in its first write, which nobody reads
			}
		}
		for i := range n {
			require.Equal(t, "t", expect[*packet.Publish](p).Topic, "%d", i)
		}
		require.EqualValues(t, 2, writes.Load())
		require.NoError(t, c.Close())
		p.close()
	})
}

func TestPublishingWithQoS0AllocatesNothing(t *testing.T) {
	url := serveOne(t, func(conn net.Conn, _ *mqtt.Reader) { _, _ = io.Copy(io.Discard, conn) })
	for _, q := range []Queue{{}, {QoS0: true}, {QoS0: true, File: filepath.Join(t.TempDir(), "queue")}} {
		c, err := Dial(t.Context(), &Config{URL: url, Queue: q})
		require.NoError(t, err)
		p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64)}
		require.Zero(t, testing.AllocsPerRun(20_000, func() {
			if err := c.PublishAsync(t.Context(), p, nil); err != nil {
				t.Fatal(err)
			}
		}))
		require.NoError(t, c.Close())
	}
}

func TestAcknowledgementsBeforeAPacketThatEndsTheConnectionCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		const n = 2*ackBatch + 10
		acked := 0
		for range n {
			require.NoError(t, c.PublishAsync(t.Context(), msg("t", 1), func(err error) {
				if err == nil {
					acked++
				}
			}))
		}
		var b []byte
		for i := range n {
			id := expect[*packet.Publish](p).PacketID
			require.EqualValues(t, i+1, id)
			b, _ = (&packet.Puback{Ack: ack(id)}).Append(b, packet.V5)
		}
		p.raw(append(b, 0, 0)) // a packet type that there is not
		expect[*packet.Disconnect](p)
		synctest.Wait()
		require.Equal(t, n, acked)
		p.close()
		require.NoError(t, c.Close())
	})
}

func BenchmarkPublishAsyncQoS1InAFile(b *testing.B) {
	benchmarkQoS1(b, Queue{File: filepath.Join(b.TempDir(), "queue")})
}
