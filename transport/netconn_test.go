package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// patience bounds what takes as long as the machine takes: it is not reached unless
// something is broken.
const patience = 5 * time.Minute

// connect returns both ends of a connection over loopback.
func connect(t *testing.T) (client, server transport.Conn) {
	t.Helper()
	serverTLS, clientTLS := testcert.New("test")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", patient(serverTLS))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ln.Close()) })
	client, err = transport.DialAddr(ctx, engine.Default(), ln.Addr().String(), patient(clientTLS))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.CloseWithError(0, "")) })
	server, err = ln.Accept(ctx)
	require.NoError(t, err)
	return client, server
}

// patient is a Config whose timeouts a busy machine does not reach.
func patient(tls *tls.Config) *transport.Config {
	return &transport.Config{TLS: tls, HandshakeTimeout: patience, IdleTimeout: patience}
}

// netConns returns both ends of a stream as net.Conns.
func netConns(t *testing.T, client, server transport.Conn) (near, far net.Conn) {
	t.Helper()
	c, err := client.OpenStream(t.Context())
	require.NoError(t, err)
	_, err = c.Write([]byte("!"))
	require.NoError(t, err)
	s, err := server.AcceptStream(t.Context())
	require.NoError(t, err)
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(t, err)
	return transport.NetConn(client, c), transport.NetConn(server, s)
}

func TestNetConnHasTheAddressesOfItsConnection(t *testing.T) {
	client, server := connect(t)
	near, far := netConns(t, client, server)
	require.Equal(t, client.LocalAddr(), near.LocalAddr())
	require.Equal(t, client.RemoteAddr(), near.RemoteAddr())
	require.Equal(t, server.LocalAddr(), far.LocalAddr())
	require.Equal(t, server.RemoteAddr(), far.RemoteAddr())
}

func TestCloseOfANetConnDeliversAndEndsBothDirections(t *testing.T) {
	client, server := connect(t)
	near, far := netConns(t, client, server)
	_, err := near.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, near.Close())
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "last words", string(got))
	require.NoError(t, far.SetWriteDeadline(time.Now().Add(patience)))
	for err == nil { // until STOP_SENDING has arrived
		_, err = far.Write([]byte("x"))
	}
	require.ErrorIs(t, err, &transport.StreamError{Code: 0})
	require.NoError(t, far.Close(), "that the peer closed first is no error")
	_, err = near.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = near.Write([]byte("x"))
	require.True(t, errors.Is(err, net.ErrClosed), "%v", err)
	require.NoError(t, client.Context().Err(), "the connection lives on")
}
