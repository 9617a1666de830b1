package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Deadline returns when to call Tick, zero if there is no need. It moves with
// every packet that is received, always to a later time while connected; so a
// caller may ask again only when the time is up.
func (s *Session) Deadline() time.Time {
	switch s.state {
	case connected:
		if s.silent {
			return s.since
		}
		if s.keepAlive != 0 {
			return s.since.Add(s.patience())
		}
	case detached:
		if s.connection == 0 {
			return time.Time{} // new: not yet attached
		}
		first := s.expiry
		if s.will != nil {
			first = min(first, s.will.delay)
		}
		if first != never {
			return s.since.Add(time.Duration(first) * time.Second)
		}
	}
	return time.Time{}
}

// patience is one and a half times the keep-alive.
func (s *Session) patience() time.Duration {
	return time.Duration(s.keepAlive) * time.Second * 3 / 2
}

// Tick does what is due: it closes a silent connection, publishes a delayed will
// and ends an expired session.
func (s *Session) Tick(fx []Effect, now time.Time) []Effect {
	if s.state == detached && now.Before(s.since) {
		now = s.since // the caller looked at the clock before who called Leave
	}
	due := s.Deadline()
	if due.IsZero() || now.Before(due) {
		return fx
	}
	switch {
	case s.state == connected && s.silent: // [MQTT-3.1.2-24]
		return s.close(fx, packet.PacketTooLarge, "CONNACK is larger than the client's maximum packet size", mqtt.LinkControlDown)
	case s.state == connected: // [MQTT-3.1.2-22]
		return s.close(fx, packet.KeepAliveTimeout, "nothing received for 1.5 times the keep-alive", mqtt.LinkControlDown)
	}
	gone := now.Sub(s.since) // [MQTT-4.1.0-2]
	if s.expiry != never && gone >= time.Duration(s.expiry)*time.Second {
		return s.End(fx, now)
	}
	return s.publishWill(fx, now)
}

// Disconnect closes the connection because the server wants it: 0x8B when it
// shuts down, 0x8E on takeover, 0x98 by an administrator, 0x97 when a
// queue is full. What the specification says of the will applies at Detach.
func (s *Session) Disconnect(fx []Effect, now time.Time, code packet.ReasonCode, reason string) []Effect {
	if s.state != connected {
		return fx
	}
	return s.close(fx, code, reason, mqtt.LinkNormal)
}

// close queues DISCONNECT, which MQTT 5 alone has for servers, and asks for the
// end of the connection. Nothing more is received, and of what waits only
// answers are still sent, before DISCONNECT [MQTT-3.14.4-1].
func (s *Session) close(fx []Effect, code packet.ReasonCode, reason string, link mqtt.LinkCode) []Effect {
	s.state = closing
	if s.version >= packet.V5 {
		s.bye = &packet.Disconnect{Code: code}
		if reason != "" {
			s.bye.Properties = &packet.Properties{ReasonString: reason}
		}
	}
	return append(fx, Effect{Kind: EffectClose, Code: code, Reason: reason, Link: link})
}

// fail answers a packet that breaks the protocol [MQTT-4.13.1-1]: on the
// control stream the connection ends, on a data stream the stream.
func (s *Session) fail(fx []Effect, _ time.Time, stream mqtt.StreamID, code packet.ReasonCode, reason string) []Effect {
	if stream == mqtt.ControlStream {
		return s.close(fx, code, reason, mqtt.LinkControlDown)
	}
	s.openLane(stream).broken = true
	return append(fx, Effect{Kind: EffectReset, Stream: stream, Code: code, Reason: reason})
}
