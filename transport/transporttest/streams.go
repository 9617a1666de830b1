package transporttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var streamCases = []testCase{
	{name: "BidiEcho", rows: "S01", udp: true, run: testBidiEcho,
		says: "OpenStream opens a bidirectional stream. AcceptStream returns the next bidirectional stream opened by the peer."},
	{name: "ServerOpens", rows: "S01 S02", run: testServerOpens,
		says: "AcceptStream returns the next bidirectional stream opened by the peer."},
	{name: "Uni", rows: "S02", udp: true, run: testUni,
		says: "OpenUniStream opens a stream that only this side writes to."},
	{name: "ReadWrite", rows: "S03", run: testReadWrite,
		says: "Read copies what has arrived. It returns io.EOF after the peer has closed the stream."},
	{name: "LargeTransfer", rows: "S03", udp: true, run: testLargeTransfer,
		says: "Read copies what has arrived and returns flow-control credit to the peer."},
	{name: "OpenIsSilent", rows: "S01", run: testOpenIsSilent,
		says: "The peer learns of the stream when something is written to it or it is closed."},
	{name: "CloseOpensAtPeer", rows: "S04", run: testCloseOpensAtPeer,
		says: "The peer learns of the stream when something is written to it or it is closed."},
	{name: "CloseIsHalf", rows: "S04", udp: true, run: testCloseIsHalf,
		says: "The other direction of a bidirectional stream is unaffected."},
	{name: "HalvesInTwoGoroutines", rows: "S04 T26", run: testHalves,
		says: "All methods may be called from any goroutine at any time."},
	{name: "CloseDelivers", rows: "S04", run: testCloseDelivers,
		says: "What was written is still delivered, in the background."},
	{name: "WriteAfterClose", rows: "S04 T25", run: testWriteAfterClose,
		says: "An error matching net.ErrClosed after Close; a second Close returns nil."},
	{name: "WriteLast", rows: "S03 S04", udp: true, run: testWriteLast,
		says: "WriteLast is Write followed by Close. The stream is closed only if all of p was written."},
	{name: "WriteCopies", rows: "S03", run: testWriteCopies,
		says: "Write and SendDatagram copy: the caller may reuse p when they return."},
	{name: "NoFlush", rows: "S03", run: testNoFlush,
		says: "Data is sent as soon as the network allows; there is no Flush."},
	{name: "StreamIDs", rows: "S06 T08", run: testStreamIDs,
		says: "A StreamID identifies a stream within a connection (RFC 9000, Section 2.1)."},
	{name: "AcceptOrder", rows: "S01 S07", run: testAcceptOrder,
		says: "Streams of one kind are accepted in the order of their stream IDs, whatever the order in which their packets arrive."},
	{name: "AcceptOrderUni", rows: "S02 S07", run: testAcceptOrderUni,
		says: "Streams of one kind are accepted in the order of their stream IDs, whatever the order in which their packets arrive."},
	{name: "KindsAreSeparate", rows: "S01 S02", run: testKindsAreSeparate,
		says: "AcceptUniStream returns the next stream that only the peer writes to."},
	{name: "StreamStats", rows: "S06", run: testStreamStats,
		says: "StreamStats are the counters of a stream: BytesRead returned by Read, BytesWritten accepted by Write."},
	{name: "StreamContext", rows: "S04 S05", run: testStreamContext,
		says: "Context is done when the direction ends: closed, cancelled by either side, or lost with the connection."},
	{name: "Multiplex", rows: "S07", udp: true, run: testMultiplex,
		says: "A Conn carries streams, which are ordered and reliable."},
	{name: "Concurrent", rows: "T26", udp: true, run: testConcurrent,
		says: "All methods may be called from any goroutine at any time."},
}

func testBidiEcho(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	want := noiseBytes(1 << 20)
	back := async(func() error {
		if _, err := io.Copy(s, s); err != nil {
			return err
		}
		return s.Close()
	})
	sent := async(func() error {
		if _, err := c.Write(want); err != nil {
			return err
		}
		return c.Close()
	})
	got, err := io.ReadAll(c)
	require.NoError(l, err)
	require.NoError(l, <-sent)
	require.NoError(l, <-back)
	require.True(l, bytes.Equal(want, got), "%d bytes came back", len(got))
}

func testServerOpens(l *lab) {
	p := l.connect(setup{})
	echo(l, p.server, p.client)
	transfer(l, p.server, p.client, 10_000)
}

func testUni(l *lab) {
	p := l.connect(setup{})
	transfer(l, p.client, p.server, 100_000)
	transfer(l, p.server, p.client, 100_000)
}

func testReadWrite(l *lab) {
	p := l.connect(setup{})
	for _, n := range []int{0, 1, 2, 1199, 1200, 1201, 65535, 65536, 1<<20 + 1} {
		c, s := p.streams(l)
		want := noiseBytes(n)
		wrote := async(func() error {
			for rest := want; len(rest) > 0; { // in pieces that fit nothing
				k := min(len(rest), 9973)
				m, err := c.Write(rest[:k])
				if err != nil || m != k {
					return fmt.Errorf("Write of %d = %d, %w", k, m, err)
				}
				rest = rest[k:]
			}
			if m, err := c.Write(nil); m != 0 || err != nil {
				return fmt.Errorf("Write(nil) = %d, %w", m, err)
			}
			return c.Close()
		})
		if n > 0 {
			head := make([]byte, 1)
			_, err := io.ReadFull(s, head) // shorter than what has arrived
			require.NoError(l, err)
			exact := make([]byte, n/2)
			_, err = io.ReadFull(s, exact)
			require.NoError(l, err)
			require.True(l, bytes.Equal(want[:1+n/2], append(head, exact...)))
			want = want[1+n/2:]
		}
		rest, err := io.ReadAll(s)
		require.NoError(l, err)
		require.NoError(l, <-wrote)
		require.True(l, bytes.Equal(want, rest), "the last %d of %d bytes", len(rest), n)
		m, err := s.Read(make([]byte, 1))
		require.Zero(l, m)
		require.Equal(l, io.EOF, err, "EOF stays")
		require.NoError(l, s.Close())
	}
}

func testLargeTransfer(l *lab) {
	p := l.connect(setup{})
	n := scale(64<<20, 8<<20)
	if l.net != nil {
		n /= 4 // a simulated packet costs more than a real one
	}
	transfer(l, p.client, p.server, n)
}

func testOpenIsSilent(l *lab) {
	p := l.connect(setup{})
	c, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	u, err := p.client.OpenUniStream(l.ctx)
	require.NoError(l, err)
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	_, err = p.server.AcceptStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded)
	_, err = p.server.AcceptUniStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded)

	_, err = c.Write([]byte("x"))
	require.NoError(l, err)
	s, err := p.server.AcceptStream(l.ctx)
	require.NoError(l, err)
	require.Equal(l, c.StreamID(), s.StreamID())
	_, err = u.Write([]byte("x"))
	require.NoError(l, err)
	_, err = p.server.AcceptUniStream(l.ctx)
	require.NoError(l, err)
}

func testCloseOpensAtPeer(l *lab) {
	p := l.connect(setup{})
	c, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	require.NoError(l, c.Close())
	s, err := p.server.AcceptStream(l.ctx)
	require.NoError(l, err)
	_, err = s.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)

	u, err := p.client.OpenUniStream(l.ctx)
	require.NoError(l, err)
	require.NoError(l, u.Close())
	r, err := p.server.AcceptUniStream(l.ctx)
	require.NoError(l, err)
	_, err = r.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)
}

func testCloseIsHalf(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	require.NoError(l, c.Close())
	_, err := s.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)
	_, err = s.Write([]byte("answer"))
	require.NoError(l, err, "Write after the peer's Close")
	require.NoError(l, s.Close())
	got, err := io.ReadAll(c)
	require.NoError(l, err, "Read after own Close")
	require.Equal(l, "answer", string(got))
}

func testHalves(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	both := func(x transport.Stream) <-chan error {
		w := async(func() error {
			if _, err := io.Copy(x, noise(500_000)); err != nil {
				return err
			}
			return x.Close()
		})
		r := async(func() error {
			got, err := io.ReadAll(x)
			if err == nil && !bytes.Equal(got, noiseBytes(500_000)) {
				err = fmt.Errorf("%d other bytes arrived", len(got))
			}
			return err
		})
		return async(func() error {
			err := <-w
			if e := <-r; err == nil {
				err = e
			}
			return err
		})
	}
	near, far := both(c), both(s)
	require.NoError(l, <-near)
	require.NoError(l, <-far)
}

func testCloseDelivers(l *lab) {
	p := l.connect(setup{})
	sim(p.clientPC).Links(Link{Latency: oneWay, Loss: 0.2}, Link{})
	for range 10 {
		c, err := p.client.OpenUniStream(l.ctx)
		require.NoError(l, err)
		_, err = c.Write(noiseBytes(5000))
		require.NoError(l, err)
		start := time.Now()
		require.NoError(l, c.Close())
		require.Zero(l, time.Since(start), "Close does not wait")
	}
	for range 10 {
		s, err := p.server.AcceptUniStream(l.ctx)
		require.NoError(l, err)
		got, err := io.ReadAll(s)
		require.NoError(l, err)
		require.True(l, bytes.Equal(noiseBytes(5000), got), "%d bytes", len(got))
	}
}

func testWriteAfterClose(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	require.NoError(l, c.Close())
	n, err := c.Write([]byte("x"))
	require.Zero(l, n)
	require.ErrorIs(l, err, errClosed)
	require.NoError(l, c.Close(), "second Close")
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.Empty(l, got)
	require.NoError(l, c.Close(), "Close after all was acknowledged")
	_, err = c.Write([]byte("x"))
	require.ErrorIs(l, err, errClosed)
}

func testWriteLast(l *lab) {
	p := l.connect(setup{})
	for _, size := range []int{0, 1, 2000, 1 << 20} {
		c, s := openUni(l, p.client, p.server)
		want := noiseBytes(size)
		wrote := async(func() error {
			n, err := c.WriteLast(want)
			if err == nil && n != size {
				err = fmt.Errorf("wrote %d of %d bytes", n, size)
			}
			return err
		})
		got, err := io.ReadAll(s)
		require.NoError(l, err)
		require.True(l, bytes.Equal(want, got), "%d bytes of %d", len(got), size)
		require.NoError(l, <-wrote)
		_, err = c.WriteLast([]byte("x"))
		require.ErrorIs(l, err, errClosed)
		require.NoError(l, c.Close(), "Close after WriteLast")
	}
	// One that is cut short leaves the stream open.
	c, s := openUni(l, p.client, p.server)
	large := make([]byte, 64<<20)
	n := 0
	for n == 0 { // a busy machine may take none of it within a second
		require.NoError(l, c.SetWriteDeadline(time.Now().Add(time.Second)))
		var err error
		n, err = c.WriteLast(large)
		require.ErrorIs(l, err, os.ErrDeadlineExceeded)
	}
	require.Less(l, n, len(large))
	require.NoError(l, c.SetWriteDeadline(time.Time{}))
	rest := async(func() error {
		_, err := c.WriteLast([]byte("end"))
		return err
	})
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.NoError(l, <-rest)
	require.Len(l, got, n+3)
	require.Equal(l, "end", string(got[n:]))
}

func testWriteCopies(l *lab) {
	p := l.connect(setup{})
	sim(p.clientPC).Links(Link{Latency: oneWay, Loss: 0.1}, Link{}) // what is lost must be sent again from a copy
	c, s := openUni(l, p.client, p.server)
	want := noiseBytes(200_000)
	wrote := async(func() error {
		b := make([]byte, 3001)
		for rest := want; len(rest) > 0; {
			n := copy(b, rest)
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
			clear(b)
			rest = rest[n:]
		}
		return c.Close()
	})
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.NoError(l, <-wrote)
	require.True(l, bytes.Equal(want, got), "the bytes at the time of Write arrive")
}

func testNoFlush(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	l.settle(time.Second)
	start := time.Now()
	_, err := c.Write([]byte("x"))
	require.NoError(l, err)
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(l, err)
	require.Less(l, time.Since(start), oneWay+5*time.Millisecond, "one byte takes one way")
}

func testStreamIDs(l *lab) {
	p := l.connect(setup{})
	for i := range transport.StreamID(3) {
		for _, d := range []struct {
			from, to transport.Conn
			first    transport.StreamID
			server   bool
		}{{p.client, p.server, 0, false}, {p.server, p.client, 1, true}} {
			near, far := openStream(l, d.from, d.to)
			require.Equal(l, d.first+4*i, near.StreamID())
			require.Equal(l, near.StreamID(), far.StreamID())
			require.Equal(l, d.server, near.StreamID().ServerInitiated())
			require.False(l, near.StreamID().Unidirectional())
			w, r := openUni(l, d.from, d.to)
			require.Equal(l, d.first+2+4*i, w.StreamID())
			require.Equal(l, w.StreamID(), r.StreamID())
			require.Equal(l, d.server, w.StreamID().ServerInitiated())
			require.True(l, w.StreamID().Unidirectional())
		}
	}
}

// holdFirst loses what the client sends in first, so that what it sends in
// second arrives before the retransmission.
func holdFirst(l *lab, p *pair, first, second func()) {
	l.settle(time.Second) // nothing else is under way
	client := addrPort(p.clientPC.LocalAddr())
	l.net.Filter(func(pkt Packet) Verdict {
		if pkt.From == client {
			return Verdict{Drop: true}
		}
		return Verdict{}
	})
	first()
	l.settle(0)
	l.net.Filter(nil)
	second()
}

func testAcceptOrder(l *lab) {
	p := l.connect(setup{})
	a, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	b, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	holdFirst(l, p,
		func() { _, err = a.Write([]byte("zero")); require.NoError(l, err) },
		func() { _, err = b.Write([]byte("four")); require.NoError(l, err) })
	for _, want := range []transport.StreamID{0, 4} {
		s, err := p.server.AcceptStream(l.ctx)
		require.NoError(l, err)
		require.Equal(l, want, s.StreamID())
		if want == 0 {
			require.Equal(l, a.StreamID(), s.StreamID())
		}
		got := make([]byte, 4)
		_, err = io.ReadFull(s, got)
		require.NoError(l, err)
		require.Equal(l, map[transport.StreamID]string{0: "zero", 4: "four"}[want], string(got))
	}
}

func testAcceptOrderUni(l *lab) {
	p := l.connect(setup{})
	var streams []transport.SendStream
	for range 5 {
		s, err := p.client.OpenUniStream(l.ctx)
		require.NoError(l, err)
		streams = append(streams, s)
	}
	// Written in the opposite order, a packet each.
	for i := 4; i >= 0; i-- {
		_, err := streams[i].Write([]byte{byte(i)})
		require.NoError(l, err)
		l.settle(time.Millisecond)
	}
	for i := range 5 {
		s, err := p.server.AcceptUniStream(l.ctx)
		require.NoError(l, err)
		require.Equal(l, transport.StreamID(2+4*i), s.StreamID())
		b := make([]byte, 1)
		_, err = io.ReadFull(s, b)
		require.NoError(l, err)
		require.Equal(l, byte(i), b[0])
	}
}

func testKindsAreSeparate(l *lab) {
	p := l.connect(setup{})
	u, err := p.client.OpenUniStream(l.ctx)
	require.NoError(l, err)
	_, err = u.Write([]byte("u"))
	require.NoError(l, err)
	b, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	_, err = b.Write([]byte("b"))
	require.NoError(l, err)
	s, err := p.server.AcceptStream(l.ctx)
	require.NoError(l, err)
	require.Equal(l, b.StreamID(), s.StreamID())
	r, err := p.server.AcceptUniStream(l.ctx)
	require.NoError(l, err)
	require.Equal(l, u.StreamID(), r.StreamID())
}

func testStreamStats(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l) // one byte each already
	require.Equal(l, transport.StreamStats{BytesWritten: 1}, c.Stats())
	require.Equal(l, transport.StreamStats{BytesRead: 1}, s.Stats())
	_, err := c.Write(make([]byte, 99_999))
	require.NoError(l, err)
	_, err = io.ReadFull(s, make([]byte, 40_000))
	require.NoError(l, err)
	require.Equal(l, transport.StreamStats{BytesRead: 40_001}, s.Stats(), "read, not arrived")
	require.Equal(l, transport.StreamStats{BytesWritten: 100_000}, c.Stats())
	require.NoError(l, c.Close())
	_, err = io.Copy(s, s)
	require.NoError(l, err)
	require.NoError(l, s.Close())
	_, err = io.ReadAll(c)
	require.NoError(l, err)
	require.Equal(l, transport.StreamStats{BytesRead: 59_999, BytesWritten: 100_000}, c.Stats())
	require.Equal(l, transport.StreamStats{BytesRead: 100_000, BytesWritten: 59_999}, s.Stats())

	w, r := openUni(l, p.client, p.server)
	require.Equal(l, transport.StreamStats{BytesWritten: 1}, w.Stats())
	require.Equal(l, transport.StreamStats{BytesRead: 1}, r.Stats())
}

func testStreamContext(l *lab) {
	p := l.connect(setup{})
	done := func(s transport.SendStream, why string) {
		l.Helper()
		select {
		case <-s.Context().Done():
		case <-time.After(5 * time.Second):
			require.FailNow(l, "the stream's context is not done", why)
		}
	}
	c, s := p.streams(l)
	require.NoError(l, c.Context().Err())
	require.NoError(l, c.Close())
	done(c, "closed")
	_, err := s.Read(make([]byte, 1))
	require.Equal(l, io.EOF, err)
	require.NoError(l, s.Context().Err(), "the other direction goes on")
	s.CancelWrite(1)
	done(s, "cancelled by this side")

	c, s = p.streams(l)
	s.CancelRead(2)
	done(c, "cancelled by the other side")
	require.NoError(l, s.Context().Err())

	c, s = p.streams(l)
	require.NoError(l, p.client.CloseWithError(3, ""))
	done(c, "lost with the connection")
	done(s, "lost with the connection")
}

func testMultiplex(l *lab) {
	const streams = 100
	p := l.connect(setup{})
	echoing := serveEcho(p.server)
	var wg sync.WaitGroup
	errs := make(chan error, streams)
	for i := range streams {
		wg.Go(func() {
			errs <- func() error {
				s, err := p.client.OpenStream(l.ctx)
				if err != nil {
					return err
				}
				for j := range 20 { // a turn each, so that the streams interleave
					want := fmt.Appendf(nil, "stream %d of goroutine %d, message %d", s.StreamID(), i, j)
					if _, err := s.Write(want); err != nil {
						return err
					}
					got := make([]byte, len(want))
					if _, err := io.ReadFull(s, got); err != nil {
						return err
					}
					if !bytes.Equal(want, got) {
						return fmt.Errorf("%q came back as %q", want, got)
					}
				}
				return s.Close()
			}()
		})
	}
	wg.Wait()
	for range streams {
		require.NoError(l, <-errs)
	}
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	echoing.Wait()
}

func testConcurrent(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.Datagrams = l.server.Features().Datagrams }})
	echoing := serveEcho(p.server)
	c, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				c.Write([]byte("x"))
				c.SetReadDeadline(time.Now().Add(time.Duration(j) * time.Microsecond))
				c.Read(make([]byte, 4))
				c.SetWriteDeadline(time.Now().Add(time.Hour))
				c.SetPriority(transport.Priority{Urgency: uint8(i)})
				c.Priority()
				c.Stats()
				p.client.Stats()
				p.client.State()
				p.client.RemoteAddr()
				p.client.LocalAddr()
				p.client.SendDatagram([]byte("x"))
				p.clientEP.Stats()
				if s, err := p.client.OpenStream(l.ctx); err == nil {
					s.Write([]byte("y"))
					s.CancelRead(1)
					s.CancelWrite(1)
				}
			}
		})
	}
	wg.Wait()
	c.CancelWrite(0)
	c.CancelRead(0)
	s, err := p.client.OpenStream(l.ctx)
	require.NoError(l, err, "the connection has survived it")
	_, err = s.Write([]byte("still here"))
	require.NoError(l, err)
	require.NoError(l, s.Close())
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, "still here", string(got))
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	echoing.Wait()
}
