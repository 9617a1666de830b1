// Package packet encodes and decodes MQTT control packets of versions 3.1,
// 3.1.1 and 5.
//
// It does no I/O: [ParseHeader] finds where a packet ends in a buffer, [Decode]
// makes a [Packet] of it, and a packet's Append encodes it. Both directions
// validate by the same rules: what the specification calls malformed or a
// protocol error within one packet is an [*Error] with the reason code that the
// specification names, wrapped in a [*ConnectError] if the packet is a received
// CONNECT. What depends on more than one packet, or on who sent it, is left to
// others.
//
// # Memory
//
// Decoded byte slices (payloads, passwords, correlation and authentication data)
// alias the buffer that was decoded; strings are copies. Append copies. What
// Decode allocates is bounded by a small multiple of the packet's length. Packets
// hold no locks: any number of goroutines may encode one packet that nobody
// changes.
//
// # Versions
//
// The packets are those of MQTT 5. Earlier versions leave out what they have no
// place for, and the codes of CONNACK and SUBACK are translated. Where the
// versions differ in what they allow, each is held to its own text:
//
//   - MQTT 3.1 wants client identifiers of 1 to 23 characters, repeats PUBREL,
//     SUBSCRIBE and UNSUBSCRIBE with DUP, ignores the reserved connect flag, and
//     allows a user name and password to be missing despite their flags.
//   - MQTT 3.1 has no failure in a SUBACK; 0x80 is used there as in 3.1.1.
//   - Shared subscriptions are of MQTT 5. Before it "$share/..." has the syntax of
//     any other filter here.
//   - A topic filter that is not correctly formed makes its whole packet malformed,
//     in every version: reason code 0x8F is for those that are and are not allowed
//     (MQTT 5, Section 3.9.3), and MQTT 3.1.1 closes the connection ([MQTT-4.8.0-1]).
//   - The protocol levels 0x83 and 0x84, by which mosquitto's bridges ask for what
//     MQTT 5 calls No Local and Retain As Published, are versions 3.1 and 3.1.1 with
//     [Connect].Bridge set.
package packet

import "strconv"

// A Version is the protocol level of a CONNECT packet.
type Version uint8

// The versions that there are. Level 5 has the protocol name of level 4.
const (
	V31  Version = 3 // MQTT 3.1, protocol name "MQIsdp"
	V311 Version = 4 // MQTT 3.1.1
	V5   Version = 5 // MQTT 5.0
)

func (v Version) valid() bool { return v >= V31 && v <= V5 }

// String returns the version as it is usually written: "3.1.1".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "level " + strconv.Itoa(int(v))
}

// A Type is the type of a control packet (MQTT 5, Section 2.1.2).
type Type uint8

// The fifteen types. AUTH is of MQTT 5.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

var typeNames = [...]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// String returns the specification's name of t.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "type " + strconv.Itoa(int(t))
}

// A QoS is a quality of service level, 0 to 2.
type QoS uint8

// The levels, named for how often a message arrives (MQTT 5, Section 4.3).
const (
	AtMostOnce  QoS = 0
	AtLeastOnce QoS = 1
	ExactlyOnce QoS = 2
)

// A Packet is one of the fifteen pointers to a packet struct of this package.
type Packet interface {
	Type() Type

	// Append appends the encoded packet to dst and returns the extended
	// buffer. It fails, with dst unchanged, if the packet is not valid in
	// version v. Properties, reason strings and reason codes that v has no
	// place for are left out.
	Append(dst []byte, v Version) ([]byte, error)
}

// MaxRemainingLength is the largest remaining length that four bytes encode.
const MaxRemainingLength = 268_435_455

// An Opt is a value that may be absent.
type Opt[T any] struct {
	Value T
	Set   bool
}

// Some returns an Opt that is set.
func Some[T any](v T) Opt[T] { return Opt[T]{v, true} }

// Or returns the value, or absent if it is not set.
func (o Opt[T]) Or(absent T) T {
	if o.Set {
		return o.Value
	}
	return absent
}
