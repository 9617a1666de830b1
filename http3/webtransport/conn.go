package webtransport

import (
	"context"
	"net"

	"github.com/anyquic/anyquic/transport"
)

// A sessionConn is a session as a transport.Conn.
type sessionConn struct{ *Session }

var _ transport.Conn = sessionConn{}

// TransportConn returns the session as a [transport.Conn], so that what runs on
// QUIC runs on WebTransport: its streams and datagrams are those of the session,
// its end is the session's, and its error codes have 32 bits. Addresses,
// statistics and the state of TLS are those of the connection below, which
// Migrate moves with all that it carries.
func (s *Session) TransportConn() transport.Conn { return sessionConn{s} }

func (c sessionConn) OpenStream(ctx context.Context) (transport.Stream, error) {
	b, err := c.Session.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (c sessionConn) OpenUniStream(ctx context.Context) (transport.SendStream, error) {
	w, err := c.Session.OpenUniStream(ctx)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (c sessionConn) AcceptStream(ctx context.Context) (transport.Stream, error) {
	b, err := c.Session.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (c sessionConn) AcceptUniStream(ctx context.Context) (transport.ReceiveStream, error) {
	r, err := c.Session.AcceptUniStream(ctx)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Handshake returns at once: a session begins after the handshake.
func (c sessionConn) Handshake(ctx context.Context) error { return c.conn.Transport().Handshake(ctx) }

func (c sessionConn) Migrate(ctx context.Context, pc net.PacketConn) error {
	return c.conn.Transport().Migrate(ctx, pc)
}

func (c sessionConn) State() transport.ConnState {
	st := c.conn.Transport().State()
	st.MaxDatagram = c.MaxDatagram()
	return st
}

func (c sessionConn) Stats() transport.Stats { return c.conn.Transport().Stats() }

func (c sessionConn) CloseWithError(code transport.ErrorCode, reason string) error {
	return c.Session.CloseWithError(clampCode(code), reason)
}
