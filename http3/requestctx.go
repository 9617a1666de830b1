package http3

import (
	"context"
	"sync"
	"time"
)

// A requestContext is the context of a server's request: it is done when the
// connection or the stream has ended, or the handler has returned. Most handlers do
// not ask; what it takes to know is made for the first that does.
type requestContext struct {
	conn  context.Context // the connection's
	s     *Stream
	early bool // see Early

	mu     sync.Mutex
	made   context.Context    // guarded by mu; nil until somebody asks
	cancel context.CancelFunc // guarded by mu; of made
	stop   func() bool        // guarded by mu; of what cancels made with the stream
	over   bool               // guarded by mu; the handler has returned
}

// context returns one that is done when c is.
func (c *requestContext) context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made, c.cancel = context.WithCancel(c.conn)
		if c.over {
			c.cancel()
		} else {
			c.stop = context.AfterFunc(c.s.qs.Context(), c.cancel) // until end
		}
	}
	return c.made
}

// end is called when the handler has returned.
func (c *requestContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	if c.made != nil {
		c.stop()
		c.cancel()
	}
}

func (c *requestContext) Deadline() (time.Time, bool) { return c.conn.Deadline() }
func (c *requestContext) Done() <-chan struct{}       { return c.context().Done() }
func (c *requestContext) Err() error                  { return c.context().Err() }

func (c *requestContext) Value(key any) any {
	if key == (earlyKey{}) && c.early {
		return true
	}
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	if made != nil {
		return made.Value(key) // package context looks for what it has made
	}
	return c.conn.Value(key)
}
