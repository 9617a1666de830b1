package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var earlyCases = []testCase{
	{name: "Resume", rows: "Z01", run: testResume,
		says: "Sessions keeps what a client needs to resume. If nil, it never resumes."},
	{name: "ResumeFile", rows: "Z01", run: testResumeFile,
		says: "The value is opaque, belongs to the engine that wrote it; it may be kept on disk."},
	{name: "ResumeGarbage", rows: "Z01", run: testResumeGarbage,
		says: "The value is opaque; it may be kept on disk."},
	{name: "SessionsOnce", rows: "Z01", run: testSessionsOnce,
		says: "Sessions are used once, so that they cannot link connections."},
	{name: "ZeroRTT", rows: "Z02", needs: needsEarlyData, run: testZeroRTT,
		says: "Dial returns as soon as early data can be sent. EarlyData: 0-RTT was used and accepted."},
	{name: "ZeroRTTUni", rows: "Z02", needs: needsEarlyData, run: testZeroRTTUni,
		says: "HandshakeComplete: before that, what the peer sent may be a replay."},
	{name: "ZeroRTTDefault", rows: "Z03", run: testZeroRTTDefault,
		says: "EarlyData allows 0-RTT, off by default."},
	{name: "ZeroRTTFirstTime", rows: "Z02", needs: needsEarlyData, run: testZeroRTTFirstTime,
		says: "Dial returns when the handshake is complete, or, if cfg.EarlyData is set and a session is cached, as soon as early data can be sent."},
	{name: "ZeroRTTRejected", rows: "Z04 T25", needs: needsEarlyData, run: testZeroRTTRejected,
		says: "It returns ErrEarlyDataRejected if early data was sent and refused; streams opened before are then dead and the Conn is as good as new."},
	{name: "ZeroRTTNotEnabledByServer", rows: "Z03 Z04", needs: needsEarlyData, run: testZeroRTTNotEnabled,
		says: "It returns ErrEarlyDataRejected if early data was sent and refused."},
	{name: "ZeroRTTHandshake", rows: "Z05", needs: needsEarlyData, run: testZeroRTTHandshake,
		says: "Handshake waits for the handshake to complete. After it returns nil the peer is authenticated and what it sends cannot be a replay."},
	{name: "ZeroRTTLossy", rows: "Z02 T24", needs: needsEarlyData, run: testZeroRTTLossy,
		says: "A Conn carries streams, which are ordered and reliable."},
	{name: "ZeroRTTState", rows: "Z02 T08", needs: needsEarlyData, run: testZeroRTTState,
		says: "All methods may be called from any goroutine at any time."},
	{name: "TokenReuse", rows: "Z07", run: testTokenReuse,
		says: "RequireRetry reports whether a client at the unverified address must prove it receives packets there."},
}

// resumable opens a pair whose client has a session for the server.
// The first connection is closed.
func (l *lab) resumable(early bool, s setup) (*pair, *memorySessions) {
	l.Helper()
	sessions := newSessions()
	server, client := s.server, s.client
	s.server = func(c *transport.Config) {
		c.EarlyData = early
		if server != nil {
			server(c)
		}
	}
	s.client = func(c *transport.Config) {
		c.EarlyData, c.Sessions = early, sessions
		if client != nil {
			client(c)
		}
	}
	p := l.listen(s)
	p.dial(l)
	p.echo(l)
	sessions.wait(l)
	require.False(l, p.client.State().TLS.DidResume)
	require.False(l, p.client.State().EarlyData)
	require.NoError(l, p.client.CloseWithError(0, ""))
	ended(l, p.server)
	l.settle(5 * time.Second)
	return p, sessions
}

func testZeroRTTState(l *lab) {
	datagrams := func(c *transport.Config) { c.Datagrams = true }
	p, _ := l.resumable(true, setup{server: datagrams, client: datagrams})
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err)
	require.False(l, c.State().HandshakeComplete)
	most := c.State().MaxDatagram
	require.Positive(l, most)
	var asking sync.WaitGroup
	asking.Go(func() { // until the handshake is complete, or the connection has ended
		for !c.State().HandshakeComplete && c.Context().Err() == nil {
			time.Sleep(oneWay / 20)
		}
	})
	require.NoError(l, c.Handshake(l.ctx))
	asking.Wait()
	require.GreaterOrEqual(l, c.State().MaxDatagram, most)
}

func testResume(l *lab) {
	p, _ := l.resumable(false, setup{})
	p.dial(l)
	require.True(l, p.client.State().TLS.DidResume, "client")
	require.True(l, p.server.State().TLS.DidResume, "server")
	require.NotEmpty(l, p.client.State().TLS.PeerCertificates, "the peer's certificate is known still")
	p.echo(l)

	p.clientCfg.Sessions = nil
	p.dial(l)
	require.False(l, p.client.State().TLS.DidResume, "without Sessions")
	p.echo(l)
}

func testResumeFile(l *lab) {
	p, sessions := l.resumable(false, setup{})
	b := sessions.Take("localhost")
	require.NotEmpty(l, b, "the key is the server's name")
	file := filepath.Join(l.TempDir(), "session")
	require.NoError(l, os.WriteFile(file, b, 0o600))
	require.NoError(l, p.clientEP.Close())

	// As a new process would: another socket, endpoint and cache.
	b, err := os.ReadFile(file)
	require.NoError(l, err)
	fresh := newSessions()
	fresh.Put("localhost", b)
	p.clientEP = l.open(l.client, l.clientSocket(), nil)
	p.clientCfg = l.clientConfig()
	p.clientCfg.Sessions = fresh
	p.dial(l)
	require.True(l, p.client.State().TLS.DidResume)
	p.echo(l)
}

// What is not a session, or was damaged, leads to a full handshake.
func testResumeGarbage(l *lab) {
	p, sessions := l.resumable(false, setup{})
	good := sessions.Take("localhost")
	half := good[:len(good)/2]
	for _, b := range [][]byte{{}, {0}, noiseBytes(500), half} {
		bad := newSessions()
		bad.Put("localhost", bytes.Clone(b))
		p.clientCfg = l.clientConfig()
		p.clientCfg.Sessions = bad
		p.dial(l)
		require.False(l, p.client.State().TLS.DidResume)
		p.echo(l)
	}
}

func testSessionsOnce(l *lab) {
	p, sessions := l.resumable(false, setup{})
	only := sessions.Take("localhost")
	for len(sessions.Take("localhost")) > 0 { // the server may have sent several
	}
	once := &takeOnly{session: only}
	p.clientCfg.Sessions = once
	p.dial(l)
	require.True(l, p.client.State().TLS.DidResume)
	p.dial(l)
	require.False(l, p.client.State().TLS.DidResume, "the session was taken")
	require.Equal(l, "localhost", once.server)
}

// takeOnly is a SessionCache that forgets what is put.
type takeOnly struct {
	mu      sync.Mutex
	session []byte
	server  string
}

func (c *takeOnly) Take(server string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.session
	c.session, c.server = nil, server
	return b
}

func (c *takeOnly) Put(string, []byte) {}

func testZeroRTT(l *lab) {
	p, _ := l.resumable(true, setup{})
	seen := l.net.Capture()
	start := time.Now()
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err)
	require.Zero(l, time.Since(start), "Dial needs no packet of the server")
	require.False(l, c.State().HandshakeComplete)
	s, err := c.OpenStream(l.ctx)
	require.NoError(l, err)
	_, err = s.Write([]byte("early question"))
	require.NoError(l, err)
	require.NoError(l, s.Close())

	server, err := p.ln.Accept(l.ctx)
	require.NoError(l, err)
	r, err := server.AcceptStream(l.ctx)
	require.NoError(l, err)
	got, err := io.ReadAll(r)
	require.NoError(l, err)
	require.Equal(l, "early question", string(got))
	require.Less(l, time.Since(start), 2*oneWay, "half a round trip")
	require.False(l, server.State().HandshakeComplete, "it may be a replay")
	client := addrPort(p.clientPC.LocalAddr())
	early := 0
	for _, pkt := range seen.Packets() {
		if pkt.From != client {
			continue
		}
		require.Equal(l, start, pkt.Time, "only the first flight so far")
		for _, k := range longPackets(pkt.Data) {
			if k == zeroRTTPacket {
				early++
			}
		}
	}
	require.Positive(l, early, "0-RTT packets in the first flight")

	_, err = r.Write([]byte("answer"))
	require.NoError(l, err)
	require.NoError(l, r.Close())
	got, err = io.ReadAll(s)
	require.NoError(l, err)
	require.Equal(l, "answer", string(got))
	require.NoError(l, c.Handshake(l.ctx))
	require.NoError(l, server.Handshake(l.ctx))
	for _, c := range []transport.Conn{c, server} {
		require.True(l, c.State().EarlyData)
		require.True(l, c.State().HandshakeComplete)
		require.True(l, c.State().TLS.DidResume)
	}
	require.EqualValues(l, 0, s.StreamID())
	echo(l, c, server)
}

func testZeroRTTUni(l *lab) {
	p, _ := l.resumable(true, setup{})
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err)
	for range 3 {
		s, err := c.OpenUniStream(l.ctx)
		require.NoError(l, err)
		_, err = s.Write(noiseBytes(1500)) // more than a packet in all
		require.NoError(l, err)
		require.NoError(l, s.Close())
	}
	server, err := p.ln.Accept(l.ctx)
	require.NoError(l, err)
	for range 3 {
		r, err := server.AcceptUniStream(l.ctx)
		require.NoError(l, err)
		got, err := io.ReadAll(r)
		require.NoError(l, err)
		require.Equal(l, noiseBytes(1500), got)
	}
	require.NoError(l, c.Handshake(l.ctx))
	require.True(l, c.State().EarlyData)
}

func testZeroRTTDefault(l *lab) {
	p, _ := l.resumable(false, setup{})
	seen := l.net.Capture()
	p.dial(l)
	require.True(l, p.client.State().TLS.DidResume)
	require.True(l, p.client.State().HandshakeComplete)
	p.echo(l)
	require.False(l, p.client.State().EarlyData)
	require.False(l, p.server.State().EarlyData)
	require.Zero(l, seenKinds(seen, p.clientPC.LocalAddr())[zeroRTTPacket])
	require.NoError(l, p.clientEP.Close())
	require.NoError(l, p.serverEP.Close())
	if !l.server.Features().EarlyData {
		return
	}
	// The server allows it, the client does not ask.
	p, _ = l.resumable(true, setup{client: func(c *transport.Config) { c.EarlyData = false }})
	seen = l.net.Capture()
	p.dial(l)
	require.True(l, p.client.State().HandshakeComplete)
	p.echo(l)
	require.False(l, p.client.State().EarlyData)
	require.Zero(l, seenKinds(seen, p.clientPC.LocalAddr())[zeroRTTPacket])
}

func testZeroRTTFirstTime(l *lab) {
	early := func(c *transport.Config) { c.EarlyData = true }
	p := l.listen(setup{server: early, client: early})
	seen := l.net.Capture()
	for _, s := range []transport.SessionCache{nil, newSessions()} {
		p.clientCfg.Sessions = s
		start := time.Now()
		p.dial(l)
		require.GreaterOrEqual(l, time.Since(start), 2*oneWay)
		require.True(l, p.client.State().HandshakeComplete, "no session, no early data")
		require.NoError(l, p.client.Handshake(l.ctx))
		p.echo(l)
		require.False(l, p.client.State().EarlyData)
	}
	require.Zero(l, seenKinds(seen, p.clientPC.LocalAddr())[zeroRTTPacket])
}

// refusal is a pair whose server will refuse the early data of the next Dial.
func (l *lab) refusal(server func(*transport.Config)) *pair {
	l.Helper()
	p, _ := l.resumable(true, setup{})
	require.NoError(l, p.ln.Close())
	cfg := l.serverConfig() // new ticket keys: the old session means nothing
	cfg.EarlyData = true
	if server != nil {
		server(cfg)
	}
	var err error
	p.ln, err = p.serverEP.Listen(cfg)
	require.NoError(l, err)
	return p
}

func testRejection(l *lab, p *pair) {
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err)
	old, err := c.OpenStream(l.ctx)
	require.NoError(l, err)
	_, err = old.Write([]byte("order one"))
	require.NoError(l, err)
	require.NoError(l, old.Close())
	require.ErrorIs(l, c.Handshake(l.ctx), transport.ErrEarlyDataRejected)
	require.ErrorIs(l, c.Handshake(l.ctx), transport.ErrEarlyDataRejected, "again")
	_, err = old.Read(make([]byte, 1))
	require.ErrorIs(l, err, transport.ErrEarlyDataRejected, "Read on a dead stream")
	_, err = old.Write([]byte("x"))
	require.Error(l, err, "Write on a dead stream")
	require.NoError(l, c.Context().Err())
	require.True(l, c.State().HandshakeComplete)
	require.False(l, c.State().EarlyData)

	// The application sends it again; the server sees it once.
	s, err := c.OpenStream(l.ctx)
	require.NoError(l, err)
	require.EqualValues(l, 0, s.StreamID(), "as good as new")
	_, err = s.Write([]byte("order two"))
	require.NoError(l, err)
	require.NoError(l, s.Close())
	server, err := p.ln.Accept(l.ctx)
	require.NoError(l, err)
	require.NoError(l, server.Handshake(l.ctx))
	r, err := server.AcceptStream(l.ctx)
	require.NoError(l, err)
	got, err := io.ReadAll(r)
	require.NoError(l, err)
	require.Equal(l, "order two", string(got), "the refused bytes never reach the application")
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	_, err = server.AcceptStream(ctx)
	require.ErrorIs(l, err, context.DeadlineExceeded, "nothing arrives twice")
	require.False(l, server.State().EarlyData)
	echo(l, c, server)
	echo(l, server, c)
	u, ur := openUni(l, c, server)
	require.EqualValues(l, 2, u.StreamID())
	require.EqualValues(l, 2, ur.StreamID())
}

func testZeroRTTRejected(l *lab) { testRejection(l, l.refusal(nil)) }

func testZeroRTTNotEnabled(l *lab) {
	testRejection(l, l.refusal(func(c *transport.Config) { c.EarlyData = false }))
}

func testZeroRTTHandshake(l *lab) {
	p, _ := l.resumable(true, setup{})
	// The server hears the first flight and nothing more.
	client := addrPort(p.clientPC.LocalAddr())
	var start time.Time
	l.net.Filter(func(pkt Packet) Verdict {
		return Verdict{Drop: pkt.From == client && pkt.Time.After(start)}
	})
	start = time.Now()
	c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err)
	s, err := c.OpenStream(l.ctx)
	require.NoError(l, err)
	_, err = s.Write([]byte("maybe a replay"))
	require.NoError(l, err)
	server, err := p.ln.Accept(l.ctx)
	require.NoError(l, err)
	r, err := server.AcceptStream(l.ctx)
	require.NoError(l, err)
	_, err = io.ReadFull(r, make([]byte, 14))
	require.NoError(l, err)
	waiting := async(func() error { return server.Handshake(l.ctx) })
	ctx, cancel := context.WithTimeout(l.ctx, 2*time.Second)
	defer cancel()
	require.ErrorIs(l, server.Handshake(ctx), context.DeadlineExceeded)
	require.Empty(l, waiting)
	require.False(l, server.State().HandshakeComplete)
	l.net.Filter(nil)
	require.NoError(l, <-waiting)
	require.True(l, server.State().HandshakeComplete)
	require.NoError(l, c.Handshake(l.ctx))
	echo(l, c, server)
}

func testZeroRTTLossy(l *lab) {
	p, sessions := l.resumable(true, setup{server: patient(time.Hour), client: patient(time.Hour)})
	sim(p.clientPC).Links(Link{Latency: oneWay, Loss: 0.2}, Link{Loss: 0.2})
	used := 0
	for range 5 {
		c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		require.NoError(l, err)
		s, err := c.OpenStream(l.ctx)
		require.NoError(l, err)
		wrote := async(func() error {
			if _, err := s.Write(noiseBytes(20_000)); err != nil {
				return err
			}
			return s.Close()
		})
		refused := c.Handshake(l.ctx)
		server, err := p.ln.Accept(l.ctx)
		require.NoError(l, err)
		if errors.Is(refused, transport.ErrEarlyDataRejected) {
			// RFC 8446, Section 8.3: what comes ten seconds late may be a replay.
			<-wrote // it may have been taken before
			sessions.wait(l)
			require.NoError(l, c.CloseWithError(0, ""))
			l.settle(time.Second)
			continue
		}
		require.NoError(l, refused)
		r, err := server.AcceptStream(l.ctx)
		require.NoError(l, err)
		got, err := io.ReadAll(r)
		require.NoError(l, err)
		require.NoError(l, <-wrote)
		require.True(l, bytes.Equal(noiseBytes(20_000), got))
		if c.State().EarlyData {
			used++
		}
		echo(l, c, server)
		sessions.wait(l) // for the next round: the packet that brings it may be lost a few times
		require.NoError(l, c.CloseWithError(0, ""))
		l.settle(time.Second)
	}
	require.Positive(l, used)
}

func testTokenReuse(l *lab) {
	p, _ := l.resumable(false, setup{serverOpts: &transport.Options{RequireRetry: always}})
	retries := p.serverEP.Stats().Retries
	require.Positive(l, retries)
	seen := l.net.Capture()
	start := time.Now()
	p.dial(l)
	require.Zero(l, seenKinds(seen, p.serverPC.LocalAddr())[retryPacket], "the token of the first connection is proof enough")
	require.Less(l, time.Since(start), 4*oneWay, "no round trip more")
	p.echo(l)
	require.Equal(l, retries, p.serverEP.Stats().Retries)
}
