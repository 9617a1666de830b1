package session

import (
	"math"
	"time"

	"github.com/anyquic/anyquic/mqtt/topic"
)

// Limits bound what one session may hold. Zero values are defaults.
type Limits struct {
	// QueueBytes bounds the messages that the session holds for its client,
	// those sent and not yet acknowledged included: 1 MiB. A message
	// costs its encoded size plus a fixed overhead. An empty queue takes any
	// one message, however large.
	QueueBytes int
	// ReceiveMaximum is how many QoS 1 and 2 messages the client may have in
	// flight to the server: 1024. It is announced to, and held against, MQTT 5
	// clients. Clients of 3.x cannot know it; for them [Session.Paused] pushes
	// back and the space of packet identifiers is the limit.
	ReceiveMaximum uint16
	// MaximumPacketSize in bytes is announced by the session and enforced by
	// its caller, who reads the packets: 1 MiB.
	MaximumPacketSize uint32
	// TopicAliasMaximum is the highest alias that the client may use: 64.
	TopicAliasMaximum uint16
	// MaxInflight caps the client's own Receive Maximum: 1024.
	MaxInflight uint16
	// KeepAliveMax caps the keep-alive of MQTT 5 clients, in seconds; 0: none.
	KeepAliveMax uint16
	// TopicLevels is how many levels a topic name or a filter may have: 128, see
	// [topic.MaxLevels]. More are refused with 0x90 or 0x8F.
	TopicLevels uint16
	// MaxSubscriptions is how many filters the session may subscribe to: 65536.
	MaxSubscriptions int
	// SubscriptionBytes bounds the topic filters of a session together, each of
	// which may have 65535 bytes: 4 MiB.
	SubscriptionBytes int
	// SessionExpiryMax caps the Session Expiry Interval and is the life of a
	// 3.x session without clean session: 24 hours; negative: no cap.
	SessionExpiryMax time.Duration
}

// never is the Session Expiry Interval of a session that does not expire
// (MQTT 5, Section 3.1.2.11.2).
const never = math.MaxUint32

// DefaultLimits returns the zero Limits with their defaults filled in.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	if l.QueueBytes <= 0 {
		l.QueueBytes = 1 << 20
	}
	if l.ReceiveMaximum == 0 {
		l.ReceiveMaximum = 1024
	}
	if l.MaximumPacketSize == 0 {
		l.MaximumPacketSize = 1 << 20
	}
	if l.TopicAliasMaximum == 0 {
		l.TopicAliasMaximum = 64
	}
	if l.MaxInflight == 0 {
		l.MaxInflight = 1024
	}
	if l.MaxSubscriptions <= 0 {
		l.MaxSubscriptions = 65536
	}
	if l.SubscriptionBytes <= 0 {
		l.SubscriptionBytes = 4 << 20
	}
	if l.TopicLevels == 0 {
		l.TopicLevels = topic.MaxLevels
	}
	if l.SessionExpiryMax == 0 {
		l.SessionExpiryMax = 24 * time.Hour
	}
	return l
}

// SetLimits changes the limits of a session without a connection. What it holds
// beyond them stays.
func (s *Session) SetLimits(l Limits) { s.limits = l.withDefaults() }

// capExpiry returns the session expiry in seconds that is granted for want.
func (l *Limits) capExpiry(want uint32) uint32 {
	if l.SessionExpiryMax < 0 {
		return want
	}
	most := l.SessionExpiryMax / time.Second
	if most >= never {
		return want
	}
	return min(want, uint32(most))
}
