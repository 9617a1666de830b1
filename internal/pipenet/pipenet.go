// Package pipenet is a TCP port in memory, for tests in virtual time.
package pipenet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// ClientAddr is where all clients are.
var ClientAddr net.Addr = &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 50000}

// A Listener accepts connections of Dial.
type Listener struct {
	addr   net.Addr
	buffer int
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once

	mu   sync.Mutex
	made []net.Conn // at both ends; guarded by mu
}

// Listen returns a Listener at addr. A direction of its connections holds buffer
// bytes before a Write waits for a Read; with 0, every Write does, as with net.Pipe.
func Listen(addr net.Addr, buffer int) *Listener {
	return &Listener{addr: addr, buffer: buffer, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial connects as soon as Accept is called. After Close it is refused.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	up, down := l.pipe()
	client, server := &conn{up, ClientAddr, l.addr}, &conn{down, l.addr, ClientAddr}
	select {
	case l.conns <- server:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.made = append(l.made, client, server)
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Listener) pipe() (client, server stream) {
	if l.buffer == 0 {
		return net.Pipe()
	}
	up, down := newHalf(l.buffer), newHalf(l.buffer)
	return &pipe{r: down, w: up}, &pipe{r: up, w: down}
}

// Accept returns the next connection, or net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; connections live on.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Drop closes every connection there is, at both ends.
func (l *Listener) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.made {
		c.Close()
	}
	l.made = nil
}

// Addr returns the address of Listen.
func (l *Listener) Addr() net.Addr { return l.addr }

// A stream is a net.Conn without addresses.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

type conn struct {
	stream
	local, remote net.Addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// A half is a direction of a connection.
type half struct {
	max int // bytes

	mu                    sync.Mutex
	cond                  sync.Cond
	buf                   bytes.Buffer // guarded by mu, as what follows
	closed                bool
	readEnd, writeEnd     time.Time
	readTimer, writeTimer *time.Timer
}

func newHalf(size int) *half {
	h := &half{max: size}
	h.cond.L = &h.mu
	return h
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case expired(h.readEnd):
			return 0, os.ErrDeadlineExceeded
		case h.buf.Len() > 0:
			h.cond.Broadcast()
			return h.buf.Read(p)
		case h.closed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) Write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		switch room := h.max - h.buf.Len(); {
		case h.closed:
			return n, errors.New("broken pipe")
		case expired(h.writeEnd):
			return n, os.ErrDeadlineExceeded
		case room > 0:
			m, _ := h.buf.Write(p[:min(room, len(p))])
			n, p = n+m, p[m:]
			h.cond.Broadcast()
		default:
			h.cond.Wait()
		}
	}
	return n, nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.cond.Broadcast()
}

func (h *half) setDeadline(end *time.Time, timer **time.Timer, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*end = t
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if d := time.Until(t); !t.IsZero() && d > 0 { // one that has passed needs no timer
		*timer = time.AfterFunc(d, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.cond.Broadcast()
		})
	}
	h.cond.Broadcast()
}

// A pipe is an end of a connection with buffers.
type pipe struct{ r, w *half }

func (c *pipe) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *pipe) Write(p []byte) (int, error) { return c.w.Write(p) }

func (c *pipe) Close() error {
	c.r.close()
	c.w.close()
	return c.SetDeadline(time.Time{})
}

func (c *pipe) SetReadDeadline(t time.Time) error {
	c.r.setDeadline(&c.r.readEnd, &c.r.readTimer, t)
	return nil
}

func (c *pipe) SetWriteDeadline(t time.Time) error {
	c.w.setDeadline(&c.w.writeEnd, &c.w.writeTimer, t)
	return nil
}

func (c *pipe) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
