package transporttest

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var deadlineCases = []testCase{
	{name: "ReadDeadline", rows: "S13", run: testReadDeadline,
		says: "SetReadDeadline bounds pending and future Reads. Zero removes the bound."},
	{name: "WriteDeadline", rows: "S13", run: testWriteDeadline,
		says: "SetWriteDeadline bounds pending and future Writes. Zero removes the bound."},
	{name: "SetDeadline", rows: "S13", run: testSetDeadline,
		says: "SetDeadline sets both deadlines."},
	{name: "DeadlineKeepsData", rows: "S13", run: testDeadlineKeepsData,
		says: "Read and Write follow net.Conn: they are bounded by deadlines."},
	{name: "ContextCancelled", rows: "S13", run: testContextCancelled,
		says: "Methods that take a context return ctx.Err() when it is done first."},
	{name: "ContextExpires", rows: "S13", run: testContextExpires,
		says: "Methods that take a context return ctx.Err() when it is done first."},
	{name: "ContextAlreadyDone", rows: "S13", run: testContextAlreadyDone,
		says: "Methods that take a context return ctx.Err() when it is done first."},
}

func testReadDeadline(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	start := time.Now()
	require.NoError(l, c.SetReadDeadline(start.Add(3*time.Second)))
	n, err := c.Read(make([]byte, 1))
	require.Zero(l, n)
	require.ErrorIs(l, err, os.ErrDeadlineExceeded)
	require.Equal(l, 3*time.Second, time.Since(start))
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(l, err, os.ErrDeadlineExceeded, "a deadline in the past")

	require.NoError(l, c.SetReadDeadline(time.Time{}))
	reading := async(func() error { _, err := c.Read(make([]byte, 1)); return err })
	l.settle(15 * time.Second)
	require.Empty(l, reading, "no bound")
	require.NoError(l, c.SetReadDeadline(time.Now().Add(time.Second)))
	start = time.Now()
	require.ErrorIs(l, <-reading, os.ErrDeadlineExceeded, "the pending Read")
	require.Equal(l, time.Second, time.Since(start))

	require.NoError(l, c.SetReadDeadline(time.Now().Add(time.Second)))
	reading = async(func() error { _, err := c.Read(make([]byte, 1)); return err })
	l.settle(500 * time.Millisecond)
	require.NoError(l, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	l.settle(2 * time.Second)
	require.Empty(l, reading, "the bound has moved")
	_, err = s.Write([]byte("x"))
	require.NoError(l, err)
	require.NoError(l, <-reading)

	_, r := openUni(l, p.client, p.server)
	require.NoError(l, r.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(l, err, os.ErrDeadlineExceeded)
}

func testWriteDeadline(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow = 64 << 10 }})
	c, s := p.streams(l)
	start := time.Now()
	require.NoError(l, c.SetWriteDeadline(start.Add(3*time.Second)))
	n, err := c.Write(noiseBytes(4 << 20))
	require.ErrorIs(l, err, os.ErrDeadlineExceeded)
	require.Equal(l, 3*time.Second, time.Since(start))
	require.Less(l, n, 4<<20)
	m, err := c.Write([]byte("x"))
	require.Zero(l, m)
	require.ErrorIs(l, err, os.ErrDeadlineExceeded, "a deadline in the past")

	require.NoError(l, c.SetWriteDeadline(time.Time{}))
	require.NoError(l, c.Close())
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, n, len(got), "what Write said it accepted arrives, nothing else")
	require.Equal(l, noiseBytes(4 << 20)[:n], got)

	c, _ = p.streams(l)
	writing := async(func() error { _, err := c.Write(make([]byte, 4<<20)); return err })
	l.settle(time.Second)
	require.Empty(l, writing)
	require.NoError(l, c.SetWriteDeadline(time.Now()))
	require.ErrorIs(l, <-writing, os.ErrDeadlineExceeded, "the pending Write")
}

func testSetDeadline(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow = 64 << 10 }})
	c, _ := p.streams(l)
	require.NoError(l, c.SetDeadline(time.Now().Add(time.Second)))
	reading := async(func() error { _, err := c.Read(make([]byte, 1)); return err })
	writing := async(func() error { _, err := c.Write(make([]byte, 4<<20)); return err })
	start := time.Now()
	require.ErrorIs(l, <-reading, os.ErrDeadlineExceeded)
	require.ErrorIs(l, <-writing, os.ErrDeadlineExceeded)
	require.Equal(l, time.Second, time.Since(start))
	require.NoError(l, c.SetDeadline(time.Time{}))
	reading = async(func() error { _, err := c.Read(make([]byte, 1)); return err })
	l.settle(20 * time.Second)
	require.Empty(l, reading)
	c.CancelRead(0)
	<-reading
}

func testDeadlineKeepsData(l *lab) {
	p := l.connect(setup{})
	c, s := p.streams(l)
	want := noiseBytes(100_000)
	wrote := async(func() error {
		for rest := want; len(rest) > 0; rest = rest[10_000:] {
			if _, err := c.Write(rest[:10_000]); err != nil {
				return err
			}
			time.Sleep(70 * time.Millisecond)
		}
		return c.Close()
	})
	var got []byte
	timeouts := 0
	for b := make([]byte, 3000); ; {
		require.NoError(l, s.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
		n, err := s.Read(b)
		got = append(got, b[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			timeouts++
		}
	}
	require.NoError(l, <-wrote)
	require.Positive(l, timeouts)
	require.Equal(l, want, got, "no byte is lost to a deadline")
}

// waits are the calls that wait for the peer; none of them has a reason to
// return on the connection that blocking makes.
func waits(p *pair) map[string]func(context.Context) error {
	m := map[string]func(context.Context) error{
		"Accept":          func(ctx context.Context) error { _, err := p.ln.Accept(ctx); return err },
		"OpenStream":      func(ctx context.Context) error { _, err := p.client.OpenStream(ctx); return err },
		"OpenUniStream":   func(ctx context.Context) error { _, err := p.client.OpenUniStream(ctx); return err },
		"AcceptStream":    func(ctx context.Context) error { _, err := p.client.AcceptStream(ctx); return err },
		"AcceptUniStream": func(ctx context.Context) error { _, err := p.client.AcceptUniStream(ctx); return err },
	}
	if p.client.State().MaxDatagram > 0 {
		m["ReceiveDatagram"] = func(ctx context.Context) error { _, err := p.client.ReceiveDatagram(ctx); return err }
	}
	return m
}

func (l *lab) blocking() *pair {
	datagrams := l.client.Features().Datagrams && l.server.Features().Datagrams
	return l.connect(setup{
		server: func(c *transport.Config) { c.MaxStreams, c.MaxUniStreams, c.Datagrams = -1, -1, datagrams },
		client: func(c *transport.Config) { c.Datagrams = datagrams },
	})
}

func testContextCancelled(l *lab) {
	p := l.blocking()
	for name, f := range waits(p) {
		ctx, cancel := context.WithCancel(l.ctx)
		waiting := async(func() error { return f(ctx) })
		l.settle(time.Second)
		require.Empty(l, waiting, "%s waits", name)
		start := time.Now()
		cancel()
		require.ErrorIs(l, <-waiting, context.Canceled, name)
		require.Zero(l, time.Since(start), name)
	}
	echo(l, p.server, p.client)
}

func testContextExpires(l *lab) {
	p := l.blocking()
	for name, f := range waits(p) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		err := f(ctx)
		cancel()
		require.ErrorIs(l, err, context.DeadlineExceeded, name)
		require.Equal(l, time.Second, time.Since(start), name)
	}
	// Dial, to a place where nobody answers.
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	cut(p.clientPC)
	start := time.Now()
	_, err := p.clientEP.Dial(ctx, p.serverEP.Addr(), p.clientCfg)
	require.ErrorIs(l, err, context.DeadlineExceeded, "Dial")
	require.Equal(l, time.Second, time.Since(start), "Dial")
}

func testContextAlreadyDone(l *lab) {
	p := l.blocking()
	ctx, cancel := context.WithCancel(l.ctx)
	cancel()
	for name, f := range waits(p) {
		require.ErrorIs(l, f(ctx), context.Canceled, name)
	}
	_, err := p.clientEP.Dial(ctx, p.serverEP.Addr(), p.clientCfg)
	require.ErrorIs(l, err, context.Canceled, "Dial")
	l.settle(15 * time.Second)
	require.EqualValues(l, 1, p.clientEP.Stats().ConnsOpen, "no half connection stays")
}
