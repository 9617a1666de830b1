// Package foreign runs servers that are not Go programs, and speaks the protocol of
// internal/benchproc for them. It is for Linux.
package foreign

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/anyquic/anyquic/internal/benchproc"
)

// FreePort returns a port of 127.0.0.1 that was free a moment ago, for servers that
// do not say which one the kernel chose for them. The network is "tcp" or "udp".
func FreePort(network string) (int, error) {
	if network == "udp" {
		pc, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer pc.Close()
		return pc.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen(network, "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Serve runs cmd, waits until it listens on the port, and answers requests about it
// on standard input and output until the input ends. Then it ends the program.
func Serve(cmd *exec.Cmd, network string, port int, hello benchproc.Hello) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }() // ends with the program
	err := bound(network, port, exited)
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", cmd.Path, err, &said)
	} else {
		pid := cmd.Process.Pid
		err = benchproc.Answer(os.Stdin, os.Stdout, hello, func(req *benchproc.Request) (any, error) {
			switch req.Do {
			case benchproc.DoUsage:
				return benchproc.UsageOf(pid)
			case benchproc.DoMemory:
				return benchproc.MemoryOf(pid)
			}
			return nil, errors.ErrUnsupported
		})
	}
	if cmd.Process.Kill() == nil {
		<-exited
	}
	return err
}

// bound waits until there is a socket on the port.
func bound(network string, port int, exited chan error) error {
	want := fmt.Sprintf("0100007F:%04X", port)
	for range 500 {
		select {
		case err := <-exited:
			exited <- err
			return fmt.Errorf("ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
		if b, err := os.ReadFile("/proc/net/" + network); err != nil || bytes.Contains(b, []byte(want)) {
			return err
		}
	}
	return errors.New("does not listen")
}
