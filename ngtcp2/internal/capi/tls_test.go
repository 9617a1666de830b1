//go:build ngtcp2 && cgo

package capi

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tlsOption changes what both sides' TLS is made from.
func tlsOption(f func(server, client *TLSConfig)) option {
	return func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) { f(w.serverTLS, ct) }
}

func isOpenSSL() bool { return TLSLibrary() == "openssl" }

// newKey makes a private key of a kind.
func newKey(t testing.TB, kind string) crypto.Signer {
	switch kind {
	case "P-256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		return k
	case "P-384":
		k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		require.NoError(t, err)
		return k
	case "RSA":
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		return k
	case "Ed25519":
		_, k, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		return k
	}
	panic(kind)
}

// newChain makes a leaf for pub, signed by an authority of its own, and both.
func newChain(t testing.TB, pub crypto.PublicKey) [][]byte {
	template := func(n int64, ca bool) *x509.Certificate {
		name := "test"
		if ca {
			name = "test CA" // or the leaf would look as if it had signed itself
		}
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true,
		}
	}
	caKey := newKey(t, "P-256")
	ca, err := x509.CreateCertificate(rand.Reader, template(1, true), template(1, true), caKey.Public(), caKey)
	require.NoError(t, err)
	leaf, err := x509.CreateCertificate(rand.Reader, template(2, false), template(1, true), pub, caKey)
	require.NoError(t, err)
	return [][]byte{leaf, ca}
}

func newTestCertificate(t testing.TB, kind string) (*Certificate, [][]byte) {
	key := newKey(t, kind)
	chain := newChain(t, key.Public())
	c, err := NewCertificate(chain, nil, nil, key)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, chain
}

// fails runs a handshake that is to end with a TLS alert which one side sends,
// and checks that the other gets it. It returns the sender's error.
func (w *world) fails(alert uint8, from func(*world) *peer) error {
	w.t.Helper()
	p := from(w)
	w.until("failure", func() bool { return p.err != nil })
	var e *Error
	require.ErrorAs(w.t, p.err, &e)
	require.Equal(w.t, int(alert), e.Alert, "alert of %v", p.err)
	require.Equal(w.t, uint64(0x100)+uint64(alert), e.Transport)
	out, err := p.WriteClose(w.buf, ClosePending, 0, "", w.now)
	require.NoError(w.t, err)
	require.NotZero(w.t, out.N)
	other := w.peer(p)
	w.transmit(p, out, w.buf)
	w.until("close", func() bool { return other.err != nil })
	kind, code, _, _ := other.CloseInfo()
	require.Equal(w.t, CloseTransport, kind)
	require.Equal(w.t, uint64(0x100)+uint64(alert), code)
	return p.err
}

func theClient(w *world) *peer { return w.client }
func theServer(w *world) *peer { return w.server }

func TestTheWholeChainIsGivenToVerifyPeerOnce(t *testing.T) {
	checkMemory(t)
	cert, chain := newTestCertificate(t, "P-256")
	var got [][][]byte
	w := connected(t, tlsOption(func(s, c *TLSConfig) {
		s.Certificate = cert
		c.Callbacks.(*testCallbacks).verify = func(chain [][]byte) (uint8, bool) {
			got = append(got, chain)
			return 0, true
		}
	}))
	require.Equal(t, [][][]byte{chain}, got)
	require.Equal(t, chain, w.client.state.PeerChain)
	require.Nil(t, w.server.state.PeerChain)
	require.Equal(t, "test", w.client.state.ALPN)
	require.Equal(t, "test", w.server.state.ALPN)
	require.Equal(t, "localhost", w.server.state.ServerName)
	require.Equal(t, uint16(tls.VersionTLS13), w.client.state.Version)
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, w.client.state.CipherSuite)
	require.False(t, w.client.state.Resumed)
	w.close()
	cert.Close()
}

func TestTheAlertOfARefusedChainIsSent(t *testing.T) {
	for _, alert := range []uint8{42, 45, 46, 48} {
		w := newWorld(t, tlsOption(func(s, c *TLSConfig) {
			c.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) { return alert, false }
		}))
		w.fails(alert, theClient)
	}
}

func TestKeysOfEachKindServe(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "RSA", "Ed25519"} {
		t.Run(kind, func(t *testing.T) {
			cert, chain := newTestCertificate(t, kind)
			w := connected(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = cert }))
			require.Equal(t, chain, w.client.state.PeerChain)
		})
	}
}

func TestServersWithoutCertificateFail(t *testing.T) {
	w := newWorld(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = nil }))
	w.until("failure", func() bool { return w.server.err != nil })
	require.ErrorIs(t, w.server.err, &Error{Code: ErrCrypto})
}

func TestAClosedCertificateIsRefusedAndOthersGoOn(t *testing.T) {
	cert, _ := newTestCertificate(t, "P-256")
	w := newWorld(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = cert }))
	w.until("TLS", func() bool { return w.server.count[ClientHello] > 0 })
	cert.Close()
	cert.Close()
	w.handshake()
	_, err := newTLSArgs(&TLSConfig{Server: true, Certificate: cert, Callbacks: &testCallbacks{}})
	require.ErrorIs(t, err, errClosedCertificate)
}

func TestClientsAreAskedForTheirCertificate(t *testing.T) {
	cert, chain := newTestCertificate(t, "P-256")
	for _, c := range []struct {
		name  string
		auth  int
		cert  *Certificate
		alert uint8
	}{
		{"requested and given", ClientAuthRequest, cert, 0},
		{"requested and not given", ClientAuthRequest, nil, 0},
		{"required and given", ClientAuthRequire, cert, 0},
		{"required and not given", ClientAuthRequire, nil, 116}, // certificate_required
		{"required and refused", ClientAuthRequire, cert, 48},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkMemory(t)
			var got [][]byte
			var asked *CertificateRequest
			name, err := x509.ParseCertificate(chain[1])
			require.NoError(t, err)
			w := newWorld(t, tlsOption(func(s, ct *TLSConfig) {
				s.ClientAuth, s.ClientCAs = c.auth, [][]byte{name.RawSubject}
				s.Callbacks.(*testCallbacks).verify = func(chain [][]byte) (uint8, bool) {
					got = chain
					return c.alert, c.alert == 0
				}
				ct.Callbacks = &certificateChooser{cert: c.cert, asked: &asked}
			}))
			if c.alert != 0 {
				w.fails(c.alert, theServer)
			} else {
				w.handshake()
			}
			require.NotNil(t, asked)
			require.Equal(t, [][]byte{name.RawSubject}, asked.AcceptableCAs)
			require.Contains(t, asked.SignatureSchemes, uint16(tls.ECDSAWithP256AndSHA256))
			if c.cert == nil {
				require.Nil(t, got)
				require.Nil(t, w.server.state.PeerChain)
			} else {
				require.Equal(t, chain, got)
			}
		})
	}
}

// A certificateChooser answers a CertificateRequest and keeps it.
type certificateChooser struct {
	testCallbacks
	cert  *Certificate
	err   error
	asked **CertificateRequest
}

func (c *certificateChooser) ClientCertificate(req *CertificateRequest) (*Certificate, error) {
	if c.asked != nil {
		*c.asked = req
	}
	return c.cert, c.err
}

func TestAnErrorOfClientCertificateEndsTheHandshake(t *testing.T) {
	broken := errors.New("broken")
	w := newWorld(t, tlsOption(func(s, c *TLSConfig) {
		s.ClientAuth = ClientAuthRequest
		c.Callbacks = &certificateChooser{err: broken}
	}))
	w.fails(80, theClient) // internal_error
	require.ErrorIs(t, w.client.TLSError(), broken)
}

func TestTheServersOrderOfProtocolsCounts(t *testing.T) {
	w := connected(t, tlsOption(func(s, c *TLSConfig) {
		s.NextProtos, c.NextProtos = []string{"c", "b", "a"}, []string{"x", "a", "b"}
	}))
	require.Equal(t, "b", w.server.state.ALPN)
	require.Equal(t, "b", w.client.state.ALPN)
}

func TestWithoutACommonProtocolTheHandshakeFails(t *testing.T) {
	for _, c := range []struct{ server, client []string }{
		{[]string{"a"}, []string{"b", "c"}},
		{[]string{"a"}, nil},
	} {
		w := newWorld(t, tlsOption(func(s, ct *TLSConfig) { s.NextProtos, ct.NextProtos = c.server, c.client }))
		w.fails(120, theServer) // no_application_protocol
	}
	w := connected(t, tlsOption(func(s, c *TLSConfig) { s.NextProtos = nil }))
	require.Empty(t, w.client.state.ALPN, "a server that has no protocols takes any client")
}

func TestEachCurveAndSuite(t *testing.T) {
	curves := []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	for _, curve := range curves {
		for _, suite := range []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256} {
			w := connected(t, tlsOption(func(s, c *TLSConfig) {
				s.Curves, c.Curves = nil, []uint16{uint16(curve)}
				if curve == tls.CurveP521 {
					s.Curves = []uint16{uint16(curve)}
				}
				s.CipherSuites, c.CipherSuites = nil, []uint16{suite}
			}))
			require.Equal(t, uint16(curve), w.client.state.Curve)
			require.Equal(t, uint16(curve), w.server.state.Curve)
			require.Equal(t, suite, w.client.state.CipherSuite)
			require.Equal(t, suite, w.server.state.CipherSuite)
			w.close()
		}
	}
}

func TestTheHybridIsTheDefault(t *testing.T) {
	w := connected(t, tlsOption(func(s, c *TLSConfig) { s.Curves, c.Curves = nil, nil }))
	require.Equal(t, uint16(tls.X25519MLKEM768), w.client.state.Curve)
}

func TestAHelloRetryRequestIsAnswered(t *testing.T) {
	w := connected(t, tlsOption(func(s, c *TLSConfig) {
		s.Curves, c.Curves = []uint16{uint16(tls.CurveP384)}, []uint16{uint16(tls.X25519), uint16(tls.CurveP384)}
	}))
	require.Equal(t, uint16(tls.CurveP384), w.client.state.Curve)
	w = newWorld(t, tlsOption(func(s, c *TLSConfig) {
		s.Curves, c.Curves = []uint16{uint16(tls.CurveP384)}, []uint16{uint16(tls.X25519)}
	}))
	w.fails(40, theServer) // handshake_failure
}

func TestTheKeyLogHasBothSidesSecrets(t *testing.T) {
	w := connected(t, tlsOption(func(s, c *TLSConfig) { s.KeyLog, c.KeyLog = true, true }))
	lines := func(p *TLSConfig) map[string]string {
		m := map[string]string{}
		for _, line := range p.Callbacks.(*testCallbacks).lines {
			f := strings.Fields(line)
			require.Len(t, f, 3, line)
			m[f[0]] = f[1] + f[2]
			require.Equal(t, strings.ToLower(m[f[0]]), m[f[0]])
		}
		return m
	}
	server := lines(w.serverTLS)
	for _, label := range []string{"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} {
		require.NotEmpty(t, server[label], label)
	}
	w = connected(t, tlsOption(func(s, c *TLSConfig) {}))
	require.Empty(t, lines(w.serverTLS), "nobody asked for it")
}

func tickets(keys ...[32]byte) option {
	return tlsOption(func(s, c *TLSConfig) { s.Tickets, c.Tickets, s.TicketKeys = true, true, keys })
}

// resumable returns a session that a server with the ticket key made.
func resumable(t testing.TB, key [32]byte, opts ...option) (session, params []byte) {
	w := connected(t, append([]option{tickets(key)}, opts...)...)
	w.until("session", func() bool { return w.client.count[Session] > 0 })
	session, params = w.client.TakeSession(), w.client.EarlyTransportParams()
	require.NotEmpty(t, session)
	require.Nil(t, w.client.TakeSession())
	w.close()
	return session, params
}

func TestSessionsAreResumedWhileAServerKnowsTheKey(t *testing.T) {
	checkMemory(t)
	session, _ := resumable(t, [32]byte{1})
	for _, c := range []struct {
		name    string
		keys    [][32]byte
		session []byte
		resumed bool
	}{
		{"same key", [][32]byte{{1}}, session, true},
		{"rotated key", [][32]byte{{2}, {1}}, session, true},
		{"forgotten key", [][32]byte{{2}}, session, false},
		{"damaged session", [][32]byte{{1}}, session[:len(session)/2], false},
		{"other bytes", [][32]byte{{1}}, []byte("nonsense"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := connected(t, tickets(c.keys...), tlsOption(func(s, ct *TLSConfig) {
				ct.Session = c.session
				ct.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) { return 42, !c.resumed }
			}))
			require.Equal(t, c.resumed, w.client.state.Resumed)
			require.Equal(t, c.resumed, w.server.state.Resumed)
		})
	}
}

// What is as old as a server allows, or from the future, is not offered: early
// data with it would have no secret key.
func TestASessionIsNotUsedWhenItIsTooOld(t *testing.T) {
	checkMemory(t)
	early := tlsOption(func(s, c *TLSConfig) { s.EarlyData, c.EarlyData = true, true })
	session, params := resumable(t, [32]byte{1}, early)
	lifetime := 7 * 24 * time.Hour
	if !isOpenSSL() {
		lifetime = 300 * time.Second // what a server of wolfSSL says
	}
	for age, used := range map[time.Duration]bool{
		0: true, lifetime - time.Minute: true,
		lifetime: false, lifetime - time.Second: false, 365 * 24 * time.Hour: false, -1: false, math.MaxInt64: false,
	} {
		w := newWorld(t, tickets([32]byte{1}), early, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
			ct.Session, ct.SessionAge, o.EarlyParams = session, age, params
			// The ticket is as old on the server.
			w.serverTLS.Callbacks.(*testCallbacks).age = age
		})
		require.Equal(t, used, w.client.EarlyData(), age)
		w.handshake()
		if age == 0 || isOpenSSL() { // wolfSSL tells its own clock's age
			require.Equal(t, used, w.client.state.Resumed, age)
		}
		if age == 0 || !used { // a server of OpenSSL rejects ages that overflow when they are masked
			require.Equal(t, used, w.client.state.EarlyAccepted, age)
		}
		w.close()
	}
}

func TestEarlyDataNeedsParametersThatMakeSense(t *testing.T) {
	early := tlsOption(func(s, c *TLSConfig) { s.EarlyData, c.EarlyData = true, true })
	session, params := resumable(t, [32]byte{1}, early)
	for _, c := range []struct {
		params []byte
		early  bool
	}{{params, true}, {nil, false}, {[]byte{0x40}, false}} {
		w := newWorld(t, tickets([32]byte{1}), early, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
			ct.Session, o.EarlyParams = session, c.params
		})
		require.Equal(t, c.early, w.client.EarlyData())
		w.close()
	}
}

// After a rotation the client that resumed has a session which the new key alone
// is good for.
func TestResumingBringsASessionOfTheNewestKey(t *testing.T) {
	session, _ := resumable(t, [32]byte{1})
	w := connected(t, tickets([32]byte{2}, [32]byte{1}), tlsOption(func(s, c *TLSConfig) { c.Session = session }))
	require.True(t, w.client.state.Resumed)
	w.until("session", func() bool { return w.client.count[Session] > 0 })
	session = w.client.TakeSession()
	w = connected(t, tickets([32]byte{2}), tlsOption(func(s, c *TLSConfig) { c.Session = session }))
	require.True(t, w.client.state.Resumed)
}

func TestASessionIsNotResumedWithAnotherName(t *testing.T) {
	session, _ := resumable(t, [32]byte{1})
	w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) { c.ServerName, c.Session = "other", session }))
	require.False(t, w.client.state.Resumed)
}

// A ticketKeeper decides about tickets.
type ticketKeeper struct {
	testCallbacks
	data   []byte
	refuse bool
	got    []byte
}

func (k *ticketKeeper) TicketData() []byte { return k.data }
func (k *ticketKeeper) ResumeTicket(data []byte) (time.Duration, bool) {
	k.got = data
	return slack(), !k.refuse
}

func TestTicketsRememberTheClient(t *testing.T) {
	data := payload(3000)
	cert, _ := newTestCertificate(t, "P-256")
	require.NotNil(t, cert)
	session, _ := resumable(t, [32]byte{1}, tlsOption(func(s, c *TLSConfig) {
		s.ClientAuth, s.Callbacks = ClientAuthRequire, &ticketKeeper{data: data}
		c.Callbacks = &certificateChooser{cert: cert}
	}))
	for _, refuse := range []bool{false, true} {
		k := &ticketKeeper{refuse: refuse}
		w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) {
			s.ClientAuth, s.Callbacks = ClientAuthRequire, k
			c.Session, c.Callbacks = session, &certificateChooser{cert: cert}
		}))
		require.Equal(t, data, k.got)
		require.Equal(t, !refuse, w.server.state.Resumed)
		if !refuse {
			require.Equal(t, data, w.server.state.TicketData)
		} else {
			require.Nil(t, w.server.state.TicketData)
		}
	}
}

// What does not fit into a ticket leaves the client without one that can be used,
// and the connection as it is.
func TestAClientThatNoTicketCanHoldIsNotResumed(t *testing.T) {
	key := newKey(t, "P-256")
	chain := newChain(t, key.Public())
	if isOpenSSL() {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: payload(17000)}}}
		large, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		chain = append(chain, large)
	}
	for len(bytes.Join(chain, nil)) < 4100 {
		chain = append(chain, newChain(t, newKey(t, "RSA").Public())[0])
	}
	cert, err := NewCertificate(chain, nil, nil, key)
	require.NoError(t, err)
	t.Cleanup(cert.Close)
	var session []byte
	for range 2 {
		w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) {
			s.ClientAuth, s.Callbacks = ClientAuthRequire, &ticketKeeper{data: bytes.Join(chain, nil)}
			c.Session, c.Callbacks = session, &certificateChooser{cert: cert}
		}))
		require.False(t, w.server.state.Resumed)
		require.Equal(t, chain, w.server.state.PeerChain)
		w.wait(second)
		session = w.client.TakeSession()
		w.close()
	}
}

// wolfSSL's tickets have a size; what Go says may be longer than the chain.
func TestTicketDataThatDoesNotFitEndsNoHandshake(t *testing.T) {
	if isOpenSSL() {
		t.Skip("what Go says is as long as the chain, for which there is a limit")
	}
	k := &ticketKeeper{data: payload(5000)}
	session, _ := resumable(t, [32]byte{1}, tlsOption(func(s, c *TLSConfig) { s.Callbacks = k }))
	w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) { s.Callbacks, c.Session = k, session }))
	require.False(t, w.server.state.Resumed)
	require.Nil(t, k.got)
}

func TestEarlyDataNeedsTheSameProtocol(t *testing.T) {
	early := tlsOption(func(s, c *TLSConfig) {
		s.NextProtos, c.NextProtos = []string{"a", "b"}, []string{"a"}
		s.EarlyData, c.EarlyData = true, true
	})
	session, params := resumable(t, [32]byte{1}, early)
	for _, c := range []struct {
		server, client []string
		accepted       bool
	}{
		{[]string{"a", "b"}, []string{"a"}, true},
		{[]string{"b", "a"}, []string{"a", "b"}, false},
	} {
		w := connected(t, tickets([32]byte{1}), early, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
			w.serverTLS.NextProtos, ct.NextProtos = c.server, c.client
			ct.Session, o.EarlyParams = session, params
		})
		require.Equal(t, c.accepted, w.client.state.EarlyAccepted)
		require.Equal(t, c.accepted, w.server.state.EarlyAccepted)
	}
}

// RFC 8446, Section 4.2.10: a server that asks for another ClientHello must not
// accept early data.
func TestEarlyDataIsRejectedAfterAHelloRetryRequest(t *testing.T) {
	early := tlsOption(func(s, c *TLSConfig) { s.EarlyData, c.EarlyData = true, true })
	session, params := resumable(t, [32]byte{1}, early)
	w := connected(t, tickets([32]byte{1}), early, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
		w.serverTLS.Curves, ct.Curves = []uint16{uint16(tls.CurveP384)}, []uint16{uint16(tls.X25519), uint16(tls.CurveP384)}
		ct.Session, o.EarlyParams = session, params
	})
	require.False(t, w.client.state.EarlyAccepted)
	require.False(t, w.server.state.EarlyAccepted)
	require.True(t, w.client.state.HelloRetry)
	require.True(t, w.server.state.HelloRetry)
	require.True(t, w.client.state.Resumed)
	require.Equal(t, 1, w.client.count[EarlyDataRejected])
}

// RFC 8446, Section 4.2.11: a session is not bound to the group it began with.
func TestASessionIsResumedWithAnotherGroup(t *testing.T) {
	x25519 := tlsOption(func(s, c *TLSConfig) { s.Curves, c.Curves = []uint16{uint16(tls.X25519)}, nil })
	session, _ := resumable(t, [32]byte{1}, x25519)
	for _, curves := range [][]uint16{nil, {uint16(tls.X25519)}, {uint16(tls.CurveP256), uint16(tls.X25519)}, {uint16(tls.CurveP384)}} {
		for _, server := range [][]uint16{nil, curves} {
			w := connected(t, tickets([32]byte{1}), tlsOption(func(s, c *TLSConfig) {
				s.Curves, c.Curves, c.Session = server, curves, session
			}))
			// wolfSSL leaves out a session whose group it is not to use.
			require.Equal(t, isOpenSSL() || len(curves) != 1 || curves[0] == uint16(tls.X25519), w.client.state.Resumed, "%v %v", server, curves)
			w.close()
		}
	}
}

func TestEarlyDataIsRejectedWithoutTheKey(t *testing.T) {
	early := tlsOption(func(s, c *TLSConfig) { s.EarlyData, c.EarlyData = true, true })
	session, params := resumable(t, [32]byte{1}, early)
	w := connected(t, tickets([32]byte{2}), early, func(w *world, _ *Settings, o *ClientOptions, ct *TLSConfig) {
		ct.Session, o.EarlyParams = session, params
	})
	require.False(t, w.client.state.EarlyAccepted)
	require.False(t, w.client.state.Resumed)
	require.Equal(t, 1, w.client.count[EarlyDataRejected])
}

// A holder is a crypto.Signer that does not show its key.
type holder struct {
	key  crypto.Signer
	err  error
	used int
}

func (h *holder) Public() crypto.PublicKey { return h.key.Public() }
func (h *holder) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	h.used++
	if h.err != nil {
		return nil, h.err
	}
	return h.key.Sign(r, digest, opts)
}

func TestASignerKeepsItsKey(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "RSA", "Ed25519"} {
		t.Run(kind, func(t *testing.T) {
			checkMemory(t)
			h := &holder{key: newKey(t, kind)}
			cert, err := NewCertificate(newChain(t, h.Public()), nil, nil, h)
			require.NoError(t, err)
			defer cert.Close()
			both := tlsOption(func(s, c *TLSConfig) {
				s.Certificate, s.ClientAuth = cert, ClientAuthRequire
				c.Callbacks = &certificateChooser{cert: cert}
			})
			w := connected(t, both)
			require.Equal(t, 2, h.used)
			require.Len(t, w.server.state.PeerChain, 2)
			w.close()
			h.err = errors.New("the token is not there")
			w = newWorld(t, both)
			w.fails(80, theServer)
			require.ErrorIs(t, w.server.TLSError(), h.err)
			w.close()
		})
	}
}

func TestAKeyMustBelongToTheCertificate(t *testing.T) {
	chain := newChain(t, newKey(t, "P-256").Public())
	for _, key := range []crypto.PrivateKey{newKey(t, "P-256"), newKey(t, "RSA"), &holder{key: newKey(t, "P-256")}} {
		_, err := NewCertificate(chain, nil, nil, key)
		require.ErrorContains(t, err, "is not the certificate's")
	}
	_, err := NewCertificate(nil, nil, nil, newKey(t, "P-256"))
	require.Error(t, err)
	_, err = NewCertificate(chain, nil, nil, "key")
	require.ErrorContains(t, err, "string is no private key")
	_, err = NewCertificate([][]byte{{0x30, 0}}, nil, nil, newKey(t, "P-256"))
	require.Error(t, err)
}

func TestRawPublicKeys(t *testing.T) {
	cert, chain := newTestCertificate(t, "P-256")
	leaf, err := x509.ParseCertificate(chain[0])
	require.NoError(t, err)
	conf := func(s, c *TLSConfig) {
		s.RawPublicKey, c.RawPublicKey = true, true
		s.Certificate, s.ClientAuth = cert, ClientAuthRequire
		c.Callbacks = &certificateChooser{cert: cert}
	}
	if !isOpenSSL() {
		require.ErrorContains(t, CheckTLS(&TLSConfig{RawPublicKey: true}), "raw public keys")
		return
	}
	w := connected(t, tlsOption(conf))
	require.Equal(t, [][]byte{leaf.RawSubjectPublicKeyInfo}, w.client.state.PeerChain)
	require.Equal(t, [][]byte{leaf.RawSubjectPublicKeyInfo}, w.server.state.PeerChain)
	w = newWorld(t, tlsOption(conf), tlsOption(func(s, c *TLSConfig) {
		s.Callbacks.(*testCallbacks).verify = func([][]byte) (uint8, bool) { return 42, false }
	}))
	w.fails(42, theServer)
}

func TestTheStateOutlivesTheTLSObject(t *testing.T) {
	cert, chain := newTestCertificate(t, "P-256")
	w := connected(t, tlsOption(func(s, c *TLSConfig) {
		s.ClientAuth = ClientAuthRequire
		c.Callbacks = &certificateChooser{cert: cert}
	}))
	before := w.server.TLSState()
	require.Equal(t, chain, before.PeerChain)
	w.server.ReleaseTLS()
	w.server.ReleaseTLS()
	require.Equal(t, before, w.server.TLSState())
}

func TestConfigurationsThatCannotBeAreRefused(t *testing.T) {
	cb := &testCallbacks{}
	for name, c := range map[string]*TLSConfig{
		"no callbacks":   {},
		"empty protocol": {Callbacks: cb, NextProtos: []string{""}},
		"long protocol":  {Callbacks: cb, NextProtos: []string{strings.Repeat("a", 256)}},
		"curve":          {Callbacks: cb, Curves: []uint16{1}},
		"suite":          {Callbacks: cb, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
	} {
		s := testSettings()
		_, err := NewClient(&s, &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: make([]byte, 12), SCID: make([]byte, 8)}, c)
		require.Error(t, err, name)
	}
}

func TestVersionsAreThoseThatThisWasBuiltFor(t *testing.T) {
	require.NoError(t, Check())
	v := Versions()
	require.Len(t, v, 3)
	for name, version := range v {
		require.Regexp(t, `^\d+\.\d+\.\d+`, version, name)
	}
}

func TestChainsArePackedAndUnpacked(t *testing.T) {
	chain := [][]byte{{1, 2, 3}, bytes.Repeat([]byte{4}, 70000), {}}
	b, err := packChain(chain)
	require.NoError(t, err)
	got := unpackChain(b)
	require.Len(t, got, 3)
	require.Equal(t, chain[1], got[1])
	require.Nil(t, unpackChain([]byte{0, 0, 2, 1}))
	_, err = packChain([][]byte{make([]byte, 1<<24)})
	require.Error(t, err)
}
