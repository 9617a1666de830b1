package purego

import (
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// setReadBuffer enlarges the receive buffer to n bytes, beyond the system's
// limit if the process may (CAP_NET_ADMIN), else as far as it goes.
func setReadBuffer(c quic.OOBCapablePacketConn, n int) {
	growBuffer(c, n, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
}

func setWriteBuffer(c quic.OOBCapablePacketConn, n int) {
	growBuffer(c, n, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
}

func growBuffer(c quic.OOBCapablePacketConn, n, opt, force int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if size, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, opt); err == nil && size >= n {
			return
		}
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, n) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, n)
		}
	})
}
