package purego

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

// Address validation tokens are kept in memory for this many server names.
const (
	// Address validation tokens are kept in memory for this many server names.
	tokenServers    = 64
	tokensForServer = 4

	closeWorkers = 64 // connections that Endpoint.Close closes at a time
)

// An endpoint is a quic.Transport and what belongs to it.
type endpoint struct {
	tr     *quic.Transport
	pc     net.PacketConn
	udp    bool // the socket needs *net.UDPAddr
	opts   transport.Options
	ids    *connIDs // nil: random
	tokens quic.TokenStore

	stats counters
	group group // goroutines that Close waits for

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{} // open, those in handshake included

	// listenMu is held while quic-go's listener is exchanged for another.
	listenMu sync.Mutex
	refuser  *quic.EarlyListener // answers when there is no listener any more

	// current is nil without a listener. It is read on the packet path and
	// set under listenMu.
	current atomic.Pointer[listener]
}

func open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	if pc == nil {
		return nil, errors.New("purego: no socket")
	}
	if opts == nil {
		opts = &transport.Options{}
	}
	if opts.MaxConns < 0 {
		return nil, fmt.Errorf("purego: Options.MaxConns is %d", opts.MaxConns)
	}
	e := &endpoint{
		pc:     pc,
		opts:   *opts,
		tokens: quic.NewLRUTokenStore(tokenServers, tokensForServer),
		conns:  make(map[*conn]struct{}),
	}
	_, e.udp = pc.(quic.OOBCapablePacketConn)
	e.tr = &quic.Transport{
		Conn:                newSocket(pc),
		ConnectionIDLength:  defaultConnIDLen,
		VerifySourceAddress: opts.RequireRetry,
		ConnContext:         e.incoming,
		Tracer:              &e.stats,
	}
	if opts.StatelessResetKey != ([32]byte{}) {
		k := quic.StatelessResetKey(opts.StatelessResetKey)
		e.tr.StatelessResetKey = &k
	}
	if opts.TokenKey != ([32]byte{}) {
		k := quic.TokenGeneratorKey(opts.TokenKey)
		e.tr.TokenGeneratorKey = &k
	}
	if opts.ConnIDs != nil {
		n := opts.ConnIDs.ConnIDLen()
		if n < 1 || n > 20 {
			return nil, fmt.Errorf("purego: ConnIDLen is %d, not 1 to 20", n)
		}
		e.ids = &connIDs{gen: opts.ConnIDs, len: n}
		e.tr.ConnectionIDGenerator = e.ids
	}
	// quic-go prepares the socket at its first use: that is now.
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := e.tr.ReadNonQUICPacket(done, nil); !errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("purego: open: %w", err)
	}
	e.group.run(e.countJunk) // until Close
	return e, nil
}

// countJunk counts packets that cannot be QUIC. It ends with the Transport.
func (e *endpoint) countJunk() {
	b := make([]byte, 1) // of no interest
	for {
		if _, _, err := e.tr.ReadNonQUICPacket(context.Background(), b); err != nil {
			return
		}
		e.stats.dropped.Add(1)
	}
}

func (e *endpoint) Addr() net.Addr { return e.pc.LocalAddr() }

func (e *endpoint) Stats() transport.EndpointStats { return e.stats.snapshot() }

func (e *endpoint) Dial(ctx context.Context, addr net.Addr, cfg *transport.Config) (transport.Conn, error) {
	tlsConf, qconf, err := clientConfig(cfg, e.tokens)
	if err != nil {
		return nil, err
	}
	addr, err = e.peerAddr(addr)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.stats.dialed.Add(1)
	c := newConn(e, cfg)
	c.client = true
	c.remote = addr
	qconf.Tracer = e.tracer(cfg, func(_ context.Context, id quic.ConnectionID) { c.id = id })
	start := time.Now()
	// quic-go returns the cause of the context that it is given.
	dctx, cancel := context.WithDeadlineCause(ctx, start.Add(handshakeTimeout(cfg)), transport.ErrHandshakeTimeout)
	defer cancel()
	dial := e.tr.Dial
	if cfg.EarlyData {
		dial = e.tr.DialEarly
	}
	if cfg.EarlyData && cfg.Sessions != nil {
		c.gate = new(answerGate)
		c.gate.keep(tlsConf)
	}
	e.stats.outgoing.Add(1)
	qc, err := dial(dctx, addr, tlsConf, qconf)
	if err != nil {
		e.stats.outgoing.Add(-1)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, transport.ErrHandshakeTimeout):
			return nil, err
		}
		return nil, dialError(err)
	}
	if !c.attach(qc) {
		return nil, errEndpointClosed
	}
	c.local.Store(&localAddr{qc.LocalAddr()})
	context.AfterFunc(qc.Context(), c.ended)
	if c.inEarlyData() {
		if err := c.promised(dctx); err != nil {
			return nil, c.giveUp(ctx, err)
		}
	}
	if c.complete() {
		// Nobody has sent early data. If the server would have refused it,
		// nobody needs to know.
		c.next.Do(c.nextConnection)
		c.rejected = nil
	} else if t := handshakeTimeout(cfg) - time.Since(start); t < noTimeout/2 {
		time.AfterFunc(t, c.expire)
	}
	c.startDatagrams()
	return c, nil
}

// giveUp ends c, which Dial does not return because of err, of c or of ctx.
func (c *conn) giveUp(ctx context.Context, err error) error {
	switch {
	case c.ctx.Err() != nil:
		return err
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		err = transport.ErrHandshakeTimeout
	}
	c.CloseWithError(0, "")
	return err
}

// peerAddr returns addr as the socket wants it.
func (e *endpoint) peerAddr(addr net.Addr) (net.Addr, error) {
	if addr == nil {
		return nil, errors.New("purego: no address to dial")
	}
	if !e.udp {
		return addr, nil
	}
	if a, ok := addr.(*net.UDPAddr); ok && a != nil {
		return a, nil
	}
	if !strings.HasPrefix(addr.Network(), "udp") {
		return nil, fmt.Errorf("purego: %s is not a UDP address", addr)
	}
	return net.ResolveUDPAddr("udp", addr.String())
}

// Close implements transport.Endpoint.
func (e *endpoint) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()

	e.listenMu.Lock()
	if l := e.current.Swap(nil); l != nil {
		l.stop()
	}
	if e.refuser != nil {
		e.refuser.Close()
	}
	e.listenMu.Unlock()

	e.closeConns()
	err := e.tr.Close()
	e.group.wait()
	return errors.Join(err, e.pc.Close())
}

// closeConns closes every connection, many at a time: each takes as long as
// its packet takes to be sent.
func (e *endpoint) closeConns() {
	e.mu.Lock()
	todo := make(chan *conn, len(e.conns))
	for c := range e.conns {
		todo <- c
	}
	e.mu.Unlock()
	close(todo)
	var wg sync.WaitGroup
	for range min(closeWorkers, len(todo)) {
		wg.Go(func() {
			for c := range todo {
				c.CloseWithError(0, "")
			}
		})
	}
	wg.Wait()
}

// add registers c, which Close will close. It returns false if Close has begun.
func (e *endpoint) add(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

func (e *endpoint) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *endpoint) remove(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// A group is a set of goroutines that somebody waits for, once.
type group struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// run starts f in a goroutine of the group, or returns false if wait has begun.
func (g *group) run(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Go(f)
	return true
}

func (g *group) wait() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
