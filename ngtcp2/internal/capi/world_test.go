//go:build ngtcp2 && cgo

package capi

import (
	"bytes"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/stretchr/testify/require"
)

// A world is a client and a server with a network between them, in virtual
// time. Nothing in it runs by itself: run does.
type world struct {
	t              testing.TB
	now            uint64
	rand           *rand.Rand
	delay          uint64                                // one way
	lose           func(from *peer, pkt []byte) bool     // nil: nothing is lost
	jitter         uint64                                // most that a packet comes later
	tap            func(from *peer, pkt []byte)          // sees what is sent
	arrived        func(to *peer, pkt []byte)            // sees what arrives
	rewrite        func(from *peer, p Path) (Path, bool) // the path on which it arrives
	client, server *peer
	queue          []flying
	buf            []byte
	key            *TokenKey // not nil: the server asks for a token
	noServer       bool
	accepted       func() // the server was made
	serverSettings Settings
	serverTLS      *TLSConfig
	closed         bool
}

type flying struct {
	at   uint64
	to   *peer
	path Path
	ecn  uint8
	pkt  []byte
}

// A peer is one side, and what has happened to it.
type peer struct {
	*Conn
	w        *world
	name     string
	events   []Event
	streams  map[int64]*half
	accepted []int64
	err      error
	hold     bool // read nothing
	state    TLSState
	count    map[EventType]int
	cids     [][]byte
	onEvent  func(Event)
}

// A half is a stream as one side sees it.
type half struct {
	*Stream
	got      []byte
	n        int64
	discard  bool
	fin      bool
	closed   bool
	finished bool
	reset    *uint64
	stopped  *uint64
	pending  []byte // to be written
	finish   bool
	order    *[]int64 // of arrival, by stream
}

var (
	clientAddr = netip.MustParseAddrPort("192.0.2.1:4001")
	serverAddr = netip.MustParseAddrPort("192.0.2.2:443")
)

type testCallbacks struct {
	lines  []string
	verify func([][]byte) (uint8, bool)
	cert   *Certificate
	age    time.Duration // of the tickets that are brought
}

func (c *testCallbacks) VerifyPeer(chain [][]byte) (uint8, bool) {
	if c.verify != nil {
		return c.verify(chain)
	}
	return 0, true
}

func (c *testCallbacks) ClientCertificate(*CertificateRequest) (*Certificate, error) {
	return c.cert, nil
}
func (c *testCallbacks) TicketData() []byte                        { return nil }
func (c *testCallbacks) ResumeTicket([]byte) (time.Duration, bool) { return c.age + slack(), true }
func (c *testCallbacks) KeyLog(line string)                        { c.lines = append(c.lines, line) }

// slack is added to the age of a ticket that a server is told. wolfSSL's client tells
// what the host's clock says, and its server takes what is from a second more to eleven
// less: the next handshake may be late on a busy machine.
func slack() time.Duration {
	if isOpenSSL() {
		return 0
	}
	return 8 * time.Second
}

func testSettings() Settings {
	return Settings{
		CongestionControl: Cubic, Now: second, HandshakeTimeout: 10 * second, IdleTimeout: 30 * second,
		KeepAlive: NoExpiry, MaxStreams: 100, MaxUniStreams: 100,
		StreamWindow: 1 << 20, ConnWindow: 2 << 20, MaxStreamWindow: 6 << 20, MaxConnWindow: 12 << 20,
		SendBuffer: 4 << 20, MaxDatagramFrame: 65535, DatagramQueue: 32, MaxUDPPayload: 1452,
		ConnIDLen: 8, ResetKeySet: true,
	}
}

const (
	microsecond = uint64(1000)
	millisecond = 1000 * microsecond
	second      = 1000 * millisecond
)

var testCertificate = func() func(testing.TB) *Certificate {
	var cert *Certificate
	return func(t testing.TB) *Certificate {
		if cert == nil {
			s, _ := testcert.New("test")
			c, err := NewCertificate(s.Certificates[0].Certificate, nil, nil, s.Certificates[0].PrivateKey)
			require.NoError(t, err)
			cert = c
		}
		return cert
	}
}()

func id(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

type option func(w *world, client *Settings, o *ClientOptions, ct *TLSConfig)

// newWorld makes both sides, without a packet sent.
func newWorld(t testing.TB, opts ...option) *world {
	w := &world{t: t, now: second, rand: rand.New(rand.NewPCG(1, 2)), delay: 10 * millisecond}
	w.serverSettings = testSettings()
	w.serverTLS = &TLSConfig{
		Server: true, NextProtos: []string{"test"}, Certificate: testCertificate(t), Callbacks: &testCallbacks{},
		Curves: []uint16{uint16(tls.X25519)},
	}
	client := testSettings()
	ct := &TLSConfig{NextProtos: []string{"test"}, ServerName: "localhost", Callbacks: &testCallbacks{}, Curves: []uint16{uint16(tls.X25519)}}
	o := &ClientOptions{Path: Path{clientAddr, serverAddr}, DCID: id(w.rand, 12), SCID: id(w.rand, 8)}
	w.server = &peer{w: w, name: "server", streams: map[int64]*half{}, count: map[EventType]int{}}
	w.client = &peer{w: w, name: "client", streams: map[int64]*half{}, count: map[EventType]int{}}
	for _, opt := range opts {
		opt(w, &client, o, ct)
	}
	if w.buf == nil {
		w.buf = make([]byte, MinWriteBuffer)
	}
	c, err := NewClient(&client, o, ct)
	require.NoError(t, err)
	w.client.Conn = c
	t.Cleanup(w.close)
	return w
}

// connected returns a world whose handshake is done.
func connected(t testing.TB, opts ...option) *world {
	w := newWorld(t, opts...)
	w.handshake()
	return w
}

func (w *world) handshake() {
	w.t.Helper()
	w.until("handshake", func() bool {
		return w.client.count[HandshakeConfirmed] > 0 && w.server.count[HandshakeConfirmed] > 0
	})
}

func (w *world) close() {
	if w.closed {
		return
	}
	w.closed = true
	for _, p := range []*peer{w.client, w.server} {
		if p.Conn != nil {
			p.Free()
		}
	}
}

func (w *world) peer(from *peer) *peer {
	if from == w.client {
		return w.server
	}
	return w.client
}

// transmit puts a batch on its way, packet by packet.
func (w *world) transmit(from *peer, out Output, buf []byte) {
	for b := buf[:out.N]; len(b) > 0; {
		n := min(out.Segment, len(b))
		pkt := bytes.Clone(b[:n])
		b = b[n:]
		if w.tap != nil {
			w.tap(from, pkt)
		}
		if w.lose != nil && w.lose(from, pkt) {
			continue
		}
		path := Path{Local: out.Path.Remote, Remote: out.Path.Local}
		if w.rewrite != nil {
			var ok bool
			if path, ok = w.rewrite(from, path); !ok {
				continue
			}
		}
		f := flying{at: w.now + w.delay, to: w.peer(from), path: path, ecn: out.ECN, pkt: pkt}
		if w.jitter > 0 {
			f.at += w.rand.Uint64N(w.jitter)
		}
		i, _ := slices.BinarySearchFunc(w.queue, f, func(a, b flying) int {
			if a.at <= b.at {
				return -1
			}
			return 1
		})
		w.queue = slices.Insert(w.queue, i, f)
	}
}

// accept makes the server, as the engine would.
func (w *world) accept(f flying) {
	in, err := Accept(f.pkt)
	if err != nil || w.noServer {
		return
	}
	o := &ServerOptions{Path: f.path, Initial: in, SCID: id(w.rand, 8)}
	if w.key != nil {
		if len(in.Token) == 0 {
			n, err := WriteRetry(w.buf, w.key, &in, id(w.rand, 8), f.path.Remote, w.now)
			require.NoError(w.t, err)
			w.transmit(w.server, Output{N: n, Segment: n, Path: f.path}, w.buf)
			return
		}
		odcid, err := VerifyRetryToken(w.key, &in, f.path.Remote, 10*second, w.now)
		require.NoError(w.t, err)
		o.OriginalDCID, o.Token, o.TokenKind, o.SCID = odcid, in.Token, TokenRetry, in.DCID
	}
	s := w.serverSettings
	s.Now = w.now
	if w.server.Conn, err = NewServer(&s, o); err != nil {
		w.server.err = err
		return
	}
	if w.accepted != nil {
		w.accepted()
	}
}

// flush sends what p has to send.
func (w *world) flush(p *peer) {
	if p.Conn == nil || p.err != nil {
		return
	}
	for {
		p.drain()
		out, err := p.WritePackets(w.buf, w.now)
		if err != nil {
			p.err = err
			p.drain()
			return
		}
		if out.N == 0 {
			break
		}
		w.transmit(p, out, w.buf)
	}
	p.drain()
}

// step does the next thing there is to do, and is false if there is none.
func (w *world) step() bool { return w.stepUntil(NoExpiry - 1) }

// stepUntil is step, for what happens before a time.
func (w *world) stepUntil(limit uint64) bool {
	w.flush(w.client)
	w.flush(w.server)
	at := uint64(NoExpiry)
	if len(w.queue) > 0 {
		at = w.queue[0].at
	}
	for _, p := range []*peer{w.client, w.server} {
		if p.Conn != nil && p.err == nil {
			at = min(at, p.Expiry())
		}
	}
	if at > limit {
		return false
	}
	w.now = max(w.now, at)
	for len(w.queue) > 0 && w.queue[0].at <= w.now {
		f := w.queue[0]
		w.queue = slices.Delete(w.queue, 0, 1)
		if w.arrived != nil {
			w.arrived(f.to, f.pkt)
		}
		if f.to == w.server && f.to.Conn == nil {
			w.accept(f)
		}
		if f.to.Conn == nil || f.to.err != nil {
			continue
		}
		f.to.err = f.to.ReadPackets(f.path, f.ecn, f.pkt, 0, w.now)
		f.to.drain()
	}
	for _, p := range []*peer{w.client, w.server} {
		if p.Conn != nil && p.err == nil && p.Expiry() <= w.now {
			p.err = p.HandleExpiry(w.now)
			p.drain()
		}
	}
	return true
}

// until runs until what is awaited has happened.
func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	limit := w.now + 120*second
	for i := 0; !done(); i++ {
		if !w.step() || w.now > limit || i > 2e6 {
			require.FailNow(w.t, "waited in vain", "%s: client %v, server %v, now %v", what, w.client.err, w.server.err, w.now)
		}
	}
}

// wait runs for a time.
func (w *world) wait(d uint64) {
	end := w.now + d
	for w.stepUntil(end) {
	}
	w.now = max(w.now, end)
}

// drain handles events as an engine would.
func (p *peer) drain() {
	for again := true; again; {
		again = false
		events := slices.Clone(p.Events())
		p.ClearEvents()
		for i := range events {
			again = true
			p.handle(events[i])
		}
	}
	for _, h := range p.streams {
		h.push()
	}
}

func (p *peer) handle(ev Event) {
	p.count[ev.Type]++
	p.events = append(p.events, ev)
	h := p.streams[ev.Stream]
	switch ev.Type {
	case ClientHello:
		p.err = p.StartServerTLS(p.w.serverTLS, p.w.now)
	case HandshakeCompleted:
		p.state = p.TLSState()
	case StreamOpened:
		if h == nil {
			h = &half{Stream: p.AddRemoteStream(ev.Stream)}
			p.streams[ev.Stream] = h
		}
		p.accepted = append(p.accepted, ev.Stream)
	case Readable:
		if !p.hold {
			h.read()
		}
	case StreamReset:
		h.reset = &ev.Code
	case StopSending:
		h.stopped = &ev.Code
	case StreamFinished:
		h.finished = true
	case StreamClosed:
		h.closed = true
		if !p.hold {
			h.read()
			h.FreeStream()
		}
	case ConnIDAdded:
		p.cids = append(p.cids, slices.Clone(ev.CID[:ev.CIDLen]))
	}
	if p.onEvent != nil {
		p.onEvent(ev)
	}
}

func (h *half) read() {
	list := h.RecvChunks()
	n := 0
	for ch := list; ch != nil; ch = ch.Next() {
		b := ch.Bytes()
		n += len(b)
		if !h.discard {
			h.got = append(h.got, b...)
		}
		if h.order != nil {
			*h.order = append(*h.order, h.ID())
		}
	}
	h.n += int64(n)
	h.Consumed(n)
	h.conn.Recycle(list)
	if h.RecvFinished() {
		h.fin = true
	}
}

// push writes what is pending, as far as it goes.
func (h *half) push() {
	if len(h.pending) > 0 {
		n := h.Write(h.pending)
		h.pending = h.pending[n:]
	}
	if len(h.pending) == 0 && h.finish {
		h.finish = false
		h.Finish()
	}
}

func (h *half) send(b []byte, finish bool) {
	h.pending, h.finish = append(h.pending, b...), finish
	h.push()
}

func (p *peer) open(uni bool) *half {
	p.w.t.Helper()
	s, err := p.OpenStream(uni)
	require.NoError(p.w.t, err)
	require.NotNil(p.w.t, s)
	h := &half{Stream: s}
	p.streams[s.ID()] = h
	return h
}

func payload(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// checkMemory fails if C memory does not come back to what it was.
func checkMemory(t testing.TB) {
	testCertificate(t)
	runtime.GC()
	was := Memory()
	t.Cleanup(func() { require.Equal(t, was, Memory(), "bytes of C memory") })
}
