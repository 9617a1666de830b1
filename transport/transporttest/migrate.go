package transporttest

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var migrateCases = []testCase{
	{name: "Rebind", rows: "M01", run: testRebindPort,
		says: "RemoteAddr returns the peer's address. It changes when the peer migrates, or its NAT does, after the new path is validated."},
	{name: "RebindAddress", rows: "M01", run: testRebindAddress,
		says: "RemoteAddr changes when the peer migrates, or its NAT does, after the new path is validated."},
	{name: "RebindDownload", rows: "M01", run: testRebindDownload,
		says: "RemoteAddr changes when the peer migrates, or its NAT does, after the new path is validated."},
	{name: "RebindSpoofed", rows: "M01 M04", run: testRebindSpoofed,
		says: "It changes after the new path is validated."},
	{name: "MigrationEvent", rows: "M06", run: testMigrationEvent,
		says: "RemoteAddr changes when the peer migrates, or its NAT does, after the new path is validated."},
	{name: "Migrate", rows: "M02", needs: needsMigration, run: testMigrate,
		says: "Migrate moves a client's connection to another socket after the new path is validated (RFC 9000, Section 9). The Conn then owns pc and closes it at the connection's end."},
	{name: "MigrateTwice", rows: "M02", needs: needsMigration, run: testMigrateTwice,
		says: "The Conn then owns pc, as if its Endpoint had been opened on it."},
	{name: "MigrateMidTransfer", rows: "M02", needs: needsMigration, run: testMigrateMidTransfer,
		says: "Migrate moves a client's connection to another socket."},
	{name: "MigrateFails", rows: "M02 M03", needs: needsMigration, run: testMigrateFails,
		says: "If Migrate fails, pc stays open and the caller's, and the connection stays on its old path."},
	{name: "MigrateAfterClose", rows: "M03 T25", needs: needsMigration, run: testMigrateAfterClose,
		says: "When a connection ends, later calls on it return the reason."},
	{name: "MigrateServer", rows: "M03", run: testMigrateServer,
		says: "A server's Conn returns an *UnsupportedError."},
}

const (
	reboundPort    = "198.51.100.1:61000"
	reboundAddress = "203.0.113.50:61000"
)

// rebindDuring moves the client's NAT to addr while n bytes are under way.
func rebindDuring(l *lab, p *pair, from, to transport.Conn, n int, addr string) {
	l.Helper()
	access := Link{Latency: oneWay, Rate: 1_000_000, Queue: 1 << 20}
	sim(p.clientPC).Links(access, access)
	w, r := openUni(l, from, to)
	go func() { // ends before the transfer
		time.Sleep(200 * time.Millisecond)
		sim(p.clientPC).Rebind(addr)
	}()
	start := time.Now()
	sendAll(l, w, r, n)
	require.Greater(l, time.Since(start), 500*time.Millisecond, "the address changed in the middle")
	l.settle(2 * time.Second)
	require.Equal(l, addr, p.server.RemoteAddr().String())
	require.NoError(l, p.client.Context().Err())
	require.NoError(l, p.server.Context().Err())
	require.EqualValues(l, 1, p.serverEP.Stats().ConnsAccepted, "the same connection")
}

func testRebindPort(l *lab) {
	p := l.connect(setup{})
	rebindDuring(l, p, p.client, p.server, 1<<20, reboundPort)
	p.echo(l)
	echo(l, p.server, p.client)
}

func testRebindAddress(l *lab) {
	p := l.connect(setup{})
	rebindDuring(l, p, p.client, p.server, 1<<20, reboundAddress)
	p.echo(l)
	echo(l, p.server, p.client)
}

func testRebindDownload(l *lab) {
	p := l.connect(setup{})
	rebindDuring(l, p, p.server, p.client, 1<<20, reboundPort)
	p.echo(l)
}

// A packet of the client that somebody else sent on from another address does
// not move the connection there: nobody answers the challenge.
func testRebindSpoofed(l *lab) {
	p := l.connect(setup{})
	p.echo(l)
	l.settle(time.Second)
	client, server := addrPort(p.clientPC.LocalAddr()), addrPort(p.serverPC.LocalAddr())
	thief := netip.MustParseAddrPort("203.0.113.66:666")
	c, s := p.streams(l)
	l.settle(time.Second)
	var stolen []byte
	l.net.Filter(func(pkt Packet) Verdict {
		if pkt.From == client && stolen == nil {
			stolen = pkt.Data
			return Verdict{Drop: true}
		}
		return Verdict{}
	})
	want := noiseBytes(1000)
	_, err := c.Write(want)
	require.NoError(l, err)
	l.settle(0)
	seen := l.net.Capture()
	l.net.Inject(thief, server, stolen)
	l.settle(5 * time.Second)
	require.Equal(l, client, addrPort(p.server.RemoteAddr()), "the path was not validated")
	toThief := 0
	for _, pkt := range seen.Packets() {
		if pkt.To == thief {
			toThief += len(pkt.Data)
		}
	}
	// RFC 9000, Section 9.3.1.
	require.LessOrEqual(l, toThief, 3*len(stolen), "bytes to an address that was not validated")
	got := make([]byte, len(want))
	_, err = io.ReadFull(s, got)
	require.NoError(l, err)
	require.Equal(l, want, got)
	p.echo(l)
}

func testMigrationEvent(l *lab) {
	p := l.connect(setup{client: func(c *transport.Config) { c.KeepAlive = time.Second }})
	before := p.server.State()
	require.Equal(l, clientAddr, p.server.RemoteAddr().String())
	for _, addr := range []string{reboundPort, reboundAddress} { // another port, another host
		sim(p.clientPC).Rebind(addr)
		l.settle(5 * time.Second)
		require.Equal(l, addr, p.server.RemoteAddr().String())
		p.echo(l)
		echo(l, p.server, p.client)
	}
	after := p.server.State()
	require.Equal(l, before.ConnID, after.ConnID)
	require.Equal(l, before.Version, after.Version)
	require.Equal(l, before.HandshakeComplete, after.HandshakeComplete)
	require.Equal(l, before.TLS.NegotiatedProtocol, after.TLS.NegotiatedProtocol)
	require.Equal(l, serverAddr, p.client.RemoteAddr().String(), "the server has not moved")
	require.Equal(l, clientAddr, p.client.LocalAddr().String(), "the client does not know of its NAT")
}

func testMigrate(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	l.settle(time.Second)
	before := p.client.State()
	pc := l.socket(reboundAddress)
	start := time.Now()
	require.NoError(l, p.client.Migrate(l.ctx, pc))
	require.GreaterOrEqual(l, time.Since(start), 2*oneWay, "the new path was validated")
	require.Equal(l, reboundAddress, p.client.LocalAddr().String())
	_, err := c.Write([]byte("over the new path"))
	require.NoError(l, err)
	require.NoError(l, c.Close())
	seen := l.net.Capture()
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, "over the new path", string(got))
	l.settle(2 * time.Second)
	require.Equal(l, reboundAddress, p.server.RemoteAddr().String())
	transfer(l, p.client, p.server, 100_000)
	transfer(l, p.server, p.client, 100_000)
	for _, pkt := range seen.Packets() {
		require.NotEqual(l, clientAddr, pkt.From.String(), "the old path is not used")
	}
	require.Equal(l, before.ConnID, p.client.State().ConnID)
	require.Equal(l, clientAddr, p.clientEP.Addr().String(), "the Endpoint stays")
	require.False(l, sim(p.clientPC).Closed())
	other, otherServer := p.more(l) // and dials from its own socket
	require.Equal(l, clientAddr, otherServer.RemoteAddr().String())
	echo(l, other, otherServer)

	require.False(l, sim(pc).Closed())
	require.NoError(l, p.client.CloseWithError(4, "done"))
	wantApplication(l, ended(l, p.server), 4, "done", true, "server")
	l.settle(10 * time.Second)
	require.True(l, sim(pc).Closed(), "the Conn closes its socket at its end")
	echo(l, other, otherServer)
}

func testMigrateTwice(l *lab) {
	p := l.connect(setup{})
	first, second := l.socket(reboundPort), l.socket(reboundAddress)
	require.NoError(l, p.client.Migrate(l.ctx, first))
	p.echo(l)
	l.settle(time.Second)
	require.NoError(l, p.client.Migrate(l.ctx, second))
	p.echo(l)
	require.Equal(l, reboundAddress, p.client.LocalAddr().String())
	// The end of the Endpoint is the end of its connections, wherever they are.
	require.NoError(l, p.clientEP.Close())
	wantApplication(l, ended(l, p.client), 0, "", false, "client")
	wantApplication(l, ended(l, p.server), 0, "", true, "server")
	l.settle(10 * time.Second)
	require.True(l, sim(first).Closed())
	require.True(l, sim(second).Closed())
}

func testMigrateMidTransfer(l *lab) {
	p := l.connect(setup{})
	l.settle(time.Second)
	slow := Link{Latency: oneWay, Rate: 1_000_000, Queue: 1 << 20}
	sim(p.clientPC).Links(slow, slow)
	w, r := openUni(l, p.client, p.server)
	migrated := async(func() error {
		time.Sleep(200 * time.Millisecond)
		return p.client.Migrate(l.ctx, l.net.Socket(reboundAddress, slow, slow))
	})
	sendAll(l, w, r, 1<<20)
	require.NoError(l, <-migrated)
	require.Equal(l, reboundAddress, p.server.RemoteAddr().String())
	require.EqualValues(l, 1, p.serverEP.Stats().ConnsAccepted)
}

func testMigrateFails(l *lab) {
	p := l.connect(setup{})
	l.settle(time.Second)
	pc := l.net.Socket(reboundAddress, Link{Cut: true}, Link{})
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	require.Error(l, p.client.Migrate(ctx, pc))
	require.False(l, sim(pc).Closed(), "the caller's")
	require.Equal(l, clientAddr, p.client.LocalAddr().String())
	p.echo(l)
	require.Equal(l, clientAddr, p.server.RemoteAddr().String())

	// A socket that was returned can be used for something else.
	sim(pc).Links(access, Link{})
	ep, err := l.client.Open(pc, nil)
	require.NoError(l, err)
	q := &pair{clientEP: ep, serverEP: p.serverEP, ln: p.ln, clientCfg: p.clientCfg}
	q.dial(l)
	q.echo(l)
	require.NoError(l, ep.Close())
	p.echo(l)
}

func testMigrateAfterClose(l *lab) {
	p := l.connect(setup{})
	require.NoError(l, p.client.CloseWithError(3, "closed"))
	pc := l.socket(reboundAddress)
	wantApplication(l, p.client.Migrate(l.ctx, pc), 3, "closed", false, "Migrate")
	require.False(l, sim(pc).Closed())
	require.NoError(l, pc.Close())
}

func testMigrateServer(l *lab) {
	p := l.connect(setup{})
	l.settle(time.Second)
	pc := l.socket("192.0.2.2:4433")
	wantUnsupported(l, p.server.Migrate(l.ctx, pc), l.server, "Migrate of a server")
	require.False(l, sim(pc).Closed())
	require.NoError(l, pc.Close())
	p.echo(l)
}
