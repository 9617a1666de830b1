//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
import "C"

import (
	"net/netip"
	"sync"
)

// A Path is the two ends that a packet travels between. An invalid Local stands
// for the unspecified address.
type Path struct{ Local, Remote netip.AddrPort }

// Families of an aq_addr.
const (
	familyNone = 0
	familyIPv4 = 4
	familyIPv6 = 6
)

func (p *Path) c() (out C.aq_path) {
	putAddr(&out.local, p.Local)
	putAddr(&out.remote, p.Remote)
	return out
}

func goPath(p *C.aq_path) Path {
	return Path{Local: goAddr(&p.local), Remote: goAddr(&p.remote)}
}

func putAddr(out *C.aq_addr, ap netip.AddrPort) {
	a := ap.Addr()
	out.port = C.uint16_t(ap.Port())
	switch {
	case a.Is4():
		out.family = familyIPv4
		for i, b := range a.As4() {
			out.ip[i] = C.uint8_t(b)
		}
	case a.Is6():
		out.family = familyIPv6
		for i, b := range a.As16() {
			out.ip[i] = C.uint8_t(b)
		}
		out.scope = C.uint32_t(zones.number(a.Zone()))
	}
}

func goAddr(a *C.aq_addr) netip.AddrPort {
	switch a.family {
	case familyIPv4:
		var ip [4]byte
		for i := range ip {
			ip[i] = byte(a.ip[i])
		}
		return netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(a.port))
	case familyIPv6:
		var ip [16]byte
		for i := range ip {
			ip[i] = byte(a.ip[i])
		}
		addr := netip.AddrFrom16(ip)
		if a.scope != 0 {
			addr = addr.WithZone(zones.name(uint32(a.scope)))
		}
		return netip.AddrPortFrom(addr, uint16(a.port))
	}
	return netip.AddrPort{}
}

// zones numbers the zones of IPv6 addresses. C only hands the numbers back, so
// that they need not be the kernel's. There are as many as the machine has had
// interfaces; a peer cannot add any.
var zones zoneTable

type zoneTable struct {
	mu      sync.Mutex
	numbers map[string]uint32
	names   []string // of number i+1
}

func (t *zoneTable) number(zone string) uint32 {
	if zone == "" {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.numbers[zone]
	if !ok {
		if t.numbers == nil {
			t.numbers = make(map[string]uint32)
		}
		t.names = append(t.names, zone)
		n = uint32(len(t.names))
		t.numbers[zone] = n
	}
	return n
}

func (t *zoneTable) name(n uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == 0 || int(n) > len(t.names) {
		return ""
	}
	return t.names[n-1]
}
