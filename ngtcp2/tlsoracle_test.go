//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// An outcome is what one side of a handshake says of it.
type outcome struct {
	alert uint8 // 0: none was sent by this side
	err   error
	state tls.ConnectionState
}

// cryptoTLS is the judge of these tests: crypto/tls's own handshake between
// client and server, as QUIC has it.
func cryptoTLS(t *testing.T, client, server *tls.Config) (c, s outcome) {
	t.Helper()
	client, server = client.Clone(), server.Clone()
	client.MinVersion, server.MinVersion = tls.VersionTLS13, tls.VersionTLS13
	sides := [2]*tls.QUICConn{
		tls.QUICClient(&tls.QUICConfig{TLSConfig: client}),
		tls.QUICServer(&tls.QUICConfig{TLSConfig: server}),
	}
	var out [2]outcome
	note := func(i int, err error) {
		if err != nil && out[i].err == nil {
			alert, ok := errors.AsType[tls.AlertError](err)
			require.True(t, ok, "%v", err)
			out[i].alert, out[i].err = uint8(alert), err
		}
	}
	for i, side := range sides {
		defer side.Close()
		side.SetTransportParameters([]byte{1})
		note(i, side.Start(t.Context()))
	}
	for moved := true; moved && out[0].err == nil && out[1].err == nil; {
		moved = false
		for i, side := range sides {
			for {
				e := side.NextEvent()
				if e.Kind == tls.QUICNoEvent {
					break
				}
				if e.Kind == tls.QUICErrorEvent {
					note(i, e.Err)
				}
				if e.Kind == tls.QUICWriteData {
					moved = true
					note(1-i, sides[1-i].HandleData(e.Level, e.Data))
				}
			}
		}
	}
	for i, side := range sides {
		out[i].state = side.ConnectionState()
	}
	return out[0], out[1]
}

// helloOf returns the ClientHello message of a client with this configuration.
func helloOf(t testing.TB, client *tls.Config) []byte {
	t.Helper()
	client = client.Clone()
	client.MinVersion = tls.VersionTLS13
	c := tls.QUICClient(&tls.QUICConfig{TLSConfig: client})
	defer c.Close()
	c.SetTransportParameters([]byte{1})
	require.NoError(t, c.Start(t.Context()))
	for {
		switch e := c.NextEvent(); e.Kind {
		case tls.QUICWriteData:
			return append([]byte(nil), e.Data...)
		case tls.QUICNoEvent:
			require.FailNow(t, "no ClientHello")
		}
	}
}

// clientSide and serverSide are the Go side of a handshake.
func clientSide(t testing.TB, c *tls.Config) *tlsState {
	cc, err := clientConfig(&transport.Config{TLS: c})
	require.NoError(t, err)
	_, ts := cc.clientTLS(aConn{t.Context()})
	return ts
}

func serverSide(t testing.TB, c *tls.Config) *tlsState {
	cc, err := serverConfig(&transport.Config{TLS: c})
	require.NoError(t, err)
	return &tlsState{cc: cc, tls: c, ctx: t.Context()}
}

type aConn struct{ ctx context.Context }

func (c aConn) Context() context.Context { return c.ctx }

// handshake does what capi does with ts: the peer sends chain, or resumes, or
// neither.
func handshake(ts *tlsState, chain [][]byte, s capi.TLSState) outcome {
	ts.attach(func() capi.TLSState { return s })
	if len(chain) > 0 && !s.Resumed {
		if alert, ok := ts.VerifyPeer(chain); !ok {
			return outcome{alert: alert, err: ts.err()}
		}
	}
	alert, err := ts.finish(s)
	return outcome{alert: alert, err: err, state: ts.connectionState(s, err == nil)}
}

// agreed is a capi.TLSState of a handshake that crypto/tls made.
func agreed(s tls.ConnectionState) capi.TLSState {
	return capi.TLSState{
		Version: s.Version, CipherSuite: s.CipherSuite, Curve: uint16(s.CurveID),
		ALPN: s.NegotiatedProtocol, ServerName: s.ServerName,
	}
}

// requireSame checks that got is what crypto/tls said.
func requireSame(t *testing.T, want, got outcome) {
	t.Helper()
	require.Equal(t, want.err == nil, got.err == nil, "crypto/tls: %v; here: %v", want.err, got.err)
	require.Equal(t, want.alert, got.alert, "crypto/tls: %v; here: %v", want.err, got.err)
	if want.err != nil {
		require.Equal(t, want.err.Error(), got.err.Error())
		w, isVerification := errors.AsType[*tls.CertificateVerificationError](want.err)
		g, ok := errors.AsType[*tls.CertificateVerificationError](got.err)
		require.Equal(t, isVerification, ok, "%T", got.err)
		if ok {
			require.Equal(t, len(w.UnverifiedCertificates), len(g.UnverifiedCertificates))
			require.IsType(t, w.Err, g.Err)
		}
		return
	}
	require.Equal(t, len(want.state.PeerCertificates), len(got.state.PeerCertificates))
	for i, c := range want.state.PeerCertificates {
		require.Equal(t, c.Raw, got.state.PeerCertificates[i].Raw)
	}
	require.Equal(t, len(want.state.VerifiedChains), len(got.state.VerifiedChains))
	for i, chain := range want.state.VerifiedChains {
		require.Equal(t, len(chain), len(got.state.VerifiedChains[i]))
		for j, c := range chain {
			require.Equal(t, c.Raw, got.state.VerifiedChains[i][j].Raw)
		}
	}
	require.Equal(t, want.state.ServerName, got.state.ServerName)
	require.Equal(t, want.state.NegotiatedProtocol, got.state.NegotiatedProtocol)
	require.Equal(t, want.state.HandshakeComplete, got.state.HandshakeComplete)
	require.Equal(t, want.state.NegotiatedProtocolIsMutual, got.state.NegotiatedProtocolIsMutual) //nolint:staticcheck // what is tested
	require.Equal(t, want.state.Version, got.state.Version)
	require.Equal(t, want.state.CipherSuite, got.state.CipherSuite)
	require.Equal(t, want.state.CurveID, got.state.CurveID)
}

var loopback = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
