//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// firstPackets returns what a client begins with when it dials addr.
func firstPackets(t *testing.T, network *transporttest.Network, addr net.Addr) [][]byte {
	from := netip.MustParseAddrPort("198.51.100.9:9")
	e, err := open(network.Socket(from.String(), transporttest.Link{}, transporttest.Link{}), nil)
	require.NoError(t, err)
	var sent [][]byte
	network.Filter(func(p transporttest.Packet) transporttest.Verdict {
		if p.From == from {
			sent = append(sent, bytes.Clone(p.Data))
		}
		return transporttest.Verdict{Drop: p.From == from}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with cancel
		defer close(done)
		e.Dial(ctx, addr, &transport.Config{TLS: testcert.NewCA().Client("localhost", "test")})
	}()
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
	packets := slices.Clone(sent) // without what follows from cancel
	cancel()
	<-done
	require.NoError(t, e.Close())
	network.Filter(nil)
	require.NotEmpty(t, packets)
	return packets
}

// A packet of a client's first message can be had by anybody. What comes of
// 10,000 of them is bounded.
func TestAFloodFromManyPortsCostsLittleMemory(t *testing.T) {
	simulated(t, func(t *testing.T) {
		const flood = 10_000
		r := newRig(t, nil, nil)
		network := r.network
		c, s := r.dial() // what is made once exists
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
		time.Sleep(time.Minute)
		synctest.Wait()
		before := capi.Memory()
		var heap, peak runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&heap)

		n := flood
		if testing.Short() {
			n = flood / 10
		}
		for i := range n {
			pc := network.Socket(fmt.Sprintf("203.0.113.%d:%d", 1+i/5000, 1+i%5000), transporttest.Link{}, transporttest.Link{})
			// Random connection IDs, random keys: an Initial like any other until
			// it is opened, which it cannot.
			p := longPacket(version1, fmt.Sprintf("%08d", i), "", minInitialSize)
			_, err := pc.WriteTo(p, r.server.Addr())
			require.NoError(t, err)
			require.NoError(t, pc.Close())
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&peak)
		require.Less(t, capi.Memory()-before, int64(64<<20))
		require.Less(t, int64(peak.HeapAlloc)-int64(heap.HeapAlloc), int64(64<<20))
		require.LessOrEqual(t, int(r.server.Stats().ConnsOpen), maxUnvalidated)

		c, s = r.dial()
		require.NoError(t, c.Handshake(r.Context()))
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, r.server.Stats().ConnsOpen)
		require.Zero(t, r.server.waiting.Load())
		require.Empty(t, r.server.table.ids)
	})
}

// Many first packets that are good, too: each makes a connection, up to the
// limit.
func TestHandshakesThatGoNowhereAreForgotten(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		packets := firstPackets(t, r.network, r.server.Addr())
		pc := r.network.Socket("203.0.113.1:1", transporttest.Link{}, transporttest.Link{})
		for _, p := range packets {
			_, err := pc.WriteTo(p, r.server.Addr())
			require.NoError(t, err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.EqualValues(t, 1, r.server.Stats().ConnsOpen)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Zero(t, r.server.Stats().ConnsOpen)
		require.Empty(t, r.server.table.ids)
		require.NoError(t, pc.Close())
	})
}

// The client's first message is two packets, and the second arrives first.
func TestAFirstMessageThatArrivesOutOfOrderIsAnswered(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		packets := firstPackets(t, r.network, r.server.Addr())
		require.Greater(t, len(packets), 1, "a key share of ML-KEM does not fit into one packet")
		r.network.Filter(nil)
		held := 0
		server := addrPortOf(t, r.server.Addr())
		r.network.Filter(func(p transporttest.Packet) transporttest.Verdict {
			v := transporttest.Verdict{}
			if p.To == server && held == 0 {
				held++
				v.Delay = 15 * time.Millisecond
			}
			return v
		})
		start := time.Now()
		c, _ := r.dial()
		require.NoError(t, c.Handshake(r.Context()))
		require.Equal(t, 1, held)
		require.Less(t, time.Since(start), time.Second)
	})
}

func addrPortOf(t *testing.T, a net.Addr) netip.AddrPort {
	ap, err := addrPort(a)
	require.NoError(t, err)
	return ap
}

func TestAHandshakeEndsInTimeThoughACallbackBlocks(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		simulated(t, func(t *testing.T) {
			block := make(chan struct{})
			r := newRig(t, nil, func(c *transport.Config) {
				c.HandshakeTimeout = 3 * time.Second
				c.TLS.VerifyPeerCertificate = nil
				c.TLS.VerifyConnection = func(tls.ConnectionState) error { <-block; return nil }
			})
			start := time.Now()
			_, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
			require.ErrorIs(t, err, transport.ErrHandshakeTimeout)
			require.Equal(t, 3*time.Second, time.Since(start))
			close(block)
		})
	})
	t.Run("server", func(t *testing.T) {
		simulated(t, func(t *testing.T) {
			told := make(chan time.Time, 1)
			r := newRig(t, func(c *transport.Config) {
				c.HandshakeTimeout = 3 * time.Second
				c.TLS.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
					<-i.Context().Done()
					told <- time.Now()
					return nil, i.Context().Err()
				}
			}, func(c *transport.Config) { c.HandshakeTimeout = 3 * time.Second })
			start := time.Now()
			_, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
			require.ErrorIs(t, err, transport.ErrHandshakeTimeout)
			require.InDelta(t, 3*time.Second, (<-told).Sub(start), float64(100*time.Millisecond))
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Zero(t, r.server.Stats().ConnsOpen)
		})
	})
}

func fds(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("the number of open files cannot be told")
	}
	return len(all)
}

func TestConnectionsOnSocketsOfTheKernelLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("a second or more")
	}
	files, goroutines, memory := 0, 0, int64(0)
	n := 500
	for round := range 3 { // the first makes what is made once
		if round == 1 {
			files, goroutines, memory = fds(t), runtime.NumGoroutine(), capi.Memory()
			n = 500
		} else if round == 0 {
			n = 20
		}
		l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
		for i := range n {
			c, s := l.dial(t, "127.0.0.1")
			first, second := c, s
			if i%2 == 1 {
				first, second = s, c
			}
			require.NoError(t, first.CloseWithError(1, "done"))
			<-second.Context().Done()
		}
		require.NoError(t, l.client.Close())
		require.NoError(t, l.server.Close())
		for _, e := range []*endpoint{l.client, l.server} {
			e.mu.Lock()
			require.Empty(t, e.conns)
			e.mu.Unlock()
			require.Zero(t, e.waiting.Load())
		}
	}
	require.LessOrEqual(t, fds(t), files, "open files; those of earlier tests may have been closed since")
	// Eventually has a goroutine itself.
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+1 }, patience, 10*time.Millisecond)
	runtime.GC()
	require.Eventually(t, func() bool { runtime.GC(); return capi.Memory() <= memory+64<<10 }, patience, 10*time.Millisecond,
		"C memory: %d, was %d", capi.Memory(), memory)
}

// Everything ends in every order, with everything that can go on going on.
func TestEverythingEndsInEveryOrder(t *testing.T) {
	for round := range 30 {
		l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
		c, s := l.dial(t, "127.0.0.1")
		w, err := c.OpenStream(t.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("x"))
		require.NoError(t, err)
		r, err := s.AcceptStream(t.Context())
		require.NoError(t, err)
		fresh := listenUDP(t, "udp4", "127.0.0.1:0")
		all := []func(){
			func() { w.Write(make([]byte, 1<<20)) },
			func() { io.Copy(io.Discard, r) },
			func() { w.Close() },
			func() { w.CancelRead(1) },
			func() { r.CancelWrite(2) },
			func() { c.Migrate(t.Context(), fresh) },
			func() { c.OpenStream(t.Context()) },
			func() { s.AcceptStream(t.Context()) },
			func() { s.ReceiveDatagram(t.Context()) },
			func() { c.State(); s.Stats() },
			func() { c.CloseWithError(1, "c") },
			func() { s.CloseWithError(2, "s") },
			func() { l.ln.Close() },
			func() { l.client.Close() },
			func() { l.server.Close() },
		}
		all = slices.Concat(all[round%len(all):], all[:round%len(all)])
		var wg sync.WaitGroup
		for i, f := range all {
			wg.Go(func() {
				for range i * round % 7 {
					runtime.Gosched()
				}
				f()
			})
		}
		wg.Wait()
		require.NoError(t, l.client.Close())
		require.NoError(t, l.server.Close())
		require.Zero(t, l.client.Stats().ConnsOpen)
		require.Zero(t, l.server.Stats().ConnsOpen)
		fresh.Close()
	}
}

func TestKeysAreUpdatedWhileDataFlows(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
		got := make(chan []byte, 1)
		go func() { // ends with the stream
			a, err := s.AcceptStream(r.Context())
			if err != nil {
				return
			}
			b, _ := io.ReadAll(a)
			got <- b
		}()
		updates := 0
		for part := range slices.Chunk(data, 8000) {
			_, err = w.Write(part)
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
			for _, side := range []*conn{c, s}[:1+updates%2] {
				require.NoError(t, side.lock())
				if side.cc.InitiateKeyUpdate(side.ep.now()) == nil {
					updates++
				}
				side.flush(side.ep.now())
				side.unlock()
			}
		}
		require.NoError(t, w.Close())
		require.True(t, bytes.Equal(data, <-got))
		require.Greater(t, updates, 5)
	})
}

// A writer that does not take what it gets costs no more than the queue.
func TestALogThatNobodyTakesIsBounded(t *testing.T) {
	var g group
	block := make(chan struct{})
	w := &blockedWriter{block: block}
	f := &qlogFile{w: w, group: &g}
	record := append([]byte{0x1e}, bytes.Repeat([]byte("x"), 1000)...)
	for range 10 * qlogQueue / len(record) {
		f.write(record)
	}
	f.mu.Lock()
	require.LessOrEqual(t, len(f.queue), qlogQueue)
	f.mu.Unlock()
	f.close()
	f.close()
	f.write(record)
	close(block)
	g.wait()
	require.Equal(t, 1, w.closed)
	require.LessOrEqual(t, w.n, 2*qlogQueue)
	require.Zero(t, w.n%len(record), "whole records")
}

type blockedWriter struct {
	block     chan struct{}
	n, closed int
}

func (w *blockedWriter) Write(p []byte) (int, error) {
	<-w.block
	w.n += len(p)
	return len(p), nil
}

func (w *blockedWriter) Close() error { w.closed++; return nil }

func TestASocketThatFailsDuringAMigrationEndsTheMigrationOnly(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		pc := r.network.Socket("198.51.100.1:50001", transporttest.Link{}, transporttest.Link{Loss: 1})
		failed := make(chan error, 1)
		go func() { failed <- c.Migrate(r.Context(), pc) }() // ends with the socket
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, pc.Close())
		require.Error(t, <-failed)
		time.Sleep(time.Second)
		require.NoError(t, c.Context().Err())
		w, err := c.OpenUniStream(r.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("still here"))
		require.NoError(t, err)
		a, err := s.AcceptUniStream(r.Context())
		require.NoError(t, err)
		b := make([]byte, 10)
		_, err = io.ReadFull(a, b)
		require.NoError(t, err)
		require.Equal(t, "still here", string(b))
	})
}

func TestAMigrationEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(*rig, *conn){
		"connection": func(_ *rig, c *conn) { c.CloseWithError(3, "") },
		"endpoint":   func(r *rig, _ *conn) { r.client.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T) {
				r := newRig(t, nil, nil)
				c, _ := r.dial()
				pc := r.network.Socket("198.51.100.1:50001", transporttest.Link{}, transporttest.Link{Loss: 1})
				failed := make(chan error, 1)
				go func() { failed <- c.Migrate(r.Context(), pc) }() // ends with the connection
				time.Sleep(100 * time.Millisecond)
				end(r, c)
				require.ErrorIs(t, <-failed, context.Cause(c.Context()))
				require.NoError(t, pc.SetReadDeadline(time.Now().Add(time.Second)))
				_, _, err := pc.ReadFrom(make([]byte, 1500))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the socket is the caller's, and works")
				require.NoError(t, pc.Close())
			})
		})
	}
}

// sessionsOf is a SessionCache of one.
type sessionsOf struct {
	mu sync.Mutex
	b  []byte
}

func (c *sessionsOf) Take(string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b
}

func (c *sessionsOf) Put(_ string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.b = b
}

// The server has lost its keys and allows fewer streams than before: those who
// wait to open one with early data wait for the handshake.
func TestThoseWhoWaitForAStreamGetItAfterEarlyDataWasRefused(t *testing.T) {
	simulated(t, func(t *testing.T) {
		cache := new(sessionsOf)
		r := newRig(t, func(c *transport.Config) { c.EarlyData, c.MaxStreams = true, 2 }, func(c *transport.Config) {
			c.EarlyData, c.Sessions = true, cache
		})
		c, s := r.dial()
		time.Sleep(time.Second)
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
		require.NotEmpty(t, cache.Take(""))
		l := r.ln.(*listener)
		l.cfg.tls.SetSessionTicketKeys([][32]byte{{7}})

		tc, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		require.False(t, tc.State().HandshakeComplete)
		for range 2 {
			w, err := tc.OpenStream(r.Context())
			require.NoError(t, err)
			_, err = w.Write([]byte("early"))
			require.NoError(t, err)
		}
		results := make(chan error, 3)
		for range 3 {
			go func() { // ends with the handshake or the endpoint
				_, err := tc.OpenStream(r.Context())
				results <- err
			}()
		}
		synctest.Wait()
		require.ErrorIs(t, tc.Handshake(r.Context()), transport.ErrEarlyDataRejected)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, results, 2, "two streams are allowed")
		require.NoError(t, <-results)
		require.NoError(t, <-results)
		require.NoError(t, tc.CloseWithError(5, ""))
		err = <-results
		require.True(t, errors.Is(err, &transport.ApplicationError{Code: 5}), "%v", err)
	})
}
