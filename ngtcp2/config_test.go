//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

func TestConfigThatCannotBeHonouredIsRefusedByName(t *testing.T) {
	const plain = "" // refused, but not as unsupported
	for _, test := range []struct {
		name        string
		unsupported string // a part of UnsupportedError.What
		change      func(*transport.Config)
		server      bool // refused by Listen
		client      bool // refused by Dial
	}{
		{"no TLS", plain, func(c *transport.Config) { c.TLS = nil }, true, true},
		{"no protocol", plain, func(c *transport.Config) { c.TLS.NextProtos = nil }, true, true},
		{"an empty protocol", plain, func(c *transport.Config) { c.TLS.NextProtos = []string{"a", ""} }, true, true},
		{"a long protocol", plain, func(c *transport.Config) { c.TLS.NextProtos = []string{strings.Repeat("a", 256)} }, true, true},
		{"too many protocols", plain, func(c *transport.Config) { c.TLS.NextProtos = slices.Repeat([]string{strings.Repeat("a", 255)}, 256) }, true, true},
		{"TLS 1.2 at most", plain, func(c *transport.Config) { c.TLS.MaxVersion = tls.VersionTLS12 }, true, true},
		{"TLS 1.4 at least", plain, func(c *transport.Config) { c.TLS.MinVersion = tls.VersionTLS13 + 1 }, true, true},
		{"renegotiation", "tls.Config.Renegotiation", func(c *transport.Config) { c.TLS.Renegotiation = tls.RenegotiateFreelyAsClient }, true, true},
		{"other entropy", "tls.Config.Rand", func(c *transport.Config) { c.TLS.Rand = rand.Reader }, true, true},
		{"an unknown curve", "tls.Config.CurvePreferences", func(c *transport.Config) { c.TLS.CurvePreferences = []tls.CurveID{tls.X25519, 0x1234} }, true, true},
		{"no certificate", plain, func(c *transport.Config) { c.TLS.Certificates = nil }, true, false},
		{"an empty certificate", plain, func(c *transport.Config) { c.TLS.Certificates = []tls.Certificate{{}} }, true, true},
		{"a certificate without key", plain, func(c *transport.Config) {
			c.TLS.Certificates = []tls.Certificate{{Certificate: [][]byte{{1}}}}
		}, true, true},
		{"a certificate with fewer algorithms", "SupportedSignatureAlgorithms", func(c *transport.Config) {
			c.TLS.Certificates = []tls.Certificate{testcert.NewCA().Certificate("localhost")}
			c.TLS.Certificates[0].SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
		}, true, true},
		{"a certificate with timestamps", "tls.Certificate.SignedCertificateTimestamps", func(c *transport.Config) {
			c.TLS.Certificates = []tls.Certificate{testcert.NewCA().Certificate("localhost")}
			c.TLS.Certificates[0].SignedCertificateTimestamps = [][]byte{{1}}
		}, capi.TLSLibrary() != "openssl", true},
		{"another's key", plain, func(c *transport.Config) {
			c.TLS.Certificates = []tls.Certificate{testcert.NewCA().Certificate("localhost")}
			c.TLS.Certificates[0].PrivateKey = newECDSA(t)
		}, true, false},
		{"an unknown ClientAuth", plain, func(c *transport.Config) { c.TLS.ClientAuth = 5 }, true, false},
		{"no server name", plain, func(c *transport.Config) { c.TLS.ServerName = "" }, false, true},
		{"a session cache of crypto/tls", "tls.Config.ClientSessionCache", func(c *transport.Config) { c.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1) }, false, true},
		{"tickets of its own", "tls.Config.WrapSession", func(c *transport.Config) { c.TLS.WrapSession = (&tls.Config{}).EncryptTicket }, true, false},
		{"sessions of its own", "tls.Config.UnwrapSession", func(c *transport.Config) { c.TLS.UnwrapSession = (&tls.Config{}).DecryptTicket }, true, false},
		{"ECH", "tls.Config.EncryptedClientHelloConfigList", func(c *transport.Config) { c.TLS.EncryptedClientHelloConfigList = []byte{1} }, false, true},
		{"ECH refused", "tls.Config.EncryptedClientHelloRejectionVerify", func(c *transport.Config) {
			c.TLS.EncryptedClientHelloRejectionVerify = func(tls.ConnectionState) error { return nil }
		}, false, true},
		{"ECH keys", "tls.Config.EncryptedClientHelloKeys", func(c *transport.Config) { c.TLS.EncryptedClientHelloKeys = []tls.EncryptedClientHelloKey{{}} }, true, false},
		{"ECH keys by function", "tls.Config.GetEncryptedClientHelloKeys", func(c *transport.Config) {
			c.TLS.GetEncryptedClientHelloKeys = func(*tls.ClientHelloInfo) ([]tls.EncryptedClientHelloKey, error) { return nil, nil }
		}, true, false},
		{"early data without tickets", plain, func(c *transport.Config) { c.EarlyData, c.TLS.SessionTicketsDisabled = true, true }, true, false},
		{"sessions without tickets", plain, func(c *transport.Config) { c.Sessions, c.TLS.SessionTicketsDisabled = &oneSession{}, true }, false, true},
		{"an unknown algorithm", `"Reno"`, func(c *transport.Config) { c.CongestionControl = "Reno" }, true, true},
		{"no stream window", "StreamWindow", func(c *transport.Config) { c.StreamWindow = -1 }, true, true},
		{"no connection window", "ConnWindow", func(c *transport.Config) { c.ConnWindow = -1 }, true, true},
		{"a negative datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = -1 }, true, true},
		{"a huge datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = 65537 }, true, true},

		{"reno", plain, func(c *transport.Config) { c.CongestionControl = "reno" }, false, false},
		{"cubic", plain, func(c *transport.Config) { c.CongestionControl = "cubic" }, false, false},
		{"bbr", plain, func(c *transport.Config) { c.CongestionControl = "bbr" }, false, false},
		{"older cipher suites", plain, func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} }, false, false},
		{"one cipher suite", plain, func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_AES_256_GCM_SHA384} }, false, false},
		{"one curve", plain, func(c *transport.Config) { c.TLS.CurvePreferences = []tls.CurveID{tls.CurveP256} }, false, false},
		{"the largest datagram queue", plain, func(c *transport.Config) { c.DatagramQueue = 65536 }, false, false},
		{"nothing has a bound", plain, func(c *transport.Config) {
			c.HandshakeTimeout, c.IdleTimeout, c.KeepAlive, c.MaxStreams, c.MaxUniStreams = -1, -1, -1, -1, -1
		}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, client := testcert.New("test")
			check := func(err error, refused bool) {
				if !refused {
					require.NoError(t, err)
					return
				}
				require.Error(t, err)
				u, ok := errors.AsType[*transport.UnsupportedError](err)
				require.Equal(t, test.unsupported != "", ok, "%v", err)
				if ok {
					require.Equal(t, "ngtcp2", u.Engine)
					require.Contains(t, u.What, test.unsupported)
					require.ErrorIs(t, err, errors.ErrUnsupported)
				}
			}
			cfg := &transport.Config{TLS: server}
			test.change(cfg)
			_, err := serverConfig(cfg)
			check(err, test.server)
			cfg = &transport.Config{TLS: client}
			test.change(cfg)
			_, err = clientConfig(cfg)
			check(err, test.client)
		})
	}
	_, err := serverConfig(nil)
	require.Error(t, err)
	_, err = clientConfig(nil)
	require.Error(t, err)
}

// TestEveryFieldOfTLSConfigIsDecidedOn fails when a release of Go adds a field.
func TestEveryFieldOfTLSConfigIsDecidedOn(t *testing.T) {
	decided := map[string]string{
		"Rand":                                "refused",
		"Time":                                "verification, sessions, rotation of ticket keys",
		"Certificates":                        "",
		"NameToCertificate":                   "",
		"GetCertificate":                      "",
		"GetClientCertificate":                "",
		"GetConfigForClient":                  "",
		"VerifyPeerCertificate":               "",
		"VerifyConnection":                    "",
		"RootCAs":                             "",
		"NextProtos":                          "",
		"ServerName":                          "",
		"ClientAuth":                          "",
		"ClientCAs":                           "",
		"InsecureSkipVerify":                  "",
		"CipherSuites":                        "those of TLS 1.3; crypto/tls has them all",
		"PreferServerCipherSuites":            "without effect, as in crypto/tls",
		"SessionTicketsDisabled":              "",
		"SessionTicketKey":                    "",
		"ClientSessionCache":                  "refused on a client, not used by a server",
		"UnwrapSession":                       "refused on a server, not used by a client",
		"WrapSession":                         "refused on a server, not used by a client",
		"MinVersion":                          "TLS 1.3 only",
		"MaxVersion":                          "TLS 1.3 only",
		"CurvePreferences":                    "what is unknown is refused",
		"DynamicRecordSizingDisabled":         "without effect: QUIC has no records",
		"Renegotiation":                       "refused",
		"KeyLogWriter":                        "",
		"EncryptedClientHelloConfigList":      "refused on a client, not used by a server",
		"EncryptedClientHelloRejectionVerify": "refused on a client, not used by a server",
		"GetEncryptedClientHelloKeys":         "refused on a server, not used by a client",
		"EncryptedClientHelloKeys":            "refused on a server, not used by a client",
	}
	var fields []string
	for f := range reflect.TypeFor[tls.Config]().Fields() {
		if f.IsExported() {
			fields = append(fields, f.Name)
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(decided)), fields)

	certificate := []string{"Certificate", "PrivateKey", "SupportedSignatureAlgorithms", "OCSPStaple", "SignedCertificateTimestamps", "Leaf"}
	fields = nil
	for f := range reflect.TypeFor[tls.Certificate]().Fields() {
		fields = append(fields, f.Name)
	}
	require.ElementsMatch(t, certificate, fields)
}

func TestZeroConfigHasTheDefaultsOfTheContract(t *testing.T) {
	_, client := testcert.New("test")
	cc, err := clientConfig(&transport.Config{TLS: client})
	require.NoError(t, err)
	s := cc.settings
	require.EqualValues(t, 10*time.Second, s.HandshakeTimeout)
	require.EqualValues(t, 30*time.Second, s.IdleTimeout)
	require.EqualValues(t, uint64(capi.NoExpiry), s.KeepAlive)
	require.EqualValues(t, 100, s.MaxStreams)
	require.EqualValues(t, 100, s.MaxUniStreams)
	require.EqualValues(t, 6<<20, s.MaxStreamWindow)
	require.EqualValues(t, 15<<20, s.MaxConnWindow)
	require.Less(t, s.StreamWindow, s.MaxStreamWindow)
	require.Less(t, s.ConnWindow, s.MaxConnWindow)
	require.EqualValues(t, 8<<20, s.SendBuffer)
	require.EqualValues(t, 1452, s.MaxUDPPayload)
	require.Zero(t, s.MaxDatagramFrame)
	require.EqualValues(t, 128, s.DatagramQueue)
	require.Equal(t, capi.Cubic, s.CongestionControl)
	require.Equal(t, "cubic", cc.congestionControl)
	require.False(t, s.QLog)
}

func TestConfigIsTranslated(t *testing.T) {
	_, client := testcert.New("test")
	cc, err := clientConfig(&transport.Config{
		TLS: client, HandshakeTimeout: 1, IdleTimeout: 2, KeepAlive: 3, MaxStreams: 4, MaxUniStreams: math.MaxInt64,
		StreamWindow: 1000, ConnWindow: math.MaxInt64, Datagrams: true, DatagramQueue: 5, CongestionControl: "bbr",
		QLog: func([]byte, bool) io.WriteCloser { return nil },
	})
	require.NoError(t, err)
	s := cc.settings
	require.EqualValues(t, 1, s.HandshakeTimeout)
	require.EqualValues(t, 2, s.IdleTimeout)
	require.EqualValues(t, 3, s.KeepAlive)
	require.EqualValues(t, 4, s.MaxStreams)
	require.EqualValues(t, 1<<60, s.MaxUniStreams, "RFC 9000, Section 4.6")
	require.EqualValues(t, 1000, s.StreamWindow)
	require.EqualValues(t, 1000, s.MaxStreamWindow)
	require.EqualValues(t, 1<<62-1, s.MaxConnWindow, "RFC 9000, Section 16")
	require.EqualValues(t, 65535, s.MaxDatagramFrame)
	require.EqualValues(t, 5, s.DatagramQueue)
	require.Equal(t, capi.BBR, s.CongestionControl)
	require.True(t, s.QLog)

	cc, err = clientConfig(&transport.Config{TLS: client, HandshakeTimeout: -1, IdleTimeout: -1, KeepAlive: -1, MaxStreams: -1, MaxUniStreams: -1})
	require.NoError(t, err)
	s = cc.settings
	require.EqualValues(t, uint64(capi.NoExpiry), s.HandshakeTimeout)
	require.Zero(t, s.IdleTimeout)
	require.EqualValues(t, uint64(capi.NoExpiry), s.KeepAlive)
	require.Zero(t, s.MaxStreams)
	require.Zero(t, s.MaxUniStreams)
}

func TestKnobsAreChecked(t *testing.T) {
	server, client := testcert.New("test")
	for _, k := range []*Knobs{{SendBuffer: -1}, {SendBuffer: 1}, {SendBuffer: math.MaxInt64}, {MaxUDPPayload: 1199}, {MaxUDPPayload: 65528}, {MaxUDPPayload: -1}} {
		_, err := k.clientConfig(&transport.Config{TLS: client})
		require.Error(t, err, "%+v", k)
		_, err = k.serverConfig(&transport.Config{TLS: server})
		require.Error(t, err, "%+v", k)
	}
	k := &Knobs{SendBuffer: 1 << 20, MaxUDPPayload: 1200}
	cc, err := k.clientConfig(&transport.Config{TLS: client})
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, cc.settings.SendBuffer)
	require.EqualValues(t, 1200, cc.settings.MaxUDPPayload)

	k = &Knobs{RawPublicKeys: &RawPublicKeys{}}
	_, err = k.clientConfig(&transport.Config{TLS: client})
	require.Error(t, err, "nothing would authenticate the server")
	_, err = k.serverConfig(&transport.Config{TLS: server})
	asking := server.Clone()
	asking.ClientAuth = tls.RequireAnyClientCert
	_, err2 := k.serverConfig(&transport.Config{TLS: asking})
	require.Error(t, err2)
	if capi.TLSLibrary() == "openssl" {
		require.NoError(t, err)
		k.RawPublicKeys.Verify = func([]byte) error { return nil }
		client.ServerName = ""
		_, err = k.clientConfig(&transport.Config{TLS: client})
		require.NoError(t, err, "a raw public key has no name")
	} else {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

func TestPreferencesGoToTheLibraryAsCryptoTLSUnderstandsThem(t *testing.T) {
	c := &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256, tls.X25519, tls.X25519MLKEM768, tls.X25519}}
	require.Equal(t, []uint16{uint16(tls.X25519MLKEM768), uint16(tls.X25519), uint16(tls.CurveP256)}, curvePreferences(c),
		"the order of the list is ignored")
	require.Empty(t, curvePreferences(&tls.Config{}))
	c = &tls.Config{CipherSuites: []uint16{tls.TLS_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_AES_128_GCM_SHA256, tls.TLS_CHACHA20_POLY1305_SHA256}}
	require.Equal(t, []uint16{tls.TLS_CHACHA20_POLY1305_SHA256, tls.TLS_AES_128_GCM_SHA256}, cipherSuites(c))
	require.Empty(t, cipherSuites(&tls.Config{}))

	server := testcert.NewCA().Server("localhost", "one", "two")
	for mode, want := range map[tls.ClientAuthType]int{
		tls.NoClientCert: capi.ClientAuthNone, tls.RequestClientCert: capi.ClientAuthRequest,
		tls.VerifyClientCertIfGiven: capi.ClientAuthRequest, tls.RequireAnyClientCert: capi.ClientAuthRequire,
		tls.RequireAndVerifyClientCert: capi.ClientAuthRequire,
	} {
		ca := testcert.NewCA()
		server.ClientAuth, server.ClientCAs = mode, ca.Pool()
		cc, err := serverConfig(&transport.Config{TLS: server, EarlyData: true})
		require.NoError(t, err)
		conf, _, _, err := cc.serverTLS(t.Context(), nil, loopback, loopback)
		require.NoError(t, err)
		require.True(t, conf.Server)
		require.Equal(t, want, conf.ClientAuth)
		require.Equal(t, mode != tls.NoClientCert, len(conf.ClientCAs) == 1, "%v", mode)
		require.Equal(t, []string{"one", "two"}, conf.NextProtos)
		require.NotNil(t, conf.Certificate)
		require.Equal(t, conf.Tickets, conf.EarlyData)
		require.NotEmpty(t, conf.TicketKeys)
	}
}

func TestKeyLogLinesAreWholeAndFailuresEndTheHandshake(t *testing.T) {
	_, client := testcert.New("test")
	var log strings.Builder
	client.KeyLogWriter = &log
	cc, err := clientConfig(&transport.Config{TLS: client})
	require.NoError(t, err)
	conf, ts := cc.clientTLS(aConn{t.Context()})
	require.True(t, conf.KeyLog)
	ts.KeyLog("CLIENT_RANDOM 1 2")
	ts.KeyLog("CLIENT_RANDOM 3 4")
	require.Equal(t, "CLIENT_RANDOM 1 2\nCLIENT_RANDOM 3 4\n", log.String())
	require.NoError(t, ts.err())

	client.KeyLogWriter = full{}
	ts = clientSide(t, client)
	ts.KeyLog("CLIENT_RANDOM 1 2")
	alert, ok := ts.VerifyPeer(testcert.NewCA().Certificate("localhost").Certificate)
	require.False(t, ok)
	require.EqualValues(t, alertInternalError, alert)
	require.Equal(t, io.ErrShortWrite, ts.err())
	alert, err = ts.finish(capi.TLSState{})
	require.EqualValues(t, alertInternalError, alert)
	require.Equal(t, io.ErrShortWrite, err)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
