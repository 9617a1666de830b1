//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/tls"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// RFC 8446, Section 4.2.10: a server that asks for another ClientHello refuses
// early data, which the second one does not offer again.
func TestAHelloRetryRequestIsReportedAndRefusesEarlyData(t *testing.T) {
	simulated(t, func(t *testing.T) {
		var now atomic.Pointer[tls.Config]
		r, _ := newEarlyRig(t, func(c *transport.Config) {
			c.EarlyData = true
			now.Store(c.TLS.Clone())
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil }
		}, func(c *transport.Config) {
			c.TLS.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}
		})
		p384 := now.Load().Clone()
		p384.CurvePreferences = []tls.CurveID{tls.CurveP384}
		now.Store(p384)
		c, err := r.client.Dial(r.Context(), r.server.Addr(), r.cfg)
		require.NoError(t, err)
		early, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		_, err = early.Write([]byte("early"))
		require.NoError(t, err)
		require.ErrorIs(t, c.Handshake(r.Context()), transport.ErrEarlyDataRejected)
		s, err := r.ln.Accept(r.Context())
		require.NoError(t, err)
		require.NoError(t, s.Handshake(r.Context()))
		for _, state := range []transport.ConnState{c.State(), s.State()} {
			require.True(t, state.TLS.HelloRetryRequest)
			require.True(t, state.TLS.DidResume)
			require.False(t, state.EarlyData)
			require.Equal(t, tls.CurveP384, state.TLS.CurveID)
		}
		w, err := c.OpenStream(r.Context())
		require.NoError(t, err)
		_, err = w.Write([]byte("late"))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		a, err := s.AcceptStream(r.Context())
		require.NoError(t, err)
		got, err := io.ReadAll(a)
		require.NoError(t, err)
		require.Equal(t, "late", string(got))
	})
}

func TestNoHelloRetryRequestIsReportedWithoutOne(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		require.False(t, c.State().TLS.HelloRetryRequest)
		require.False(t, s.State().TLS.HelloRetryRequest)
	})
}
