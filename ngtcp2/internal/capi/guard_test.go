//go:build ngtcp2 && cgo && fuzzplain

package capi

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// assertionFailed checks that err tells of one, and that p is of no use after it.
func assertionFailed(t *testing.T, p *peer, err error) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, ErrInternal, e.Code)
	require.Regexp(t, `^assertion failed: a test \(.*\.c:\d+\)$`, e.Text)
	require.True(t, e.Fatal)
	require.EqualValues(t, 1, e.Transport, "INTERNAL_ERROR")
	for range 2 {
		require.Equal(t, e, p.HandleExpiry(p.w.now+second))
		_, err = p.WritePackets(p.w.buf, p.w.now)
		require.Equal(t, e, err)
		require.Equal(t, e, p.ReadPackets(Path{serverAddr, clientAddr}, 0, make([]byte, 1200), 0, p.w.now))
		_, err = p.OpenStream(true)
		require.Equal(t, e, err)
		require.Equal(t, e, p.InitiateKeyUpdate(p.w.now))
		out, err := p.WriteClose(p.w.buf, ClosePending, 0, "", p.w.now)
		require.NoError(t, err)
		require.Zero(t, out, "there is nothing it could say")
		require.Zero(t, p.Info())
		require.Zero(t, p.PTO())
		require.Zero(t, p.MaxDatagram())
		require.False(t, p.SendDatagram([]byte("x")))
		for _, h := range p.streams {
			require.Zero(t, h.Write([]byte("x")))
			h.Finish()
			h.Reset(1)
			h.StopSending(1)
			h.SetPriority(1, true)
			h.Consumed(1)
			p.Recycle(h.RecvChunks())
		}
	}
}

// leaks checks that free leaks n connections and their memory.
func leaks(t *testing.T, n int64, free func()) {
	t.Helper()
	was := Leaked()
	free()
	require.Equal(t, was+n, Leaked())
	require.False(t, failing(), "the assertion was not reached")
}

func TestAFailedAssertionEndsTheConnectionOnly(t *testing.T) {
	for name, where := range map[string]func(){"reading": func() { failAt(failReading) }, "writing": func() { failAt(failWriting) }} {
		t.Run(name, func(t *testing.T) {
			testCertificate(t)
			memory := Memory()
			w := connected(t)
			defer w.close()
			s := w.client.open(false)
			s.send(payload(3000), false)
			w.until("open", func() bool { return len(w.server.accepted) > 0 })
			s.send(payload(3000), false)
			broken, other := w.client, w.server
			if name == "reading" {
				broken, other = w.server, w.client
				w.flush(w.client)
			}
			where()
			w.until("failure", func() bool { return broken.err != nil })
			require.NoError(t, other.err)
			assertionFailed(t, broken, broken.err)
			leaks(t, 1, w.close)
			require.Greater(t, Memory(), memory, "it is counted")
			runtime.GC()

			again := connected(t)
			defer again.close()
			was := Memory()
			defer func() { require.Less(t, Memory(), was) }()
			again.client.open(false).send(payload(100_000), true)
			again.until("data", func() bool { h := again.server.streams[0]; return h != nil && h.fin })
			leaks(t, 0, again.close)
		})
	}
}

func TestACallThatReportsNoErrorLeavesItToTheTimer(t *testing.T) {
	w := connected(t)
	require.Greater(t, w.client.Expiry(), w.now)
	failAt(failAsking)
	require.Zero(t, w.client.Info())
	require.LessOrEqual(t, w.client.Expiry(), w.now)
	assertionFailed(t, w.client, w.client.HandleExpiry(w.now))
	leaks(t, 1, w.close)
}

// mayLeak is for tests whose calls end while a TLS library works.
func mayLeak(t *testing.T) {
	testCertificate(t)
	runtime.LockOSThread()
	allowLeaks(true)
	t.Cleanup(func() {
		allowLeaks(false)
		runtime.UnlockOSThread()
	})
}

func TestAnAssertionBelowTheTLSLibraryLeavesItsObject(t *testing.T) {
	mayLeak(t)
	w := newWorld(t, func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
		w.serverTLS.Tickets, w.serverTLS.TicketKeys = true, [][32]byte{{1}}
		ct.Tickets = true
	})
	failAt(failInTLS)
	w.until("failure", func() bool { return w.client.err != nil })
	require.NoError(t, w.server.err)
	assertionFailed(t, w.client, w.client.err)
	require.Nil(t, w.client.TakeSession())
	leaks(t, 1, w.close)
}

func TestAnAssertionInANestedCallLeavesTheOuterOne(t *testing.T) {
	mayLeak(t)
	for _, outer := range []bool{false, true} {
		inner := connected(t)
		s := inner.client.open(false)
		s.send(payload(100), false)
		calls := 0
		w := newWorld(t, func(_ *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
			ct.Tickets = true
			ct.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) {
				calls++
				if !outer {
					failAt(failWriting)
				}
				_, inner.client.err = inner.client.WritePackets(inner.buf, inner.now)
				return 0, true
			}
		})
		w.serverTLS.Tickets, w.serverTLS.TicketKeys = true, [][32]byte{{1}}
		w.until("VerifyPeer", func() bool { return calls > 0 })
		if outer {
			// The nested call has come and gone: the guard of this one stands.
			require.NoError(t, inner.client.err)
			failAt(failInTLS)
			w.until("failure", func() bool { return w.client.err != nil })
			assertionFailed(t, w.client, w.client.err)
			leaks(t, 0, inner.close)
			leaks(t, 1, w.close)
			continue
		}
		assertionFailed(t, inner.client, inner.client.err)
		w.handshake()
		leaks(t, 1, inner.close)
		leaks(t, 0, w.close)
	}
}

func TestAConnectionIsNotEnteredWhileACallOnItGoesOn(t *testing.T) {
	var got error
	var w *world
	w = newWorld(t, func(_ *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
		ct.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) {
			got = w.client.HandleExpiry(w.now)
			return 0, true
		}
	})
	w.handshake()
	var e *Error
	require.ErrorAs(t, got, &e)
	require.Equal(t, ErrInternal, e.Code)
	leaks(t, 0, w.close)
}

func TestACallbackThatEndsItsGoroutineLeavesADeadConnection(t *testing.T) {
	mayLeak(t)
	w := newWorld(t, func(_ *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
		ct.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) {
			defer unwinds()
			panic("in a callback")
		}
	})
	require.PanicsWithValue(t, "in a callback", w.handshake)
	var e *Error
	require.ErrorAs(t, w.client.HandleExpiry(w.now), &e)
	require.True(t, e.Fatal)
	failAt(failWriting)
	w.flush(w.server)
	leaks(t, 1, func() { w.client.Free() })
	w.server.Free()
}

func TestAssertionsFailWhileConnectionsAreMadeAndFreed(t *testing.T) {
	w := connected(t)
	failAt(failFreeing)
	leaks(t, 1, w.close)

	w = newWorld(t)
	s := testSettings()
	leaks(t, 1, func() {
		failAt(failMaking)
		_, err := NewClient(&s, &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: id(w.rand, 12), SCID: id(w.rand, 8)},
			&TLSConfig{NextProtos: []string{"test"}, Callbacks: &testCallbacks{}})
		require.ErrorContains(t, err, "assertion failed: a test")
	})
	leaks(t, 0, func() {
		failAt(failAccepting)
		_, err := Accept([]byte{1})
		require.ErrorIs(t, err, ErrNotInitial)
	})
}

func BenchmarkGuardedCall(b *testing.B) {
	w := connected(b)
	b.Run("with", func(b *testing.B) {
		for b.Loop() {
			w.client.PTO()
		}
	})
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			w.client.NewToken()
		}
	})
}
