package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Group commits changes to a Store in groups: while one batch is being written,
// the next piles up, and whoever waits for it is served by one write.
//
// Changes are added by Update. Those between Begin and End are in one batch,
// whatever other goroutines add in between. A Mark names a point in the order of
// changes, and Wait waits until everything before it is durable.
//
// When the store fails, the batch is tried again and again until it is written;
// meanwhile Err says why, and Wait does not wait but fails. The caller is to
// take nothing more that makes the batch grow than it must.
type Group struct {
	store Store
	cfg   GroupConfig

	gate sync.RWMutex // read-locked from Begin to End; a batch is cut under the write lock

	mu      sync.Mutex
	pending *Batch        // guarded by mu
	number  uint64        // guarded by mu: of pending
	written uint64        // guarded by mu: number of the last batch that is durable
	err     error         // guarded by mu: why the store takes nothing at this moment
	closed  bool          // guarded by mu
	changed chan struct{} // guarded by mu: closed and replaced when written, err or closed change

	size    atomic.Int64 // bytes of pending
	failing atomic.Bool  // err is not nil

	wake    chan struct{} // pending is not empty
	closing chan struct{} // closed by Close
	givenUp chan struct{} // closed by GiveUp
	stopped chan struct{} // closed when the goroutine has ended
	lost    error         // what could not be written at Close; read after stopped

	stats groupCounters
}

// A Mark is a point in the order of changes.
type Mark uint64

// GroupConfig says how a Group commits.
type GroupConfig struct {
	// Interval is 0 for fsync before Wait returns. Above 0, changes are
	// given to the operating system at once and synced once in each interval; Wait
	// does not wait, and a machine that stops loses what is younger.
	Interval time.Duration
	// MaxBytes is how much may pile up before Throttle waits: 8 MiB.
	MaxBytes int
	// Failed is called when the store begins to fail, with why, and with nil when
	// it works again. It is called by the committing goroutine. Nil: nobody.
	Failed func(error)
}

// GroupStats are the figures of a Group since its beginning.
type GroupStats struct {
	Commits   uint64        // batches written
	Changes   uint64        // records put and deleted
	Bytes     uint64        // of them
	Failures  uint64        // attempts that failed
	WriteTime time.Duration // sum over all batches
	Pending   int64         // bytes that pile up now
	Failing   bool          // the store takes nothing at this moment
}

type groupCounters struct {
	commits, changes, bytes, failures atomic.Uint64
	writeTime                         atomic.Int64
}

const (
	defaultMaxBytes = 8 << 20
	firstRetry      = 20 * time.Millisecond
	lastRetry       = time.Second
)

// NewGroup returns a Group that commits to s, with a goroutine that Close ends.
func NewGroup(s Store, cfg GroupConfig) *Group {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	g := &Group{
		store: s, cfg: cfg, pending: new(Batch), number: 1,
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
		closing: make(chan struct{}), givenUp: make(chan struct{}), stopped: make(chan struct{}),
	}
	go g.run() // ends with Close
	return g
}

// Begin begins a unit: the changes until End become durable together. Between the
// two the caller must not wait for anything, nor begin another.
func (g *Group) Begin() { g.gate.RLock() }

// End ends a unit.
func (g *Group) End() { g.gate.RUnlock() }

// Update adds changes, which f puts into the batch. f runs under a lock.
func (g *Group) Update(f func(*Batch)) {
	g.mu.Lock()
	was := g.pending.Len()
	f(g.pending)
	n := g.pending.Len()
	g.size.Store(int64(g.pending.Size()))
	g.mu.Unlock()
	if was == 0 && n > 0 {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// Mark returns the point behind all changes made so far.
func (g *Group) Mark() Mark {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending.Len() == 0 {
		return Mark(g.number - 1)
	}
	return Mark(g.number)
}

// Wait waits until everything before m is durable. It returns an error, and what
// was to be said after it must not be said, when the store fails or is closed.
// With an Interval it does not wait.
func (g *Group) Wait(m Mark) error {
	if g.cfg.Interval > 0 {
		return nil
	}
	for {
		g.mu.Lock()
		ok, err, closed, changed := g.written >= uint64(m), g.err, g.closed, g.changed
		g.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return err
		case closed:
			return ErrClosed
		}
		<-changed
	}
}

// Full reports whether Throttle would wait, most likely.
func (g *Group) Full() bool { return g.size.Load() >= int64(g.cfg.MaxBytes) }

// Throttle waits while more than MaxBytes have piled up and are being written.
// It returns at once when the store fails: see Err.
func (g *Group) Throttle() {
	for g.size.Load() >= int64(g.cfg.MaxBytes) {
		g.mu.Lock()
		full := g.pending.Size() >= g.cfg.MaxBytes && g.err == nil && !g.closed
		changed := g.changed
		g.mu.Unlock()
		if !full {
			return
		}
		<-changed
	}
}

// Err returns why the store takes nothing at this moment; nil if it does.
func (g *Group) Err() error {
	if !g.failing.Load() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Overfull reports whether the store fails and four times MaxBytes have piled up.
func (g *Group) Overfull() bool {
	return g.failing.Load() && g.size.Load() >= 4*int64(g.cfg.MaxBytes)
}

// Stats returns the group's figures.
func (g *Group) Stats() GroupStats {
	return GroupStats{
		Commits: g.stats.commits.Load(), Changes: g.stats.changes.Load(), Bytes: g.stats.bytes.Load(),
		Failures: g.stats.failures.Load(), WriteTime: time.Duration(g.stats.writeTime.Load()),
		Pending: g.size.Load(), Failing: g.failing.Load(),
	}
}

// Close writes what has piled up, with fsync, and ends the goroutine. If the store
// fails it is tried once more and then given up, which is the error. The
// store stays open. Nothing is to be added once Close was called. It waits for a
// write that is under way, until GiveUp is called.
func (g *Group) Close() error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		close(g.closing)
	}
	g.mu.Unlock()
	select {
	case <-g.stopped:
		return g.lost
	case <-g.givenUp:
		return errHung
	}
}

// errHung is what is said of a store that was given up.
var errHung = errors.New("store: a write or fsync does not return, and is not waited for any longer: see whether the device answers")

// GiveUp ends all waiting: for a store whose Apply does not return when everything is
// to end. What was not durable is not acknowledged any more. The goroutine of the
// Group ends with that Apply.
func (g *Group) GiveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.givenUp:
		return
	default:
	}
	close(g.givenUp)
	g.err = errHung
	g.failing.Store(true)
	g.tell()
}

// run commits until Close.
func (g *Group) run() {
	defer close(g.stopped)
	spare := new(Batch)
	var due <-chan time.Time // the next fsync with an Interval
	var timer *time.Timer
	if g.cfg.Interval > 0 {
		timer = time.NewTimer(g.cfg.Interval)
		timer.Stop()
	}
	for last := false; !last; {
		sync := g.cfg.Interval <= 0
		select {
		case <-g.wake:
		case <-due:
			sync, due = true, nil
		case <-g.closing:
			sync, last = true, true
		}
		g.gate.Lock()
		g.mu.Lock()
		b := g.pending
		number := g.number
		g.pending, g.number = spare, number+1
		g.size.Store(0)
		if b.Size() >= g.cfg.MaxBytes {
			g.tell() // Throttle, which has looked since the last batch was written
		}
		g.mu.Unlock()
		g.gate.Unlock()
		if b.Len() == 0 && sync && g.cfg.Interval <= 0 {
			// A wake-up that came late: its changes are in an earlier batch.
			g.finish(number, nil)
			spare = b
			continue
		}
		if err := g.apply(b, sync); err != nil {
			g.lost = fmt.Errorf("store: closed with %d changes not written: %w", b.Len(), err)
			g.finish(number-1, err)
			return
		}
		g.stats.commits.Add(1)
		g.stats.changes.Add(uint64(b.Len()))
		g.stats.bytes.Add(uint64(b.Size()))
		g.finish(number, nil)
		if !sync && due == nil {
			timer.Reset(g.cfg.Interval)
			due = timer.C
		}
		b.Reset()
		spare = b
	}
	g.finish(0, ErrClosed)
}

// apply writes b, again and again until it is written or the group is closed.
func (g *Group) apply(b *Batch, sync bool) error {
	retry := firstRetry
	for {
		began := time.Now()
		err := g.store.Apply(b, sync)
		if err == nil {
			g.stats.writeTime.Add(int64(time.Since(began)))
			if g.failing.Load() {
				g.fail(nil)
			}
			return nil
		}
		g.stats.failures.Add(1)
		if !g.failing.Load() {
			g.fail(err)
		}
		t := time.NewTimer(retry)
		select {
		case <-t.C:
		case <-g.closing:
			t.Stop()
			return err
		}
		retry = min(2*retry, lastRetry)
	}
}

// fail notes that the store does not work, or does again if err is nil.
func (g *Group) fail(err error) {
	g.mu.Lock()
	g.err = err
	g.failing.Store(err != nil)
	g.tell()
	g.mu.Unlock()
	if g.cfg.Failed != nil {
		g.cfg.Failed(err)
	}
}

// finish notes that the batches up to number are durable, or that there will be
// no more.
func (g *Group) finish(number uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = max(g.written, number)
	if err != nil {
		g.closed = true
	}
	g.tell()
}

// tell wakes whoever waits for a change. The caller holds mu.
func (g *Group) tell() {
	close(g.changed)
	g.changed = make(chan struct{})
}
