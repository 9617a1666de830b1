package transport_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestDialAddrUsesTheHostAsServerName(t *testing.T) {
	serverTLS, clientTLS := testcert.New("test")
	clientTLS.ServerName = ""
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", patient(serverTLS))
	require.NoError(t, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		c, err := transport.DialAddr(t.Context(), engine.Default(), net.JoinHostPort(host, port), patient(clientTLS))
		require.NoError(t, err, host)
		_, err = ln.Accept(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.CloseWithError(0, ""))
	}
	require.Empty(t, clientTLS.ServerName, "the caller's configuration is not changed")

	wrong := clientTLS.Clone()
	wrong.ServerName = "elsewhere.example"
	_, err = transport.DialAddr(t.Context(), engine.Default(), net.JoinHostPort("127.0.0.1", port), patient(wrong))
	var e *transport.ProtocolError
	require.ErrorAs(t, err, &e, "a ServerName that is set is used")
}

// A watched Transport reports when an Endpoint of it was closed.
type watched struct {
	transport.Transport
	closed chan error
}

func (w watched) Open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	ep, err := w.Transport.Open(pc, opts)
	return watchedEndpoint{ep, w.closed}, err
}

type watchedEndpoint struct {
	transport.Endpoint
	closed chan error
}

func (w watchedEndpoint) Close() error {
	err := w.Endpoint.Close()
	w.closed <- err
	return err
}

// becomesFree waits until an address can be used. If it is somebody else's by
// now, as the kernel gives ports to all, that is not for long.
func becomesFree(t *testing.T, addr string) {
	t.Helper()
	require.Eventually(t, func() bool {
		pc, err := net.ListenPacket("udp", addr)
		return err == nil && pc.Close() == nil
	}, patience, time.Millisecond, "%s is in use", addr)
}

func TestDialAddrClosesItsSocketWithTheConnection(t *testing.T) {
	serverTLS, clientTLS := testcert.New("test")
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", patient(serverTLS))
	require.NoError(t, err)
	defer ln.Close()
	w := watched{engine.Default(), make(chan error, 2)}
	for _, byPeer := range []bool{false, true} {
		client, err := transport.DialAddr(t.Context(), w, ln.Addr().String(), patient(clientTLS))
		require.NoError(t, err)
		server, err := ln.Accept(t.Context())
		require.NoError(t, err)
		require.Empty(t, w.closed)
		if byPeer {
			require.NoError(t, server.CloseWithError(0, ""))
		} else {
			require.NoError(t, client.CloseWithError(0, ""))
		}
		require.NoError(t, <-w.closed)
		becomesFree(t, client.LocalAddr().String())
	}
	// A Dial that fails leaves nothing open either.
	wrong := clientTLS.Clone()
	wrong.NextProtos = []string{"other"}
	_, err = transport.DialAddr(t.Context(), w, ln.Addr().String(), patient(wrong))
	require.Error(t, err)
	require.NoError(t, <-w.closed)
}

func TestListenAddrClosesItsSocketWithTheListener(t *testing.T) {
	serverTLS, _ := testcert.New("test")
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", &transport.Config{TLS: serverTLS})
	require.NoError(t, err)
	addr := ln.Addr().String()
	_, err = transport.ListenAddr(engine.Default(), addr, &transport.Config{TLS: serverTLS})
	require.Error(t, err, "a port in use")
	require.NoError(t, ln.Close())
	becomesFree(t, addr)
}

func TestAddressesThatCannotBeUsedAreErrors(t *testing.T) {
	serverTLS, clientTLS := testcert.New("test")
	server, client := &transport.Config{TLS: serverTLS}, &transport.Config{TLS: clientTLS}
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:-1", "127.0.0.1:70000", "::1:443", "127.0.0.1:no-such-service"} {
		_, err := transport.DialAddr(t.Context(), engine.Default(), addr, client)
		require.Error(t, err, "DialAddr %q", addr)
	}
	for _, addr := range []string{"127.0.0.1", "127.0.0.1:70000", "192.0.2.1:0"} {
		_, err := transport.ListenAddr(engine.Default(), addr, server)
		require.Error(t, err, "ListenAddr %q", addr)
	}
	_, err := transport.DialAddr(t.Context(), engine.Default(), "127.0.0.1:443", nil)
	require.ErrorContains(t, err, "Config.TLS")
	_, err = transport.DialAddr(t.Context(), engine.Default(), "127.0.0.1:443", &transport.Config{})
	require.ErrorContains(t, err, "Config.TLS")
	_, err = transport.ListenAddr(engine.Default(), "127.0.0.1:0", &transport.Config{})
	require.Error(t, err)
}

func TestDialAddrEndsWithItsContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	_, clientTLS := testcert.New("test")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = transport.DialAddr(ctx, engine.Default(), silent.LocalAddr().String(), &transport.Config{TLS: clientTLS})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
