package mqtttest

import (
	"maps"
	"slices"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// propertyValues has a valid value for every property that there is (MQTT 5,
// Section 2.2.2.2).
var propertyValues = map[byte][]byte{
	0x01: {1}, 0x02: {0, 0, 0, 9}, 0x03: str("type"), 0x08: str("response"), 0x09: str("data"), 0x0B: {1},
	0x11: {0, 0, 0, 0}, 0x12: str("id"), 0x13: {0, 9}, 0x15: str("method"), 0x16: str("data"), 0x17: {1},
	0x18: {0, 0, 0, 9}, 0x19: {1}, 0x1A: str("info"), 0x1C: str("server"), 0x1F: str("reason"),
	0x21: {0, 9}, 0x22: {0, 9}, 0x23: {0, 1}, 0x24: {1}, 0x25: {1}, 0x26: slices.Concat(str("k"), str("v")),
	0x27: {0, 0, 9, 9}, 0x28: {1}, 0x29: {1}, 0x2A: {1},
}

const userProperty = 0x26 // may be repeated

// A withProperties is a packet of a client that has properties.
type withProperties struct {
	name       string
	first      byte
	head, tail []byte // before the length of the properties and after them
	allowed    []byte // properties that a client may send
	truncated  []int  // lengths of the body, below all of it, that are no truncation
}

var propertyPackets = []withProperties{
	{"Publish", 0x30, str("t"), nil, []byte{0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26}, nil},
	{"Puback", 0x40, []byte{0, 1, 0}, nil, []byte{0x1F, 0x26}, []int{2, 3}},
	{"Pubrec", 0x50, []byte{0, 1, 0}, nil, []byte{0x1F, 0x26}, []int{2, 3}},
	{"Pubrel", 0x62, []byte{0, 1, 0}, nil, []byte{0x1F, 0x26}, []int{2, 3}},
	{"Pubcomp", 0x70, []byte{0, 1, 0}, nil, []byte{0x1F, 0x26}, []int{2, 3}},
	{"Subscribe", 0x82, []byte{0, 1}, append(str("t"), 0), []byte{0x0B, 0x26}, nil},
	{"Unsubscribe", 0xA2, []byte{0, 1}, str("t"), []byte{0x26}, nil},
	{"Disconnect", 0xE0, []byte{0}, nil, []byte{0x11, 0x1C, 0x1F, 0x26}, []int{0, 1}},
}

// with returns the packet with these properties.
func (p *withProperties) with(ids ...byte) []byte {
	var props []byte
	for _, id := range ids {
		props = append(append(props, id), propertyValues[id]...)
	}
	return frame(p.first, p.head, []byte{byte(len(props))}, props, p.tail)
}

// A badWire is a packet that is wrong, and what it may be answered with.
type badWire struct {
	wire  []byte
	codes []packet.ReasonCode
}

// A badKind is a kind of mistake, which a packet can be made with in several ways.
type badKind struct {
	name  string
	wires []badWire
}

// badProperties are the mistakes that can be made with properties, made of the table
// in Section 2.2.2.2.
var badProperties = makeBadProperties()

func makeBadProperties() (kinds []badKind) {
	known := slices.Sorted(maps.Keys(propertyValues))
	for i := range propertyPackets {
		p := &propertyPackets[i]
		var foreign, repeated, unknown, cut, beyond []badWire
		for _, id := range known {
			switch {
			case !slices.Contains(p.allowed, id):
				if ack := packet.Type(p.first >> 4); ack >= packet.PUBACK && ack <= packet.PUBCOMP && id%4 != byte(ack)%4 {
					continue // the four of them are alike, and share the list
				}
				foreign = append(foreign, badWire{p.with(id), either})
			case id != userProperty:
				repeated = append(repeated, badWire{p.with(id, id), protocol})
			}
		}
		for _, id := range []byte{0x00, 0x04, 0x0A, 0x0C, 0x14, 0x1B, 0x20, 0x2B, 0x7F} {
			unknown = append(unknown, badWire{frame(p.first, p.head, []byte{2, id, 0}, p.tail), malformed})
		}
		unknown = append(unknown, badWire{frame(p.first, p.head, []byte{3, 0x81, 0x01, 0}, p.tail), malformed})
		whole := p.with(p.allowed...)
		body := whole[2:]
		for n := range body[:len(body)-len(p.tail)] {
			if !slices.Contains(p.truncated, n) {
				cut = append(cut, badWire{frame(p.first, body[:n]), either})
			}
		}
		for _, length := range [][]byte{{0x7F}, {0xFF, 0x7F}, {0xFF, 0xFF, 0xFF, 0x7F}, {0x80, 0x80, 0x80, 0x80, 0x01}, {0xFF}} {
			beyond = append(beyond, badWire{frame(p.first, p.head, length, p.tail), malformed})
		}
		kinds = append(kinds,
			badKind{p.name + "WithAPropertyThatIsNotItsOwn", foreign},
			badKind{p.name + "WithAPropertyThatThereIsNot", unknown},
			badKind{p.name + "WithPropertiesThatDoNotFit", beyond},
			badKind{p.name + "ThatIsCutAnywhere", cut})
		if len(repeated) > 0 {
			kinds = append(kinds, badKind{p.name + "WithAPropertyTwice", repeated})
		}
	}
	return kinds
}
