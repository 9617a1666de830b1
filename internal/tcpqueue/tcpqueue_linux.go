package tcpqueue

import (
	"crypto/tls"
	"net"
	"syscall"
)

const (
	tcpNotSentLowat = 0x19 // TCP_NOTSENT_LOWAT; package syscall does not name it
	notSent         = 128 << 10
)

// Limit bounds what the kernel holds of a connection's output beyond what is on
// the wire, for a *net.TCPConn and a *tls.Conn on one. It does nothing to others.
func Limit(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// An old kernel does without.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, notSent)
	})
}
