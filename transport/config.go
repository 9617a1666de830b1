package transport

import (
	"crypto/tls"
	"io"
	"net"
	"time"
)

// Options configure the socket and are shared by its connections.
// They must not be modified after use.
type Options struct {
	// StatelessResetKey lets a restarted server end connections it no longer
	// knows (RFC 9000, Section 10.3). If zero, stateless resets are not sent.
	StatelessResetKey [32]byte

	// TokenKey protects address validation tokens (RFC 9000, Section 8.1). If
	// zero, a random key is used, and tokens do not survive a restart.
	TokenKey [32]byte

	// RequireRetry reports whether a client at the unverified address must
	// prove it receives packets there, at the cost of a round trip. If nil,
	// no client must. It is called on the packet path and must not block.
	RequireRetry func(net.Addr) bool

	// ConnIDs makes the connection IDs that peers address this socket by, for
	// routing by connection ID. If nil, they are random, of 8 bytes.
	ConnIDs ConnIDGenerator

	// MaxConns limits the connections that are accepted and open at once,
	// handshakes in progress included. More are refused (CONNECTION_REFUSED).
	// Zero means no limit.
	MaxConns int

	// HandshakeDone, if not nil, is called once for each connection that a client
	// begins and the endpoint takes: when its handshake is complete, with a nil
	// reason, or when the connection ends before that, with the reason that its
	// methods would return. took is the time since the client's first packet. It
	// may run before or after Accept returns the connection. It must not block
	// nor call methods of the Endpoint.
	HandshakeDone func(took time.Duration, reason error)
}

// A ConnIDGenerator makes connection IDs (RFC 9000, Section 5.1).
// Implementations are safe for concurrent use.
type ConnIDGenerator interface {
	// GenerateConnID returns a new ID that cannot be guessed, nor linked to
	// another by an observer. The caller owns the slice.
	GenerateConnID() ([]byte, error)
	// ConnIDLen returns the length of all IDs, 1 to 20 bytes. It never changes.
	ConnIDLen() int
}

// A Config configures connections. It must not be modified after use.
//
// In durations, stream limits and windows zero means the default and negative
// means none; an engine that cannot do without a window returns an
// [*UnsupportedError].
type Config struct {
	// TLS must be set, with NextProtos and, for a server, a certificate.
	// TLS 1.3 is the only version. An engine returns an [*UnsupportedError] for
	// a field it cannot honour; it never ignores one.
	TLS *tls.Config

	// HandshakeTimeout bounds the handshake. Default 10s.
	HandshakeTimeout time.Duration
	// IdleTimeout ends a connection without traffic. The smaller value of the
	// two sides counts. Default 30s.
	IdleTimeout time.Duration
	// KeepAlive is the interval of PINGs on an idle connection. Default none.
	KeepAlive time.Duration

	// MaxStreams and MaxUniStreams limit the streams the peer may have open
	// at once. Default 100 each.
	MaxStreams, MaxUniStreams int64

	// StreamWindow and ConnWindow limit, in bytes, what may arrive unread on
	// one stream and on the connection. Default 6 MiB and 15 MiB. An engine may
	// start with less and grow up to them.
	StreamWindow, ConnWindow int64

	// Datagrams enables [Conn.SendDatagram] and [Conn.ReceiveDatagram].
	Datagrams bool
	// DatagramQueue limits the messages that wait in each direction, up to
	// 65536. Default 128.
	DatagramQueue int

	// EarlyData allows 0-RTT. Early data can be replayed by an attacker;
	// see [Conn.Handshake].
	EarlyData bool
	// Sessions keeps what a client needs to resume. If nil, it never resumes.
	Sessions SessionCache

	// CongestionControl names the algorithm: "reno", "cubic", "bbr", as far
	// as Features lists it. Empty means the engine's best.
	CongestionControl string

	// QLog, if not nil, returns where to write the qlog of a connection, in
	// JSON text sequences, or nil for none. connID is the original destination
	// connection ID. The engine closes the writer after the connection's end.
	// The function must not call methods of the Endpoint.
	QLog func(connID []byte, client bool) io.WriteCloser
}

// A SessionCache stores what a client needs to resume a connection, by server
// name. The value is opaque, belongs to the engine that wrote it, and contains
// secrets; it may be kept on disk. Implementations are safe for concurrent use.
type SessionCache interface {
	// Take removes and returns the newest session for the server, or nil.
	// Sessions are used once, so that they cannot link connections. The engine
	// does not keep the slice.
	Take(server string) []byte
	// Put stores a session. The callee owns the slice.
	Put(server string, session []byte)
}

// Features are the abilities that differ between engines and builds.
type Features struct {
	EarlyData     bool `json:"earlyData"`     // 0-RTT
	Datagrams     bool `json:"datagrams"`     // RFC 9221
	ReliableReset bool `json:"reliableReset"` // RESET_STREAM_AT, for WebTransport
	Migration     bool `json:"migration"`     // Conn.Migrate
	QLog          bool `json:"qlog"`
	ReadAfterEnd  bool `json:"readAfterEnd"`  // what a connection leaves behind can be read: see Conn
	RawPublicKeys bool `json:"rawPublicKeys"` // RFC 7250

	// CongestionControl lists the names that Config accepts, the default first.
	CongestionControl []string `json:"congestionControl"`
	// Versions of the libraries inside: "quic-go": "v0.65.0".
	Versions map[string]string `json:"versions"`
}

// ConnState describes a connection.
type ConnState struct {
	// TLS is filled in except for what needs crypto/tls itself:
	// ExportKeyingMaterial must not be called.
	TLS tls.ConnectionState

	// ConnID names the connection in logs and qlog: the client's first
	// destination connection ID, the same value on both sides.
	ConnID []byte

	Version           uint32 // QUIC version
	HandshakeComplete bool   // before that, what the peer sent may be a replay
	EarlyData         bool   // 0-RTT was used and accepted
	MaxDatagram       int    // bytes; largest message for SendDatagram now; 0 if disabled
	CongestionControl string // the algorithm in use
}
