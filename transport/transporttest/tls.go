package transporttest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

var tlsCases = []testCase{
	{name: "TLS13", rows: "L01", run: testTLS13,
		says: "TLS 1.3 is the only version."},
	{name: "NothingInClear", rows: "L01", run: testNothingInClear,
		says: "A Transport is an implementation of QUIC version 1 (RFC 9000)."},
	{name: "VerifyDefault", rows: "L04", run: testVerifyDefault,
		says: "After it returns nil the peer is authenticated."},
	{name: "VerifyName", rows: "L04", run: testVerifyName,
		says: "After it returns nil the peer is authenticated."},
	{name: "VerifyConnection", rows: "L04 A04", run: testVerifyConnection,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "VerifyPeerCertificate", rows: "L04", run: testVerifyPeerCertificate,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "ALPN", rows: "L09", run: testALPN,
		says: "State returns what the handshake negotiated."},
	{name: "ALPNMismatch", rows: "L09 T25", udp: true, run: testALPNMismatch,
		says: "ProtocolError.Code: RFC 9000, Section 20.1; 0x100 + alert for TLS."},
	{name: "SNI", rows: "L10", run: testSNI,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "GetCertificate", rows: "L10", run: testGetCertificate,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "GetConfigForClient", rows: "L10", run: testGetConfigForClient,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "MTLS", rows: "L07", run: testMTLS,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "MTLSRefused", rows: "L07", run: testMTLSRefused,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "KeyLog", rows: "L11", run: testKeyLog,
		says: "An engine returns an *UnsupportedError for a field it cannot honour; it never ignores one."},
	{name: "TLSInfo", rows: "L08", run: testTLSInfo,
		says: "TLS is filled in except for what needs crypto/tls itself."},
}

// Alerts of RFC 8446, Section 6.
const (
	alertCertificateRequired tls.AlertError = 116
	alertNoApplicationProto  tls.AlertError = 120
)

func certs(c ...tls.Certificate) []tls.Certificate { return c }

func requireClientCert(l *lab, c *transport.Config) {
	c.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	c.TLS.ClientCAs = l.ca.Pool()
}

func testTLS13(l *lab) {
	p := l.connect(setup{
		server: func(c *transport.Config) { c.TLS.MinVersion = tls.VersionTLS12 }, // allows more than QUIC does
		client: func(c *transport.Config) { c.TLS.MinVersion = tls.VersionTLS12 },
	})
	require.EqualValues(l, tls.VersionTLS13, p.client.State().TLS.Version)
	require.EqualValues(l, tls.VersionTLS13, p.server.State().TLS.Version)
	p.echo(l)
}

func testNothingInClear(l *lab) {
	marker := "a marker that no packet may show"
	seen := l.net.Capture()
	p := l.connectWithDatagrams()
	c, s := p.streams(l)
	_, err := c.Write(bytes.Repeat([]byte(marker), 100))
	require.NoError(l, err)
	_, err = s.Write([]byte(marker))
	require.NoError(l, err)
	if p.client.State().MaxDatagram > 0 {
		require.NoError(l, p.client.SendDatagram([]byte(marker)))
	}
	got := make([]byte, len(marker))
	_, err = c.Read(got)
	require.NoError(l, err)
	require.NoError(l, p.client.CloseWithError(1, marker))
	wantApplication(l, ended(l, p.server), 1, marker, true, "server")
	require.Greater(l, len(seen.Packets()), 5)
	for _, pkt := range seen.Packets() {
		require.False(l, bytes.Contains(pkt.Data, []byte(marker[:12])), "%x", pkt.Data)
		require.NotEmpty(l, pkt.Data)
	}
}

func testVerifyDefault(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) { c.TLS.RootCAs = testcert.NewCA().Pool() }})
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e)
	require.False(l, e.Remote)
	require.Equal(l, uint64(0x100), e.Code&^0xff, "a TLS alert: %v", err)
	require.ErrorIs(l, err, errClosed)
	require.Zero(l, p.serverEP.Stats().ConnsAccepted)

	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.RootCAs = nil // the system's know nothing of ours
	_, err = p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.ErrorAs(l, err, &e)

	p.clientCfg.TLS.InsecureSkipVerify = true // only if asked for
	p.dial(l)
	p.echo(l)
}

func testVerifyName(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) { c.TLS.ServerName = "elsewhere.example" }})
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e)
	require.False(l, e.Remote)
	require.Equal(l, uint64(0x100), e.Code&^0xff, "a TLS alert: %v", err)
}

func testVerifyConnection(l *lab) {
	var asked atomic.Int64
	p := l.listen(setup{client: func(c *transport.Config) {
		c.TLS.VerifyConnection = func(s tls.ConnectionState) error {
			asked.Add(1)
			if s.PeerCertificates[0].DNSNames[0] != "localhost" || s.NegotiatedProtocol != alpn {
				return errors.New("another state than the handshake's")
			}
			return nil
		}
	}})
	p.dial(l)
	p.echo(l)
	require.EqualValues(l, 1, asked.Load())
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e)
	require.Equal(l, uint64(0x100), e.Code&^0xff, "a TLS alert: %v", err)
}

func testVerifyPeerCertificate(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) {
		c.TLS.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
			if len(raw) == 0 || len(chains) == 0 || !bytes.Equal(raw[0], chains[0][0].Raw) {
				return errors.New("no verified chain")
			}
			return nil
		}
	}})
	p.dial(l)
	p.echo(l)
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errors.New("no") }
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e)
}

func testALPN(l *lab) {
	p := l.listen(setup{
		server: func(c *transport.Config) { c.TLS.NextProtos = []string{"b", "c"} },
		client: func(c *transport.Config) { c.TLS.NextProtos = []string{"a", "c", "b"} },
	})
	p.dial(l)
	require.Equal(l, "b", p.client.State().TLS.NegotiatedProtocol, "the server's preference")
	require.Equal(l, "b", p.server.State().TLS.NegotiatedProtocol)
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.NextProtos = []string{"c"}
	p.dial(l)
	require.Equal(l, "c", p.client.State().TLS.NegotiatedProtocol)
	require.Equal(l, "c", p.server.State().TLS.NegotiatedProtocol)
}

func testALPNMismatch(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) { c.TLS.NextProtos = []string{"something-else"} }})
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.EqualValues(l, 0x178, tlsError(alertNoApplicationProto))
	wantProtocol(l, err, 0x178, true, "Dial")
	p.clientCfg = l.clientConfig()
	p.dial(l)
	p.echo(l)
}

func testSNI(l *lab) {
	p := l.listen(setup{server: func(c *transport.Config) {
		c.TLS.Certificates = certs(l.ca.Certificate("one.example"), l.ca.Certificate("two.example"))
	}})
	for _, name := range []string{"one.example", "two.example"} {
		p.clientCfg = l.clientConfig()
		p.clientCfg.TLS.ServerName = name
		p.dial(l)
		require.Equal(l, []string{name}, p.client.State().TLS.PeerCertificates[0].DNSNames)
		require.Equal(l, name, p.server.State().TLS.ServerName)
		p.echo(l)
	}
}

func testGetCertificate(l *lab) {
	one, two := l.ca.Certificate("one.example"), l.ca.Certificate("two.example")
	p := l.listen(setup{server: func(c *transport.Config) {
		c.TLS.Certificates = nil
		c.TLS.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			switch h.ServerName {
			case "one.example":
				return &one, nil
			case "two.example":
				return &two, nil
			}
			return nil, errors.New("no such host")
		}
	}})
	for _, name := range []string{"one.example", "two.example"} {
		p.clientCfg = l.clientConfig()
		p.clientCfg.TLS.ServerName = name
		p.dial(l)
		require.Equal(l, []string{name}, p.client.State().TLS.PeerCertificates[0].DNSNames)
		p.echo(l)
	}
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.ServerName = "three.example"
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e)
	require.True(l, e.Remote)
}

func testGetConfigForClient(l *lab) {
	special := l.ca.Server("two.example", "special")
	p := l.listen(setup{server: func(c *transport.Config) {
		c.TLS.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if h.ServerName == "two.example" {
				return special, nil
			}
			return nil, nil
		}
	}})
	p.dial(l)
	require.Equal(l, alpn, p.client.State().TLS.NegotiatedProtocol)
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.ServerName = "two.example"
	p.clientCfg.TLS.NextProtos = []string{alpn, "special"}
	p.dial(l)
	require.Equal(l, "special", p.client.State().TLS.NegotiatedProtocol)
	require.Equal(l, []string{"two.example"}, p.client.State().TLS.PeerCertificates[0].DNSNames)
	p.echo(l)
}

func testMTLS(l *lab) {
	p := l.connect(setup{
		server: func(c *transport.Config) { requireClientCert(l, c) },
		client: func(c *transport.Config) { c.TLS.Certificates = certs(l.ca.ClientCertificate("alice")) },
	})
	chain := p.server.State().TLS.PeerCertificates
	require.NotEmpty(l, chain)
	require.Equal(l, "alice", chain[0].Subject.CommonName)
	require.NotEmpty(l, p.server.State().TLS.VerifiedChains)
	p.echo(l)
}

func testMTLSRefused(l *lab) {
	p := l.listen(setup{server: func(c *transport.Config) { requireClientCert(l, c) }})
	refused := func(code uint64) {
		l.Helper()
		// The client's handshake is complete before the server has seen its
		// certificate (RFC 8446, Section 4.4.2): the refusal may come later.
		c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		if err == nil {
			err = ended(l, c)
		}
		wantProtocol(l, err, code, true, "client")
		require.Zero(l, p.serverEP.Stats().ConnsAccepted)
	}
	refused(tlsError(alertCertificateRequired))
	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		stranger := testcert.NewCA().ClientCertificate("alice")
		return &stranger, nil
	}
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	if err == nil {
		err = ended(l, c)
	}
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e, "a certificate of another authority")
	require.True(l, e.Remote)
	require.Equal(l, uint64(0x100), e.Code&^0xff, "a TLS alert: %v", err)
	require.Zero(l, p.serverEP.Stats().ConnsAccepted)
}

func testKeyLog(l *lab) {
	var server, client safeBuffer
	p := l.connect(setup{
		server: func(c *transport.Config) { c.TLS.KeyLogWriter = &server },
		client: func(c *transport.Config) { c.TLS.KeyLogWriter = &client },
	})
	p.echo(l)
	secret := func(b *safeBuffer, label string) string {
		text, _ := b.state()
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == label {
				return f[1] + f[2]
			}
		}
		require.FailNow(l, "no "+label, text)
		return ""
	}
	for _, label := range []string{
		"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET",
		"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0",
	} {
		require.Equal(l, secret(&server, label), secret(&client, label))
	}
}

func testTLSInfo(l *lab) {
	p := l.connect(setup{})
	c, s := p.client.State().TLS, p.server.State().TLS
	for _, st := range []tls.ConnectionState{c, s} {
		require.True(l, st.HandshakeComplete)
		require.EqualValues(l, tls.VersionTLS13, st.Version)
		require.Contains(l, []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}, st.CipherSuite)
		require.Equal(l, alpn, st.NegotiatedProtocol)
		require.False(l, st.DidResume)
		require.Equal(l, "localhost", st.ServerName)
	}
	require.Equal(l, c.CipherSuite, s.CipherSuite)
	require.Equal(l, "localhost", c.PeerCertificates[0].Subject.CommonName)
	require.Len(l, c.VerifiedChains, 1)
	require.Len(l, c.VerifiedChains[0], 2, "leaf and authority")
	require.Empty(l, s.PeerCertificates)
}
