//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A loopSocket is a UDP socket of the kernel. One goroutine waits for packets
// and timers in a system call with a resolution of nanoseconds, which Go's own
// timers do not have and pacing needs. It takes what arrived in batches and,
// having made other goroutines runnable, lets them run before it waits again:
// they are on the processor that its next system call would keep.
//
// Others send from their own goroutines, and wake the loop only for a timer
// that is earlier than the one it waits for.
type loopSocket struct {
	sink    sink
	pc      *net.UDPConn
	local   netip.AddrPort
	any     bool // bound to all addresses
	v6      bool
	gro     bool
	options udpOptions
	zones   zones
	timers  timers

	epoll, event int
	timerfd      int        // -1 if the kernel waits with nanoseconds
	owing        []answerer // loop only; of one read
	armed        uint64     // loop only; when timerfd expires, 0: it does not

	gso, ecn atomic.Bool   // the kernel takes them
	deaf     atomic.Bool   // the loop does not hear when the kernel has room
	kicks    atomic.Uint64 // of others
	wakeups  atomic.Uint64

	over   atomic.Bool // the loop ends
	closed atomic.Bool // close or release was called
	wg     sync.WaitGroup

	// fdMu is held for reading while fd and event are used outside of the
	// loop. fd is a duplicate of pc's descriptor: it stays valid, and the same
	// socket, until this side closes it. See own.
	fdMu sync.RWMutex
	fd   int // -1 when closed

	sendmsg func(*outbox, int) error // replaced by tests

	blockedMu sync.Mutex
	queue     []parcel        // guarded by blockedMu
	queued    int             // guarded by blockedMu; bytes in queue
	waiting   map[blocker]int // guarded by blockedMu; parcels of each in queue
}

// openLoop prepares a loop on a UDP socket.
func openLoop(k sink, pc *net.UDPConn) (_ socket, err error) {
	local, err := addrPort(pc.LocalAddr())
	if err != nil {
		return nil, fmt.Errorf("ngtcp2: open: %w", err)
	}
	s := &loopSocket{
		sink: k, pc: pc, local: local, any: local.Addr().IsUnspecified(),
		fd: -1, epoll: -1, event: -1, timerfd: -1,
		sendmsg: (*outbox).sendmsg,
		waiting: make(map[blocker]int),
	}
	s.timers.kick = s.kick
	defer func() {
		if err != nil {
			s.options.restore()
			s.closeAll()
			err = fmt.Errorf("ngtcp2: open: %w", err)
		}
	}()
	raw, err := pc.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(cerr, err); err != nil {
		s.fd = -1
		return nil, err
	}
	if err = s.setOptions(); err != nil {
		return nil, err
	}
	if err = s.openEpoll(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *loopSocket) start() { s.wg.Go(s.run) } // ended by stop

// own implements socket. While pc is open, Go's poller watches it too, and every
// packet wakes a thread for it, which finds nobody that waits.
func (s *loopSocket) own() { _ = s.pc.Close() }

func (s *loopSocket) setOptions() error {
	// A socket of SOCK_NONBLOCK is what Go makes, but the descriptor may have
	// been shared with others.
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	s.v6 = domain == unix.AF_INET6
	growBuffer(s.fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
	growBuffer(s.fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
	o := &s.options
	o.fd = s.fd
	// What a kernel does not have, QUIC does without, except for the source
	// address on a socket with many: an answer from another one is dropped.
	s.ecn.Store(o.set(unix.IPPROTO_IP, unix.IP_RECVTOS, 1) == nil)
	// RFC 9000, Section 14: datagrams are not fragmented. The kernel's idea of
	// the path MTU is ignored, as anybody can forge it.
	_ = o.set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	infoErr := error(nil)
	if s.any {
		infoErr = o.set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if s.v6 {
		_ = o.set(unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		_ = o.set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		if s.any {
			infoErr = o.set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	}
	if infoErr != nil {
		return os.NewSyscallError("setsockopt", infoErr)
	}
	s.gro = o.set(unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	_, err = unix.GetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	s.gso.Store(err == nil)
	return nil
}

func (s *loopSocket) openEpoll() (err error) {
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		s.epoll = -1
		return os.NewSyscallError("epoll_create1", err)
	}
	if s.event, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		s.event = -1
		return os.NewSyscallError("eventfd", err)
	}
	// Each write to it is an event of its own: it is never read.
	if err = s.watch(unix.EPOLL_CTL_ADD, s.event, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return err
	}
	if err = s.watch(unix.EPOLL_CTL_ADD, s.fd, unix.EPOLLIN); err != nil {
		return err
	}
	if hasPwait2() {
		return nil
	}
	return s.openTimer()
}

// openTimer makes up for a kernel without epoll_pwait2 (before 5.11).
func (s *loopSocket) openTimer() (err error) {
	if s.timerfd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		s.timerfd = -1
		return os.NewSyscallError("timerfd_create", err)
	}
	return s.watch(unix.EPOLL_CTL_ADD, s.timerfd, unix.EPOLLIN|unix.EPOLLET)
}

func (s *loopSocket) watch(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// A timespec is the kernel's, which has 64 bits everywhere.
type timespec struct{ sec, nsec int64 }

// hasPwait2 asks the kernel, once.
var hasPwait2 = sync.OnceValue(func() bool {
	_, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, math.MaxUint32, 0, 0, 0, 0, 0)
	return errno != unix.ENOSYS && errno != unix.EPERM // which some sandboxes say
})

func (s *loopSocket) localAddr() netip.AddrPort { return s.local }
func (s *loopSocket) netConn() net.PacketConn   { return s.pc }
func (s *loopSocket) wake(c sleeper)            { s.timers.set(c) }
func (s *loopSocket) forget(c sleeper)          { s.timers.forget(c) }

// kick wakes the loop.
func (s *loopSocket) kick() {
	s.fdMu.RLock()
	defer s.fdMu.RUnlock()
	if s.event >= 0 {
		s.kicks.Add(1)
		one := [8]byte{1}
		if !isLittleEndian {
			one = [8]byte{7: 1}
		}
		_, _ = unix.Write(s.event, one[:])
	}
}

var isLittleEndian = ntohs(1) != 1

// run is the loop. It ends with stop, or when the socket fails.
func (s *loopSocket) run() {
	var events [4]unix.EpollEvent
	b := new(batch)
	failures := 0
	for {
		n, err := s.wait(&events, s.timers.sleep())
		s.timers.awake()
		s.wakeups.Add(1)
		if s.over.Load() {
			return
		}
		if err != nil {
			s.fail(err)
			return
		}
		readable, writable := false, false
		for _, ev := range events[:n] {
			if int(ev.Fd) == s.fd {
				readable = readable || ev.Events&^unix.EPOLLOUT != 0
				writable = writable || ev.Events&unix.EPOLLOUT != 0
			}
		}
		work := false
		if readable {
			got, err := s.read(b)
			switch {
			case got:
				work, failures = true, 0
			case err != nil:
				// A socket reports the fate of packets that it has sent in
				// this way, once each.
				if failures++; failures == maxFailures || fatal(err) {
					s.fail(os.NewSyscallError("recvmmsg", err))
					return
				}
			}
		}
		if s.expire() {
			work = true
		}
		if (writable || s.deaf.Load()) && s.flush() {
			work = true
		}
		if s.over.Load() {
			return
		}
		if work {
			runtime.Gosched()
		}
	}
}

func fatal(err error) bool {
	return errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOTSOCK) || errors.Is(err, unix.EFAULT)
}

// wait waits for events until a time.
func (s *loopSocket) wait(events *[4]unix.EpollEvent, until uint64) (int, error) {
	var ts timespec
	var tsp *timespec
	if until != capi.NoExpiry {
		d := uint64(0)
		if now := s.sink.now(); until > now {
			d = min(until-now, math.MaxInt64)
		}
		ts = timespec{int64(d / uint64(time.Second)), int64(d % uint64(time.Second))}
		tsp = &ts
	}
	if s.timerfd >= 0 {
		return s.waitTimer(events, until, ts)
	}
	//nolint:gosec // G103: the system call takes addresses
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(s.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(tsp)), 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, os.NewSyscallError("epoll_pwait2", errno)
	}
	return int(n), nil
}

// waitTimer is wait with the help of timerfd.
func (s *loopSocket) waitTimer(events *[4]unix.EpollEvent, until uint64, d timespec) (int, error) {
	ms := -1
	switch {
	case until == capi.NoExpiry:
	case d == timespec{}:
		ms = 0
	case until != s.armed:
		s.armed = until
		spec := unix.ItimerSpec{Value: unix.NsecToTimespec(min(d.sec, 1<<31-1)*int64(time.Second) + d.nsec)}
		if err := unix.TimerfdSettime(s.timerfd, 0, &spec, nil); err != nil {
			return 0, os.NewSyscallError("timerfd_settime", err)
		}
	}
	n, err := unix.EpollWait(s.epoll, events[:], ms)
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("epoll_wait", err)
	}
	return n, nil
}

// fewBytes is how much a batch may have, in bytes, for those that have got something
// to run before it is acknowledged: what they answer takes the acknowledgment along.
// With more, the peer is sending a large amount and waits for acknowledgments.
const fewBytes = 16 << 10

// read takes one batch of messages from the kernel.
func (s *loopSocket) read(b *batch) (got bool, err error) {
	pool, count, size := &inboxes, groMessages, groSize
	if !s.gro {
		pool, count, size = &smallInboxes, oneMessages, oneSize
	}
	in := pool.Get().(*inbox)
	defer pool.Put(in)
	n, err := in.receive(s.fd, count)
	if err != nil {
		if err == unix.EAGAIN || err == unix.EINTR { //nolint:errorlint // a system call's own
			return false, nil
		}
		return false, err
	}
	now := s.sink.now()
	s.owing = s.owing[:0]
	bytes := 0
	for i := range n {
		var ok bool
		if *b, ok = in.parse(i, size, &s.zones); !ok {
			continue
		}
		b.now, b.later = now, &s.owing
		local := s.local
		if s.any && b.path.Local.IsValid() {
			local = netip.AddrPortFrom(b.path.Local.Addr(), s.local.Port())
		}
		b.path.Local = local
		bytes += len(b.data)
		s.sink.route(s, b)
		if s.over.Load() {
			break
		}
	}
	b.data = nil // it is the pool's
	if len(s.owing) > 0 && bytes <= fewBytes {
		for _, c := range s.owing {
			c.wakeFirst()
		}
		runtime.Gosched()
	}
	for i, c := range s.owing {
		s.owing[i] = nil
		c.answer(now)
	}
	return n > 0, nil
}

// expire runs the timers whose time has come.
func (s *loopSocket) expire() (any bool) {
	now := s.sink.now()
	for c := s.timers.due(now); c != nil; c = s.timers.due(now) {
		any = true
		c.expired(now)
		if s.over.Load() {
			break
		}
	}
	return any
}

// fail reports that the socket is of no use any more. The loop calls it, and
// ends.
func (s *loopSocket) fail(err error) {
	if s.over.Load() {
		return
	}
	s.sink.socketFailed(s, &socketError{err})
}

// stop ends the loop and waits for it.
func (s *loopSocket) stop() {
	s.over.Store(true)
	s.kick()
	s.wg.Wait()
	s.timers.close()
	s.blockedMu.Lock()
	defer s.blockedMu.Unlock()
	s.queue, s.queued = nil, 0
	clear(s.waiting)
}

func (s *loopSocket) close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.stop()
	s.closeAll()
	if err := s.pc.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // by own, or somebody else
}

// release implements socket. Packets that are in the kernel are dropped: they
// may be several in one message, which the caller would not expect.
func (s *loopSocket) release() {
	if s.closed.Swap(true) {
		return
	}
	s.stop()
	s.options.restore()
	in := smallInboxes.Get().(*inbox)
	for range maxDrained {
		if n, err := in.receive(s.fd, oneMessages); n <= 0 && err != unix.EINTR { //nolint:errorlint // a system call's own
			break
		}
	}
	smallInboxes.Put(in)
	s.closeAll()
}

// maxDrained bounds the batches of packets that release drops.
const maxDrained = 1000

// closeAll closes the descriptors. The loop does not run.
func (s *loopSocket) closeAll() {
	s.fdMu.Lock()
	defer s.fdMu.Unlock()
	for _, fd := range []*int{&s.fd, &s.epoll, &s.event, &s.timerfd} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
