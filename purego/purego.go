// Package purego is the QUIC engine in pure Go. It translates between the
// contract of package transport and quic-go, and adds nothing to the protocol.
//
// An endpoint holds a quic.Transport, a conn a *quic.Conn, a stream a
// *quic.Stream; no type of quic-go leaves the package. What the contract asks
// for and quic-go does not do by itself is done here: a bound on the whole
// handshake, refusal of connections when nobody listens, a limit of
// connections, datagram queues that drop and count, Close during Write, errors
// and context causes of package transport. What cannot be done here: to an address
// that is not validated, quic-go may send up to one packet more than three times what it
// has received (RFC 9000, Section 8.1).
//
// An idle connection costs one small struct, one context and no goroutine more
// than quic-go's own.
package purego

import (
	"net"
	"runtime/debug"

	"github.com/anyquic/anyquic/transport"
)

// Transport is the pure Go engine.
var Transport transport.Transport = engine{}

const (
	engineName = "purego"

	// quicGoVersion is what go.mod requires; a program may link a newer one.
	quicGoVersion = "v0.65.0"
)

type engine struct{}

func (engine) Name() string { return engineName }

func (engine) Features() transport.Features {
	return transport.Features{
		EarlyData:         true,
		Datagrams:         true,
		ReliableReset:     true,
		Migration:         true,
		QLog:              true,
		CongestionControl: []string{congestionControl},
		Versions:          map[string]string{"quic-go": linkedVersion()},
	}
}

func (engine) Open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	return open(pc, opts)
}

// linkedVersion returns the version of quic-go in this program.
func linkedVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path != "github.com/quic-go/quic-go" {
				continue
			}
			for m.Replace != nil {
				m = m.Replace
			}
			if m.Version != "" {
				return m.Version
			}
		}
	}
	return quicGoVersion
}

func unsupported(what string) error {
	return &transport.UnsupportedError{Engine: engineName, What: what}
}
