//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"sync"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// An arrivals is the order in which the peer's streams of a kind are accepted:
// that of their IDs. Those that nobody has accepted cannot have ended, so that
// two numbers make the queue, and the peer's stream limit bounds it.
type arrivals struct {
	accepted int64 // streams that Accept has returned
	opened   int64 // streams that the peer has opened, at least implicitly
	waiter
}

// streamID returns the ID of a stream, counted from 0 for each kind and side
// (RFC 9000, Section 2.1).
func streamID(n int64, kind int, server bool) int64 {
	id := n<<2 | int64(kind)<<1
	if server {
		id |= 1
	}
	return id
}

// remoteStream is called when the peer has opened a stream. That opens those
// with lower IDs too (RFC 9000, Section 2.1). The caller holds mu.
func (c *conn) remoteStream(id int64) {
	kind := int(id >> 1 & 1)
	a := &c.accepting[kind]
	for a.opened <= id>>2 {
		id := streamID(a.opened, kind, c.client)
		cs := c.cc.AddRemoteStream(id)
		if cs == nil {
			c.end(&ending{reason: localError(errNoMemory), kind: capi.CloseTransport, code: codeInternalError})
			return
		}
		a.opened++
		s := c.newStream(cs, id, kind == bidi, true)
		c.addStream(s)
	}
	a.wake()
}

// accept returns the peer's next stream of a kind.
func (c *conn) accept(ctx context.Context, kind int) (*stream, error) {
	a := &c.accepting[kind]
	if err := ctx.Err(); err != nil {
		return nil, c.reasonOr(err)
	}
	for {
		arrived := a.wait()
		if err := c.lockFor(ctx); err != nil {
			a.wake() // the others too
			return nil, err
		}
		if a.accepted < a.opened {
			s := c.streams[streamID(a.accepted, kind, c.client)]
			a.accepted++
			c.counts.accepted++
			s.take()
			if s.tryFree() {
				c.flush(c.ep.now())
			}
			more := a.accepted < a.opened
			c.unlock()
			if more {
				a.wake()
			}
			return s, nil
		}
		c.unlock()
		select {
		case <-arrived:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return nil, c.reasonOr(ctx.Err())
		}
	}
}

// AcceptStream implements transport.Conn.
func (c *conn) AcceptStream(ctx context.Context) (transport.Stream, error) {
	s, err := c.accept(ctx, bidi)
	if err != nil {
		return nil, err
	}
	return s.both, nil
}

// AcceptUniStream implements transport.Conn.
func (c *conn) AcceptUniStream(ctx context.Context) (transport.ReceiveStream, error) {
	s, err := c.accept(ctx, uni)
	if err != nil {
		return nil, err
	}
	return s.recv, nil
}

// An opener waits for the peer to allow a stream.
type opener struct {
	ready chan struct{} // closed when stream is set

	mu     sync.Mutex // comes after conn.mu
	stream *stream    // guarded by mu
	left   bool       // guarded by mu: it does not wait any more
}

// give opens a stream for o, unless o has left or the peer does not allow it. The
// caller holds conn.mu.
func (o *opener) give(open func() *stream) (given, left bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left {
		return false, true
	}
	if o.stream = open(); o.stream == nil {
		return false, false
	}
	close(o.ready)
	return true, false
}

// leave returns the stream that o was given, if any, and else stops to wait.
func (o *opener) leave() *stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left = true
	return o.stream
}

// open opens a stream. Those who wait get theirs in the order in which they
// came.
func (c *conn) open(ctx context.Context, kind int) (*stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.reasonOr(err)
	}
	if err := c.lockFor(ctx); err != nil {
		return nil, err
	}
	q := &c.opening[kind]
	q.purge()
	if len(*q) == 0 {
		s, err := c.openNow(kind)
		if s != nil || err != nil {
			c.unlock()
			return s, err
		}
	}
	o := &opener{ready: make(chan struct{})}
	*q = append(*q, o)
	c.unlock()
	select {
	case <-o.ready:
	case <-c.ctx.Done():
	case <-ctx.Done():
	}
	s := o.leave()
	switch {
	case c.reason() != nil:
		return nil, c.reason()
	case s != nil:
		return s, nil
	}
	if c.lockBriefly() { // if not, the next who comes removes it
		q.remove(o)
		c.unlock()
	}
	return nil, ctx.Err()
}

type openers []*opener

func (q *openers) remove(o *opener) {
	for i, other := range *q {
		if other == o {
			*q = append((*q)[:i], (*q)[i+1:]...)
			break
		}
	}
	if len(*q) == 0 {
		*q = nil
	}
}

// purge removes those who have left.
func (q *openers) purge() {
	for i := 0; i < len(*q); {
		o := (*q)[i]
		o.mu.Lock()
		left := o.left
		o.mu.Unlock()
		if left {
			q.remove(o)
		} else {
			i++
		}
	}
}

// openNow opens a stream if the peer allows it. It returns nil if not.
func (c *conn) openNow(kind int) (*stream, error) {
	cs, err := c.cc.OpenStream(kind == uni)
	if err != nil {
		return nil, localError(err)
	}
	if cs == nil {
		return nil, nil
	}
	s := c.newStream(cs, cs.ID(), true, kind == bidi)
	c.addStream(s)
	c.counts.opened++
	s.take()
	return s, nil
}

// openWaiting gives streams to those who wait. The caller holds mu.
func (c *conn) openWaiting(kind int) {
	q := &c.opening[kind]
	for len(*q) > 0 {
		o := (*q)[0]
		given, left := o.give(func() *stream {
			s, _ := c.openNow(kind) // no memory: it waits on
			return s
		})
		if !given && !left {
			return
		}
		q.remove(o)
	}
}

// OpenStream implements transport.Conn.
func (c *conn) OpenStream(ctx context.Context) (transport.Stream, error) {
	s, err := c.open(ctx, bidi)
	if err != nil {
		return nil, err
	}
	return s.both, nil
}

// OpenUniStream implements transport.Conn.
func (c *conn) OpenUniStream(ctx context.Context) (transport.SendStream, error) {
	s, err := c.open(ctx, uni)
	if err != nil {
		return nil, err
	}
	return s.send, nil
}
