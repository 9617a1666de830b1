//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// clientDCIDLen is how long the first destination connection ID of a client is:
// it must not be guessed (RFC 9000, Section 7.2).
const clientDCIDLen = 18

// A conn is a connection.
//
// Whoever holds mu owns the capi.Conn: the handshake's goroutine while there is
// one (see handshakeState), then the socket's loop and the application's calls in
// turn. Each does its work with the library and sends what came of it before it
// lets go, so that no goroutine needs to wait for another.
//
// The end of a connection has two steps. The first to call end decides the
// reason: from then on every call returns it. It needs no lock, so that it does
// not have to wait for a handshake whose callback into the application blocks.
// Whoever has mu then, or gets it, says goodbye and frees everything: tearDown,
// which unlock calls.
type conn struct {
	timer  // its expiry is capi.Conn's
	routes // the endpoint's

	ep       *endpoint
	cfg      *connConfig
	listener *listener // a server's
	client   bool

	id      []byte        // the client's first destination connection ID
	peerID  []byte        // a server's: the client's first source connection ID
	retried bool          // a server's: the client has answered a Retry
	ready   chan struct{} // a client's: closed when Dial may return
	tls     atomic.Pointer[tlsState]

	ctx    context.Context // done at the end
	cancel context.CancelCauseFunc

	ending   atomic.Pointer[ending]         // the reason, once there is one
	torn     atomic.Bool                    // tearDown has begun
	isReady  atomic.Bool                    // ready is closed
	hs       atomic.Pointer[handshakeState] // nil when the loop drives the connection
	complete atomic.Bool                    // the handshake is
	rejected atomic.Bool                    // early data was refused
	path     atomic.Pointer[capi.Path]      // the validated path in use
	last     atomic.Pointer[snapshot]       // when mu cannot be had, and after the end
	work     worker                         // calls into the application's code

	mu         sync.Mutex
	cc         *capi.Conn          // nil after the end, and in a server until drive runs
	first      *capi.ServerOptions // what a server's cc is made from, until then
	sock       socket              // in use
	blocked    bool                // sock takes no packets
	owing      bool                // answer will flush
	soon       bool                // flushSoon will
	exchanges  int                 // bidirectional streams in counts.open
	gathering  bool                // mu is held for long: see wakeLater
	waking     []*waiter           // see wakeLater
	armed      uint64              // the expiry that sock's loop knows, 0 for none
	early      bool                // the application can use the connection before the handshake is complete
	hello      bool                // a server's: the client's first message is complete
	delivered  bool                // the listener has it
	supplying  bool                // connection IDs are being made
	confirmed  bool                // the handshake is (RFC 9001, Section 4.1.2)
	confirming chan struct{}       // closed when it is; nil if nobody waits
	qlog       *qlogFile
	extra      *migration     // nil unless Migrate is under way
	abandoned  netip.AddrPort // the local address of a path that was given up
	own        socket         // that Migrate has given to this connection alone, or nil

	streams   map[int64]*stream
	opening   [2]openers  // by kind: those who wait for a stream
	accepting [2]arrivals // by kind: the peer's streams
	counts    streamCounts

	datagram waiter
}

// Kinds of streams, as indexes.
const (
	bidi = 0
	uni  = 1
)

// An ending is why a connection has ended, and what the peer is told.
type ending struct {
	reason error
	kind   capi.CloseKind
	silent bool // the peer is told nothing
	keeps  bool // what has arrived stays readable
	forget bool // and may try again at once
	code   uint64
	text   string
}

func newConn(e *endpoint, s socket, cfg *connConfig) *conn {
	c := &conn{ep: e, cfg: cfg, sock: s}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.expiry.Store(capi.NoExpiry)
	c.armed = capi.NoExpiry
	return c
}

// settings are the connection's, with those of the endpoint.
func (c *conn) settings(qlog bool) *capi.Settings {
	s := c.cfg.settings
	c.ep.connSettings(&s)
	s.QLog = qlog
	return &s
}

// newClientConn starts a connection to remote. It calls the application; the
// caller holds no lock, and waits for ready.
func newClientConn(e *endpoint, s socket, remote netip.AddrPort, cfg *connConfig) (*conn, error) {
	c := newConn(e, s, cfg)
	c.client = true
	c.ready = make(chan struct{})
	c.id = make([]byte, clientDCIDLen)
	rand.Read(c.id)
	c.path.Store(&capi.Path{Local: s.localAddr(), Remote: remote})
	scid, err := e.newConnID()
	if err != nil {
		return nil, err
	}
	conf, ts := cfg.clientTLS(c)
	c.tls.Store(ts)
	c.qlog = c.openQLog()
	c.cc, err = capi.NewClient(c.settings(c.qlog != nil), &capi.ClientOptions{
		Path: capi.Path{Local: localFor(s, remote), Remote: remote}, DCID: c.id, SCID: scid,
		Token:       e.tokens.take(c.tokensOf(ts)),
		EarlyParams: ts.earlyParams,
	}, conf)
	if err != nil {
		c.qlog.close()
		return nil, err
	}
	ts.attach(c.cc.TLSState)
	c.makeIDs(c.cc)
	if !e.addConnID(c, scid) {
		c.cc.Free()
		c.qlog.close()
		return nil, errDuplicateID
	}
	return c, c.start()
}

// newServerConn starts a connection that a client asks for. It is called by the
// loop, which makes the entries in the endpoint's tables and then passes the
// packet to receive. What o refers to is copied.
func newServerConn(e *endpoint, s socket, l *listener, o *capi.ServerOptions) (*conn, error) {
	c := newConn(e, s, l.cfg)
	c.listener = l
	opts := *o
	opts.SCID, opts.OriginalDCID, opts.Token = clone(o.SCID), clone(o.OriginalDCID), clone(o.Token)
	opts.Initial.DCID, opts.Initial.SCID, opts.Initial.Token = clone(o.Initial.DCID), clone(o.Initial.SCID), clone(o.Initial.Token)
	c.path.Store(&capi.Path{Local: o.Path.Local, Remote: o.Path.Remote})
	c.id, c.peerID = opts.Initial.DCID, opts.Initial.SCID
	c.retried = opts.TokenKind == capi.TokenRetry
	if len(opts.OriginalDCID) > 0 {
		c.id = opts.OriginalDCID
	}
	c.first = &opts
	return c, c.start()
}

// start lets a goroutine drive the connection until its handshake is over.
func (c *conn) start() error {
	h := newHandshake(&c.ep.waiting)
	c.hs.Store(h)
	if c.ep.group.run(func() { c.drive(h) }) {
		return nil
	}
	c.hs.Store(nil)
	c.end(&ending{reason: errEndpointClosed, silent: true})
	c.settle()
	return errEndpointClosed
}

// begin makes a server's capi.Conn. It calls the application: no lock is held.
func (c *conn) begin() {
	qlog := c.openQLog()
	cc, err := capi.NewServer(c.settings(qlog != nil), c.first)
	c.first = nil
	if err == nil {
		c.makeIDs(cc)
	}
	c.mu.Lock()
	late := c.torn.Load() // everything else is closed
	if !late {
		c.qlog = qlog
	}
	switch {
	case err != nil:
		c.end(&ending{reason: localError(err), silent: true, forget: true})
	case c.reason() != nil:
		cc.Free()
	default:
		c.cc = cc
	}
	c.unlock()
	if late && qlog != nil {
		qlog.w.Close()
	}
}

func clone(b []byte) []byte { return append([]byte(nil), b...) }

// reason returns why the connection has ended, or nil.
func (c *conn) reason() error {
	if e := c.ending.Load(); e != nil {
		return e.reason
	}
	return nil
}

// end ends the connection, unless it has ended. The caller holds mu, or calls
// settle.
func (c *conn) end(e *ending) bool {
	if !c.ending.CompareAndSwap(nil, e) {
		return false
	}
	c.cancel(e.reason)
	c.announceReady()
	return true
}

// announceReady lets Dial go on.
func (c *conn) announceReady() {
	if c.ready != nil && !c.isReady.Swap(true) {
		close(c.ready)
	}
}

// enter takes mu. While there is a handshake, the application's callbacks run
// with mu held and may take long: then enter gives up when done is closed or the
// connection has ended, and returns false.
func (c *conn) enter(done <-chan struct{}) bool {
	if h := c.hs.Load(); h != nil {
		return c.enterHandshake(h, done)
	}
	c.mu.Lock()
	return true
}

// enterBefore is enter for a call that d bounds.
func (c *conn) enterBefore(d *deadline) error {
	if h := c.hs.Load(); h != nil {
		if !c.enterHandshake(h, d.done()) {
			return c.reasonOr(os.ErrDeadlineExceeded)
		}
		return nil
	}
	c.mu.Lock()
	return nil
}

func (c *conn) enterHandshake(h *handshakeState, done <-chan struct{}) bool {
	select {
	case h.gate <- struct{}{}:
	default:
		select {
		case h.gate <- struct{}{}:
		case <-done:
			return false
		case <-c.ctx.Done():
			return false
		}
	}
	c.mu.Lock()
	<-h.gate
	return true
}

// reasonOr returns why the connection has ended, or err if it has not.
func (c *conn) reasonOr(err error) error {
	if r := c.reason(); r != nil {
		return r
	}
	return err
}

// lock takes mu unless the connection has ended.
func (c *conn) lock() error {
	if !c.enter(nil) {
		return c.reason()
	}
	return c.alive()
}

// lockFor is lock for a call that ctx bounds.
func (c *conn) lockFor(ctx context.Context) error {
	if !c.enter(ctx.Done()) {
		return c.reasonOr(ctx.Err())
	}
	return c.alive()
}

// alive gives mu back if the connection has ended.
func (c *conn) alive() error {
	if r := c.reason(); r != nil {
		c.unlock()
		return r
	}
	return nil
}

// lockBriefly takes mu, unless a callback of the handshake may be running, for
// whose end nobody should wait.
func (c *conn) lockBriefly() bool {
	if c.complete.Load() || c.hs.Load() == nil {
		c.mu.Lock()
		return true
	}
	return c.mu.TryLock()
}

// unlock gives mu back, and frees what an ended connection holds.
func (c *conn) unlock() {
	c.mu.Unlock()
	c.settle()
}

// settle tears an ended connection down, if nobody holds mu: whoever does,
// comes here after.
func (c *conn) settle() {
	for c.ending.Load() != nil && !c.torn.Load() && c.mu.TryLock() {
		c.tearDown()
		c.mu.Unlock()
	}
}

// tearDown says goodbye and frees everything. The caller holds mu.
func (c *conn) tearDown() {
	if c.torn.Swap(true) {
		return
	}
	end := c.ending.Load()
	var goodbye []byte
	repeat := time.Duration(0)
	if c.cc != nil {
		now := c.ep.now()
		if !end.silent {
			goodbye = c.sayGoodbye(end, now)
		}
		if !end.forget {
			repeat = 3 * time.Duration(c.cc.PTO()) // RFC 9000, Section 10.2
		}
	}
	c.sock.forget(c)
	c.endStreams(end)
	if c.cc != nil {
		c.keepSnapshot()
		c.flushQLog()
		c.cc.Free()
		c.cc = nil
		c.ep.trimmer.freed()
	}
	c.qlog.close()
	if c.client {
		c.cfg.close() // no other connection has it
	}
	c.datagram.wake()
	if m := c.extra; m != nil {
		m.abort(end.reason)
		c.extra = nil
	}
	if c.own != nil {
		c.dropSocket(c.own)
		c.own = nil
	}
	// Endpoint.Close waits for connections until here.
	c.ep.connEnded(c, nil, goodbye, repeat)
}

// sayGoodbye sends CONNECTION_CLOSE and returns the packet.
func (c *conn) sayGoodbye(end *ending, now uint64) []byte {
	buf := sendBuffers.Get().(*sendBuffer)
	defer sendBuffers.Put(buf)
	out, err := c.cc.WriteClose(buf.packets[:], end.kind, end.code, end.text, now)
	c.cc.ClearEvents()
	if err != nil || out.N == 0 {
		return nil
	}
	if s := c.socketFor(out.Path); s != nil {
		s.send(nil, &out, buf.packets[:out.N])
	}
	return clone(buf.packets[:out.N])
}

// CloseWithError implements transport.Conn. A reason that does not fit into a
// packet is shortened, on both sides alike.
func (c *conn) CloseWithError(code transport.ErrorCode, reason string) error {
	reason = shorten(reason)
	code = transport.ErrorCode(wireCode(code))
	c.end(&ending{
		reason: &transport.ApplicationError{Code: code, Reason: reason},
		kind:   capi.CloseApplication,
		code:   uint64(code),
		text:   reason,
	})
	if c.lockBriefly() {
		c.unlock()
	}
	return nil
}

// closeNow ends the connection with its endpoint.
func (c *conn) closeNow() { c.CloseWithError(0, "") }

func (c *conn) Context() context.Context { return c.ctx }

func (c *conn) LocalAddr() net.Addr { return c.ep.netAddr(c.path.Load().Local) }

func (c *conn) RemoteAddr() net.Addr { return c.ep.netAddr(c.path.Load().Remote) }

// later runs f, which calls the application, in a goroutine of its own after
// those that came before.
func (c *conn) later(f func()) bool { return c.work.run(&c.ep.group, f) }

// workQueue is how many calls into the application's code may wait.
const workQueue = 16

// A worker runs functions one after the other, in a goroutine that there is
// only as long as there is something to run.
type worker struct {
	mu      sync.Mutex
	queue   []func() // guarded by mu
	running bool     // guarded by mu
}

// run returns false if f will not be run: too many wait, or the endpoint closes.
func (w *worker) run(g *group, f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) >= workQueue {
		return false
	}
	w.queue = append(w.queue, f)
	if w.running {
		return true
	}
	w.running = g.run(w.loop) // until the queue is empty
	if !w.running {
		w.queue = nil
	}
	return w.running
}

func (w *worker) loop() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.running, w.queue = false, nil
			w.mu.Unlock()
			return
		}
		f := w.queue[0]
		w.queue[0] = nil
		w.queue = w.queue[1:]
		w.mu.Unlock()
		f()
	}
}
