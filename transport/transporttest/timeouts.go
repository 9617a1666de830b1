package transporttest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var timeoutCases = []testCase{
	{name: "IdleTimeout", rows: "T18 T25", run: testIdleTimeout,
		says: "IdleTimeout ends a connection without traffic. The timeouts implement net.Error."},
	{name: "IdleTimeoutSmaller", rows: "T18", run: testIdleTimeoutSmaller,
		says: "The smaller value of the two sides counts."},
	{name: "IdleTimeoutDefault", rows: "T18", run: testIdleTimeoutDefault,
		says: "IdleTimeout: default 30s. KeepAlive: default none."},
	{name: "IdleTimeoutNone", rows: "T18", run: testIdleTimeoutNone,
		says: "In durations zero means the default and negative means none."},
	{name: "TrafficPreventsIdle", rows: "T18", run: testTrafficPreventsIdle,
		says: "IdleTimeout ends a connection without traffic."},
	{name: "KeepAlive", rows: "T18", run: testKeepAlive,
		says: "KeepAlive is the interval of PINGs on an idle connection."},
	{name: "KeepAliveNone", rows: "T18", run: testKeepAliveNone,
		says: "In durations zero means the default and negative means none."},
	{name: "HandshakeTimeout", rows: "T18 T25", run: testHandshakeTimeout,
		says: "HandshakeTimeout bounds the handshake."},
	{name: "HandshakeTimeoutDefault", rows: "T18", run: testHandshakeTimeoutDefault,
		says: "HandshakeTimeout bounds the handshake. Default 10s."},
	{name: "HandshakeTimeoutTrickle", rows: "T18 A09", run: testHandshakeTimeoutTrickle,
		says: "HandshakeTimeout bounds the handshake."},
	{name: "HandshakeTimeoutServer", rows: "T18 A09", run: testHandshakeTimeoutServer,
		says: "HandshakeTimeout bounds the handshake."},
}

// A timer may be late by the granularity of engines and a probe timeout
// (RFC 9000, Section 10.1).
const late = 3 * time.Second

func idle(d time.Duration) func(*transport.Config) {
	return func(c *transport.Config) { c.IdleTimeout = d }
}

// wantIdle checks that both sides end for idleness, d from now.
func wantIdle(l *lab, p *pair, d time.Duration) {
	l.Helper()
	start := time.Now()
	wantTimeout(l, ended(l, p.client), transport.ErrIdleTimeout, "client")
	wantTimeout(l, ended(l, p.server), transport.ErrIdleTimeout, "server")
	require.GreaterOrEqual(l, time.Since(start), d-time.Second)
	require.LessOrEqual(l, time.Since(start), d+late)
}

func testIdleTimeout(l *lab) {
	p := l.connect(setup{server: idle(8 * time.Second), client: idle(8 * time.Second)})
	c, _ := p.streams(l)
	wantIdle(l, p, 8*time.Second)
	_, err := c.Read(make([]byte, 1))
	wantTimeout(l, err, transport.ErrIdleTimeout, "Read")
	_, err = p.server.AcceptStream(l.ctx)
	wantTimeout(l, err, transport.ErrIdleTimeout, "AcceptStream")
	l.settle(10 * time.Second)
	require.Zero(l, p.clientEP.Stats().ConnsOpen)
	require.Zero(l, p.serverEP.Stats().ConnsOpen)
}

func testIdleTimeoutSmaller(l *lab) {
	p := l.connect(setup{server: idle(time.Minute), client: idle(5 * time.Second)})
	wantIdle(l, p, 5*time.Second)
	require.NoError(l, p.clientEP.Close())
	require.NoError(l, p.serverEP.Close())
	p = l.connect(setup{server: idle(5 * time.Second), client: idle(time.Minute)})
	wantIdle(l, p, 5*time.Second)
}

func testIdleTimeoutDefault(l *lab) {
	p := l.connect(setup{})
	wantIdle(l, p, 30*time.Second)
}

func testIdleTimeoutNone(l *lab) {
	p := l.connect(setup{server: idle(-1), client: idle(-1)})
	l.settle(6 * time.Hour)
	p.echo(l)
	require.NoError(l, p.clientEP.Close())
	require.NoError(l, p.serverEP.Close())
	p = l.connect(setup{server: idle(7 * time.Second), client: idle(-1)})
	wantIdle(l, p, 7*time.Second) // none is larger than any
}

func testTrafficPreventsIdle(l *lab) {
	p := l.connect(setup{server: idle(5 * time.Second), client: idle(5 * time.Second)})
	c, s := p.streams(l)
	for range 10 {
		l.settle(3 * time.Second)
		_, err := c.Write([]byte("x"))
		require.NoError(l, err)
		_, err = s.Read(make([]byte, 1))
		require.NoError(l, err)
	}
}

func testKeepAlive(l *lab) {
	p := l.connect(setup{
		server: idle(5 * time.Second),
		client: func(c *transport.Config) { c.IdleTimeout, c.KeepAlive = 5*time.Second, 2*time.Second },
	})
	l.settle(time.Second)
	before := p.client.Stats().PacketsSent
	l.settle(60 * time.Second)
	p.echo(l)
	require.GreaterOrEqual(l, p.client.Stats().PacketsSent-before, uint64(25), "one PING in 2 s for a minute")
	require.LessOrEqual(l, p.client.Stats().PacketsSent-before, uint64(100))
	cut(p.clientPC)
	start := time.Now()
	wantTimeout(l, ended(l, p.server), transport.ErrIdleTimeout, "server")
	wantTimeout(l, ended(l, p.client), transport.ErrIdleTimeout, "PINGs without an answer keep nothing alive")
	require.Less(l, time.Since(start), 20*time.Second)
}

func testKeepAliveNone(l *lab) {
	none := func(c *transport.Config) { c.IdleTimeout, c.KeepAlive = 5*time.Second, -1 }
	p := l.connect(setup{server: none, client: none})
	wantIdle(l, p, 5*time.Second)
}

func testHandshakeTimeout(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) { c.HandshakeTimeout = 3 * time.Second }})
	cut(p.serverPC) // the server is silent
	start := time.Now()
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantTimeout(l, err, transport.ErrHandshakeTimeout, "Dial")
	require.GreaterOrEqual(l, time.Since(start), 3*time.Second)
	require.LessOrEqual(l, time.Since(start), 3*time.Second+late)
	l.settle(time.Second)
	require.Zero(l, p.clientEP.Stats().ConnsOpen)
}

func testHandshakeTimeoutDefault(l *lab) {
	p := l.listen(setup{})
	cut(p.serverPC)
	start := time.Now()
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantTimeout(l, err, transport.ErrHandshakeTimeout, "Dial")
	require.GreaterOrEqual(l, time.Since(start), 10*time.Second)
	require.LessOrEqual(l, time.Since(start), 10*time.Second+late)
}

// The bound holds also for a server that sends something now and then, and
// never what completes the handshake.
func testHandshakeTimeoutTrickle(l *lab) {
	p := l.listen(setup{client: func(c *transport.Config) { c.HandshakeTimeout, c.IdleTimeout = 6*time.Second, time.Hour }})
	server := addrPort(p.serverPC.LocalAddr())
	l.net.Filter(func(pkt Packet) Verdict {
		// The server's first packets pass; what has Handshake packets in it does not.
		kinds := longPackets(pkt.Data)
		for _, k := range kinds {
			if pkt.From == server && k == handshakePacket {
				return Verdict{Drop: true}
			}
		}
		return Verdict{}
	})
	start := time.Now()
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantTimeout(l, err, transport.ErrHandshakeTimeout, "Dial")
	require.LessOrEqual(l, time.Since(start), 6*time.Second+late)
}

func testHandshakeTimeoutServer(l *lab) {
	p := l.listen(setup{server: func(c *transport.Config) { c.HandshakeTimeout = 5 * time.Second }})
	oneFlight(l, p)
	require.EqualValues(l, 1, p.serverEP.Stats().ConnsOpen, "a handshake in progress")
	l.settle(5*time.Second + late)
	require.Zero(l, p.serverEP.Stats().ConnsOpen)
	require.Zero(l, p.serverEP.Stats().ConnsAccepted)
}
