//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// oneSession is a transport.SessionCache with room for one.
type oneSession struct {
	name string
	b    []byte
}

func (c *oneSession) Take(name string) []byte {
	b := c.b
	c.name, c.b = name, nil
	return b
}

func (c *oneSession) Put(name string, b []byte) { c.name, c.b = name, b }

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// stored returns a session of a connection to a server of ca.
func stored(t testing.TB, ca *testcert.CA, change func(*tls.Config)) []byte {
	client := ca.Client("localhost", "one", "test")
	client.Time = func() time.Time { return start }
	if change != nil {
		change(client)
	}
	cache := &oneSession{}
	cc, err := clientConfig(&transport.Config{TLS: client, Sessions: cache})
	require.NoError(t, err)
	conf, ts := cc.clientTLS(aConn{t.Context()})
	require.True(t, conf.Tickets)
	require.Nil(t, conf.Session)
	require.Nil(t, ts.earlyParams)
	s := capi.TLSState{ALPN: "test", CipherSuite: tls.TLS_AES_128_GCM_SHA256, OCSP: []byte("stapled"), Timestamps: [][]byte{[]byte("logged"), {1}}}
	_, ok := ts.VerifyPeer(ca.Certificate("localhost").Certificate)
	require.True(t, ok, "%v", ts.err())
	_, err = ts.finish(s)
	require.NoError(t, err)
	ts.storeSession([]byte("the library's"), []byte("parameters"))
	require.Equal(t, "localhost", cache.name)
	return cache.b
}

func TestSessionSurvivesEncoding(t *testing.T) {
	b := stored(t, testcert.NewCA(), nil)
	s, err := decodeSession(b)
	require.NoError(t, err)
	require.Equal(t, capi.TLSLibrary(), s.library)
	require.True(t, s.created.Equal(start))
	require.Equal(t, tls.TLS_AES_128_GCM_SHA256, s.suite)
	require.True(t, s.verified)
	require.False(t, s.raw)
	require.Equal(t, "test", s.alpn)
	require.Equal(t, "the library's", string(s.tls))
	require.Equal(t, "parameters", string(s.params))
	require.Equal(t, "stapled", string(s.ocsp))
	require.Equal(t, [][]byte{[]byte("logged"), {1}}, s.scts)
	require.Len(t, s.chain, 2)
	again, err := s.encode()
	require.NoError(t, err)
	require.Equal(t, b, again)
	clear(b)
	last, err := s.encode()
	require.NoError(t, err)
	require.Equal(t, again, last, "it shares no memory with what it was read from")
}

func TestSessionThatCannotBeReadIsIgnored(t *testing.T) {
	ca := testcert.NewCA()
	b := stored(t, ca, nil)
	damaged := bytes.Clone(b)
	damaged[len(b)/2] ^= 1
	for _, bad := range [][]byte{
		nil, {}, {0}, []byte(sessionMagic), b[:len(sessionMagic)+sumLen], b[:len(b)-1], b[:len(b)/2],
		append([]byte("another engine's"), b...), append(bytes.Clone(b), 0), damaged, make([]byte, maxSession+1),
		bytes.Replace(b, []byte("ngtcp2"), []byte("purego"), 1),
	} {
		_, err := decodeSession(bad)
		require.ErrorIs(t, err, errNoSession, "%x", bad)
		cc, err := clientConfig(&transport.Config{TLS: ca.Client("localhost", "test"), Sessions: &oneSession{b: bad}})
		require.NoError(t, err)
		conf, _ := cc.clientTLS(aConn{t.Context()})
		require.Nil(t, conf.Session)
	}
	for _, s := range []*session{{}, {tls: []byte{1}, chain: make([][]byte, maxSessionCerts+1)}, {tls: []byte{1}, scts: make([][]byte, maxSessionSCTs+1)}, {tls: make([]byte, maxSession)}} {
		_, err := s.encode()
		require.ErrorIs(t, err, errNoSession)
	}
}

func TestSessionIsUsedOnlyIfTheServerWouldStillConvince(t *testing.T) {
	ca := testcert.NewCA()
	verified := stored(t, ca, nil)
	skipped := stored(t, ca, func(c *tls.Config) { c.InsecureSkipVerify = true })
	another := func(change func(*session)) []byte {
		s, err := decodeSession(verified)
		require.NoError(t, err)
		change(s)
		b, err := s.encode()
		require.NoError(t, err)
		return b
	}
	for _, test := range []struct {
		name        string
		b           []byte
		change      func(*transport.Config)
		used, early bool
	}{
		{"as before", verified, func(*transport.Config) {}, true, false},
		{"with early data", verified, func(c *transport.Config) { c.EarlyData = true }, true, true},
		{"with early data for another protocol", verified, func(c *transport.Config) { c.EarlyData, c.TLS.NextProtos = true, []string{"one"} }, true, false},
		{"without parameters for early data", another(func(s *session) { s.params = nil }), func(c *transport.Config) { c.EarlyData = true }, true, false},
		{"another authority", verified, func(c *transport.Config) { c.TLS.RootCAs = testcert.NewCA().Pool() }, false, false},
		{"the system's authorities", verified, func(c *transport.Config) { c.TLS.RootCAs = nil }, false, false},
		{"another name", verified, func(c *transport.Config) { c.TLS.ServerName = "elsewhere.example" }, false, false},
		{"another name that is not verified", verified, func(c *transport.Config) { c.TLS.ServerName, c.TLS.InsecureSkipVerify = "elsewhere.example", true }, false, false},
		{"another name, never verified", skipped, func(c *transport.Config) { c.TLS.ServerName, c.TLS.InsecureSkipVerify = "elsewhere.example", true }, false, false},
		{"not verified any more", verified, func(c *transport.Config) { c.TLS.InsecureSkipVerify = true }, true, false},
		{"not verified, then or now", skipped, func(c *transport.Config) { c.TLS.InsecureSkipVerify = true }, true, false},
		{"verified only now", skipped, func(*transport.Config) {}, false, false},
		{"expired certificate", another(func(s *session) { s.created = future() }), func(c *transport.Config) { c.TLS.Time = future }, false, false},
		{"expired certificate that is not verified", another(func(s *session) { s.created = future() }), func(c *transport.Config) {
			c.TLS.Time, c.TLS.InsecureSkipVerify = future, true
		}, false, false},
		{"seven days later", verified, func(c *transport.Config) { c.TLS.Time = func() time.Time { return start.Add(maxSessionLifetime) } }, true, false},
		{"eight days later", verified, func(c *transport.Config) {
			c.TLS.Time = func() time.Time { return start.Add(maxSessionLifetime + 24*time.Hour) }
		}, false, false},
		{"from the future", verified, func(c *transport.Config) { c.TLS.Time = func() time.Time { return start.Add(-time.Hour) } }, false, false},
		{"another library's", another(func(s *session) { s.library = "another" }), func(*transport.Config) {}, false, false},
		{"a raw public key's", another(func(s *session) { s.raw = true }), func(*transport.Config) {}, false, false},
		{"no certificate", another(func(s *session) { s.chain = nil }), func(*transport.Config) {}, false, false},
		{"no DER", another(func(s *session) { s.chain[0] = []byte{1} }), func(*transport.Config) {}, false, false},
		{"another cipher suite", verified, func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_AES_256_GCM_SHA384} }, false, false},
		{"the same cipher suite", verified, func(c *transport.Config) { c.TLS.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256} }, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := ca.Client("localhost", "one", "test")
			client.Time = func() time.Time { return start.Add(time.Second) }
			cache := &oneSession{b: test.b}
			cfg := &transport.Config{TLS: client, Sessions: cache}
			test.change(cfg)
			cc, err := clientConfig(cfg)
			require.NoError(t, err)
			conf, ts := cc.clientTLS(aConn{t.Context()})
			require.Equal(t, client.ServerName, cache.name)
			require.Nil(t, cache.b, "sessions are used once")
			require.Equal(t, test.used, conf.Session != nil)
			require.Equal(t, test.early, conf.EarlyData)
			require.Equal(t, test.early, ts.earlyParams != nil)
			if !test.used {
				return
			}
			got := handshake(ts, nil, capi.TLSState{Resumed: true, ALPN: client.NextProtos[len(client.NextProtos)-1]})
			require.NoError(t, got.err)
			require.True(t, got.state.DidResume)
			require.Len(t, got.state.PeerCertificates, 2)
			require.Equal(t, client.InsecureSkipVerify, len(got.state.VerifiedChains) == 0)
			require.Equal(t, "stapled", string(got.state.OCSPResponse))
			require.Equal(t, [][]byte{[]byte("logged"), {1}}, got.state.SignedCertificateTimestamps)
			ts.storeSession([]byte("the next"), nil)
			next, err := decodeSession(cache.b)
			require.NoError(t, err)
			require.Len(t, next.chain, 2)
			require.Equal(t, "stapled", string(next.ocsp))
		})
	}
}

func TestNoSessionIsKeptWithoutACacheOrAName(t *testing.T) {
	_, client := testcert.New("test")
	for _, change := range []func(*transport.Config){
		func(c *transport.Config) { c.Sessions = nil },
		func(c *transport.Config) { c.TLS.ServerName, c.TLS.InsecureSkipVerify = "", true },
	} {
		cache := &oneSession{b: []byte{1}}
		cfg := &transport.Config{TLS: client.Clone(), Sessions: cache}
		change(cfg)
		cc, err := clientConfig(cfg)
		require.NoError(t, err)
		conf, ts := cc.clientTLS(aConn{t.Context()})
		require.False(t, conf.Tickets)
		ts.peer = &peer{}
		ts.storeSession([]byte{1}, nil)
		require.Empty(t, cache.name)
	}
	ts := clientSide(t, client)
	ts.cc.cfg.Sessions = &oneSession{}
	ts.storeSession([]byte{1}, nil) // before the server has proved anything
	require.Empty(t, ts.cc.cfg.Sessions.(*oneSession).name)
}

func FuzzSession(f *testing.F) {
	b := stored(f, testcert.NewCA(), nil)
	_, err := decodeSession(b)
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(b[len(sessionMagic)+sumLen:]) // without the checksum, which no mutation gets past
	f.Add([]byte("\xff\xff\xff\xff"))
	_, client := testcert.New("test")
	cc, err := clientConfig(&transport.Config{TLS: client, Sessions: &oneSession{}})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSession(b); err == nil {
			cc.usable(s)
		}
		s, err := decodeFields(b)
		if err != nil {
			return
		}
		cc.usable(s)
		again, err := s.encode()
		if err != nil {
			require.Greater(t, len(b), maxSession-1024)
			return
		}
		require.Equal(t, b, again[len(sessionMagic)+sumLen:])
		_, err = decodeSession(again)
		require.NoError(t, err)
	})
}

func FuzzTicketData(f *testing.F) {
	ca := testcert.NewCA()
	server := ca.Server("localhost", "test")
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	ts := serverSide(f, server)
	_, ok := ts.VerifyPeer(ca.ClientCertificate("alice").Certificate)
	require.True(f, ok)
	f.Add(ts.TicketData())
	f.Add([]byte{0, 0, 0, 1, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { ts.ResumeTicket(b) })
}
