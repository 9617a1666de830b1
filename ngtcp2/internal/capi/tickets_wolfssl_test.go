//go:build ngtcp2 && cgo && wolfssl

package capi

import (
	"crypto/tls"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// wolfSSL ends the handshake if the server chooses another group than the session
// has: one whose group is not known is not offered.
func TestASessionThatDoesNotSayItsGroupIsLeftOut(t *testing.T) {
	session, _ := resumable(t, [32]byte{1}, tlsOption(func(s, c *TLSConfig) { s.Curves, c.Curves = []uint16{uint16(tls.X25519)}, nil }))
	group := session[len("aqW3"):][:2]
	require.EqualValues(t, tls.X25519, binary.BigEndian.Uint16(group))
	for _, unknown := range []uint16{0, 999} {
		binary.BigEndian.PutUint16(group, unknown)
		w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) {
			s.Curves, c.Curves, c.Session = nil, nil, session
		}))
		require.False(t, w.client.state.Resumed)
		w.close()
	}
}
