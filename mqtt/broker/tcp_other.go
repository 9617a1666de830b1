//go:build !linux

package broker

import "net"

// tuneTCP does nothing where the system has no limit to set.
func tuneTCP(net.Conn) {}
