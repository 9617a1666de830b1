package http3

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// A remoteText remembers the text of a connection's remote address, which seldom
// changes.
type remoteText struct{ last atomic.Pointer[addrText] }

type addrText struct {
	addr netip.AddrPort
	text string
}

func (r *remoteText) string(a net.Addr) string {
	u, ok := a.(*net.UDPAddr)
	if !ok || u.Zone != "" {
		return a.String()
	}
	addr := u.AddrPort()
	if t := r.last.Load(); t != nil && t.addr == addr {
		return t.text
	}
	t := &addrText{addr, a.String()}
	r.last.Store(t)
	return t.text
}
