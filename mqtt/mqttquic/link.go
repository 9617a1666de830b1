package mqttquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/transport"
)

// A Link is an MQTT connection over QUIC. It is an [mqtt.Link].
type Link struct {
	conn   transport.Conn
	server bool
	early  mqtt.EarlyPolicy
}

// Wrap makes a Link of an established connection, on which no stream was
// accepted or opened yet. The Link then owns it. Server says which side this is.
//
// The [transport.Config] that the connection was made with should grant 10
// streams or more to a client and no stream to a server. Unidirectional streams
// that it grants are never accepted, and datagrams never received.
func Wrap(conn transport.Conn, server bool) *Link {
	return &Link{conn: conn, server: server, early: mqtt.EarlyOff}
}

// Conn returns the QUIC connection, for its statistics, and for a client to
// migrate it.
func (l *Link) Conn() transport.Conn { return l.conn }

// AcceptStream returns the client's next stream, in the order of the IDs.
// On a client it fails: a server opens no stream.
func (l *Link) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	if !l.server {
		return nil, fmt.Errorf("mqttquic: a server opens no streams: %w", errors.ErrUnsupported)
	}
	s, err := l.conn.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return newStream(s, l), nil
}

// OpenStream opens the client's next stream, the first of which is the control
// stream. It waits until the server allows one more. On a server it fails:
// clients take a stream from the server for an error.
func (l *Link) OpenStream(ctx context.Context) (mqtt.Stream, error) {
	if l.server {
		return nil, fmt.Errorf("mqttquic: a server opens no streams: %w", errors.ErrUnsupported)
	}
	s, err := l.conn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return newStream(s, l), nil
}

// Carrier returns [mqtt.QUIC].
func (l *Link) Carrier() mqtt.Carrier { return mqtt.QUIC }

// Handshake waits until the peer is known and nothing read can be a replay.
// [mqtt.ErrEarlyDataRejected] says that streams opened before are dead.
func (l *Link) Handshake(ctx context.Context) error {
	err := l.conn.Handshake(ctx)
	if errors.Is(err, transport.ErrEarlyDataRejected) {
		return mqtt.ErrEarlyDataRejected
	}
	return err
}

// Early says what may take effect before the handshake is complete.
func (l *Link) Early() mqtt.EarlyPolicy { return l.early }

// TLS returns what the handshake negotiated, nil before it is complete.
func (l *Link) TLS() *tls.ConnectionState {
	s := l.conn.State()
	if !s.HandshakeComplete {
		return nil
	}
	return &s.TLS
}

// LocalAddr returns the address of the socket in use.
func (l *Link) LocalAddr() net.Addr { return l.conn.LocalAddr() }

// RemoteAddr returns the peer's address, which changes when the peer migrates.
func (l *Link) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// SetIdleTimeout does nothing: the timeout of QUIC is fixed by the handshake
// (RFC 9000, Section 10.1). The package documentation says why it is never
// faster than MQTT's keep-alive.
func (l *Link) SetIdleTimeout(time.Duration) {}

// Heard returns the packets received. A peer that gets a packet acknowledges it
// within a round trip and its max_ack_delay (RFC 9000, Section 13.2.1); there is
// room for one that is lost, and for a peer that is busy.
func (l *Link) Heard() (packets uint64, within time.Duration) {
	s := l.conn.Stats()
	return s.PacketsReceived, 3*s.SmoothedRTT + heardSlack
}

// RTT returns the smoothed round-trip time of the connection.
func (l *Link) RTT() time.Duration { return l.conn.Stats().SmoothedRTT }

const heardSlack = 250 * time.Millisecond

// Context is done when the Link has ended.
func (l *Link) Context() context.Context { return l.conn.Context() }

// CloseWithCode ends the connection with the application error code.
func (l *Link) CloseWithCode(code mqtt.LinkCode) error {
	return l.conn.CloseWithError(transport.ErrorCode(code), "")
}

// A stream is an [mqtt.Stream].
type stream struct {
	transport.Stream // Read, deadlines
	link             *Link
	fin              atomic.Bool                           // CloseWrite was called; on a server, before the FIN is sent
	stopped          atomic.Pointer[transport.StreamError] // the peer's STOP_SENDING, or our Reset
	sending          context.Context                       // of the sending direction
	reading          sync.Mutex                            // held by Read
}

// newStream returns s as an [mqtt.Stream], which ends as a whole when the peer
// takes nothing more: to a reader it is as if the peer had reset it.
func newStream(ts transport.Stream, l *Link) *stream {
	s := &stream{Stream: ts, link: l, sending: ts.Context()}
	context.AfterFunc(s.sending, s.sendingEnded)
	return s
}

// sendingEnded is called when the sending direction has ended, once or more.
func (s *stream) sendingEnded() {
	// Close says why.
	if e, ok := errors.AsType[*transport.StreamError](s.Stream.Close()); ok && e.Remote {
		s.stopped.CompareAndSwap(nil, e)
		s.CancelRead(e.Code)
	}
}

// failed translates an error of the engine.
func (s *stream) failed(err error) error {
	e, ok := errors.AsType[*transport.StreamError](err)
	if !ok {
		return err
	}
	if stopped := s.stopped.Load(); stopped != nil && !e.Remote {
		e = stopped // Read failed because of it
	}
	return &mqtt.StreamError{Code: uint64(e.Code), Remote: e.Remote, Err: e}
}

func (s *stream) Read(p []byte) (int, error) {
	s.reading.Lock()
	n, err := s.Stream.Read(p)
	s.reading.Unlock()
	if err != nil {
		err = s.failed(err)
	}
	return n, err
}

func (s *stream) ID() mqtt.StreamID { return mqtt.StreamID(s.StreamID()) }

func (s *stream) Write(p []byte) (int, error) {
	if s.fin.Load() {
		return 0, fmt.Errorf("mqttquic: write after CloseWrite: %w", net.ErrClosed)
	}
	n, err := s.Stream.Write(p)
	if err != nil {
		err = s.failed(err)
	}
	return n, err
}

// CloseWrite closes the sending direction. A server's FIN waits for a moment:
// clients built on NanoSDK drop the data that they receive together with it.
func (s *stream) CloseWrite() error {
	if s.fin.Swap(true) {
		return nil
	}
	if !s.link.server {
		return s.Stream.Close()
	}
	// The timer ends by itself, soon; after the end of the stream or of the
	// connection it does nothing.
	time.AfterFunc(finDelay(s.link.conn.Stats().SmoothedRTT), func() { _ = s.Stream.Close() })
	return nil
}

// finDelay is the time by which data is on its way before the FIN is: two round
// trips, so that a packet that is lost is likely repeated before, and less than
// half of the second that closing takes at most.
func finDelay(rtt time.Duration) time.Duration {
	return min(max(2*rtt, 10*time.Millisecond), 400*time.Millisecond)
}

// Abandoned says what the engine knows of a reset. If Read is waiting in the engine,
// that is the peer's STOP_SENDING; its RESET_STREAM Read is about to return.
func (s *stream) Abandoned() error {
	sending := s.sending
	if s.reading.TryLock() {
		_, err := s.Stream.Read(nil)
		s.reading.Unlock()
		if _, ok := errors.AsType[*transport.StreamError](err); ok {
			return s.failed(err)
		}
	} else {
		sending = s.Stream.Context() // which an engine may have to look after
	}
	if s.stopped.Load() == nil && sending.Err() != nil {
		s.sendingEnded() // the function for that may not have begun
	}
	if e := s.stopped.Load(); e != nil {
		return s.failed(e)
	}
	return nil
}

// Reset abandons both directions with RESET_STREAM and STOP_SENDING.
func (s *stream) Reset(code uint64) {
	s.fin.Store(true)
	s.stopped.CompareAndSwap(nil, &transport.StreamError{StreamID: s.StreamID(), Code: transport.ErrorCode(code)})
	s.CancelWrite(transport.ErrorCode(code))
	s.CancelRead(transport.ErrorCode(code))
}
