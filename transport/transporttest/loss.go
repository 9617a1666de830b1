package transporttest

import (
	"time"

	"github.com/stretchr/testify/require"
)

var lossCases = []testCase{
	{name: "Lossy1", rows: "T24", run: lossy(Link{Loss: 0.01}, 10<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Lossy5", rows: "T24", run: lossy(Link{Loss: 0.05, Reorder: 0.05, ReorderBy: oneWay}, 10<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Lossy10", rows: "T24", run: lossy(Link{Loss: 0.10, Reorder: 0.05, ReorderBy: oneWay}, 10<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Jitter", rows: "T24", run: lossy(Link{Jitter: 2 * oneWay}, 1<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Reordered", rows: "T24", run: lossy(Link{Reorder: 0.3, ReorderBy: 3 * oneWay}, 1<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Duplicated", rows: "T24", run: lossy(Link{Duplicate: 0.5}, 1<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Corrupted", rows: "T24", run: lossy(Link{Corrupt: 0.05}, 1<<20),
		says: "Streams, which are ordered and reliable."},
	{name: "Bottleneck", rows: "T24", run: lossy(Link{Rate: 500_000, Queue: 30_000}, 1<<20),
		says: "Data is sent as soon as the network allows."},
	{name: "LossyHandshake", rows: "T24", run: testLossyHandshake,
		says: "Dial returns when the handshake is complete."},
	{name: "Blackout", rows: "T24 V11", run: testBlackout,
		says: "Streams, which are ordered and reliable."},
	{name: "MTU", rows: "T13", run: testMTU,
		says: "MaxDatagram: largest message for SendDatagram now."},
	{name: "StatsLost", rows: "O01", run: testStatsLost,
		says: "Stats are the counters of a connection. Every engine fills in every field."},
}

// lossy sends n bytes each way through a bad link.
func lossy(bad Link, n int) func(*lab) {
	return func(l *lab) {
		p := l.connect(setup{})
		bad.Latency = oneWay
		sim(p.clientPC).Links(bad, bad)
		transfer(l, p.client, p.server, n)
		transfer(l, p.server, p.client, n/10)
	}
}

func testLossyHandshake(l *lab) {
	// By chance all that one side sends can be lost for half a minute: then it sends
	// but every sixteen seconds.
	p := l.listen(setup{server: patient(time.Hour), client: patient(time.Hour)})
	bad := Link{Latency: oneWay, Loss: 0.3}
	sim(p.clientPC).Links(bad, bad)
	for range 10 {
		p.dial(l)
		p.echo(l)
	}
}

func testBlackout(l *lab) {
	p := l.connect(setup{})
	w, r := openUni(l, p.client, p.server)
	go func() { // ends long before the transfer
		time.Sleep(100 * time.Millisecond)
		sim(p.clientPC).Links(Link{Cut: true}, Link{Cut: true})
		time.Sleep(5 * time.Second)
		sim(p.clientPC).Links(access, Link{})
	}()
	sim(p.clientPC).Links(Link{Latency: oneWay, Rate: 1_000_000}, Link{})
	start := time.Now()
	sendAll(l, w, r, 2<<20)
	require.Greater(l, time.Since(start), 5*time.Second)
	require.Less(l, time.Since(start), 30*time.Second)
	p.echo(l)
}

// A path that drops what is larger than 1280 bytes, the least an engine may
// take for granted that starts with packets of that size, and one of 1350.
func testMTU(l *lab) {
	for _, mtu := range []int{1280, 1350} {
		p := l.listen(setup{})
		narrow := Link{Latency: oneWay, MTU: mtu}
		sim(p.clientPC).Links(narrow, narrow)
		seen := l.net.Capture()
		p.dial(l)
		transfer(l, p.client, p.server, 1<<20)
		transfer(l, p.server, p.client, 1<<20)
		l.settle(20 * time.Second)
		large := 0
		for _, pkt := range seen.Packets() {
			if len(pkt.Data) > mtu {
				large++
			}
		}
		require.LessOrEqual(l, large, 30, "probes, not data, are too large")
		p.echo(l)
		require.NoError(l, p.clientEP.Close())
		require.NoError(l, p.serverEP.Close())
	}
}

func testStatsLost(l *lab) {
	p := l.connect(setup{})
	require.Zero(l, p.client.Stats().PacketsLost)
	sim(p.clientPC).Links(Link{Latency: oneWay, Loss: 0.05}, Link{})
	transfer(l, p.client, p.server, 2<<20)
	l.settle(time.Second)
	s := p.client.Stats()
	require.Positive(l, s.PacketsLost)
	require.Positive(l, s.BytesLost)
	require.Less(l, s.PacketsLost, s.PacketsSent/5)
	require.Greater(l, s.PacketsLost, s.PacketsSent/100)
}
