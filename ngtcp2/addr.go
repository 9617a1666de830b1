//go:build ngtcp2 && cgo

package ngtcp2

import (
	"container/list"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// maxAddrs bounds the addresses that an addrBook remembers.
const maxAddrs = 1 << 16

// foreignPrefix is the discard-only block of RFC 6666: an address in it stands
// for one that is not of UDP, and is never that of a peer.
var foreignPrefix = netip.MustParsePrefix("100::/64")

// An addrBook gives peers whose net.Addr is not of UDP, as those of a wrapped
// socket may be, an address of the form that libngtcp2 knows. It forgets the
// least recently used one when it is full.
type addrBook struct {
	mu     sync.Mutex
	next   uint64
	byName map[addrName]*list.Element
	byAddr map[netip.AddrPort]*list.Element
	recent list.List // of *foreignAddr, the most recently used first
}

type addrName struct{ network, address string }

type foreignAddr struct {
	addr net.Addr
	name addrName
	as   netip.AddrPort
}

func (b *addrBook) addrPort(a net.Addr) (netip.AddrPort, error) {
	if ap, err := addrPort(a); err == nil {
		if foreignPrefix.Contains(ap.Addr()) {
			return netip.AddrPort{}, errors.New("ngtcp2: an address of the discard-only block")
		}
		return ap, nil
	}
	if a == nil {
		return netip.AddrPort{}, errors.New("ngtcp2: no address")
	}
	if _, ok := a.(*net.UDPAddr); ok { // nil or without a host
		return netip.AddrPort{}, errNotUDP
	}
	name := addrName{a.Network(), a.String()}
	b.mu.Lock()
	defer b.mu.Unlock()
	if el := b.byName[name]; el != nil {
		b.recent.MoveToFront(el)
		return el.Value.(*foreignAddr).as, nil
	}
	if b.byName == nil {
		b.byName = make(map[addrName]*list.Element)
		b.byAddr = make(map[netip.AddrPort]*list.Element)
	}
	if b.recent.Len() >= maxAddrs {
		last := b.recent.Back()
		f := last.Value.(*foreignAddr)
		delete(b.byName, f.name)
		delete(b.byAddr, f.as)
		b.recent.Remove(last)
	}
	b.next++
	ip := foreignPrefix.Addr().As16()
	binary.BigEndian.PutUint64(ip[8:], b.next)
	f := &foreignAddr{addr: a, name: name, as: netip.AddrPortFrom(netip.AddrFrom16(ip), 1)}
	el := b.recent.PushFront(f)
	b.byName[name], b.byAddr[f.as] = el, el
	return f.as, nil
}

func (b *addrBook) netAddr(ap netip.AddrPort) net.Addr {
	if foreignPrefix.Contains(ap.Addr()) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if el := b.byAddr[ap]; el != nil {
			b.recent.MoveToFront(el)
			return el.Value.(*foreignAddr).addr
		}
	}
	return netAddr(ap)
}

func (e *endpoint) addrPort(a net.Addr) (netip.AddrPort, error) { return e.addrs.addrPort(a) }
func (e *endpoint) netAddr(ap netip.AddrPort) net.Addr          { return e.addrs.netAddr(ap) }
