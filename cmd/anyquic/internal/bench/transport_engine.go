package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/transport"
)

// transportIdle is the idle timeout of both sides: longer than any scenario
// leaves a connection alone.
const transportIdle = 5 * time.Minute

// ListenTransport listens on loopback with t and the named congestion control,
// for ServeTransport.
func ListenTransport(t transport.Transport, cc string) (transport.Listener, error) {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return nil, err
	}
	return transport.ListenAddr(t, "127.0.0.1:0", &transport.Config{
		TLS: benchproc.ServerTLS(cert), IdleTimeout: transportIdle, CongestionControl: cc,
	})
}

// ServeTransport answers the benchmark on l until it is closed.
func ServeTransport(l transport.Listener) error {
	for {
		c, err := l.Accept(context.Background())
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go serveConn(c) // ends with c, which ends with its Endpoint
	}
}

func serveConn(c transport.Conn) {
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go func() { _ = benchproc.ServeStream(s) }() // likewise; the client reports what it misses
	}
}

// DialTransport returns a Dialer for benchproc's client, which connects from ep
// with the named congestion control.
func DialTransport(ep transport.Endpoint, cc string) benchproc.Dialer {
	cfg := &transport.Config{TLS: benchproc.ClientTLS(), IdleTimeout: transportIdle, CongestionControl: cc}
	return func(ctx context.Context, addr string) (benchproc.Conn, error) {
		to, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return nil, err
		}
		c, err := ep.Dial(ctx, to, cfg)
		if err != nil {
			return nil, err
		}
		return transportConn{c}, nil
	}
}

type transportConn struct{ transport.Conn }

func (c transportConn) OpenStream(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.Conn.OpenStream(ctx)
}

func (c transportConn) Packets() uint64 {
	s := c.Stats()
	return s.PacketsSent + s.PacketsReceived
}

func (c transportConn) Close() error { return c.CloseWithError(0, "") }
