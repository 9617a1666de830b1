package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"time"

	"github.com/anyquic/anyquic/transport"
)

var errNoBytes = fmt.Errorf("http3: a QUIC connection is no stream of bytes: %w", errors.ErrUnsupported)

// A tracedConn is what the user of net/http/httptrace sees of a connection: its
// addresses, which are asked for without a look whether there are any.
type tracedConn struct{ qc transport.Conn }

func (c tracedConn) LocalAddr() net.Addr  { return c.qc.LocalAddr() }
func (c tracedConn) RemoteAddr() net.Addr { return c.qc.RemoteAddr() }

func (tracedConn) Read([]byte) (int, error)         { return 0, errNoBytes }
func (tracedConn) Write([]byte) (int, error)        { return 0, errNoBytes }
func (tracedConn) Close() error                     { return errNoBytes }
func (tracedConn) SetDeadline(time.Time) error      { return errNoBytes }
func (tracedConn) SetReadDeadline(time.Time) error  { return errNoBytes }
func (tracedConn) SetWriteDeadline(time.Time) error { return errNoBytes }

// TraceDial calls dial, which connects to addr, and tells the ClientTrace of ctx. QUIC
// connects and negotiates TLS at once: TLSHandshakeStart follows ConnectStart, and
// ConnectDone follows TLSHandshakeDone, with the same error. A connection that may
// send early data is there before its handshake is complete, which the state of
// TLSHandshakeDone says. It is for the Dial of a Transport; with Engine the Transport
// calls it.
func TraceDial(ctx context.Context, addr net.Addr, dial func(context.Context) (transport.Conn, error)) (transport.Conn, error) {
	trace := httptrace.ContextClientTrace(ctx)
	if trace == nil {
		return dial(ctx)
	}
	if trace.ConnectStart != nil {
		trace.ConnectStart(addr.Network(), addr.String())
	}
	if trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	c, err := dial(ctx)
	if trace.TLSHandshakeDone != nil {
		var state tls.ConnectionState
		if err == nil {
			state = c.State().TLS
		}
		trace.TLSHandshakeDone(state, err)
	}
	if trace.ConnectDone != nil {
		trace.ConnectDone(addr.Network(), addr.String(), err)
	}
	return c, err
}

// A tracedEngine is one whose connections are traced as they are made.
type tracedEngine struct{ transport.Transport }

func (e tracedEngine) Open(pc net.PacketConn, cfg *transport.Options) (transport.Endpoint, error) {
	ep, err := e.Transport.Open(pc, cfg)
	if err != nil {
		return nil, err
	}
	return tracedEndpoint{ep}, nil
}

type tracedEndpoint struct{ transport.Endpoint }

func (e tracedEndpoint) Dial(ctx context.Context, addr net.Addr, cfg *transport.Config) (transport.Conn, error) {
	return TraceDial(ctx, addr, func(ctx context.Context) (transport.Conn, error) { return e.Endpoint.Dial(ctx, addr, cfg) })
}

// gotConn returns what a request that gets the connection is told of it. The first
// that asks is the first on it.
func (cc *clientConn) gotConn() httptrace.GotConnInfo {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	info := httptrace.GotConnInfo{Conn: tracedConn{cc.qc}, Reused: cc.used}
	if cc.used && cc.unused() && !cc.idleSince.IsZero() {
		info.WasIdle, info.IdleTime = true, time.Since(cc.idleSince)
	}
	cc.used = true
	return info
}
