//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

const closeWorkers = 64 // connections that Endpoint.Close closes at a time

var errEndpointClosed = fmt.Errorf("ngtcp2: the endpoint is closed: %w", net.ErrClosed)

// An endpoint owns a socket and the connections on it, and knows which packet
// is for which.
type endpoint struct {
	knobs      *Knobs // nil: the defaults
	opts       transport.Options
	start      time.Time
	socket     socket
	ids        connIDs
	addrs      addrBook
	table      *table
	tokens     tokens
	tokenKey   capi.TokenKey
	answers    answers    // incoming.go
	overtaking overtaking // early.go
	stats      counters
	group      group // goroutines that Close waits for
	trimmer    trimmer

	// listener is nil if there is none. It is read on the packet path, and set
	// under mu.
	listener atomic.Pointer[listener]
	listened atomic.Bool // there is one, or was

	mu          sync.Mutex
	closed      bool               // guarded by mu
	broken      error              // guarded by mu; why the socket ended
	conns       map[*conn]struct{} // guarded by mu; open, those in handshake included
	servers     int                // guarded by mu; of conns, accepted ones
	unvalidated atomic.Int64       // set under mu; handshakes with addresses that nobody has proved
	leftover    []socket           // guarded by mu; what Close closes besides its own

	waiting atomic.Int64 // bytes in the inboxes of handshakes
}

// Counters are an endpoint's, as transport.EndpointStats has them.
type counters struct {
	dialed, accepted, refused, retries, dropped atomic.Uint64
}

func open(pc net.PacketConn, opts *transport.Options) (*endpoint, error) {
	return openWith(nil, pc, opts)
}

func openWith(k *Knobs, pc net.PacketConn, opts *transport.Options) (*endpoint, error) {
	if opts == nil {
		opts = &transport.Options{}
	}
	if opts.MaxConns < 0 {
		return nil, fmt.Errorf("ngtcp2: Options.MaxConns is %d", opts.MaxConns)
	}
	e := &endpoint{
		knobs:    k,
		opts:     *opts,
		start:    time.Now(),
		table:    newTable(),
		tokenKey: opts.TokenKey,
		conns:    make(map[*conn]struct{}),
	}
	e.trimmer.group = &e.group
	var err error
	if e.ids, err = newConnIDs(opts.ConnIDs); err != nil {
		return nil, err
	}
	if e.tokenKey == (capi.TokenKey{}) {
		rand.Read(e.tokenKey[:])
	}
	if e.socket, err = openSocket(e, pc); err != nil {
		return nil, err
	}
	e.socket.own()
	e.socket.start() // it reads e
	return e, nil
}

// now returns nanoseconds since a second before the endpoint was opened.
func (e *endpoint) now() uint64 { return uint64(time.Since(e.start)) + uint64(time.Second) }

func (e *endpoint) Addr() net.Addr { return e.socket.netConn().LocalAddr() }

func (e *endpoint) Stats() transport.EndpointStats {
	e.mu.Lock()
	open := len(e.conns)
	e.mu.Unlock()
	return transport.EndpointStats{
		ConnsDialed:    e.stats.dialed.Load(),
		ConnsAccepted:  e.stats.accepted.Load(),
		ConnsRefused:   e.stats.refused.Load(),
		ConnsOpen:      uint64(open),
		Retries:        e.stats.retries.Load(),
		PacketsDropped: e.stats.dropped.Load(),
	}
}

// connSettings sets what a connection's settings owe to its endpoint.
func (e *endpoint) connSettings(s *capi.Settings) {
	s.Now = e.now()
	s.ConnIDLen = uint8(e.ids.len)
	s.EngineConnIDs = e.ids.gen != nil
	s.ResetKey = e.opts.StatelessResetKey
	s.ResetKeySet = e.opts.StatelessResetKey != [32]byte{}
}

func (e *endpoint) Dial(ctx context.Context, addr net.Addr, cfg *transport.Config) (transport.Conn, error) {
	cc, err := e.knobs.clientConfig(cfg)
	if err != nil {
		return nil, err
	}
	if addr == nil {
		return nil, errors.New("ngtcp2: no address to dial")
	}
	remote, err := e.dialAddr(addr)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	err = e.usable()
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	e.stats.dialed.Add(1)
	c, err := newClientConn(e, e.socket, remote, cc)
	if err != nil {
		return nil, err
	}
	if !e.addConn(c, false, false) {
		c.closeNow()
		return nil, errEndpointClosed
	}
	select {
	case <-c.ready:
	case <-ctx.Done():
		c.CloseWithError(0, "")
		return nil, ctx.Err()
	}
	if c.ctx.Err() != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := context.Cause(c.ctx)
		if p, ok := errors.AsType[*transport.ProtocolError](err); ok && p.Remote && p.Code == invalidToken {
			e.tokens.drop(c.tokensOf(c.tls.Load()))
		}
		return nil, err
	}
	return c, nil
}

// dialAddr translates addr, if the socket can reach it.
func (e *endpoint) dialAddr(addr net.Addr) (netip.AddrPort, error) {
	remote, err := e.addrPort(addr)
	if err != nil {
		return remote, err
	}
	if _, udp := e.socket.netConn().(*net.UDPConn); udp {
		if foreignPrefix.Contains(remote.Addr()) {
			return remote, fmt.Errorf("ngtcp2: %s is not a UDP address", addr)
		}
		if remote.Port() == 0 {
			return remote, fmt.Errorf("ngtcp2: %s has no port", addr)
		}
		if e.socket.localAddr().Addr().Is4() && !remote.Addr().Is4() {
			return remote, fmt.Errorf("ngtcp2: %s cannot be reached from an IPv4 socket", addr)
		}
	}
	return remote, nil
}

// usable returns why no connection can be made. The caller holds mu.
func (e *endpoint) usable() error {
	if e.closed {
		return errEndpointClosed
	}
	return e.broken
}

// addConn registers c, which Close will close. It returns false if Close has
// begun.
func (e *endpoint) addConn(c *conn, server, unvalidated bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.usable() != nil {
		return false
	}
	if c.routes.ended {
		if server {
			e.servers--
		}
		return true
	}
	e.conns[c] = struct{}{}
	c.routes.server = server
	if unvalidated && !c.routes.complete {
		c.routes.unvalidated = true
		e.unvalidated.Add(1)
	}
	return true
}

// admit takes one of Options.MaxConns places for accepted connections.
func (e *endpoint) admit() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.opts.MaxConns > 0 && e.servers >= e.opts.MaxConns {
		return false
	}
	e.servers++
	return true
}

// leave gives a place back.
func (e *endpoint) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.servers--
}

// completed is called when c's handshake is complete.
func (e *endpoint) completed(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.routes.complete {
		return
	}
	c.routes.complete = true
	e.validated(c)
	if c.routes.server {
		e.stats.accepted.Add(1)
	}
}

// validated ends c's part in what bounds unvalidated handshakes. The caller
// holds mu.
func (e *endpoint) validated(c *conn) {
	if c.routes.unvalidated {
		c.routes.unvalidated = false
		e.unvalidated.Add(-1)
	}
}

// connEnded is called when c has ended. For as long as repeatFor, packets to
// its connection IDs are answered with closePacket, or not at all if it is
// empty.
func (e *endpoint) connEnded(c *conn, _ [][]byte, closePacket []byte, repeatFor time.Duration) {
	e.mu.Lock()
	first := !c.routes.ended
	c.routes.ended = true
	if _, ok := e.conns[c]; ok {
		delete(e.conns, c)
		e.validated(c)
		if c.routes.server {
			e.servers--
		}
	}
	closed := e.closed
	e.mu.Unlock()
	if !first {
		return
	}
	if closed {
		repeatFor = 0
	}
	e.remember(c, closePacket, repeatFor)
}

// socketFailed implements sink.
func (e *endpoint) socketFailed(s socket, err error) {
	e.group.run(func() { // ends when the connections are told
		e.mu.Lock()
		conns := make([]*conn, 0, len(e.conns))
		for c := range e.conns {
			conns = append(conns, c)
		}
		var l *listener
		if s == e.socket {
			e.broken = err
			l = e.listener.Swap(nil)
		}
		e.mu.Unlock()
		for _, c := range conns {
			c.socketFailed(s, err)
		}
		if l != nil {
			l.stop()
		}
	})
}

// Close implements transport.Endpoint.
func (e *endpoint) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	l := e.listener.Swap(nil)
	e.mu.Unlock()
	if l != nil {
		l.stop()
	}
	e.closeConns()
	e.trimmer.stop()
	e.group.wait()
	e.mu.Lock()
	leftover := e.leftover
	e.leftover = nil
	e.mu.Unlock()
	for _, s := range leftover {
		s.close()
	}
	if l != nil {
		l.cfg.close()
	}
	return e.socket.close()
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
		wg.Go(func() { // until todo is empty
			for c := range todo {
				c.closeNow()
			}
		})
	}
	wg.Wait()
}
