//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// socketBuffer is what the kernel should hold for a UDP socket, each way.
const socketBuffer = 7 << 20

// A batch is one or more packets that arrived on one path, one after another.
type batch struct {
	path    capi.Path
	ecn     uint8
	data    []byte // valid until receive returns
	segment int    // bytes of each packet but the last, which may be shorter; 0 if there is one
	now     uint64

	// later, if not nil, takes those who will not send before the loop has
	// gone through everything that has arrived.
	later *[]answerer
}

// An answerer has something to send because of what it has received: answer does.
// Before, wakeFirst may wake those whom it has something for.
type answerer interface {
	wakeFirst()
	answer(now uint64)
}

// A socket owns a net.PacketConn and the loop that reads from it and runs the
// timers of its connections.
//
// send, wake and forget may be called from any goroutine, also by the loop
// through receive, expired and unblocked. close and release wait for the loop,
// so they must not be called from there, nor with a connection's lock held.
type socket interface {
	// start begins the loop.
	start()

	// localAddr returns the address that the socket is bound to. A packet's
	// path has the address that it was sent to, if the kernel tells it.
	localAddr() netip.AddrPort

	// netConn returns what the socket was made from.
	netConn() net.PacketConn

	// send sends the packets in buf[:out.N]. It never waits for the network
	// if the socket is the kernel's. If it returns true, the packets are kept,
	// and c must not send until its unblocked is called. A nil c is not told,
	// and its packets are lost instead.
	send(c blocker, out *capi.Output, buf []byte) (blocked bool)

	// wake arms the timer of c at its expiry. c's owner calls it.
	wake(c sleeper)

	// forget disarms the timer of c, which its owner calls.
	forget(c sleeper)

	// close ends the loop and closes the net.PacketConn, both at most once.
	close() error

	// own says that release will not be called: the net.PacketConn will not be
	// given back. What it says of itself, it still says.
	own()

	// release ends the loop, and the net.PacketConn is the caller's again.
	release()
}

// A blocker waits for the socket to take packets again.
type blocker interface{ unblocked() }

// A sink takes what a socket receives. The calls come from the socket's loop.
type sink interface {
	// route takes a datagram, or several of one sender.
	route(s socket, b *batch)
	// socketFailed says that the socket has ended with err, and not by close
	// or release. It does not wait for the socket.
	socketFailed(s socket, err error)
	now() uint64
	addrPort(net.Addr) (netip.AddrPort, error)
	netAddr(netip.AddrPort) net.Addr
}

// newSocket starts a loop on pc, which fits it best. If it fails, pc stays
// open.
func (e *endpoint) newSocket(pc net.PacketConn) (socket, error) {
	s, err := openSocket(e, pc)
	if err != nil {
		return nil, err
	}
	s.start()
	return s, nil
}

// openSocket is newSocket without the start.
func openSocket(k sink, pc net.PacketConn) (socket, error) {
	if pc == nil {
		return nil, errors.New("ngtcp2: no socket")
	}
	if udp, ok := pc.(*net.UDPConn); ok {
		if s, err := openLoop(k, udp); s != nil || err != nil {
			return s, err
		}
	}
	s, err := openPlain(k, pc)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// addrPort returns the address of a UDP peer. IPv4 addresses are never in
// their IPv6 form, so that a path has one name whatever the kind of socket.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	if u, ok := a.(*net.UDPAddr); ok && u != nil {
		ap := u.AddrPort()
		if !ap.Addr().IsValid() {
			return netip.AddrPort{}, errors.New("ngtcp2: a UDP address without a host")
		}
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	if a == nil || !strings.HasPrefix(a.Network(), "udp") {
		return netip.AddrPort{}, errNotUDP
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}, errNotUDP
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

var errNotUDP = errors.New("ngtcp2: not a UDP address")

// netAddr is the reverse of addrPort.
func netAddr(ap netip.AddrPort) net.Addr { return net.UDPAddrFromAddrPort(ap) }
