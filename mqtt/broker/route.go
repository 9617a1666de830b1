package broker

import (
	"context"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// A subscription is what the tree keeps of one.
type subscription struct {
	stream      uint32 // where it delivers; of connection only
	connection  uint32
	id          uint32 // subscription identifier; 0: none
	qos         packet.QoS
	noLocal     bool
	asPublished bool
}

type subscriptions struct {
	tree *topic.Tree[*client, subscription]
}

func (s *subscriptions) init()    { s.tree = topic.NewTree[*client, subscription]() }
func (s *subscriptions) len() int { return s.tree.Len() }

// A source is where messages come from: one for each reading goroutine. It
// holds what routing needs again and again, and remembers whom it gave output
// to, so that a burst costs each receiver one wake-up. For one goroutine.
type source struct {
	b   *Broker
	cn  *conn     // that is held back when a subscriber is full; nil: never wait, or see ctx
	now time.Time // of the packet at hand

	found   topic.Result[*client, subscription]
	merge   []merged
	index   map[*client]int // in merge, when that is long
	oneID   [1]uint32
	touched []*client // to be kicked by flush
	pending []pendingEffects

	saidFull bool // the log knows that the retained store refused its message

	decisions *decisions          // of the Authorizer, about publishing; nil: none yet
	denied    map[string]struct{} // filters of the SUBSCRIBE at hand that are not allowed
	asked     map[string]string   // filters of it that were rewritten: what they were
	revision  uint64              // the Authorizer's when it was asked about it
	ruled     ruling              // on the will that is published next
	setter    *ClientInfo         // of a will that a takeover publishes; nil: the client's own
	ctx       context.Context     // of a call of Publish, which waits like a cn; nil: none
	late      bool                // it has a ctx, and publishes what clients have published earlier
	self      *client             // the Local that calls Publish; nil: none
	refused   packet.ReasonCode   // by a Local; for Publish
	timed     uint32              // messages routed, of which some are timed

	unit unit   // of the message at hand, with a store
	ack  target // of the message at hand
	owed *owed  // its acknowledgement, if a spill has the message

	timer   *time.Timer
	waited  time.Duration // for the message at hand
	holding bool          // cn knows that it is held back

	dropped, ignored, noMember int // not yet counted
}

// merged is what one session gets of one message.
type merged struct {
	c   *client
	d   session.Delivery
	ids []uint32 // reused
}

// target is whom to acknowledge a message to.
type target struct {
	c      *client
	stream mqtt.StreamID
	id     uint16 // 0: nobody
}

type pendingEffects struct {
	c  *client
	fx []session.Effect
}

func (src *source) init(b *Broker, cn *conn) { src.b, src.cn = b, cn }

// touch notes that c may have output. The caller holds c.mu.
func (src *source) touch(c *client) {
	if cn := c.conn; cn == nil || c.touched || cn.data == nil && cn.out.writing {
		return // nobody to write to, or someone looks already
	}
	c.touched = true
	src.touched = append(src.touched, c)
}

// later keeps effects on another client than the source's own until the
// message at hand is done with.
func (src *source) later(c *client, fx []session.Effect) {
	if len(fx) > 0 {
		src.pending = append(src.pending, pendingEffects{c, fx})
	}
}

// flush wakes the writers of whoever got something and counts what was lost.
func (src *source) flush() {
	if src.dropped+src.ignored+src.noMember > 0 {
		src.b.count.dropQueueFull.Add(uint64(src.dropped))
		src.b.count.dropIgnored.Add(uint64(src.ignored))
		src.b.count.dropNoMember.Add(uint64(src.noMember))
		src.dropped, src.ignored, src.noMember = 0, 0, 0
	}
	for i, c := range src.touched {
		src.touched[i] = nil
		c.mu.Lock()
		c.touched = false
		c.kick(src.now)
		c.mu.Unlock()
	}
	src.touched = src.touched[:0]
}

// maxTouched and maxBurst bound what a source keeps back from writers while it
// works through a burst.
const (
	maxTouched = 64
	maxBurst   = 64 // packets
)

// route gives m to everyone who subscribed to it and to the retained store, and
// returns the reason code for its acknowledgement.
func (b *Broker) route(src *source, m *session.Message) packet.ReasonCode {
	if m.Publish.Retain && !b.retained.put(b, m) {
		b.count.dropRetained.Add(1)
		return packet.QuotaExceeded
	}
	src.waited = 0
	src.time(m)
	b.subs.tree.Match(m.Publish.Topic, &src.found)
	if src.found.Empty() {
		if !reserved(m.Publish.Topic) {
			b.count.unmatched.Add(1)
		}
		return packet.NoMatchingSubscribers
	}
	switch found := &src.found; {
	case len(found.Plain) == 1:
		for c, s := range found.Plain[0].All() {
			if s.noLocal && c.id == m.From { // [MQTT-3.8.3-3]
				continue
			}
			d := session.Delivery{QoS: min(s.qos, m.Publish.QoS), Retain: s.asPublished && m.Publish.Retain}
			d.Stream, d.Connection = s.on()
			if s.id != 0 {
				src.oneID[0] = s.id
				d.SubscriptionIDs = src.oneID[:]
			}
			src.deliver(c, m, d)
		}
	case len(found.Plain) > 1:
		src.overlapping(m)
	}
	for _, g := range src.found.Shared {
		src.shared(m, g)
	}
	src.found.Reset()
	for i := 0; i < len(src.pending); i++ {
		p := src.pending[i]
		src.pending[i] = pendingEffects{}
		b.apply(src, p.c, p.fx)
	}
	src.pending = src.pending[:0]
	return packet.Success
}

// overlapping delivers to sessions of which several subscriptions may match:
// each gets one copy, with the highest QoS of them and all subscription
// identifiers [MQTT-3.3.4-2, MQTT-3.3.4-3].
func (src *source) overlapping(m *session.Message) {
	total := 0
	for _, set := range src.found.Plain {
		total += set.Cap()
	}
	indexed := total > 16
	if indexed && src.index == nil {
		src.index = make(map[*client]int)
	}
	list := src.merge[:0]
	for _, set := range src.found.Plain {
		for c, s := range set.All() {
			if s.noLocal && c.id == m.From {
				continue
			}
			at := -1
			if indexed {
				if i, ok := src.index[c]; ok {
					at = i
				}
			} else {
				for i := range list {
					if list[i].c == c {
						at = i
						break
					}
				}
			}
			if at < 0 {
				at = len(list)
				if at < cap(list) {
					list = list[:at+1]
				} else {
					list = append(list, merged{})
				}
				e := &list[at]
				e.c, e.ids = c, e.ids[:0]
				e.d = session.Delivery{QoS: s.qos}
				e.d.Stream, e.d.Connection = s.on()
				if indexed {
					src.index[c] = at
				}
			}
			e := &list[at]
			if s.qos > e.d.QoS {
				e.d.QoS = s.qos
				e.d.Stream, e.d.Connection = s.on()
			}
			e.d.Retain = e.d.Retain || s.asPublished && m.Publish.Retain
			if s.id != 0 {
				e.ids = append(e.ids, s.id)
			}
		}
	}
	for i := range list {
		e := &list[i]
		e.d.QoS = min(e.d.QoS, m.Publish.QoS)
		e.d.SubscriptionIDs = e.ids
		src.deliver(e.c, m, e.d)
		e.c = nil
		e.d.SubscriptionIDs = nil
	}
	if indexed {
		clear(src.index)
		if len(list) > 4096 { // one message to very many must not keep its lists
			src.index, list = nil, nil
		}
	}
	src.merge = list[:0]
}

// shared gives m to one member of a group: the next one that is connected and
// takes messages, else the next that is connected, else, if the message is to
// be kept, the next that is not (MQTT 5, Section 4.8.2).
func (src *source) shared(m *session.Message, g topic.Group[*client, subscription]) {
	for want := taking; want <= offline; want++ {
		if want == offline && m.Publish.QoS == packet.AtMostOnce {
			break
		}
		for c, s := range g.All() {
			if c.member() != want {
				continue
			}
			d := session.Delivery{QoS: min(s.qos, m.Publish.QoS), Retain: s.asPublished && m.Publish.Retain}
			d.Stream, d.Connection = s.on()
			if want == offline && d.QoS == packet.AtMostOnce {
				continue
			}
			if s.id != 0 {
				src.oneID[0] = s.id
				d.SubscriptionIDs = src.oneID[:]
			}
			if src.deliver(c, m, d) {
				return
			}
		}
	}
	src.noMember++
}

// How fit a member of a shared subscription is for a message, best first.
const (
	taking = iota
	stalled
	offline
	ended
)

func (c *client) member() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return ended
	case c.local == nil && (c.conn == nil || c.conn.closing):
		return offline
	case c.stalled:
		return stalled
	}
	return taking
}
