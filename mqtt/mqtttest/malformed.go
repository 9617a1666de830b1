package mqtttest

import (
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A badPacket is sent by a client that is connected with MQTT 5 and, if old is
// set, by one with 3.1.1.
type badPacket struct {
	name  string
	wire  []byte
	codes []packet.ReasonCode // any of them; the specification does not always name one
	old   []byte              // what is as wrong in 3.1.1; nil: nothing
}

var (
	malformed = []packet.ReasonCode{packet.MalformedPacket}
	protocol  = []packet.ReasonCode{packet.ProtocolError}
	either    = []packet.ReasonCode{packet.MalformedPacket, packet.ProtocolError}
	badTopic  = []packet.ReasonCode{packet.MalformedPacket, packet.ProtocolError, packet.TopicNameInvalid}
)

var badPackets = []badPacket{
	// Section 2.1: the fixed header.
	{"PacketTypeZero", []byte{0x00, 0x00}, either, []byte{0x00, 0x00}},
	{"ReservedFlagsOfSubscribe", frame(0x80, []byte{0, 1, 0}, str("t"), []byte{0}), malformed, frame(0x80, []byte{0, 1}, str("t"), []byte{0})}, // [MQTT-2.1.3-1], [MQTT-3.8.1-1]
	{"ReservedFlagsOfUnsubscribe", frame(0xA0, []byte{0, 1, 0}, str("t")), malformed, frame(0xA0, []byte{0, 1}, str("t"))},                     // [MQTT-3.10.1-1]
	{"ReservedFlagsOfPubrel", frame(0x60, []byte{0, 1}), malformed, frame(0x60, []byte{0, 1})},                                                 // [MQTT-3.6.1-1]
	{"ReservedFlagsOfPingreq", frame(0xC1), malformed, frame(0xC1)},                                                                            // [MQTT-2.1.3-1]
	{"ReservedFlagsOfDisconnect", frame(0xE2, []byte{0}), malformed, frame(0xE2)},                                                              // [MQTT-3.14.1-1]
	{"LengthOfFiveBytes", []byte{0xC0, 0x80, 0x80, 0x80, 0x80, 0x00}, malformed, []byte{0xC0, 0x80, 0x80, 0x80, 0x80, 0x00}},                   // Section 1.5.5
	{"LengthThatIsNotMinimal", []byte{0xC0, 0x80, 0x00}, malformed, nil},                                                                       // [MQTT-1.5.5-1]

	// Section 3.3: PUBLISH.
	{"PublishWithQoSThree", frame(0x36, str("t"), []byte{0, 1, 0}), malformed, frame(0x36, str("t"), []byte{0, 1})}, // [MQTT-3.3.1-4]
	{"PublishOfQoS0WithDup", frame(0x38, str("t"), []byte{0}), either, frame(0x38, str("t"))},                       // [MQTT-3.3.1-2]
	{"PublishWithIdentifierZero", frame(0x32, str("t"), []byte{0, 0, 0}), either, frame(0x32, str("t"), []byte{0, 0})},
	{"PublishToAWildcard", frame(0x30, str("a/#"), []byte{0}), badTopic, frame(0x30, str("a/+"))}, // [MQTT-3.3.2-2]
	{"PublishWithoutTopic", frame(0x30, str(""), []byte{0}), badTopic, frame(0x30, str(""))},      // [MQTT-4.7.3-1], Section 3.3.2.1
	{"PublishWithNulInTheTopic", frame(0x30, str("a\x00"), []byte{0}), malformed, frame(0x30, str("a\x00"))},
	{"PublishWithInvalidUTF8", frame(0x30, str("a\xff"), []byte{0}), malformed, frame(0x30, str("a\xff"))},                       // [MQTT-1.5.4-1]
	{"PublishWithASurrogate", frame(0x30, str("a\xed\xa0\x80"), []byte{0}), malformed, frame(0x30, str("a\xed\xa0\x80"))},        // [MQTT-1.5.4-1]
	{"PublishThatIsTruncated", frame(0x30, []byte{0, 9, 't'}), malformed, frame(0x30, []byte{0, 9, 't'})},                        // Section 4.13.1
	{"PublishWithPropertiesBeyondItsEnd", frame(0x30, str("t"), []byte{9, 1}), malformed, nil},                                   // Section 2.2.2.1
	{"PublishWithAnUnknownProperty", frame(0x30, str("t"), []byte{2, 0x7F, 1}), malformed, nil},                                  // Section 2.2.2.2
	{"PublishWithAPropertyOfAnotherPacket", frame(0x30, str("t"), []byte{5, 0x11, 0, 0, 0, 1}), either, nil},                     // Section 2.2.2.2
	{"PublishWithARepeatedProperty", frame(0x30, str("t"), []byte{4, 0x01, 0, 0x01, 0}), protocol, nil},                          // Section 3.3.2.3.2
	{"PublishWithAWildcardInTheResponseTopic", frame(0x30, str("t"), []byte{6, 0x08}, str("a/#")), badTopic, nil},                // [MQTT-3.3.2-14]
	{"PublishWithPayloadFormatTwo", frame(0x30, str("t"), []byte{2, 0x01, 2}), append(either, packet.PayloadFormatInvalid), nil}, // Section 3.3.2.3.2

	// Sections 3.8 and 3.10: SUBSCRIBE and UNSUBSCRIBE.
	{"SubscribeWithoutFilters", frame(0x82, []byte{0, 1, 0}), protocol, frame(0x82, []byte{0, 1})}, // [MQTT-3.8.3-2]
	{"SubscribeWithIdentifierZero", frame(0x82, []byte{0, 0, 0}, str("t"), []byte{0}), either, frame(0x82, []byte{0, 0}, str("t"), []byte{0})},
	{"SubscribeWithQoSThree", frame(0x82, []byte{0, 1, 0}, str("t"), []byte{3}), either, frame(0x82, []byte{0, 1}, str("t"), []byte{3})},
	{"SubscribeWithReservedOptions", frame(0x82, []byte{0, 1, 0}, str("t"), []byte{0x40}), malformed, frame(0x82, []byte{0, 1}, str("t"), []byte{0x04})}, // [MQTT-3.8.3-5]
	{"SubscribeWithRetainHandlingThree", frame(0x82, []byte{0, 1, 0}, str("t"), []byte{0x30}), either, nil},                                              // Section 3.8.3.1
	{"SubscribeWithIdentifierOfZero", frame(0x82, []byte{0, 1, 2, 0x0B, 0}, str("t"), []byte{0}), protocol, nil},                                         // Section 3.8.2.1.2
	{"SubscribeWithTwoIdentifiers", frame(0x82, []byte{0, 1, 4, 0x0B, 1, 0x0B, 2}, str("t"), []byte{0}), protocol, nil},                                  // Section 3.8.2.1.2
	{"SubscribeWithoutOptions", frame(0x82, []byte{0, 1, 0}, str("t")), malformed, frame(0x82, []byte{0, 1}, str("t"))},
	{"UnsubscribeWithoutFilters", frame(0xA2, []byte{0, 1, 0}), protocol, frame(0xA2, []byte{0, 1})}, // [MQTT-3.10.3-2]

	// What only a server sends.
	{"ConnackFromAClient", frame(0x20, []byte{0, 0, 0}), either, frame(0x20, []byte{0, 0})},
	{"SubackFromAClient", frame(0x90, []byte{0, 1, 0, 0}), either, frame(0x90, []byte{0, 1, 0})},
	{"UnsubackFromAClient", frame(0xB0, []byte{0, 1, 0, 0}), either, frame(0xB0, []byte{0, 1})},
	{"PingrespFromAClient", frame(0xD0), either, frame(0xD0)},

	// The others.
	{"PubackThatIsTruncated", frame(0x40, []byte{0}), malformed, frame(0x40, []byte{0})},
	{"PubackWithIdentifierZero", frame(0x40, []byte{0, 0}), either, frame(0x40, []byte{0, 0})},
	{"PubackWithAReasonItDoesNotHave", frame(0x40, []byte{0, 1, 0x8E}), either, nil},       // Section 3.4.2.1
	{"PingreqWithABody", frame(0xC0, []byte{0}), malformed, frame(0xC0, []byte{0})},        // Section 3.12
	{"DisconnectWithAnUnknownReason", frame(0xE0, []byte{0x7E, 0}), either, nil},           // [MQTT-3.14.2-1]
	{"AuthWithoutAMethod", frame(0xF0), protocol, frame(0xF0)},                             // [MQTT-4.12.0-1], [MQTT-4.12.0-6]
	{"AuthForReauthenticationWithoutAMethod", frame(0xF0, []byte{0x19, 0}), protocol, nil}, // [MQTT-4.12.1-1]
}

var malformedCases = makeMalformedCases()

// makeMalformedCases makes a case of each bad packet: it is answered with the
// code that the specification names and with the end of the connection, and two
// other clients go on.
func makeMalformedCases() []testCase {
	var cases []testCase
	for _, bad := range slices.Concat(badPackets, badStrings) {
		cases = append(cases, testCase{bad.name + "IsRefused", func(r *run) {
			r.proveBad(bad)
			sub, pub := r.client("sub"), r.client("pub")
			sub.subscribe("others", 1)
			wires := map[packet.Version][]byte{packet.V5: bad.wire, packet.V311: bad.old}
			for _, v := range []packet.Version{packet.V5, packet.V311} {
				if wires[v] == nil {
					continue
				}
				p := r.clientOf(v, "bad")
				p.sendRaw(wires[v])
				p.expectDisconnect(bad.codes...)
				p = r.clientOf(v, "bad") // in single bytes
				p.dribble(wires[v])
				p.expectDisconnect(bad.codes...)
				p = r.clientOf(v, "bad") // between others, in one piece
				p.sendRaw(slices.Concat([]byte{0xC0, 0}, wires[v], []byte{0xC0, 0}))
				expect[*packet.Pingresp](p)
				p.expectDisconnect(bad.codes...)
				pub.publish("others", "m", 1)
				sub.message("others", "m")
			}
			require.Zero(r, r.broker.Stats().Retained)
		}})
	}
	for _, kind := range badProperties {
		cases = append(cases, testCase{kind.name + "IsRefused", func(r *run) {
			other := r.client("other")
			for _, bad := range kind.wires {
				p := r.client("bad")
				p.sendRaw(bad.wire)
				p.expectDisconnect(bad.codes...)
			}
			other.ping()
		}})
	}
	return cases
}

var malformedStreamCases = makeMalformedStreamCases()

// makeMalformedStreamCases makes a case of each bad packet on a data stream: the
// stream ends, and neither the connection nor another stream of it does.
func makeMalformedStreamCases() []testCase {
	var kinds []badKind
	for _, bad := range slices.Concat(badPackets, badStrings) {
		kinds = append(kinds, badKind{bad.name, []badWire{{bad.wire, bad.codes}}})
	}
	var cases []testCase
	for _, kind := range append(kinds, badProperties...) {
		cases = append(cases, testCase{kind.name + "OnADataStreamEndsThatStream", func(r *run) {
			c, pub := r.client("c"), r.client("pub")
			other := c.openStream()
			other.nextID = 100
			other.subscribe("t", 1)
			for i, bad := range kind.wires {
				d := c.openStream()
				if i%2 == 0 {
					d.sendRaw(bad.wire)
				} else {
					d.dribble(bad.wire)
				}
				d.expectEnd()
			}
			c.ping()
			pub.publish("t", "m", 1)
			other.message("t", "m")
			require.Equal(r, []packet.ReasonCode{packet.Success}, c.unsubscribe("t"), "the connection lives")
		}})
	}
	return cases
}
