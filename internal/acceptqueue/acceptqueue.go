// Package acceptqueue keeps the connections that a listener has ready until Accept
// takes them. Every connection that is delivered ends up in exactly one place:
// with who accepts it, or refused.
package acceptqueue

import (
	"context"
	"net"
)

// Bound is how many connections may wait.
const Bound = 1024

// A Reason is why a connection was refused, in words for its peer.
type Reason string

const (
	// Closed is for what was delivered after Close, or waited then.
	Closed Reason = "listener closed"
	// Full is for what came when Bound connections waited.
	Full Reason = "too many connections wait for Accept"
)

// A Queue hands connections from those who deliver them to those who accept them,
// first in, first out. Its methods may be called from any goroutine at any time.
type Queue[T any] struct {
	waiting chan T
	done    chan struct{} // closed by Close
	refuse  func(T, Reason)
}

// New returns a queue that calls refuse once for each connection that nobody will
// accept: from Deliver, or from Close. It holds no lock then.
func New[T any](refuse func(T, Reason)) *Queue[T] {
	return &Queue[T]{
		waiting: make(chan T, Bound),
		done:    make(chan struct{}),
		refuse:  refuse,
	}
}

// Full reports whether the next connection would be refused, for listeners that
// turn attempts away before the work of a handshake.
func (q *Queue[T]) Full() bool { return len(q.waiting) == cap(q.waiting) }

// Deliver queues c for Accept, or refuses it. It does not block.
func (q *Queue[T]) Deliver(c T) {
	if q.closed() {
		q.refuse(c, Closed)
		return
	}
	select {
	case q.waiting <- c:
	default:
		q.refuse(c, Full)
		return
	}
	if q.closed() { // Close may have emptied the queue before c was in it
		q.discard()
	}
}

// Accept waits for a connection. Once the queue is closed it returns net.ErrClosed,
// and when ctx is done first, ctx.Err().
func (q *Queue[T]) Accept(ctx context.Context) (c T, err error) {
	if q.closed() {
		return c, net.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return c, err
	}
	select {
	case c = <-q.waiting:
		return c, nil
	case <-q.done:
		return c, net.ErrClosed
	case <-ctx.Done():
		return c, ctx.Err()
	}
}

// Close ends Accept and refuses what waits and whatever is delivered later. It
// must be called once only.
func (q *Queue[T]) Close() {
	close(q.done)
	q.discard()
}

func (q *Queue[T]) closed() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

func (q *Queue[T]) discard() {
	for {
		select {
		case c := <-q.waiting:
			q.refuse(c, Closed)
		default:
			return
		}
	}
}
