package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/internal/durations"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A Histogram counts durations in the classes of HistogramBounds: Classes[i] are
// those up to HistogramBounds[i] and above the one before, the last those above
// all bounds.
type Histogram = durations.Histogram

// HistogramBounds are the upper bounds of the classes of each [Histogram].
var HistogramBounds = durations.Bounds

// Why a TLS handshake failed, in Stats.TLS.
const (
	HandshakeTimeout = "timeout" // Config.ConnectTimeout
	HandshakeClosed  = "closed"  // the client went away
	HandshakeNotTLS  = "not_tls" // the client spoke something else
	HandshakeFailed  = "tls"     // an alert, of either side
)

var handshakeReasons = [...]string{HandshakeTimeout, HandshakeClosed, HandshakeNotTLS, HandshakeFailed}

// HandshakeStats are the figures of the TLS handshakes on [mqtt.TLS]. On other
// carriers the handshake comes before the broker.
type HandshakeStats struct {
	Started uint64            `json:"started"`
	Failed  map[string]uint64 `json:"failed"` // by reason: HandshakeTimeout and the others
	Took    Histogram         `json:"took"`   // those that succeeded
}

// StreamStats are the figures of the data streams.
type StreamStats struct {
	Open   int    `json:"open"`
	Opened uint64 `json:"opened"`
	Reset  uint64 `json:"reset"` // by the broker: refused, or the client broke the protocol on it
}

// Versions are those of the protocol, as tables have them.
var Versions = [...]packet.Version{packet.V31, packet.V311, packet.V5}

func versionIndex(v packet.Version) int {
	for i, k := range Versions {
		if k == v {
			return i
		}
	}
	return len(Versions) - 1
}

// latencyEvery is how many messages there are for one whose way is timed.
const latencyEvery = 16

// moreCounters are counted once per connection, stream or message that needs it.
type moreCounters struct {
	handshakes      atomic.Uint64
	handshakeFailed [len(handshakeReasons)]atomic.Uint64
	handshakeTook   durations.Counter

	refusedBy   [256]atomic.Uint64
	connects    [len(Versions)]atomic.Uint64
	connectTook durations.Counter // from the connection to the session

	sessionsNew     atomic.Uint64
	sessionsResumed atomic.Uint64
	sessionsEnded   atomic.Uint64
	takeovers       atomic.Uint64
	slow            atomic.Uint64
	wills           atomic.Uint64
	unmatched       atomic.Uint64
	acceptErrors    atomic.Uint64

	// Of sessions that have ended.
	expired  atomic.Uint64
	tooLarge atomic.Uint64

	streamsOpened atomic.Uint64
	streamsReset  atomic.Uint64

	latency durations.Counter
}

// timedHandshake waits for the link's handshake.
func (cn *conn) timedHandshake(ctx context.Context) error {
	if cn.link.Carrier() != mqtt.TLS {
		return cn.link.Handshake(ctx)
	}
	count := &cn.b.count
	count.handshakes.Add(1)
	began := time.Now()
	err := cn.link.Handshake(ctx)
	if err == nil {
		count.handshakeTook.Add(time.Since(began))
		return nil
	}
	reason := HandshakeFailed
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case cn.late.Load():
		reason = HandshakeTimeout
	case notTLS:
		reason = HandshakeNotTLS
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), isReset(err):
		reason = HandshakeClosed
	}
	for i, r := range handshakeReasons {
		if r == reason {
			count.handshakeFailed[i].Add(1)
		}
	}
	return err
}

// isReset reports whether err is of the network, and not of TLS.
func isReset(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op != "remote error" && op.Op != "local error"
}

// countRefused counts a connection that gets no session.
func (b *Broker) countRefused(code packet.ReasonCode) {
	b.count.refused.Add(1)
	b.count.refusedBy[code].Add(1)
}

// online reports whether c, which may be nil, has a connection.
func (c *client) online() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// attached counts a CONNECT that was accepted.
func (c *moreCounters) attached(v packet.Version, present, tookOver bool, took time.Duration) {
	c.connects[versionIndex(v)].Add(1)
	c.connectTook.Add(took)
	if present {
		c.sessionsResumed.Add(1)
	} else {
		c.sessionsNew.Add(1)
	}
	if tookOver {
		c.takeovers.Add(1)
	}
}

// ended counts a session that has ended.
func (c *moreCounters) ended(s session.Stats) {
	c.sessionsEnded.Add(1)
	c.expired.Add(uint64(s.Expired))
	c.tooLarge.Add(uint64(s.TooLarge))
}

// time notes when m came, if it is one of those that are timed. The source is its
// publisher's.
func (src *source) time(m *session.Message) {
	if src.timed++; src.timed%latencyEvery == 1 && src.cn != nil {
		m.Received = src.now.UnixNano()
	}
}

// delivered counts how long a message was on its way to be written, if that is
// timed and tells of the broker: what was retained, waited for the client to come
// back or is sent again does not.
func (c *moreCounters) delivered(p *session.Outgoing, cn *conn, now time.Time) {
	if at := p.Message.Received; at != 0 && !p.Retain && !p.Dup && at >= cn.since.UnixNano() {
		c.latency.Add(max(time.Duration(now.UnixNano()-at), 0))
	}
}

// more fills in what c counts, and what visiting each session and connection
// shows.
func (b *Broker) more(s *Stats) {
	c := &b.count
	s.TLS = HandshakeStats{Started: c.handshakes.Load(), Took: c.handshakeTook.Histogram(), Failed: make(map[string]uint64)}
	for i, r := range handshakeReasons {
		s.TLS.Failed[r] = c.handshakeFailed[i].Load()
	}
	s.RefusedBy = make(map[packet.ReasonCode]uint64)
	for code := range c.refusedBy {
		if n := c.refusedBy[code].Load(); n > 0 {
			s.RefusedBy[packet.ReasonCode(code)] = n
		}
	}
	s.Connects = make(map[packet.Version]uint64, len(Versions))
	s.Clients = make(map[packet.Version]int, len(Versions))
	for i, v := range Versions {
		s.Connects[v] = c.connects[i].Load()
		s.Clients[v] = 0
	}
	s.ConnectTook = c.connectTook.Histogram()
	s.SessionsNew, s.SessionsResumed, s.SessionsEnded = c.sessionsNew.Load(), c.sessionsResumed.Load(), c.sessionsEnded.Load()
	s.Takeovers, s.Wills, s.Unmatched = c.takeovers.Load(), c.wills.Load(), c.unmatched.Load()
	s.Slow, s.AcceptErrors = c.slow.Load(), c.acceptErrors.Load()
	s.Expired, s.TooLarge = c.expired.Load(), c.tooLarge.Load()
	s.DataStreams = StreamStats{Opened: c.streamsOpened.Load(), Reset: c.streamsReset.Load()}
	s.Latency = c.latency.Histogram()
	s.Timers = b.wheel.Len()
	s.SharedGroups = b.subs.tree.Groups()
	s.Duplicates = c.in.again.Load()
	s.Resent = c.out.again.Load()
	s.BytesInBy, s.BytesOutBy = c.in.sizesByType(), c.out.sizesByType()
}

func (c *flowCounters) sizesByType() map[string]uint64 {
	m := make(map[string]uint64, len(typeNames))
	for i, name := range typeNames {
		if name != "" {
			m[name] = c.sizes[i].Load()
		}
	}
	return m
}

// Connected returns how many clients have a connection.
func (s *Stats) Connected() int { return s.Sessions - s.SessionsOffline }

// visit adds a client's part of the figures. The caller holds c.mu.
func (s *Stats) visit(c *client) {
	own := c.s.Stats()
	s.QueuedBytes += int64(own.QueueBytes + c.spill.bytes)
	s.SpilledBytes += int64(c.spill.bytes)
	s.Queued += own.Waiting + len(c.spill.list) - c.spill.next
	s.Inflight += own.Inflight
	if !c.gone { // else ended has counted them
		s.Expired += uint64(own.Expired)
		s.TooLarge += uint64(own.TooLarge)
	}
	cn := c.conn
	if cn == nil {
		s.SessionsOffline++
		return
	}
	s.Clients[Versions[versionIndex(cn.version)]]++
	s.DataStreams.Open += len(cn.data)
	if cn.holds.Load() > 0 {
		s.PushedBackNow++
	}
	if !c.slow.since.IsZero() {
		s.SlowNow++
	}
	if c.stalled {
		s.StalledNow++
	}
}
