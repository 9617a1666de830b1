package http3

import "sync"

// maxIdleWorkers bounds the goroutines that wait for work, in a server.
const maxIdleWorkers = 64

// workers are the goroutines that answer requests, one after another. One that has
// answered a request has the stack that the next needs; a new goroutine would grow
// and copy its own every time, which costs more than a small request itself.
//
// They end when nobody holds them any more.
type workers struct {
	mu      sync.Mutex
	holders int           // connections; guarded by mu
	idle    []chan func() // each a goroutine that waits; guarded by mu
}

// hold keeps idle goroutines until as many calls of release.
func (w *workers) hold() {
	w.mu.Lock()
	w.holders++
	w.mu.Unlock()
}

func (w *workers) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holders--
	if w.holders > 0 {
		return
	}
	for _, work := range w.idle {
		close(work)
	}
	w.idle = nil
}

// run calls f in a goroutine.
func (w *workers) run(f func()) {
	w.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		w.mu.Unlock()
		go w.work(f) // ends when there is enough of them, or no holder
		return
	}
	work := w.idle[n-1] // the last to have run: its stack is in the cache
	w.idle[n-1] = nil
	w.idle = w.idle[:n-1]
	w.mu.Unlock()
	work <- f
}

func (w *workers) work(f func()) {
	var work chan func()
	for f != nil {
		f()
		if work == nil {
			work = make(chan func(), 1) // run does not wait for it
		}
		w.mu.Lock()
		if w.holders == 0 || len(w.idle) == maxIdleWorkers {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, work)
		w.mu.Unlock()
		f = <-work // nil when it is closed
	}
}
