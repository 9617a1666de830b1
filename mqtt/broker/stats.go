package broker

import (
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Stats are a Broker's figures since it was made. Each figure is exact; taken
// together they are not of one instant.
type Stats struct {
	Connections map[mqtt.Carrier]ConnStats `json:"connections"`
	Refused     uint64                     `json:"refused"` // connections that did not get a session

	PacketsIn   map[string]uint64 `json:"packets_in"` // by type: "connect", "publish" ...
	PacketsOut  map[string]uint64 `json:"packets_out"`
	MessagesIn  [3]uint64         `json:"messages_in"` // PUBLISH packets by QoS
	MessagesOut [3]uint64         `json:"messages_out"`
	BytesIn     uint64            `json:"bytes_in"` // of whole packets
	BytesOut    uint64            `json:"bytes_out"`

	AboveQuota map[string]uint64 `json:"above_quota"` // connections refused because they were above a quota: RefusedConns and the others
	Throttled  map[string]uint64 `json:"throttled"`   // times a client was not read because of a rate: ThrottledClient and the others
	Pending    int               `json:"pending"`     // connections without a session

	FailedLogins uint64 `json:"failed_logins"` // refused for what the client had shown

	Denied        uint64 `json:"denied"`         // connections and re-authentications that the Authenticator refused
	DeniedFilters uint64 `json:"denied_filters"` // subscriptions that the Authorizer refused or revoked
	HooksFailed   uint64 `json:"hooks_failed"`   // calls of an Authenticator or Authorizer that failed, panicked or took too long

	// Dropped counts messages that did not reach a subscriber, by reason:
	// DropQueueFull and the others.
	Dropped map[string]uint64 `json:"dropped"`

	Retained      int   `json:"retained"`
	RetainedBytes int64 `json:"retained_bytes"`
	Delayed       int   `json:"delayed"` // messages to be published later
	DelayedBytes  int64 `json:"delayed_bytes"`
	Sessions      int   `json:"sessions"`
	Subscriptions int   `json:"subscriptions"`
	QueuedBytes   int64 `json:"queued_bytes"` // of all sessions; a shared payload counts for each

	PushedBack    uint64        `json:"pushed_back"` // times a publisher was made to wait
	PushedBackFor time.Duration `json:"pushed_back_ns"`
	Stalled       uint64        `json:"stalled"` // times a subscriber was found to take nothing

	Store *StoreStats `json:"store,omitempty"` // nil without a store

	Disconnects map[packet.ReasonCode]uint64 `json:"disconnects"` // ended connections, by reason code

	TLS         HandshakeStats               `json:"tls"`
	RefusedBy   map[packet.ReasonCode]uint64 `json:"refused_by"`   // Refused, by reason code; 0x80 is also: gone, or late, before CONNECT
	Connects    map[packet.Version]uint64    `json:"connects"`     // CONNECTs accepted
	Clients     map[packet.Version]int       `json:"clients"`      // with a connection now
	ConnectTook Histogram                    `json:"connect_took"` // from a connection's begin to its session, handshake included

	SessionsOffline int    `json:"sessions_offline"` // of Sessions, without a connection
	SessionsNew     uint64 `json:"sessions_new"`
	SessionsResumed uint64 `json:"sessions_resumed"`
	SessionsEnded   uint64 `json:"sessions_ended"`
	Takeovers       uint64 `json:"takeovers"` // sessions that another connection took from a live one
	Wills           uint64 `json:"wills"`     // published

	BytesInBy  map[string]uint64 `json:"bytes_in_by"` // by type of packet
	BytesOutBy map[string]uint64 `json:"bytes_out_by"`

	Unmatched  uint64 `json:"unmatched"`  // messages without a subscriber
	Duplicates uint64 `json:"duplicates"` // PUBLISH packets received with DUP
	Resent     uint64 `json:"resent"`     // PUBLISH packets sent with DUP
	Expired    uint64 `json:"expired"`    // messages that expired while they waited, for each subscriber
	TooLarge   uint64 `json:"too_large"`  // messages larger than a subscriber accepts

	Queued        int   `json:"queued"`        // messages that wait to be sent for the first time
	SpilledBytes  int64 `json:"spilled_bytes"` // of QueuedBytes: beyond full queues
	Inflight      int   `json:"inflight"`      // messages sent and not completely acknowledged
	PushedBackNow int   `json:"pushed_back_now"`
	StalledNow    int   `json:"stalled_now"`
	SlowNow       int   `json:"slow_now"`

	Slow uint64 `json:"slow"` // times a subscriber became slow: its queue was full

	SharedGroups int         `json:"shared_groups"` // pairs of a share name and a filter
	DataStreams  StreamStats `json:"data_streams"`
	Latency      Histogram   `json:"latency"` // from PUBLISH read to PUBLISH written, of one message in 16
	Timers       int         `json:"timers"`  // armed: keep-alives, expiries
	AcceptErrors uint64      `json:"accept_errors"`
}

// ConnStats are the figures of one carrier.
type ConnStats struct {
	Now   int64  `json:"now"`
	Total uint64 `json:"total"`
}

// Why a message was dropped.
const (
	DropQueueFull = "queue_full" // the subscriber's queue was full and the subscriber stalled
	DropIgnored   = "ignored"    // offline and QoS 0, expired, or larger than the subscriber accepts
	DropRetained  = "retained"   // the retained store was full: refused as a whole
	DropDenied    = "denied"     // the publisher was not allowed to publish to its topic
	DropDelayed   = "delayed"    // delayed publishing is off or full, or the topic says no delay
	DropRewrite   = "rewrite"    // a rule made of its topic what is none
	DropLevels    = "levels"     // its topic has more levels than Limits.TopicLevels
	DropNoMember  = "no_member"  // no member of a shared subscription could take it
)

// carrierIndex returns where c is counted; a carrier without a name of its own
// is counted with TCP.
func carrierIndex(c mqtt.Carrier) int {
	for i, k := range mqtt.Carriers {
		if k == c {
			return i
		}
	}
	return 0
}

var typeNames = [16]string{
	packet.CONNECT: "connect", packet.CONNACK: "connack", packet.PUBLISH: "publish",
	packet.PUBACK: "puback", packet.PUBREC: "pubrec", packet.PUBREL: "pubrel", packet.PUBCOMP: "pubcomp",
	packet.SUBSCRIBE: "subscribe", packet.SUBACK: "suback", packet.UNSUBSCRIBE: "unsubscribe", packet.UNSUBACK: "unsuback",
	packet.PINGREQ: "pingreq", packet.PINGRESP: "pingresp", packet.DISCONNECT: "disconnect", packet.AUTH: "auth",
}

// counters are what all connections count together. Readers and writers add to
// them once per burst.
type counters struct {
	conns [len(mqtt.Carriers)]struct {
		now   atomic.Int64
		total atomic.Uint64
	}
	refused       atomic.Uint64
	aboveQuota    [numQuotas]atomic.Uint64
	throttled     [len(allThrottles)]atomic.Uint64
	failedLogins  atomic.Uint64
	in, out       flowCounters
	dropQueueFull atomic.Uint64
	dropIgnored   atomic.Uint64
	dropRetained  atomic.Uint64
	dropDelayed   atomic.Uint64
	dropLevels    atomic.Uint64
	dropRewrite   atomic.Uint64
	dropNoMember  atomic.Uint64
	dropDenied    atomic.Uint64
	denied        atomic.Uint64
	deniedFilters atomic.Uint64
	hookFailed    atomic.Uint64
	pushedBack    atomic.Uint64
	pushedBackFor atomic.Int64
	stalled       atomic.Uint64
	disconnects   [256]atomic.Uint64
	moreCounters
}

type flowCounters struct {
	packets  [16]atomic.Uint64
	messages [3]atomic.Uint64
	sizes    [16]atomic.Uint64
	again    atomic.Uint64
	bytes    atomic.Uint64
}

// A flow is what one reader or writer has counted since it last told.
type flow struct {
	packets  [16]uint32
	messages [3]uint32
	again    uint32 // of messages, with DUP
	sizes    [16]uint64
	bytes    uint64
}

func (f *flow) message(q packet.QoS, dup bool) {
	f.packets[packet.PUBLISH]++
	f.messages[q]++
	if dup {
		f.again++
	}
}

// tell adds f to c and clears it.
func (f *flow) tell(c *flowCounters) {
	if f.bytes == 0 {
		return
	}
	for i, n := range f.packets {
		if n > 0 {
			c.packets[i].Add(uint64(n))
		}
	}
	for i, n := range f.messages {
		if n > 0 {
			c.messages[i].Add(uint64(n))
		}
	}
	for i, n := range f.sizes {
		if n > 0 {
			c.sizes[i].Add(n)
		}
	}
	if f.again > 0 {
		c.again.Add(uint64(f.again))
	}
	c.bytes.Add(f.bytes)
	*f = flow{}
}

// Stats returns the broker's figures. It visits every session.
func (b *Broker) Stats() Stats {
	c := &b.count
	s := Stats{
		Connections: make(map[mqtt.Carrier]ConnStats, len(mqtt.Carriers)),
		Refused:     c.refused.Load(),
		PacketsIn:   make(map[string]uint64, len(typeNames)),
		PacketsOut:  make(map[string]uint64, len(typeNames)),
		AboveQuota:  make(map[string]uint64, numQuotas), Throttled: make(map[string]uint64, len(allThrottles)),
		FailedLogins: c.failedLogins.Load(),
		Denied:       c.denied.Load(), DeniedFilters: c.deniedFilters.Load(), HooksFailed: c.hookFailed.Load(),
		BytesIn:  c.in.bytes.Load(),
		BytesOut: c.out.bytes.Load(),
		Dropped: map[string]uint64{
			DropQueueFull: c.dropQueueFull.Load(),
			DropIgnored:   c.dropIgnored.Load(),
			DropRetained:  c.dropRetained.Load(),
			DropDenied:    c.dropDenied.Load(),
			DropDelayed:   c.dropDelayed.Load(),
			DropRewrite:   c.dropRewrite.Load(),
			DropLevels:    c.dropLevels.Load(),
			DropNoMember:  c.dropNoMember.Load(),
		},
		PushedBack:    c.pushedBack.Load(),
		PushedBackFor: time.Duration(c.pushedBackFor.Load()),
		Stalled:       c.stalled.Load(),
		Disconnects:   make(map[packet.ReasonCode]uint64),
	}
	for i, name := range allThrottles {
		s.Throttled[name] = c.throttled[i].Load()
	}
	b.mu.Lock()
	s.Pending = b.admission.pending
	b.mu.Unlock()
	for i, q := range allQuotas {
		s.AboveQuota[q.name] = c.aboveQuota[i].Load()
	}
	for i, k := range mqtt.Carriers {
		s.Connections[k] = ConnStats{Now: c.conns[i].now.Load(), Total: c.conns[i].total.Load()}
	}
	for i, name := range typeNames {
		if name != "" {
			s.PacketsIn[name] = c.in.packets[i].Load()
			s.PacketsOut[name] = c.out.packets[i].Load()
		}
	}
	for q := range s.MessagesIn {
		s.MessagesIn[q] = c.in.messages[q].Load()
		s.MessagesOut[q] = c.out.messages[q].Load()
	}
	for code := range c.disconnects {
		if n := c.disconnects[code].Load(); n > 0 {
			s.Disconnects[packet.ReasonCode(code)] = n
		}
	}
	s.Store = b.durable.stats()
	s.Retained, s.RetainedBytes = b.retained.size()
	s.Delayed, s.DelayedBytes = b.delayed.size()
	s.Subscriptions = b.subs.len()
	s.QueuedBytes = b.localBytes()
	b.more(&s)
	for _, cl := range b.clients() {
		s.Sessions++
		cl.mu.Lock()
		s.visit(cl)
		cl.mu.Unlock()
	}
	return s
}
