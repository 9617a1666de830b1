package broker

import "sync"

// wills publishes those of sessions without a connection when they are due, if an
// Authorizer is to be asked: the wheel must not wait for it.
type wills struct {
	b *Broker

	mu      sync.Mutex
	due     []*client // guarded by mu; of each session one, or a few
	workers int       // guarded by mu
}

// maxWillWorkers is how many wills are asked about at once.
const maxWillWorkers = 8

// takes reports whether it sees to c, whose timer has run. What is not due yet when the
// broker ends stays in the store.
func (w *wills) takes(c *client) bool {
	if w.b.cfg.ACL == nil {
		return false
	}
	c.mu.Lock()
	mine := !c.gone && c.conn == nil && c.s.HasWill()
	c.mu.Unlock()
	if !mine {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = append(w.due, c)
	if w.workers < maxWillWorkers && w.b.begin() {
		w.workers++
		go w.work() // ends when nothing is due, or with the broker, which waits for it
	}
	return true
}

func (w *wills) work() {
	defer w.b.running.Done()
	for c := w.next(); c != nil; c = w.next() {
		c.tickNow()
	}
}

// next returns the client whose will has been due longest. Without any, or when the
// broker closes, it ends a worker.
func (w *wills) next() *client {
	closing := w.b.isClosing()
	w.mu.Lock()
	defer w.mu.Unlock()
	if closing || len(w.due) == 0 {
		w.due = nil
		w.workers--
		return nil
	}
	c := w.due[0]
	w.due[0] = nil
	w.due = w.due[1:]
	return c
}
