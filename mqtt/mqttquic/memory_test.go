package mqttquic_test

import (
	"context"
	"io"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// connect311 is an MQTT 3.1.1 CONNECT without keep-alive and with a client ID of
// two bytes, and connack what answers it.
var (
	connect311 = []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, 2, 'i', 'd'}
	connack    = []byte{0x20, 2, 0, 0}
)

// TestIdleConnectionCostsLittleMoreThanQUICItself compares idle connections of
// the engine, with a stream each, with as many idle clients of a broker. Both
// sides are in this process; the clients are the same.
func TestIdleConnectionCostsLittleMoreThanQUICItself(t *testing.T) {
	const n = 100
	most := int64(15 << 10) // bytes
	if testbuild.Race {
		most *= 2 // stacks are that much deeper
	}
	serverTLS, clientTLS := testcert.New(mqttquic.ALPN)
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			measure := func(addr net.Addr, exchange func(s transport.Stream, i int)) int64 {
				ep, err := e.Open(udp(t), nil)
				require.NoError(t, err)
				defer ep.Close()
				dial := func(i int) transport.Conn {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					c, err := ep.Dial(ctx, addr, &transport.Config{TLS: clientTLS, IdleTimeout: time.Hour, HandshakeTimeout: time.Minute})
					require.NoError(t, err)
					s, err := c.OpenStream(ctx)
					require.NoError(t, err)
					exchange(s, i)
					return c
				}
				for i := range 20 {
					dial(i) // what exists once
				}
				before := memory()
				conns := make([]transport.Conn, n)
				for i := range conns {
					conns[i] = dial(1000 + i)
				}
				cost := (memory() - before) / n
				runtime.KeepAlive(conns)
				return cost
			}

			// QUIC itself: a connection, an accepted stream, nobody reading.
			ep, err := e.Open(udp(t), nil)
			require.NoError(t, err)
			ln, err := ep.Listen(&transport.Config{TLS: serverTLS, IdleTimeout: time.Hour, HandshakeTimeout: time.Minute})
			require.NoError(t, err)
			accepted := make(chan struct{})
			go func() { // ends with ep
				defer close(accepted)
				var keep []transport.Stream
				for {
					c, err := ln.Accept(context.Background())
					if err != nil {
						runtime.KeepAlive(keep)
						return
					}
					s, err := c.AcceptStream(context.Background())
					if err != nil {
						continue
					}
					buf := make([]byte, len(connect311))
					if _, err := io.ReadFull(s, buf); err != nil {
						continue
					}
					_, _ = s.Write(connack)
					keep = append(keep, s)
				}
			}()
			exchange := func(s transport.Stream, i int) {
				p := append([]byte{}, connect311...)
				p[14], p[15] = '0'+byte(i/64%64), '0'+byte(i%64)
				_, err := s.Write(p)
				require.NoError(t, err)
				got := make([]byte, len(connack))
				_, err = io.ReadFull(s, got)
				require.NoError(t, err)
				require.Equal(t, connack, got)
			}
			bare := measure(ep.Addr(), exchange)
			require.NoError(t, ep.Close())
			<-accepted

			b, err := broker.New(nil)
			require.NoError(t, err)
			l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS, HandshakeTimeout: time.Minute})
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- b.ServeLinks(l) }() // ends with b.Close
			full := measure(l.Addr(), exchange)
			require.GreaterOrEqual(t, b.Stats().Connections[mqtt.QUIC].Total, uint64(n))
			require.NoError(t, b.Close())
			require.NoError(t, <-served)
			require.NoError(t, l.CloseNow())

			t.Logf("bytes per idle connection, client included: %d bare, %d with a broker", bare, full)
			require.Less(t, full-bare, most)
		})
	}
}

func udp(t *testing.T) net.PacketConn {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	return pc
}

// memory is what the program uses after a collection, goroutines included, once it
// no longer falls: what a handshake needed goes when its last packet has come, and
// the stacks of goroutines that have ended with the collection after the next.
func memory() int64 {
	least, same := int64(math.MaxInt64), 0
	for same < 5 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if now := int64(m.HeapAlloc + m.StackInuse); now < least-least/200 {
			least, same = now, 0
		} else {
			same++
		}
		time.Sleep(20 * time.Millisecond)
	}
	return least
}
