package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var datagramCases = []testCase{
	{name: "Datagram", rows: "D01", needs: needsDatagrams, udp: true, run: testDatagram,
		says: "SendDatagram queues p as one unreliable message (RFC 9221). ReceiveDatagram returns the next message. The caller owns the slice."},
	{name: "DatagramQueue", rows: "D01", needs: needsDatagrams, run: testDatagramQueue,
		says: "Messages that arrive while Config.DatagramQueue of them wait are dropped and counted in Stats."},
	{name: "DatagramQueueDefault", rows: "D01", needs: needsDatagrams, run: testDatagramQueueDefault,
		says: "DatagramQueue limits the messages that wait in each direction, up to 65536. Default 128."},
	{name: "DatagramQueueLarge", rows: "D01", needs: needsDatagrams, run: testDatagramQueueLarge,
		says: "DatagramQueue limits the messages that wait in each direction, up to 65536."},
	{name: "DatagramSendQueue", rows: "D01", needs: needsDatagrams, run: testDatagramSendQueue,
		says: "It never blocks: when the queue of Config.DatagramQueue messages is full, the oldest is dropped and counted in Stats."},
	{name: "DatagramLimits", rows: "D02", needs: needsDatagrams, run: testDatagramLimits,
		says: "It fails with *DatagramTooLargeError. MaxDatagram: largest message for SendDatagram now."},
	{name: "DatagramDisabled", rows: "D02", run: testDatagramDisabled,
		says: "Or with an error matching errors.ErrUnsupported if either side has datagrams disabled."},
	{name: "DatagramStats", rows: "D03", needs: needsDatagrams, run: testDatagramStats,
		says: "DatagramsSent counts what was handed to the network, DatagramsReceived what ReceiveDatagram returned or can return."},
	{name: "DatagramLoss", rows: "D01", needs: needsDatagrams, run: testDatagramLoss,
		says: "Datagrams, which are neither ordered nor reliable."},
	{name: "DatagramCopies", rows: "D01", needs: needsDatagrams, run: testDatagramCopies,
		says: "Write and SendDatagram copy: the caller may reuse p when they return."},
}

func (l *lab) datagrams(queue int) *pair {
	l.Helper()
	on := func(c *transport.Config) { c.Datagrams, c.DatagramQueue = true, queue }
	return l.connect(setup{server: on, client: on})
}

func testDatagram(l *lab) {
	p := l.datagrams(0)
	for _, d := range []struct{ from, to transport.Conn }{{p.client, p.server}, {p.server, p.client}} {
		var got [][]byte
		for i := range 5 { // few enough for any socket buffer
			require.NoError(l, d.from.SendDatagram(fmt.Appendf(nil, "message %d", i)))
			b, err := d.to.ReceiveDatagram(l.ctx)
			require.NoError(l, err)
			got = append(got, b)
		}
		for i, b := range got { // still what they were
			require.Equal(l, fmt.Sprintf("message %d", i), string(b))
			clear(b)
		}
	}
	waiting := async(func() error {
		b, err := p.server.ReceiveDatagram(l.ctx)
		if err == nil && string(b) != "late" {
			err = fmt.Errorf("%q", b)
		}
		return err
	})
	p.echo(l)
	require.NoError(l, p.client.SendDatagram([]byte("late")))
	require.NoError(l, <-waiting)
}

// number makes message i, of a size that lets one packet carry one message.
func number(i int) []byte {
	return binary.BigEndian.AppendUint32(make([]byte, 0, 1000), uint32(i))[:1000]
}

// drain returns the numbers of the messages that arrive within a second.
func drain(l *lab, c transport.Conn) (got []int) {
	l.Helper()
	for {
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		b, err := c.ReceiveDatagram(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return got
		}
		require.NoError(l, err)
		got = append(got, int(binary.BigEndian.Uint32(b)))
	}
}

func testDatagramQueue(l *lab) {
	p := l.datagrams(10)
	for i := range 100 {
		require.NoError(l, p.client.SendDatagram(number(i)))
		l.settle(5 * time.Millisecond) // so that nothing waits in the client
	}
	p.echo(l) // the connection is not blocked
	transfer(l, p.client, p.server, 200_000)
	stats := p.server.Stats()
	require.EqualValues(l, 90, stats.DatagramsDropped)
	require.EqualValues(l, 10, stats.DatagramsReceived)
	require.Equal(l, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, drain(l, p.server), "what arrives at a full queue is dropped")
	require.Zero(l, p.client.Stats().DatagramsDropped)
}

func testDatagramQueueDefault(l *lab) {
	p := l.datagrams(0)
	for i := range 150 {
		require.NoError(l, p.client.SendDatagram(number(i)))
		l.settle(5 * time.Millisecond)
	}
	l.settle(time.Second)
	require.EqualValues(l, 22, p.server.Stats().DatagramsDropped)
	require.Len(l, drain(l, p.server), 128)
}

func testDatagramQueueLarge(l *lab) {
	p := l.datagrams(65536)
	for i := range 1000 {
		require.NoError(l, p.client.SendDatagram(number(i)))
	}
	l.settle(20 * time.Second)
	require.Zero(l, p.client.Stats().DatagramsDropped)
	require.Zero(l, p.server.Stats().DatagramsDropped)
	require.Len(l, drain(l, p.server), 1000)
}

func testDatagramSendQueue(l *lab) {
	p := l.datagrams(16)
	transfer(l, p.client, p.server, 100_000)
	l.settle(time.Second)
	sim(p.clientPC).Links(Link{Latency: oneWay, Rate: 100_000, Queue: 4 << 20}, Link{})
	const n = 2000
	start := time.Now()
	for i := range n {
		require.NoError(l, p.client.SendDatagram(number(i)))
	}
	require.Zero(l, time.Since(start), "it never blocks")
	var got []int
	for len(got) == 0 || got[len(got)-1] != n-1 {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		b, err := p.server.ReceiveDatagram(ctx)
		cancel()
		require.NoError(l, err, "the newest message was dropped; got %v", got)
		got = append(got, int(binary.BigEndian.Uint32(b)))
	}
	stats := p.client.Stats()
	require.Positive(l, stats.DatagramsDropped)
	require.EqualValues(l, n, stats.DatagramsDropped+stats.DatagramsSent, "each is sent or dropped")
	tail := got[len(got)-16:]
	for i, k := range tail {
		require.Equal(l, n-16+i, k, "the oldest are dropped, the newest arrive: %v", tail)
	}
	p.echo(l)
}

func testDatagramLimits(l *lab) {
	p := l.datagrams(0)
	l.settle(5 * time.Second)
	limit := p.client.State().MaxDatagram
	require.GreaterOrEqual(l, limit, 1100)
	require.LessOrEqual(l, limit, 1472)
	err := p.client.SendDatagram(make([]byte, limit+1))
	var e *transport.DatagramTooLargeError
	require.ErrorAs(l, err, &e)
	require.Equal(l, limit, e.Max)
	require.ErrorAs(l, p.client.SendDatagram(make([]byte, 1<<16)), &e)
	for _, n := range []int{limit, 1, 0} {
		want := noiseBytes(n)
		require.NoError(l, p.client.SendDatagram(want), "%d bytes", n)
		got, err := p.server.ReceiveDatagram(l.ctx)
		require.NoError(l, err)
		require.True(l, bytes.Equal(want, got), "%d bytes", n)
	}
	p.echo(l)
}

func testDatagramDisabled(l *lab) {
	for _, on := range []struct{ server, client bool }{{false, false}, {true, false}, {false, true}} {
		if on.server && !l.server.Features().Datagrams || on.client && !l.client.Features().Datagrams {
			continue
		}
		p := l.connect(setup{
			server: func(c *transport.Config) { c.Datagrams = on.server },
			client: func(c *transport.Config) { c.Datagrams = on.client },
		})
		require.ErrorIs(l, p.client.SendDatagram([]byte("x")), errors.ErrUnsupported, "client, %+v", on)
		require.ErrorIs(l, p.server.SendDatagram([]byte("x")), errors.ErrUnsupported, "server, %+v", on)
		require.Zero(l, p.client.State().MaxDatagram)
		require.Zero(l, p.server.State().MaxDatagram)
		p.echo(l)
		require.NoError(l, p.clientEP.Close())
		require.NoError(l, p.serverEP.Close())
	}
}

func testDatagramStats(l *lab) {
	p := l.datagrams(0)
	require.Zero(l, p.client.Stats().DatagramsSent)
	for i := range 20 {
		require.NoError(l, p.client.SendDatagram(number(i)))
		l.settle(5 * time.Millisecond)
	}
	require.NoError(l, p.server.SendDatagram([]byte("x")))
	l.settle(time.Second)
	require.EqualValues(l, 20, p.client.Stats().DatagramsSent)
	require.EqualValues(l, 1, p.client.Stats().DatagramsReceived)
	require.EqualValues(l, 20, p.server.Stats().DatagramsReceived, "those that ReceiveDatagram can return count")
	require.EqualValues(l, 1, p.server.Stats().DatagramsSent)
	require.Len(l, drain(l, p.server), 20)
	require.EqualValues(l, 20, p.server.Stats().DatagramsReceived)
	require.Zero(l, p.client.Stats().DatagramsDropped)
	require.Zero(l, p.server.Stats().DatagramsDropped)
}

func testDatagramLoss(l *lab) {
	p := l.datagrams(1000)
	sim(p.clientPC).Links(Link{Latency: oneWay, Loss: 0.2}, Link{})
	const n = 200
	for i := range n {
		require.NoError(l, p.client.SendDatagram(number(i)))
		l.settle(20 * time.Millisecond)
	}
	got := drain(l, p.server)
	require.Less(l, len(got), n, "what is lost is not sent again")
	require.Greater(l, len(got), n/2)
	seen := map[int]bool{}
	for _, i := range got {
		require.False(l, seen[i], "message %d twice", i)
		seen[i] = true
	}
}

func testDatagramCopies(l *lab) {
	p := l.datagrams(0)
	b := make([]byte, 100)
	for i := range 20 {
		for j := range b {
			b[j] = byte(i)
		}
		require.NoError(l, p.client.SendDatagram(b))
	}
	clear(b)
	l.settle(time.Second)
	for i := range 20 {
		got, err := p.server.ReceiveDatagram(l.ctx)
		require.NoError(l, err)
		require.Equal(l, bytes.Repeat([]byte{byte(i)}, 100), got)
	}
}
