package transporttest

import (
	"context"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var limitCases = []testCase{
	{name: "StreamLimit", rows: "S10", run: testStreamLimit,
		says: "MaxStreams and MaxUniStreams limit the streams the peer may have open at once. Default 100 each."},
	{name: "UniStreamLimit", rows: "S10", run: testUniStreamLimit,
		says: "OpenUniStream waits as OpenStream does."},
	{name: "StreamLimitOfEachSide", rows: "S10 T05 T06", run: testStreamLimitOfEachSide,
		says: "MaxStreams and MaxUniStreams limit the streams the peer may have open at once."},
	{name: "StreamLimitNone", rows: "S10 T05", run: testStreamLimitNone,
		says: "In durations, stream limits and windows zero means the default and negative means none."},
	{name: "OpenInOrder", rows: "S10", run: testOpenInOrder,
		says: "OpenStream waits until the peer allows one more."},
	{name: "Streams1000", rows: "S09 E12", run: testStreams1000,
		says: "MaxStreams and MaxUniStreams limit the streams the peer may have open at once."},
	{name: "FlowControl", rows: "T17", run: testFlowControl,
		says: "StreamWindow and ConnWindow limit, in bytes, what may arrive unread on one stream and on the connection."},
	{name: "FlowControlConn", rows: "T17", run: testFlowControlConn,
		says: "StreamWindow and ConnWindow limit, in bytes, what may arrive unread on one stream and on the connection."},
	{name: "FlowControlCredit", rows: "T17", run: testFlowControlCredit,
		says: "Read copies what has arrived and returns flow-control credit to the peer."},
	{name: "FlowControlIndependent", rows: "T17 S07", run: testFlowControlIndependent,
		says: "StreamWindow and ConnWindow limit, in bytes, what may arrive unread on one stream and on the connection."},
	{name: "CancelReturnsCredit", rows: "T17 S05", run: testCancelReturnsCredit,
		says: "ConnWindow limits, in bytes, what may arrive unread on the connection."},
	{name: "Backpressure", rows: "T23", alone: true, run: testBackpressure,
		says: "Write blocks while the peer's flow control or congestion control allows no more to be buffered."},
	{name: "MaxConns", rows: "T05 A06", run: testMaxConns,
		says: "MaxConns limits the connections that are accepted and open at once. More are refused (CONNECTION_REFUSED)."},
	{name: "MaxConnsRace", rows: "T05 A06", run: testMaxConnsRace,
		says: "MaxConns limits the connections that are accepted and open at once, handshakes in progress included."},
}

// wantRefused checks that the server counts n refused attempts. An attempt may
// need several packets, as a ClientHello with post-quantum keys does, and an
// engine that refuses without state cannot know that they belong together.
func wantRefused(l *lab, p *pair, n uint64) {
	l.Helper()
	refused := p.serverEP.Stats().ConnsRefused
	require.GreaterOrEqual(l, refused, n, "attempts refused")
	require.LessOrEqual(l, refused, 3*n, "attempts refused")
}

const connectionRefused = 0x2 // RFC 9000, Section 20.1

func testStreamLimit(l *lab) {
	p := l.connect(setup{})
	echoing := serveEcho(p.server)
	var open []transport.Stream
	for i := range 100 {
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		s, err := p.client.OpenStream(ctx)
		cancel()
		require.NoError(l, err, "stream %d of 100", i+1)
		_, err = s.Write([]byte("x"))
		require.NoError(l, err)
		open = append(open, s)
	}
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	_, err := p.client.OpenStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "the 101st waits")

	opening := async(func() error {
		s, err := p.client.OpenStream(l.ctx)
		if err == nil {
			err = s.Close()
		}
		return err
	})
	l.settle(5 * time.Second)
	require.Empty(l, opening, "it still waits")
	require.NoError(l, open[50].Close())
	_, err = io.ReadAll(open[50])
	require.NoError(l, err)
	select {
	case err := <-opening:
		require.NoError(l, err)
	case <-time.After(5 * time.Second):
		require.FailNow(l, "a stream has ended, and OpenStream waits on")
	}
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	echoing.Wait()
}

func testUniStreamLimit(l *lab) {
	p := l.connect(setup{})
	for i := range 100 {
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		s, err := p.client.OpenUniStream(ctx)
		cancel()
		require.NoError(l, err, "stream %d of 100", i+1)
		_, err = s.Write([]byte("x"))
		require.NoError(l, err)
		require.NoError(l, s.Close())
	}
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	_, err := p.client.OpenUniStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "the 101st waits while the peer has read nothing")
	r, err := p.server.AcceptUniStream(l.ctx)
	require.NoError(l, err)
	_, err = io.ReadAll(r)
	require.NoError(l, err)
	ctx, cancel = context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	_, err = p.client.OpenUniStream(ctx)
	require.NoError(l, err)
}

func testStreamLimitOfEachSide(l *lab) {
	p := l.connect(setup{
		server: func(c *transport.Config) { c.MaxStreams, c.MaxUniStreams = 1, 2 },
		client: func(c *transport.Config) { c.MaxStreams, c.MaxUniStreams = 3, 4 },
	})
	count := func(open func(context.Context) error) int {
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		defer cancel()
		for n := 0; ; n++ {
			if err := open(ctx); err != nil {
				require.ErrorIs(l, err, context.DeadlineExceeded)
				return n
			}
		}
	}
	bidi := func(c transport.Conn) func(context.Context) error {
		return func(ctx context.Context) error { _, err := c.OpenStream(ctx); return err }
	}
	uni := func(c transport.Conn) func(context.Context) error {
		return func(ctx context.Context) error { _, err := c.OpenUniStream(ctx); return err }
	}
	require.Equal(l, 1, count(bidi(p.client)))
	require.Equal(l, 2, count(uni(p.client)))
	require.Equal(l, 3, count(bidi(p.server)))
	require.Equal(l, 4, count(uni(p.server)))
}

func testStreamLimitNone(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.MaxStreams, c.MaxUniStreams = -1, -1 }})
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	_, err := p.client.OpenStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded)
	_, err = p.client.OpenUniStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded)
	echo(l, p.server, p.client)
}

// Those that wait get the streams one for one, also if some give up.
func testOpenInOrder(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.MaxStreams = 1 }})
	c, s := p.streams(l)
	ctx, giveUp := context.WithCancel(l.ctx)
	first := async(func() error { _, err := p.client.OpenStream(ctx); return err })
	l.settle(time.Second)
	opened := make(chan transport.Stream, 1)
	second := async(func() error {
		s, err := p.client.OpenStream(l.ctx)
		opened <- s
		return err
	})
	l.settle(time.Second)
	giveUp()
	require.ErrorIs(l, <-first, context.Canceled)
	l.settle(time.Second)
	require.Empty(l, second)
	require.NoError(l, c.Close())
	require.NoError(l, s.Close())
	_, err := io.ReadAll(c)
	require.NoError(l, err)
	_, err = io.ReadAll(s)
	require.NoError(l, err)
	require.NoError(l, <-second)
	require.Equal(l, c.StreamID()+4, (<-opened).StreamID(), "who gave up has used no stream")
}

func testStreams1000(l *lab) {
	n := scale(1000, 100)
	p := l.connect(setup{server: func(c *transport.Config) { c.MaxStreams = int64(n) }})
	echoing := serveEcho(p.server)
	streams := make([]transport.Stream, n)
	for i := range streams {
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		s, err := p.client.OpenStream(ctx)
		cancel()
		require.NoError(l, err, "stream %d of %d", i+1, n)
		_, err = s.Write([]byte("hello"))
		require.NoError(l, err)
		streams[i] = s
	}
	l.settle(5 * time.Second)
	require.EqualValues(l, n, p.client.Stats().StreamsOpen, "client")
	require.EqualValues(l, n, p.client.Stats().StreamsOpened, "client")
	require.EqualValues(l, n, p.server.Stats().StreamsOpen, "server")
	require.EqualValues(l, n, p.server.Stats().StreamsAccepted, "server")
	for _, s := range streams {
		require.NoError(l, s.Close())
		got, err := io.ReadAll(s)
		require.NoError(l, err)
		require.Equal(l, "hello", string(got))
	}
	l.settle(5 * time.Second)
	require.Zero(l, p.client.Stats().StreamsOpen, "client")
	require.Zero(l, p.server.Stats().StreamsOpen, "server")
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	echoing.Wait()
}

// fill writes until no more goes for d, and returns how much Write accepted.
func fill(l *lab, s transport.SendStream, d time.Duration) int {
	l.Helper()
	require.NoError(l, s.SetWriteDeadline(time.Now().Add(d)))
	total, piece := 0, make([]byte, 10_000)
	for {
		n, err := s.Write(piece)
		total += n
		if err != nil {
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			require.NoError(l, s.SetWriteDeadline(time.Time{}))
			return total
		}
		require.Less(l, total, 100<<20, "nothing stops the writer")
	}
}

// What an engine may buffer before it sends, for Write to accept more than the
// window.
const sendBuffer = 256 << 10

func testFlowControl(l *lab) {
	const window = 128 << 10
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow = window }})
	c, s := p.streams(l)
	before := p.client.Stats().BytesSent
	n := fill(l, c, 10*time.Second)
	sent := p.client.Stats().BytesSent - before
	require.LessOrEqual(l, sent, uint64(window*5/4), "what is on the wire: the window and headers")
	require.GreaterOrEqual(l, n, 16<<10)
	require.LessOrEqual(l, n, window+sendBuffer, "what Write accepted")
	l.settle(20 * time.Second)
	require.LessOrEqual(l, p.client.Stats().BytesSent-before, uint64(window*5/4)+4096, "the window stays shut")

	require.NoError(l, c.Close())
	got, err := io.Copy(io.Discard, s)
	require.NoError(l, err)
	require.EqualValues(l, n, got, "what Write accepted arrives, nothing else")
}

func testFlowControlConn(l *lab) {
	const window = 256 << 10
	p := l.connect(setup{server: func(c *transport.Config) { c.ConnWindow = window }})
	var near, far []transport.Stream
	for range 4 {
		c, s := p.streams(l)
		near, far = append(near, c), append(far, s)
	}
	before := p.client.Stats().BytesSent
	total := 0
	for _, c := range near {
		total += fill(l, c, 2*time.Second)
		require.NoError(l, c.Close())
	}
	require.LessOrEqual(l, p.client.Stats().BytesSent-before, uint64(window*5/4), "what is on the wire: the window and headers")
	for _, s := range far {
		got, err := io.Copy(io.Discard, s)
		require.NoError(l, err)
		total -= int(got)
	}
	require.Zero(l, total, "what Write accepted arrives, nothing else")
}

func testFlowControlCredit(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow, c.ConnWindow = 20_000, 30_000 }})
	transfer(l, p.client, p.server, 1<<20) // more than either window, many times
	transfer(l, p.server, p.client, 1<<20)
}

func testFlowControlIndependent(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow, c.ConnWindow = 64<<10, 4<<20 }})
	c, _ := p.streams(l)
	fill(l, c, 5*time.Second) // nobody reads it
	p.echo(l)
	transfer(l, p.client, p.server, 1<<20)
}

// Streams that are cancelled unread must not use up the connection's window.
func testCancelReturnsCredit(l *lab) {
	p := l.connect(setup{server: func(c *transport.Config) { c.StreamWindow, c.ConnWindow = 64<<10, 64<<10 }})
	for i := range 8 {
		c, s := p.streams(l)
		require.Positive(l, fill(l, c, 2*time.Second))
		if i%2 == 0 {
			c.CancelWrite(0)
			_, err := io.Copy(io.Discard, s)
			wantStream(l, err, 0, true, "Read")
		} else {
			s.CancelRead(0)
			<-c.Context().Done()
		}
	}
	l.settle(5 * time.Second)
	transfer(l, p.client, p.server, 256<<10)
}

func testBackpressure(l *lab) {
	p := l.connect(setup{
		server: func(c *transport.Config) {
			c.StreamWindow, c.ConnWindow = 256<<10, 1<<20
			c.Datagrams = l.server.Features().Datagrams
		},
		client: func(c *transport.Config) { c.Datagrams = l.client.Features().Datagrams },
	})
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range 20 { // writers that nobody reads
		s, err := p.client.OpenStream(l.ctx)
		require.NoError(l, err)
		wg.Go(func() {
			piece := make([]byte, 16<<10)
			for {
				if _, err := s.Write(piece); err != nil {
					return // the case closes the connection
				}
			}
		})
	}
	if p.client.State().MaxDatagram > 0 {
		wg.Go(func() { // and datagrams that nobody receives
			for ctx.Err() == nil {
				for range 10 {
					p.client.SendDatagram(make([]byte, 1000))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	const bound = 16 << 20
	for range 5 {
		l.settle(2 * time.Second)
		require.Less(l, heap()-before, int64(bound), "heap of both sides while the server's application is stalled")
	}
	cancel()
	require.NoError(l, p.client.CloseWithError(0, ""))
	wg.Wait()
}

func testMaxConns(l *lab) {
	p := l.listen(setup{serverOpts: &transport.Options{MaxConns: 2}})
	first, _ := p.more(l)
	p.more(l)
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "the third Dial")
	wantRefused(l, p, 1)
	require.EqualValues(l, 2, p.serverEP.Stats().ConnsOpen)
	require.NoError(l, first.CloseWithError(0, ""))
	l.settle(10 * time.Second)
	p.dial(l) // the place is free again
	p.echo(l)
	_, err = p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "another Dial")
}

func testMaxConnsRace(l *lab) {
	const limit, dialers = 5, 40
	p := l.listen(setup{serverOpts: &transport.Options{MaxConns: limit}})
	var wg sync.WaitGroup
	var mostOpen uint64
	wg.Go(func() { // ends with the dialers, which take a second
		for range 900 {
			mostOpen = max(mostOpen, p.serverEP.Stats().ConnsOpen)
			time.Sleep(time.Millisecond)
		}
	})
	accepting, stop := context.WithCancel(l.ctx)
	var accepted, open, most atomic.Int64
	wg.Go(func() {
		for {
			c, err := p.ln.Accept(accepting)
			if err != nil {
				return
			}
			accepted.Add(1)
			if n := open.Add(1); n > most.Load() {
				most.Store(n)
			}
			context.AfterFunc(c.Context(), func() { open.Add(-1) })
		}
	})
	var dialed, refused atomic.Int64
	errs := make(chan error, dialers)
	var dialing sync.WaitGroup
	for range dialers {
		dialing.Go(func() {
			errs <- func() error {
				c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
				if err != nil {
					refused.Add(1)
					return nil
				}
				dialed.Add(1)
				time.Sleep(time.Second)
				return c.CloseWithError(0, "")
			}()
		})
	}
	dialing.Wait()
	stop()
	wg.Wait()
	require.EqualValues(l, limit, most.Load(), "accepted and open at once")
	require.LessOrEqual(l, mostOpen, uint64(limit), "handshakes in progress included")
	require.EqualValues(l, dialers, dialed.Load()+refused.Load())
	require.GreaterOrEqual(l, dialed.Load(), int64(limit))
	require.Equal(l, dialed.Load(), accepted.Load())
	require.Positive(l, refused.Load())
}
