package broker

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"github.com/anyquic/anyquic/mqtt"
)

// A QUIC client keeps its connection when its address changes: it migrates, or its
// NAT forgets it. What was decided for the old address is then decided anew.

// canMove reports whether clients of a carrier can change their address.
func canMove(c mqtt.Carrier) bool {
	return c == mqtt.QUIC || c == mqtt.WebTransport || c == mqtt.WSSH3
}

// remoteAddr returns the address of the link now.
func (cn *conn) remoteAddr() netip.AddrPort {
	if a, ok := cn.link.RemoteAddr().(*net.UDPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// follow notices, whenever something has arrived after a while, that the client has
// another address. What arrives together comes from one.
func (in *inlet) follow() {
	cn := in.cn
	now := cn.remoteAddr()
	if now == in.remote {
		return
	}
	first := !in.remote.IsValid()
	in.remote = now
	if d := in.src.decisions; d != nil {
		d.forget()
	}
	c, who := cn.client, cn.remembered()
	c.mu.Lock()
	before := cn.remote
	cn.remote = now
	if before.IsValid() && before != now {
		c.who = who
	}
	c.mu.Unlock()
	if first && !before.IsValid() || before == now {
		return // it is the first, or another stream has seen it
	}
	cn.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: address changed",
		slog.String("client", cn.id), slog.String("remote", now.String()), slog.String("before", before.String()))
	if cn.b.cfg.ACL == nil {
		return
	}
	in.src.flush() // whoever has output from this source must not wait with us
	cn.review()
}

// forget has everything asked for again.
func (d *decisions) forget() {
	clear(d.allowed)
	d.bytes = 0
}
