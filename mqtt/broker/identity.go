package broker

import (
	"net"
	"net/netip"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/store"
)

// What a client may do is also asked when it is not there: about the subscriptions of
// a session that waits for it, its will, and messages that it has had delayed. So who
// it was is kept, with the session, in the store too, and with each of those messages.

// remembered returns what is kept of cn's client, which nobody changes; nil if
// nobody will ask for it.
func (cn *conn) remembered() *ClientInfo {
	if cn.b.cfg.ACL == nil && cn.b.durable == nil {
		return nil
	}
	info := cn.info()
	info.TLS, info.Offline = nil, true
	return &info
}

// identity returns who had the session last; nil if that is not kept.
func (c *client) identity() *ClientInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

// saved returns the part of i that a session's State does not have.
func (i *ClientInfo) saved() *store.Client {
	if i == nil {
		return nil
	}
	s := &store.Client{Username: i.Username, Carrier: string(i.Carrier)}
	if i.Remote != nil {
		s.Network, s.Address = i.Remote.Network(), i.Remote.String()
	}
	return s
}

// restoreInfo returns who the client of a session or of a delayed message was. A record that does not say it is from
// before it was kept: then it is the owner.
func restoreInfo(r *store.Record) *ClientInfo {
	i := &ClientInfo{ClientID: r.ClientID, Username: r.Owner, Version: r.State.Version, Offline: true}
	if r.Kind == store.Delayed {
		i.ClientID = r.Message.From
	}
	if s := r.Client; s != nil {
		i.Username, i.Carrier, i.Remote = s.Username, mqtt.Carrier(s.Carrier), restoreAddr(s.Network, s.Address)
	}
	return i
}

// restoreAddr returns the address that has been saved.
func restoreAddr(network, address string) net.Addr {
	if network == "" && address == "" {
		return nil
	}
	if at, err := netip.ParseAddrPort(address); err == nil {
		switch network {
		case "tcp":
			return net.TCPAddrFromAddrPort(at)
		case "udp":
			return net.UDPAddrFromAddrPort(at)
		}
	}
	return savedAddr{network, address}
}

// A savedAddr is an address of neither TCP nor UDP.
type savedAddr struct{ network, address string }

func (a savedAddr) Network() string { return a.network }
func (a savedAddr) String() string  { return a.address }
