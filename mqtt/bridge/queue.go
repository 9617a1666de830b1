package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A queue holds messages until the remote broker has them, oldest first, bounded in
// bytes: those that wait, and those that were taken by next and not yet removed.
type queue struct {
	max int

	mu          sync.Mutex
	first, last *entry // guarded by mu; all entries
	cursor      *entry // guarded by mu; the first that next has not returned
	atMostOnce  int    // guarded by mu; entries with QoS 0 from cursor on
	count       int    // guarded by mu
	bytes       int    // guarded by mu
	closed      bool   // guarded by mu
	wake        chan struct{}
	empty       chan struct{} // guarded by mu; closed when the queue is; nil: nobody waits
}

type entry struct {
	m          *packet.Publish
	at         time.Time // when it was added
	cost       int
	prev, next *entry
	taken      bool
	removed    bool
}

// entryOverhead is about what an entry costs besides the message, bytes.
const entryOverhead = 256

func newQueue(limit int) *queue { return &queue{max: limit, wake: make(chan struct{}, 1)} }

// add copies m to the end. If there is no room, messages with QoS 0 that wait make
// some, the oldest first; add reports how many were dropped, and false if m was not
// added even so. An empty queue takes any one message.
func (q *queue) add(m *packet.Publish, now time.Time) (dropped int, ok bool) {
	e := &entry{at: now, cost: packet.PublishSize(packet.V5, m, packet.PublishHeader{QoS: m.QoS, PacketID: 1}) + entryOverhead}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, true // nobody counts any more
	}
	for at := q.cursor; at != nil && q.atMostOnce > 0 && q.bytes+e.cost > q.max; {
		next := at.next
		if at.m.QoS == packet.AtMostOnce {
			q.unlink(at)
			dropped++
		}
		at = next
	}
	if q.count > 0 && q.bytes+e.cost > q.max {
		return dropped, false
	}
	e.m = client.Clone(m)
	e.prev = q.last
	if q.last == nil {
		q.first = e
	} else {
		q.last.next = e
	}
	q.last = e
	if q.cursor == nil {
		q.cursor = e
	}
	if m.QoS == packet.AtMostOnce {
		q.atMostOnce++
	}
	q.count++
	q.bytes += e.cost
	q.kick()
	return dropped, true
}

func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next takes the next message. It waits until there is one, and returns nil when ctx
// is done or the queue is closed. For one goroutine.
func (q *queue) next(ctx context.Context) *entry {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil
		}
		if e := q.cursor; e != nil {
			q.cursor = e.next
			e.taken = true
			if e.m.QoS == packet.AtMostOnce {
				q.atMostOnce--
			}
			q.mu.Unlock()
			return e
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// remove ends what next has returned.
func (q *queue) remove(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unlink(e)
}

// unlink is called with mu held.
func (q *queue) unlink(e *entry) {
	if e.removed {
		return
	}
	e.removed = true
	if q.cursor == e {
		q.cursor = e.next
	}
	if !e.taken && e.m.QoS == packet.AtMostOnce {
		q.atMostOnce--
	}
	if e.prev == nil {
		q.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		q.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	q.count--
	q.bytes -= e.cost
	if q.count == 0 && q.empty != nil {
		close(q.empty)
		q.empty = nil
	}
}

// emptied returns a channel that is closed when the queue is empty, nil if it is.
func (q *queue) emptied() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == 0 {
		return nil
	}
	if q.empty == nil {
		q.empty = make(chan struct{})
	}
	return q.empty
}

func (q *queue) size() (count, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count, q.bytes
}

// close makes next return nil.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.kick()
}
