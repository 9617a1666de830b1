package session

import (
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An EffectKind names what the caller must do.
type EffectKind uint8

const (
	// EffectRoute: route Message to its subscribers and the retained store. If
	// PacketID is not 0, call [Session.Routed] exactly once with Stream,
	// PacketID and a reason code, even if the connection has ended meanwhile.
	EffectRoute EffectKind = iota + 1
	// EffectSubscribe: add the filters of Subscribe to the tree, call
	// [Session.Subscribed] exactly once, then deliver retained messages.
	EffectSubscribe
	// EffectUnsubscribe: remove the filters of Unsubscribe from the tree and
	// call [Session.Unsubscribed] exactly once.
	EffectUnsubscribe
	// EffectClose: write what Next still gives on the control stream, then end
	// the connection with Link and call [Session.Detach].
	EffectClose
	// EffectWill: publish Message, the client's will.
	EffectWill
	// EffectEnd: the session has ended; forget it and its subscriptions.
	EffectEnd
	// EffectReset: the client broke the protocol on data stream Stream. Nothing
	// more is taken or given on it. Reset it with Code, then call
	// [Session.StreamClosed]; the connection lives.
	EffectReset
	// EffectAuth: the client takes a step of a re-authentication with Auth. Call
	// [Session.Authenticated] when it is decided on; there is no other EffectAuth
	// before.
	EffectAuth
)

// An Effect is something that the caller of a [Session] must do. Which fields
// are set depends on Kind.
//
// Routed, Subscribed and Unsubscribed may be called at any later time and in any
// order, but for effects with equal Stream and PacketID, which different
// connections can give, in the order of the effects.
type Effect struct {
	Kind        EffectKind
	Stream      mqtt.StreamID
	PacketID    uint16
	Message     *Message
	Subscribe   *packet.Subscribe   // only the filters that the session admits
	Connection  uint32              // that Stream belongs to, of EffectSubscribe: see [Session.Connection]
	New         []bool              // of each of them: not subscribed to before (for Retain Handling 1, [MQTT-3.3.1-10])
	Unsubscribe *packet.Unsubscribe // as received
	Auth        *packet.Auth        // as received
	Code        packet.ReasonCode   // for the log and the metrics
	Reason      string              // likewise
	Link        mqtt.LinkCode
}
