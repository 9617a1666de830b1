package client

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A StreamPolicy says which streams a client uses on carriers that have data streams
// beside the control stream, QUIC and WebTransport. On other carriers, and for
// streams that the server does not grant, everything goes on the control stream.
//
// Messages keep their order within a stream, so that those of one topic keep it
// under every policy, and what is lost of one stream delays no other. Policies work
// with our broker and with EMQX. EMQX forgets the subscriptions and the exchanges
// of a data stream that ends: subscriptions are made again, on a new stream, and
// messages that it has not acknowledged are published again, with DUP, so that
// they arrive at least once, even those with QoS 2; our broker takes them for what
// they are.
type StreamPolicy struct {
	kind policyKind
	n    int
}

type policyKind uint8

const (
	controlOnly policyKind = iota
	perTopic
	byHash
	dedicated
)

// MaxStreams is how many data streams a client opens at most, unless [Hash] asks for
// more: what all servers of the protocol grant, but for the control stream.
const MaxStreams = 9

// MaxHash is the most that [Hash] takes.
const MaxHash = 64

var (
	// Control uses the control stream for everything.
	Control = StreamPolicy{}

	// PerTopic has a stream for each topic that is published to, and for the first
	// filter of each Subscribe. Those beyond MaxStreams share streams.
	PerTopic = StreamPolicy{kind: perTopic, n: MaxStreams}

	// Dedicated has a stream for what is published, and one for each Subscribe.
	// Those beyond MaxStreams share streams.
	Dedicated = StreamPolicy{kind: dedicated, n: MaxStreams}
)

// Hash spreads topics, and the first filter of each Subscribe, over n streams, 1 to
// MaxHash. More than MaxStreams are for servers that are known to grant n and one:
// what is for a stream that is not granted waits for seconds before it goes on the
// control stream, and what is published with QoS 0 may then be lost.
func Hash(n int) StreamPolicy { return StreamPolicy{kind: byHash, n: n} }

func (p StreamPolicy) check() error {
	if p.kind != controlOnly && (p.n < 1 || p.n > MaxHash) {
		return fmt.Errorf("client: Config.Streams: Hash(%d) is not between 1 and %d streams", p.n, MaxHash)
	}
	return nil
}

// A slot is a stream as the policy sees it, which is another stream of the carrier
// on each connection, and after each loss. Slot 0 is the control stream.
type slot int

// slots are the machine's part of the streams. It numbers them on its own, never
// twice: the carrier's numbers are of one connection only.
type slots struct {
	policy  StreamPolicy
	enabled bool // on this connection
	seed    maphash.Seed
	topics  map[string]slot        // of perTopic, while there are fewer than slots
	streams map[slot]mqtt.StreamID // open on this connection
	losses  map[slot]int           // on this connection
	last    mqtt.StreamID          // that was opened
}

// maxLosses is how many streams of a slot may be lost before its place is taken by
// the control stream: a server that resets each new stream is not asked for ever.
const maxLosses = 3

func newSlots(p StreamPolicy) slots { return slots{policy: p, seed: maphash.MakeSeed()} }

// of returns the slot for a topic or filter.
func (s *slots) of(topic string) slot {
	switch s.policy.kind {
	case perTopic:
		if n, ok := s.topics[topic]; ok {
			return n
		}
		if n := len(s.topics); n < s.policy.n {
			if s.topics == nil {
				s.topics = make(map[string]slot)
			}
			s.topics[topic] = slot(n + 1)
			return slot(n + 1)
		}
	case byHash:
	case dedicated:
		return 1
	default:
		return 0
	}
	return slot(maphash.String(s.seed, topic)%uint64(s.policy.n)) + 1
}

// ofFlight returns the slot for a message; without streams it is not looked for.
func (s *slots) ofFlight(f *flight) slot {
	if !s.enabled {
		return 0
	}
	return s.of(string(f.wire[f.idAt-f.topicLen : f.idAt]))
}

// ofRequest returns the slot for a request: for filters that are subscribed to
// already the one that they have.
func (m *machine) ofRequest(r *request) slot {
	filter := r.filters()[0]
	for i := range m.subscriptions {
		if m.subscriptions[i].Filter == filter {
			return m.subscriptions[i].slot
		}
	}
	switch {
	case m.slots.policy.kind == controlOnly || r.unsubscribe != nil:
		return 0
	case m.slots.policy.kind == dedicated && m.slots.policy.n > 1:
		return 2 + slot(m.lastGroup)%slot(m.slots.policy.n-1)
	}
	return m.slots.of(filter)
}

// streamOf returns the stream of a slot, which may have to be opened.
func (m *machine) streamOf(n slot) mqtt.StreamID {
	s := &m.slots
	if n == 0 || !s.enabled || s.losses[n] >= maxLosses {
		return mqtt.ControlStream
	}
	id, ok := s.streams[n]
	if !ok {
		s.last++
		id = s.last
		s.streams[n] = id
	}
	return id
}

// isOpen reports whether packets may be sent on a data stream.
func (s *slots) isOpen(id mqtt.StreamID) bool {
	for _, open := range s.streams {
		if open == id {
			return true
		}
	}
	return false
}

func (m *machine) startStreams(enabled bool) {
	m.slots.enabled = enabled && m.slots.policy.kind != controlOnly
	m.slots.streams, m.slots.losses = make(map[slot]mqtt.StreamID), make(map[slot]int)
}

// streamLost repairs what a data stream that has ended leaves behind.
func (m *machine) streamLost(id mqtt.StreamID) {
	var n slot
	for k, open := range m.slots.streams {
		if open == id {
			n = k
		}
	}
	if n == 0 || !m.connected {
		return
	}
	delete(m.slots.streams, n)
	m.slots.losses[n]++
	m.control = slices.DeleteFunc(m.control[m.head:], func(o outgoing) bool { return o.stream == id })
	m.head = 0
	m.cutInbound(id)
	for _, r := range slices.Clone(m.pending) {
		if r.id != 0 && r.stream == id {
			delete(m.requests.byID, r.id)
			m.sendRequest(r)
		}
	}
	m.resubscribe(m.pending, func(s *subscription) bool { return s.slot == n }, true)
	for f := m.outbound.first; f != nil; f = f.next {
		if !f.sent || f.stream != id {
			continue
		}
		f.stream = m.streamOf(f.slot)
		o := outgoing{stream: f.stream, kind: packet.PUBREL, id: f.id}
		if !f.released {
			o.kind, o.flight, o.dup = packet.PUBLISH, f, true
		}
		m.send(o)
	}
}

// stale reports that o sends a message again whose exchange has ended meanwhile.
func (o *outgoing) stale() bool { return o.flight != nil && o.dup && o.flight.finished }

// cutInbound unties the exchanges from a data stream that has ended, or from all of
// them if id is the control stream: a server that keeps the session goes on with
// them on the control stream, with DUP. One that does not may use the identifiers
// for other messages, without DUP.
func (m *machine) cutInbound(id mqtt.StreamID) {
	for key, r := range m.received {
		if key.stream == mqtt.ControlStream || id != mqtt.ControlStream && key.stream != id {
			continue
		}
		delete(m.received, key)
		control := inboundID{mqtt.ControlStream, key.id}
		if _, taken := m.received[control]; taken || r.qos != packet.ExactlyOnce {
			m.log.forgot(key, r)
			continue
		}
		r.cut, r.from, r.owed = true, key.stream, 0
		m.received[control] = r
	}
}
