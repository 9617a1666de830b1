package session

import (
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// Redirect is Disconnect for a client that is to go to another server: for now, with
// [packet.UseAnotherServer], or for good, with [packet.ServerMoved] (MQTT 5, Section
// 4.11). The reference is what the client is told of it; empty: nothing. Clients of
// 3.x only see the connection end.
func (s *Session) Redirect(fx []Effect, now time.Time, code packet.ReasonCode, reference string) []Effect {
	before := len(fx)
	fx = s.Disconnect(fx, now, code, "")
	if len(fx) > before && s.bye != nil && reference != "" {
		s.bye.Properties = &packet.Properties{ServerReference: reference}
	}
	return fx
}
