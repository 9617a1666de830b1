package websocket

import (
	"context"
	"sync"
)

// A Group is the connections of a server, so that they can be ended in an
// orderly way when it shuts down: an http3.Server waits for them, a http.Server
// does not even know them. The zero Group is ready for use.
//
//	group := new(websocket.Group) // in the AcceptOptions of all handlers
//	...
//	go group.Shutdown(ctx)
//	err := server.Shutdown(ctx)
type Group struct {
	mu     sync.Mutex
	conns  map[*Conn]struct{} // guarded by mu
	closed bool               // guarded by mu
}

// add reports false after Shutdown.
func (g *Group) add(c *Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if g.conns == nil {
		g.conns = make(map[*Conn]struct{})
	}
	g.conns[c] = struct{}{}
	context.AfterFunc(c.ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.conns, c)
	})
	return true
}

// isClosed reports whether Shutdown was called.
func (g *Group) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Shutdown closes all connections with StatusGoingAway, makes Accept answer 503,
// and waits until all peers have answered, or Close has given up on them. If ctx is
// done first it returns ctx.Err().
func (g *Group) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	conns := make([]*Conn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		go func() { _ = c.Close(StatusGoingAway, "") }() // ends with the connection, after closeTimeout at most
	}
	for _, c := range conns {
		select {
		case <-c.ctx.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
