//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// A rig is two endpoints on a simulated network, with a listener on one.
type rig struct {
	*testing.T
	network        *transporttest.Network
	client, server *endpoint
	ln             transport.Listener
	cfg            *transport.Config // the client's
}

func newRig(t *testing.T, server, client func(*transport.Config)) *rig {
	ca := testcert.NewCA()
	net := transporttest.NewNetwork(1)
	t.Cleanup(net.Close)
	link := transporttest.Link{Latency: 10 * time.Millisecond}
	open := func(addr string) *endpoint {
		e, err := open(net.Socket(addr, link, transporttest.Link{}), nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, e.Close()) })
		return e
	}
	r := &rig{T: t, network: net, client: open("198.51.100.1:50000"), server: open("192.0.2.1:4433")}
	cfg := &transport.Config{TLS: ca.Server("localhost", "test")}
	r.cfg = &transport.Config{TLS: ca.Client("localhost", "test")}
	if server != nil {
		server(cfg)
	}
	if client != nil {
		client(r.cfg)
	}
	var err error
	r.ln, err = r.server.Listen(cfg)
	require.NoError(t, err)
	return r
}

// dial returns both ends of a new connection.
func (r *rig) dial() (client, server *conn) {
	r.Helper()
	c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
	require.NoError(r, err)
	s, err := r.ln.Accept(r.Context())
	require.NoError(r, err)
	return c.(*conn), s.(*conn)
}

func simulated(t *testing.T, f func(*testing.T)) { synctest.Test(t, f) }

// bubbleGoroutines counts the goroutines of the caller's bubble: others of the
// program come and go.
func bubbleGoroutines(t *testing.T) int {
	t.Helper()
	b := make([]byte, 16<<20)
	_, rest, _ := strings.Cut(string(b[:runtime.Stack(b, false)]), "synctest bubble ")
	id, _, inBubble := strings.Cut(rest, "]")
	require.True(t, inBubble)
	return strings.Count(string(b[:runtime.Stack(b, true)]), "synctest bubble "+id+"]")
}

func TestConnectionsThatHaveEndedLeaveNothing(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		cycle := func() {
			c, s := r.dial()
			w, err := c.OpenStream(r.Context())
			require.NoError(t, err)
			_, err = w.Write([]byte("hello"))
			require.NoError(t, err)
			a, err := s.AcceptStream(r.Context())
			require.NoError(t, err)
			_, err = io.ReadFull(a, make([]byte, 3)) // the rest stays unread
			require.NoError(t, err)
			require.NoError(t, c.CloseWithError(1, "done"))
			<-s.Context().Done()
		}
		quiet := func() (goroutines int, memory int64) {
			time.Sleep(time.Minute) // what is remembered of connections is forgotten
			synctest.Wait()
			runtime.GC()
			return bubbleGoroutines(t), capi.Memory()
		}
		for range 3 {
			cycle()
		}
		goroutines, memory := quiet()
		n := 1000
		if testing.Short() {
			n = 100
		}
		for range n {
			cycle()
		}
		after, memoryAfter := quiet()
		require.Equal(t, goroutines, after, "goroutines")
		require.LessOrEqual(t, memoryAfter, memory+int64(n), "bytes of C memory")
		for _, e := range []*endpoint{r.client, r.server} {
			e.table.mu.Lock()
			require.Empty(t, e.table.ids)
			require.Empty(t, e.table.resets)
			e.table.mu.Unlock()
			e.mu.Lock()
			require.Empty(t, e.conns)
			e.mu.Unlock()
		}
	})
}

func TestDialDoesNotWaitForACallbackOfTheApplication(t *testing.T) {
	simulated(t, func(t *testing.T) {
		block := make(chan struct{})
		r := newRig(t, nil, func(c *transport.Config) {
			c.TLS.VerifyConnection = func(tls.ConnectionState) error { <-block; return nil }
		})
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		_, err := r.client.Dial(ctx, r.server.Addr(), r.cfg)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, r.client.Stats().ConnsOpen-1, "the connection ends when the callback returns")
		close(block)
		synctest.Wait()
		require.Zero(t, r.client.Stats().ConnsOpen)
	})
}

func TestAConnectionInACallbackOfTheApplicationAnswersItsMethods(t *testing.T) {
	simulated(t, func(t *testing.T) {
		block, asked := make(chan struct{}), make(chan struct{})
		r := newRig(t, func(c *transport.Config) {
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				close(asked)
				<-block
				return nil, nil
			}
		}, nil)
		go func() { // ends with the server's refusal
			c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
			if err == nil {
				<-c.Context().Done()
			}
		}()
		<-asked
		r.server.mu.Lock()
		var c *conn
		for c = range r.server.conns {
		}
		r.server.mu.Unlock()
		start := time.Now()
		require.False(t, c.State().HandshakeComplete)
		require.Zero(t, c.Stats().StreamsOpen)
		require.NoError(t, c.CloseWithError(7, "no"))
		require.ErrorIs(t, context.Cause(c.Context()), &transport.ApplicationError{Code: 7})
		require.Zero(t, time.Since(start))
		close(block)
	})
}

func TestOneMessageAllocatesLittle(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		b := make([]byte, 32)
		_, err = w.Write(b)
		require.NoError(t, err)
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		_, err = io.ReadFull(a, b)
		require.NoError(t, err)
		time.Sleep(time.Second)
		// The simulated network and its packets are part of it.
		n := testing.AllocsPerRun(50, func() {
			w.Write(b)
			io.ReadFull(a, b)
		})
		limit := 30.0
		if instrumented {
			limit = 40 // the race detector makes sync.Pool forget
		}
		require.Less(t, n, limit)
	})
}

func TestAConnectionWhoseNewIDIsAnothersEnds(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, _ := r.dial()
		d, _ := r.dial()
		id := []byte("an ID")
		require.True(t, r.client.addConnID(d, id))
		ev := capi.Event{Type: capi.ConnIDAdded, CIDLen: uint8(len(id))}
		copy(ev.CID[:], id)
		require.NoError(t, c.lock())
		c.event(&ev)
		c.unlock()
		var ended *transport.ProtocolError
		require.ErrorAs(t, context.Cause(c.Context()), &ended)
		require.EqualValues(t, codeInternalError, ended.Code)
		require.ErrorIs(t, ended, errDuplicateID)
		require.NoError(t, d.Context().Err())
	})
}
