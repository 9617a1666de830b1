package session

import (
	"bytes"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An Attach says how a connection begins, as far as CONNECT does not.
type Attach struct {
	SessionPresent   bool   // the session existed before
	AssignedClientID bool   // the server chose the client ID
	ResponseInfo     string // Response Information, for clients that request it; "": none
	Node             string // the server's name, for bridges; "": it is not told

	// AuthMethod is the Authentication Method with which the client has proven
	// who it is, and AuthData the last of that exchange, for CONNACK. Empty: none.
	AuthMethod string
	AuthData   []byte
}

// Attach begins a connection with an acceptable CONNECT. It queues CONNACK, then
// what was in flight, then what waits. A client that asks for a clean start, or
// whose session has ended, gets a new Session; its caller sees to that.
// An earlier connection must have been ended with Detach. If CONNACK is larger
// than the client's Maximum Packet Size, the next Tick, which is then due at
// once, closes the connection.
func (s *Session) Attach(now time.Time, c *packet.Connect, a Attach) {
	if s.state == ended {
		return
	}
	if s.state != detached {
		s.drop()
	}
	s.state, s.since, s.version = connected, now, c.Version
	s.connection++
	s.bridge = c.Bridge

	asked := c.Properties
	if asked == nil || c.Version < packet.V5 {
		asked = new(packet.Properties)
	}
	s.maxPacket = asked.MaximumPacketSize.Or(0)
	// [MQTT-3.3.4-9]: Receive Maximum bounds the PUBLISH packets that are not
	// acknowledged.
	s.quota = min(asked.ReceiveMaximum.Or(65535), s.limits.MaxInflight)
	// [MQTT-3.1.2-26], [MQTT-3.1.2-27]
	s.aliases.max = min(asked.TopicAliasMaximum.Or(0), maxAliasesOut)

	want := wantedExpiry(c)
	s.zeroExpiry = want == 0
	s.expiry = s.limits.capExpiry(want)

	s.keepAlive = c.KeepAlive
	if most := s.limits.KeepAliveMax; c.Version >= packet.V5 && most != 0 && (c.KeepAlive == 0 || c.KeepAlive > most) {
		s.keepAlive = most
	}

	// [MQTT-3.1.3-9]: the will of an earlier connection is not sent.
	s.will = newWill(c.Will)

	if a.AuthMethod != "" {
		s.auth = &authState{method: a.AuthMethod}
	}
	s.connack = s.newConnack(c, a, want, asked.RequestResponseInfo.Or(0) == 1)
	if !s.fits(s.connack) && s.connack.Properties != nil {
		s.connack.Properties.ResponseInfo = "" // the only one that the client can do without
	}
	// Without CONNACK there is nothing that may be sent [MQTT-3.2.0-1].
	s.silent = !s.fits(s.connack)
	s.resume()
	if s.journal != nil && s.expiry != 0 {
		s.journal.on = true
	}
	s.tellState()
}

// wantedExpiry returns the Session Expiry Interval that CONNECT asks for, in seconds.
func wantedExpiry(c *packet.Connect) uint32 {
	switch {
	case c.Version < packet.V5 && !c.CleanStart:
		return never
	case c.Version < packet.V5 || c.Properties == nil:
		return 0
	}
	return c.Properties.SessionExpiry.Or(0)
}

// Lessens reports whether Attach with c would take something from a session that has
// no connection: its will, which is not sent then, or of its life.
func (s *Session) Lessens(c *packet.Connect) bool {
	return s.will != nil || s.limits.capExpiry(wantedExpiry(c)) < s.expiry
}

func (s *Session) newConnack(c *packet.Connect, a Attach, want uint32, wantsInfo bool) *packet.Connack {
	// [MQTT-3.2.2-2], [MQTT-3.2.2-3]; MQTT 3.1 has no such flag.
	ack := &packet.Connack{SessionPresent: a.SessionPresent && c.Version != packet.V31}
	if c.Version < packet.V5 {
		return ack
	}
	p := &packet.Properties{
		TopicAliasMaximum: packet.Some(s.limits.TopicAliasMaximum),
	}
	if s.expiry != want {
		p.SessionExpiry = packet.Some(s.expiry)
	}
	if s.limits.ReceiveMaximum != 65535 {
		p.ReceiveMaximum = packet.Some(s.limits.ReceiveMaximum)
	}
	if s.limits.MaximumPacketSize <= packet.MaxRemainingLength {
		p.MaximumPacketSize = packet.Some(s.limits.MaximumPacketSize)
	}
	if s.keepAlive != c.KeepAlive {
		p.ServerKeepAlive = packet.Some(s.keepAlive) // [MQTT-3.2.2-21]
	}
	if a.AssignedClientID {
		p.AssignedClientID = s.clientID // [MQTT-3.2.2-16]
	}
	if wantsInfo {
		p.ResponseInfo = a.ResponseInfo // [MQTT-3.1.2-28]
	}
	p.AuthMethod, p.AuthData = a.AuthMethod, a.AuthData // [MQTT-4.12.0-5], [MQTT-4.12.0-6]
	if a.Node != "" {
		p.User = []packet.UserProperty{{Key: mqtt.NodeProperty, Value: a.Node}}
	}
	ack.Properties = p
	return ack
}

// newWill copies a will.
func newWill(w *packet.Will) *will {
	if w == nil {
		return nil
	}
	n := &will{Publish: packet.Publish{
		Topic: w.Topic, Payload: bytes.Clone(w.Payload), QoS: w.QoS, Retain: w.Retain,
	}}
	if w.Properties != nil {
		n.delay = w.Properties.WillDelay.Or(0)
		n.Properties = messageProperties(w.Properties)
	}
	return n
}

// publishWill appends the effect that publishes the will, once [MQTT-3.1.2-10].
func (s *Session) publishWill(fx []Effect, now time.Time) []Effect {
	if s.will == nil {
		return fx
	}
	// The will expires as a message that is published now (Section 3.1.3.2.4).
	m := NewMessage(now, &s.will.Publish, s.clientID)
	s.mark(m)
	s.will = nil
	s.tellState()
	return append(fx, Effect{Kind: EffectWill, Message: m})
}

// Detach ends the connection, which is lost or was closed. The will is due now
// or later, and the session ends now or later.
func (s *Session) Detach(fx []Effect, now time.Time) []Effect {
	if s.state != connected && s.state != closing {
		return fx
	}
	s.Leave(now)
	// [MQTT-3.1.2-8]: the will is published when its delay has passed or the
	// session ends, whichever is first; Tick sees to both.
	return s.Tick(fx, now)
}

// Leave is Detach for a caller who calls Tick later: until then the will is there,
// and in the journal, though it may be due.
func (s *Session) Leave(now time.Time) {
	if s.state != connected && s.state != closing {
		return
	}
	s.drop()
	s.state, s.since = detached, now
	s.tellState()
}

// End ends the session at once, because a client begins anew with a clean start
// or an administrator wants it so. The will, if it was not removed, is
// published, since the session ends before its delay (Section 3.1.3.2.2).
func (s *Session) End(fx []Effect, now time.Time) []Effect {
	if s.state == ended {
		return fx
	}
	s.drop()
	fx = s.publishWill(fx, now)
	s.state = ended
	s.tellEnded()
	s.out, s.main = window{seq: s.out.seq}, lane{}
	s.received, s.subs, s.ops = nil, nil, nil
	s.bytes, s.onData, s.filters = 0, 0, 0
	return append(fx, Effect{Kind: EffectEnd})
}

// drop forgets all that belongs to the connection.
func (s *Session) drop() {
	for stream, l := range s.data {
		delete(s.data, stream)
		s.closeLane(l)
	}
	for s.main.qos0.n > 0 {
		e := s.main.qos0.pop()
		s.bytes -= e.cost()
	}
	s.main = lane{qos12: s.main.qos12}
	s.connack, s.bye, s.data, s.scratch, s.auth = nil, nil, nil, nil, nil
	s.aliases = aliasesOut{}
	s.answers, s.aliasIn, s.inbound, s.held, s.again, s.cut = 0, 0, 0, 0, 0, nil
	s.received.carry()
	s.moveToControl(func(mqtt.StreamID) bool { return true })
	s.out.compact()
	s.keepAlive = 0
}
