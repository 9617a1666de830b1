//go:build !linux

package tcpqueue

import "net"

// Limit does nothing where the system has no limit to set.
func Limit(net.Conn) {}
