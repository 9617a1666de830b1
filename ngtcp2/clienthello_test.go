//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// chosen is what a server with the configuration c answers to client: the DER
// of its leaf, or an alert.
func chosen(t *testing.T, c, client *tls.Config) ([]byte, uint8) {
	t.Helper()
	cc, err := serverConfig(&transport.Config{TLS: c})
	require.NoError(t, err)
	got, fail := cc.chooseBy(t.Context(), helloOf(t, client), loopback, loopback)
	if fail != nil {
		return nil, fail.alert
	}
	return got.cert.Certificate[0], 0
}

func TestAServerChoosesItsCertificateAsCryptoTLSDoes(t *testing.T) {
	ca := testcert.NewCA()
	one, two, wild := ca.Certificate("one.example"), ca.Certificate("two.example"), ca.Certificate("*.example.org")
	edwards := selfSigned(t, "one.example")
	get := func(c *tls.Certificate, err error) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, err }
	}
	for name, change := range map[string]func(c *tls.Config){
		"one certificate":         func(c *tls.Config) { c.Certificates = []tls.Certificate{two} },
		"by name":                 func(c *tls.Config) { c.Certificates = []tls.Certificate{one, two, wild} },
		"by name, another order":  func(c *tls.Config) { c.Certificates = []tls.Certificate{wild, two, one} },
		"two keys for one name":   func(c *tls.Config) { c.Certificates = []tls.Certificate{edwards, one} },
		"GetCertificate":          func(c *tls.Config) { c.GetCertificate = get(&two, nil) },
		"GetCertificate and more": func(c *tls.Config) { c.GetCertificate, c.Certificates = get(&two, nil), []tls.Certificate{wild, one} },
		"GetCertificate and one":  func(c *tls.Config) { c.GetCertificate, c.Certificates = get(&two, nil), []tls.Certificate{one} },
		"GetCertificate has none": func(c *tls.Config) { c.GetCertificate = get(nil, nil) },
		"GetCertificate has none, but there are others": func(c *tls.Config) {
			c.GetCertificate, c.Certificates = get(nil, nil), []tls.Certificate{wild, two}
		},
		"GetCertificate fails": func(c *tls.Config) { c.GetCertificate = get(nil, errRefused) },
		"NameToCertificate": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{one, two}
			c.NameToCertificate = map[string]*tls.Certificate{"one.example": &two, "*.example": &wild, "*": &wild} //nolint:staticcheck // what is tested
		},
		"NameToCertificate with one certificate": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{one}
			c.NameToCertificate = map[string]*tls.Certificate{"one.example": &two} //nolint:staticcheck // what is tested
		},
		"GetConfigForClient": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{one}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{NextProtos: c.NextProtos, Certificates: []tls.Certificate{two, wild}}, nil
			}
		},
		"GetConfigForClient has none": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{one, two}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
		},
		"GetConfigForClient fails": func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errRefused }
		},
		"GetConfigForClient returns no certificate": func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{NextProtos: c.NextProtos}, nil
			}
		},
	} {
		for _, sni := range []string{"", "one.example", "TWO.example", "a.example.org", "localhost", "other.example"} {
			t.Run(name+" for "+sni, func(t *testing.T) {
				client := &tls.Config{ServerName: sni, NextProtos: []string{"test"}, InsecureSkipVerify: true}
				server := &tls.Config{NextProtos: []string{"test"}}
				change(server)
				c, s := cryptoTLS(t, client, server)
				leaf, alert := chosen(t, server, client)
				require.Equal(t, s.alert, alert, "crypto/tls: %v", s.err)
				if s.err == nil {
					require.Equal(t, c.state.PeerCertificates[0].Raw, leaf)
				}
			})
		}
	}
}

// selfSigned is a certificate with an Ed25519 key.
func selfSigned(t *testing.T, name string) tls.Certificate {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAClientChoosesItsCertificateAsCryptoTLSDoes(t *testing.T) {
	ca, other := testcert.NewCA(), testcert.NewCA()
	alice, bob := ca.ClientCertificate("alice"), other.ClientCertificate("bob")
	get := func(c *tls.Certificate, err error) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, err }
	}
	for name, change := range map[string]func(c *tls.Config){
		"none":               func(*tls.Config) {},
		"one":                func(c *tls.Config) { c.Certificates = []tls.Certificate{alice} },
		"another's":          func(c *tls.Config) { c.Certificates = []tls.Certificate{bob} },
		"by authority":       func(c *tls.Config) { c.Certificates = []tls.Certificate{bob, alice} },
		"a function's":       func(c *tls.Config) { c.GetClientCertificate, c.Certificates = get(&bob, nil), []tls.Certificate{alice} },
		"a function's none":  func(c *tls.Config) { c.GetClientCertificate = get(&tls.Certificate{}, nil) },
		"a function's error": func(c *tls.Config) { c.GetClientCertificate = get(nil, errRefused) },
	} {
		for _, cas := range []*x509.CertPool{nil, ca.Pool(), other.Pool()} {
			t.Run(name, func(t *testing.T) {
				client, server := ca.Client("localhost", "test"), ca.Server("localhost", "test")
				server.ClientAuth, server.ClientCAs = tls.RequestClientCert, cas
				change(client)
				var asked *tls.CertificateRequestInfo
				judge := client.Clone()
				judge.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked = r
					if client.GetClientCertificate != nil {
						return client.GetClientCertificate(r)
					}
					for _, c := range client.Certificates {
						if r.SupportsCertificate(&c) == nil {
							return &c, nil
						}
					}
					return &tls.Certificate{}, nil
				}
				c, _ := cryptoTLS(t, judge, server)
				_, s := cryptoTLS(t, client, server)
				require.NotNil(t, asked)

				ts := clientSide(t, client)
				got, err := ts.clientCertificate(asked)
				require.Equal(t, c.err == nil, err == nil, "%v", err)
				switch {
				case err != nil:
					require.Equal(t, errRefused, err)
				case got == nil:
					require.Empty(t, s.state.PeerCertificates)
				default:
					require.Equal(t, s.state.PeerCertificates[0].Raw, got.Certificate[0])
				}

				// What the library asks is passed on.
				var schemes []uint16
				for _, s := range asked.SignatureSchemes {
					schemes = append(schemes, uint16(s))
				}
				cert, err := ts.ClientCertificate(&capi.CertificateRequest{AcceptableCAs: asked.AcceptableCAs, SignatureSchemes: schemes})
				require.Equal(t, c.err == nil, err == nil)
				require.Equal(t, got != nil && err == nil, cert != nil)
				require.Equal(t, err, ts.err())
			})
		}
	}
}

func TestGetClientCertificateLearnsWhatTheServerAsked(t *testing.T) {
	_, client := testcert.New("test")
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, 1)
	var seen *tls.CertificateRequestInfo
	client.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		seen = r
		return &tls.Certificate{}, nil
	}
	ts := clientSide(t, client)
	ts.ctx = ctx
	_, err := ts.ClientCertificate(&capi.CertificateRequest{AcceptableCAs: [][]byte{{1}}, SignatureSchemes: []uint16{uint16(tls.Ed25519)}})
	require.NoError(t, err)
	require.EqualValues(t, tls.VersionTLS13, seen.Version)
	require.Equal(t, [][]byte{{1}}, seen.AcceptableCAs)
	require.Equal(t, []tls.SignatureScheme{tls.Ed25519}, seen.SignatureSchemes)
	require.Equal(t, ctx, seen.Context())
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, nil }
	_, err = ts.ClientCertificate(&capi.CertificateRequest{})
	require.Equal(t, errNoCertificateReturned, err)
}

// TestContextsCanBeSet fails when a release of Go moves the field.
func TestContextsCanBeSet(t *testing.T) { require.True(t, contextSettable) }

func TestCallbacksGetTheRealClientHello(t *testing.T) {
	ca := testcert.NewCA()
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "mine"))
	remote := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
	calls := 0
	// Not require: it would end the goroutine, which is crypto/tls's.
	check := func(h *tls.ClientHelloInfo) {
		calls++
		assert.Equal(t, "localhost", h.ServerName)
		assert.Equal(t, []string{"test", "more"}, h.SupportedProtos)
		assert.Contains(t, h.SupportedVersions, uint16(tls.VersionTLS13))
		assert.NotEmpty(t, h.CipherSuites)
		assert.NotEmpty(t, h.SupportedCurves)
		assert.NotEmpty(t, h.SignatureSchemes)
		assert.NotEmpty(t, h.Extensions)
		assert.Equal(t, ctx, h.Context())
		assert.NoError(t, h.Context().Err())
		assert.Equal(t, remote, h.Conn.RemoteAddr())
		assert.Equal(t, loopback, h.Conn.LocalAddr())
		_, err := h.Conn.Read(make([]byte, 1))
		assert.Error(t, err)
		_, err = h.Conn.Write([]byte{1})
		assert.Error(t, err)
		assert.Error(t, h.Conn.Close())
		assert.Error(t, errors.Join(h.Conn.SetDeadline(future()), h.Conn.SetReadDeadline(future()), h.Conn.SetWriteDeadline(future())))
	}
	server := ca.Server("localhost", "test")
	cert := server.Certificates[0]
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		check(h)
		assert.NoError(t, h.SupportsCertificate(&cert))
		elsewhere := ca.Certificate("elsewhere.example")
		assert.Error(t, h.SupportsCertificate(&elsewhere))
		h.ServerName = "changed" // is nobody else's business
		return nil, nil
	}
	var late context.Context
	server.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		check(h)
		late = h.Context()
		return &cert, nil
	}
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	_, _, _, err = cc.serverTLS(ctx, helloOf(t, ca.Client("localhost", "test", "more")), loopback, remote)
	require.NoError(t, err)
	require.Equal(t, 2, calls)
	require.NoError(t, late.Err(), "the handshake goes on")
	cancel()
	require.Error(t, late.Err())
}

func TestAClientHelloThatCannotBeReadIsRefused(t *testing.T) {
	ca := testcert.NewCA()
	server := ca.Server("localhost", "test")
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	hello := helloOf(t, ca.Client("localhost", "test"))
	for _, bad := range [][]byte{nil, {1}, hello[:4], hello[:len(hello)-1], {1, 0, 0, 0}, {2, 0, 0, 0}, {1, 0xff, 0xff, 0xff}} {
		_, _, alert, err := cc.serverTLS(t.Context(), bad, loopback, loopback)
		require.Error(t, err, "%x", bad)
		require.EqualValues(t, alertDecodeError, alert)
	}
}

func TestWhatGetConfigForClientReturnsIsCheckedToo(t *testing.T) {
	ca := testcert.NewCA()
	hello := helloOf(t, ca.Client("localhost", "test"))
	for name, test := range map[string]struct {
		alert  uint8
		change func(*tls.Config)
	}{
		"no protocol":        {alertNoApplicationProtocol, func(c *tls.Config) { c.NextProtos = nil }},
		"another's entropy":  {alertInternalError, func(c *tls.Config) { c.Rand = rand.Reader }},
		"TLS 1.2":            {alertInternalError, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
		"WrapSession":        {alertInternalError, func(c *tls.Config) { c.WrapSession = (&tls.Config{}).EncryptTicket }},
		"a certificate less": {alertUnrecognizedName, func(c *tls.Config) { c.Certificates = nil }},
		"no private key":     {alertInternalError, func(c *tls.Config) { c.Certificates[0].PrivateKey = nil }},
		"another's key":      {alertHandshakeFailure, func(c *tls.Config) { c.Certificates[0].PrivateKey = newECDSA(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			server := ca.Server("localhost", "test")
			server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				c := ca.Server("localhost", "test")
				test.change(c)
				return c, nil
			}
			cc, err := serverConfig(&transport.Config{TLS: server})
			require.NoError(t, err)
			_, _, alert, err := cc.serverTLS(t.Context(), hello, loopback, loopback)
			require.Error(t, err)
			require.Equal(t, test.alert, alert, "%v", err)
		})
	}
}

func newECDSA(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func TestServersWithOneCertificateDoNotReadTheClientHello(t *testing.T) {
	server, _ := testcert.New("test")
	cc, err := serverConfig(&transport.Config{TLS: server})
	require.NoError(t, err)
	_, ts, _, err := cc.serverTLS(t.Context(), []byte("no ClientHello"), loopback, loopback)
	require.NoError(t, err, "the TLS library reads it, and once is enough")
	require.NotNil(t, ts.cert)
}

func TestNamesAreSentAsCryptoTLSSendsThem(t *testing.T) {
	for _, name := range []string{
		"", "localhost", "example.org.", "example.org..", ".", "127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "[fe80::1%25eth0]", "[name]", "a%b", "1.2.3", "256.1.1.1",
	} {
		var sent string
		server := &tls.Config{NextProtos: []string{"test"}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			sent = h.ServerName
			return nil, errRefused
		}}
		cryptoTLS(t, &tls.Config{ServerName: name, NextProtos: []string{"test"}, InsecureSkipVerify: true}, server)
		require.Equal(t, sent, hostnameInSNI(name), "%q", name)
	}
}

func TestCertificatesAreParsedOnceAndKeptWithinALimit(t *testing.T) {
	ca := testcert.NewCA()
	cache := newCertificateCache()
	one := ca.Certificate("one.example")
	a, err := cache.get(&one)
	require.NoError(t, err)
	again := tls.Certificate{Certificate: [][]byte{append([]byte(nil), one.Certificate[0]...), one.Certificate[1]}, PrivateKey: copyKey(one.PrivateKey)}
	b, err := cache.get(&again)
	require.NoError(t, err)
	require.Same(t, a, b, "the same in other memory")
	stapled := one
	stapled.OCSPStaple = []byte{1}
	b, err = cache.get(&stapled)
	if capi.TLSLibrary() == "wolfssl" {
		require.ErrorContains(t, err, "OCSP")
	} else {
		require.NoError(t, err)
		require.NotSame(t, a, b)
	}
	logged := one
	logged.SignedCertificateTimestamps = [][]byte{{1}}
	b, err = cache.get(&logged)
	if capi.TLSLibrary() == "wolfssl" {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	} else {
		require.NoError(t, err)
		require.NotSame(t, a, b)
	}
	shorter := one
	shorter.Certificate = one.Certificate[:1]
	c, err := cache.get(&shorter)
	require.NoError(t, err)
	require.NotSame(t, b, c)
	held := one
	held.PrivateKey = holder{one.PrivateKey.(*ecdsa.PrivateKey)}
	d, err := cache.get(&held)
	require.NoError(t, err)
	e, err := cache.get(&held)
	require.NoError(t, err)
	require.Same(t, d, e, "a key that stays with its holder")
	require.Equal(t, 1, cache.recent.Len())

	key := newECDSA(t)
	for i := range maxCertificates + 10 {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		require.NoError(t, err)
		_, err = cache.get(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
		require.NoError(t, err)
	}
	require.Equal(t, maxCertificates, cache.recent.Len())
	require.Len(t, cache.byLeaf, maxCertificates)
	f, err := cache.get(&held)
	require.NoError(t, err)
	require.NotSame(t, e, f, "the oldest was forgotten")
	cache.close()
	cache.close()
	require.Zero(t, cache.recent.Len())
	_, err = cache.get(&held)
	require.NoError(t, err)
	require.Zero(t, cache.recent.Len(), "nothing is kept after close")
}

// A holder keeps its key to itself.
type holder struct{ key *ecdsa.PrivateKey }

func (h holder) Public() crypto.PublicKey { return h.key.Public() }

func (h holder) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.key.Sign(rand, digest, opts)
}

func copyKey(k crypto.PrivateKey) *ecdsa.PrivateKey {
	c := *k.(*ecdsa.PrivateKey)
	return &c
}

func TestKeysAreComparedWithoutPanic(t *testing.T) {
	a, b := newECDSA(t), newECDSA(t)
	r := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: big.NewInt(1), E: 3}, D: big.NewInt(1)}
	require.True(t, sameKey(a, a))
	require.True(t, sameKey(a, copyKey(a)))
	require.False(t, sameKey(a, b))
	require.False(t, sameKey(a, r))
	require.False(t, sameKey(a, holder{a}))
	require.True(t, sameKey(holder{a}, holder{a}))
	require.False(t, sameKey(uncomparable{nil}, uncomparable{nil}))
}

type uncomparable struct{ b []byte }

func FuzzClientHello(f *testing.F) {
	ca := testcert.NewCA()
	for _, c := range []*tls.Config{
		ca.Client("localhost", "test"),
		{InsecureSkipVerify: true, NextProtos: []string{"a", "b"}, CurvePreferences: []tls.CurveID{tls.CurveP256}},
	} {
		hello := helloOf(f, c)
		f.Add(hello)
		f.Add(hello[:len(hello)/2])
		f.Add(append(hello[:len(hello):len(hello)], 1, 0, 0, 0))
	}
	f.Add([]byte{1, 0, 0, 0})
	conf := ca.Server("localhost", "test")
	conf.Certificates = append(conf.Certificates, ca.Certificate("other.example"))
	f.Fuzz(func(t *testing.T, hello []byte) {
		called := 0
		err := readClientHello(t.Context(), conf, hello, loopback, loopback, func(info *tls.ClientHelloInfo) {
			called++
			if _, fail := chooseCertificate(conf, info); fail != nil {
				t.Fatal(fail)
			}
		})
		if (err == nil) != (called == 1) || called > 1 {
			t.Fatal(err, called)
		}
	})
}
