package transporttest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var statsCases = []testCase{
	{name: "Stats", rows: "O01 T08", udp: true, run: testStats,
		says: "Stats are the counters of a connection. Every engine fills in every field."},
	{name: "StatsRTT", rows: "O01 E09", run: testStatsRTT,
		says: "MinRTT, LatestRTT, SmoothedRTT, RTTVar."},
	{name: "StatsBytes", rows: "O01", run: testStatsBytes,
		says: "BytesSent, BytesReceived, BytesLost of UDP payload."},
	{name: "StatsStreams", rows: "O01 S06", run: testStatsStreams,
		says: "StreamsOpened were opened by this side, StreamsAccepted returned by an Accept; StreamsOpen of both have not ended in every direction they have."},
	{name: "StatsAfterEnd", rows: "O01", run: testStatsAfterEnd,
		says: "Stats returns a snapshot of the connection's counters."},
	{name: "Identity", rows: "T08", udp: true, run: testIdentity,
		says: "ConnID names the connection in logs and qlog: the client's first destination connection ID, the same value on both sides."},
	{name: "ConnContext", rows: "T07 T08", run: testConnContext,
		says: "Context is done when the connection ends; context.Cause gives the reason."},
}

func testStats(l *lab) {
	p := l.connect(setup{})
	if s, ok := p.clientPC.(*Socket); ok {
		// Where every packet takes as long, RTTVar goes to zero.
		s.Links(Link{Latency: oneWay, Jitter: oneWay / 4}, Link{})
	}
	for range 5 {
		p.echo(l)
	}
	transfer(l, p.client, p.server, 100_000)
	transfer(l, p.server, p.client, 100_000)
	for name, c := range map[string]transport.Conn{"client": p.client, "server": p.server} {
		s := c.Stats()
		require.Positive(l, s.MinRTT, name)
		require.Positive(l, s.LatestRTT, name)
		require.Positive(l, s.SmoothedRTT, name)
		require.Positive(l, s.RTTVar, name)
		require.Greater(l, s.CongestionWindow, uint64(2000), name)
		require.Greater(l, s.PacketsSent, uint64(10), name)
		require.Greater(l, s.PacketsReceived, uint64(10), name)
		require.Greater(l, s.BytesSent, uint64(100_000), name)
		require.Greater(l, s.BytesReceived, uint64(100_000), name)
	}
}

func testStatsRTT(l *lab) {
	p := l.connect(setup{})
	for range 10 {
		p.echo(l)
		l.settle(100 * time.Millisecond)
	}
	for _, c := range []transport.Conn{p.client, p.server} {
		s := c.Stats()
		require.InDelta(l, 2*oneWay, s.MinRTT, float64(time.Millisecond))
		require.InDelta(l, 2*oneWay, s.SmoothedRTT, float64(2*oneWay)/4)
	}
	slow := Link{Latency: 5 * oneWay}
	sim(p.clientPC).Links(slow, Link{})
	for range 30 {
		p.echo(l)
		l.settle(100 * time.Millisecond)
	}
	s := p.client.Stats()
	require.InDelta(l, 2*oneWay, s.MinRTT, float64(time.Millisecond), "the least ever")
	require.InDelta(l, 6*oneWay, s.LatestRTT, float64(oneWay))
	require.InDelta(l, 6*oneWay, s.SmoothedRTT, float64(oneWay))
}

func testStatsBytes(l *lab) {
	seen := l.net.Capture()
	p := l.connect(setup{})
	transfer(l, p.client, p.server, 200_000)
	l.settle(time.Second)
	var packets, bytes uint64
	client := addrPort(p.clientPC.LocalAddr())
	for _, pkt := range seen.Packets() {
		if pkt.From == client {
			bytes += uint64(len(pkt.Data))
			packets++
		}
	}
	sent, received := p.client.Stats(), p.server.Stats()
	require.Equal(l, bytes, sent.BytesSent, "client, bytes sent")
	require.Equal(l, bytes, received.BytesReceived, "server, bytes received")
	require.GreaterOrEqual(l, sent.PacketsSent, packets, "a UDP datagram carries one packet or several")
	require.LessOrEqual(l, sent.PacketsSent, packets+5)
	require.Zero(l, sent.PacketsLost)
	require.Zero(l, sent.BytesLost)
}

func testStatsStreams(l *lab) {
	p := l.connect(setup{})
	check := func(c transport.Conn, opened, accepted, open uint64, why string) {
		l.Helper()
		l.settle(time.Second)
		s := c.Stats()
		require.Equal(l, []uint64{opened, accepted, open}, []uint64{s.StreamsOpened, s.StreamsAccepted, s.StreamsOpen}, "opened, accepted, open: %s", why)
	}
	check(p.client, 0, 0, 0, "at the start")
	c, s := p.streams(l)
	w, r := openUni(l, p.client, p.server)
	check(p.client, 2, 0, 2, "client, both open")
	check(p.server, 0, 2, 2, "server, both open")
	openStream(l, p.server, p.client)
	check(p.client, 2, 1, 3, "client, one from the server")
	check(p.server, 1, 2, 3, "server, one from the server")
	require.NoError(l, w.Close())
	_, err := r.Read(make([]byte, 1))
	require.EqualError(l, err, "EOF")
	check(p.client, 2, 1, 2, "client, unidirectional ended")
	check(p.server, 1, 2, 2, "server, unidirectional ended")
	require.NoError(l, c.Close())
	_, err = s.Read(make([]byte, 1))
	require.EqualError(l, err, "EOF")
	check(p.client, 2, 1, 2, "client, one direction ended")
	s.CancelWrite(1)
	_, err = c.Read(make([]byte, 1))
	wantStream(l, err, 1, true, "Read")
	check(p.client, 2, 1, 1, "client, both directions ended")
	check(p.server, 1, 2, 1, "server, both directions ended")
}

func testStatsAfterEnd(l *lab) {
	p := l.connect(setup{})
	transfer(l, p.client, p.server, 100_000)
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	require.Greater(l, p.client.Stats().BytesSent, uint64(100_000))
	require.Greater(l, p.server.Stats().BytesReceived, uint64(100_000))
	require.Equal(l, alpn, p.client.State().TLS.NegotiatedProtocol)
	require.NotNil(l, p.client.RemoteAddr())
	require.NotNil(l, p.client.LocalAddr())
}

func testIdentity(l *lab) {
	p := l.listen(setup{})
	ids := map[string]bool{}
	for range 3 {
		p.dial(l)
		c, s := p.client.State().ConnID, p.server.State().ConnID
		require.Equal(l, c, s)
		require.GreaterOrEqual(l, len(c), 8, "RFC 9000, Section 7.2")
		require.LessOrEqual(l, len(c), 20)
		ids[string(c)] = true
		require.EqualValues(l, 1, p.client.State().Version)
		require.EqualValues(l, 1, p.server.State().Version)
		require.Equal(l, p.clientPC.LocalAddr().String(), p.client.LocalAddr().String())
		require.Equal(l, p.serverPC.LocalAddr().String(), p.client.RemoteAddr().String())
		require.Equal(l, p.serverPC.LocalAddr().String(), p.server.LocalAddr().String())
		require.Equal(l, p.clientPC.LocalAddr().String(), p.server.RemoteAddr().String())
	}
	require.Len(l, ids, 3)
}

func testConnContext(l *lab) {
	p := l.connect(setup{})
	for _, c := range []transport.Conn{p.client, p.server} {
		require.NoError(l, c.Context().Err())
		require.NoError(l, context.Cause(c.Context()))
	}
	ran := make(chan struct{})
	context.AfterFunc(p.server.Context(), func() { close(ran) })
	require.NoError(l, p.client.CloseWithError(9, "over"))
	require.ErrorIs(l, p.client.Context().Err(), context.Canceled, "at once on this side")
	<-ran
	wantApplication(l, context.Cause(p.client.Context()), 9, "over", false, "client")
	wantApplication(l, context.Cause(p.server.Context()), 9, "over", true, "server")
}
