package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// wills are published when they are due, if the Authorizer allows it. Many may be due at
// once, when a network fails: they take turns, so that publishers and clients who come
// back find places for calls of their own. Whose connection has ended waits for its turn
// in its own goroutine, and counts as a connection until then. Without a connection there
// are workers: the wheel must not wait for the Authorizer.
type wills struct {
	b     *Broker
	turns chan struct{} // has an element for each will that is being asked about

	// ctx ends some time after the broker's: Close ends the connections whose
	// wills are due by that.
	ctx context.Context

	mu      sync.Mutex
	due     []*client // guarded by mu; of each session one, or a few
	workers int       // guarded by mu
}

func (w *wills) init(b *Broker) {
	w.b = b
	w.turns = make(chan struct{}, max(1, b.cfg.MaxHooks/2))
	var stop context.CancelFunc
	w.ctx, stop = context.WithCancel(context.Background())
	patience := min(b.cfg.HookTimeout, storeCloseTimeout/2)
	context.AfterFunc(b.ctx, func() { time.AfterFunc(patience, stop) })
}

// ask asks whether c's will p, which is due, may be published. It waits for its turn and
// for a place as long as it takes; Config.HookTimeout is for the call. An error means
// that it could not be found out. No lock is held, and no unit is open.
func (w *wills) ask(src *source, c *client, p *packet.Publish) (ok bool, err error) {
	if w.b.cfg.ACL == nil {
		return true, nil
	}
	who := src.setter
	if who == nil {
		who = c.identity()
	}
	_, name := splitDelayed(p.Topic)
	src.flush() // whoever has output from this source must not wait with us
	if src.cn != nil {
		src.cn.holds.Add(1)
		defer func() {
			src.now = time.Now()
			src.cn.release(src.now)
		}()
	}
	select {
	case w.turns <- struct{}{}:
		defer func() { <-w.turns }()
	case <-w.ctx.Done():
		return false, w.ctx.Err()
	}
	for {
		ok, err = w.b.mayStill(w.ctx, src, who, name)
		if !errors.Is(err, errNoPlace) || w.b.isClosing() {
			return ok, err
		}
	}
}

// may is ask, or what see has found out. What cannot be found out is denied.
func (w *wills) may(src *source, c *client, p *packet.Publish) bool {
	ok := src.ruled.ok
	if src.ruled.will == nil {
		ok, _ = w.ask(src, c, p)
	}
	src.ruled = ruling{}
	if !ok {
		w.b.count.dropDenied.Add(1)
	}
	return ok
}

// takes reports whether it sees to c, whose timer has run. What has not been decided on
// when the broker ends stays in the store.
func (w *wills) takes(c *client) bool {
	if w.b.cfg.ACL == nil {
		return false
	}
	c.mu.Lock()
	mine := !c.gone && c.conn == nil && c.s.Will() != nil
	c.mu.Unlock()
	if !mine {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = append(w.due, c)
	if w.workers < cap(w.turns) && w.b.begin() {
		w.workers++
		go w.work() // ends when nothing is due, or with the broker, which waits for it
	}
	return true
}

func (w *wills) work() {
	defer w.b.running.Done()
	for c := w.next(); c != nil; c = w.next() {
		var src source
		src.init(w.b, nil)
		w.see(&src, c)
	}
}

// A ruling is what has been found out about a will before it is published.
type ruling struct {
	will *packet.Publish // nil: nothing
	ok   bool
}

// see publishes the will of c, who has no connection, if it is due and may be. It is
// asked about first: until then the will is in the store, so that neither a crash nor
// the end of the broker loses it while nobody answers. No lock is held.
func (w *wills) see(src *source, c *client) {
	src.now = time.Now()
	c.mu.Lock()
	var will *packet.Publish
	if at := c.s.Deadline(); !c.gone && c.conn == nil && !at.IsZero() && !src.now.Before(at) {
		will = c.s.Will()
	}
	c.mu.Unlock()
	if will != nil {
		ok, err := w.ask(src, c, will)
		if err != nil && w.ctx.Err() != nil {
			return // the next start asks
		}
		src.ruled = ruling{will, ok}
	}
	c.tickFor(src)
	src.ruled = ruling{}
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
