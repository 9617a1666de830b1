package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// hooks bound the calls of what the program was configured with: how many there
// are at a time, and how long each may take. Those that never return take up
// their places and harm nobody but whoever needs the same hook.
type hooks struct {
	timeout time.Duration
	places  chan struct{}
	running sync.WaitGroup
	log     *slog.Logger
}

func (h *hooks) init(c *Config) {
	h.timeout, h.log = c.HookTimeout, c.Logger
	h.places = make(chan struct{}, c.MaxHooks)
}

var (
	errHookPanicked = errors.New("broker: hook panicked")
	errNoPlace      = errors.New("no place for another call")
)

// call calls f in a goroutine of its own and waits for it, no longer than the
// hook's timeout or ctx. What f returns after that is lost.
func call[T any](ctx context.Context, h *hooks, what string, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	var none T
	select {
	case h.places <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("broker: %s: %w: %w", what, errNoPlace, ctx.Err())
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	h.running.Add(1) // by connections only, which Close waits for before
	go func() {      // ends when f returns; see wait
		defer h.running.Done()
		r := result{err: errHookPanicked}
		defer func() {
			if p := recover(); p != nil {
				h.log.Error("mqtt: hook panicked", "hook", what, "panic", p, "stack", string(debug.Stack()))
				r = result{err: errHookPanicked}
			}
			<-h.places
			done <- r
		}()
		r.v, r.err = f(ctx)
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("broker: %s: gave up waiting: %w", what, ctx.Err())
	}
}

// wait waits for the calls that were given up, whose contexts are done, but not
// for ever: a hook that ignores its context must not keep the broker from
// closing. It is called when there are no connections left.
func (h *hooks) wait(patience time.Duration) {
	done := make(chan struct{})
	go func() { // ends with the last hook
		h.running.Wait()
		close(done)
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		h.log.Error("mqtt: hooks do not return though their context is done; left behind", "calls", len(h.places))
	}
}
