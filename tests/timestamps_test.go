package tests

import (
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// hasTimestamps reports whether an engine sends and takes them: wolfSSL has no
// place for them.
func hasTimestamps(e transport.Transport) bool { return e.Features().Versions["wolfssl"] == "" }

// RFC 6962, Section 3.3, and RFC 8446, Section 4.4.2.1: what tls.Certificate has
// comes with it, and is in the client's state also when the session is resumed.
// With purego crypto/tls is the other side, and judges.
func TestSignedCertificateTimestampsArrive(t *testing.T) {
	several := [][]byte{[]byte("one"), make([]byte, 300), {0}}
	for _, client := range engine.All() {
		for _, server := range engine.All() {
			t.Run(client.Name()+"-"+server.Name(), func(t *testing.T) {
				for name, tt := range map[string]struct {
					sent   [][]byte
					change func(server *tls.Config)
				}{
					"several":   {sent: several},
					"long":      {sent: [][]byte{make([]byte, 7000), make([]byte, 7000)}},
					"none":      {},
					"one empty": {sent: [][]byte{}},
					"by GetCertificate": {several, func(s *tls.Config) {
						c := s.Certificates[0]
						s.Certificates = nil
						s.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }
					}},
					// The second ClientHello offers them again.
					"after a HelloRetryRequest": {several, func(s *tls.Config) {
						s.CurvePreferences = []tls.CurveID{tls.CurveP384}
					}},
				} {
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { exchangeTimestamps(t, client, server, tt.sent, tt.change) })
					})
				}
			})
		}
	}
}

func exchangeTimestamps(t *testing.T, client, server transport.Transport, sent [][]byte, change func(*tls.Config)) {
	network := transporttest.NewNetwork(1)
	defer network.Close()
	ca := testcert.NewCA()
	link := transporttest.Link{Latency: 10 * time.Millisecond}
	open := func(e transport.Transport, addr string) transport.Endpoint {
		ep, err := e.Open(network.Socket(addr, link, transporttest.Link{}), nil)
		require.NoError(t, err)
		return ep
	}
	s, c := open(server, "192.0.2.1:4433"), open(client, "198.51.100.1:50000")
	defer func() { require.NoError(t, s.Close()) }()
	defer func() { require.NoError(t, c.Close()) }()

	st := ca.Server("localhost", "test")
	st.Certificates[0].SignedCertificateTimestamps = sent
	if change != nil {
		change(st)
	}
	ln, err := s.Listen(&transport.Config{TLS: st})
	if len(sent) > 0 && len(st.Certificates) > 0 && !hasTimestamps(server) {
		require.ErrorContains(t, err, "tls.Certificate.SignedCertificateTimestamps")
		require.ErrorAs(t, err, new(*transport.UnsupportedError))
		return
	}
	require.NoError(t, err)

	ct := ca.Client("localhost", "test")
	ct.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384}
	var verified [][]byte
	ct.VerifyConnection = func(s tls.ConnectionState) error {
		verified = s.SignedCertificateTimestamps
		return nil
	}
	cfg := &transport.Config{TLS: ct, Sessions: &sessions{}}
	for _, resumes := range []bool{false, true} {
		conn, err := c.Dial(t.Context(), s.Addr(), cfg)
		if len(sent) > 0 && !hasTimestamps(server) { // what GetCertificate gave
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.NoError(t, conn.Handshake(t.Context()))
		state := conn.State().TLS
		require.Equal(t, resumes, state.DidResume)
		want := sent
		if !hasTimestamps(client) {
			want = nil
		}
		for _, got := range [][][]byte{state.SignedCertificateTimestamps, verified} {
			require.Equal(t, fmt.Sprintf("%x", want), fmt.Sprintf("%x", got), "resumed: %v", resumes)
		}
		peer, err := ln.Accept(t.Context())
		require.NoError(t, err)
		require.NoError(t, peer.Handshake(t.Context()))
		require.Empty(t, peer.State().TLS.SignedCertificateTimestamps)
		// Virtual: the ticket arrives. wolfSSL tells its age by the host's clock, and
		// takes what is up to a second more: a busy machine may need longer.
		time.Sleep(8 * time.Second)
		require.NoError(t, conn.CloseWithError(0, ""))
		<-peer.Context().Done()
	}
}

// sessions is a transport.SessionCache with room for one.
type sessions struct {
	mu sync.Mutex
	b  []byte
}

func (s *sessions) Put(_ string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = b
}

func (s *sessions) Take(string) (b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, s.b = s.b, nil
	return b
}
