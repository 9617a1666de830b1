//go:build ngtcp2 && cgo

package ngtcp2

import (
	"net"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// Transport is the native engine.
//
// The application's callbacks of a handshake (VerifyConnection, a crypto.Signer
// and so on) run inside the library, which can do nothing else for that
// connection meanwhile. While one takes long, a call for a stream, a datagram or
// early data of the connection waits for it, as long as its context or deadline
// and the connection last; one without either, such as SendDatagram or the Close
// of a stream, waits for the callback, so that a callback must make none. A
// connection's CloseWithError, State and Stats do not wait, and Handshake waits
// for its context.
var Transport transport.Transport = engine{}

// New returns the native engine with what only it can be told. What k says
// wrongly, Dial and Listen refuse.
func New(k Knobs) transport.Transport { return engine{&k} }

const engineName = "ngtcp2"

// congestionControls are the algorithms of libngtcp2, the default first.
var congestionControls = []string{"cubic", "bbr", "reno"}

type engine struct{ knobs *Knobs }

func (engine) Name() string { return engineName }

func (engine) Features() transport.Features {
	return transport.Features{
		EarlyData:         true,
		Datagrams:         true,
		Migration:         true,
		QLog:              true,
		ReadAfterEnd:      true,
		RawPublicKeys:     capi.TLSLibrary() == "openssl",
		CongestionControl: append([]string(nil), congestionControls...),
		Versions:          capi.Versions(),
	}
}

func (g engine) Open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	e, err := openWith(g.knobs, pc, opts)
	if err != nil {
		return nil, err
	}
	return e, nil
}

func unsupported(what string) error {
	return &transport.UnsupportedError{Engine: engineName, What: what}
}
