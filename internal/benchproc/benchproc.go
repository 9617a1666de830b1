// Package benchproc is how a benchmark talks to a server that it runs in a
// process of its own: the server prints where it listens, answers questions
// about its memory, and ends when its standard input does.
package benchproc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Hello is the first line that a server prints.
type Hello struct {
	// URLs says where it listens, by carrier or protocol: "tcp", "quic".
	URLs map[string]string `json:"urls"`
}

// Memory is what a server holds after a garbage collection, in bytes.
type Memory struct {
	HeapInuse  uint64 `json:"heap_inuse"`
	StackInuse uint64 `json:"stack_inuse"`
	Goroutines int    `json:"goroutines"`
}

// InUse returns the bytes of heap and stacks.
func (m Memory) InUse() uint64 { return m.HeapInuse + m.StackInuse }

// Serve is the server's side. It prints hello, answers each line that says
// "memory", and returns when in ends.
func Serve(in io.Reader, out io.Writer, hello Hello) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(hello); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if lines.Text() != "memory" {
			return fmt.Errorf("benchproc: unknown request %q", lines.Text())
		}
		debug.FreeOSMemory() // a full collection
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if err := enc.Encode(Memory{m.HeapInuse, m.StackInuse, runtime.NumGoroutine()}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// A Process is a running server.
type Process struct {
	Hello
	cmd   *exec.Cmd
	stdin io.WriteCloser
	dec   *json.Decoder
	once  sync.Once
	err   error // of the process; after once
}

// stopTimeout is how long a server may take to end after its input has.
const stopTimeout = 10 * time.Second

// Start runs cmd and waits for its first line. The caller sets cmd.Stderr.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.dec = json.NewDecoder(stdout)
	if err := p.dec.Decode(&p.Hello); err != nil {
		p.stdin.Close()
		return nil, errors.Join(fmt.Errorf("benchproc: %s did not say where it listens: %w", cmd.Path, err), cmd.Wait())
	}
	return p, nil
}

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Memory asks for the server's memory. It is not for concurrent use.
func (p *Process) Memory() (Memory, error) {
	var m Memory
	if _, err := io.WriteString(p.stdin, "memory\n"); err != nil {
		return m, err
	}
	return m, p.dec.Decode(&m)
}

// Stop ends the process and waits for it.
func (p *Process) Stop() error {
	p.once.Do(func() {
		p.stdin.Close()
		late := time.AfterFunc(stopTimeout, func() { p.cmd.Process.Kill() })
		p.err = p.cmd.Wait()
		late.Stop()
	})
	return p.err
}
