//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"errors"
	"net"

	"github.com/anyquic/anyquic/transport"
)

// acceptBacklog is how many connections may wait for Accept.
const acceptBacklog = 1024

// Reasons that the peer of a connection learns which nobody accepts.
const (
	reasonListenerClosed = "listener closed"
	reasonBacklogFull    = "too many connections wait for Accept"
)

// A listener hands connections to Accept when they are ready.
type listener struct {
	ep  *endpoint
	cfg *connConfig

	queue chan *conn    // ready, not accepted
	done  chan struct{} // closed by stop
}

// Listen implements transport.Endpoint.
func (e *endpoint) Listen(cfg *transport.Config) (transport.Listener, error) {
	cc, err := e.knobs.serverConfig(cfg)
	if err != nil {
		return nil, err
	}
	l := &listener{
		ep:    e,
		cfg:   cc,
		queue: make(chan *conn, acceptBacklog),
		done:  make(chan struct{}),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.usable(); err != nil {
		return nil, err
	}
	if !e.listener.CompareAndSwap(nil, l) {
		return nil, errors.New("ngtcp2: the endpoint has a listener already")
	}
	return l, nil
}

// full reports whether no connection may be added to those that wait.
func (l *listener) full() bool { return len(l.queue) == cap(l.queue) }

// deliver queues c for Accept. The queue was not full when the attempt began.
// The caller holds no lock.
func (l *listener) deliver(c *conn) {
	select {
	case <-l.done:
		c.CloseWithError(0, reasonListenerClosed)
		return
	default:
	}
	select {
	case l.queue <- c:
	default:
		l.ep.stats.refused.Add(1)
		c.CloseWithError(0, reasonBacklogFull)
		return
	}
	select {
	case <-l.done: // stop may have emptied the queue before
		l.discard()
	default:
	}
}

func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Addr() net.Addr { return l.ep.Addr() }

// Close implements transport.Listener. The endpoint goes on refusing attempts.
func (l *listener) Close() error {
	if l.ep.listener.CompareAndSwap(l, nil) {
		l.stop()
	}
	return nil
}

// stop ends Accept and closes what nobody accepted. It is called once, by who
// took l out of the endpoint.
func (l *listener) stop() {
	close(l.done)
	l.discard()
}

func (l *listener) discard() {
	for {
		select {
		case c := <-l.queue:
			c.CloseWithError(0, reasonListenerClosed)
		default:
			return
		}
	}
}
