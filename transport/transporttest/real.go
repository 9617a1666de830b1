package transporttest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/anyquic/anyquic/transport"
)

// realCases need real sockets or, as nettest does, subtests, which a bubble
// cannot have.
var realCases = []testCase{
	{name: "NetConn", rows: "S01 S13 T26", run: testNetConn,
		says: "NetConn returns a net.Conn that reads and writes s."},
	{name: "NetConnClose", rows: "S04", run: testNetConnClose,
		says: "Its Close ends both directions, and its addresses are those of c."},
	{name: "ListenDialAddr", rows: "T05 T06", run: testListenDialAddr,
		says: "ListenAddr listens with t on a UDP address. Closing the Listener closes the socket and every connection on it."},
	{name: "MTUOverUDP", rows: "T13", run: testMTUOverUDP,
		says: "MaxDatagram: largest message for SendDatagram now."},
}

func testNetConn(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.MaxStreams = 1000 }})
	nettest.TestConn(l.T, func() (net.Conn, net.Conn, func(), error) {
		c, err := p.client.OpenStream(l.ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		if _, err := c.Write([]byte{'!'}); err != nil { // the peer learns of the stream
			return nil, nil, nil, err
		}
		s, err := p.server.AcceptStream(l.ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return nil, nil, nil, err
		}
		c1, c2 := transport.NetConn(p.client, c), transport.NetConn(p.server, s)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func testNetConnClose(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	near, far := transport.NetConn(p.client, c), transport.NetConn(p.server, s)
	require.Equal(l, p.client.LocalAddr(), near.LocalAddr())
	require.Equal(l, p.client.RemoteAddr(), near.RemoteAddr())
	_, err := near.Write([]byte("last words"))
	require.NoError(l, err)
	require.NoError(l, near.Close())
	got, err := io.ReadAll(far)
	require.NoError(l, err)
	require.Equal(l, "last words", string(got), "what was written is delivered")
	_, err = near.Read(make([]byte, 1))
	require.Error(l, err)
	require.NotErrorIs(l, err, io.EOF)
	<-s.Context().Done() // the other direction has ended too
	_, err = far.Write([]byte("x"))
	wantStream(l, err, 0, true, "Write to who has closed")
	require.NoError(l, far.Close(), "the peer closed first")
	p.echo(l)
}

func testListenDialAddr(l *lab) {
	ln, err := transport.ListenAddr(l.server, "127.0.0.1:0", l.serverConfig())
	require.NoError(l, err)
	cfg := l.clientConfig()
	cfg.TLS.ServerName = "" // the host of the address is used
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(l, err)
	c, err := transport.DialAddr(l.ctx, l.client, net.JoinHostPort("localhost", port), cfg)
	require.NoError(l, err)
	s, err := ln.Accept(l.ctx)
	require.NoError(l, err)
	require.Equal(l, "localhost", s.State().TLS.ServerName)
	require.Empty(l, cfg.TLS.ServerName, "the caller's Config is not changed")
	echo(l, c, s)
	require.NoError(l, ln.Close())
	wantApplication(l, ended(l, s), 0, "", false, "server")
	wantApplication(l, ended(l, c), 0, "", true, "client")
	_, err = ln.Accept(l.ctx)
	require.ErrorIs(l, err, errClosed)
	require.NoError(l, ln.Close())
}

// A udpRelay is a middlebox between a client and a server that drops what is
// larger than mtu.
type udpRelay struct {
	front, back *net.UDPConn
	mtu         int
	dropped     atomic.Int64
	client      atomic.Pointer[netip.AddrPort]
	wg          sync.WaitGroup
}

func newUDPRelay(l *lab, server net.Addr, mtu int) *udpRelay {
	l.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(l, err)
	back, err := net.DialUDP("udp4", nil, server.(*net.UDPAddr))
	require.NoError(l, err)
	r := &udpRelay{front: front, back: back, mtu: mtu}
	l.Cleanup(func() {
		front.Close()
		back.Close()
		r.wg.Wait()
	})
	r.wg.Go(func() { // ended by closing the sockets
		b := make([]byte, 1<<16)
		for {
			n, from, err := front.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			r.client.Store(&from)
			if n > mtu {
				r.dropped.Add(1)
				continue
			}
			back.Write(b[:n])
		}
	})
	r.wg.Go(func() { // likewise
		b := make([]byte, 1<<16)
		for {
			n, err := back.Read(b)
			if err != nil {
				if errors.Is(err, syscall.ECONNREFUSED) {
					continue // the server is gone
				}
				return
			}
			if n > mtu {
				r.dropped.Add(1)
				continue
			}
			if to := r.client.Load(); to != nil {
				front.WriteToUDPAddrPort(b[:n], *to)
			}
		}
	})
	return r
}

// Real sockets let engines probe for larger packets (RFC 8899).
func testMTUOverUDP(l *lab) {
	const mtu = 1320
	p := l.listen(setup{
		server: func(c *transport.Config) { c.Datagrams = l.server.Features().Datagrams },
		client: func(c *transport.Config) { c.Datagrams = l.client.Features().Datagrams },
	})
	relay := newUDPRelay(l, p.serverEP.Addr(), mtu)
	var err error
	p.client, err = p.clientEP.Dial(l.ctx, relay.front.LocalAddr(), p.clientCfg)
	require.NoError(l, err)
	p.server, err = p.ln.Accept(l.ctx)
	require.NoError(l, err)
	transfer(l, p.client, p.server, 1<<20)
	transfer(l, p.server, p.client, 1<<20)
	require.LessOrEqual(l, relay.dropped.Load(), int64(40), "probes, not data, are too large")
	if n := p.client.State().MaxDatagram; n > 0 {
		require.Less(l, n, mtu, "a message that the path would drop")
		require.NoError(l, p.client.SendDatagram(make([]byte, n)))
	}
	p.echo(l)
}
