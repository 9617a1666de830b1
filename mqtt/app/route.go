package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A route is a pattern with its handler and the messages that wait for it.
//
// Messages with one topic form a line. A line is in ready when it has messages
// and none of them is being worked on; workers take the first message of the
// first line that is ready. Workers are started when there is something to do, up to
// Options.Concurrency, and end when there is nothing.
type route struct {
	pattern
	app *App
	o   Options
	h   Handler

	mu      sync.Mutex
	lines   map[string]*line // guarded by mu; by topic; none if Unordered
	ready   []*line          // guarded by mu
	next    int              // guarded by mu; ready[next:] is ready
	workers int              // guarded by mu
	waiting int              // guarded by mu

	handled, errs, panics, timedOut atomic.Uint64

	lastLog    atomic.Int64  // Unix nanoseconds
	suppressed atomic.Uint64 // lines since then
}

// A line is messages that are handled one after the other.
type line struct {
	topic    string
	messages []*Message
}

func newRoute(a *App, p pattern, o Options, h Handler) *route {
	return &route{pattern: p, app: a, o: o, h: h, lines: make(map[string]*line)}
}

// add gives the route a message, whose delivery is done with it some time: at once if
// the handlers have been waited for.
func (r *route) add(m *Message) {
	if !m.delivery.serve.enter() {
		m.done(packet.ImplementationSpecificError)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	if !r.o.Unordered {
		if l := r.lines[m.Topic]; l != nil {
			l.messages = append(l.messages, m)
			return
		}
	}
	l := &line{topic: m.Topic, messages: []*Message{m}}
	if !r.o.Unordered {
		r.lines[m.Topic] = l
	}
	r.ready = append(r.ready, l)
	if r.workers < r.o.Concurrency {
		r.workers++
		go r.work() // ends when nothing is ready; its messages are waited for
	}
}

func (r *route) work() {
	ended := false
	defer func() {
		if !ended { // a handler has called runtime.Goexit
			go r.work() // in its place
		}
	}()
	r.mu.Lock()
	for r.next < len(r.ready) {
		l := r.ready[r.next]
		r.ready[r.next] = nil
		if r.next++; r.next == len(r.ready) {
			r.ready, r.next = r.ready[:0], 0
		}
		m := l.messages[0]
		l.messages[0] = nil
		l.messages = l.messages[1:]
		r.waiting--
		r.mu.Unlock()
		r.handle(m, l)
		r.mu.Lock()
	}
	r.workers--
	ended = true
	r.mu.Unlock()
}

// advance ends the work on the first message of a line.
func (r *route) advance(l *line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(l.messages) > 0:
		r.ready = append(r.ready, l)
	case !r.o.Unordered:
		delete(r.lines, l.topic)
	}
	if r.next > 64 && r.next > len(r.ready)/2 {
		n := copy(r.ready, r.ready[r.next:])
		clear(r.ready[n:])
		r.ready, r.next = r.ready[:n], 0
	}
}

// handle calls the handler for the message that was first in a line and ends its
// part of the delivery.
func (r *route) handle(m *Message, l *line) {
	defer m.delivery.serve.leave()
	defer r.advance(l)
	if m.delivery.serve.ended() {
		m.done(packet.ImplementationSpecificError)
		return
	}
	ctx := r.app.end
	if t := r.app.cfg.Timeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		stop := context.AfterFunc(ctx, func() {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				r.timedOut.Add(1)
				r.log(m, "time is over", nil)
				m.done(packet.ImplementationSpecificError)
			}
		})
		defer cancel() // after stop
		defer stop()
	}
	m.ctx = ctx
	err := Reason(packet.UnspecifiedError) // unless it returns
	defer func() {
		r.handled.Add(1)
		m.done(codeOf(err))
	}()
	err = r.call(ctx, m)
}

// call returns the handler's error. A panic is logged, counted and one with
// packet.UnspecifiedError.
func (r *route) call(ctx context.Context, m *Message) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p := recover()
		r.panics.Add(1)
		r.app.log.Error("mqtt: handler panicked", "pattern", r.text, "topic", m.Topic,
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		err = Reason(packet.UnspecifiedError)
	}()
	err = r.h(ctx, m)
	returned = true
	if err != nil {
		r.errs.Add(1)
		r.log(m, "handler failed", err)
	}
	return err
}

// log writes at most one line a second: publishers decide how often there is
// something to say.
func (r *route) log(m *Message, what string, err error) {
	now, last := time.Now().UnixNano(), r.lastLog.Load()
	if now-last < int64(time.Second) || !r.lastLog.CompareAndSwap(last, now) {
		r.suppressed.Add(1)
		return
	}
	r.app.log.Warn("mqtt: "+what, "pattern", r.text, "topic", m.Topic,
		"client", m.Client().ClientID, slog.Any("err", err), "more", r.suppressed.Swap(0))
}

func (r *route) stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Pattern: r.text, Messages: r.handled.Load(), Errors: r.errs.Load(), Panics: r.panics.Load(),
		TimedOut: r.timedOut.Load(), Running: r.workers, Waiting: r.waiting,
	}
}

// A delivery is one message on its way to several handlers.
type delivery struct {
	serve   *serve
	end     func(packet.ReasonCode) // called once, with the first refusal
	parts   atomic.Int32
	refused atomic.Uint32
}

func newDelivery(s *serve, parts int, end func(packet.ReasonCode)) *delivery {
	d := &delivery{serve: s, end: end}
	d.parts.Store(int32(parts))
	return d
}

// done ends one part.
func (d *delivery) done(code packet.ReasonCode) {
	if code.Failed() {
		d.refused.CompareAndSwap(0, uint32(code))
	}
	if d.parts.Add(-1) == 0 {
		d.end(packet.ReasonCode(d.refused.Load()))
	}
}

// done ends the message's part of its delivery, once.
func (m *Message) done(code packet.ReasonCode) {
	if !m.ended.Swap(true) {
		m.delivery.done(code)
	}
}
