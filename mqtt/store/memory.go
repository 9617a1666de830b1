package store

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
)

// A Memory is a Store in memory, for tests of what must survive: it can fail, stop
// as a machine stops, and show what would be found afterwards. What was not
// synced is lost at a stop.
type Memory struct {
	mu       sync.Mutex
	now      map[string]string // guarded by mu: what Load finds
	durable  map[string]string // guarded by mu: what it would find after a stop
	unsynced []*Batch          // guarded by mu: between the two
	applied  int               // guarded by mu: calls of Apply that were not empty
	plan     func(n int) Fault // guarded by mu
	stopped  bool              // guarded by mu
	released chan struct{}     // closed by Close
	stats    Stats             // guarded by mu
}

// A Fault is what a Memory does in place of an Apply.
type Fault struct {
	// Err is returned; the batch is not written, or is if Torn.
	Err  error
	Torn bool // with Err: it was written all the same
	// Stop stops the machine: Apply, and all that follow, block until Close. The batch
	// is lost, or durable if Torn: the answer alone is missing.
	Stop bool
}

// NewMemory returns an empty Memory. Before the n-th Apply with changes, counted
// from 1, it asks plan for a fault; nil: there are none. plan runs under a lock.
func NewMemory(plan func(n int) Fault) *Memory {
	return &Memory{now: map[string]string{}, durable: map[string]string{}, plan: plan, released: make(chan struct{})}
}

// Restart returns a Memory with what would be found after the machine had stopped
// now. The old one must not be used but for Close.
func (m *Memory) Restart(plan func(n int) Fault) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	n := NewMemory(plan)
	for k, v := range m.durable {
		n.now[k], n.durable[k] = v, v
	}
	return n
}

// Applied returns how many batches with changes were given to Apply.
func (m *Memory) Applied() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

// Change replaces the value of every key by what f returns, also where it is
// durable: damage. A nil value leaves the key as it is.
func (m *Memory) Change(f func(key, value []byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, v := range m.now {
		if n := f([]byte(k), []byte(v)); n != nil {
			m.now[k] = string(n)
			m.durable[k] = string(n)
		}
	}
}

// Len returns the number of keys.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.now)
}

// Load implements [Store].
func (m *Memory) Load(f func(key, value []byte) error) error {
	m.mu.Lock()
	all := make([][2]string, 0, len(m.now))
	for k, v := range m.now {
		all = append(all, [2]string{k, v})
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	for _, kv := range all {
		if err := f([]byte(kv[0]), []byte(kv[1])); err != nil {
			return err
		}
	}
	return nil
}

// Apply implements [Store].
func (m *Memory) Apply(b *Batch, sync bool) error {
	m.mu.Lock()
	var fault Fault
	if b.Len() > 0 {
		m.applied++
		if m.plan != nil && !m.stopped {
			fault = m.plan(m.applied)
		}
	}
	if fault.Stop {
		m.stopped = true
	} else if m.stopped {
		fault = Fault{Stop: true}
	}
	if fault == (Fault{}) || fault.Torn {
		m.write(b, sync)
	}
	m.mu.Unlock()
	if fault.Stop {
		<-m.released
		return ErrClosed
	}
	return fault.Err
}

// write changes the maps. The caller holds mu.
func (m *Memory) write(b *Batch, sync bool) {
	m.stats.WrittenUser += int64(b.Size())
	m.stats.WrittenDisk += int64(b.Size())
	change(m.now, b)
	if !sync {
		c := *b
		c.buf = bytes.Clone(b.buf)
		m.unsynced = append(m.unsynced, &c)
		return
	}
	for _, u := range m.unsynced {
		change(m.durable, u)
	}
	m.unsynced = nil
	change(m.durable, b)
}

func change(in map[string]string, b *Batch) {
	b.Each(func(op Op, key, value []byte) {
		switch op {
		case Put:
			in[string(key)] = string(value)
		case DeletePrefix:
			for k := range in {
				if strings.HasPrefix(k, string(key)) {
					delete(in, k)
				}
			}
		default:
			delete(in, string(key))
		}
	})
}

// Compact implements [Store]: there is nothing to do.
func (m *Memory) Compact() error { return nil }

// Stats implements [Store].
func (m *Memory) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	for k, v := range m.now {
		s.DiskBytes += int64(len(k) + len(v))
	}
	return s
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.released:
		return errors.New("store: closed twice")
	default:
	}
	m.stopped = true
	close(m.released)
	return nil
}
