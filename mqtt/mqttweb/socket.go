package mqttweb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

// A socketLink is a WebSocket as a Link. It has one stream, which is the
// WebSocket's messages one after the other.
//
// A WebSocket has no half that could end alone: its Close frame is the last thing
// that this side sends, and what the other side sends after it is not read.
// CloseWrite therefore is the beginning of the end, with a code that SetCode has
// chosen, and Read then waits for the peer's Close frame, as it would for a FIN.
type socketLink struct {
	ws        *websocket.Conn
	conn      net.Conn // ws as a stream of bytes
	raw       net.Conn // the TCP connection, with TLS or without; nil if it is not ours alone
	quic      transport.Conn
	carrier   mqtt.Carrier
	tls       *tls.ConnectionState
	goingAway func() bool // the server shuts down; nil on a client

	ctx    context.Context
	end    context.CancelFunc
	opened atomic.Bool // the one stream has been handed out
	code   atomic.Uint64
	fin    atomic.Bool // CloseWrite was called
	closed atomic.Bool // CloseWithCode was called
}

// newSocketLink returns a Link that owns ws, and raw unless it is nil. over is
// called when nothing is left of it.
func newSocketLink(ws *websocket.Conn, state *tls.ConnectionState, raw net.Conn, over func()) *socketLink {
	l := &socketLink{
		ws: ws, raw: raw, tls: state, carrier: carrierOf(ws.Proto(), state != nil),
		// [MQTT-6.0.0-1]: a message that is not binary ends the connection.
		// Messages are read as a stream, so that their size needs no limit of
		// its own: that of packets holds.
		conn: websocket.NetConn(context.Background(), ws, websocket.Binary),
	}
	l.ctx, l.end = context.WithCancel(context.Background())
	if c := ws.HTTP3(); c != nil {
		l.quic = c.Transport()
	}
	context.AfterFunc(ws.Context(), func() {
		l.end()
		over()
	})
	return l
}

// carrierOf returns the carrier of a WebSocket on a version of HTTP.
func carrierOf(proto string, secure bool) mqtt.Carrier {
	switch {
	case proto == "HTTP/3.0":
		return mqtt.WSSH3
	case proto == "HTTP/2.0" && secure:
		return mqtt.WSSH2
	case proto == "HTTP/2.0":
		return mqtt.WSH2
	case secure:
		return mqtt.WSS
	}
	return mqtt.WebSocket
}

// Migrate moves the connection if it is one of QUIC.
func (l *socketLink) Migrate(ctx context.Context, pc net.PacketConn) error {
	if l.quic == nil {
		return fmt.Errorf("mqttweb: a connection on %s stays where it is: %w", l.carrier, errors.ErrUnsupported)
	}
	return mqttquic.Wrap(l.quic, l.goingAway != nil).Migrate(ctx, pc)
}

func (l *socketLink) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if l.opened.CompareAndSwap(false, true) {
		return (*socketStream)(l), nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *socketLink) OpenStream(context.Context) (mqtt.Stream, error) {
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if l.opened.CompareAndSwap(false, true) {
		return (*socketStream)(l), nil
	}
	return nil, fmt.Errorf("mqttweb: a WebSocket has one stream: %w", errors.ErrUnsupported)
}

func (l *socketLink) Carrier() mqtt.Carrier { return l.carrier }

// Handshake has nothing to wait for: a replayed request never becomes a Link.
func (l *socketLink) Handshake(ctx context.Context) error { return ctx.Err() }

func (l *socketLink) TLS() *tls.ConnectionState { return l.tls }

func (l *socketLink) LocalAddr() net.Addr          { return l.ws.LocalAddr() }
func (l *socketLink) RemoteAddr() net.Addr         { return l.ws.RemoteAddr() }
func (l *socketLink) SetIdleTimeout(time.Duration) {}
func (l *socketLink) Context() context.Context     { return l.ctx }

// Heard returns the packets of the HTTP/3 connection.
func (l *socketLink) Heard() (uint64, time.Duration) {
	if l.quic == nil {
		return 0, 0
	}
	return heard(l.quic)
}

// RTT returns the smoothed round-trip time of the HTTP/3 connection, 0 on others.
func (l *socketLink) RTT() time.Duration {
	if l.quic == nil {
		return 0
	}
	return l.quic.Stats().SmoothedRTT
}

// SetCode says why CloseWrite ends the Link.
func (l *socketLink) SetCode(code mqtt.LinkCode) { l.code.Store(uint64(code)) }

// status returns the code of the Close frame for a LinkCode.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
func (l *socketLink) status(code mqtt.LinkCode) websocket.StatusCode {
	switch {
	case code == mqtt.LinkControlDown:
		return websocket.StatusProtocolError
	case code == mqtt.LinkOverloaded:
		return websocket.StatusTryAgainLater
	case l.goingAway != nil && l.goingAway():
		return websocket.StatusGoingAway
	}
	return websocket.StatusNormal
}

// CloseWithCode ends the Link at once, but for a Close frame, which the peer gets
// in the background if nothing is being written.
func (l *socketLink) CloseWithCode(code mqtt.LinkCode) error {
	l.close(l.status(code), "")
	return nil
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (l *socketLink) close(code websocket.StatusCode, reason string) {
	if l.closed.Swap(true) {
		return
	}
	l.end()
	if l.fin.Load() {
		// The peer has been told, and has had its time.
		l.abort()
		return
	}
	// A Write that waits for the peer ends, and with it the WebSocket: there is
	// no place for a Close frame in the middle of another.
	_ = l.conn.SetWriteDeadline(past) // the WebSocket's net.Conn never refuses it
	go func() {                       // ends when the frame is sent, or after lingerTimeout
		stop := time.AfterFunc(lingerTimeout, l.abort)
		context.AfterFunc(l.ws.Context(), func() { stop.Stop() })
		_ = l.ws.Close(code, reason) // there is nobody to tell that it was not sent
	}()
}

// abort ends what waits for the peer. Over HTTP/3 package websocket does, within
// its own limits.
func (l *socketLink) abort() {
	if c, ok := l.raw.(*tls.Conn); ok {
		_ = c.NetConn().Close() // without an alert, which could block
		return
	}
	if l.raw != nil {
		_ = l.raw.Close() // it is not needed any more
	}
}

// A socketStream is a socketLink seen as its one stream.
type socketStream socketLink

func (s *socketStream) ID() mqtt.StreamID { return mqtt.ControlStream }

func (s *socketStream) Read(p []byte) (int, error) {
	n, err := s.conn.Read(p)
	if err == nil || n > 0 {
		return n, err
	}
	switch {
	case s.closed.Load():
		return 0, fmt.Errorf("mqttweb: read: %w", net.ErrClosed)
	case s.fin.Load():
		select {
		case <-s.ws.Context().Done(): // the peer has closed too, or was given up
		case <-s.ctx.Done():
		}
		return 0, io.EOF
	}
	return 0, err
}

func (s *socketStream) Write(p []byte) (int, error) {
	if s.fin.Load() || s.closed.Load() {
		return 0, fmt.Errorf("mqttweb: write: %w", net.ErrClosed)
	}
	return s.conn.Write(p)
}

// CloseWrite sends a Close frame, in the background.
func (s *socketStream) CloseWrite() error {
	if s.fin.Swap(true) {
		return nil
	}
	l := (*socketLink)(s)
	code := l.status(mqtt.LinkCode(l.code.Load()))
	go func() { _ = l.ws.Close(code, "") }() // ends when it is sent, or after the time that package websocket gives it
	return nil
}

// Reset ends the Link, with a code that says nothing: what MQTT has to say was
// said in a DISCONNECT.
func (s *socketStream) Reset(uint64) {
	(*socketLink)(s).close(websocket.StatusPolicyViolation, "")
}

// Abandoned returns nil: what ends the stream ends the Link.
func (s *socketStream) Abandoned() error { return nil }

func (s *socketStream) SetReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *socketStream) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }
