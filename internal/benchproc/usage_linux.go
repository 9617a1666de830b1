package benchproc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UsageOf returns what another process has used: its processor time. See
// clock_getcpuclockid(3).
func UsageOf(pid int) (Usage, error) {
	const sched = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid)<<3|sched, &t)
	return Usage{CPU: time.Duration(t.Nano())}, err
}

// MemoryOf returns what another process holds, all of it as heap.
func MemoryOf(pid int) (Memory, error) {
	rss, err := procValue(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Rss:")
	return Memory{HeapInuse: rss, RSS: rss}, err
}

// procValue returns the bytes that a line of a file of /proc gives in kB.
func procValue(file, name string) (uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(kb), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("benchproc: no %s in %s", name, file)
}

// ownCPU returns the processor time that this process has used, of all its
// threads, in the program and in the kernel.
func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// ownRSS returns the resident memory of this process, in bytes. Unlike the VmRSS
// of /proc/PID/status, smaps_rollup counts pages.
func ownRSS() (uint64, error) { return procValue("/proc/self/smaps_rollup", "Rss:") }
