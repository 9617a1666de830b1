package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An authStep says whose turn it is in an authentication that the client began
// on a connection (MQTT 5, Section 4.12.1).
type authStep uint8

const (
	authIdle   authStep = iota
	authServer          // EffectAuth was given; Authenticated is to follow
	authClient          // AUTH 0x18 was sent
)

// An authState is how a client authenticated that has named a method in CONNECT.
type authState struct {
	method string
	step   authStep
}

// receiveAuth takes a step of a re-authentication. It is for clients whose
// CONNECT named a method, and with that method only: [MQTT-4.12.0-7],
// [MQTT-4.12.1-1]. Other packets may come between its steps.
func (s *Session) receiveAuth(fx []Effect, now time.Time, p *packet.Auth) []Effect {
	fail := func(reason string) []Effect {
		return s.fail(fx, now, mqtt.ControlStream, packet.ProtocolError, reason)
	}
	switch {
	case s.auth == nil:
		return fail("AUTH without an authentication method")
	case p.Properties == nil || p.Properties.AuthMethod != s.auth.method:
		return fail("AUTH: not the authentication method of CONNECT") // [MQTT-4.12.0-5]
	case p.Code == packet.ReAuthenticate && s.auth.step != authIdle:
		return fail("AUTH: re-authentication within another")
	case p.Code == packet.ContinueAuthentication && s.auth.step != authClient:
		return fail("AUTH: nothing to continue")
	case p.Code != packet.ReAuthenticate && p.Code != packet.ContinueAuthentication:
		return fail("AUTH: reason code that only servers send") // [MQTT-3.15.2-1]
	}
	s.auth.step = authServer
	return append(fx, Effect{Kind: EffectAuth, Auth: p})
}

// Authenticated says what became of an EffectAuth on the present connection.
// ContinueAuthentication asks the client for more [MQTT-4.12.0-2], Success ends
// the re-authentication; both send AUTH with data and the method of CONNECT
// [MQTT-4.12.0-5]. A failure closes the connection with its code
// [MQTT-4.12.1-2].
func (s *Session) Authenticated(fx []Effect, code packet.ReasonCode, data []byte, reason string) []Effect {
	if s.state != connected || s.auth == nil || s.auth.step != authServer {
		return fx
	}
	if code.Failed() {
		return s.close(fx, code, reason, mqtt.LinkNormal)
	}
	s.auth.step = authIdle
	if code == packet.ContinueAuthentication {
		s.auth.step = authClient
	}
	p := &packet.Auth{Code: code, Properties: &packet.Properties{AuthMethod: s.auth.method, AuthData: data}}
	if !s.fits(p) { // [MQTT-3.1.2-24]: without it the client cannot go on
		return s.close(fx, packet.PacketTooLarge, "AUTH is larger than the client's maximum packet size", mqtt.LinkNormal)
	}
	s.queuePacket(&s.main, p)
	return fx
}

// Revoke removes a subscription that the client is no longer allowed; the caller
// removes it from the tree. It reports false if there is none.
func (s *Session) Revoke(filter string) bool {
	if sub, ok := s.subs[filter]; !ok || !sub.granted {
		return false
	}
	s.giveUp(filter)
	if s.Durable() {
		s.journal.Unsubscribed(filter)
	}
	return true
}
