//go:build ngtcp2 && cgo && !linux

package ngtcp2

import "net"

// openLoop returns nil: this system has no loop of its own.
func openLoop(sink, *net.UDPConn) (socket, error) { return nil, nil }
