//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// inBubble runs f in virtual time with two sockets of a network.
func inBubble(t *testing.T, f func(t *testing.T, a, b *transporttest.Socket)) {
	synctest.Test(t, func(t *testing.T) {
		n := transporttest.NewNetwork(1)
		defer n.Close()
		a := n.Socket("192.0.2.1:1", transporttest.Link{}, transporttest.Link{})
		b := n.Socket("192.0.2.2:2", transporttest.Link{}, transporttest.Link{})
		defer b.Close()
		f(t, a, b)
	})
}

func TestAnySocketCarriesPackets(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *transporttest.Socket) {
		k, ch := newCatcher()
		s, err := openPlain(k, a)
		require.NoError(t, err)
		s.start()
		to := netip.MustParseAddrPort("192.0.2.2:2")
		buf := numbered(3, 100, 40)
		require.False(t, s.send(new(waitingConn), &capi.Output{N: len(buf), Segment: 100, ECN: 1, Path: capi.Path{Remote: to}}, append(buf, 1, 2, 3)))
		var got []byte
		for _, size := range []int{100, 100, 40} {
			p := make([]byte, 2000)
			n, from, err := b.ReadFrom(p)
			require.NoError(t, err)
			require.Equal(t, size, n)
			require.Equal(t, "192.0.2.1:1", from.String())
			got = append(got, p[:n]...)
		}
		require.Equal(t, buf, got)
		_, err = b.WriteTo([]byte("hello"), a.LocalAddr())
		require.NoError(t, err)
		synctest.Wait()
		in := <-ch
		require.Equal(t, "hello", string(in.data))
		require.Equal(t, capi.Path{Local: s.localAddr(), Remote: to}, in.path)
		require.NoError(t, s.close())
		require.True(t, a.Closed())
		require.NoError(t, s.close())
		require.False(t, s.send(nil, &capi.Output{N: 3, Path: in.path}, []byte("abc")))
		require.Empty(t, k.failed)
	})
}

func TestTimersOfAnySocketFireInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, a, _ *transporttest.Socket) {
		k, _ := newCatcher()
		s, err := openPlain(k, a)
		require.NoError(t, err)
		s.start()
		defer s.close()
		b := &bell{rang: make(chan uint64, 1)}
		for _, d := range []time.Duration{time.Nanosecond, 3 * time.Millisecond, 26 * time.Hour, 0} {
			at := k.now() + uint64(d)
			b.expiry.Store(at)
			s.wake(b)
			require.Equal(t, at, <-b.rang)
		}
		late := k.now() + uint64(time.Hour)
		b.expiry.Store(late)
		s.wake(b)
		time.Sleep(time.Minute)
		require.Empty(t, b.rang)
		b.expiry.Store(k.now() + 5) // earlier than the loop expects
		s.wake(b)
		require.Less(t, <-b.rang, late)
		b.expiry.Store(k.now() + 5)
		s.wake(b)
		s.forget(b)
		time.Sleep(2 * time.Hour)
		require.Empty(t, b.rang)
	})
}

func TestAReleasedSocketIsTheCallersAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *transporttest.Socket) {
		k, _ := newCatcher()
		s, err := openPlain(k, a)
		require.NoError(t, err)
		s.start()
		synctest.Wait() // it reads
		s.release()
		s.release()
		require.NoError(t, s.close(), "nothing")
		require.False(t, a.Closed())
		_, err = b.WriteTo([]byte("mine"), a.LocalAddr())
		require.NoError(t, err)
		p := make([]byte, 10)
		n, _, err := a.ReadFrom(p)
		require.NoError(t, err, "no deadline is left")
		require.Equal(t, "mine", string(p[:n]))
		require.NoError(t, a.Close())
		require.Empty(t, k.failed)
	})
}

func TestAnySocketThatIsClosedByOthersFails(t *testing.T) {
	inBubble(t, func(t *testing.T, a, _ *transporttest.Socket) {
		k, _ := newCatcher()
		s, err := openPlain(k, a)
		require.NoError(t, err)
		s.start()
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-k.failed, net.ErrClosed)
		s.send(nil, &capi.Output{N: 3, Path: capi.Path{Remote: somewhere}}, []byte("abc"))
		require.Empty(t, k.failed, "it is told once")
		require.NoError(t, s.close())
	})
}

// A faulty is a net.PacketConn whose reads fail as a test says, and whose peers
// are not of UDP.
type faulty struct {
	net.PacketConn
	mu     sync.Mutex
	errs   []error
	reads  int
	closed chan struct{}
	packet []byte
	wrote  []net.Addr
}

func (f *faulty) LocalAddr() net.Addr { return elsewhere("here") }

func (f *faulty) ReadFrom(b []byte) (int, net.Addr, error) {
	f.mu.Lock()
	f.reads++
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		f.mu.Unlock()
		return 0, nil, err
	}
	p := f.packet
	f.packet = nil
	f.mu.Unlock()
	if p != nil {
		return copy(b, p), elsewhere("there"), nil
	}
	<-f.closed
	return 0, nil, net.ErrClosed
}

func (f *faulty) WriteTo(b []byte, to net.Addr) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote = append(f.wrote, to)
	return 0, errors.New("no")
}

func (f *faulty) SetReadDeadline(time.Time) error { return nil }

func (f *faulty) Close() error { close(f.closed); return nil }

func TestReadErrorsThatPassAreNoEnd(t *testing.T) {
	again := &net.OpError{Op: "read", Err: os.NewSyscallError("recvfrom", syscall.EINTR)}
	f := &faulty{closed: make(chan struct{}), errs: []error{again, os.ErrDeadlineExceeded, again}, packet: []byte("hello")}
	k, ch := newCatcher()
	s, err := openPlain(k, f)
	require.NoError(t, err)
	s.start()
	in := next(t, ch)
	require.Equal(t, elsewhere("there"), k.netAddr(in.path.Remote))
	require.Equal(t, elsewhere("here"), k.netAddr(in.path.Local))
	s.send(nil, &capi.Output{N: 2, Path: in.path}, []byte("hi"))
	require.Equal(t, []net.Addr{elsewhere("there")}, f.wrote)
	require.Empty(t, k.failed, "a packet is lost, no more")
	require.NoError(t, s.close())
	require.True(t, temporary(again))
	require.False(t, temporary(net.ErrClosed))
}

func TestReadErrorsWithoutEndEndTheSocket(t *testing.T) {
	f := &faulty{closed: make(chan struct{})}
	for range 10 * maxFailures {
		f.errs = append(f.errs, os.ErrDeadlineExceeded)
	}
	k, _ := newCatcher()
	s, err := openPlain(k, f)
	require.NoError(t, err)
	s.start()
	require.ErrorIs(t, <-k.failed, os.ErrDeadlineExceeded)
	require.LessOrEqual(t, f.reads, maxFailures+1, "no spin")
	require.NoError(t, s.close())

	f = &faulty{closed: make(chan struct{}), errs: []error{errors.New("broken")}}
	s, err = openPlain(k, f)
	require.NoError(t, err)
	s.start()
	require.ErrorContains(t, <-k.failed, "broken")
	require.NoError(t, s.close())
	require.Equal(t, 1, f.reads)
}

// endless is a net.PacketConn without deadlines.
type endless struct{ net.PacketConn }

func (endless) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

func TestASocketWithoutDeadlinesIsGivenBackWithAnError(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		c, s := r.dial()
		time.Sleep(time.Second)
		pc := r.network.Socket("198.51.100.1:50001", transporttest.Link{}, transporttest.Link{Loss: 1})
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := c.Migrate(ctx, endless{pc})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, os.ErrNoDeadline, "the caller is told that the socket is not free yet")
		require.Equal(t, time.Second, time.Since(start))
		r.works(c, s)
		require.NoError(t, pc.Close()) // ends the reader
	})
}
