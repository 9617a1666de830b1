package broker

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A conn is one client's network connection.
//
// It begins as a reading goroutine that waits for CONNECT. When that has found
// or made its client, the conn is attached to it until another conn takes
// over, the link fails, or the server or the session ends it; see end.
type conn struct {
	b       *Broker
	link    mqtt.Link
	carrier int              // index of the carrier's counters
	limits  *limits          // of its beginning
	place   place            // set before begin
	timer   timerwheel.Timer // CONNECT is late; or the end has lingered long enough

	client     *client        // set by connect before any other goroutine sees the conn
	version    packet.Version // likewise
	id         string         // likewise; the client identifier, assigned if CONNECT has none
	assigned   bool           // likewise
	username   string         // likewise
	standing   *standing      // likewise; nil: without an Authenticator
	revision   uint64         // likewise: the Authorizer's when it was asked about CONNECT
	setter     *ClientInfo    // likewise: who had the session that it took over; nil: nobody
	throttle   *throttle      // likewise
	keepAlive  time.Duration  // likewise: how long the client may be silent; 0: for ever
	superseded *conn          // likewise: whose place it took, until that is told; nil: nobody's
	since      time.Time      // likewise: when it was attached
	in         inlet
	out        outlet
	goroutines sync.WaitGroup // writers and data streams

	remote netip.AddrPort // that was seen last; guarded by client.mu

	data map[mqtt.StreamID]*outlet // guarded by client.mu; nil on carriers without streams

	// guarded by client.mu:
	closing   bool
	farewell  []byte            // written after everything else; nil: none
	code      packet.ReasonCode // why it ended
	reason    string
	abnormal  bool   // worth a line in the log
	resetCode uint64 // to reset the control stream with; 0: do not

	linkCode atomic.Uint64
	lingered atomic.Bool // the first half of the linger is over
	late     atomic.Bool // CONNECT did not come in time
	unproven atomic.Bool // the handshake is not complete, and most packets wait for it

	spilling atomic.Bool  // its client has a spill
	holds    atomic.Int32 // reading goroutines that are held back
	released atomic.Int64 // Unix nanoseconds: when the last was released
}

// An inlet is the reading side of a stream.
type inlet struct {
	cn      *conn
	stream  mqtt.Stream
	reader  *mqtt.Reader
	src     source
	publish packet.Publish   // decoded into again and again
	fx      []session.Effect // reused
	flow    flow
	remote  netip.AddrPort // the client's address, as far as seen here
	end     error          // of a data stream: why it is read no further; nil: that is our doing
}

// An outlet is the writing side of a stream.
type outlet struct {
	cn      *conn
	stream  mqtt.Stream
	id      mqtt.StreamID
	writing bool    // guarded by client.mu: it has a goroutine
	ended   bool    // guarded by client.mu: a data stream that the client has closed; FIN follows what is being written
	quantum int     // bytes per write; writing goroutine only
	promise promise // of what is about to be written; writing goroutine only
}

// serveLink is a connection's control stream's reading goroutine.
func (b *Broker) serveLink(link mqtt.Link, listener *listenerUse) {
	cn := &conn{b: b, link: link, carrier: carrierIndex(link.Carrier()), limits: b.limits.Load(), since: time.Now()}
	cn.linkCode.Store(uint64(mqtt.LinkControlDown))
	cn.timer.Init(b.wheel, cn.timeout)

	at, now := link.RemoteAddr(), time.Now()
	b.mu.Lock()
	ok := false
	if !b.closing {
		cn.place, ok = b.enter(at, listener, now)
	}
	if !ok {
		b.mu.Unlock()
		b.refuse(link, mqtt.LinkOverloaded)
		return
	}
	b.conns[cn] = struct{}{}
	b.mu.Unlock()
	counts := &b.count.conns[cn.carrier]
	counts.now.Add(1)
	counts.total.Add(1)

	cn.timer.Reset(time.Now().Add(b.cfg.ConnectTimeout))
	if cn.begin(cn.place.refused) {
		cn.in.read()
	}
	cn.finish()

	b.mu.Lock()
	delete(b.conns, cn)
	b.leave(&cn.place)
	b.mu.Unlock()
	counts.now.Add(-1)
}

// How much room there is for another connection.
const (
	roomForOne     = iota
	roomForRefusal // it may send CONNECT and is told
	noRoom
)

// room is called with mu held.
func (b *Broker) room() int {
	limit := b.limits.Load().maxConns
	switch {
	case limit == 0 || len(b.conns) < limit:
		return roomForOne
	case len(b.conns) < limit+max(16, limit/8):
		return roomForRefusal
	}
	return noRoom
}

// timeout runs on the wheel's goroutine.
func (cn *conn) timeout() {
	if c := cn.attached(); c != nil {
		c.mu.Lock()
		closing, reset := cn.closing, cn.resetCode
		c.mu.Unlock()
		if !closing {
			return
		}
		if !cn.lingered.Swap(true) {
			// Half the linger was for the peer to close after what we said.
			// Now it is told on the stream too.
			cn.timer.Reset(time.Now().Add(cn.b.cfg.DrainTimeout / 2))
			if reset != 0 {
				cn.out.stream.Reset(reset)
			} else {
				cn.closeWrite()
			}
			return
		}
	} else if !cn.lingered.Load() {
		cn.late.Store(true)
	}
	cn.link.CloseWithCode(mqtt.LinkCode(cn.linkCode.Load()))
}

// closeWrite ends the control stream's output, where it can be said why.
func (cn *conn) closeWrite() {
	if l, ok := cn.link.(mqtt.CodeSetter); ok {
		l.SetCode(mqtt.LinkCode(cn.linkCode.Load()))
	}
	cn.out.stream.CloseWrite()
}

// hold and release mark that a reading goroutine is held back. No lock is held.
func (cn *conn) hold() {
	cn.holds.Add(1)
	// Who waits for this client may have to spill now.
	c := cn.client
	c.mu.Lock()
	c.wakeWaiting()
	c.mu.Unlock()
}

func (cn *conn) release(now time.Time) {
	cn.released.Store(now.UnixNano())
	cn.holds.Add(-1)
}

// excused returns until when the client's silence is our own doing.
func (cn *conn) excused(now time.Time) time.Time {
	if cn.keepAlive == 0 {
		return time.Time{}
	}
	if cn.holds.Load() > 0 {
		return now.Add(cn.keepAlive)
	}
	if at := cn.released.Load(); at != 0 {
		return time.Unix(0, at).Add(cn.keepAlive)
	}
	return time.Time{}
}

// read hands the stream's packets to the machine until the connection or
// the stream ends.
func (in *inlet) read() {
	defer in.tell()
	cn := in.cn
	c := cn.client
	for n := 0; ; n++ {
		ready := in.reader.Ready()
		if n >= maxBurst || !ready || len(in.src.touched) >= maxTouched {
			in.src.flush()
			n = 0
		}
		if !ready {
			in.tell()
		}
		h, body, err := in.reader.Next()
		if err == nil && cn.unproven.Load() {
			err = cn.prove(h.Type)
		}
		if !ready {
			in.src.now = time.Now()
			if err == nil && canMove(cn.link.Carrier()) {
				in.follow()
			}
		}
		if err != nil {
			in.failed(err)
			return
		}
		size := uint64(len(body)) + headerSize(len(body))
		in.flow.bytes += size
		in.flow.sizes[h.Type] += size
		var p packet.Packet
		if h.Type == packet.PUBLISH {
			err = in.publish.Decode(h, body, cn.version)
			in.flow.message(min(packet.QoS(h.Flags>>1&3), 2), h.Flags&8 != 0)
			p = &in.publish
		} else {
			p, err = packet.Decode(h, body, cn.version)
			in.flow.packets[h.Type]++
		}
		if err == nil && in.stream.ID() != mqtt.ControlStream && !onDataStream(h.Type) {
			err = &packet.Error{Code: packet.ProtocolError, Reason: h.Type.String() + " on a data stream"}
		}
		if err != nil {
			in.failed(err)
			return
		}
		if !in.throttled(p, len(body)+int(headerSize(len(body)))) || !in.receive(c, p, h.Type) {
			if in.stream.ID() == mqtt.ControlStream {
				in.discard()
			}
			return
		}
	}
}

// receive gives p to the machine and does what it wants done. It reports false
// if the stream is to be read no further.
func (in *inlet) receive(c *client, p packet.Packet, t packet.Type) bool {
	cn, src := in.cn, &in.src
	if s, ok := p.(*packet.Subscribe); ok {
		src.authorizeSubscribe(s)
	}
	src.rewriteFilters(p)
	cn.b.durable.throttle(src)
	subscribes := t == packet.SUBSCRIBE || t == packet.UNSUBSCRIBE
	if subscribes {
		c.subscribing.Lock()
	}
	c.mu.Lock()
	if c.conn != cn || cn.closing || in.abandoned() {
		c.mu.Unlock()
		if subscribes {
			c.subscribing.Unlock()
		}
		return false
	}
	in.fx = c.s.Receive(in.fx[:0], src.now, in.stream.ID(), p)
	if t != packet.PUBLISH {
		if t >= packet.PUBACK && t <= packet.PUBCOMP {
			c.progressed(src.now)
			c.wakeWaiting()
		}
		c.refill(src.now)
	}
	src.touch(c)
	paused := c.s.Paused()
	c.mu.Unlock()
	c.settle(src.now)
	if len(in.fx) > 0 {
		in.broken()
		cn.b.apply(src, c, in.fx)
		clear(in.fx)
	}
	if subscribes {
		c.subscribing.Unlock() // before a pause: who revokes subscriptions waits for it
		if t == packet.SUBSCRIBE && src.revision != cn.b.revision() {
			src.flush()
			cn.review() // a Reauthorize may have passed between decision and effect
		}
	}
	if in.end != nil {
		return false
	}
	if paused {
		return in.pause(c)
	}
	return true
}

// pause waits while the client does not read the answers to what it sends.
// Its keep-alive, or the end of the link, bounds that.
func (in *inlet) pause(c *client) bool {
	in.src.flush()
	for {
		c.mu.Lock()
		if c.conn != in.cn || in.cn.closing {
			c.mu.Unlock()
			return false
		}
		if !c.s.Paused() {
			c.mu.Unlock()
			in.src.now = time.Now()
			return true
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-in.cn.link.Context().Done():
			return false
		}
	}
}

// failed ends the connection, or the data stream, for an error of reading.
func (in *inlet) failed(err error) {
	in.src.flush()
	cn := in.cn
	if in.stream.ID() != mqtt.ControlStream {
		in.streamFailed(err)
		return
	}
	c := cn.client
	if bad, ok := errors.AsType[*packet.Error](err); ok {
		c.disconnect(&in.src, bad.Code, bad.Reason, mqtt.LinkControlDown)
		in.src.flush()
		in.discard()
		return
	}
	c.mu.Lock()
	if !cn.closing {
		cn.code, cn.abnormal = packet.UnspecifiedError, true
		cn.reason = "connection lost: " + err.Error()
		if errors.Is(err, io.EOF) {
			cn.reason = "connection closed without DISCONNECT"
		}
	}
	c.mu.Unlock()
}

// discard reads what still comes and drops it until the peer closes or the
// linger is over: closing a TCP connection with data unread would
// take back what was written last.
func (in *inlet) discard() {
	in.src.flush()
	in.reader.Release()
	var waste [512]byte
	for {
		if _, err := in.stream.Read(waste[:]); err != nil {
			return
		}
	}
}

func (in *inlet) tell() { in.flow.tell(&in.cn.b.count.in) }

// headerSize returns the size of the fixed header of a packet whose remaining
// length is n.
func headerSize(n int) uint64 {
	switch {
	case n < 1<<7:
		return 2
	case n < 1<<14:
		return 3
	case n < 1<<21:
		return 4
	}
	return 5
}

// end begins the end of a connection: what the machine has for it is written,
// then farewell; then the peer has until DrainTimeout from now to close.
// The caller holds client.mu.
func (cn *conn) end(now time.Time, code packet.ReasonCode, reason string, link mqtt.LinkCode) {
	if cn.closing {
		return
	}
	cn.closing = true
	cn.code, cn.reason = code, reason
	cn.abnormal = code >= 0x80 && !sentAway(code)
	cn.linkCode.Store(uint64(link))
	cn.timer.Reset(now.Add(cn.b.cfg.DrainTimeout / 2))
	if !cn.out.writing {
		cn.client.startWriter(&cn.out, now)
	}
}

// finish ends the link and everything that belongs to it.
func (cn *conn) finish() {
	cn.timer.Stop()
	defer func() { // after the last that might set it
		if cn.standing != nil {
			cn.standing.expiry.Stop()
		}
	}()
	cn.link.CloseWithCode(mqtt.LinkCode(cn.linkCode.Load()))
	if cn.in.reader != nil {
		cn.in.reader.Release()
	}
	c := cn.client
	if c == nil {
		return
	}
	cn.in.src.now = time.Now()
	cn.detach(&cn.in.src) // from here on nobody starts a goroutine for cn
	cn.goroutines.Wait()
	c.mu.Lock()
	code, reason, abnormal := cn.code, cn.reason, cn.abnormal
	c.mu.Unlock()
	cn.b.count.disconnects[code].Add(1)
	cn.logDisconnected(code, reason, abnormal)
}

// detach tells the machine that its connection has ended, once.
func (cn *conn) detach(src *source) {
	c := cn.client
	c.mu.Lock()
	if c.conn != cn {
		c.mu.Unlock()
		return
	}
	c.leaveReplay(src.now)
	c.conn = nil
	c.drained()
	// Who is asked about the will of a session that lasts is asked first: see wills.see.
	first := cn.b.cfg.ACL != nil && c.s.Will() != nil && c.s.Durable()
	var fx []session.Effect
	if first {
		c.s.Leave(src.now)
		first = !c.s.Deadline().After(src.now)
	} else {
		fx = c.ifEnds(func() []session.Effect { return c.s.Detach(nil, src.now) })
	}
	c.wakeWaiting()
	if !first {
		c.rearm()
	}
	c.mu.Unlock()
	c.settle(src.now)
	if first {
		cn.b.wills.see(src, c)
	}
	cn.b.apply(src, c, fx)
	src.flush()
}
