package purego

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

// How long and how often a test looks for what another goroutine does. A busy
// machine does not reach it, unless something is broken.
const (
	wait = 5 * time.Minute
	tick = time.Millisecond
)

func udp(t testing.TB) net.PacketConn {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	return pc
}

func openUDP(t testing.TB, opts *transport.Options) *endpoint {
	ep, err := Transport.Open(udp(t), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ep.Close()) })
	return ep.(*endpoint)
}

// connect returns both ends of a connection over loopback.
func connect(t testing.TB, server, client func(*transport.Config)) (c, s *conn) {
	sTLS, cTLS := testcert.New("test")
	sCfg := &transport.Config{TLS: sTLS, HandshakeTimeout: wait, IdleTimeout: wait}
	cCfg := &transport.Config{TLS: cTLS, HandshakeTimeout: wait, IdleTimeout: wait}
	if server != nil {
		server(sCfg)
	}
	if client != nil {
		client(cCfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	sEP, cEP := openUDP(t, nil), openUDP(t, nil)
	l, err := sEP.Listen(sCfg)
	require.NoError(t, err)
	cc, err := cEP.Dial(ctx, sEP.Addr(), cCfg)
	require.NoError(t, err)
	sc, err := l.Accept(ctx)
	require.NoError(t, err)
	return cc.(*conn), sc.(*conn)
}

func TestNothingIsPrinted(t *testing.T) {
	defer log.SetOutput(log.Writer())
	var out bytes.Buffer
	log.SetOutput(&out)
	for _, pc := range []net.PacketConn{
		udp(t),                           // with small buffers in most systems
		struct{ net.PacketConn }{udp(t)}, // without options
		struct{ quic.OOBCapablePacketConn }{udp(t).(*net.UDPConn)}, // no net.Conn
	} {
		ep, err := Transport.Open(pc, nil)
		require.NoError(t, err)
		require.NoError(t, ep.Close())
	}
	require.Empty(t, out.String())
}

func TestOneSocketKeepsBatchesAndOptions(t *testing.T) {
	pc := udp(t)
	defer pc.Close()
	s := newSocket(pc)
	require.Implements(t, (*quic.OOBCapablePacketConn)(nil), s, "control messages, GSO")
	_, err := s.(syscallConn).SyscallConn()
	require.Error(t, err, "not before buffers are set")
	require.NoError(t, s.(*udpSocket).SetReadBuffer(1))
	require.NoError(t, s.(*udpSocket).SetWriteBuffer(1))
	_, err = s.(syscallConn).SyscallConn()
	require.NoError(t, err)
}

func TestReleasedSocketIsTheCallersAgain(t *testing.T) {
	for name, wrap := range map[string]func(net.PacketConn) net.PacketConn{
		"UDP":   func(pc net.PacketConn) net.PacketConn { return pc },
		"plain": func(pc net.PacketConn) net.PacketConn { return struct{ net.PacketConn }{pc} },
	} {
		t.Run(name, func(t *testing.T) {
			pc := wrap(udp(t))
			defer pc.Close()
			s := newSocket(pc)
			tr := &quic.Transport{Conn: s}
			_, err := tr.WriteTo([]byte("x"), pc.LocalAddr()) // starts reading
			require.NoError(t, err)
			s.release()
			n, err := s.WriteTo([]byte("dropped"), pc.LocalAddr())
			require.NoError(t, err)
			require.Equal(t, 7, n)
			_, err = pc.WriteTo([]byte("mine"), pc.LocalAddr())
			require.NoError(t, err)
			b := make([]byte, 10)
			for {
				n, _, err = pc.ReadFrom(b)
				require.NoError(t, err)
				if n == 4 {
					break // the first packet may not have been read
				}
			}
			require.Equal(t, "mine", string(b[:n]))
			s.end()
			require.NoError(t, tr.Close())
		})
	}
}

func TestMigrationThatFailsLeavesSocketAndConnection(t *testing.T) {
	c, s := connect(t, nil, nil)
	for range 2 {
		deaf := &deafSocket{PacketConn: udp(t)}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		require.ErrorIs(t, c.Migrate(ctx, deaf), context.DeadlineExceeded)
		cancel()
		_, err := deaf.PacketConn.WriteTo([]byte("x"), deaf.LocalAddr())
		require.NoError(t, err, "the socket is open")
		n, _, err := deaf.PacketConn.ReadFrom(make([]byte, 2000))
		require.NoError(t, err)
		require.Equal(t, 1, n, "and nobody else reads it")
		defer deaf.Close()
	}
	pc := udp(t)
	require.NoError(t, c.Migrate(context.Background(), pc))
	require.Equal(t, pc.LocalAddr(), c.LocalAddr())
	ws, err := c.OpenUniStream(context.Background())
	require.NoError(t, err)
	require.NoError(t, ws.Close())
	_, err = s.AcceptUniStream(context.Background())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.RemoteAddr().String() == pc.LocalAddr().String() }, wait, tick)
	require.NoError(t, c.CloseWithError(0, ""))
	require.NoError(t, c.ep.Close())
	_, err = pc.WriteTo([]byte("x"), pc.LocalAddr())
	require.ErrorIs(t, err, net.ErrClosed, "the connection has closed its socket")
}

// A deafSocket sends nothing, so that nothing arrives.
type deafSocket struct{ net.PacketConn }

func (s *deafSocket) WriteTo(p []byte, _ net.Addr) (int, error) { return len(p), nil }

func TestCloseEndsAWriteInProgress(t *testing.T) {
	c, s := connect(t, func(c *transport.Config) { c.StreamWindow = 1000 }, nil)
	ws, err := c.OpenUniStream(context.Background())
	require.NoError(t, err)
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	go func() {
		n, err := ws.Write(make([]byte, 100_000))
		done <- result{n, err}
	}()
	rs, err := s.AcceptUniStream(context.Background())
	require.NoError(t, err)
	require.NoError(t, ws.Close())
	r := <-done
	require.ErrorIs(t, r.err, net.ErrClosed)
	require.EqualValues(t, r.n, ws.Stats().BytesWritten)
	got, err := io.ReadAll(rs)
	require.NoError(t, err)
	require.Len(t, got, r.n, "what Write has accepted arrives")
}

func TestAddressesOfAnotherNetworkAreRefusedByDial(t *testing.T) {
	ep := openUDP(t, nil)
	_, cTLS := testcert.New("test")
	for _, addr := range []net.Addr{nil, &net.UnixAddr{Name: "x", Net: "unixgram"}} {
		_, err := ep.Dial(context.Background(), addr, &transport.Config{TLS: cTLS})
		require.Error(t, err)
	}
	require.Zero(t, ep.Stats())
}

func TestRingDropsTheOldest(t *testing.T) {
	r := ring{max: 3}
	for i := range byte(10) {
		old, full := r.push([]byte{i})
		require.Equal(t, i >= 3, full)
		if full {
			require.Equal(t, []byte{i - 3}, old)
		}
	}
	for i := range byte(3) {
		p, ok := r.pop()
		require.True(t, ok)
		require.Equal(t, []byte{7 + i}, p)
	}
	_, ok := r.pop()
	require.False(t, ok)
	require.LessOrEqual(t, len(r.buf), 3)
}

// BenchmarkStreamWrite compares with bare quic-go.
func BenchmarkStreamWrite(b *testing.B) {
	for _, size := range []int{64, 16 << 10} {
		name := map[int]string{64: "64B", 16 << 10: "16KiB"}[size]
		b.Run("purego/"+name, func(b *testing.B) {
			c, s := connect(b, nil, nil)
			ws, err := c.OpenUniStream(b.Context())
			require.NoError(b, err)
			benchWrite(b, ws, size, func() io.Reader {
				rs, err := s.AcceptUniStream(b.Context())
				require.NoError(b, err)
				return rs
			})
		})
		b.Run("quic-go/"+name, func(b *testing.B) {
			sTLS, cTLS := testcert.New("test")
			c, s := connectBare(b, sTLS, cTLS)
			ws, err := c.OpenUniStream()
			require.NoError(b, err)
			benchWrite(b, ws, size, func() io.Reader {
				rs, err := s.AcceptUniStream(b.Context())
				require.NoError(b, err)
				return rs
			})
		})
	}
}

func connectBare(b *testing.B, sTLS, cTLS *tls.Config) (c, s *quic.Conn) {
	sTr, cTr := &quic.Transport{Conn: udp(b)}, &quic.Transport{Conn: udp(b)}
	b.Cleanup(func() {
		for _, tr := range []*quic.Transport{cTr, sTr} {
			tr.Close()
			tr.Conn.Close()
		}
	})
	l, err := sTr.Listen(sTLS, nil)
	require.NoError(b, err)
	c, err = cTr.Dial(b.Context(), sTr.Conn.LocalAddr(), cTLS, nil)
	require.NoError(b, err)
	s, err = l.Accept(b.Context())
	require.NoError(b, err)
	return c, s
}

func benchWrite(b *testing.B, w io.WriteCloser, size int, accept func() io.Reader) {
	p := make([]byte, size)
	_, err := w.Write(p)
	require.NoError(b, err)
	r := accept()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			if _, err := r.Read(buf); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, w.Close())
	<-done
}
