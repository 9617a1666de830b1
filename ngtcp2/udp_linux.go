//go:build ngtcp2 && cgo

package ngtcp2

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

const (
	// A socket with GRO gets many packets of one sender in one message.
	groMessages = 8
	groSize     = 1 << 16

	// Without it, the same memory takes more messages of a packet each. What
	// is longer is dropped, as a path with that MTU does.
	oneMessages = 32
	oneSize     = groMessages * groSize / oneMessages

	controlSize = 128

	// The kernel takes that many packets in a message, and that many bytes
	// (RFC 768 and RFC 791 leave 65,507).
	maxSegments  = 64
	maxAggregate = 65507

	ecnMask = 3
)

// A message is the kernel's struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	len uint32
}

// An inbox is the memory for one recvmmsg. It is all prepared but for what the
// kernel overwrites.
type inbox struct {
	messages [oneMessages]message
	iovecs   [oneMessages]unix.Iovec
	names    [oneMessages]unix.RawSockaddrInet6 // large enough for IPv4
	controls [oneMessages][controlSize]byte
	data     [groMessages * groSize]byte
}

// Inboxes are shared by all sockets, so that an idle one needs none.
var inboxes = sync.Pool{New: func() any { return newInbox(groMessages, groSize) }}

var smallInboxes = sync.Pool{New: func() any { return newInbox(oneMessages, oneSize) }}

func newInbox(n, size int) *inbox {
	in := new(inbox)
	for i := range n {
		in.iovecs[i].Base = &in.data[i*size]
		in.iovecs[i].SetLen(size)
		h := &in.messages[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&in.names[i])) //nolint:gosec // G103: the kernel takes addresses
		h.Iov = &in.iovecs[i]
		h.SetIovlen(1)
		h.Control = &in.controls[i][0]
	}
	return in
}

// receive reads up to n messages from fd without waiting.
func (in *inbox) receive(fd, n int) (int, error) {
	for i := range n {
		h := &in.messages[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	//nolint:gosec // G103: the kernel takes addresses
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.messages[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

// parse describes message i, whose buffer has size bytes. It returns false for
// one that is to be dropped. The path's local address has no port.
func (in *inbox) parse(i, size int, z *zones) (b batch, ok bool) {
	m := &in.messages[i]
	if m.len == 0 || int(m.len) > size || m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return b, false
	}
	if b.path.Remote, ok = sockaddr(&in.names[i], z); !ok {
		return b, false
	}
	b.data = in.data[i*size:][:m.len:m.len]
	c := parseControl(in.controls[i][:min(int(m.hdr.Controllen), controlSize)])
	b.ecn, b.segment = c.ecn, c.segment
	if c.local.IsValid() {
		b.path.Local = netip.AddrPortFrom(z.named(c.local, c.ifindex), 0)
	}
	return b, true
}

// A control is what the kernel tells of a message.
type control struct {
	ecn     uint8
	segment int        // of GRO; 0: one packet
	local   netip.Addr // invalid if unknown
	ifindex uint32
}

const (
	cmsgHeader = unix.SizeofCmsghdr
	cmsgAlign  = int(unsafe.Sizeof(uintptr(0)))
)

// parseControl reads control messages.
func parseControl(b []byte) (c control) {
	for len(b) >= cmsgHeader {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0])) //nolint:gosec // G103: the kernel's own layout
		n := int(h.Len)
		if n < cmsgHeader || n > len(b) {
			return c
		}
		data := b[cmsgHeader:n]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			c.segment = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			c.ecn = data[0] & ecnMask
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			c.ecn = uint8(binary.NativeEndian.Uint32(data)) & ecnMask
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// The address in the header; Spec_dst is what the kernel would
			// answer from, which differs for a broadcast.
			c.local = netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			c.local = netip.AddrFrom16([16]byte(data[:16])).Unmap()
			c.ifindex = binary.NativeEndian.Uint32(data[16:])
		}
		n = (n + cmsgAlign - 1) &^ (cmsgAlign - 1)
		if n >= len(b) {
			return c
		}
		b = b[n:]
	}
	return c
}

// sockaddr translates an address of the kernel.
func sockaddr(sa *unix.RawSockaddrInet6, z *zones) (ap netip.AddrPort, ok bool) {
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) //nolint:gosec // G103: the kernel's own layout
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), ntohs(sa4.Port)), true
	case unix.AF_INET6:
		return netip.AddrPortFrom(z.named(netip.AddrFrom16(sa.Addr).Unmap(), sa.Scope_id), ntohs(sa.Port)), true
	}
	return ap, false
}

// putSockaddr is the reverse of sockaddr, for a socket of IPv6 or IPv4. It
// returns the length, or 0 if the socket cannot reach ap.
func putSockaddr(sa *unix.RawSockaddrInet6, ap netip.AddrPort, v6 bool, z *zones) uint32 {
	a := ap.Addr()
	if !v6 {
		if !a.Is4() {
			return 0
		}
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) //nolint:gosec // G103: the kernel's own layout
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(ap.Port()), Addr: a.As4()}
		return unix.SizeofSockaddrInet4
	}
	if !a.IsValid() {
		return 0
	}
	// As16 gives an IPv4 address its IPv6 form, which is what a socket for
	// both wants.
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(ap.Port()), Addr: a.As16(), Scope_id: z.index(a.Zone())}
	return unix.SizeofSockaddrInet6
}

// ntohs converts between network and host order, either way.
func ntohs(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}

// Zones translates the zones of link-local addresses, which are few. An
// interface may get another index or name, so that a pair is asked for again
// after a while.
type zones struct {
	mu      sync.Mutex
	names   map[uint32]zone // guarded by mu
	indexes map[string]zone // guarded by mu
}

type zone struct {
	name  string
	index uint32
	asked time.Time
}

func (z *zone) fresh() bool { return z.index != 0 && time.Since(z.asked) < zoneLifetime }

const (
	zoneLifetime = time.Minute

	// maxZones bounds what a program that dials many zones leaves behind.
	maxZones = 1024
)

// Variables for tests.
var (
	interfaceByIndex = net.InterfaceByIndex
	interfaceByName  = net.InterfaceByName
)

// named gives a its zone if it needs one.
func (z *zones) named(a netip.Addr, index uint32) netip.Addr {
	if index == 0 || !a.Is6() || !a.IsLinkLocalUnicast() {
		return a
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	known := z.names[index]
	if !known.fresh() {
		i, err := interfaceByIndex(int(index))
		if err != nil {
			return a.WithZone(strconv.FormatUint(uint64(index), 10))
		}
		known = z.add(i.Name, index)
	}
	return a.WithZone(known.name)
}

func (z *zones) index(name string) uint32 {
	if name == "" {
		return 0
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	known := z.indexes[name]
	if !known.fresh() {
		i, err := interfaceByName(name)
		if err != nil {
			n, err := strconv.ParseUint(name, 10, 32)
			if err != nil {
				return 0
			}
			return uint32(n)
		}
		known = z.add(name, uint32(i.Index))
	}
	return known.index
}

// add keeps a pair. The caller holds mu.
func (z *zones) add(name string, index uint32) zone {
	if z.names == nil || len(z.names) >= maxZones || len(z.indexes) >= maxZones {
		z.names, z.indexes = make(map[uint32]zone), make(map[string]zone)
	}
	pair := zone{name, index, time.Now()}
	z.names[index], z.indexes[name] = pair, pair
	return pair
}

// An outbox is the memory for one sendmsg.
type outbox struct {
	hdr     unix.Msghdr
	iovec   unix.Iovec
	name    unix.RawSockaddrInet6
	control [controlSize]byte
}

var outboxes = sync.Pool{New: func() any {
	o := new(outbox)
	o.hdr.Name = (*byte)(unsafe.Pointer(&o.name)) //nolint:gosec // G103: the kernel takes addresses
	o.hdr.Iov = &o.iovec
	o.hdr.SetIovlen(1)
	return o
}}

// How a message is to be sent.
type sendMode struct {
	v6    bool // the socket is of IPv6
	local bool // from the path's local address
	ecn   bool
	gso   bool
}

// fill prepares a message of b. It returns false if the socket cannot reach the
// peer.
func (o *outbox) fill(b []byte, out *capi.Output, m sendMode, z *zones) bool {
	o.hdr.Namelen = putSockaddr(&o.name, out.Path.Remote, m.v6, z)
	if o.hdr.Namelen == 0 {
		return false
	}
	o.iovec.Base = &b[0]
	o.iovec.SetLen(len(b))
	n, v4 := 0, out.Path.Remote.Addr().Is4()
	if m.gso {
		n = o.put(n, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(o.control[n-cmsgAlign:], uint16(out.Segment))
	}
	if m.ecn {
		level, kind := int32(unix.IPPROTO_IPV6), int32(unix.IPV6_TCLASS)
		if v4 {
			level, kind = unix.IPPROTO_IP, unix.IP_TOS
		}
		n = o.put(n, level, kind, 4)
		binary.NativeEndian.PutUint32(o.control[n-cmsgAlign:], uint32(out.ECN))
	}
	if local := out.Path.Local.Addr(); m.local && local.Is4() == v4 {
		if v4 {
			start := n + cmsgHeader
			n = o.put(n, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
			ip := local.As4()
			clear(o.control[start:n])
			copy(o.control[start+4:], ip[:]) // Spec_dst
		} else {
			start := n + cmsgHeader
			n = o.put(n, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
			ip := local.As16()
			clear(o.control[start:n])
			copy(o.control[start:], ip[:])
			binary.NativeEndian.PutUint32(o.control[start+16:], z.index(local.Zone()))
		}
	}
	o.hdr.Control = nil
	if n > 0 {
		o.hdr.Control = &o.control[0]
	}
	o.hdr.SetControllen(n)
	return true
}

// put writes the header of a control message at n, and returns where the next
// one begins.
func (o *outbox) put(n int, level, kind int32, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&o.control[n])) //nolint:gosec // G103: the kernel's own layout
	h.Level, h.Type = level, kind
	h.SetLen(cmsgHeader + size)
	return n + cmsgHeader + (size+cmsgAlign-1)&^(cmsgAlign-1)
}

// sendmsg sends the message without waiting.
func (o *outbox) sendmsg(fd int) error {
	//nolint:gosec // G103: the kernel takes addresses
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.hdr)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return errno
	}
	return nil
}

// udpOptions are those that a loop changes, and what they were.
type udpOptions struct {
	fd  int
	old []udpOption
}

type udpOption struct{ level, name, value int }

// set changes an option and remembers its value for restore.
func (o *udpOptions) set(level, name, value int) error {
	old, err := unix.GetsockoptInt(o.fd, level, name)
	if err != nil {
		return err
	}
	if old == value {
		return nil
	}
	if err := unix.SetsockoptInt(o.fd, level, name, value); err != nil {
		return err
	}
	o.old = append(o.old, udpOption{level, name, old})
	return nil
}

func (o *udpOptions) restore() {
	for _, old := range o.old {
		_ = unix.SetsockoptInt(o.fd, old.level, old.name, old.value)
	}
	o.old = nil
}

// growBuffer enlarges a buffer beyond the system's limit if the process may
// (CAP_NET_ADMIN), else as far as it goes.
func growBuffer(fd, opt, force int) {
	// The kernel reports twice what was asked for.
	if size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt); err == nil && size >= 2*socketBuffer {
		return
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, socketBuffer)
	}
}
