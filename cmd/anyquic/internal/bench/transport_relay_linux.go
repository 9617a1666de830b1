package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// growBuffers gives s buffers of the size, beyond the system's limit if this may.
func growBuffers(s *net.UDPConn, size int) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		for _, force := range []struct{ opt, otherwise int }{
			{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
		} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force.opt, size) != nil && set == nil {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force.otherwise, size)
			}
		}
	})
	if err != nil {
		return err
	}
	return set
}

// socketDrops returns how many packets the kernel has dropped since s did not read
// them in time: the last column of /proc/net/udp.
func socketDrops(s *net.UDPConn) uint64 {
	b, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return 0
	}
	port := fmt.Sprintf(":%04X", s.LocalAddr().(*net.UDPAddr).Port)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 12 && strings.HasSuffix(f[1], port) {
			n, _ := strconv.ParseUint(f[len(f)-1], 10, 64)
			return n
		}
	}
	return 0
}

// sleep is as exact as the kernel: time.Sleep rounds up to a millisecond, which
// would make bursts of what was paced.
func sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	left := unix.NsecToTimespec(int64(d))
	for {
		if err := unix.Nanosleep(&left, &left); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
