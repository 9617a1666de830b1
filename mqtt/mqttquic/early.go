package mqttquic

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/transport"
)

// policy returns what of c's early data may take effect early.
func (l *Listener) policy(c transport.Conn) mqtt.EarlyPolicy {
	if l.early <= mqtt.EarlyConnect {
		return l.early
	}
	s := c.State()
	if s.HandshakeComplete {
		return mqtt.EarlyConnect // nothing is early
	}
	// The client's first Destination Connection ID names the connection. It is
	// authenticated with each 0-RTT packet (RFC 9001, Section 5.3), so that a
	// replay has the same.
	if !l.seen.first(s.ConnID) {
		return mqtt.EarlyConnect
	}
	return l.early
}

const (
	// ticketLife is how long a session ticket may be used (RFC 8446,
	// Section 4.6.1).
	ticketLife = 7 * 24 * time.Hour

	// maxFlights bounds the memory, 16 MB or so, for the flights of two such
	// times. What is more waits for the handshake.
	maxFlights = 1 << 19
)

// firstFlights remembers for the life of a ticket which first flights have come.
// Another flight may be taken for one of them, with a probability of 2^-44, and
// then just waits.
type firstFlights struct {
	mu       sync.Mutex
	seed     maphash.Seed
	since    time.Time           // when now was begun; guarded by mu
	now, old map[uint64]struct{} // guarded by mu
}

// first reports whether id was not there before, and notes it.
func (f *firstFlights) first(id []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := time.Now(); f.now == nil || t.Sub(f.since) > ticketLife {
		if f.now == nil {
			f.seed = maphash.MakeSeed()
		}
		f.old, f.now, f.since = f.now, make(map[uint64]struct{}), t
	}
	h := maphash.Bytes(f.seed, id)
	if _, ok := f.now[h]; ok || len(f.now) >= maxFlights {
		return false
	}
	if _, ok := f.old[h]; ok {
		return false
	}
	f.now[h] = struct{}{}
	return true
}

func (l *Listener) next(ctx context.Context) (transport.Conn, error) {
	if l.queue == nil {
		return l.ln.Accept(ctx)
	}
	return l.queue.accept(ctx)
}

// An earlyQueue takes connections from a listener that hands them out before the
// handshake, and passes on at once those with early data, the others when their
// handshakes are complete. Those whose handshakes fail nobody sees.
type earlyQueue struct {
	ready  chan transport.Conn
	ctx    context.Context // done with close
	stop   context.CancelFunc
	wg     sync.WaitGroup
	err    error // of the listener; valid after failed
	failed chan struct{}
}

func newEarlyQueue(ln transport.Listener) *earlyQueue {
	q := &earlyQueue{ready: make(chan transport.Conn), failed: make(chan struct{})}
	q.ctx, q.stop = context.WithCancel(context.Background())
	q.wg.Go(func() { // until ln is closed
		defer close(q.failed)
		for {
			c, err := ln.Accept(context.Background())
			if err != nil {
				q.err = err
				return
			}
			q.wg.Go(func() { q.offer(c) }) // until it is accepted, has ended, or close
		}
	})
	return q
}

func (q *earlyQueue) offer(c transport.Conn) {
	if s := c.State(); s.HandshakeComplete || s.EarlyData || c.Handshake(q.ctx) == nil {
		select {
		case q.ready <- c:
			return
		case <-c.Context().Done():
		case <-q.ctx.Done():
		}
	}
	_ = c.CloseWithError(0, "") // it has ended, or comes too late
}

func (q *earlyQueue) accept(ctx context.Context) (transport.Conn, error) {
	select {
	case c := <-q.ready:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-q.failed:
		return nil, q.err
	}
}

// close is called after the listener is closed. It waits for the goroutines.
func (q *earlyQueue) close() {
	q.stop()
	q.wg.Wait()
}
