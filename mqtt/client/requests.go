package client

import (
	"slices"
	"strings"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A request is a SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
type request struct {
	subscribe   *packet.Subscribe // or
	unsubscribe *packet.Unsubscribe
	handler     func(*packet.Publish)
	group       uint32 // numbers the calls with a handler
	subID       uint32 // group as a subscription identifier; 0: none
	again       bool   // the client's own, for subscriptions the server lost
	abandoned   bool   // nobody waits for it any more

	// replaced are the subscriptions that are in force until the server has
	// granted those that took their places.
	replaced []subscription

	slot   slot
	stream mqtt.StreamID // that it was sent on
	id     uint16
	wait   chan requestOutcome // capacity 1
}

type requestOutcome struct {
	codes []packet.ReasonCode
	err   error
}

func (r *request) filters() []string {
	if r.unsubscribe != nil {
		return r.unsubscribe.Filters
	}
	filters := make([]string, len(r.subscribe.Subscriptions))
	for i := range filters {
		filters[i] = r.subscribe.Subscriptions[i].Filter
	}
	return filters
}

// A subscription is one filter that the application has subscribed to.
type subscription struct {
	packet.Subscription
	group   uint32 // those of one call have the same; 0: no handler
	subID   uint32 // 0: none
	handler func(*packet.Publish)
	by      *request // that made it, or made it again
	slot    slot
}

// requests are not part of a session: SUBSCRIBE and UNSUBSCRIBE are not repeated
// by the protocol. One without an answer is sent on the next connection as a new
// one.
type requests struct {
	pending       []*request // in order
	byID          map[uint16]*request
	subscriptions []subscription // in order; a filter is there once
	subsVersion   uint64         // changes with subscriptions
	lastGroup     uint32
	refusedAgain  []SubscribeError // what resubscribing did not get
}

// maxSubID is the largest subscription identifier (MQTT 5, Section 3.8.2.1.2).
const maxSubID = 268_435_455

// request sends r, at once or on the next connection.
func (m *machine) request(r *request) error {
	if r.handler != nil {
		// A wrap comes after 268 million calls.
		if m.lastGroup++; m.lastGroup > maxSubID {
			m.lastGroup = 1
		}
		r.group = m.lastGroup
		if m.version >= packet.V5 {
			r.subID = r.group
		}
	}
	if err := m.requestRefused(r); err != nil {
		return err
	}
	r.slot = m.ofRequest(r)
	m.pending = append(m.pending, r)
	if r.subscribe != nil {
		// Messages may come before the SUBACK.
		for _, s := range r.subscribe.Subscriptions {
			if old, ok := m.putSubscription(subscription{s, r.group, r.subID, r.handler, r, r.slot}); ok && old.by != r {
				r.replaced = append(r.replaced, old)
			}
		}
	}
	if m.connected {
		m.sendRequest(r)
	}
	return nil
}

// requestRefused says whether r is not valid, or whether the server, if there is
// one, has announced that it will refuse it.
func (m *machine) requestRefused(r *request) error {
	if m.connected && !m.server.subIDs {
		r.subID = 0 // [MQTT-3.2.2-19]: handlers go by topic then
	}
	b, err := r.packet(1).Append(nil, m.version)
	if err != nil || !m.connected {
		return err
	}
	filters := r.filters()
	if len(b) > m.server.maxPacket {
		return &SubscribeError{Filter: filters[0], Code: packet.PacketTooLarge}
	}
	if r.subscribe == nil {
		return nil
	}
	for _, f := range filters {
		if code := m.filterRefused(f); code != 0 {
			return &SubscribeError{Filter: f, Code: code}
		}
	}
	return nil
}

// filterRefused returns the reason code with which the server has announced to
// refuse a filter, 0 if it has not.
func (m *machine) filterRefused(filter string) packet.ReasonCode {
	switch {
	case isShared(filter) && !m.server.shared:
		return packet.SharedSubscriptionsNotSupported
	case hasWildcard(filter) && !m.server.wildcards:
		return packet.WildcardSubscriptionsNotSupported
	}
	return 0
}

func isShared(filter string) bool    { return strings.HasPrefix(filter, "$share/") }
func hasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

func (r *request) packet(id uint16) packet.Packet {
	if r.unsubscribe != nil {
		u := *r.unsubscribe
		u.PacketID = id
		return &u
	}
	s := *r.subscribe
	s.PacketID = id
	if r.subID != 0 {
		var p packet.Properties
		if s.Properties != nil {
			p = *s.Properties
		}
		p.SubscriptionIDs = []uint32{r.subID}
		s.Properties = &p
	}
	return &s
}

func (m *machine) sendRequest(r *request) {
	if r.id = m.newID(); r.id == 0 {
		// 65535 operations are under way.
		m.finishRequest(r, nil, &SubscribeError{Filter: r.filters()[0], Code: packet.QuotaExceeded})
		return
	}
	m.requests.byID[r.id] = r
	r.stream = m.streamOf(r.slot)
	m.send(outgoing{stream: r.stream, packet: r.packet(r.id)})
}

func (m *machine) finishRequest(r *request, codes []packet.ReasonCode, err error) {
	if r.id != 0 {
		delete(m.requests.byID, r.id)
	}
	if i := slices.Index(m.pending, r); i >= 0 {
		m.pending = slices.Delete(m.pending, i, i+1)
	}
	r.replaced = nil
	if !r.abandoned && r.wait != nil {
		m.completed = append(m.completed, completion{request: r, codes: codes, err: err})
	}
}

// none reports whether no call of the application waits.
func (q *requests) none() bool {
	for _, r := range q.pending {
		if !r.again && !r.abandoned {
			return false
		}
	}
	return true
}

func (m *machine) failRequests(err error) {
	for len(m.pending) > 0 {
		m.finishRequest(m.pending[0], nil, err)
	}
}

// giveUpRequest is for a call whose context has ended. A SUBSCRIBE that was sent
// stands: the server may grant it.
func (m *machine) giveUpRequest(r *request) {
	r.abandoned = true
	if r.id == 0 {
		m.undo(r, r.filters())
		m.finishRequest(r, nil, nil)
	}
}

// undo takes back what r did to the list for filters that it does not get.
func (m *machine) undo(r *request, filters []string) {
	if r.subscribe == nil {
		return
	}
	m.subsVersion++
	for i := range r.replaced {
		old := &r.replaced[i]
		for j := range m.subscriptions {
			s := &m.subscriptions[j]
			if s.by == r && s.Filter == old.Filter && slices.Contains(filters, s.Filter) {
				*s = *old
			}
		}
	}
	m.subscriptions = slices.DeleteFunc(m.subscriptions, func(s subscription) bool {
		return s.by == r && slices.Contains(filters, s.Filter)
	})
}

func (m *machine) receiveSuback(s *packet.Suback) error {
	r := m.requests.byID[s.PacketID]
	if r == nil {
		return nil
	}
	if r.subscribe == nil || len(s.Codes) != len(r.subscribe.Subscriptions) {
		// [MQTT-3.9.3-1]
		return &ProtocolError{packet.ProtocolError, "SUBACK does not fit the SUBSCRIBE"}
	}
	var refused *SubscribeError
	for i, code := range s.Codes {
		if !code.Failed() {
			continue
		}
		filter := r.subscribe.Subscriptions[i].Filter
		m.undo(r, []string{filter})
		e := SubscribeError{Filter: filter, Code: code, Reason: reasonString(s.Properties)}
		if r.again {
			m.refusedAgain = append(m.refusedAgain, e)
		} else if refused == nil {
			refused = &e
		}
	}
	m.finishRequest(r, s.Codes, asError(refused))
	return nil
}

func (m *machine) receiveUnsuback(u *packet.Unsuback) error {
	r := m.requests.byID[u.PacketID]
	if r == nil {
		return nil
	}
	if r.unsubscribe == nil || (m.version >= packet.V5 && len(u.Codes) != len(r.unsubscribe.Filters)) {
		// [MQTT-3.11.3-1]
		return &ProtocolError{packet.ProtocolError, "UNSUBACK does not fit the UNSUBSCRIBE"}
	}
	var refused *SubscribeError
	for i, filter := range r.unsubscribe.Filters {
		if i < len(u.Codes) && u.Codes[i].Failed() {
			if refused == nil {
				refused = &SubscribeError{Filter: filter, Code: u.Codes[i], Reason: reasonString(u.Properties)}
			}
			continue
		}
		m.dropSubscriptions([]string{filter})
	}
	m.finishRequest(r, u.Codes, asError(refused))
	return nil
}

// resumeRequests sends on a new connection what was not answered on the last one.
// lost means that there is a new session: what the server has granted before comes
// first then, so that everything is asked for in the order in which it was made.
func (m *machine) resumeRequests(lost bool) {
	for _, r := range slices.Clone(m.pending) {
		if r.id != 0 {
			delete(m.requests.byID, r.id)
			r.id = 0
		}
		if r.again && lost {
			m.finishRequest(r, nil, nil)
			continue
		}
		if err := m.requestRefused(r); err != nil {
			m.undo(r, r.filters())
			m.finishRequest(r, nil, err)
		}
	}
	unanswered := slices.Clone(m.pending)
	m.pending = m.pending[:0]
	if lost {
		m.resubscribe(unanswered, func(*subscription) bool { return true }, false)
	} else if m.slots.enabled {
		// Until then they deliver on the control stream, or not at all.
		m.resubscribe(unanswered, func(s *subscription) bool { return s.slot != 0 }, true)
	}
	m.pending = append(m.pending, unanswered...)
	for _, r := range unanswered {
		m.sendRequest(r)
	}
}

// resubscribe makes the subscriptions again that a server has lost, all but those
// that the unanswered requests make anyway. Those of one Subscribe call stay together.
// If the server may still have them, it is not to send retained messages for those.
func (m *machine) resubscribe(unanswered []*request, which func(*subscription) bool, kept bool) {
	inRequest := make(map[string]bool)
	for _, r := range unanswered {
		for _, f := range r.filters() {
			inRequest[f] = true
		}
	}
	var r *request
	var refused []string
	size := 0
	for i := range m.subscriptions {
		s := &m.subscriptions[i]
		if inRequest[s.Filter] || !which(s) {
			continue
		}
		if code := m.filterRefused(s.Filter); code != 0 {
			m.refusedAgain = append(m.refusedAgain, SubscribeError{Filter: s.Filter, Code: code})
			refused = append(refused, s.Filter)
			continue
		}
		if !m.server.subIDs {
			s.subID = 0
		}
		size += 2 + len(s.Filter) + 1
		if r == nil || r.subID != s.subID || r.slot != s.slot || len(r.subscribe.Subscriptions) >= resubscribeBatch ||
			size > m.server.maxPacket-subscribeOverhead {
			if r != nil {
				m.startAgain(r)
			}
			r = &request{subscribe: new(packet.Subscribe), subID: s.subID, slot: s.slot, again: true}
			size = 2 + len(s.Filter) + 1
		}
		again := s.Subscription
		if kept && m.version >= packet.V5 {
			again.RetainHandling = max(again.RetainHandling, 1)
		}
		r.subscribe.Subscriptions = append(r.subscribe.Subscriptions, again)
		s.by = r
	}
	if r != nil {
		m.startAgain(r)
	}
	m.dropSubscriptions(refused)
}

// takeRefusedAgain returns the subscriptions that the server did not make again.
func (m *machine) takeRefusedAgain() []SubscribeError {
	e := m.refusedAgain
	m.refusedAgain = nil
	return e
}

// resubscribeBatch keeps the packets of resubscribe small.
const resubscribeBatch = 64

// subscribeOverhead is more than a SUBSCRIBE has besides filters: the fixed
// header, the packet identifier and a subscription identifier.
const subscribeOverhead = 5 + 2 + 1 + 5

func (m *machine) startAgain(r *request) {
	m.pending = append(m.pending, r)
	m.sendRequest(r)
}

// putSubscription adds s to the list, or has it replace one with the same filter
// [MQTT-3.8.4-3], which it returns.
func (m *machine) putSubscription(s subscription) (old subscription, replaced bool) {
	m.subsVersion++
	for i := range m.subscriptions {
		if m.subscriptions[i].Filter == s.Filter {
			old, m.subscriptions[i] = m.subscriptions[i], s
			return old, true
		}
	}
	m.subscriptions = append(m.subscriptions, s)
	return subscription{}, false
}

func (m *machine) dropSubscriptions(filters []string) {
	m.subsVersion++
	m.subscriptions = slices.DeleteFunc(m.subscriptions, func(s subscription) bool {
		return slices.Contains(filters, s.Filter)
	})
}

func reasonString(p *packet.Properties) string {
	if p == nil {
		return ""
	}
	return p.ReasonString
}

// asError avoids an error that is not nil and holds a nil pointer.
func asError(e *SubscribeError) error {
	if e == nil {
		return nil
	}
	return e
}
