package session

import (
	"strings"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// A Subscription is an entry of the session's own list.
type Subscription struct {
	packet.Subscription               // QoS is the granted one
	ID                  uint32        // Subscription Identifier; 0: none
	Stream              mqtt.StreamID // where it delivers
}

// A subscription is what the list holds for a filter.
type subscription struct {
	stream  mqtt.StreamID
	id      uint32
	qos     packet.QoS
	retain  packet.RetainHandling
	noLocal bool
	asIs    bool // Retain As Published
	granted bool // else EffectSubscribe was given for a filter that is new
}

func (sub *subscription) export(filter string) Subscription {
	return Subscription{
		Subscription: packet.Subscription{
			Filter: filter, QoS: sub.qos, NoLocal: sub.noLocal, RetainAsPublished: sub.asIs, RetainHandling: sub.retain,
		},
		ID: sub.id, Stream: sub.stream,
	}
}

// An operation is a SUBSCRIBE or UNSUBSCRIBE that the caller works on.
type operation struct {
	connection  uint32
	stream      mqtt.StreamID
	id          uint16
	subscribe   *packet.Subscribe   // the filters that were admitted
	refused     []packet.ReasonCode // per filter of the packet, 0: admitted; nil: all are
	unsubscribe *packet.Unsubscribe
}

// findOp returns the operation of this connection that uses an identifier.
func (s *Session) findOp(stream mqtt.StreamID, id uint16) *operation {
	for _, op := range s.ops {
		if op.id == id && op.stream == stream && op.connection == s.connection {
			return op
		}
	}
	return nil
}

// takeOp removes and returns the oldest operation with an identifier, of this
// connection or an earlier one.
func (s *Session) takeOp(stream mqtt.StreamID, id uint16, subscribe bool) *operation {
	for i, op := range s.ops {
		if op.id == id && op.stream == stream && (op.subscribe != nil) == subscribe {
			if s.ops = append(s.ops[:i], s.ops[i+1:]...); len(s.ops) == 0 {
				s.ops = nil
			}
			return op
		}
	}
	return nil
}

// inUse reports whether a SUBSCRIBE or UNSUBSCRIBE uses an identifier that the
// client uses already [MQTT-2.2.1-3].
func (s *Session) inUse(stream mqtt.StreamID, id uint16) bool {
	_, ok := s.received[receivedKey{stream, id}]
	return ok || s.findOp(stream, id) != nil
}

// codes returns n times a code.
func codes(n int, code packet.ReasonCode) []packet.ReasonCode {
	c := make([]packet.ReasonCode, n)
	for i := range c {
		c[i] = code
	}
	return c
}

func (s *Session) queuePacket(l *lane, p packet.Packet) {
	l.packets.push(p)
	s.answers += int32(weight(p))
}

func (s *Session) receiveSubscribe(fx []Effect, now time.Time, stream mqtt.StreamID, p *packet.Subscribe) []Effect {
	l := s.openLane(stream)
	if s.bridge {
		s.bridgeOptions(p)
	}
	for i := range p.Subscriptions {
		if sub := &p.Subscriptions[i]; sub.NoLocal && strings.HasPrefix(sub.Filter, "$share/") { // [MQTT-3.8.3-4]
			return s.fail(fx, now, stream, packet.ProtocolError, "SUBSCRIBE: no local on a shared subscription")
		}
	}
	n := len(p.Subscriptions)
	if s.inUse(stream, p.PacketID) {
		s.queuePacket(l, &packet.Suback{PacketID: p.PacketID, Codes: codes(n, packet.PacketIDInUse)})
		return fx
	}
	if len(s.ops) >= pauseAnswers {
		s.queuePacket(l, &packet.Suback{PacketID: p.PacketID, Codes: codes(n, packet.QuotaExceeded)})
		return fx
	}
	op := &operation{connection: s.connection, stream: stream, id: p.PacketID}
	admitted := make([]packet.Subscription, 0, n)
	isNew := make([]bool, 0, n)
	for i, sub := range p.Subscriptions {
		_, exists := s.subs[sub.Filter]
		if code := s.refusal(sub.Filter); !exists && code != 0 {
			if op.refused == nil {
				op.refused = make([]packet.ReasonCode, n)
			}
			op.refused[i] = code
			continue
		}
		if !exists {
			// It takes its place in the list now: later filters are counted and
			// compared as if they came in SUBSCRIBE packets of their own
			// [MQTT-3.8.4-5].
			if s.subs == nil {
				s.subs = make(map[string]subscription)
			}
			s.subs[sub.Filter] = subscription{}
			s.filters += len(sub.Filter)
		}
		admitted = append(admitted, sub)
		isNew = append(isNew, !exists)
	}
	if len(admitted) == 0 {
		s.queuePacket(l, &packet.Suback{PacketID: p.PacketID, Codes: op.refused})
		return fx
	}
	op.subscribe = &packet.Subscribe{PacketID: p.PacketID, Subscriptions: admitted, Properties: p.Properties}
	s.ops = append(s.ops, op)
	return append(fx, Effect{Kind: EffectSubscribe, Stream: stream, PacketID: p.PacketID, Subscribe: op.subscribe, Connection: s.connection, New: isNew})
}

// Subscribed says what became of the filters of an EffectSubscribe, in their
// order: the granted QoS or a code of 0x80 or above, one for each. Nil codes grant
// what was asked for. It queues SUBACK [MQTT-3.8.4-1].
func (s *Session) Subscribed(now time.Time, stream mqtt.StreamID, id uint16, granted []packet.ReasonCode) {
	op := s.takeOp(stream, id, true)
	if op == nil || s.state == ended {
		return
	}
	current := s.state == connected && op.connection == s.connection
	where := op.stream
	if !current || s.lane(where) == nil {
		where = mqtt.ControlStream
	}
	var subID uint32
	if p := op.subscribe.Properties; p != nil && len(p.SubscriptionIDs) > 0 {
		subID = p.SubscriptionIDs[0]
	}
	answer := make([]packet.ReasonCode, 0, max(len(op.refused), len(op.subscribe.Subscriptions)))
	for i, sub := range op.subscribe.Subscriptions {
		code := packet.ReasonCode(sub.QoS)
		if granted != nil {
			code = granted[i]
		}
		for len(answer) < len(op.refused) && op.refused[len(answer)] != 0 {
			answer = append(answer, op.refused[len(answer)])
		}
		answer = append(answer, code)
		old, exists := s.subs[sub.Filter]
		if code.Failed() {
			if exists && !old.granted {
				s.giveUp(sub.Filter)
			}
			continue
		}
		// The last SUBSCRIBE replaces the options [MQTT-3.8.4-3] and moves the
		// subscription to its stream.
		if s.subs == nil {
			s.subs = make(map[string]subscription)
		}
		if !exists { // the same packet had it before, and that was refused
			s.filters += len(sub.Filter)
		}
		s.subs[sub.Filter] = subscription{
			stream: where, id: subID, qos: packet.QoS(code), retain: sub.RetainHandling,
			noLocal: sub.NoLocal, asIs: sub.RetainAsPublished, granted: true,
		}
		s.onData += onData(where) - onData(old.stream)
		s.tellSubscribed(sub.Filter, s.subs[sub.Filter])
	}
	for len(answer) < len(op.refused) {
		answer = append(answer, op.refused[len(answer)])
	}
	if l := s.lane(op.stream); current && l != nil {
		s.queuePacket(l, &packet.Suback{PacketID: id, Codes: answer}) // [MQTT-3.8.4-2], [MQTT-3.8.4-6]
	}
}

func onData(stream mqtt.StreamID) int32 {
	if stream != mqtt.ControlStream {
		return 1
	}
	return 0
}

// refusal returns the reason code with which a new filter is refused, 0 if it is
// not. It is correctly formed, or else the SUBSCRIBE would be malformed, which
// ends the connection; this one is not allowed, and the others of its packet
// are not affected [MQTT-3.8.4-5].
func (s *Session) refusal(filter string) packet.ReasonCode {
	switch {
	case topic.Levels(filter) > int(s.limits.TopicLevels):
		return packet.TopicFilterInvalid
	case len(s.subs) >= s.limits.MaxSubscriptions || s.filters+len(filter) > s.limits.SubscriptionBytes:
		return packet.QuotaExceeded
	}
	// To MQTT 3.x "$share" is a topic level as any other. Clients of it have
	// shared subscriptions here all the same, so what has their prefix and is
	// none is refused.
	if _, _, _, err := topic.ParseShare(filter); err != nil {
		return packet.TopicFilterInvalid
	}
	return 0
}

// giveUp ends a subscription. Its place in the list stays taken while a SUBSCRIBE with
// the filter is carried out, which was promised that place: so the list is never
// larger than MaxSubscriptions, in whatever order the caller answers.
func (s *Session) giveUp(filter string) {
	for _, op := range s.ops {
		if op.subscribe == nil {
			continue
		}
		for i := range op.subscribe.Subscriptions {
			if op.subscribe.Subscriptions[i].Filter == filter {
				s.onData -= onData(s.subs[filter].stream)
				s.subs[filter] = subscription{}
				return
			}
		}
	}
	s.deleteSub(filter)
}

func (s *Session) deleteSub(filter string) {
	s.filters -= len(filter)
	s.onData -= onData(s.subs[filter].stream)
	if delete(s.subs, filter); len(s.subs) == 0 {
		s.subs = nil
	}
}

func (s *Session) receiveUnsubscribe(fx []Effect, stream mqtt.StreamID, p *packet.Unsubscribe) []Effect {
	l := s.openLane(stream)
	refuse := packet.Success
	if s.inUse(stream, p.PacketID) {
		refuse = packet.PacketIDInUse
	} else if len(s.ops) >= pauseAnswers {
		refuse = packet.UnspecifiedError
	}
	if refuse != packet.Success {
		s.queuePacket(l, &packet.Unsuback{PacketID: p.PacketID, Codes: codes(len(p.Filters), refuse)})
		return fx
	}
	s.ops = append(s.ops, &operation{connection: s.connection, stream: stream, id: p.PacketID, unsubscribe: p})
	return append(fx, Effect{Kind: EffectUnsubscribe, Stream: stream, PacketID: p.PacketID, Unsubscribe: p})
}

// Unsubscribed says what became of the filters of an EffectUnsubscribe. Nil
// codes mean 0x00 for each filter that is in the session's list and 0x11 for the
// others, whichever streams they were subscribed on. It queues UNSUBACK
// [MQTT-3.10.4-4].
func (s *Session) Unsubscribed(now time.Time, stream mqtt.StreamID, id uint16, results []packet.ReasonCode) {
	op := s.takeOp(stream, id, false)
	if op == nil || s.state == ended {
		return
	}
	answer := make([]packet.ReasonCode, len(op.unsubscribe.Filters))
	for i, filter := range op.unsubscribe.Filters {
		if results != nil {
			answer[i] = results[i]
		} else if sub, ok := s.subs[filter]; !ok || !sub.granted {
			answer[i] = packet.NoSubscriptionExisted
		}
		if sub, ok := s.subs[filter]; ok && sub.granted && !answer[i].Failed() {
			s.giveUp(filter)
			if s.Durable() {
				s.journal.Unsubscribed(filter)
			}
		}
	}
	if l := s.lane(op.stream); l != nil && s.state == connected && op.connection == s.connection {
		s.queuePacket(l, &packet.Unsuback{PacketID: id, Codes: answer}) // [MQTT-3.10.4-5], [MQTT-3.10.4-6]
	}
}

// StreamOf returns the stream on which the subscription to a filter delivers,
// for [Delivery.Stream]. It is the control stream for unknown filters.
func (s *Session) StreamOf(filter string) mqtt.StreamID {
	if s.onData == 0 {
		return mqtt.ControlStream
	}
	return s.subs[filter].stream
}

// moveToControl moves the subscriptions of data streams that have ended.
func (s *Session) moveToControl(gone func(mqtt.StreamID) bool) {
	if s.onData == 0 {
		return
	}
	for filter, sub := range s.subs {
		if sub.stream != mqtt.ControlStream && gone(sub.stream) {
			sub.stream = mqtt.ControlStream
			s.subs[filter] = sub
			s.onData--
		}
	}
}
