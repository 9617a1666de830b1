package mqtt

import "errors"

// An EarlyPolicy says what becomes of early data (TLS 1.3, Section 2.3, 0-RTT) on
// a server. Early data comes with the client's first packets, before the handshake
// is complete, and whoever has recorded those packets can send them again.
type EarlyPolicy int8

const (
	// EarlyOff refuses early data: the client sends it again after the handshake.
	EarlyOff EarlyPolicy = -1

	// EarlyConnect accepts early data and reads CONNECT, but nothing takes
	// effect before the handshake is complete, which a replay never is. What
	// the client pipelines behind CONNECT saves it a round trip. The default.
	EarlyConnect EarlyPolicy = 0

	// EarlyIdempotent lets a CONNECT take effect at once that has no will,
	// discards no session and takes none over from a living connection, and
	// after it SUBSCRIBE, UNSUBSCRIBE and PINGREQ. All else waits, as with
	// EarlyConnect, and so does a first flight that has come before.
	EarlyIdempotent EarlyPolicy = 1

	// EarlyAll lets everything take effect at once, but for a first flight that
	// has come before.
	EarlyAll EarlyPolicy = 2
)

// An EarlyLink is a server's [Link] whose peer may have sent early data.
type EarlyLink interface {
	// Early says what may take effect before [Link.Handshake] has returned nil:
	// of this Link, so that a first flight that has come before gets less than
	// others.
	Early() EarlyPolicy
}

// ErrEarlyDataRejected is returned by [Link.Handshake] on a client if early data
// was sent and the server has refused it. Streams opened before are dead, and
// the Link is as good as new.
var ErrEarlyDataRejected = errors.New("mqtt: the server refused early data")
