package session

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Journal is told of every change of what a session must not lose when the
// server ends without notice: its Session State (MQTT 5, Section 4.1), when it
// expires, and its will. A session tells its journal, if it has one, from
// the first Attach with a Session Expiry Interval that is not zero until
// Ended; [Restore] makes an equal session from what was told.
//
// The methods are called in the order of the changes, in the midst of the
// session's own: they must not call the session, nor wait. They keep nothing of
// their arguments but the *Message of an Entry, which is immutable. What the
// session gives out by Next after a change promises that the change is
// durable; to keep the promise, the caller holds the packet back until it is.
type Journal interface {
	// State replaces what was told by State before.
	State(State)
	// Subscribed adds a subscription or replaces that to the same filter.
	Subscribed(Subscription)
	Unsubscribed(filter string)
	// Queued adds a message of QoS 1 or 2 that waits; Dropped takes it
	// away unsent.
	Queued(Entry)
	Dropped(Entry)
	// Sent puts in flight, as e, the message that waited under the number waited.
	Sent(waited uint64, e Entry)
	// Released says that PUBREC was received as the order-th: the identifier stays
	// in flight, its message, which is e's, is not needed any more.
	Released(e Entry, order uint32)
	// Completed ends a flight. The message is nil if it was released.
	Completed(Entry)
	// Received adds a packet identifier to those of QoS 2 messages that were
	// received and taken over, and Forgotten takes it away.
	Received(id uint16)
	Forgotten(id uint16)
	// Ended takes everything away. The messages are those that waited or were in
	// flight.
	Ended(messages iter.Seq[*Message])
}

// A State is what a session keeps from CONNECT and DISCONNECT.
type State struct {
	Version   packet.Version
	Expiry    uint32          // seconds from Since to the end of the session; 0xFFFFFFFF: never ends
	Since     time.Time       // when the connection ended; zero: there is one
	Will      *packet.Publish // nil: none; owned by the session
	WillDelay uint32          // seconds
}

// An Entry is a message of QoS 1 or 2 on its way to the client.
type Entry struct {
	// Seq orders what waits by arrival and, in a numbering of its own, what is in
	// flight by its first sending; there the packet identifier follows from it.
	Seq             uint64
	Message         *Message
	QoS             packet.QoS
	Retain          bool
	SubscriptionIDs []uint32 // not to be kept
}

// A Flight is an Entry that was sent and is not completely acknowledged.
type Flight struct {
	Entry
	Released bool   // PUBREC was received; Message is nil
	Order    uint32 // of the PUBRECs
}

// Saved is the state of a session outside of its connection.
type Saved struct {
	ClientID      string
	State         State
	Subscriptions []Subscription // on the control stream
	Waiting       []Entry        // by Seq
	Inflight      []Flight       // by Seq
	Received      []uint16       // in ascending order
}

// SetJournal gives the session its journal, before the first Attach.
func (s *Session) SetJournal(j Journal) { s.journal = &journal{Journal: j} }

// A journal is a session's Journal and what belongs to telling it.
type journal struct {
	Journal
	on bool      // the session is to outlive a connection, or did
	id [1]uint32 // a subscription identifier on its way
}

// Durable reports whether the session tells a journal of its changes.
func (s *Session) Durable() bool { return s.journal != nil && s.journal.on }

// Restore returns the session that saved describes, without a connection. One
// that had a connection is as if that had been lost now. It tells j of what
// changes from then on. The slices of saved may be in any order and are sorted;
// entries whose message is nil are left out.
func Restore(now time.Time, saved *Saved, limits Limits, j Journal) *Session {
	s := New(saved.ClientID, limits)
	s.journal = &journal{Journal: j, on: true}
	s.connection = 1
	st := &saved.State
	s.version, s.expiry, s.since = st.Version, s.limits.capExpiry(st.Expiry), st.Since
	if s.since.IsZero() || s.since.After(now) {
		s.since = now
	}
	if st.Will != nil {
		s.will = &will{Publish: *st.Will, delay: st.WillDelay}
	}
	for i := range saved.Subscriptions {
		sub := &saved.Subscriptions[i]
		if s.subs == nil {
			s.subs = make(map[string]subscription)
		}
		s.subs[sub.Filter] = subscription{
			id: sub.ID, qos: sub.QoS, retain: sub.RetainHandling,
			noLocal: sub.NoLocal, asIs: sub.RetainAsPublished, granted: true,
		}
		s.filters += len(sub.Filter)
	}
	slices.SortFunc(saved.Waiting, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range saved.Waiting {
		w := &saved.Waiting[i]
		s.seq = w.Seq
		if w.Message == nil {
			continue
		}
		s.restore(s.main.qos12.add(), w)
		if at := w.Message.Expires; !at.IsZero() {
			s.expires = earlier(s.expires, at)
		}
	}
	slices.SortFunc(saved.Inflight, func(a, b Flight) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range saved.Inflight {
		f := &saved.Inflight[i]
		s.out.seq = f.Seq
		if f.Message == nil && !f.Released {
			continue
		}
		n := flight{state: sent}
		if f.Released {
			n.state, n.rel = released, f.Order
			n.entry = entry{seq: f.Seq, how: uint32(packet.ExactlyOnce)}
			if int32(f.Order-s.out.rels) > 0 {
				s.out.rels = f.Order
			}
		} else {
			s.restore(&n.entry, &f.Entry)
		}
		s.out.list = append(s.out.list, n)
	}
	slices.Sort(saved.Received)
	for _, id := range saved.Received {
		s.received.put(carried, id, resumed)
	}
	return s
}

// restore makes e the entry that w describes.
func (s *Session) restore(e *entry, w *Entry) {
	d := Delivery{QoS: w.QoS, Retain: w.Retain, SubscriptionIDs: w.SubscriptionIDs}
	cost := deliveryCost(w.Message, &d)
	e.init(w.Message, &d, cost)
	e.seq = w.Seq
	s.bytes += cost
}

// Save returns the session's state. It shares the messages.
func (s *Session) Save() *Saved {
	saved := &Saved{ClientID: s.clientID, State: s.saveState()}
	for sub := range s.Subscriptions() {
		sub.Stream = mqtt.ControlStream
		saved.Subscriptions = append(saved.Subscriptions, sub)
	}
	slices.SortFunc(saved.Subscriptions, func(a, b Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
	s.eachLane(func(l *lane) {
		for i := range l.qos12.n {
			saved.Waiting = append(saved.Waiting, l.qos12.at(i).export(new([1]uint32)))
		}
	})
	slices.SortFunc(saved.Waiting, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range s.out.list {
		if f := &s.out.list[i]; f.state != completed {
			saved.Inflight = append(saved.Inflight, Flight{
				Entry: f.export(new([1]uint32)), Released: f.state == released, Order: f.rel,
			})
		}
	}
	for k, st := range s.received {
		if st&routing == 0 {
			saved.Received = append(saved.Received, k.id)
		}
	}
	slices.Sort(saved.Received)
	saved.Received = slices.Compact(saved.Received)
	return saved
}

func (s *Session) saveState() State {
	st := State{Version: s.version, Expiry: s.expiry}
	if s.state == detached {
		st.Since = s.since
	}
	if s.will != nil {
		st.Will, st.WillDelay = &s.will.Publish, s.will.delay
	}
	return st
}

// export describes e. A single subscription identifier is put into id.
func (e *entry) export(id *[1]uint32) Entry {
	return Entry{Seq: e.seq, Message: e.msg, QoS: e.qos(), Retain: e.retain(), SubscriptionIDs: e.subscriptionIDs(id)}
}

// tellState tells the journal of what saveState returns.
func (s *Session) tellState() {
	if s.Durable() {
		s.journal.State(s.saveState())
	}
}

// tellQueued and the others tell the journal, if there is one, what became of
// a message.
func (s *Session) tellQueued(e *entry) {
	if s.Durable() && e.qos() != packet.AtMostOnce {
		s.journal.Queued(e.export(&s.journal.id))
	}
}

func (s *Session) tellDropped(e *entry) {
	if s.Durable() && e.qos() != packet.AtMostOnce {
		s.journal.Dropped(e.export(&s.journal.id))
	}
}

func (s *Session) tellSent(waited uint64, e *entry) {
	if s.Durable() {
		s.journal.Sent(waited, e.export(&s.journal.id))
	}
}

func (s *Session) tellReleased(e *entry, order uint32) {
	if s.Durable() {
		s.journal.Released(e.export(&s.journal.id), order)
	}
}

func (s *Session) tellCompleted(e *entry) {
	if s.Durable() {
		s.journal.Completed(e.export(&s.journal.id))
	}
}

func (s *Session) tellSubscribed(filter string, sub subscription) {
	if s.Durable() {
		x := sub.export(filter)
		x.Stream = mqtt.ControlStream // what is left of a stream is nothing
		s.journal.Subscribed(x)
	}
}

// tellForgotten tells that an identifier is not received any more, unless
// another stream has it too.
func (s *Session) tellForgotten(id uint16) {
	if !s.Durable() {
		return
	}
	for k, st := range s.others(id) {
		if k.id == id && st&routing == 0 {
			return
		}
	}
	s.journal.Forgotten(id)
}

// others yields the exchanges of QoS 2 under id on any stream.
func (s *Session) others(id uint16) iter.Seq2[receivedKey, receivedState] {
	return func(yield func(receivedKey, receivedState) bool) {
		try := func(stream mqtt.StreamID) bool {
			k := receivedKey{stream, id}
			st, ok := s.received[k]
			return !ok || yield(k, st)
		}
		if len(s.received) == 0 || !try(mqtt.ControlStream) || !try(carried) {
			return
		}
		for stream := range s.data {
			if !try(stream) {
				return
			}
		}
	}
}

// tellEnded tells that everything is gone. It is called while the messages are
// still there, in the control stream's lane and in flight.
func (s *Session) tellEnded() {
	if !s.Durable() {
		return
	}
	s.journal.Ended(func(yield func(*Message) bool) {
		for i := range s.main.qos12.n {
			if !yield(s.main.qos12.at(i).msg) {
				return
			}
		}
		for i := range s.out.list {
			if m := s.out.list[i].msg; m != nil && !yield(m) {
				return
			}
		}
	})
	s.journal = nil
}
