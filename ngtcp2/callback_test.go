//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// A hangingRig is a rig whose client has early data under way, while the
// application's VerifyConnection does not return before let is called.
type hangingRig struct {
	*rig
	c    *conn
	let  func()
	hung chan struct{} // closed when the callback runs
}

func newHangingRig(t *testing.T, server, client func(*transport.Config)) *hangingRig {
	var hang atomic.Bool
	hung, leave := make(chan struct{}), make(chan struct{})
	r, _ := newEarlyRig(t, func(c *transport.Config) {
		c.EarlyData = true
		if server != nil {
			server(c)
		}
	}, func(c *transport.Config) {
		c.TLS.VerifyConnection = func(tls.ConnectionState) error {
			if hang.Load() {
				close(hung)
				<-leave
			}
			return nil
		}
		if client != nil {
			client(c)
		}
	})
	hang.Store(true)
	c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
	require.NoError(t, err)
	require.False(t, c.(*conn).complete.Load())
	let := sync.OnceFunc(func() { close(leave) })
	t.Cleanup(let) // the endpoint's Close waits for the callback
	return &hangingRig{rig: r, c: c.(*conn), hung: hung, let: let}
}

// takes checks that f takes that long.
func takes(t *testing.T, what string, d time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	require.Equal(t, d, time.Since(start), what)
}

func TestCallsEndWithTheirContextOrDeadlineWhileACallbackRuns(t *testing.T) {
	simulated(t, func(t *testing.T) {
		patient := func(c *transport.Config) { c.Datagrams, c.HandshakeTimeout = true, -1 }
		r := newHangingRig(t, patient, patient)
		c := r.c
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("early"))
		require.NoError(t, err)
		<-r.hung
		within := func(what string, f func(context.Context) error) {
			takes(t, what, time.Second, func() {
				ctx, cancel := context.WithTimeout(r.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, f(ctx), context.DeadlineExceeded, what)
			})
		}
		within("AcceptStream", func(ctx context.Context) error { _, err := c.AcceptStream(ctx); return err })
		within("AcceptUniStream", func(ctx context.Context) error { _, err := c.AcceptUniStream(ctx); return err })
		within("OpenStream", func(ctx context.Context) error { _, err := c.OpenStream(ctx); return err })
		within("OpenUniStream", func(ctx context.Context) error { _, err := c.OpenUniStream(ctx); return err })
		within("ReceiveDatagram", func(ctx context.Context) error { _, err := c.ReceiveDatagram(ctx); return err })
		within("Handshake", c.Handshake)
		within("Migrate", func(ctx context.Context) error {
			pc := r.socket("198.51.100.9:6000")
			defer pc.Close()
			return c.Migrate(ctx, pc)
		})
		for range 2 {
			takes(t, "Write", time.Second, func() {
				require.NoError(t, w.SetWriteDeadline(time.Now().Add(time.Second)))
				n, err := w.Write([]byte("more"))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				require.Zero(t, n)
			})
			takes(t, "Read", time.Second, func() {
				require.NoError(t, w.SetReadDeadline(time.Now().Add(time.Second)))
				_, err = w.Read(make([]byte, 1))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			})
		}
		takes(t, "State and Stats", 0, func() {
			require.False(t, c.State().HandshakeComplete)
			_ = c.Stats()
		})

		// A deadline that comes while the call waits.
		takes(t, "Write and Read", time.Second, func() {
			require.NoError(t, w.SetDeadline(time.Time{}))
			time.AfterFunc(time.Second, func() { w.SetDeadline(time.Unix(1, 0)) })
			read := make(chan error, 1)
			go func() { _, err := w.Read(make([]byte, 1)); read <- err }() // ends with its deadline
			_, err := w.Write([]byte("more"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
		})

		r.let()
		require.NoError(t, c.Handshake(r.Context()))
		require.NoError(t, w.SetDeadline(time.Time{}))
		_, err = w.Write([]byte("late"))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		s, err := r.ln.Accept(r.Context())
		require.NoError(t, err)
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		p := make([]byte, 10)
		var got []byte
		for err == nil {
			var n int
			n, err = a.Read(p)
			got = append(got, p[:n]...)
		}
		require.Equal(t, "earlylate", string(got))
		r.works(c, s.(*conn))
	})
}

// What waits for the peer, and not for the callback, when the callback begins.
func TestCallsThatWaitAlreadyEndWithTheirContextOrDeadlineWhileACallbackRuns(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newHangingRig(t, func(c *transport.Config) {
			c.MaxStreams, c.StreamWindow = 1, 1000
		}, nil)
		c := r.c
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		start := time.Now()
		// Both wait for what the server allows, and then meet the callback.
		var written int
		write, opened := make(chan error, 1), make(chan error, 1)
		require.NoError(t, w.SetWriteDeadline(time.Now().Add(5*time.Second)))
		go func() { // ends with its deadline
			var err error
			written, err = w.Write(make([]byte, 64<<20))
			write <- err
		}()
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		go func() { // ends with its context
			_, err := c.OpenStream(ctx)
			opened <- err
		}()
		synctest.Wait()
		<-r.hung
		require.ErrorIs(t, <-write, os.ErrDeadlineExceeded)
		require.ErrorIs(t, <-opened, context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(start))
		require.Less(t, written, 64<<20)
		require.NoError(t, w.SetWriteDeadline(time.Time{}))
		r.let()
		require.NoError(t, c.Handshake(r.Context()))
		s, err := r.ln.Accept(r.Context())
		require.NoError(t, err)
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		go func() { // ends with the stream
			for p := make([]byte, 64<<10); err == nil; {
				_, err = a.Read(p)
			}
			a.Close()
		}()
		// The turn to write is free again, and the one who gave up has not got
		// the stream that can be opened now.
		_, err = w.Write([]byte("late"))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		w.CancelRead(1)
		ctx, cancel = context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		_, err = c.OpenStream(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 2, c.Stats().StreamsOpened)
	})
}

func TestCallsEndWithTheConnectionWhileACallbackRuns(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newHangingRig(t, nil, func(c *transport.Config) {
			c.HandshakeTimeout, c.Datagrams = 3*time.Second, true
		})
		c := r.c
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		<-r.hung
		calls := map[string]func() error{
			"AcceptStream": func() error { _, err := c.AcceptStream(context.Background()); return err },
			"OpenStream":   func() error { _, err := c.OpenStream(context.Background()); return err },
			"SendDatagram": func() error { return c.SendDatagram([]byte("x")) },
			"Write":        func() error { _, err := w.Write([]byte("x")); return err },
			"Read":         func() error { _, err := w.Read(make([]byte, 1)); return err },
			"Close":        w.Close,
			"CancelRead":   func() error { w.CancelRead(1); return c.reason() },
			"CancelWrite":  func() error { w.CancelWrite(1); return c.reason() },
			"SetPriority":  func() error { w.SetPriority(transport.Priority{}); return c.reason() },
			"Context":      func() error { <-w.Context().Done(); return c.reason() },
		}
		type result struct {
			what string
			err  error
		}
		results := make(chan result, len(calls))
		for what, f := range calls {
			go func() { results <- result{what, f()} }() // ends with the connection
		}
		synctest.Wait()
		require.Empty(t, results)
		for range calls {
			got := <-results
			require.ErrorIs(t, got.err, transport.ErrHandshakeTimeout, got.what)
		}
		r.let()
	})
}

// What a Read leaves to be given back when a callback of the handshake has ended,
// the callback may have ended before that Read has returned.
func TestWhatACancelledReadHasTakenIsGivenBackAfterACallback(t *testing.T) {
	realTime := func(c *transport.Config) { c.HandshakeTimeout, c.IdleTimeout = patience, patience }
	r := newRig(t, realTime, realTime)
	c, s := r.dial()
	w, err := c.OpenUniStream(r.Context())
	require.NoError(t, err)
	_, err = w.Write([]byte("hello"))
	require.NoError(t, err)
	a, err := s.AcceptUniStream(r.Context())
	require.NoError(t, err)
	_, err = a.Read(make([]byte, 3))
	require.NoError(t, err)
	rs := a.(*recvStream)
	rs.mu.Lock() // as release has it
	a.CancelRead(1)
	require.NotNil(t, rs.head)
	released := make(chan struct{})
	s.mu.Lock() // as the callback has it
	go func() { // ends when both are given back
		rs.releaseLater()
		close(released)
	}()
	s.unlock()
	for range 1000 {
		runtime.Gosched()
	}
	rs.mu.Unlock()
	<-released
	rs.mu.Lock()
	require.Nil(t, rs.head)
	rs.mu.Unlock()
}
