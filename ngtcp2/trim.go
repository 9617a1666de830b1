//go:build ngtcp2 && cgo

package ngtcp2

import (
	"sync"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

const (
	// trimCount is how many handshakes and connections must be over before it is
	// worth looking at what they have left.
	trimCount = 64

	// trimQuiet is how long none must have been, and trimEvery how often it is
	// looked at most.
	trimQuiet = time.Second
	trimEvery = 10 * time.Second
)

// A trimmer returns C memory to the system. A handshake takes 40 KiB for a moment,
// between blocks that its connection and others keep: without it, what a rush of
// clients needed stays with the process. It has a timer only when there is something
// to do.
type trimmer struct {
	mu    sync.Mutex
	count int         // guarded by mu; since the last time
	last  int         // guarded by mu; count when the timer was set
	timer *time.Timer // guarded by mu; nil until it is wanted
	armed bool        // guarded by mu
	ended bool        // guarded by mu
	after time.Time   // guarded by mu; not before
	group *group
}

// freed is called when a connection has given back what it had.
func (t *trimmer) freed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if t.count >= trimCount && !t.armed && !t.ended {
		t.arm(max(trimQuiet, time.Until(t.after)))
	}
}

// arm sets the timer. The caller holds mu.
func (t *trimmer) arm(d time.Duration) {
	t.armed, t.last = true, t.count
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.fire)
	} else {
		t.timer.Reset(d)
	}
}

func (t *trimmer) fire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	switch {
	case t.ended:
	case t.count != t.last:
		t.arm(trimQuiet)
	default:
		t.count, t.after = 0, time.Now().Add(trimEvery)
		t.group.run(capi.Trim) // ends when it is done
	}
}

// stop ends the timer for good. The endpoint waits for group.
func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
