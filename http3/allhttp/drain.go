package allhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainTime is how long connections of HTTP/1.1 get to end with a response that
// says so. One that is closed while it is idle may lose a request that is on its
// way.
//
// https://www.rfc-editor.org/rfc/rfc9112#section-9.5
const drainTime = 250 * time.Millisecond

// A drain knows the connections of HTTP/1.1, and stops accepting TCP connections
// before net/http is told to shut down, which closes idle ones at once.
type drain struct {
	// conns has a bool for each connection with a request or after one: it
	// speaks HTTP/1.1. A request looks here without a lock.
	conns sync.Map

	mu        sync.Mutex
	listeners []*drainListener // guarded by mu
	open      int              // connections of HTTP/1.1; guarded by mu
	empty     chan struct{}    // closed when there is none left; guarded by mu; nil before run
}

// connState is for http.Server.ConnState.
func (d *drain) connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew: // it has no request that could be lost
	case http.StateActive, http.StateIdle:
		if _, known := d.conns.Load(c); known {
			return
		}
		tc, ok := c.(*tls.Conn)
		h1 := !ok || tc.ConnectionState().NegotiatedProtocol != "h2" // there, net/http says GOAWAY
		if _, known := d.conns.LoadOrStore(c, h1); !known && h1 {
			d.count(1)
		}
	case http.StateHijacked, http.StateClosed:
		if h1, known := d.conns.LoadAndDelete(c); known && h1.(bool) {
			d.count(-1)
		}
	}
}

func (d *drain) count(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open += n
	if d.open == 0 && d.empty != nil {
		close(d.empty)
		d.empty = nil
	}
}

// run stops accepting and waits until no connection is left, or for a moment.
func (d *drain) run(ctx context.Context) error {
	err := d.close()
	d.mu.Lock()
	var empty chan struct{}
	if d.open > 0 {
		empty = make(chan struct{})
		d.empty = empty
	}
	d.mu.Unlock()
	if empty == nil {
		return err
	}
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-empty:
	case <-timer.C:
	case <-ctx.Done():
	}
	return err
}

// close closes the listeners.
func (d *drain) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, l := range d.listeners {
		errs = append(errs, l.stop())
	}
	return errors.Join(errs...)
}

// listener returns l as one that net/http does not see the end of before it
// closes it itself.
func (d *drain) listener(l net.Listener) net.Listener {
	dl := &drainListener{Listener: l, closed: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = append(d.listeners, dl)
	return dl
}

// A drainListener has an Accept that blocks between stop and Close.
type drainListener struct {
	net.Listener
	closed chan struct{}

	mu      sync.Mutex
	stopped bool // guarded by mu
	ended   bool // closed is closed; guarded by mu
}

func (l *drainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		return c, nil
	}
	l.mu.Lock()
	stopped := l.stopped
	l.mu.Unlock()
	if stopped {
		<-l.closed
	}
	return nil, err
}

func (l *drainListener) stop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil
	}
	l.stopped = true
	return l.Listener.Close()
}

func (l *drainListener) Close() error {
	err := l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.closed)
	}
	return err
}
