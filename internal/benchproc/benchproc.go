// Package benchproc is how a benchmark talks to the servers and clients that it
// runs in processes of their own. Such a process prints a line that says where it
// listens, answers requests, one JSON object a line, and ends when its standard
// input does. [Serve] is a server, [ServeClient] a client that does what it is
// told, [Start] the benchmark's side of both.
package benchproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Hello is the first line that a process prints.
type Hello struct {
	// URLs says where it listens, by carrier or protocol: "tcp", "quic".
	URLs map[string]string `json:"urls"`
}

// A Request asks a process to do something. The meaning of the fields depends on
// what: see the Do constants.
type Request struct {
	Do       string        `json:"do"`
	Addr     string        `json:"addr,omitempty"`
	N        int64         `json:"n,omitempty"`
	Parallel int           `json:"parallel,omitempty"`
	For      time.Duration `json:"for,omitempty"` // ns
}

// What every process does.
const (
	DoMemory = "memory" // collect garbage, return Memory
	DoUsage  = "usage"  // return Usage
)

// A reply is what comes back.
type reply struct {
	Result any `json:"result,omitempty"`
	// Error says why it went wrong; Unsupported, that it cannot be done.
	Error       string `json:"error,omitempty"`
	Unsupported bool   `json:"unsupported,omitempty"`
}

// Memory is what a process holds after a garbage collection, in bytes.
type Memory struct {
	HeapInuse  uint64 `json:"heap_inuse"`
	StackInuse uint64 `json:"stack_inuse"`
	RSS        uint64 `json:"rss"` // resident, whoever allocated it; 0 where it is not known
	Goroutines int    `json:"goroutines"`
}

// InUse returns the bytes of heap and stacks.
func (m Memory) InUse() uint64 { return m.HeapInuse + m.StackInuse }

// Usage is what a process has used since it started. What is zero is not known.
type Usage struct {
	CPU     time.Duration `json:"cpu"`     // ns, in the program and for it in the kernel
	Mallocs uint64        `json:"mallocs"` // objects allocated on Go's heap
}

// Sub returns what has been used since before.
func (u Usage) Sub(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.Mallocs - before.Mallocs}
}

// Own answers the requests that a Go process can answer about itself.
func Own(req *Request) (any, error) {
	switch req.Do {
	case DoMemory:
		var m runtime.MemStats
		debug.FreeOSMemory() // a full collection
		runtime.ReadMemStats(&m)
		rss, err := ownRSS()
		return Memory{m.HeapInuse, m.StackInuse, rss, runtime.NumGoroutine()}, err
	case DoUsage:
		// Unlike runtime.ReadMemStats this does not stop the program.
		objects := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}}
		metrics.Read(objects)
		cpu, err := ownCPU()
		return Usage{cpu, objects[0].Value.Uint64() + objects[1].Value.Uint64()}, err
	}
	return nil, fmt.Errorf("unknown request %q: %w", req.Do, errors.ErrUnsupported)
}

// Serve is a server's side: it prints hello, answers about itself, and returns
// when in ends.
func Serve(in io.Reader, out io.Writer, hello Hello) error { return Answer(in, out, hello, Own) }

// Answer prints hello, answers each request by what handle returns, and returns
// when in ends. An error of handle that matches errors.ErrUnsupported tells the
// benchmark to leave a figure out; any other ends the benchmark.
func Answer(in io.Reader, out io.Writer, hello Hello, handle func(*Request) (any, error)) error {
	enc, dec := json.NewEncoder(out), json.NewDecoder(in)
	if err := enc.Encode(hello); err != nil {
		return err
	}
	for {
		var req Request
		err := dec.Decode(&req)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("benchproc: request: %w", err)
		}
		var r reply
		if r.Result, err = handle(&req); err != nil {
			r = reply{Error: err.Error(), Unsupported: errors.Is(err, errors.ErrUnsupported)}
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// A Process is a running server or client. It is for one goroutine at a time.
type Process struct {
	Hello
	cmd   *exec.Cmd
	stdin io.WriteCloser
	dec   *json.Decoder
	once  sync.Once
	err   error // of the process; after once
}

// stopTimeout is how long a process may take to end after its input has: more than our
// broker takes at most to let its clients go.
const stopTimeout = time.Minute

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

// Call asks the process to do something and waits for the result, which may be
// nil. The error matches errors.ErrUnsupported if the process cannot do it. When
// ctx is done, the process is killed.
func (p *Process) Call(ctx context.Context, req Request, result any) error {
	stop := context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })
	defer stop()
	err := p.call(req, result)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (p *Process) call(req Request, result any) error {
	if err := json.NewEncoder(p.stdin).Encode(req); err != nil {
		return fmt.Errorf("benchproc: %s: %w", req.Do, err)
	}
	r := reply{Result: result}
	switch err := p.dec.Decode(&r); {
	case err != nil:
		return fmt.Errorf("benchproc: %s: no answer: %w", req.Do, err)
	case r.Unsupported:
		return fmt.Errorf("benchproc: %s: %s: %w", req.Do, r.Error, errors.ErrUnsupported)
	case r.Error != "":
		return fmt.Errorf("benchproc: %s: %s", req.Do, r.Error)
	}
	return nil
}

// Memory asks for the process's memory.
func (p *Process) Memory() (m Memory, err error) {
	err = p.call(Request{Do: DoMemory}, &m)
	return m, err
}

// Usage asks what the process has used. It is zero if the process cannot say.
func (p *Process) Usage() (u Usage, err error) {
	if err = p.call(Request{Do: DoUsage}, &u); errors.Is(err, errors.ErrUnsupported) {
		return Usage{}, nil
	}
	return u, err
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
