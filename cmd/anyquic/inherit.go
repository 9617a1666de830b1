package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/anyquic/anyquic/http3/allhttp"
)

// firstInherited is the first file of a service, SD_LISTEN_FDS_START, and
// maxInherited more than anybody hands over.
const (
	firstInherited = 3
	maxInherited   = 64
)

// inheritedSockets returns the sockets that systemd has opened for this process
// (sd_listen_fds(3)), or nil if there is none. It is to be called once: children are
// not to take them for theirs.
func inheritedSockets() (*allhttp.Sockets, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	n, err := inherited(pid, count, os.Getpid())
	if n == 0 || err != nil {
		return nil, err
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		err = errors.Join(err, os.Unsetenv(name))
	}
	files := make([]*os.File, n)
	for i := range files {
		files[i] = os.NewFile(uintptr(firstInherited+i), fmt.Sprintf("socket %d of LISTEN_FDS", i+1))
	}
	sockets, serr := allhttp.FileSockets(files...)
	return sockets, errors.Join(err, serr)
}

// inherited returns how many files the variables promise to the process with the
// number self.
func inherited(pid, count string, self int) (int, error) {
	if p, err := strconv.Atoi(pid); err != nil || p != self {
		return 0, nil //nolint:nilerr // they are for another process, or nobody's
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxInherited {
		return 0, fmt.Errorf("LISTEN_FDS is %q: not a number of sockets", count)
	}
	return n, nil
}
