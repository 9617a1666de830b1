package allhttp

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
	"time"
)

var errHandshakeTimeout error = &timeoutError{"allhttp: TLS handshake timeout"}

type timeoutError struct{ msg string }

func (e *timeoutError) Error() string   { return e.msg }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// A tcpCall is a request on its way through net/http, to which its context
// leads back.
type tcpCall struct {
	t      *Transport
	origin string // host:port; empty: connections need not be known
	onlyH1 bool   // the request asks for an upgrade
	race   *race  // it may have a connection; nil: it has none
	start  time.Time
	reason Reason

	mu    sync.Mutex
	conn  *tcpConn    // the request is on; guarded by mu; nil: not known
	timer *time.Timer // of a TLS handshake; guarded by mu
}

type tcpCallKey struct{}

// trace returns what makes c know what net/http does.
func (c *tcpCall) trace(chosen func(Choice)) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			c.gotConn(info)
			if chosen != nil {
				chosen(c.choice(info))
			}
		},
		PutIdleConn:      c.putIdleConn,
		TLSHandshakeDone: func(tls.ConnectionState, error) { c.stopTimer() },
	}
}

func (c *tcpCall) choice(info httptrace.GotConnInfo) Choice {
	ch := Choice{Proto: "HTTP/1.1", Addr: info.Conn.RemoteAddr(), Reason: c.reason, Wait: time.Since(c.start)}
	if tc, ok := info.Conn.(*tls.Conn); ok && tc.ConnectionState().NegotiatedProtocol == "h2" {
		ch.Proto = "HTTP/2.0"
	}
	return ch
}

func (c *tcpCall) gotConn(info httptrace.GotConnInfo) {
	tc, ok := info.Conn.(*tls.Conn)
	if !ok {
		return
	}
	conn, ok := tc.NetConn().(*tcpConn)
	if !ok {
		return
	}
	h2 := tc.ConnectionState().NegotiatedProtocol == "h2"
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	c.t.tcp.use(conn, h2)
}

func (c *tcpCall) putIdleConn(err error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil && err == nil {
		c.t.tcp.idle(conn)
	}
}

func (c *tcpCall) setTimer(t *time.Timer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = t
}

func (c *tcpCall) stopTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// tcpConns knows the TCP connections to origins.
type tcpConns struct {
	mu      sync.Mutex
	origins map[string]map[*tcpConn]struct{} // guarded by mu
}

// A tcpConn is what TLS runs on.
type tcpConn struct {
	net.Conn
	all    *tcpConns
	origin string

	// Guarded by all.mu.
	h2, busy, closed bool
	cause            error // why it was closed, if that is to be told
}

// use notes that a request is on the connection.
func (t *tcpConns) use(c *tcpConn, h2 bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.h2, c.busy = h2, true
	if c.closed || c.origin == "" {
		return
	}
	conns := t.origins[c.origin]
	if conns == nil {
		conns = make(map[*tcpConn]struct{})
		if t.origins == nil {
			t.origins = make(map[string]map[*tcpConn]struct{})
		}
		t.origins[c.origin] = conns
	}
	conns[c] = struct{}{}
}

func (t *tcpConns) idle(c *tcpConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.busy = false
}

// available reports whether there is a connection that can take a request.
func (t *tcpConns) available(origin string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.origins[origin] {
		if c.h2 || !c.busy {
			return true
		}
	}
	return false
}

func (c *tcpConn) Close() error {
	c.all.mu.Lock()
	c.closed = true
	if conns := c.all.origins[c.origin]; conns != nil {
		delete(conns, c)
		if len(conns) == 0 {
			delete(c.all.origins, c.origin)
		}
	}
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// closeBecause closes the connection and makes Read return the cause.
func (c *tcpConn) closeBecause(cause error) {
	c.all.mu.Lock()
	c.cause = cause
	c.all.mu.Unlock()
	c.Close()
}

func (c *tcpConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.all.mu.Lock()
		defer c.all.mu.Unlock()
		if c.cause != nil {
			err = c.cause
		}
	}
	return n, err
}

// dialTLS makes a connection for net/http, or returns the one that has won a
// race. The handshake is net/http's to do.
func (t *Transport) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	call, _ := ctx.Value(tcpCallKey{}).(*tcpCall)
	if call == nil {
		call = &tcpCall{t: t}
	}
	if call.race != nil {
		if c := call.race.take(); c != nil {
			return c, nil
		}
	}
	if t.customTLS != nil {
		return t.customTLS(ctx, network, addr)
	}
	tc, err := t.dialTCP(ctx, network, addr, call.origin, call.onlyH1)
	if err != nil {
		return nil, err
	}
	if d := t.base.TLSHandshakeTimeout; d > 0 {
		call.setTimer(time.AfterFunc(d, func() { tc.NetConn().(*tcpConn).closeBecause(errHandshakeTimeout) }))
	}
	return tc, nil
}

// dialTCP makes a connection without a handshake.
func (t *Transport) dialTCP(ctx context.Context, network, addr, origin string, onlyH1 bool) (*tls.Conn, error) {
	conn, err := t.rawDial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	cfg := new(tls.Config)
	if t.base.TLSClientConfig != nil {
		cfg = t.base.TLSClientConfig.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(addr)
	}
	cfg.NextProtos = nil
	if !onlyH1 {
		if t.Versions.Has(HTTP2) {
			cfg.NextProtos = append(cfg.NextProtos, "h2")
		}
		if t.Versions.Has(HTTP1) {
			cfg.NextProtos = append(cfg.NextProtos, "http/1.1")
		}
	}
	if !t.Versions.Has(HTTP1) {
		verify := cfg.VerifyConnection
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != "h2" {
				return errNotHTTP2
			}
			if verify != nil {
				return verify(cs)
			}
			return nil
		}
	}
	return tls.Client(&tcpConn{Conn: conn, all: &t.tcp, origin: origin}, cfg), nil
}

// dialRace makes a connection that is ready for a request.
func (t *Transport) dialRace(ctx context.Context, origin string) (net.Conn, error) {
	start := time.Now()
	c, err := t.dialReady(ctx, "tcp", origin, origin)
	var addr net.Addr
	if err == nil {
		addr = c.RemoteAddr()
	}
	dialed(ctx, "tcp", addr, start, err)
	return c, err
}

// dialReady makes a connection with its handshake.
func (t *Transport) dialReady(ctx context.Context, network, addr, origin string) (net.Conn, error) {
	if t.customTLS != nil {
		return t.customTLS(ctx, network, addr)
	}
	tc, err := t.dialTCP(ctx, network, addr, origin, false)
	if err != nil {
		return nil, err
	}
	if d := t.base.TLSHandshakeTimeout; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errHandshakeTimeout)
		defer cancel()
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		tc.NetConn().Close()
		return nil, err
	}
	return tc, nil
}
