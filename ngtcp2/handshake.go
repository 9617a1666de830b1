//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// What may wait for a handshake whose callback into the application takes long.
// More is dropped, as by a socket whose buffer is full.
const (
	inboxPackets = 64
	inboxBytes   = 96 << 10
	allInboxes   = 32 << 20 // of an endpoint

	// inboxLeast is how many packets there is room for in any case: handshakes
	// that hang must not stop the others.
	inboxLeast = 4
)

// A handshakeState is what a connection needs until it is established. The loop
// does not drive the connection: the application's callbacks, which run inside
// the library, may block. It puts what arrives into the inbox.
type handshakeState struct {
	waiting *atomic.Int64 // bytes in all inboxes of the endpoint

	// gate has a token while somebody takes conn.mu, and as long as the
	// goroutine that drives the handshake has it. Nobody else keeps conn.mu
	// for long, so that who waits for the gate first can give up: see enter.
	gate chan struct{}

	wake     chan struct{} // has a token if there may be something to do
	complete chan struct{} // closed when the handshake is

	mu        sync.Mutex
	over      bool      // guarded by mu: the loop drives the connection now
	packets   []inbound // guarded by mu
	bytes     int       // guarded by mu: of packets
	tick      bool      // guarded by mu: the timer has expired
	unblocked bool      // guarded by mu: the socket takes packets again
}

// inbound is a copy of a batch.
type inbound struct {
	s       socket
	path    capi.Path
	ecn     uint8
	segment int
	data    []byte
}

func newHandshake(waiting *atomic.Int64) *handshakeState {
	return &handshakeState{
		waiting:  waiting,
		gate:     make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		complete: make(chan struct{}),
	}
}

// post does f, unless the handshake is over, and wakes who drives it.
func (h *handshakeState) post(f func()) bool {
	h.mu.Lock()
	if h.over {
		h.mu.Unlock()
		return false
	}
	f()
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return true
}

// receive puts packets into the inbox.
func (h *handshakeState) receive(s socket, b *batch) bool {
	return h.post(func() {
		segment := b.segment
		if segment <= 0 {
			segment = len(b.data)
		}
		for rest := b.data; len(rest) > 0; {
			n := min(segment, len(rest))
			if len(h.packets) >= inboxPackets || h.bytes+n > inboxBytes ||
				len(h.packets) >= inboxLeast && h.waiting.Load() > allInboxes {
				return
			}
			h.packets = append(h.packets, inbound{s, b.path, b.ecn, 0, clone(rest[:n])})
			h.add(n)
			rest = rest[n:]
		}
	})
}

// take empties the inbox.
func (h *handshakeState) take() (packets []inbound, tick, unblocked bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	packets, tick, unblocked = h.packets, h.tick, h.unblocked
	h.add(-h.bytes)
	h.packets, h.tick, h.unblocked = nil, false, false
	return packets, tick, unblocked
}

// add counts n bytes in packets. The caller holds mu.
func (h *handshakeState) add(n int) {
	h.bytes += n
	h.waiting.Add(int64(n))
}

// end is called when nobody drives the connection any more.
func (h *handshakeState) end() {
	h.post(func() {
		h.over, h.packets = true, nil
		h.add(-h.bytes)
	})
}

// putBack puts packets before the others again. They were in the inbox: its
// bound is that of what is in it and in the hands of who drives.
func (h *handshakeState) putBack(packets []inbound) {
	h.post(func() {
		h.packets = append(packets, h.packets...)
		for i := range packets {
			h.add(len(packets[i].data))
		}
	})
}

// finish hands the connection to the loop if the inbox is empty.
func (h *handshakeState) finish() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.packets) > 0 || h.tick || h.unblocked {
		return false
	}
	h.over = true
	return true
}

// drive drives the connection until its handshake is complete, or its end.
func (c *conn) drive(h *handshakeState) {
	defer c.hs.Store(nil)
	defer c.limitHandshake()()
	defer h.end()
	if c.client {
		c.hold(h)
		c.flush(c.ep.now())
		if c.cc != nil && c.cc.EarlyData() {
			c.early = true
			c.announceReady()
		}
		c.unhold(h)
	} else {
		defer c.handshakeDone(time.Now())()
		c.begin()
	}
	for c.reason() == nil {
		if c.complete.Load() && h.finish() {
			c.releaseTLS()
			return
		}
		select {
		case <-h.wake:
			c.step(h)
		case <-c.ctx.Done():
		}
	}
	c.settle()
}

// handshakeDone returns what tells the application about the end of a server's
// handshake, which began at start. It is called when nobody drives it any more.
func (c *conn) handshakeDone(start time.Time) func() {
	return func() {
		f := c.ep.opts.HandshakeDone
		switch {
		case f == nil:
		case c.complete.Load():
			f(time.Since(start), nil)
		default:
			f(time.Since(start), c.reason())
		}
	}
}

// limitHandshake ends a handshake that takes too long also while a callback into
// the application blocks, when the library's own timer is not looked at.
func (c *conn) limitHandshake() (stop func()) {
	limit := c.cfg.settings.HandshakeTimeout
	if limit >= math.MaxInt64 {
		return func() {}
	}
	t := time.AfterFunc(time.Duration(limit), func() {
		c.ep.group.run(func() {
			if !c.complete.Load() && c.end(&ending{reason: transport.ErrHandshakeTimeout, silent: true}) {
				c.settle()
			}
		})
	})
	return func() { t.Stop() }
}

// releaseTLS frees what a server does not need any more: its tickets are in the
// library's buffers, and a client has nothing to say in CRYPTO frames.
func (c *conn) releaseTLS() {
	if c.client || c.lock() != nil {
		return
	}
	if c.confirmed {
		c.cc.ReleaseTLS()
		c.ep.trimmer.freed()
	}
	c.unlock()
}

// hold takes mu for a step of the handshake, in which callbacks may run.
func (c *conn) hold(h *handshakeState) {
	h.gate <- struct{}{} // who has it soon gives it back
	c.mu.Lock()
}

// unhold ends the step.
func (c *conn) unhold(h *handshakeState) {
	c.unlock()
	<-h.gate
}

// step does what is in the inbox.
func (c *conn) step(h *handshakeState) {
	packets, tick, unblocked := h.take()
	c.hold(h)
	now := c.ep.now()
	if unblocked {
		c.blocked = false
	}
	for i := range packets {
		if c.cc == nil || c.reason() != nil {
			break
		}
		if c.helloWaits() {
			// 0-RTT packets that follow can be read when TLS has begun.
			h.putBack(packets[i:])
			break
		}
		p := &packets[i]
		c.read(p.s, p.path, p.ecn, p.data, p.segment, now)
	}
	if tick && c.cc != nil && c.reason() == nil {
		c.tick(now)
	}
	hello := c.helloWaits()
	if !hello {
		c.flush(now)
	}
	c.announce(h)
	c.unhold(h)
	if hello {
		c.startTLS(h)
	}
}

// helloWaits reports whether a client's first message waits for its answer. The
// caller holds mu.
func (c *conn) helloWaits() bool {
	return c.hello && c.tls.Load() == nil && c.cc != nil && c.reason() == nil
}

// startTLS asks the application what to answer to the client's first message,
// with no lock held, and goes on with it.
func (c *conn) startTLS(h *handshakeState) {
	c.mu.Lock()
	if c.cc == nil || c.reason() != nil {
		c.unlock()
		return
	}
	hello := c.cc.ClientHello()
	c.unlock()
	conf, ts, alert, err := c.cfg.serverTLS(c.ctx, hello, c.LocalAddr(), c.RemoteAddr())
	c.hold(h)
	defer c.unhold(h)
	if c.cc == nil || c.reason() != nil {
		return
	}
	if err != nil {
		c.cc.FailHandshake(alert)
		c.endTLS(alert, err)
		return
	}
	c.tls.Store(ts)
	ts.attach(c.cc.TLSState)
	now := c.ep.now()
	err = c.cc.StartServerTLS(conf, now)
	if err == nil {
		// The events may be early data.
		if alert, err := ts.resumed(c.cc.TLSState()); err != nil {
			c.cc.FailHandshake(alert)
			c.endTLS(alert, err)
			return
		}
	}
	c.events()
	if err != nil {
		c.fail(err)
		return
	}
	c.flush(now)
	c.early = c.cfg.cfg.EarlyData
	c.announce(h)
}

// announce tells those who wait what the handshake has come to. The caller
// holds mu.
func (c *conn) announce(h *handshakeState) {
	if c.cc == nil || c.reason() != nil {
		return
	}
	complete := c.complete.Load()
	if c.early && !complete {
		c.keepSnapshot()
	}
	if complete {
		select {
		case <-h.complete:
		default:
			close(h.complete)
			c.announceReady()
		}
	}
	if c.listener != nil && !c.delivered && (complete || c.early && c.tls.Load() != nil) {
		c.delivered = true
		// The listener may close the connection.
		c.unlock()
		c.listener.queue.Deliver(c)
		c.mu.Lock()
	}
}

// Handshake implements transport.Conn.
func (c *conn) Handshake(ctx context.Context) error {
	if h := c.hs.Load(); h != nil && !c.complete.Load() {
		select {
		case <-h.complete:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return c.reasonOr(ctx.Err())
		}
	}
	if err := c.reason(); err != nil {
		return err
	}
	if c.rejected.Load() {
		return transport.ErrEarlyDataRejected
	}
	return nil
}
