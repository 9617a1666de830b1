package transporttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

const (
	alpn       = "test"
	serverAddr = "192.0.2.1:4433"
	clientAddr = "198.51.100.1:50000"
	oneWay     = 10 * time.Millisecond // latency of a direction, unless a case sets another

	// patience bounds every wait over loopback UDP, where time is that of a
	// machine which may be busy. It is not reached unless something is broken.
	patience = 5 * time.Minute
)

// access is the link of a socket, towards the network. The other direction of
// a lab's sockets adds nothing unless a case says so: a round trip is 2*oneWay.
var access = Link{Latency: oneWay}

// A lab is what a case works with: two engines, a network between them, and
// certificates. It is a require.TestingT. What it opens it closes after the
// case, and fails the case if that fails.
type lab struct {
	*testing.T
	ctx            context.Context // ends long after any case should
	client, server transport.Transport
	ca             *testcert.CA
	net            *Network // nil over loopback UDP
	sockets        int      // opened by clientSocket
}

func newLab(t *testing.T, client, server transport.Transport, simulated bool) *lab {
	limit := patience
	if simulated {
		limit = 24 * time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	l := &lab{T: t, ctx: ctx, client: client, server: server, ca: testcert.NewCA()}
	if simulated {
		l.net = NewNetwork(1)
		t.Cleanup(l.net.Close)
	}
	return l
}

// serverSocket opens the socket that servers use by default.
func (l *lab) serverSocket() net.PacketConn { return l.socket(serverAddr) }

// clientSocket opens a socket of its own for each call.
func (l *lab) clientSocket() net.PacketConn {
	l.sockets++
	return l.socket(netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(49999+l.sockets)).String())
}

func (l *lab) socket(addr string) net.PacketConn {
	l.Helper()
	if l.net != nil {
		return l.net.Socket(addr, access, Link{})
	}
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(l, err)
	return pc
}

// open starts an engine on pc and closes it after the case.
func (l *lab) open(e transport.Transport, pc net.PacketConn, opts *transport.Options) transport.Endpoint {
	l.Helper()
	ep, err := e.Open(pc, opts)
	require.NoError(l, err)
	l.Cleanup(func() {
		if err := ep.Close(); err != nil {
			l.Errorf("Endpoint.Close: %v", err)
		}
	})
	return ep
}

// serverConfig and clientConfig return configurations that fit each other.
func (l *lab) serverConfig() *transport.Config {
	return l.config(l.ca.Server("localhost", alpn))
}

func (l *lab) clientConfig() *transport.Config {
	return l.config(l.ca.Client("localhost", alpn))
}

// config has the contract's defaults, but for the timeouts of real time.
func (l *lab) config(tls *tls.Config) *transport.Config {
	c := &transport.Config{TLS: tls}
	if l.net == nil {
		patient(patience)(c)
	}
	return c
}

// patient bounds the handshake and idleness by d, for links on which they may take
// longer than by default.
func patient(d time.Duration) func(*transport.Config) {
	return func(c *transport.Config) { c.HandshakeTimeout, c.IdleTimeout = d, d }
}

// A setup changes what connect does. The zero setup changes nothing.
type setup struct {
	server, client         func(*transport.Config)
	serverOpts, clientOpts *transport.Options
}

// A pair is an established connection, seen from both sides.
type pair struct {
	client, server     transport.Conn
	clientEP, serverEP transport.Endpoint
	ln                 transport.Listener
	clientPC, serverPC net.PacketConn
	clientCfg          *transport.Config
}

// connect opens both endpoints and a connection between them.
func (l *lab) connect(s setup) *pair {
	l.Helper()
	p := l.listen(s)
	p.dial(l)
	return p
}

// listen does what connect does before Dial.
func (l *lab) listen(s setup) *pair {
	l.Helper()
	p := &pair{serverPC: l.serverSocket(), clientPC: l.clientSocket(), clientCfg: l.clientConfig()}
	p.serverEP = l.open(l.server, p.serverPC, s.serverOpts)
	p.clientEP = l.open(l.client, p.clientPC, s.clientOpts)
	cfg := l.serverConfig()
	if s.server != nil {
		s.server(cfg)
	}
	if s.client != nil {
		s.client(p.clientCfg)
	}
	var err error
	p.ln, err = p.serverEP.Listen(cfg)
	require.NoError(l, err)
	return p
}

// dial connects once (more) and sets p.client and p.server.
func (p *pair) dial(l *lab) {
	l.Helper()
	p.client, p.server = p.more(l)
}

// more returns both ends of another connection.
func (p *pair) more(l *lab) (client, server transport.Conn) {
	l.Helper()
	client, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.NoError(l, err, "Dial")
	server, err = p.ln.Accept(l.ctx)
	require.NoError(l, err, "Accept")
	return client, server
}

// streams returns both ends of a new stream that the client opened.
func (p *pair) streams(l *lab) (c, s transport.Stream) {
	l.Helper()
	return openStream(l, p.client, p.server)
}

func openStream(l *lab, from, to transport.Conn) (near, far transport.Stream) {
	l.Helper()
	near, err := from.OpenStream(l.ctx)
	require.NoError(l, err, "OpenStream")
	_, err = near.Write([]byte{'!'})
	require.NoError(l, err, "Write")
	far, err = to.AcceptStream(l.ctx)
	require.NoError(l, err, "AcceptStream")
	_, err = io.ReadFull(far, make([]byte, 1))
	require.NoError(l, err, "Read")
	return near, far
}

func openUni(l *lab, from, to transport.Conn) (transport.SendStream, transport.ReceiveStream) {
	l.Helper()
	near, err := from.OpenUniStream(l.ctx)
	require.NoError(l, err, "OpenUniStream")
	_, err = near.Write([]byte{'!'})
	require.NoError(l, err, "Write")
	far, err := to.AcceptUniStream(l.ctx)
	require.NoError(l, err, "AcceptUniStream")
	_, err = io.ReadFull(far, make([]byte, 1))
	require.NoError(l, err, "Read")
	return near, far
}

// echo checks that a connection carries data both ways.
func (p *pair) echo(l *lab) {
	l.Helper()
	echo(l, p.client, p.server)
}

func echo(l *lab, from, to transport.Conn) {
	l.Helper()
	c, s := openStream(l, from, to)
	_, err := c.Write([]byte("ping"))
	require.NoError(l, err)
	require.NoError(l, c.Close())
	got, err := io.ReadAll(s)
	require.NoError(l, err)
	_, err = s.Write(got)
	require.NoError(l, err)
	require.NoError(l, s.Close())
	got, err = io.ReadAll(c)
	require.NoError(l, err)
	require.Equal(l, "ping", string(got))
}

// transfer sends n random bytes and checks that the same ones arrive.
func transfer(l *lab, from, to transport.Conn, n int) {
	l.Helper()
	w, r := openUni(l, from, to)
	sendAll(l, w, r, n)
}

func sendAll(l *lab, w transport.SendStream, r io.Reader, n int) {
	l.Helper()
	var sent [32]byte
	done := async(func() error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, h), noise(n)); err != nil {
			return err
		}
		h.Sum(sent[:0])
		return w.Close()
	})
	h := sha256.New()
	got, err := io.Copy(h, r)
	require.NoError(l, err, "after %d bytes", got)
	require.NoError(l, <-done)
	require.EqualValues(l, n, got)
	require.Equal(l, sent[:], h.Sum(nil), "SHA-256 of what was sent and received")
}

// noise returns n bytes that do not repeat.
func noise(n int) io.Reader {
	var seed [32]byte
	copy(seed[:], fmt.Sprint(n))
	return io.LimitReader(rand.NewChaCha8(seed), int64(n))
}

func noiseBytes(n int) []byte {
	b, err := io.ReadAll(noise(n))
	if err != nil {
		panic(err)
	}
	return b
}

// async runs f in a goroutine that ends with f.
func async(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

// serveEcho echoes every bidirectional stream of c until it ends.
// The wait group is done when all its goroutines are.
func serveEcho(c transport.Conn) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			s, err := c.AcceptStream(context.Background())
			if err != nil {
				return // the connection has ended
			}
			wg.Go(func() {
				if _, err := io.Copy(s, s); err != nil { // one direction was cancelled
					s.CancelRead(0)
					s.CancelWrite(0)
				}
				s.Close()
			})
		}
	})
	return &wg
}

// scale returns n, or less in a short test.
func scale(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}

// settle lets everything happen that needs no time to pass, and then lets d pass.
func (l *lab) settle(d time.Duration) {
	if l.net == nil {
		panic("settle needs virtual time")
	}
	time.Sleep(d)
	synctest.Wait()
}

// sim returns the simulated socket behind pc.
func sim(pc net.PacketConn) *Socket { return pc.(*Socket) }

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.UDPAddr).AddrPort() }

// cut makes a socket deaf and dumb.
func cut(pc net.PacketConn) { sim(pc).Links(Link{Cut: true}, Link{Cut: true}) }

// wantStream checks for a *StreamError.
func wantStream(l *lab, err error, code transport.ErrorCode, remote bool, op string) {
	l.Helper()
	var e *transport.StreamError
	require.ErrorAs(l, err, &e, op)
	require.Equal(l, code, e.Code, op)
	require.Equal(l, remote, e.Remote, "%s: Remote", op)
}

// wantApplication checks for an *ApplicationError, which also matches net.ErrClosed.
func wantApplication(l *lab, err error, code transport.ErrorCode, reason string, remote bool, op string) {
	l.Helper()
	var e *transport.ApplicationError
	require.ErrorAs(l, err, &e, op)
	require.Equal(l, transport.ApplicationError{Code: code, Reason: reason, Remote: remote}, *e, op)
	require.ErrorIs(l, err, net.ErrClosed, op)
	require.ErrorIs(l, err, &transport.ApplicationError{Code: code}, op)
}

// wantProtocol checks for a *ProtocolError, which also matches net.ErrClosed.
func wantProtocol(l *lab, err error, code uint64, remote bool, op string) {
	l.Helper()
	var e *transport.ProtocolError
	require.ErrorAs(l, err, &e, op)
	require.Equal(l, fmt.Sprintf("%#x", code), fmt.Sprintf("%#x", e.Code), "%s: %v", op, err)
	require.Equal(l, remote, e.Remote, "%s: Remote of %v", op, err)
	require.ErrorIs(l, err, net.ErrClosed, op)
}

// wantTimeout checks for ErrIdleTimeout or ErrHandshakeTimeout.
func wantTimeout(l *lab, err, want error, op string) {
	l.Helper()
	require.ErrorIs(l, err, want, op)
	var ne net.Error
	require.ErrorAs(l, err, &ne, op)
	require.True(l, ne.Timeout(), op)
	require.ErrorIs(l, err, net.ErrClosed, op)
}

// wantUnsupported checks for an *UnsupportedError of the engine.
func wantUnsupported(l *lab, err error, e transport.Transport, op string) {
	l.Helper()
	var u *transport.UnsupportedError
	require.ErrorAs(l, err, &u, op)
	require.ErrorIs(l, err, errors.ErrUnsupported, op)
	require.Equal(l, e.Name(), u.Engine, op)
	require.NotEmpty(l, u.What, op)
}

// ended waits for the end of c and returns the reason.
func ended(l *lab, c transport.Conn) error {
	l.Helper()
	select {
	case <-c.Context().Done():
		return context.Cause(c.Context())
	case <-l.ctx.Done():
		require.FailNow(l, "the connection did not end")
		return nil
	}
}

// memorySessions is a SessionCache.
type memorySessions struct {
	mu   sync.Mutex
	m    map[string][][]byte
	puts chan struct{} // capacity 1: Put was called
}

func newSessions() *memorySessions {
	return &memorySessions{m: map[string][][]byte{}, puts: make(chan struct{}, 1)}
}

func (m *memorySessions) Take(server string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.m[server]
	if len(list) == 0 {
		return nil
	}
	newest := list[len(list)-1]
	m.m[server] = list[:len(list)-1]
	return newest
}

func (m *memorySessions) Put(server string, session []byte) {
	m.mu.Lock()
	m.m[server] = append(m.m[server], session)
	m.mu.Unlock()
	select {
	case m.puts <- struct{}{}:
	default:
	}
}

// wait blocks until something is cached.
func (m *memorySessions) wait(l *lab) {
	l.Helper()
	select {
	case <-m.puts:
	case <-l.ctx.Done():
		require.FailNow(l, "the server gave the client no session")
	}
}

// A safeBuffer is a bytes.Buffer for several goroutines. It remembers Close.
type safeBuffer struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed int
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *safeBuffer) state() (text string, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String(), s.closed
}

func asError[E error](err error, target *E) bool { return errors.As(err, target) }

// tlsError is the code of a ProtocolError for a TLS alert
// (RFC 9001, Section 4.8).
func tlsError(a tls.AlertError) uint64 { return 0x100 + uint64(a) }
