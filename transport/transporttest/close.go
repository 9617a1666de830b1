package transporttest

import (
	"context"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var closeCases = []testCase{
	{name: "CloseCode", rows: "T09 T25", udp: true, run: testCloseCode,
		says: "When a connection ends, blocked and later calls on it and on its streams return the reason."},
	{name: "CloseCodeByServer", rows: "T09 T25", run: testCloseCodeByServer,
		says: "CloseWithError ends the connection and tells the peer why."},
	{name: "CloseCodes", rows: "T09", run: testCloseCodes,
		says: "An ErrorCode is an application error code."},
	{name: "CloseCodeOfMany", rows: "T09 T26", run: testCloseCodeOfMany,
		says: "Context is done when the connection ends; context.Cause gives the reason."},
	{name: "CloseOnce", rows: "T09", run: testCloseOnce,
		says: "Only the first call counts; later ones return nil."},
	{name: "CloseByBoth", rows: "T09", run: testCloseByBoth,
		says: "Only the first call counts; later ones return nil."},
	{name: "CloseKinds", rows: "T09 T25", run: testCloseKinds,
		says: "Transport codes are a different space and a different type."},
	{name: "CloseUnblocks", rows: "T07 T09", run: testCloseUnblocks,
		says: "When a connection ends, blocked and later calls on it and on its streams return the reason."},
	{name: "CloseEndsItsOwnContext", rows: "T07 T09", run: testCloseEndsItsOwnContext,
		says: "When a connection ends, blocked and later calls on it return the reason, also if their context is done too, which the connection's own then is."},
	{name: "CloseRace", rows: "T26", udp: true, run: testCloseRace,
		says: "All methods may be called from any goroutine at any time."},
	{name: "CloseDoesNotWait", rows: "T07", run: testCloseDoesNotWait,
		says: "Nothing else blocks on the peer; in particular no Close waits for an acknowledgement."},
	{name: "CloseLost", rows: "T09 T24", run: testCloseLost,
		says: "CloseWithError ends the connection and tells the peer why."},
	{name: "Shutdown", rows: "T07", run: testShutdown,
		says: "Close stops accepting. Accepted connections are unaffected, new connection attempts are refused."},
}

// calls are one of everything that fails when a connection has ended.
func calls(l *lab, c transport.Conn, s transport.Stream) map[string]error {
	m := map[string]error{}
	_, m["OpenStream"] = c.OpenStream(l.ctx)
	_, m["OpenUniStream"] = c.OpenUniStream(l.ctx)
	_, m["AcceptStream"] = c.AcceptStream(l.ctx)
	_, m["AcceptUniStream"] = c.AcceptUniStream(l.ctx)
	_, m["Read"] = s.Read(make([]byte, 1))
	_, m["Write"] = s.Write([]byte("x"))
	m["Context"] = context.Cause(c.Context())
	if l.client.Features().Datagrams && l.server.Features().Datagrams {
		_, m["ReceiveDatagram"] = c.ReceiveDatagram(l.ctx)
		m["SendDatagram"] = c.SendDatagram([]byte("x"))
	}
	return m
}

// testCloseCodeOfMany gives the end of a connection many chances to be seen
// before its reason is known.
func testCloseCodeOfMany(l *lab) {
	p := l.listen(setup{})
	for i := range scale(150, 30) {
		client, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		require.NoError(l, err)
		server, err := p.ln.Accept(l.ctx)
		require.NoError(l, err)
		code := transport.ErrorCode(i + 1)
		from, to := client, server
		if i%2 == 1 {
			from, to = server, client
		}
		require.NoError(l, from.CloseWithError(code, "over"))
		ended(l, to)
		wantApplication(l, context.Cause(to.Context()), code, "over", true, "the peer's Context")
	}
}

func (l *lab) connectWithDatagrams() *pair {
	l.Helper()
	on := func(c *transport.Config) {
		c.Datagrams = l.client.Features().Datagrams && l.server.Features().Datagrams
	}
	return l.connect(setup{server: on, client: on})
}

func testCloseCode(l *lab) {
	p := l.connectWithDatagrams()
	c, s := p.streams(l)
	require.NoError(l, p.client.CloseWithError(42, "bye"))
	ended(l, p.client)
	ended(l, p.server)
	for name, err := range calls(l, p.client, c) {
		wantApplication(l, err, 42, "bye", false, "client's "+name)
	}
	for name, err := range calls(l, p.server, s) {
		wantApplication(l, err, 42, "bye", true, "server's "+name)
	}
}

func testCloseCodeByServer(l *lab) {
	p := l.connectWithDatagrams()
	c, s := p.streams(l)
	require.NoError(l, p.server.CloseWithError(0x10c, "no more"))
	ended(l, p.client)
	ended(l, p.server)
	for name, err := range calls(l, p.client, c) {
		wantApplication(l, err, 0x10c, "no more", true, "client's "+name)
	}
	for name, err := range calls(l, p.server, s) {
		wantApplication(l, err, 0x10c, "no more", false, "server's "+name)
	}
}

func testCloseCodes(l *lab) {
	p := l.listen(setup{})
	for _, code := range []transport.ErrorCode{0, 0x3f, 0x40, 1 << 32, 1<<62 - 1} {
		c, s := p.more(l)
		require.NoError(l, c.CloseWithError(code, ""))
		wantApplication(l, ended(l, s), code, "", true, "server")
		wantApplication(l, ended(l, c), code, "", false, "client")
	}
}

func testCloseOnce(l *lab) {
	p := l.connect(setup{})
	require.NoError(l, p.client.CloseWithError(1, "first"))
	require.NoError(l, p.client.CloseWithError(2, "second"))
	wantApplication(l, ended(l, p.client), 1, "first", false, "client")
	wantApplication(l, ended(l, p.server), 1, "first", true, "server")
	require.NoError(l, p.server.CloseWithError(3, "too late"), "Close after the peer's")
	wantApplication(l, ended(l, p.server), 1, "first", true, "server")
}

func testCloseByBoth(l *lab) {
	p := l.connect(setup{})
	require.NoError(l, p.client.CloseWithError(1, "client"))
	require.NoError(l, p.server.CloseWithError(2, "server"))
	wantApplication(l, ended(l, p.client), 1, "client", false, "client")
	wantApplication(l, ended(l, p.server), 2, "server", false, "server")
	l.settle(time.Second) // the packets have crossed
	wantApplication(l, ended(l, p.client), 1, "client", false, "client")
	wantApplication(l, ended(l, p.server), 2, "server", false, "server")
}

func testCloseKinds(l *lab) {
	p := l.connect(setup{})
	require.NoError(l, p.server.CloseWithError(connectionRefused, ""))
	err := ended(l, p.client)
	wantApplication(l, err, connectionRefused, "", true, "closed by the application")
	var proto *transport.ProtocolError
	require.False(l, asError(err, &proto), "not a transport error")

	require.NoError(l, p.ln.Close())
	_, err = p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "refused by QUIC")
	var app *transport.ApplicationError
	require.False(l, asError(err, &app), "not an application error")
}

func testCloseUnblocks(l *lab) {
	for _, byPeer := range []bool{false, true} {
		p := l.blocking()
		s, err := p.server.OpenStream(l.ctx) // the only one that blocking allows
		require.NoError(l, err)
		_, err = s.Write([]byte("!"))
		require.NoError(l, err)
		c, err := p.client.AcceptStream(l.ctx)
		require.NoError(l, err)
		pending := map[string]<-chan error{}
		for name, f := range waits(p) {
			if name != "Accept" {
				pending[name] = async(func() error { return f(l.ctx) })
			}
		}
		pending["Read"] = async(func() error {
			for {
				if _, err := c.Read(make([]byte, 10)); err != nil {
					return err
				}
			}
		})
		pending["Write"] = async(func() error {
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		})
		l.settle(5 * time.Second)
		for name, c := range pending {
			require.Empty(l, c, "%s waits", name)
		}
		closer := p.client
		if byPeer {
			closer = p.server
		}
		require.NoError(l, closer.CloseWithError(5, "over"))
		start := time.Now()
		for name, c := range pending {
			wantApplication(l, <-c, 5, "over", byPeer, name)
		}
		require.Less(l, time.Since(start), time.Second)
		require.NoError(l, p.clientEP.Close())
		require.NoError(l, p.serverEP.Close())
	}
}

// A protocol that waits for streams as long as there is a connection passes the
// connection's Context.
func testCloseEndsItsOwnContext(l *lab) {
	p := l.blocking()
	calls := waits(p)
	delete(calls, "Accept")
	ctx := p.client.Context()
	pending := map[string]<-chan error{}
	for name, f := range calls {
		pending[name] = async(func() error { return f(ctx) })
	}
	l.settle(5 * time.Second)
	require.NoError(l, p.server.CloseWithError(5, "over"))
	for name, c := range pending {
		wantApplication(l, <-c, 5, "over", true, name)
	}
	calls["Handshake"] = p.client.Handshake
	for name, f := range calls {
		wantApplication(l, f(ctx), 5, "over", true, "later "+name)
	}
}

func testCloseRace(l *lab) {
	p := l.listen(setup{})
	for range 10 {
		c, s := p.more(l)
		echoing := serveEcho(s)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for {
					s, err := c.OpenStream(l.ctx)
					if err != nil {
						return
					}
					if _, err := s.Write([]byte("x")); err != nil {
						return
					}
					if i%2 == 0 {
						s.Close()
					} else {
						s.CancelWrite(1)
					}
					if _, err := s.Read(make([]byte, 1)); err != nil && c.Context().Err() != nil {
						return
					}
					s.CancelRead(1)
				}
			})
		}
		closing := make(chan error, 6)
		for i := range 6 {
			wg.Go(func() {
				time.Sleep(50 * time.Millisecond)
				if i%2 == 0 {
					closing <- c.CloseWithError(7, "race")
				} else {
					closing <- s.CloseWithError(7, "race")
				}
			})
		}
		wg.Wait()
		for range 6 {
			require.NoError(l, <-closing)
		}
		for _, c := range []transport.Conn{c, s} {
			err := ended(l, c)
			require.ErrorIs(l, err, &transport.ApplicationError{Code: 7})
		}
		echoing.Wait()
	}
}

func testCloseDoesNotWait(l *lab) {
	p := l.connect(setup{})
	c, _ := p.streams(l)
	cut(p.clientPC)
	_, err := c.Write(make([]byte, 1000))
	require.NoError(l, err)
	start := time.Now()
	require.NoError(l, c.Close())
	require.NoError(l, p.client.CloseWithError(1, ""))
	require.Zero(l, time.Since(start))
	wantApplication(l, ended(l, p.client), 1, "", false, "client")
	require.Zero(l, time.Since(start))
	require.NoError(l, p.clientEP.Close())
	require.NoError(l, p.serverEP.Close())
	require.Zero(l, time.Since(start), "nor does Endpoint.Close")
}

// The packet that tells the peer is sent again when the peer goes on talking
// (RFC 9000, Section 10.2.1).
func testCloseLost(l *lab) {
	p := l.connect(setup{})
	c, _ := p.streams(l)
	up := sim(p.serverPC)
	up.Links(Link{Cut: true}, Link{})
	require.NoError(l, p.server.CloseWithError(6, "lost"))
	l.settle(time.Millisecond)
	up.Links(access, Link{})
	start := time.Now()
	_, err := c.Write([]byte("are you there?"))
	require.NoError(l, err)
	wantApplication(l, ended(l, p.client), 6, "lost", true, "client")
	require.Less(l, time.Since(start), 5*time.Second)
}

func testShutdown(l *lab) {
	p := l.connect(setup{})
	before := bubbleGoroutines(l) // of a working pair
	c, s := p.streams(l)
	accepting := async(func() error { _, err := p.ln.Accept(l.ctx); return err })
	sending := async(func() error {
		for range 50 {
			if _, err := s.Write(make([]byte, 10_000)); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		return s.Close()
	})
	l.settle(100 * time.Millisecond)
	require.NoError(l, p.ln.Close())
	require.ErrorIs(l, <-accepting, errClosed)
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "a new Dial")
	got := 0
	for b := make([]byte, 32<<10); ; {
		n, err := c.Read(b)
		got += n
		if err != nil {
			require.EqualError(l, err, "EOF")
			break
		}
	}
	require.Equal(l, 500_000, got, "the stream in flight completes")
	require.NoError(l, <-sending)
	require.NoError(l, p.server.CloseWithError(0, "done"))
	wantApplication(l, ended(l, p.client), 0, "done", true, "client")
	require.NoError(l, p.serverEP.Close())
	require.NoError(l, p.clientEP.Close())
	require.Less(l, bubbleGoroutines(l), before)
}
