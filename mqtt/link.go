// Package mqtt holds what MQTT's broker and client share: the view they have of
// the network.
//
// A [Link] is one client's connection, whatever carries it: TCP, TLS,
// WebSocket, QUIC, WebTransport. It has a control stream, which carries what MQTT
// defines for a network connection, and, on carriers that can, data streams
// beside it. Packages broker and client know no other network; [NewConnLink] makes
// a Link of a net.Conn, package mqttquic of a QUIC connection, and package mqttweb
// of what a browser has.
package mqtt

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// A StreamID names a stream within a Link. On QUIC, and on WebTransport but for
// the control stream, it is the QUIC stream ID.
type StreamID uint64

// ControlStream carries CONNECT, and everything on a carrier without streams.
const ControlStream StreamID = 0

// A LinkCode tells the peer why a Link was closed, on carriers that can say it.
type LinkCode uint64

// The codes that MQTT over QUIC uses as application error codes.
const (
	LinkNormal      LinkCode = 0
	LinkControlDown LinkCode = 1 // the control stream ended without a DISCONNECT, or broke the protocol
	LinkOverloaded  LinkCode = 2 // no room for another client
)

// A Link is one client's network connection.
// All methods may be called from any goroutine at any time.
type Link interface {
	// AcceptStream returns the next stream that the peer opened, in the order
	// of the IDs, so that the first is the control stream. A server calls it.
	// On a carrier without streams the second call blocks until the Link ends.
	AcceptStream(ctx context.Context) (Stream, error)

	// OpenStream opens the next stream; the first is the control stream.
	// A client calls it. On a carrier without streams the second call
	// returns an error matching [errors.ErrUnsupported].
	OpenStream(ctx context.Context) (Stream, error)

	// Carrier says what carries the Link, for logs, metrics and applications.
	Carrier() Carrier

	// Handshake waits until the peer is known: the TLS handshake is complete
	// and nothing that was read can be a replay. It does nothing on a carrier
	// without TLS.
	Handshake(ctx context.Context) error

	// TLS returns what the handshake negotiated, nil without TLS or before it
	// is complete.
	TLS() *tls.ConnectionState

	LocalAddr() net.Addr
	// RemoteAddr may change during the life of a QUIC Link.
	RemoteAddr() net.Addr

	// SetIdleTimeout tells the carrier how long the peer may be silent. MQTT's
	// keep-alive decides when a client is dead; a carrier with a timeout of its
	// own must not be faster. A carrier that cannot change its timeout
	// after the handshake does nothing.
	SetIdleTimeout(d time.Duration)

	// Heard returns how many packets of any kind have come from the peer,
	// acknowledgements included, and within what time a peer that is there is
	// heard from after something was sent to it: a few round trips. On a carrier
	// that cannot tell, within is 0.
	Heard() (packets uint64, within time.Duration)

	// Context is done when the Link has ended.
	Context() context.Context

	// CloseWithCode ends the Link at once; what was not yet delivered is lost.
	// Only the first call counts.
	CloseWithCode(code LinkCode) error
}

// A CodeSetter is a Link on which the end of the control stream ends everything,
// and says why: the Close frame of a WebSocket does. SetCode says it before
// CloseWrite is called; without it the end is a normal one.
type CodeSetter interface {
	SetCode(code LinkCode)
}

// A RoundTripper is a Link whose carrier measures the time of a round trip.
type RoundTripper interface {
	// RTT returns the smoothed time, 0 if there is none yet.
	RTT() time.Duration
}

// A Stream is one ordered byte stream of a Link.
type Stream interface {
	io.Reader // io.EOF after the peer's FIN, a *StreamError after a reset
	io.Writer // copies; blocks while the peer takes no more; a *StreamError after a reset

	ID() StreamID

	// CloseWrite marks the end of the data (FIN). What was written is still
	// delivered. On a carrier that cannot it does nothing.
	CloseWrite() error

	// Reset abandons both directions, with an error code where the carrier has
	// one. On a carrier without streams it ends the Link.
	Reset(code uint64)

	// Abandoned returns the *StreamError that Read returns from now on; nil
	// while neither side has reset the stream, and if it has ended in any other
	// way. It does not block, not even for a Read in progress. Who has read
	// ahead asks before acting on it: the peer may have gone on with the same
	// exchange on another stream since, as its reset came before that.
	Abandoned() error

	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// A StreamError is what reading and writing return when one side has abandoned
// the stream, on carriers with streams.
type StreamError struct {
	Code   uint64
	Remote bool  // by the peer
	Err    error // the carrier's own; may be nil
}

func (e *StreamError) Error() string {
	side := "this side"
	if e.Remote {
		side = "the peer"
	}
	return fmt.Sprintf("mqtt: stream abandoned by %s: code %#x", side, e.Code)
}

// Is reports whether target is [net.ErrClosed]: nothing more comes, and nothing
// can be sent.
func (e *StreamError) Is(target error) bool { return target == net.ErrClosed }

// Unwrap returns the carrier's error.
func (e *StreamError) Unwrap() error { return e.Err }

// A LinkListener accepts Links.
type LinkListener interface {
	// Accept returns the next Link. It waits for no peer: a client that is slow
	// with its handshake or its first stream does not hold up another.
	Accept(ctx context.Context) (Link, error)
	Addr() net.Addr
	// Close stops accepting; Links live on. Accept then returns an error
	// matching net.ErrClosed.
	Close() error
}

// A Migrator is a Link whose connection can move to another network path without
// ending, as those of QUIC can (RFC 9000, Section 9).
type Migrator interface {
	// Migrate moves the client's side to pc, or to a new UDP socket if pc is nil,
	// and returns when the path is validated. The Link then owns pc. If it fails,
	// pc stays the caller's and the Link stays where it was.
	Migrate(ctx context.Context, pc net.PacketConn) error
}
