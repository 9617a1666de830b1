// Package timerwheel runs many coarse timers on one goroutine: the keep-alive of
// each connection, the expiry of each session.
//
// A [Timer] is a field of the thing that it times; it costs no allocation and no
// goroutine. A [Wheel] fires each within one tick after its deadline, never
// before it.
//
//	type conn struct {
//		keepAlive timerwheel.Timer
//	}
//	c.keepAlive.Init(wheel, c.expired)
//	c.keepAlive.Reset(time.Now().Add(90 * time.Second)) // and again with each packet
//
// # Why a hierarchical wheel
//
// Deadlines here reach from a second (a connection without CONNECT) to weeks
// (a session's expiry). A hashed wheel walks past each timer once per
// revolution until its round has come; with hundreds of thousands of sessions that
// wait for days that is work without end. Here a timer lies in the level that
// suits its distance and is moved at most once per level on its way down, and a
// bitmap per level tells when the next occupied slot is due: the goroutine
// sleeps until then, for ever when there is none.
//
// # Postponing
//
// What a keep-alive timer is told, nearly always, is a later deadline. That
// is one compare-and-swap on the Timer, without the wheel's lock: the timer
// stays in the slot of its old deadline, and is put further back when that
// slot is due.
package timerwheel

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	levelBits = 6
	slotCount = 1 << levelBits
	slotMask  = slotCount - 1
	levels    = 8 // 2^48 ticks: 8,900 years of milliseconds

	maxTick = 1<<(levels*levelBits) - 1

	noSlot = levels * slotCount // the place of a timer that is in no list

	// maxDeadline is in nanoseconds since the start: 146 years, which leaves room
	// to calculate.
	maxDeadline = 1 << 62
)

// batch is how many timers are moved under the lock at a time.
const batch = 256

// A Wheel runs timers. Make one with [New].
type Wheel struct {
	tick  time.Duration
	start time.Time // deadlines are kept as durations since
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}

	mu       sync.Mutex
	lists    [levels * slotCount]*Timer // guarded by mu
	occupied [levels]uint64             // guarded by mu: which lists of a level have timers
	now      uint64                     // guarded by mu: every tick up to this has been served
	until    uint64                     // guarded by mu: the goroutine sleeps until this tick
	closed   bool                       // guarded by mu
	armed    int                        // guarded by mu: timers in lists
}

// A Timer calls a function once after each Reset, unless stopped before.
// It is meant to be a field; it must not be copied after Init. All methods but Init may be
// called from any goroutine at any time.
type Timer struct {
	wheel *Wheel
	f     func()

	// at is the deadline, in nanoseconds since the wheel's start; 0: not armed.
	// An armed timer is in a list, or in the hands of who holds the wheel's lock.
	// It is armed and disarmed with the lock held; to a later deadline it may be
	// changed without.
	at atomic.Int64

	next, prev *Timer // guarded by wheel.mu
	slot       uint16 // guarded by wheel.mu
}

// New starts a wheel. tick is its precision and must be positive; its
// goroutine runs until Close.
func New(tick time.Duration) *Wheel {
	if tick <= 0 {
		panic("timerwheel: tick is not positive")
	}
	w := &Wheel{
		tick:  tick,
		start: time.Now(),
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		until: maxTick,
	}
	go w.run() // until Close, which waits for it
	return w
}

// Close disarms all timers, and waits until no callback is running and none
// will. A Reset after it does nothing. A callback must not call it.
func (w *Wheel) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	<-w.done
}

// Len returns how many timers are armed.
func (w *Wheel) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.armed
}

// Init tells t its wheel and its function. It is called once, before any other
// method. f runs on the wheel's goroutine, where every other timer waits for it: it must be
// short and must not block. It runs without a lock of the wheel, and may
// Reset or Stop this timer and others.
func (t *Timer) Init(w *Wheel, f func()) {
	t.wheel, t.f, t.slot = w, f, noSlot
}

// Reset arms t, armed or not, for a deadline. One in the past is due with the
// next tick.
func (t *Timer) Reset(at time.Time) {
	w := t.wheel
	ns := min(max(int64(at.Sub(w.start)), 1), maxDeadline)
	for {
		old := t.at.Load()
		if old == 0 || ns < old {
			break
		}
		if t.at.CompareAndSwap(old, ns) {
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if t.slot != noSlot {
		w.unlink(t)
	}
	t.at.Store(ns)
	w.place(t, ns)
}

// Stop disarms t. It reports whether that kept the function from running:
// after true, it will not run until the next Reset; after false, t was not
// armed, or its function has been started, and may have returned or not.
func (t *Timer) Stop() bool {
	if t.at.Load() == 0 {
		return false
	}
	w := t.wheel
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.at.Swap(0) == 0 {
		return false
	}
	w.unlink(t)
	return true
}

// tickOf returns the first tick at which a deadline has passed.
func (w *Wheel) tickOf(ns int64) uint64 {
	tick := uint64(w.tick)
	return min((uint64(ns)+tick-1)/tick, maxTick)
}

// place puts t, which is in no list, into the list for a deadline, and wakes the
// goroutine if it would sleep too long. The caller holds mu.
func (w *Wheel) place(t *Timer, ns int64) {
	e := max(w.tickOf(ns), w.now+1)
	// The level of the highest digit, of six bits, in which e differs from now. The
	// digits above are equal, so within a level slots are in order of time.
	level := (bits.Len64(e^w.now) - 1) / levelBits
	shift := level * levelBits
	i := int(e>>shift) & slotMask
	w.link(t, uint16(level*slotCount+i))
	w.occupied[level] |= 1 << i
	if due := e >> shift << shift; due < w.until {
		w.until = due
		select {
		case w.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

func (w *Wheel) link(t *Timer, slot uint16) {
	head := w.lists[slot]
	t.slot, t.next, t.prev = slot, head, nil
	if head != nil {
		head.prev = t
	}
	w.lists[slot] = t
	w.armed++
}

// unlink takes t out of its list. The caller holds mu.
func (w *Wheel) unlink(t *Timer) {
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.lists[t.slot] = t.next
		if t.next == nil {
			w.occupied[t.slot/slotCount] &^= 1 << (t.slot % slotCount)
		}
	}
	t.slot, t.next, t.prev = noSlot, nil, nil
	w.armed--
}

// nextDue returns the list that is due first, and the tick. The caller holds mu.
func (w *Wheel) nextDue() (slot int, tick uint64, ok bool) {
	// All of a level is before all of the level above; see place.
	for level, bitmap := range w.occupied {
		if bitmap == 0 {
			continue
		}
		i := bits.TrailingZeros64(bitmap)
		shift := level * levelBits
		above := w.now >> shift &^ slotMask
		return level*slotCount + i, (above | uint64(i)) << shift, true
	}
	return 0, maxTick, false
}

func (w *Wheel) run() {
	defer close(w.done)
	sleep := time.NewTimer(0)
	defer sleep.Stop()
	for {
		next, ok := w.serve()
		var alarm <-chan time.Time
		if ok {
			sleep.Reset(time.Until(w.start.Add(time.Duration(next) * w.tick)))
			alarm = sleep.C
		} else {
			sleep.Stop()
		}
		select {
		case <-alarm:
		case <-w.wake:
		case <-w.stop:
			w.drain()
			return
		}
	}
}

// serve runs what is due and returns the tick when something will be; false if nothing will.
func (w *Wheel) serve() (next uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.closed {
		now := uint64(time.Since(w.start) / w.tick)
		slot, tick, ok := w.nextDue()
		if !ok || tick > now {
			// Nothing lies between, so every timer keeps its level and slot:
			// the digit in which it differs still does.
			w.now = max(w.now, min(now, tick-1))
			w.until = tick
			return tick, ok
		}
		w.now = tick
		w.due(slot)
	}
	return maxTick, false
}

// due empties a list whose tick, now, has come: it fires a timer if its
// deadline has come and puts it further back if not. The caller holds mu,
// which is released for callbacks, and now and then for others.
//
// The timers stay in their list until it is their turn, so that each can be stopped
// or reset until then. Nothing is added to the list meanwhile: a
// later tick that differs from now in the digit of this level has another slot,
// and one that does not belongs to a lower level.
func (w *Wheel) due(slot int) {
	for moved := 1; ; moved++ {
		t := w.lists[slot]
		if t == nil || w.closed {
			return
		}
		w.unlink(t)
		if w.expired(t) {
			w.mu.Unlock()
			t.f()
			w.mu.Lock()
		} else if moved%batch == 0 {
			w.mu.Unlock()
			w.mu.Lock()
		}
	}
}

// expired disarms t, which is in no list, if its deadline has come, and puts it
// back if not. The caller holds mu.
func (w *Wheel) expired(t *Timer) bool {
	for {
		at := t.at.Load()
		if w.tickOf(at) > w.now {
			w.place(t, at)
			return false
		}
		if t.at.CompareAndSwap(at, 0) {
			return true
		}
		// Postponed meanwhile: look again.
	}
}

// drain disarms what is left after Close, so that the wheel keeps nothing alive.
func (w *Wheel) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for slot := range w.lists {
		for t := w.lists[slot]; t != nil; t = w.lists[slot] {
			t.at.Store(0)
			w.unlink(t)
		}
	}
}
