package transporttest

import (
	"context"
	"crypto/tls"
	"io"
	"os"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var optionCases = []testCase{
	{name: "ServerOptions", rows: "T05", run: testServerOptions,
		says: "A Config configures connections."},
	{name: "ClientOptions", rows: "T06", run: testClientOptions,
		says: "A Config configures connections."},
	{name: "TLSIsRequired", rows: "L01 L03", run: testTLSIsRequired,
		says: "TLS must be set, with NextProtos and, for a server, a certificate."},
	{name: "DialNeedsServerName", rows: "L04", run: testDialNeedsServerName,
		says: "If cfg.TLS names no server to verify, Dial returns an error."},
	{name: "CongestionControl", rows: "T14", run: testCongestionControl,
		says: "CongestionControl names the algorithm, as far as Features lists it. Empty means the engine's best."},
	{name: "FeatureRefused", rows: "T25", run: testFeatureRefused,
		says: "Features are the abilities that differ between engines. UnsupportedError reports what an engine cannot do."},
	{name: "WindowNone", rows: "T17", run: testWindowNone,
		says: "Negative means none; an engine that cannot do without a window returns an *UnsupportedError."},
	{name: "ConfigIsNotModified", rows: "T05 T06", run: testConfigIsNotModified,
		says: "It must not be modified after use."},
	{name: "QLog", rows: "O07", needs: needsQLog, run: testQLog,
		says: "QLog returns where to write the qlog of a connection, in JSON text sequences, or nil for none. The engine closes the writer after the connection's end."},
}

func testServerOptions(l *lab) {
	p := l.connect(setup{
		server: func(c *transport.Config) {
			c.MaxStreams, c.MaxUniStreams = 2, 1
			c.IdleTimeout = 4 * time.Second
			c.StreamWindow = 32 << 10
			c.Datagrams = l.server.Features().Datagrams
		},
		client: func(c *transport.Config) { c.Datagrams = l.client.Features().Datagrams },
	})
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	c, _ := p.streams(l)
	p.streams(l)
	_, err := p.client.OpenStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "MaxStreams")
	openUni(l, p.client, p.server)
	_, err = p.client.OpenUniStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "MaxUniStreams")
	require.NoError(l, c.SetWriteDeadline(time.Now().Add(time.Second)))
	_, err = c.Write(make([]byte, 1<<20))
	require.ErrorIs(l, err, os.ErrDeadlineExceeded, "StreamWindow")
	if l.client.Features().Datagrams && l.server.Features().Datagrams {
		require.Positive(l, p.client.State().MaxDatagram, "Datagrams")
	}
	start := time.Now()
	wantTimeout(l, ended(l, p.client), transport.ErrIdleTimeout, "IdleTimeout")
	require.Less(l, time.Since(start), 10*time.Second)
}

func testClientOptions(l *lab) {
	p := l.listen(setup{server: func(c *transport.Config) {
		c.TLS.NextProtos = []string{"one", "two"}
		c.IdleTimeout = time.Minute
	}})
	dial := func(proto string, f func(*transport.Config)) (c, s transport.Conn) {
		p.clientCfg = l.clientConfig() // each call of Dial has a Config of its own
		p.clientCfg.TLS.NextProtos = []string{proto}
		f(p.clientCfg)
		return p.more(l)
	}
	a, aServer := dial("one", func(c *transport.Config) { c.MaxStreams = 1; c.IdleTimeout = 5 * time.Second })
	b, bServer := dial("two", func(c *transport.Config) {
		c.MaxStreams = 2
		c.IdleTimeout = 5 * time.Second
		c.KeepAlive = time.Second
	})
	require.Equal(l, "one", aServer.State().TLS.NegotiatedProtocol)
	require.Equal(l, "two", bServer.State().TLS.NegotiatedProtocol)
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	openStream(l, aServer, a)
	_, err := aServer.OpenStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "MaxStreams of the first connection")
	openStream(l, bServer, b)
	openStream(l, bServer, b)
	wantTimeout(l, ended(l, a), transport.ErrIdleTimeout, "IdleTimeout of the first connection")
	l.settle(10 * time.Second)
	require.NoError(l, b.Context().Err(), "KeepAlive of the second connection")
	echo(l, b, bServer)
}

func testTLSIsRequired(l *lab) {
	p := l.listen(setup{})
	require.NoError(l, p.ln.Close())
	noProtos := func(c *tls.Config) *tls.Config { c = c.Clone(); c.NextProtos = nil; return c }
	noCert := l.serverConfig()
	noCert.TLS.Certificates = nil
	old := func(c *tls.Config) *tls.Config { c = c.Clone(); c.MaxVersion = tls.VersionTLS12; return c }
	for name, cfg := range map[string]*transport.Config{
		"no Config":      nil,
		"no TLS":         {},
		"no NextProtos":  {TLS: noProtos(l.serverConfig().TLS)},
		"no certificate": noCert,
		"TLS 1.2":        {TLS: old(l.serverConfig().TLS)},
	} {
		_, err := p.serverEP.Listen(cfg)
		require.Error(l, err, "Listen: %s", name)
	}
	ln, err := p.serverEP.Listen(l.serverConfig())
	require.NoError(l, err, "Listen after refusals")
	p.ln = ln
	start := time.Now()
	for name, cfg := range map[string]*transport.Config{
		"no Config":     nil,
		"no TLS":        {},
		"no NextProtos": {TLS: noProtos(l.clientConfig().TLS)},
		"TLS 1.2":       {TLS: old(l.clientConfig().TLS)},
	} {
		_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), cfg)
		require.Error(l, err, "Dial: %s", name)
	}
	require.Zero(l, time.Since(start), "no packet is needed to know it")
	p.dial(l)
	p.echo(l)
}

func testDialNeedsServerName(l *lab) {
	p := l.listen(setup{})
	cfg := l.clientConfig()
	cfg.TLS.ServerName = ""
	start := time.Now()
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), cfg)
	require.Error(l, err)
	require.Zero(l, time.Since(start), "no packet is needed to know it")

	cfg = l.clientConfig()
	cfg.TLS.ServerName = ""
	cfg.TLS.InsecureSkipVerify = true // there is nothing to verify
	p.clientCfg = cfg
	p.dial(l)
	p.echo(l)
}

func testCongestionControl(l *lab) {
	p := l.listen(setup{})
	for _, side := range []struct {
		e   transport.Transport
		try func(name string) (transport.Conn, error)
	}{
		{l.client, func(name string) (transport.Conn, error) {
			p.clientCfg = l.clientConfig()
			p.clientCfg.CongestionControl = name
			c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
			if err == nil {
				_, err = p.ln.Accept(l.ctx)
			}
			return c, err
		}},
		{l.server, func(name string) (transport.Conn, error) {
			require.NoError(l, p.ln.Close())
			cfg := l.serverConfig()
			cfg.CongestionControl = name
			ln, err := p.serverEP.Listen(cfg)
			if err != nil {
				return nil, err
			}
			p.ln = ln
			p.clientCfg = l.clientConfig()
			_, c := p.more(l)
			return c, nil
		}},
	} {
		can := map[string]bool{}
		for _, name := range side.e.Features().CongestionControl {
			can[name] = true
		}
		for _, name := range []string{"reno", "cubic", "bbr", "nonesuch", "RENO"} {
			c, err := side.try(name)
			if !can[name] {
				wantUnsupported(l, err, side.e, name)
				continue
			}
			require.NoError(l, err, name)
			require.Equal(l, name, c.State().CongestionControl)
		}
		c, err := side.try("")
		require.NoError(l, err)
		require.Equal(l, side.e.Features().CongestionControl[0], c.State().CongestionControl, "the default comes first")
	}
}

// What Features does not declare is refused by name, never ignored.
func testFeatureRefused(l *lab) {
	p := l.listen(setup{})
	require.NoError(l, p.ln.Close())
	refuses := func(e transport.Transport, has bool, f func(*transport.Config), what string) {
		l.Helper()
		cfg := l.serverConfig()
		f(cfg)
		ep := p.serverEP
		if e == l.client {
			ep = p.clientEP
		}
		ln, err := ep.Listen(cfg)
		if has {
			require.NoError(l, err, "Listen with %s", what)
			require.NoError(l, ln.Close())
		} else {
			wantUnsupported(l, err, e, "Listen with "+what)
		}
	}
	for _, e := range []transport.Transport{l.client, l.server} {
		f := e.Features()
		refuses(e, f.Datagrams, func(c *transport.Config) { c.Datagrams = true }, "Datagrams")
		refuses(e, f.EarlyData, func(c *transport.Config) { c.EarlyData = true }, "EarlyData")
		refuses(e, f.QLog, func(c *transport.Config) {
			c.QLog = func([]byte, bool) io.WriteCloser { return nil }
		}, "QLog")
	}
	if !l.client.Features().Migration {
		ln, err := p.serverEP.Listen(l.serverConfig())
		require.NoError(l, err)
		p.ln = ln
		p.dial(l)
		pc := l.clientSocket()
		wantUnsupported(l, p.client.Migrate(l.ctx, pc), l.client, "Migrate")
		require.False(l, sim(pc).Closed())
		require.NoError(l, pc.Close())
		p.echo(l)
	}
}

func testWindowNone(l *lab) {
	for _, f := range []func(*transport.Config){
		func(c *transport.Config) { c.StreamWindow = -1 },
		func(c *transport.Config) { c.ConnWindow = -1 },
	} {
		server := l.open(l.server, l.serverSocket(), nil)
		cfg := l.serverConfig()
		f(cfg)
		ln, err := server.Listen(cfg)
		if err != nil {
			wantUnsupported(l, err, l.server, "Listen without a window")
			require.NoError(l, server.Close())
			continue
		}
		// Without a limit a writer whose data nobody reads gets far.
		p := &pair{clientEP: l.open(l.client, l.clientSocket(), nil), serverEP: server, ln: ln, clientCfg: l.clientConfig()}
		p.dial(l)
		c, _ := p.streams(l)
		require.NoError(l, c.SetWriteDeadline(time.Now().Add(time.Minute)))
		_, err = c.Write(make([]byte, 20<<20))
		require.NoError(l, err)
		require.NoError(l, server.Close())
	}
}

func testConfigIsNotModified(l *lab) {
	p := l.listen(setup{})
	require.NoError(l, p.ln.Close())
	server, client := l.serverConfig(), l.clientConfig()
	serverCopy, clientCopy := *server, *client
	serverTLS, clientTLS := server.TLS.Clone(), client.TLS.Clone()
	ln, err := p.serverEP.Listen(server)
	require.NoError(l, err)
	p.ln, p.clientCfg = ln, client
	p.dial(l)
	p.echo(l)
	p.dial(l)
	p.echo(l)
	serverCopy.TLS, clientCopy.TLS = server.TLS, client.TLS
	require.Equal(l, serverCopy, *server)
	require.Equal(l, clientCopy, *client)
	require.Equal(l, serverTLS.MinVersion, server.TLS.MinVersion)
	require.Equal(l, serverTLS.NextProtos, server.TLS.NextProtos)
	require.Equal(l, clientTLS.MinVersion, client.TLS.MinVersion)
	require.Equal(l, clientTLS.ServerName, client.TLS.ServerName)
	require.Nil(l, client.TLS.ClientSessionCache)
}

func testQLog(l *lab) {
	type log struct {
		safeBuffer
		id     string
		client bool
	}
	logs := make(chan *log, 10)
	open := func(id []byte, client bool) io.WriteCloser {
		b := &log{id: string(id), client: client}
		logs <- b
		return b
	}
	qlog := func(c *transport.Config) { c.QLog = open }
	p := l.connect(setup{server: qlog, client: qlog})
	p.echo(l)
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	l.settle(30 * time.Second)
	require.Len(l, logs, 2, "one from each side")
	for range 2 {
		b := <-logs
		text, closed := b.state()
		require.Equal(l, 1, closed, "closed after the end")
		require.Equal(l, string(p.client.State().ConnID), b.id, "the original destination connection ID")
		require.True(l, strings.HasPrefix(text, "\x1e{"), "RFC 7464: %.40q", text)
		require.Contains(l, text, "packet_sent")
		require.Equal(l, b.client, strings.Contains(text, `"type":"client"`), "the vantage point")
	}

	// nil: no log of this connection.
	p.clientCfg = l.clientConfig()
	p.clientCfg.QLog = func([]byte, bool) io.WriteCloser { return nil }
	p.dial(l)
	p.echo(l)
}
