//go:build ngtcp2 && cgo && !wolfssl && fuzzplain

package capi

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"
)

// RFC 8446, Section 4.2.10: early data is for the first session that is offered.
// OpenSSL leaves a session out that is too old by then, but not the key for early
// data, which anybody can make.
func TestAClientHasNoEarlyDataIfItsFirstMessageOffersNoSession(t *testing.T) {
	for _, old := range []bool{false, true} {
		checkMemory(t)
		w := resuming(t, tls.X25519)
		require.True(t, w.client.EarlyData(), "as far as the session says")
		if old {
			require.True(t, w.client.makeOld())
		}
		w.flush(w.client)
		require.Equal(t, !old, w.client.EarlyData())
		w.handshake()
		require.Equal(t, !old, w.client.state.Resumed)
		require.Equal(t, !old, w.client.state.EarlyAccepted)
		require.Zero(t, w.client.count[EarlyDataRejected], "there was none")
		s := w.client.open(false)
		s.send([]byte("hello"), true)
		w.until("data", func() bool { h := w.server.streams[s.ID()]; return h != nil && h.fin })
		w.close()
	}
}
