//go:build ngtcp2 && cgo

package ngtcp2

import (
	"golang.org/x/sys/unix"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// maxQueued bounds the bytes that wait for the kernel. Who waits has one
// parcel or two, so they are of many connections.
const maxQueued = 16 << 20

// A parcel is what the kernel had no room for.
type parcel struct {
	c   blocker
	out capi.Output
	buf []byte // empty: lost
}

// send implements socket.
func (s *loopSocket) send(c blocker, out *capi.Output, buf []byte) (blocked bool) {
	if out.N <= 0 {
		return false
	}
	done, err := s.transmit(out, buf[:out.N])
	if err != unix.EAGAIN || c == nil { //nolint:errorlint // a system call's own
		return false
	}
	return s.hold(c, out, buf[done:out.N])
}

// transmit sends the packets in b. If the kernel has no room for more, it
// returns how many bytes of them it took, and EAGAIN. Any other error is of the
// last packet, which is lost, as it may be further on: it was too large for the
// interface (a probe for the path MTU), the host does not answer, the network
// is gone.
func (s *loopSocket) transmit(out *capi.Output, b []byte) (done int, err error) {
	s.fdMu.RLock()
	defer s.fdMu.RUnlock()
	if s.fd < 0 {
		return len(b), nil
	}
	o := outboxes.Get().(*outbox)
	size := out.Segment
	if size <= 0 || size > len(b) {
		size = len(b)
	}
	for done < len(b) {
		n := min(size, len(b)-done)
		gso := n < len(b)-done && s.gso.Load()
		if gso {
			n = min(len(b)-done, size*max(1, min(maxSegments, maxAggregate/size)))
		}
		m := sendMode{gso: n > size, ecn: out.ECN != 0 && s.ecn.Load()}
		err = s.try(o, out, b[done:done+n], m)
		if err == unix.EIO || err == unix.EINVAL { //nolint:errorlint // a system call's own
			n = min(n, size)
			err = s.tryLess(o, out, b[done:done+n], m)
		}
		if err == unix.EAGAIN { //nolint:errorlint // a system call's own
			break
		}
		done += n
	}
	o.iovec.Base = nil
	outboxes.Put(o)
	return done, err
}

// try sends one message.
func (s *loopSocket) try(o *outbox, out *capi.Output, b []byte, m sendMode) error {
	m.v6 = s.v6
	m.local = s.any && out.Path.Local.IsValid() && !out.Path.Local.Addr().IsUnspecified()
	if !o.fill(b, out, m, &s.zones) {
		return unix.EAFNOSUPPORT
	}
	for {
		err := s.sendmsg(o, s.fd)
		if err != unix.EINTR { //nolint:errorlint // a system call's own
			return err
		}
	}
}

// tryLess sends one packet with less than m after a failure, which a driver
// without checksums (EIO) or a kernel that does not know an option (EINVAL) may
// have caused. The reason can be another, such as a source address that is
// gone, so it gives up only what makes a difference.
func (s *loopSocket) tryLess(o *outbox, out *capi.Output, b []byte, m sendMode) error {
	err := error(unix.EINVAL)
	if m.gso {
		m.gso = false
		if err = s.try(o, out, b, m); err == nil {
			s.gso.Store(false)
		}
	}
	if m.ecn && (err == unix.EIO || err == unix.EINVAL) { //nolint:errorlint // a system call's own
		m.ecn = false
		if err = s.try(o, out, b, m); err == nil {
			s.ecn.Store(false)
		}
	}
	return err
}

// hold keeps a copy of packets until the kernel has room. It returns false if
// the socket has ended.
func (s *loopSocket) hold(c blocker, out *capi.Output, b []byte) bool {
	s.blockedMu.Lock()
	defer s.blockedMu.Unlock()
	if s.over.Load() {
		return false
	}
	p := parcel{c: c, out: *out}
	if s.queued+len(b) <= maxQueued {
		p.buf = append([]byte(nil), b...)
	} else if s.waiting[c] > 0 {
		return true // what is in the queue will tell c
	}
	p.out.N = len(p.buf)
	s.queued += len(p.buf)
	s.queue = append(s.queue, p)
	s.waiting[c]++
	if len(s.queue) == 1 {
		s.watchOut(true)
	}
	return true
}

// watchOut says whether the loop wakes when the kernel has room. The caller
// holds blockedMu.
func (s *loopSocket) watchOut(on bool) {
	s.fdMu.RLock()
	defer s.fdMu.RUnlock()
	if s.fd < 0 {
		return
	}
	events := uint32(unix.EPOLLIN)
	if on {
		events |= unix.EPOLLOUT
	}
	// It fails only for want of kernel memory. Then a timer of the connection
	// brings the loop here: see run.
	s.deaf.Store(s.watch(unix.EPOLL_CTL_MOD, s.fd, events) != nil && on)
}

// flush sends what is kept, as much as the kernel takes, and tells those that
// waited. It reports whether there was anybody.
func (s *loopSocket) flush() bool {
	var free []blocker
	s.blockedMu.Lock()
	n := 0
	for ; n < len(s.queue); n++ {
		p := &s.queue[n]
		if len(p.buf) > 0 {
			done, err := s.transmit(&p.out, p.buf)
			s.queued -= done
			if err == unix.EAGAIN { //nolint:errorlint // a system call's own
				p.buf = p.buf[done:]
				p.out.N = len(p.buf)
				break
			}
		}
		if s.waiting[p.c]--; s.waiting[p.c] == 0 {
			delete(s.waiting, p.c)
			free = append(free, p.c)
		}
		*p = parcel{}
	}
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
		s.watchOut(false)
	}
	s.blockedMu.Unlock()
	for _, c := range free {
		c.unblocked()
	}
	return len(free) > 0
}
