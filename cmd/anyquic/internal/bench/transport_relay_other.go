//go:build !linux

package bench

import (
	"errors"
	"net"
	"time"
)

func growBuffers(s *net.UDPConn, size int) error {
	return errors.Join(s.SetReadBuffer(size), s.SetWriteBuffer(size))
}

// socketDrops is not known here.
func socketDrops(*net.UDPConn) uint64 { return 0 }

func sleep(d time.Duration) { time.Sleep(d) }
