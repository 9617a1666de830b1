package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// errOneStream answers for a second stream on a carrier that has one.
var errOneStream = &unsupportedError{"mqtt: the carrier has one stream"}

type unsupportedError struct{ s string }

func (e *unsupportedError) Error() string        { return e.s }
func (e *unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// NewConnLink makes a [Link] of conn, which the Link then owns: its one stream,
// the control stream, is conn. carrier is what [Link.Carrier] says.
//
// If conn is a [tls.Conn] then Handshake and TLS are of that connection. If it
// has a CloseWrite method, as TCP and TLS connections do, the stream uses it.
// Codes have no place on such a carrier: CloseWithCode and Reset close conn.
func NewConnLink(conn net.Conn, carrier Carrier) Link {
	l := &connLink{conn: conn, carrier: carrier}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

type connLink struct {
	conn    net.Conn
	carrier Carrier
	ctx     context.Context
	end     context.CancelFunc
	opened  atomic.Bool // the one stream has been handed out
}

func (l *connLink) AcceptStream(ctx context.Context) (Stream, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, net.ErrClosed
	}
	if l.opened.CompareAndSwap(false, true) {
		return (*connStream)(l), nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *connLink) OpenStream(context.Context) (Stream, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, net.ErrClosed
	}
	if l.opened.CompareAndSwap(false, true) {
		return (*connStream)(l), nil
	}
	return nil, errOneStream
}

func (l *connLink) Carrier() Carrier { return l.carrier }

func (l *connLink) Handshake(ctx context.Context) error {
	if c, ok := l.conn.(*tls.Conn); ok {
		return c.HandshakeContext(ctx)
	}
	return nil
}

func (l *connLink) TLS() *tls.ConnectionState {
	if c, ok := l.conn.(*tls.Conn); ok {
		if s := c.ConnectionState(); s.HandshakeComplete {
			return &s
		}
	}
	return nil
}

func (l *connLink) LocalAddr() net.Addr            { return l.conn.LocalAddr() }
func (l *connLink) RemoteAddr() net.Addr           { return l.conn.RemoteAddr() }
func (l *connLink) SetIdleTimeout(time.Duration)   {}
func (l *connLink) Heard() (uint64, time.Duration) { return 0, 0 }
func (l *connLink) Context() context.Context       { return l.ctx }

// CloseWithCode closes the network connection. It does not wait: a tls.Conn
// would first try to send an alert to a peer that may not be reading.
func (l *connLink) CloseWithCode(LinkCode) error {
	if l.ctx.Err() != nil {
		return nil //nolint:nilerr // it was closed before
	}
	l.end()
	if c, ok := l.conn.(*tls.Conn); ok {
		return c.NetConn().Close()
	}
	return l.conn.Close()
}

// failed ends the Link if err says that the connection is gone. Half of it
// may live on after the peer's FIN, all of it after a deadline.
func (l *connLink) failed(err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		l.end()
	}
}

// A connStream is a connLink seen as its one stream.
type connStream connLink

func (s *connStream) Read(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if err != nil {
		(*connLink)(s).failed(err)
	}
	return n, err
}

func (s *connStream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	if err != nil {
		(*connLink)(s).failed(err)
	}
	return n, err
}

func (s *connStream) ID() StreamID { return ControlStream }

func (s *connStream) CloseWrite() error {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (s *connStream) Reset(uint64) { (*connLink)(s).CloseWithCode(LinkNormal) }

// Abandoned returns nil: what ends the stream ends the Link.
func (s *connStream) Abandoned() error { return nil }

func (s *connStream) SetReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *connStream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }
