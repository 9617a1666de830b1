package purego

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/internal/quicconf"
	"github.com/anyquic/anyquic/transport"
)

// smallDatagram fits into every packet of QUIC: 1200 bytes less the header and
// the tag, as quic-go counts them.
const smallDatagram = 1200 - 1 - 20 - 16

// maxEarlyDatagrams is how many go out in 0-RTT: fewer than quic-go's queue holds.
const maxEarlyDatagrams = 16

// oversize is larger than any packet of quic-go. Trying to send it tells the
// largest message without sending one.
var oversize [2048]byte

// errNoDatagrams says that one of the sides has them disabled.
var errNoDatagrams = unsupported("a datagram on this connection")

// datagrams are the messages of a connection on which both sides enable them.
//
// quic-go's own queues block the sender at 32 messages and drop what arrives
// behind 128 without a word. So there are two here: goroutines move messages
// between them and quic-go's.
type datagrams struct {
	c *conn

	arrived chan struct{} // has a token if in may not be empty

	mu                      sync.Mutex
	closed                  bool
	out, in                 ring
	sending                 bool     // a goroutine is sending
	early                   int      // handed over in 0-RTT; of the goroutine that is sending
	free                    [][]byte // buffers of out for reuse
	sent, received, dropped uint64
}

// datagramsUsable reports whether both sides enable datagrams.
func (c *conn) datagramsUsable() bool {
	if !c.cfg.Datagrams {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, remote := c.tlsState()
	return remote
}

// startDatagrams is called once the peer's transport parameters are known,
// before anyone else has c.
func (c *conn) startDatagrams() {
	if !c.datagramsUsable() {
		return
	}
	n := cmp.Or(c.cfg.DatagramQueue, quicconf.DatagramQueue)
	d := &datagrams{c: c, arrived: make(chan struct{}, 1)}
	d.out.max, d.in.max = n, n
	if !c.ep.group.run(d.receive) { // until the connection's end
		return
	}
	c.datagrams.Store(d)
	if c.ctx.Err() != nil {
		d.close()
	}
}

// maxDatagram returns the largest message that can be sent now. In a client's 0-RTT
// that is what always can: quic-go must not be asked while it reads the server's
// transport parameters, which take the place of those that the session promised.
func (c *conn) maxDatagram() int {
	if c.inEarlyData() {
		return smallDatagram
	}
	return c.maxDatagramNow()
}

// maxDatagramNow is maxDatagram as quic-go has it, or 0 if the peer takes none.
func (c *conn) maxDatagramNow() int {
	err := c.qc.SendDatagram(oversize[:])
	if big, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
		return int(big.MaxDatagramPayloadSize)
	}
	return 0
}

func (c *conn) SendDatagram(p []byte) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	d := c.datagrams.Load()
	if d == nil {
		return errNoDatagrams
	}
	if len(p) > smallDatagram {
		if n := c.maxDatagram(); len(p) > n {
			return c.orReason(&transport.DatagramTooLargeError{Max: n})
		}
	}
	d.send(p)
	return nil
}

func (d *datagrams) send(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	var b []byte
	if n := len(d.free); n > 0 {
		b = d.free[n-1][:0]
		d.free = d.free[:n-1]
	}
	if old, full := d.out.push(append(b, p...)); full {
		d.dropped++
		d.recycle(old)
	}
	if !d.sending {
		d.sending = d.c.ep.group.run(d.drain) // until the queue is empty
	}
}

// recycle keeps a buffer for the next message. The caller holds mu.
func (d *datagrams) recycle(b []byte) {
	if len(d.free) < 32 {
		d.free = append(d.free, b)
	}
}

// drain hands messages to quic-go, which copies them and blocks at its own
// limit, until there are no more.
func (d *datagrams) drain() {
	for {
		d.mu.Lock()
		p, ok := d.out.pop()
		if !ok || d.closed {
			d.sending = false
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		err := d.hand(p)
		d.mu.Lock()
		if err == nil {
			d.sent++
		} else {
			d.dropped++ // the path has become narrower, or the connection has ended
		}
		d.recycle(p)
		d.mu.Unlock()
	}
}

// hand gives p to quic-go, which copies it and blocks at its own limit. In 0-RTT it
// must not block (see answerGate): what goes over maxEarlyDatagrams waits here.
func (d *datagrams) hand(p []byte) (err error) {
	if c := d.c; c.inEarlyData() {
		if d.early < maxEarlyDatagrams && c.gate.pass(func() { err = c.qc.SendDatagram(p) }) {
			d.early++
			return err
		}
		if err := c.answered(context.Background()); err != nil {
			return err
		}
	}
	return d.c.qc.SendDatagram(p)
}

// receive takes messages from quic-go until the connection's end.
func (d *datagrams) receive() {
	for {
		p, err := d.c.qc.ReceiveDatagram(context.Background())
		if err != nil {
			_ = d.c.err(err) // ends the conn
			return
		}
		d.mu.Lock()
		if d.in.full() {
			d.dropped++
			d.mu.Unlock()
			continue
		}
		d.in.push(p)
		d.received++
		d.mu.Unlock()
		d.wake()
	}
}

func (d *datagrams) wake() {
	select {
	case d.arrived <- struct{}{}:
	default:
	}
}

func (c *conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	d := c.datagrams.Load()
	if d == nil {
		return nil, c.orReason(errNoDatagrams)
	}
	for {
		if c.ctx.Err() != nil {
			return nil, context.Cause(c.ctx)
		}
		d.mu.Lock()
		p, ok := d.in.pop()
		more := !d.in.empty()
		d.mu.Unlock()
		if more {
			d.wake() // another waits too
		}
		if ok {
			return p, nil
		}
		select {
		case <-d.arrived:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return nil, c.orReason(ctx.Err())
		}
	}
}

// close drops what waits. It is called at the connection's end.
func (d *datagrams) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.out, d.in, d.free = ring{}, ring{}, nil
}

func (d *datagrams) stats() (sent, received, dropped uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent, d.received, d.dropped
}

// A ring is a queue of at most max messages that takes memory for those it has
// held at once.
type ring struct {
	buf  [][]byte
	head int // of the oldest
	n    int
	max  int
}

func (r *ring) empty() bool { return r.n == 0 }
func (r *ring) full() bool  { return r.n >= r.max }

// push appends p. If the ring is full, it removes and returns the oldest.
func (r *ring) push(p []byte) (old []byte, full bool) {
	if r.max == 0 {
		return p, true
	}
	if r.full() {
		old, full = r.pop()
	}
	if r.n == len(r.buf) {
		buf := make([][]byte, min(r.max, max(8, 2*r.n)))
		copy(buf[copy(buf, r.buf[r.head:]):], r.buf[:r.head])
		r.buf, r.head = buf, 0
	}
	r.buf[(r.head+r.n)%len(r.buf)] = p
	r.n++
	return old, full
}

func (r *ring) pop() ([]byte, bool) {
	if r.n == 0 {
		return nil, false
	}
	p := r.buf[r.head]
	r.buf[r.head] = nil
	r.head = (r.head + 1) % len(r.buf)
	r.n--
	return p, true
}
