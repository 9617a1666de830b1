package broker

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A subscriber is slow from when a message finds its queue full until the queue is
// less than half full. It may be one that takes nothing, or one that takes less than
// is published to it.

// slowness is what pressure knows about a slow subscriber. It is guarded by client.mu.
type slowness struct {
	since    time.Time // zero: it is not slow
	reported bool      // the log has a line about this time
	dropped  uint64    // messages that its full queue had no room for, since the session began
}

const (
	// slowReportAfter is how long a subscriber may be slow before the log has it:
	// shorter is a burst.
	slowReportAfter = time.Second

	// slowReportEvery is the time for which the log has one line about slow
	// subscribers. A line says how many others there were.
	slowReportEvery = 10 * time.Second
)

// slowLog bounds the lines about slow subscribers.
type slowLog struct {
	mu      sync.Mutex
	last    time.Time // guarded by mu
	skipped int       // guarded by mu
}

// allow reports whether there may be a line now, and how many there were not since
// the last.
func (l *slowLog) allow(now time.Time) (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < slowReportEvery {
		l.skipped++
		return 0, false
	}
	skipped = l.skipped
	l.last, l.skipped = now, 0
	return skipped, true
}

// foundFull notes that a message found c's queue full. The caller holds mu.
func (c *client) foundFull(now time.Time) {
	if c.slow.since.IsZero() && c.conn != nil && !c.gone {
		c.slow.since = now
		c.b.count.slow.Add(1)
	}
}

// drained notes that c is not slow any more, if that is so. The caller holds mu.
func (c *client) drained() {
	if !c.slow.since.IsZero() && (c.conn == nil || c.s.QueueBytes() < c.half) {
		c.slow.since, c.slow.reported = time.Time{}, false
	}
}

// reportSlow writes a line about c if it has been slow for long. No lock is held.
func (c *client) reportSlow(now time.Time) {
	c.mu.Lock()
	due := !c.slow.since.IsZero() && !c.slow.reported && now.Sub(c.slow.since) >= slowReportAfter
	if !due {
		c.mu.Unlock()
		return
	}
	c.slow.reported = true
	s := c.status(now)
	c.mu.Unlock()
	skipped, ok := c.b.slowLog.allow(now)
	if !ok {
		return
	}
	c.b.log.Warn("mqtt: slow subscriber",
		slog.String("client", s.ClientID),
		slog.String("remote", s.Remote),
		slog.String("carrier", string(s.Carrier)),
		slog.Duration("for", s.Slow),
		slog.Bool("stalled", s.Stalled),
		slog.Int("queue_bytes", s.QueueBytes),
		slog.Int("inflight", s.Inflight),
		slog.Uint64("dropped", s.Dropped),
		slog.Duration("rtt", s.RTT),
		slog.Int("others", skipped))
}

// A ClientStatus says who a client is and how it keeps up.
type ClientStatus struct {
	ClientID  string        `json:"client"`
	Username  string        `json:"user,omitempty"`
	Connected bool          `json:"connected"`
	Version   string        `json:"version,omitempty"` // of the protocol; this and the next four only if it is connected
	Carrier   mqtt.Carrier  `json:"carrier,omitempty"`
	Remote    string        `json:"remote,omitempty"`
	Since     time.Time     `json:"since,omitzero"`   // of the connection
	RTT       time.Duration `json:"rtt_ns,omitempty"` // smoothed; 0: the carrier does not know

	Slow       time.Duration `json:"slow_ns"` // for how long it has been; 0: it is not
	Stalled    bool          `json:"stalled"` // it takes nothing at all
	Queued     int           `json:"queued"`  // messages that wait
	QueueBytes int           `json:"queue_bytes"`
	Inflight   int           `json:"inflight"`
	Dropped    uint64        `json:"dropped"` // messages that its full queue had no room for, since the session began

	Subscriptions int `json:"subscriptions"`
}

// status describes c. The caller holds mu.
func (c *client) status(now time.Time) ClientStatus {
	own := c.s.Stats()
	s := ClientStatus{
		ClientID: c.id, Username: c.owner, Queued: own.Waiting + len(c.spill.list) - c.spill.next, QueueBytes: own.QueueBytes + c.spill.bytes,
		Inflight: own.Inflight, Dropped: c.slow.dropped, Subscriptions: own.Subscriptions, Stalled: c.stalled,
	}
	if !c.slow.since.IsZero() {
		s.Slow = max(now.Sub(c.slow.since), time.Nanosecond)
	}
	if cn := c.conn; cn != nil {
		s.Connected, s.Version, s.Carrier, s.Since, s.Username = true, cn.version.String(), cn.link.Carrier(), cn.since, cn.username
		s.Remote = addrString(cn.link)
		if l, ok := cn.link.(mqtt.RoundTripper); ok {
			s.RTT = l.RTT()
		}
	}
	return s
}

// A ClientQuery says which clients [Broker.Clients] returns.
type ClientQuery struct {
	ClientID string // this one alone; empty: any
	Slow     bool   // only slow ones
	Limit    int    // at most so many; 0: all
}

// Clients returns how the clients that q asks for keep up: the slow ones first, who
// have been so the longest, then those for whom most is waiting. It also says how
// many there are without q.Limit. It visits every session unless q has a ClientID.
func (b *Broker) Clients(q ClientQuery) (list []ClientStatus, found int) {
	var all []*client
	if q.ClientID == "" {
		all = b.clients()
	} else if c := b.client(q.ClientID); c != nil {
		all = []*client{c}
	}
	now := time.Now()
	for _, c := range all {
		c.mu.Lock()
		if !c.gone && (!q.Slow || !c.slow.since.IsZero()) {
			list = append(list, c.status(now))
		}
		c.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b ClientStatus) int {
		return cmp.Or(cmp.Compare(b.Slow, a.Slow), cmp.Compare(b.QueueBytes, a.QueueBytes), cmp.Compare(a.ClientID, b.ClientID))
	})
	found = len(list)
	if q.Limit > 0 && found > q.Limit {
		list = list[:q.Limit]
	}
	return list, found
}

// client returns the client of an identifier, nil if there is none.
func (b *Broker) client(id string) *client {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[id]
}

// Kick ends the connection of a client, with Administrative action (0x98) to one of
// MQTT 5. Its session lives on as it would after any disconnection. Kick reports
// false if no such client is connected. It does not wait for the end.
func (b *Broker) Kick(clientID string) bool {
	c := b.client(clientID)
	if c == nil || !c.online() {
		return false
	}
	var src source
	src.init(b, nil)
	src.now = time.Now()
	c.disconnect(&src, packet.AdministrativeAction, "", mqtt.LinkNormal)
	src.flush()
	return true
}
