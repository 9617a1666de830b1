//go:build !linux

package purego

import "github.com/quic-go/quic-go"

// setReadBuffer asks for a receive buffer of n bytes.
func setReadBuffer(c quic.OOBCapablePacketConn, n int) { _ = c.SetReadBuffer(n) }

func setWriteBuffer(c quic.OOBCapablePacketConn, n int) {
	if w, ok := c.(interface{ SetWriteBuffer(int) error }); ok {
		_ = w.SetWriteBuffer(n)
	}
}
