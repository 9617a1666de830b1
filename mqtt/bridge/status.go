package bridge

import (
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Drop is why a message was not carried.
type Drop uint8

const (
	QueueFull Drop = iota // no room in the queue
	Expired               // its Message Expiry Interval ended in the queue
	Refused               // by the broker on the other side, or larger than that takes
	Lost                  // QoS 0, on the way when the connection was lost
	Loop                  // it has been there, or has passed through too many brokers
	NoRule                // no rule is for it any more, or it has no topic on the other side
	drops
)

var dropNames = [drops]string{"queue full", "expired", "refused", "lost", "loop", "no rule"}

// Drops are all reasons, for tables.
func Drops() []Drop { return []Drop{QueueFull, Expired, Refused, Lost, Loop, NoRule} }

func (d Drop) String() string {
	if d < drops {
		return dropNames[d]
	}
	return "unknown"
}

type counts struct {
	forwarded, received, connections, unknown atomic.Uint64

	dropped [drops]atomic.Uint64
}

// A Status is what a bridge does at the moment, and what it has done.
type Status struct {
	Name      string
	URL       string // of the remote broker
	Connected bool
	Since     time.Time // of the connection, or of its loss
	Err       error     // why the last connection, attempt or subscription failed; nil: none has

	Queued      int // messages that the remote broker has not acknowledged
	QueueBytes  int
	Forwarded   uint64 // messages that it has taken
	Unknown     uint64 // messages that it may have taken: it lost the session in the middle of their exchange
	Received    uint64 // messages of its that the local broker has taken
	Dropped     map[Drop]uint64
	Connections uint64 // that the remote broker has accepted
}

// Status returns the bridge's status.
func (b *Bridge) Status() Status {
	s := Status{
		Name: b.cfg.Name, URL: b.cfg.Remote.URL,
		Forwarded: b.counts.forwarded.Load(), Received: b.counts.received.Load(), Unknown: b.counts.unknown.Load(),
		Connections: b.counts.connections.Load(), Dropped: make(map[Drop]uint64),
	}
	for _, d := range Drops() {
		s.Dropped[d] = b.counts.dropped[d].Load()
	}
	s.Queued, s.QueueBytes = b.queue.size()
	if c := b.remote.Load(); c != nil {
		s.Connected = c.Connected()
		s.Dropped[Lost] = c.Stats().MessagesLost
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Since, s.Err = b.since, b.lastErr
	return s
}

// connected and disconnected follow the remote side.
func (b *Bridge) connected(ack *packet.Connack) {
	node := mqtt.Node(ack.Properties)
	b.remoteNode.Store(&node)
	b.counts.connections.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Now()
}

func (b *Bridge) disconnected(err error) {
	if b.remote.Load() == nil && err != nil {
		b.log.Warn("the remote broker cannot be reached", "url", b.cfg.Remote.URL, "error", err)
	}
	b.failed(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Now()
}

func (b *Bridge) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.lastErr = err
	}
}

// sayAgain is how often the log hears of messages that are dropped for one reason.
const sayAgain = time.Minute

// drop counts a message that is not carried.
func (b *Bridge) drop(why Drop, topic string, err error) {
	n := b.counts.dropped[why].Add(1)
	if why == Loop {
		return // as it should be
	}
	b.mu.Lock()
	now := time.Now()
	at, said := b.saidAt[why]
	say := !said || now.Sub(at) >= sayAgain
	if say {
		b.saidAt[why] = now
	}
	b.mu.Unlock()
	if say {
		b.log.Warn("messages are dropped", "reason", why.String(), "topic", topic, "so far", n, "error", err)
	}
}
