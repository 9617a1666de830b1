//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

type netAddress = net.Addr

func always(net.Addr) bool { return true }

// A kernelPair is two endpoints on sockets of the kernel.
type kernelPair struct {
	client, server     *endpoint
	clientPC, serverPC *net.UDPConn
	ln                 transport.Listener
	cfg                *transport.Config
}

// patience bounds every wait for the kernel, for a loop and for a peer: it is not
// reached unless something is broken.
const patience = 5 * time.Minute

// patient is a Config whose timeouts a busy machine does not reach.
func patient(tls *tls.Config) *transport.Config {
	return &transport.Config{TLS: tls, HandshakeTimeout: patience, IdleTimeout: patience}
}

func newKernelPair(t testing.TB, network, addr string, opts *transport.Options) *kernelPair {
	t.Helper()
	ca := testcert.NewCA()
	l := &kernelPair{clientPC: listenUDP(t, network, addr), serverPC: listenUDP(t, network, addr)}
	var err error
	l.client, err = open(l.clientPC, nil)
	require.NoError(t, err)
	t.Cleanup(func() { l.client.Close() })
	l.server, err = open(l.serverPC, opts)
	require.NoError(t, err)
	t.Cleanup(func() { l.server.Close() })
	l.ln, err = l.server.Listen(patient(ca.Server("localhost", "test")))
	require.NoError(t, err)
	l.cfg = patient(ca.Client("localhost", "test"))
	return l
}

func (l *kernelPair) dial(t testing.TB, host string) (client, server transport.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	to := netip.AddrPortFrom(netip.MustParseAddr(host), l.server.socket.localAddr().Port())
	c, err := l.client.Dial(ctx, net.UDPAddrFromAddrPort(to), l.cfg)
	require.NoError(t, err)
	s, err := l.ln.Accept(ctx)
	require.NoError(t, err)
	return c, s
}

func TestADualStackSocketServesBothFamilies(t *testing.T) {
	l := newKernelPair(t, "udp", ":0", &transport.Options{RequireRetry: always})
	for _, host := range []string{"127.0.0.1", "::1", "127.0.0.5"} {
		c, s := l.dial(t, host)
		require.Equal(t, host, s.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().String(), "the address that the client called")
		done := make(chan error, 1)
		go func() { // ends with the stream
			in, err := s.AcceptStream(context.Background())
			if err == nil {
				_, err = io.Copy(in, in)
				in.Close()
			}
			done <- err
		}()
		out, err := c.OpenStream(context.Background())
		require.NoError(t, err)
		want := numbered(250, 1<<12, 1<<12)
		go func() { // likewise
			out.Write(want)
			out.Close()
		}()
		got, err := io.ReadAll(out)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, <-done)
	}
}

func TestWhatCannotBeReachedIsNotDialed(t *testing.T) {
	l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
	for _, to := range []net.Addr{nil, (*net.UDPAddr)(nil), elsewhere("x"), &net.UDPAddr{IP: net.IPv6loopback, Port: 1}, &net.UDPAddr{Port: 1}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}} {
		_, err := l.client.Dial(context.Background(), to, l.cfg)
		require.Error(t, err, "%v", to)
	}
	require.Zero(t, l.client.Stats().ConnsOpen)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := l.client.Dial(done, l.server.Addr(), l.cfg)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAnEndpointIsClosedByManyAtOnce(t *testing.T) {
	for range 5 {
		l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
		c, s := l.dial(t, "127.0.0.1")
		var wg sync.WaitGroup
		for _, f := range []func(){
			func() { l.client.Close() }, func() { l.client.Close() }, func() { l.server.Close() }, func() { l.ln.Close() },
			func() { c.CloseWithError(1, "") }, func() { s.CloseWithError(2, "") }, func() { l.serverPC.Close() },
			func() { l.client.Dial(context.Background(), l.server.Addr(), l.cfg) },
		} {
			wg.Go(f)
		}
		wg.Wait()
		require.NoError(t, l.client.Close())
		require.NoError(t, l.server.Close())
		require.Zero(t, l.client.Stats().ConnsOpen)
		require.Zero(t, l.server.Stats().ConnsOpen)
		require.ErrorIs(t, l.clientPC.Close(), net.ErrClosed)
	}
}
