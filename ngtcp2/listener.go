//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"errors"
	"net"

	"github.com/anyquic/anyquic/internal/acceptqueue"
	"github.com/anyquic/anyquic/transport"
)

// A listener hands connections to Accept when they are ready.
type listener struct {
	ep  *endpoint
	cfg *connConfig

	queue *acceptqueue.Queue[*conn] // ready, not accepted
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
		queue: acceptqueue.New(e.turnAway),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.usable(); err != nil {
		return nil, err
	}
	if !e.listener.CompareAndSwap(nil, l) {
		return nil, errors.New("ngtcp2: the endpoint has a listener already")
	}
	e.listened.Store(true)
	return l, nil
}

// turnAway ends a connection that nobody accepts. The caller holds no lock.
func (e *endpoint) turnAway(c *conn, why acceptqueue.Reason) {
	if why == acceptqueue.Full {
		e.stats.refused.Add(1)
	}
	c.CloseWithError(0, string(why))
}

// Accept implements transport.Listener.
func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.queue.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
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
func (l *listener) stop() { l.queue.Close() }
