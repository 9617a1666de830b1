package transporttest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var listenerCases = []testCase{
	{name: "ListenerClose", rows: "T07", udp: true, run: testListenerClose,
		says: "Close stops accepting. Accepted connections are unaffected. A blocked Accept returns an error matching net.ErrClosed."},
	{name: "ListenerCloseRefuses", rows: "T07", run: testListenerCloseRefuses,
		says: "New connection attempts are refused (CONNECTION_REFUSED)."},
	{name: "ListenAgain", rows: "T07", run: testListenAgain,
		says: "An Endpoint has at most one Listener at a time; after its Close another may be started."},
	{name: "NoListener", rows: "O03", run: testNoListener,
		says: "ConnsRefused: attempts refused: no listener, Options.MaxConns, the accept queue full."},
	{name: "ListenerAddr", rows: "T08", run: testListenerAddr,
		says: "Addr returns the local address of the socket."},
	{name: "AcceptAfterHandshake", rows: "T07", run: testAcceptAfterHandshake,
		says: "Accept returns the next connection. The handshake is complete, unless the listener's Config has EarlyData set."},
	{name: "AcceptNotHeldUp", rows: "T07 A09", run: testAcceptNotHeldUp,
		says: "A connection that nobody accepts does not hold up another."},
	{name: "AcceptQueue", rows: "T23", run: testAcceptQueue,
		says: "A connection that nobody accepts does not hold up another."},
	{name: "ConnAuth", rows: "A04", run: testConnAuth,
		says: "Accept returns the next connection. The handshake is complete."},
}

func testListenerClose(l *lab) {
	p := l.connect(setup{})
	accepting := async(func() error { _, err := p.ln.Accept(l.ctx); return err })
	p.echo(l) // by now Accept most likely blocks
	require.NoError(l, p.ln.Close())
	require.ErrorIs(l, <-accepting, errClosed)
	_, err := p.ln.Accept(l.ctx)
	require.ErrorIs(l, err, errClosed, "a later Accept")
	p.echo(l)
}

func testListenerCloseRefuses(l *lab) {
	p := l.connect(setup{})
	require.NoError(l, p.ln.Close())
	start := time.Now()
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "Dial")
	require.Less(l, time.Since(start), time.Second)
	p.echo(l)
}

func testListenAgain(l *lab) {
	p := l.connect(setup{})
	_, err := p.serverEP.Listen(l.serverConfig())
	require.Error(l, err, "a second listener")
	first, firstServer := p.client, p.server
	require.NoError(l, p.ln.Close())
	p.ln, err = p.serverEP.Listen(l.serverConfig())
	require.NoError(l, err)
	p.dial(l)
	p.echo(l)
	echo(l, first, firstServer)
}

func testNoListener(l *lab) {
	server := l.open(l.server, l.serverSocket(), nil)
	client := l.open(l.client, l.clientSocket(), nil)
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	_, err := client.Dial(ctx, server.Addr(), l.clientConfig())
	require.Error(l, err)
	require.Positive(l, server.Stats().ConnsRefused)
	require.Zero(l, server.Stats().ConnsOpen)
	l.settle(20 * time.Second)
	require.Zero(l, client.Stats().ConnsOpen)
}

func testListenerAddr(l *lab) {
	p := l.listen(setup{})
	require.Equal(l, p.serverPC.LocalAddr().String(), p.ln.Addr().String())
	require.Equal(l, p.serverPC.LocalAddr().String(), p.serverEP.Addr().String())
	require.Equal(l, p.clientPC.LocalAddr().String(), p.clientEP.Addr().String())
}

func testAcceptAfterHandshake(l *lab) {
	p := l.connect(setup{})
	require.True(l, p.client.State().HandshakeComplete)
	require.True(l, p.server.State().HandshakeComplete)
	require.NoError(l, p.client.Handshake(l.ctx))
	require.NoError(l, p.server.Handshake(l.ctx))
}

func testAcceptNotHeldUp(l *lab) {
	p := l.listen(setup{})
	// Three clients say hello and no more.
	for range 3 {
		pc := l.clientSocket()
		ep := l.open(l.client, pc, nil)
		sim(pc).Links(access, Link{Cut: true})
		ctx, cancel := context.WithTimeout(l.ctx, 100*time.Millisecond)
		_, err := ep.Dial(ctx, p.serverEP.Addr(), l.clientConfig())
		cancel()
		require.ErrorIs(l, err, context.DeadlineExceeded)
	}
	start := time.Now()
	p.dial(l)
	require.Less(l, time.Since(start), 100*time.Millisecond)
	p.echo(l)
}

func testAcceptQueue(l *lab) {
	p := l.listen(setup{})
	// Connections that are complete, and that nobody accepts, do not keep
	// accepted ones from working.
	p.dial(l)
	for range 10 {
		_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		require.NoError(l, err)
	}
	p.echo(l)
	for range 10 {
		c, err := p.ln.Accept(l.ctx)
		require.NoError(l, err)
		require.NoError(l, c.Context().Err())
	}
}

// The application denies a peer by its certificate or address before it
// accepts any stream.
func testConnAuth(l *lab) {
	alice, mallory := l.ca.ClientCertificate("alice"), l.ca.ClientCertificate("mallory")
	p := l.listen(setup{
		server: func(c *transport.Config) { requireClientCert(l, c) },
		client: func(c *transport.Config) { c.TLS.Certificates = certs(alice) },
	})
	auth := func(c transport.Conn) bool {
		chain := c.State().TLS.PeerCertificates
		return chain[0].Subject.CommonName == "alice" && addrPort(c.RemoteAddr()).Addr() == addrPort(p.clientPC.LocalAddr()).Addr()
	}
	p.dial(l)
	require.True(l, auth(p.server))
	p.echo(l)

	p.clientCfg = l.clientConfig()
	p.clientCfg.TLS.Certificates = certs(mallory)
	p.dial(l)
	s, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	_, err = s.Write([]byte("secret"))
	require.NoError(l, err)
	require.False(l, auth(p.server))
	require.NoError(l, p.server.CloseWithError(0x87, "not authorized"))
	_, err = s.Read(make([]byte, 1))
	wantApplication(l, err, 0x87, "not authorized", true, "client")
	require.Zero(l, p.server.Stats().StreamsAccepted)
}
