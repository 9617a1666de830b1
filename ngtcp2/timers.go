//go:build ngtcp2 && cgo

package ngtcp2

import (
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A timer is what a connection, or anything else that waits for a time, embeds
// to have a place in the heap of a socket's loop.
type timer struct {
	// expiry is the time when expired is to be called, capi.NoExpiry for
	// never. It counts from the next wake on.
	expiry atomic.Uint64

	in    atomic.Pointer[timers] // where it was last; set by its owner
	at    uint64                 // guarded by in.mu; expiry when it was put there
	index int                    // guarded by in.mu; 1 + place in the heap, 0 if not there
}

func (t *timer) alarm() *timer { return t }

// A sleeper is called when its timer has expired, by a loop, once for each
// time that it was armed.
type sleeper interface {
	alarm() *timer
	expired(now uint64)
}

// Timers is the heap of a loop, and knows until when the loop sleeps: who arms
// an earlier timer wakes it.
type timers struct {
	kick func() // wakes the loop; may be called by anybody

	mu     sync.Mutex
	heap   []sleeper // guarded by mu; the earliest first
	until  uint64    // guarded by mu; when the loop will look again, 0 while it is awake
	closed bool      // guarded by mu
}

// set arms s, which its owner calls. It moves s from another heap.
func (q *timers) set(s sleeper) {
	t := s.alarm()
	if old := t.in.Load(); old != q {
		if old != nil {
			old.remove(t)
		}
		t.in.Store(q)
	}
	at := t.expiry.Load()
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return
	case at == capi.NoExpiry:
		q.drop(t)
	case t.index == 0:
		t.at = at
		q.heap = append(q.heap, s)
		t.index = len(q.heap)
		q.up(t.index - 1)
	case at < t.at:
		t.at = at
		q.up(t.index - 1)
	case at > t.at:
		t.at = at
		q.down(t.index - 1)
	}
	kick := at < q.until
	if kick {
		q.until = at // nobody else needs to
	}
	q.mu.Unlock()
	if kick {
		q.kick()
	}
}

// forget takes s out. Its owner calls it.
func (q *timers) forget(s sleeper) {
	t := s.alarm()
	if t.in.CompareAndSwap(q, nil) {
		q.remove(t)
	}
}

func (q *timers) remove(t *timer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drop(t)
}

// due takes the first sleeper out whose time has come, or returns nil.
func (q *timers) due(now uint64) sleeper {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return nil
	}
	s := q.heap[0]
	if s.alarm().at > now {
		return nil
	}
	q.drop(s.alarm())
	return s
}

// sleep returns the time until which the loop may sleep, and expects it to.
func (q *timers) sleep() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.until = capi.NoExpiry
	if len(q.heap) > 0 {
		q.until = q.heap[0].alarm().at
	}
	return q.until
}

// awake says that the loop does not sleep: nobody needs to wake it.
func (q *timers) awake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.until = 0
}

// close empties the heap for good.
func (q *timers) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.heap {
		s.alarm().index = 0
	}
	q.heap = nil
	q.closed = true
	q.until = 0
}

// drop takes t out of the heap. The caller holds mu.
func (q *timers) drop(t *timer) {
	if t.index == 0 {
		return
	}
	i, last := t.index-1, len(q.heap)-1
	t.index = 0
	moved := q.heap[last]
	q.heap[last] = nil
	q.heap = q.heap[:last]
	if i == last {
		return
	}
	q.heap[i] = moved
	moved.alarm().index = i + 1
	q.down(i)
	q.up(moved.alarm().index - 1)
}

func (q *timers) up(i int) {
	s := q.heap[i]
	t := s.alarm()
	for i > 0 {
		p := (i - 1) / 2
		parent := q.heap[p]
		if parent.alarm().at <= t.at {
			break
		}
		q.heap[i] = parent
		parent.alarm().index = i + 1
		i = p
	}
	q.heap[i] = s
	t.index = i + 1
}

func (q *timers) down(i int) {
	s := q.heap[i]
	t := s.alarm()
	for {
		c := 2*i + 1
		if c >= len(q.heap) {
			break
		}
		if c+1 < len(q.heap) && q.heap[c+1].alarm().at < q.heap[c].alarm().at {
			c++
		}
		if q.heap[c].alarm().at >= t.at {
			break
		}
		q.heap[i] = q.heap[c]
		q.heap[i].alarm().index = i + 1
		i = c
	}
	q.heap[i] = s
	t.index = i + 1
}
