//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

const (
	version1 = 1

	// minInitialSize is the smallest datagram of a client's first packet (RFC
	// 9000, Section 14.1).
	minInitialSize = 1200

	// minInitialID is the shortest destination connection ID of a client's
	// first packet (RFC 9000, Section 7.2).
	minInitialID = 8

	// minReset is the size of the smallest stateless reset (RFC 9000, Section
	// 10.3).
	minReset = 21

	retryLifetime = 10 * time.Second
	tokenLifetime = 24 * time.Hour

	// Beyond that many handshakes with clients that have not proved their
	// address, more must.
	maxUnvalidated = 512

	// Answers to packets that belong to no connection, of each kind in a
	// second. Who sends more is not waiting for an answer.
	maxVersionsPerSecond = 1000
	maxResetsPerSecond   = 1000
	maxRefusalsPerSecond = 5000
	maxRetriesPerSecond  = 50000
)

// Answers are sent without a connection. They belong to the goroutine that
// reads from the endpoint's own socket, but for retries.
type answers struct {
	buf      [1500]byte
	out      capi.Output
	versions limiter
	resets   limiter
	refusals limiter
	retries  limiter
}

// A limiter bounds how often something is done in a second.
type limiter struct {
	mu   sync.Mutex
	from uint64 // guarded by mu; when the second began
	n    int    // guarded by mu
}

func (l *limiter) allow(now uint64, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now-l.from >= uint64(time.Second) {
		l.from, l.n = now, 0
	}
	if l.n == limit {
		return false
	}
	l.n++
	return true
}

// route implements sink. It hands packets to their connections, as many at a
// time as follow each other.
func (e *endpoint) route(s socket, b *batch) {
	run := batches.Get().(*batch)
	*run = batch{path: b.path, ecn: b.ecn, now: b.now, later: b.later}
	data, size := b.data, b.segment
	if size <= 0 || size > len(data) {
		size = len(data)
	}
	for len(data) > 0 {
		n := min(size, len(data))
		k, ok := e.destination(data[:n])
		if !ok {
			run.data, run.segment = data[:n], 0
			e.stray(s, run)
			data = data[n:]
			continue
		}
		for n < len(data) {
			end := min(n+size, len(data))
			if next, ok := e.destination(data[n:end]); !ok || next != k {
				break
			}
			n = end
		}
		run.data, run.segment = data[:n], size
		data = data[n:]
		if r := e.table.lookup(k); r != nil {
			r.receive(s, run)
			continue
		}
		// The first of them may create what the others are for.
		for rest := run.data; len(rest) > 0; {
			n := min(size, len(rest))
			run.data, run.segment = rest[:n], 0
			rest = rest[n:]
			if r := e.table.lookup(k); r != nil {
				r.receive(s, run)
			} else {
				e.stray(s, run)
			}
		}
	}
	run.data, run.later = nil, nil
	batches.Put(run)
}

// batches are those that route hands over: several loops may be in it at once.
var batches = sync.Pool{New: func() any { return new(batch) }}

// destination returns the connection ID that a packet is for, if it can be one
// of ours.
func (e *endpoint) destination(packet []byte) (k cidKey, ok bool) {
	h, ok := parseHeader(packet, e.ids.len)
	if !ok || len(h.dcid) > maxConnIDLen || len(h.dcid) == 0 {
		return k, false
	}
	return keyOf(h.dcid), true
}

// stray takes a packet that is for no connection.
func (e *endpoint) stray(s socket, b *batch) {
	h, ok := parseHeader(b.data, e.ids.len)
	switch {
	case ok && h.long && h.version == version1 && b.data[0]>>4&3 == typeInitial && s == e.socket:
		e.initial(s, b)
		return
	case ok && h.long && h.version == version1 && b.data[0]>>4&3 == type0RTT && s == e.socket:
		if l := e.listener.Load(); l != nil && l.cfg.cfg.EarlyData && len(h.dcid) >= minInitialID && len(h.dcid) <= maxConnIDLen {
			e.overtaking.keep(keyOf(h.dcid), b)
			return
		}
	case ok && h.long && h.version != version1:
		e.negotiate(s, b, h)
	case b.data[0]&0x80 == 0:
		if c := e.table.reset(b.data); c != nil {
			c.receive(s, b)
			return
		}
		if ok {
			e.reset(s, b, h)
		}
	}
	e.stats.dropped.Add(1)
}

// negotiate answers a packet of an unknown version, if it is large enough to
// begin a connection (RFC 9000, Section 6.1).
func (e *endpoint) negotiate(s socket, b *batch, h header) {
	if s != e.socket || h.version == 0 || len(b.data) < minInitialSize || e.listener.Load() == nil {
		return
	}
	if !e.answers.versions.allow(b.now, maxVersionsPerSecond) {
		return
	}
	n := capi.WriteVersionNegotiation(e.answers.buf[:], h.dcid, h.scid)
	e.answer(s, b, n)
}

// reset answers a packet with a short header with a stateless reset (RFC 9000,
// Section 10.3). It is shorter than the packet, so that two endpoints that
// reset each other's resets soon end.
func (e *endpoint) reset(s socket, b *batch, h header) {
	if s != e.socket || e.opts.StatelessResetKey == [32]byte{} || len(b.data) <= minReset {
		return
	}
	if !e.answers.resets.allow(b.now, maxResetsPerSecond) {
		return
	}
	token, err := capi.ResetToken(&e.opts.StatelessResetKey, h.dcid)
	if err != nil {
		return
	}
	n := capi.WriteStatelessReset(e.answers.buf[:min(len(e.answers.buf), len(b.data)-1)], &token, len(b.data))
	e.answer(s, b, n)
}

// askRetry asks a client to prove its address after a first packet that cannot
// be kept without. The caller holds mu.
func (c *conn) askRetry() {
	if c.client || c.retried || c.ep.opts.ConnIDs != nil {
		return // a client takes one Retry (RFC 9000, Section 17.2.5.2)
	}
	if !c.ep.answers.retries.allow(c.ep.now(), maxRetriesPerSecond) {
		return
	}
	in := capi.Initial{Version: version1, DCID: c.id, SCID: c.peerID}
	id, err := c.ep.ids.generate()
	if err != nil {
		return
	}
	var buf [512]byte
	p := c.path.Load()
	n, err := capi.WriteRetry(buf[:], &c.ep.tokenKey, &in, id, p.Remote, wallNow())
	if err != nil {
		return
	}
	c.ep.stats.retries.Add(1)
	c.sock.send(nil, &capi.Output{N: n, Path: *p}, buf[:n])
}

// answer sends the first n bytes of the buffer to where b came from.
func (e *endpoint) answer(s socket, b *batch, n int) {
	if n > 0 {
		e.answers.out = capi.Output{N: n, Path: b.path}
		s.send(nil, &e.answers.out, e.answers.buf[:n])
	}
}

// initial takes a client's first packet, and with it perhaps the connection.
func (e *endpoint) initial(s socket, b *batch) {
	if len(b.data) < minInitialSize {
		e.stats.dropped.Add(1)
		return
	}
	in, err := capi.Accept(b.data)
	if err != nil || len(in.DCID) < minInitialID {
		e.stats.dropped.Add(1)
		return
	}
	l := e.listener.Load()
	if l == nil && !e.listened.Load() {
		// A server may be about to listen: the client tries again.
		e.stats.refused.Add(1)
		return
	}
	if l == nil || l.queue.Full() {
		e.refuse(s, b, &in)
		return
	}
	o := capi.ServerOptions{Path: b.path, Initial: in}
	if err := e.readToken(&o); err != nil {
		e.refuseWith(s, b, &in, invalidToken)
		return
	}
	remote := b.path.Remote
	if o.TokenKind == capi.TokenNone && e.mustRetry(remote) {
		e.retry(s, b, &in)
		return
	}
	if !e.admit() {
		e.refuse(s, b, &in)
		return
	}
	c, err := e.accept(s, l, &o)
	if err != nil {
		e.leave()
		e.refuse(s, b, &in)
		return
	}
	c.receive(s, b)
	e.overtaking.take(keyOf(in.DCID), b.now, func(b *batch) { c.receive(s, b) })
}

// accept makes a connection and its entries in the table.
func (e *endpoint) accept(s socket, l *listener, o *capi.ServerOptions) (*conn, error) {
	var err error
	if o.SCID, err = e.newConnID(); err != nil {
		return nil, err
	}
	c, err := newServerConn(e, s, l, o)
	if err != nil {
		return nil, err
	}
	if !e.addConn(c, true, o.TokenKind == capi.TokenNone) {
		e.leave() // it is in no list, so that its end does not
		c.closeNow()
		return c, nil
	}
	ok := e.table.add(c, &c.routes, keyOf(o.SCID), false)
	e.table.add(c, &c.routes, keyOf(o.Initial.DCID), true)
	if len(o.OriginalDCID) > 0 {
		// After a Retry that is what late packets have, from before it.
		e.table.add(c, &c.routes, keyOf(o.OriginalDCID), true)
	}
	if !ok {
		c.closeNow()
	}
	return c, nil
}

// mustRetry reports whether a client must prove its address.
func (e *endpoint) mustRetry(remote netip.AddrPort) bool {
	if e.opts.RequireRetry != nil && e.opts.RequireRetry(e.netAddr(remote)) {
		return true
	}
	return e.unvalidated.Load() >= maxUnvalidated
}

var errInvalidToken = errors.New("ngtcp2: invalid Retry token")

// readToken sets what the client's token proves, if anything. It fails if the
// token is of a Retry and not valid (RFC 9000, Section 8.1.2), while others
// that are not valid count as none (Section 8.1.3).
func (e *endpoint) readToken(o *capi.ServerOptions) error {
	in := &o.Initial
	if len(in.Token) == 0 {
		return nil
	}
	wall, remote := wallNow(), o.Path.Remote
	original, err := capi.VerifyRetryToken(&e.tokenKey, in, remote, uint64(retryLifetime), wall)
	switch {
	case err == nil:
		o.OriginalDCID, o.Token, o.TokenKind = original, in.Token, capi.TokenRetry
		return nil
	case !errors.Is(err, capi.ErrNotRetryToken):
		return errInvalidToken
	}
	if capi.VerifyRegularToken(&e.tokenKey, in.Token, remote, uint64(tokenLifetime), wall) == nil {
		o.Token, o.TokenKind = in.Token, capi.TokenRegular
	}
	return nil
}

// retry asks the client to prove its address (RFC 9000, Section 8.1.2).
func (e *endpoint) retry(s socket, b *batch, in *capi.Initial) {
	if !e.answers.retries.allow(b.now, maxRetriesPerSecond) {
		e.stats.dropped.Add(1)
		return
	}
	id, err := e.newConnID()
	if err != nil {
		e.refuse(s, b, in)
		return
	}
	n, err := capi.WriteRetry(e.answers.buf[:], &e.tokenKey, in, id, b.path.Remote, wallNow())
	if err != nil {
		e.refuse(s, b, in)
		return
	}
	e.stats.retries.Add(1)
	e.answer(s, b, n)
}

// Transport error codes (RFC 9000, Section 20.1).
const (
	connectionRefused = 0x2
	invalidToken      = 0xb
)

func (e *endpoint) refuse(s socket, b *batch, in *capi.Initial) {
	e.refuseWith(s, b, in, connectionRefused)
}

func (e *endpoint) refuseWith(s socket, b *batch, in *capi.Initial, code uint64) {
	e.stats.refused.Add(1)
	if !e.answers.refusals.allow(b.now, maxRefusalsPerSecond) {
		return
	}
	if n, err := capi.WriteInitialClose(e.answers.buf[:], in, code, ""); err == nil {
		e.answer(s, b, n)
	}
}

// newToken makes an address validation token for a client's next connection
// (RFC 9000, Section 8.1.3).
func (e *endpoint) newToken(remote netip.AddrPort) ([]byte, error) {
	return capi.NewRegularToken(&e.tokenKey, remote, wallNow())
}

func wallNow() uint64 { return uint64(time.Now().UnixNano()) }
