//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// A probe is a sink that a test looks into.
type probe struct {
	addrBook
	start  time.Time
	ahead  atomic.Uint64 // what the clock is set forward
	handle func(s socket, b *batch)
	failed chan error
}

func newProbe(handle func(socket, *batch)) *probe {
	return &probe{start: time.Now(), handle: handle, failed: make(chan error, 10)}
}

func (p *probe) route(s socket, b *batch)         { p.handle(s, b) }
func (p *probe) socketFailed(_ socket, err error) { p.failed <- err }
func (p *probe) now() uint64                      { return uint64(time.Since(p.start)) + 1e9 + p.ahead.Load() }

func listenUDP(t testing.TB, network, addr string) *net.UDPConn {
	t.Helper()
	a, err := net.ResolveUDPAddr(network, addr)
	require.NoError(t, err)
	pc, err := net.ListenUDP(network, a)
	require.NoError(t, err)
	t.Cleanup(func() { pc.Close() })
	return pc
}

func newTestLoop(t testing.TB, k sink, pc *net.UDPConn) *loopSocket {
	t.Helper()
	s := openTestLoop(t, k, pc)
	s.start()
	return s
}

func openTestLoop(t testing.TB, k sink, pc *net.UDPConn) *loopSocket {
	t.Helper()
	s, err := openLoop(k, pc)
	require.NoError(t, err)
	t.Cleanup(func() { s.close() })
	return s.(*loopSocket)
}

func portOf(t testing.TB, s socket, host string) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr(host), s.localAddr().Port())
}

// cpu returns the processor time of the process.
func cpu(t testing.TB) time.Duration {
	var r unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkPingPong(b *testing.B) {
	var wg sync.WaitGroup
	left := 0
	var answer [2]capi.Output
	echo := func(i int) func(socket, *batch) {
		return func(s socket, in *batch) {
			answer[i] = capi.Output{N: len(in.data), Path: in.path, ECN: 1}
			s.send(nil, &answer[i], in.data)
		}
	}
	again := echo(0)
	server := newTestLoop(b, newProbe(echo(1)), listenUDP(b, "udp4", "127.0.0.1:0"))
	client := newTestLoop(b, newProbe(func(s socket, in *batch) {
		if left--; left <= 0 {
			wg.Done()
			return
		}
		again(s, in)
	}), listenUDP(b, "udp4", "127.0.0.1:0"))
	wg.Add(1)
	left = b.N
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	client.send(nil, &capi.Output{N: 32, Path: capi.Path{Remote: server.local, Local: client.local}}, make([]byte, 32))
	wg.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkBulk(b *testing.B) {
	var got atomic.Int64
	more := make(chan struct{}, 1)
	server := newTestLoop(b, newProbe(func(s socket, in *batch) {
		got.Add(int64(len(in.data)))
		select {
		case more <- struct{}{}:
		default:
		}
	}), listenUDP(b, "udp4", "127.0.0.1:0"))
	client := newTestLoop(b, newProbe(nil), listenUDP(b, "udp4", "127.0.0.1:0"))
	buf := make([]byte, 44*1452)
	out := &capi.Output{N: len(buf), Segment: 1452, Path: capi.Path{Remote: server.local, Local: client.local}}
	sent := int64(0)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	for range b.N {
		client.send(nil, out, buf)
		for sent += int64(len(buf)); sent-got.Load() > 2<<20; {
			<-more
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// An arrival is a copy of a batch.
type arrival struct {
	batch
	from socket
}

// newCatcher is a sink that hands over copies.
func newCatcher() (*probe, chan arrival) {
	ch := make(chan arrival, 1000)
	return newProbe(func(s socket, b *batch) {
		c := *b
		c.data = bytes.Clone(b.data)
		ch <- arrival{c, s}
	}), ch
}

func next(t testing.TB, ch chan arrival) arrival {
	t.Helper()
	select {
	case a := <-ch:
		return a
	case <-time.After(patience):
		require.FailNow(t, "nothing has arrived")
	}
	panic("unreachable")
}

// numbered makes packets that differ.
func numbered(n, size, last int) []byte {
	var b []byte
	for i := range n {
		p := bytes.Repeat([]byte{byte(i)}, size)
		if i == n-1 {
			p = p[:last]
		}
		b = append(b, p...)
	}
	return b
}

// collect puts together what arrives, packet by packet.
func collect(t testing.TB, ch chan arrival, packets int) (data [][]byte, batches int) {
	t.Helper()
	for len(data) < packets {
		a := next(t, ch)
		batches++
		size := a.segment
		if size == 0 {
			size = len(a.data)
		}
		for b := a.data; len(b) > 0; {
			n := min(size, len(b))
			data = append(data, b[:n])
			b = b[n:]
		}
	}
	return data, batches
}

func TestPacketsTravelInOneMessageWithTheirECN(t *testing.T) {
	for _, network := range []struct{ name, addr string }{{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp", ":0"}, {"udp4", "0.0.0.0:0"}} {
		k, ch := newCatcher()
		server := newTestLoop(t, k, listenUDP(t, network.name, network.addr))
		require.True(t, server.gro)
		for _, host := range []string{"127.0.0.1", "::1"} {
			to := portOf(t, server, host)
			if bound := server.local.Addr(); bound.Is4() != to.Addr().Is4() && !(bound.Is6() && bound.IsUnspecified()) {
				continue
			}
			client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp", netip.AddrPortFrom(to.Addr(), 0).String()))
			buf := numbered(44, 1400, 700)
			require.False(t, client.send(nil, &capi.Output{N: len(buf), Segment: 1400, ECN: 2, Path: capi.Path{Local: client.local, Remote: to}}, buf))
			a := next(t, ch)
			require.Equal(t, buf, a.data, "%s to %s", network.addr, to)
			require.Equal(t, 1400, a.segment)
			require.EqualValues(t, 2, a.ecn)
			require.Equal(t, capi.Path{Local: to, Remote: client.local}, a.path, "the real local address")
			require.Same(t, server, a.from)
			require.True(t, client.gso.Load())
			require.True(t, client.ecn.Load())

			// And back, from the address that was meant.
			k2, back := newCatcher()
			other := newTestLoop(t, k2, listenUDP(t, "udp", netip.AddrPortFrom(to.Addr(), 0).String()))
			require.False(t, server.send(nil, &capi.Output{N: 5, ECN: 1, Path: capi.Path{Local: to, Remote: other.local}}, []byte("hello")))
			a = next(t, back)
			require.Equal(t, "hello", string(a.data))
			require.Equal(t, to, a.path.Remote)
			require.EqualValues(t, 1, a.ecn)
			require.Zero(t, a.segment)
		}
	}
}

func TestAWildcardSocketAnswersFromTheAddressThatWasAsked(t *testing.T) {
	k, ch := newCatcher()
	server := newTestLoop(t, k, listenUDP(t, "udp", ":0"))
	client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(portOf(t, server, "127.0.0.3")))
	require.NoError(t, err) // it takes packets of 127.0.0.3 only
	defer client.Close()
	_, err = client.Write([]byte("ping"))
	require.NoError(t, err)
	a := next(t, ch)
	require.Equal(t, "127.0.0.3", a.path.Local.Addr().String())
	server.send(nil, &capi.Output{N: 4, Path: a.path}, []byte("pong"))
	require.NoError(t, client.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 10)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "pong", string(b[:n]))
}

func TestManyPacketsGoWhereTheKernelTakesNoMoreThan64(t *testing.T) {
	k, ch := newCatcher()
	server := newTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
	client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "127.0.0.1:0"))
	for _, c := range []struct{ n, size, last int }{{200, 300, 5}, {1, 1200, 1200}, {2, 1200, 1}, {54, 1300, 1300}, {10, 9000, 9000}} {
		buf := numbered(c.n, c.size, c.last)
		client.send(nil, &capi.Output{N: len(buf), Segment: c.size, Path: capi.Path{Remote: server.local}}, buf)
		got, _ := collect(t, ch, c.n)
		require.Equal(t, buf, bytes.Join(got, nil))
		require.Len(t, got, c.n)
		require.True(t, client.gso.Load())
	}
}

func TestASocketWithoutGSOSendsOneByOne(t *testing.T) {
	for _, refuse := range []struct {
		name     string
		err      error
		what     int32 // type of the control message
		gso, ecn bool  // afterwards
	}{
		{"no checksums", unix.EIO, unix.UDP_SEGMENT, false, true},
		{"unknown option", unix.EINVAL, unix.UDP_SEGMENT, false, true},
		{"no ECN", unix.EIO, unix.IP_TOS, true, false},
	} {
		t.Run(refuse.name, func(t *testing.T) {
			k, ch := newCatcher()
			server := newTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
			client := openTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "127.0.0.1:0"))
			refused := 0
			client.sendmsg = func(o *outbox, fd int) error {
				for b := o.control[:o.hdr.Controllen]; len(b) > 0; {
					h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
					if h.Type == refuse.what {
						refused++
						return refuse.err
					}
					b = b[min(len(b), (int(h.Len)+7)&^7):]
				}
				return o.sendmsg(fd)
			}
			for range 3 {
				buf := numbered(20, 1000, 10)
				client.send(nil, &capi.Output{N: len(buf), Segment: 1000, ECN: 1, Path: capi.Path{Remote: server.local}}, buf)
				got, _ := collect(t, ch, 20)
				require.Equal(t, buf, bytes.Join(got, nil))
				require.Equal(t, refuse.gso, client.gso.Load())
				require.Equal(t, refuse.ecn, client.ecn.Load())
			}
			require.LessOrEqual(t, refused, 2, "it is not tried for each packet")
		})
	}
}

// A source address that is gone, or a destination that cannot be, says nothing
// about what the kernel can do.
func TestAnErrorWithAnotherReasonDoesNotEndGSO(t *testing.T) {
	k, ch := newCatcher()
	server := newTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
	client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "0.0.0.0:0"))
	buf := numbered(3, 1000, 1000)
	for _, p := range []capi.Path{
		{Local: netip.MustParseAddrPort("192.0.2.77:1"), Remote: server.local}, // not ours
		{Remote: netip.MustParseAddrPort("127.0.0.1:0")},
		{Remote: netip.MustParseAddrPort("[2001:db8::1]:1")},
		{Remote: netip.MustParseAddrPort("255.255.255.255:1")},
	} {
		require.False(t, client.send(nil, &capi.Output{N: len(buf), Segment: 1000, ECN: 1, Path: p}, buf))
	}
	require.True(t, client.gso.Load())
	require.True(t, client.ecn.Load())
	// A probe that is too large is lost, and nothing else.
	big := make([]byte, 65507)
	require.NoError(t, unix.SetsockoptInt(client.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20))
	client.send(nil, &capi.Output{N: len(big), Path: capi.Path{Remote: server.local}}, big)
	client.send(nil, &capi.Output{N: len(buf), Segment: 1000, ECN: 1, Path: capi.Path{Remote: server.local}}, buf)
	got, _ := collect(t, ch, 4)
	require.Equal(t, buf, bytes.Join(got[len(got)-3:], nil))
	require.True(t, client.gso.Load())
}

func TestASocketWithoutGROReadsPackets(t *testing.T) {
	k, ch := newCatcher()
	server := openTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
	require.NoError(t, unix.SetsockoptInt(server.fd, unix.SOL_UDP, unix.UDP_GRO, 0))
	server.gro = false
	server.start()
	client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "127.0.0.1:0"))
	buf := numbered(44, 1400, 1400)
	client.send(nil, &capi.Output{N: len(buf), Segment: 1400, Path: capi.Path{Remote: server.local}}, buf)
	got, batches := collect(t, ch, 44)
	require.Equal(t, buf, bytes.Join(got, nil))
	require.Equal(t, 44, batches)
}

// A waiter is a blocker that sends the rest when it may.
type waitingConn struct {
	mu   sync.Mutex
	free int
	more func()
}

func (w *waitingConn) unblocked() {
	w.mu.Lock()
	w.free++
	more := w.more
	w.mu.Unlock()
	if more != nil {
		more()
	}
}

func (w *waitingConn) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.free
}

func TestPacketsWaitForTheKernelToHaveRoom(t *testing.T) {
	k, ch := newCatcher()
	server := newTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
	client := openTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "127.0.0.1:0"))
	var full atomic.Bool
	client.sendmsg = func(o *outbox, fd int) error {
		if full.Load() {
			return unix.EAGAIN
		}
		return o.sendmsg(fd)
	}
	full.Store(true)
	buf := numbered(10, 1000, 500)
	out := &capi.Output{N: len(buf), Segment: 1000, ECN: 1, Path: capi.Path{Remote: server.local}}
	a, b := new(waitingConn), new(waitingConn)
	require.True(t, client.send(a, out, buf))
	require.True(t, client.send(b, out, buf))
	require.True(t, client.send(a, out, buf), "a farewell")
	require.False(t, client.send(nil, out, buf), "nobody waits")
	require.Equal(t, 3*len(buf), client.queued)
	clear(buf) // it was copied
	full.Store(false)
	client.start()
	got, _ := collect(t, ch, 30)
	require.Equal(t, bytes.Repeat(numbered(10, 1000, 500), 3), bytes.Join(got, nil))
	require.Eventually(t, func() bool { return a.count() == 1 && b.count() == 1 }, patience, time.Millisecond)
	client.blockedMu.Lock()
	defer client.blockedMu.Unlock()
	require.Zero(t, client.queued)
	require.Empty(t, client.queue)
	require.Empty(t, client.waiting)
}

func TestWhatWaitsForTheKernelIsBounded(t *testing.T) {
	client := openTestLoop(t, newProbe(nil), listenUDP(t, "udp4", "127.0.0.1:0"))
	client.sendmsg = func(*outbox, int) error { return unix.EAGAIN }
	buf := make([]byte, 60000)
	out := &capi.Output{N: len(buf), Segment: 1200, Path: capi.Path{Remote: client.local}}
	conns := make([]*waitingConn, 400)
	for i := range conns {
		conns[i] = new(waitingConn)
		for range 3 {
			require.True(t, client.send(conns[i], out, buf))
		}
	}
	require.LessOrEqual(t, client.queued, maxQueued)
	require.LessOrEqual(t, len(client.queue), 3*maxQueued/len(buf)+len(conns))
	client.sendmsg = func(*outbox, int) error { return nil }
	require.True(t, client.flush())
	for _, c := range conns {
		require.Equal(t, 1, c.count(), "those whose packets were lost are told too")
	}
	require.Zero(t, client.queued)
}

func TestAnIdleSocketSleeps(t *testing.T) {
	for _, kernel := range []string{"epoll_pwait2", "timerfd"} {
		k, _ := newCatcher()
		s := openTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
		if kernel == "timerfd" {
			require.NoError(t, s.openTimer())
		}
		s.start()
		far := sleepyAt(k.now() + uint64(time.Hour))
		s.wake(far)
		time.Sleep(200 * time.Millisecond)
		// Once for the timer; a signal of Go's scheduler can wake it too.
		require.LessOrEqual(t, s.wakeups.Load(), uint64(5), kernel)
		for range 100 { // it is later than what the loop waits for
			far.expiry.Add(uint64(time.Second))
			s.wake(far)
		}
		require.LessOrEqual(t, s.kicks.Load(), uint64(1), kernel)
		require.NoError(t, s.close())
	}
}

// An alarm tells when it fires.
type bell struct {
	timer
	rang chan uint64
}

func (b *bell) expired(now uint64) { b.rang <- now }

func TestTimersFireInTime(t *testing.T) {
	for _, kernel := range []string{"epoll_pwait2", "timerfd"} {
		k, _ := newCatcher()
		s := openTestLoop(t, k, listenUDP(t, "udp4", "127.0.0.1:0"))
		if kernel == "timerfd" {
			require.NoError(t, s.openTimer())
		}
		s.start()
		b := &bell{rang: make(chan uint64, 1)}
		for _, d := range []time.Duration{20 * time.Millisecond, 300 * time.Microsecond, time.Millisecond, 0} {
			at := k.now() + uint64(d)
			b.expiry.Store(at)
			s.wake(b)
			select {
			case now := <-b.rang:
				require.GreaterOrEqual(t, now, at, kernel)
				require.Less(t, now, at+uint64(patience), kernel)
			case <-time.After(patience):
				require.FailNow(t, "the timer has not fired", kernel)
			}
		}
		// One that is forgotten does not fire before a later one does.
		b.expiry.Store(k.now() + uint64(time.Hour))
		s.wake(b)
		s.forget(b)
		later := &bell{rang: make(chan uint64, 1)}
		later.expiry.Store(k.now() + uint64(2*time.Hour))
		s.wake(later)
		k.ahead.Add(uint64(3 * time.Hour))
		s.kick()
		select {
		case <-later.rang:
		case <-time.After(patience):
			require.FailNow(t, "the timer has not fired", kernel)
		}
		require.Empty(t, b.rang, kernel)
		require.NoError(t, s.close())
	}
}

func TestClosingFromManyGoroutinesClosesOnce(t *testing.T) {
	for range 50 {
		pc := listenUDP(t, "udp4", "127.0.0.1:0")
		k, _ := newCatcher()
		s := newTestLoop(t, k, pc)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { s.close() })
			wg.Go(func() {
				buf := make([]byte, 100)
				for range 20 {
					s.send(new(waitingConn), &capi.Output{N: 100, Path: capi.Path{Remote: s.local}}, buf)
				}
			})
			wg.Go(func() { s.wake(sleepyAt(5)) })
		}
		wg.Wait()
		require.NoError(t, s.close())
		require.Equal(t, -1, s.fd)
		require.ErrorIs(t, pc.Close(), net.ErrClosed)
		require.Empty(t, k.failed)
	}
}

// breakLoop makes the loop's next system call fail.
func breakLoop(t *testing.T, s *loopSocket) {
	t.Helper()
	require.NoError(t, unix.Dup3(s.event, s.epoll, unix.O_CLOEXEC)) // not an epoll instance
	s.kick()
}

func TestALoopThatFailsSaysSoAndEnds(t *testing.T) {
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	k, _ := newCatcher()
	s := newTestLoop(t, k, pc)
	breakLoop(t, s)
	select {
	case err := <-k.failed:
		require.ErrorIs(t, err, net.ErrClosed)
	case <-time.After(patience):
		require.FailNow(t, "it is not noticed")
	}
	wakeups := s.wakeups.Load()
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, wakeups, s.wakeups.Load(), "the loop has ended")
	require.NoError(t, s.close())
	require.Empty(t, k.failed)
}

func TestASocketThatFailsEndsItsConnections(t *testing.T) {
	l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
	_, s := l.dial(t, "127.0.0.1")
	breakLoop(t, l.server.socket.(*loopSocket))
	select {
	case <-s.Context().Done():
	case <-time.After(patience):
		require.FailNow(t, "the connection lives on")
	}
	require.ErrorIs(t, context.Cause(s.Context()), net.ErrClosed)
	_, err := l.ln.Accept(context.Background())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = l.server.Dial(context.Background(), l.client.Addr(), l.cfg)
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = l.server.Listen(&transport.Config{TLS: testcert.NewCA().Server("localhost", "test")})
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, l.server.Close())
}

func TestAnOpenEndpointNeedsItsSocketNoMore(t *testing.T) {
	l := newKernelPair(t, "udp4", "127.0.0.1:0", nil)
	// Go's poller does not watch it, nor can the caller disturb it.
	require.ErrorIs(t, l.serverPC.SetReadDeadline(time.Now()), net.ErrClosed)
	require.ErrorIs(t, l.serverPC.Close(), net.ErrClosed)
	require.Equal(t, l.server.socket.localAddr().String(), l.server.Addr().String())
	c, _ := l.dial(t, "127.0.0.1")
	pc := listenUDP(t, "udp4", "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, c.Migrate(ctx, pc))
	require.ErrorIs(t, pc.SetReadDeadline(time.Now()), net.ErrClosed)
	require.Equal(t, pc.LocalAddr().String(), c.LocalAddr().String())
	require.NoError(t, l.server.Close())
	require.Equal(t, "udp", l.server.Addr().Network())
}

func TestAReleasedSocketIsAsItWas(t *testing.T) {
	pc := listenUDP(t, "udp", ":0")
	options := func() (got []int) {
		raw, err := pc.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			for _, o := range [][2]int{{unix.SOL_UDP, unix.UDP_GRO}, {unix.IPPROTO_IP, unix.IP_PKTINFO}, {unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
				{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER}} {
				n, err := unix.GetsockoptInt(int(fd), o[0], o[1])
				require.NoError(t, err)
				got = append(got, n)
			}
		}))
		return got
	}
	before := options()
	k, _ := newCatcher()
	s := openTestLoop(t, k, pc)
	require.NotEqual(t, before, options())
	client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp", "[::1]:0"))
	buf := numbered(10, 1000, 1000)
	to := capi.Path{Remote: portOf(t, s, "::1")}
	client.send(nil, &capi.Output{N: len(buf), Segment: 1000, Path: to}, buf)
	waits := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}} // in the kernel, when it has come there
	require.Eventually(t, func() bool {
		n, err := unix.Poll(waits, 0)
		return err == nil && n == 1
	}, patience, time.Millisecond)
	s.release()
	s.release()
	require.NoError(t, s.close(), "nothing")
	require.Equal(t, before, options())
	client.send(nil, &capi.Output{N: 5, Path: to}, []byte("hello"))
	require.NoError(t, pc.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 1<<16)
	n, _, err := pc.ReadFrom(b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b[:n]), "what came before is gone")
}

func TestSendingAndReceivingDoNotAllocate(t *testing.T) {
	if instrumented {
		t.Skip("the race detector makes sync.Pool forget")
	}
	arrived := make(chan struct{}, 1000)
	server := newTestLoop(t, newProbe(func(socket, *batch) { arrived <- struct{}{} }), listenUDP(t, "udp", ":0"))
	client := newTestLoop(t, newProbe(nil), listenUDP(t, "udp", ":0"))
	buf := numbered(44, 1400, 700)
	out := &capi.Output{N: len(buf), Segment: 1400, ECN: 2, Path: capi.Path{Local: netip.MustParseAddrPort("127.0.0.1:1"), Remote: portOf(t, server, "127.0.0.1")}}
	allocs := testing.AllocsPerRun(500, func() {
		client.send(nil, out, buf)
		<-arrived
	})
	require.Less(t, allocs, 0.5)
}

func FuzzParseControl(f *testing.F) {
	o := new(outbox)
	n := o.put(0, unix.SOL_UDP, unix.UDP_GRO, 4)
	n = o.put(n, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	f.Add(bytes.Clone(o.control[:n]))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > controlSize {
			return
		}
		var in [controlSize]byte // aligned as the kernel's
		copy(in[:], b)
		c := parseControl(in[:len(b)])
		require.LessOrEqual(t, c.ecn, uint8(3))
	})
}
