package benchproc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every Linux port
// that Go has.
const clockTick = 10 * time.Millisecond

// CPU returns the processor time that the process has used so far.
func (p *Process) CPU() (time.Duration, error) { return processCPU(p.PID()) }

func processCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, and may hold spaces.
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("benchproc: /proc/%d/stat is not as expected", pid)
	}
	var ticks uint64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
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
