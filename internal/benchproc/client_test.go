package benchproc

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serveTCP is a server whose connections are one stream each.
func serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _ = ServeStream(c) }() // ends with c
	}
}

// A tcpConn is a Conn with one stream.
type tcpConn struct {
	*net.TCPConn
	used atomic.Bool
}

func dialTCP(ctx context.Context, addr string) (Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &tcpConn{TCPConn: c.(*net.TCPConn)}, nil
}

func (c *tcpConn) OpenStream(context.Context) (io.ReadWriteCloser, error) {
	if c.used.Swap(true) {
		return nil, errors.ErrUnsupported
	}
	return tcpStream{c.TCPConn}, nil
}

func (c *tcpConn) Packets() uint64 { return 0 }

type tcpStream struct{ *net.TCPConn }

func (s tcpStream) Close() error { return s.CloseWrite() }

// startSelf runs the test's own binary as the given kind of process.
func startSelf(t *testing.T, kind string) *Process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BENCHPROC="+kind)
	cmd.Stderr = t.Output()
	p, err := Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

func TestClientDoesWhatItIsTold(t *testing.T) {
	server, client := startSelf(t, "server"), startSelf(t, "client")
	addr := server.URLs["tcp"]
	call := func(req Request) (r Result) {
		t.Helper()
		require.NoError(t, client.Call(t.Context(), req, &r))
		return r
	}
	connect := func() { t.Helper(); call(Request{Do: DoConnect, Addr: addr}) }

	connect()
	before, err := server.Usage()
	require.NoError(t, err)
	require.Positive(t, call(Request{Do: DoUpload, N: 64 << 20}).Took)
	after, err := server.Usage()
	require.NoError(t, err)
	used := after.Sub(before)
	require.Positive(t, used.Mallocs)
	if runtime.GOOS == "linux" {
		require.Positive(t, used.CPU)
	}
	require.Less(t, used.CPU, patience)

	connect()
	r := call(Request{Do: DoDownload, N: 1 << 20})
	require.Equal(t, int64(1<<20), r.Bytes)
	require.Positive(t, r.Took)

	connect()
	r = call(Request{Do: DoWatch, For: 20 * time.Millisecond})
	require.GreaterOrEqual(t, r.Took, 20*time.Millisecond)
	require.Positive(t, r.Bytes)

	connect()
	r = call(Request{Do: DoPings, N: 50})
	require.Positive(t, r.P50)
	require.GreaterOrEqual(t, r.P99, r.P50)

	require.Positive(t, call(Request{Do: DoHandshakes, Addr: addr, N: 10, Parallel: 3}).Took)
	call(Request{Do: DoHold, Addr: addr, N: 20})
	call(Request{Do: DoOpen}) // the server has accepted them all when they have been echoed on
	with, err := server.Memory()
	require.NoError(t, err)
	require.GreaterOrEqual(t, with.Goroutines, 20, "the connections are held")
}

const patience = 30 * time.Second

func TestRequestThatFailsSaysWhy(t *testing.T) {
	server, client := startSelf(t, "server"), startSelf(t, "client")
	fails := func(req Request) error {
		t.Helper()
		err := client.Call(t.Context(), req, nil)
		require.Error(t, err)
		return err
	}
	require.ErrorContains(t, fails(Request{Do: DoPings, N: 1}), "not connected")
	require.ErrorContains(t, fails(Request{Do: DoConnect, Addr: "nowhere"}), "nowhere")
	require.ErrorIs(t, fails(Request{Do: "dance"}), errors.ErrUnsupported)

	require.NoError(t, client.Call(t.Context(), Request{Do: DoConnect, Addr: server.URLs["tcp"]}, nil))
	require.ErrorIs(t, fails(Request{Do: DoStreams, N: 2, Parallel: 1}), errors.ErrUnsupported, "a connection of one stream")
}

func TestCallEndsWithItsContext(t *testing.T) {
	server := startSelf(t, "server")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BENCHPROC=client")
	client, err := Start(cmd)
	require.NoError(t, err)
	require.NoError(t, client.Call(t.Context(), Request{Do: DoConnect, Addr: server.URLs["tcp"]}, nil))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	require.ErrorIs(t, client.Call(ctx, Request{Do: DoWatch, For: time.Hour}, nil), context.Canceled)
	require.Error(t, client.Stop(), "it was killed")
}
