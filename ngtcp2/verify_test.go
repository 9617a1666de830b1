//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

var (
	errRefused = errors.New("refused by the application")
	future     = func() time.Time { return time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC) }
)

func TestAClientJudgesServersAsCryptoTLSDoes(t *testing.T) {
	ca := testcert.NewCA()
	for name, change := range map[string]func(client, server *tls.Config){
		"trusted":                 func(_, _ *tls.Config) {},
		"another authority":       func(c, _ *tls.Config) { c.RootCAs = testcert.NewCA().Pool() },
		"the system's roots":      func(c, _ *tls.Config) { c.RootCAs = nil },
		"an empty pool":           func(c, _ *tls.Config) { c.RootCAs = x509.NewCertPool() },
		"another name":            func(c, _ *tls.Config) { c.ServerName = "elsewhere.example" },
		"an address":              func(c, _ *tls.Config) { c.ServerName = "127.0.0.1" },
		"another address":         func(c, _ *tls.Config) { c.ServerName = "127.0.0.2" },
		"an address in brackets":  func(c, _ *tls.Config) { c.ServerName = "[::1]" },
		"a final dot":             func(c, _ *tls.Config) { c.ServerName = "localhost." },
		"expired":                 func(c, _ *tls.Config) { c.Time = future },
		"not yet valid":           func(c, _ *tls.Config) { c.Time = func() time.Time { return time.Unix(0, 0) } },
		"a client's certificate":  func(_, s *tls.Config) { s.Certificates[0] = ca.ClientCertificate("localhost") },
		"nothing is verified":     func(c, _ *tls.Config) { c.InsecureSkipVerify, c.RootCAs, c.ServerName = true, nil, "other" },
		"nothing, and no name":    func(c, _ *tls.Config) { c.InsecureSkipVerify, c.ServerName = true, "" },
		"only the leaf":           func(_, s *tls.Config) { s.Certificates[0].Certificate = s.Certificates[0].Certificate[:1] },
		"the leaf is no DER":      func(_, s *tls.Config) { s.Certificates[0].Certificate = [][]byte{{1, 2, 3}} },
		"the authority is no DER": func(_, s *tls.Config) { s.Certificates[0].Certificate[1] = []byte("no DER") },
		"a huge RSA key above": func(_, s *tls.Config) {
			s.Certificates[0].Certificate = append(s.Certificates[0].Certificate, rsaCertificate(8200))
		},
		"a large RSA key above": func(_, s *tls.Config) {
			s.Certificates[0].Certificate = append(s.Certificates[0].Certificate, rsaCertificate(8192))
		},
		"VerifyPeerCertificate refuses": func(c, _ *tls.Config) {
			c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errRefused }
		},
		"VerifyConnection refuses": func(c, _ *tls.Config) {
			c.VerifyConnection = func(tls.ConnectionState) error { return errRefused }
		},
		"VerifyConnection refuses what is not verified": func(c, _ *tls.Config) {
			c.InsecureSkipVerify = true
			c.VerifyConnection = func(tls.ConnectionState) error { return errRefused }
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := ca.Client("localhost", "test"), ca.Server("localhost", "test")
			change(client, server)
			var theirs, ours []string
			judge := client.Clone()
			watch(judge, &theirs)
			want, _ := cryptoTLS(t, judge, server)
			watch(client, &ours)
			got := handshake(clientSide(t, client), server.Certificates[0].Certificate, agreed(want.state))
			requireSame(t, want, got)
			require.Equal(t, theirs, ours, "calls of the application")
		})
	}
}

func TestAServerJudgesClientsAsCryptoTLSDoes(t *testing.T) {
	ca := testcert.NewCA()
	good, stranger := ca.ClientCertificate("alice"), testcert.NewCA().ClientCertificate("alice")
	serverCert := ca.Certificate("alice")
	for certName, cert := range map[string]*tls.Certificate{
		"no certificate": nil, "a good one": &good, "another authority's": &stranger, "a server's": &serverCert,
	} {
		for mode := tls.NoClientCert; mode <= tls.RequireAndVerifyClientCert; mode++ {
			for name, change := range map[string]func(s *tls.Config){
				"":                  func(*tls.Config) {},
				"no ClientCAs":      func(s *tls.Config) { s.ClientCAs = nil },
				"expired":           func(s *tls.Config) { s.Time = future },
				"too many RSA bits": func(*tls.Config) {},
				"VerifyPeerCertificate refuses": func(s *tls.Config) {
					s.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errRefused }
				},
				"VerifyConnection refuses": func(s *tls.Config) {
					s.VerifyConnection = func(tls.ConnectionState) error { return errRefused }
				},
			} {
				t.Run(fmt.Sprint(certName, " ", mode, " ", name), func(t *testing.T) {
					client, server := ca.Client("localhost", "test"), ca.Server("localhost", "test")
					server.ClientAuth, server.ClientCAs = mode, ca.Pool()
					change(server)
					var chain [][]byte
					if cert != nil {
						c := *cert
						if name == "too many RSA bits" {
							c.Certificate = append(c.Certificate[:2:2], rsaCertificate(8200))
						}
						client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
						if mode != tls.NoClientCert {
							chain = c.Certificate
						}
					}
					var theirs, ours []string
					judge := server.Clone()
					watch(judge, &theirs)
					_, want := cryptoTLS(t, client, judge)
					watch(server, &ours)
					requireSame(t, want, handshake(serverSide(t, server), chain, agreed(want.state)))
					require.Equal(t, theirs, ours, "calls of the application")
				})
			}
		}
	}
}

// watch notes what the callbacks of c are called with.
func watch(c *tls.Config, calls *[]string) {
	peerCertificate, connection := c.VerifyPeerCertificate, c.VerifyConnection
	c.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		*calls = append(*calls, fmt.Sprintf("peer %d %d %v", len(raw), len(chains), chains == nil))
		if peerCertificate == nil {
			return nil
		}
		return peerCertificate(raw, chains)
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		*calls = append(*calls, fmt.Sprintf("connection %d %d %q %q %x %x %v %v %v %v %v", len(s.PeerCertificates), len(s.VerifiedChains),
			s.ServerName, s.NegotiatedProtocol, s.Version, s.CipherSuite, s.CurveID, s.HandshakeComplete, s.DidResume,
			s.NegotiatedProtocolIsMutual, s.OCSPResponse)) //nolint:staticcheck // what is tested
		if connection == nil {
			return nil
		}
		return connection(s)
	}
}

// rsaCertificate is a certificate of a key that nobody has.
func rsaCertificate(bits uint) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	n := new(big.Int).Lsh(big.NewInt(1), bits)
	n.Sub(n, big.NewInt(1))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "large"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &rsa.PublicKey{N: n, E: 65537}, key)
	if err != nil {
		panic(err)
	}
	return der
}

func TestVerifyConnectionIsAskedOnResumptionToo(t *testing.T) {
	ca := testcert.NewCA()
	client := ca.Client("localhost", "test")
	var asked []tls.ConnectionState
	client.VerifyConnection = func(s tls.ConnectionState) error {
		asked = append(asked, s)
		return errRefused
	}
	ts := clientSide(t, client)
	ts.remembered = &session{peer: &peer{certs: []*x509.Certificate{ca.Certificate("localhost").Leaf}}}
	got := handshake(ts, nil, capi.TLSState{Resumed: true, ALPN: "test"})
	require.Equal(t, errRefused, got.err)
	require.EqualValues(t, alertBadCertificate, got.alert)
	require.Len(t, asked, 1)
	require.True(t, asked[0].DidResume)
	require.Len(t, asked[0].PeerCertificates, 1)
	require.Equal(t, "localhost", asked[0].ServerName)

	server := ca.Server("localhost", "test")
	server.VerifyConnection = client.VerifyConnection
	got = handshake(serverSide(t, server), nil, capi.TLSState{Resumed: true, ALPN: "test", ServerName: "localhost"})
	require.Equal(t, errRefused, got.err)
	require.True(t, asked[1].DidResume)
}

func TestAFailureIsRememberedOnceAndEndsTheHandshake(t *testing.T) {
	_, client := testcert.New("test")
	ts := clientSide(t, client)
	require.NoError(t, ts.err())
	ts.fail(badCertificate(errRefused))
	ts.fail(badCertificate(errors.New("later")))
	require.Equal(t, errRefused, ts.err())
	alert, err := ts.finish(capi.TLSState{})
	require.Equal(t, errRefused, err)
	require.EqualValues(t, alertBadCertificate, alert)
}

func TestAServerThatResumesAClientJudgesItAnew(t *testing.T) {
	ca := testcert.NewCA()
	alice := ca.ClientCertificate("alice")
	configure := func(mode tls.ClientAuthType) *tls.Config {
		s := ca.Server("localhost", "test")
		s.ClientAuth, s.ClientCAs = mode, ca.Pool()
		return s
	}
	data := func(mode tls.ClientAuthType, chain [][]byte) []byte {
		ts := serverSide(t, configure(mode))
		require.NoError(t, handshake(ts, chain, capi.TLSState{ALPN: "test"}).err)
		return ts.TicketData()
	}
	with := data(tls.RequireAndVerifyClientCert, alice.Certificate)
	without := data(tls.RequestClientCert, nil)
	require.Len(t, without, 8, "the time")
	require.Len(t, data(tls.NoClientCert, nil), 8)

	resume := func(c *tls.Config, data []byte) outcome {
		ts := serverSide(t, c)
		s := capi.TLSState{Resumed: true, ALPN: "test", TicketData: data}
		_, ok := ts.ResumeTicket(data)
		got := handshake(ts, nil, s)
		require.Equal(t, ok, got.err == nil)
		return got
	}
	for mode := tls.NoClientCert; mode <= tls.RequireAndVerifyClientCert; mode++ {
		require.Equal(t, !requiresClientCert(mode), resume(configure(mode), without).err == nil, "%v without", mode)
		got := resume(configure(mode), with)
		require.Equal(t, mode != tls.NoClientCert, got.err == nil, "%v with", mode)
		if got.err == nil {
			require.Equal(t, alice.Certificate[0], got.state.PeerCertificates[0].Raw)
			require.Equal(t, mode >= tls.VerifyClientCertIfGiven, len(got.state.VerifiedChains) > 0)
		}
	}
	expired := configure(tls.RequestClientCert)
	expired.Time = future
	require.EqualValues(t, alertCertificateExpired, resume(expired, with).alert)
	distrusted := configure(tls.RequireAndVerifyClientCert)
	distrusted.ClientCAs = testcert.NewCA().Pool()
	require.EqualValues(t, alertUnknownCA, resume(distrusted, with).alert)
	called := configure(tls.RequireAndVerifyClientCert)
	called.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errRefused }
	require.NoError(t, resume(called, with).err, "crypto/tls does not call it on resumption")
	leaf := 8 + 4 + len(alice.Certificate[0])
	for n := range with {
		if n != leaf { // a chain of the leaf alone is one
			require.Error(t, resume(configure(tls.RequireAndVerifyClientCert), with[:n]).err, "%d bytes", n)
		}
	}
}

func TestWithoutACommonProtocolThereIsNoConnection(t *testing.T) {
	ca := testcert.NewCA()
	for alpn, alert := range map[string]uint8{"": alertNoApplicationProtocol, "other": alertIllegalParameter} {
		s := capi.TLSState{ALPN: alpn}
		got := handshake(serverSide(t, ca.Server("localhost", "test")), nil, s)
		require.Error(t, got.err)
		require.Equal(t, alert, got.alert)
		got = handshake(clientSide(t, ca.Client("localhost", "test")), ca.Certificate("localhost").Certificate, s)
		require.Error(t, got.err)
		require.Equal(t, alert, got.alert)
	}
}

func TestATicketThatIsOnlyOfferedProvesNothing(t *testing.T) {
	ca := testcert.NewCA()
	server := ca.Server("localhost", "test")
	server.ClientAuth, server.ClientCAs = tls.VerifyClientCertIfGiven, ca.Pool()
	ts := serverSide(t, server)
	ts.attach(func() capi.TLSState { return capi.TLSState{} })
	_, ok := ts.VerifyPeer(ca.ClientCertificate("alice").Certificate)
	require.True(t, ok)
	alices := ts.TicketData()
	require.NotEmpty(t, alices)

	for _, resumed := range []bool{false, true} {
		ts = serverSide(t, server)
		s := capi.TLSState{Resumed: resumed, ALPN: "test"}
		if resumed {
			s.TicketData = alices
		}
		ts.attach(func() capi.TLSState { return s })
		_, ok := ts.ResumeTicket(alices)
		require.True(t, ok)
		require.Equal(t, resumed, len(ts.TicketData()) > 8, "what the next ticket says")
		_, err := ts.finish(s)
		require.NoError(t, err)
		require.Equal(t, resumed, len(ts.connectionState(s, true).PeerCertificates) > 0)
		require.Equal(t, resumed, len(ts.TicketData()) > 8, "after the handshake")
	}
}

func TestRawPublicKeysAreJudgedByTheirOwnFunction(t *testing.T) {
	ca := testcert.NewCA()
	spki := ca.Certificate("localhost").Leaf.RawSubjectPublicKeyInfo
	var seen [][]byte
	knobs := &Knobs{RawPublicKeys: &RawPublicKeys{Verify: func(b []byte) error {
		seen = append(seen, b)
		if string(b) != string(spki) {
			return errRefused
		}
		return nil
	}}}
	judge := func(change func(*tls.Config), chain ...[]byte) outcome {
		c := &tls.Config{NextProtos: []string{"test"}}
		if change != nil {
			change(c)
		}
		cc, err := knobs.clientConfig(&transport.Config{TLS: c})
		if err != nil { // a library without them
			require.ErrorIs(t, err, errors.ErrUnsupported)
			t.SkipNow()
		}
		conf, ts := cc.clientTLS(aConn{t.Context()})
		require.True(t, conf.RawPublicKey)
		return handshake(ts, chain, capi.TLSState{ALPN: "test"})
	}
	require.NoError(t, judge(nil, spki).err)
	require.Equal(t, [][]byte{spki}, seen)
	other := ca.Certificate("localhost").Leaf.RawSubjectPublicKeyInfo
	require.Equal(t, errRefused, judge(nil, other).err)
	require.EqualValues(t, alertDecodeError, judge(nil, []byte("no key")).alert)
	require.EqualValues(t, alertDecodeError, judge(nil, spki, spki).alert)
	require.EqualValues(t, alertDecodeError, judge(nil).alert)
	got := judge(func(c *tls.Config) {
		c.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			require.Equal(t, [][]byte{spki}, raw)
			require.Nil(t, chains)
			return errRefused
		}
	}, spki)
	require.EqualValues(t, alertBadCertificate, got.alert)
}
