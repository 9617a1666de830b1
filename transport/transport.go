// Package transport is the contract between QUIC engines and the protocols
// that run on them.
//
// A [Transport] is one implementation of QUIC. It opens an [Endpoint] on a
// packet socket. An Endpoint dials and accepts a [Conn]. A Conn carries
// streams, which are ordered and reliable, and datagrams, which are neither.
//
//	net.PacketConn -> Transport.Open -> Endpoint -> Dial/Accept -> Conn -> streams, datagrams
//
// The interfaces are implemented only by the engines of this module; methods
// may be added to them. Package transporttest checks every promise made here.
//
// # Blocking and cancellation
//
// Methods that take a context return ctx.Err() when it is done first.
// Read and Write follow [net.Conn]: they are bounded by deadlines and return an
// error matching [os.ErrDeadlineExceeded] when one passes. Nothing else blocks
// on the peer; in particular no Close waits for an acknowledgement.
//
// # Concurrency
//
// All methods may be called from any goroutine at any time.
//
// # Buffers
//
// Write and SendDatagram copy: the caller may reuse p when they return. Data is
// sent as soon as the network allows; there is no Flush. Wrap a stream in a
// [bufio.Writer] to coalesce small writes.
//
// # Order
//
// Streams of one kind are accepted in the order of their stream IDs, whatever
// the order in which their packets arrive: receiving data on stream 4 means
// that the peer also opened stream 0 (RFC 9000, Section 2.1).
package transport

import (
	"context"
	"io"
	"net"
	"time"
)

// A Transport is an implementation of QUIC version 1 (RFC 9000): an engine.
type Transport interface {
	// Name returns the short, lower-case name of the engine: "purego", "ngtcp2".
	Name() string

	// Features reports what the engine can do in this build, and the versions
	// of the libraries inside.
	Features() Features

	// Open starts QUIC on pc. The Endpoint owns pc and closes it.
	// A nil Options means the zero Options. If Open fails, pc stays open and
	// the caller's.
	Open(pc net.PacketConn, opts *Options) (Endpoint, error)
}

// An Endpoint runs QUIC on one packet socket.
// It can dial any number of connections while it listens.
type Endpoint interface {
	// Dial connects to addr. It returns when the handshake is complete, or,
	// if cfg.EarlyData is set and a session for the server is cached, as soon
	// as early data can be sent. If cfg.TLS names no server to verify, Dial
	// returns an error.
	Dial(ctx context.Context, addr net.Addr, cfg *Config) (Conn, error)

	// Listen starts accepting connections. An Endpoint has at most one
	// Listener at a time; after its Close another may be started.
	Listen(cfg *Config) (Listener, error)

	// Addr returns the local address of the socket.
	Addr() net.Addr

	// Stats returns a snapshot of the socket's counters.
	Stats() EndpointStats

	// Close closes every connection and the listener at once, with application
	// error 0, waits for the engine's goroutines to end and closes the socket.
	// A second Close does nothing and returns nil.
	Close() error
}

// A Listener accepts connections.
type Listener interface {
	// Accept returns the next connection. The handshake is complete,
	// unless the listener's Config has EarlyData set.
	// A connection that nobody accepts does not hold up another; one that ends
	// before it is accepted may never be returned.
	Accept(ctx context.Context) (Conn, error)

	// Addr returns the local address of the socket.
	Addr() net.Addr

	// Close stops accepting. Accepted connections are unaffected, new
	// connection attempts are refused (CONNECTION_REFUSED).
	// A blocked Accept returns an error matching [net.ErrClosed].
	Close() error
}

// A Conn is a QUIC connection.
//
// When a connection ends, blocked and later calls on it and on its streams
// return the reason: an [*ApplicationError], a [*ProtocolError],
// [ErrIdleTimeout], [ErrHandshakeTimeout] or [ErrStatelessReset].
// All of them match [net.ErrClosed]. They do so also if their context is done too,
// which the connection's own then is.
//
// What the peer has sent on a stream, and this side has not read when the connection
// ends, stays readable where [Features].ReadAfterEnd says so, unless this side ended
// the connection: Read returns all that had arrived in order, then io.EOF if the peer
// had closed the stream and nothing before its end is missing, and else the reason.
// It is no more than the connection's windows, and is freed when it was read,
// by CancelRead, or with the stream. A stream that was not accepted
// yet is lost, and so is, without that feature, all that was not yet read.
type Conn interface {
	// OpenStream opens a bidirectional stream. It waits until the peer allows
	// one more. The peer learns of the stream when something is written to it
	// or it is closed.
	OpenStream(ctx context.Context) (Stream, error)

	// OpenUniStream opens a stream that only this side writes to.
	// It waits as OpenStream does.
	OpenUniStream(ctx context.Context) (SendStream, error)

	// AcceptStream returns the next bidirectional stream opened by the peer.
	AcceptStream(ctx context.Context) (Stream, error)

	// AcceptUniStream returns the next stream that only the peer writes to.
	AcceptUniStream(ctx context.Context) (ReceiveStream, error)

	// SendDatagram queues p as one unreliable message (RFC 9221). It never
	// blocks: when the queue of Config.DatagramQueue messages is full, the
	// oldest is dropped and counted in Stats. It fails with
	// [*DatagramTooLargeError], or with an error matching
	// [errors.ErrUnsupported] if either side has datagrams disabled.
	SendDatagram(p []byte) error

	// ReceiveDatagram returns the next message. The caller owns the slice.
	// Messages that arrive while Config.DatagramQueue of them wait are dropped
	// and counted in Stats.
	ReceiveDatagram(ctx context.Context) ([]byte, error)

	// Handshake waits for the handshake to complete. After it returns nil the
	// peer is authenticated and what it sends cannot be a replay.
	// It returns [ErrEarlyDataRejected] if early data was sent and refused;
	// streams opened before are then dead and the Conn is as good as new.
	Handshake(ctx context.Context) error

	// Migrate moves a client's connection to another socket after the new
	// path is validated (RFC 9000, Section 9). The Conn then owns pc, as if its
	// Endpoint had been opened on it, and closes it at the connection's end; if
	// Migrate fails, pc stays open and the caller's, and the connection stays
	// on its old path. A server's Conn returns an [*UnsupportedError].
	Migrate(ctx context.Context, pc net.PacketConn) error

	// State returns what the handshake negotiated.
	State() ConnState

	// Stats returns a snapshot of the connection's counters.
	Stats() Stats

	// Context is done when the connection ends; context.Cause gives the reason.
	Context() context.Context

	// LocalAddr returns the address of the socket in use.
	LocalAddr() net.Addr

	// RemoteAddr returns the peer's address. It changes when the peer
	// migrates, or its NAT does, after the new path is validated.
	RemoteAddr() net.Addr

	// CloseWithError ends the connection and tells the peer why. It discards
	// unsent data and does not wait for the peer. Only the first call counts;
	// later ones return nil.
	CloseWithError(code ErrorCode, reason string) error
}

// A ReceiveStream is the readable direction of a stream.
type ReceiveStream interface {
	// Read copies what has arrived and returns flow-control credit to the
	// peer. It returns io.EOF after the peer has closed the stream, and a
	// [*StreamError] after either side has cancelled it. At the end of the
	// connection it does what [Conn] says.
	io.Reader

	// StreamID returns the stream's number within the connection.
	StreamID() StreamID

	// CancelRead asks the peer to stop sending (STOP_SENDING) and makes Read
	// fail. It does nothing once Read has returned io.EOF. After the end of the
	// connection Read then fails with the reason for that.
	CancelRead(code ErrorCode)

	// SetReadDeadline bounds pending and future Reads. Zero removes the bound.
	SetReadDeadline(t time.Time) error

	// Stats returns what the application has read and written so far.
	Stats() StreamStats
}

// A SendStream is the writable direction of a stream.
type SendStream interface {
	// Write blocks while the peer's flow control or congestion control
	// allows no more to be buffered. It returns a [*StreamError] after either
	// side has cancelled the stream, and an error matching [net.ErrClosed]
	// after Close.
	io.Writer

	// WriteLast is Write followed by Close, but so that the end of the stream
	// can travel with the last bytes. The stream is closed only if all of p was
	// written.
	WriteLast(p []byte) (int, error)

	// Close marks the end of the data (FIN). What was written is still
	// delivered, in the background. The other direction of a bidirectional
	// stream is unaffected. Close returns a [*StreamError] if either side has
	// cancelled the stream; a second Close returns nil.
	io.Closer

	// StreamID returns the stream's number within the connection.
	StreamID() StreamID

	// CancelWrite abandons the stream (RESET_STREAM): unsent data is dropped.
	// It does nothing once all data and the FIN are acknowledged.
	CancelWrite(code ErrorCode)

	// SetWriteDeadline bounds pending and future Writes. Zero removes the bound.
	SetWriteDeadline(t time.Time) error

	// SetPriority orders this stream's data among the connection's streams,
	// from now on. A new stream has [DefaultPriority].
	SetPriority(p Priority)

	// Priority returns the priority in force.
	Priority() Priority

	// Context is done when the direction ends: closed, cancelled by either
	// side, or lost with the connection.
	Context() context.Context

	// Stats returns what the application has read and written so far.
	Stats() StreamStats
}

// A Stream is a bidirectional stream. Close and Context concern the sending
// direction only; use [NetConn] for a stream that closes as a whole.
type Stream interface {
	ReceiveStream
	SendStream

	// SetDeadline sets both deadlines.
	SetDeadline(t time.Time) error
}

// A StreamID identifies a stream within a connection (RFC 9000, Section 2.1).
type StreamID int64

// ServerInitiated reports whether the server opened the stream.
func (id StreamID) ServerInitiated() bool { return id&1 != 0 }

// Unidirectional reports whether only the initiator sends on the stream.
func (id StreamID) Unidirectional() bool { return id&2 != 0 }
