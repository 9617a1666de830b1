package packet_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// A place is where a packet has properties: the packet around them.
type place struct {
	name   string
	first  byte
	before string
	after  string
	get    func(Packet) *Properties
}

var places = []place{
	{"CONNECT", 0x10, "0004'MQTT' 05 02 0000", "0000", func(p Packet) *Properties { return p.(*Connect).Properties }},
	{"will", 0x10, "0004'MQTT' 05 06 0000 00 0000", "0001't' 0000", func(p Packet) *Properties { return p.(*Connect).Will.Properties }},
	{"CONNACK", 0x20, "00 00", "", func(p Packet) *Properties { return p.(*Connack).Properties }},
	{"PUBLISH", 0x30, "0001't'", "'payload'", func(p Packet) *Properties { return p.(*Publish).Properties }},
	{"PUBACK", 0x40, "0001 00", "", func(p Packet) *Properties { return p.(*Puback).Properties }},
	{"PUBREC", 0x50, "0001 00", "", func(p Packet) *Properties { return p.(*Pubrec).Properties }},
	{"PUBREL", 0x62, "0001 00", "", func(p Packet) *Properties { return p.(*Pubrel).Properties }},
	{"PUBCOMP", 0x70, "0001 00", "", func(p Packet) *Properties { return p.(*Pubcomp).Properties }},
	{"SUBSCRIBE", 0x82, "0001", "0001'f' 00", func(p Packet) *Properties { return p.(*Subscribe).Properties }},
	{"SUBACK", 0x90, "0001", "00", func(p Packet) *Properties { return p.(*Suback).Properties }},
	{"UNSUBSCRIBE", 0xA2, "0001", "0001'f'", func(p Packet) *Properties { return p.(*Unsubscribe).Properties }},
	{"UNSUBACK", 0xB0, "0001", "00", func(p Packet) *Properties { return p.(*Unsuback).Properties }},
	{"DISCONNECT", 0xE0, "00", "", func(p Packet) *Properties { return p.(*Disconnect).Properties }},
	{"AUTH", 0xF0, "18", "", func(p Packet) *Properties { return p.(*Auth).Properties }},
}

func (pl place) packet(props []byte) []byte {
	body := unhex(pl.before)
	for n := len(props); ; n >>= 7 {
		if n < 0x80 {
			body = append(body, byte(n))
			break
		}
		body = append(body, byte(n)|0x80)
	}
	body = append(body, props...)
	return packetOf(pl.first, append(body, unhex(pl.after)...))
}

var (
	reasons    = []string{"CONNACK", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "AUTH"}
	everywhere = append([]string{"CONNECT", "will", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"}, reasons...)
)

// section2222 is the table of MQTT 5, Section 2.2.2.2, with a value for each
// property.
var section2222 = []struct {
	name   string
	wire   string
	in     []string
	repeat []string
	set    func(*Properties)
}{
	{"Payload Format Indicator", "01 01", []string{"PUBLISH", "will"}, nil, func(p *Properties) { p.PayloadFormat = Some[byte](1) }},
	{"Message Expiry Interval", "02 00000000", []string{"PUBLISH", "will"}, nil, func(p *Properties) { p.MessageExpiry = Some[uint32](0) }},
	{"Content Type", "03 0002'ct'", []string{"PUBLISH", "will"}, nil, func(p *Properties) { p.ContentType = "ct" }},
	{"Response Topic", "08 0001'r'", []string{"PUBLISH", "will"}, nil, func(p *Properties) { p.ResponseTopic = "r" }},
	{"Correlation Data", "09 0002 00FF", []string{"PUBLISH", "will"}, nil, func(p *Properties) { p.CorrelationData = []byte{0, 0xff} }},
	{"Subscription Identifier", "0B FFFFFF7F", []string{"PUBLISH", "SUBSCRIBE"}, []string{"PUBLISH"}, func(p *Properties) { p.SubscriptionIDs = append(p.SubscriptionIDs, 268_435_455) }},
	{"Session Expiry Interval", "11 FFFFFFFF", []string{"CONNECT", "CONNACK", "DISCONNECT"}, nil, func(p *Properties) { p.SessionExpiry = Some[uint32](0xffffffff) }},
	{"Assigned Client Identifier", "12 0002'id'", []string{"CONNACK"}, nil, func(p *Properties) { p.AssignedClientID = "id" }},
	{"Server Keep Alive", "13 0000", []string{"CONNACK"}, nil, func(p *Properties) { p.ServerKeepAlive = Some[uint16](0) }},
	{"Authentication Method", "15 0001'm'", []string{"CONNECT", "CONNACK", "AUTH"}, nil, func(p *Properties) { p.AuthMethod = "m" }},
	{"Authentication Data", "16 0000", []string{"CONNECT", "CONNACK", "AUTH"}, nil, func(p *Properties) { p.AuthData = []byte{} }},
	{"Request Problem Information", "17 00", []string{"CONNECT"}, nil, func(p *Properties) { p.RequestProblemInfo = Some[byte](0) }},
	{"Will Delay Interval", "18 00000001", []string{"will"}, nil, func(p *Properties) { p.WillDelay = Some[uint32](1) }},
	{"Request Response Information", "19 01", []string{"CONNECT"}, nil, func(p *Properties) { p.RequestResponseInfo = Some[byte](1) }},
	{"Response Information", "1A 0002'ri'", []string{"CONNACK"}, nil, func(p *Properties) { p.ResponseInfo = "ri" }},
	{"Server Reference", "1C 0002'sr'", []string{"CONNACK", "DISCONNECT"}, nil, func(p *Properties) { p.ServerReference = "sr" }},
	{"Reason String", "1F 0002'rs'", reasons, nil, func(p *Properties) { p.ReasonString = "rs" }},
	{"Receive Maximum", "21 0001", []string{"CONNECT", "CONNACK"}, nil, func(p *Properties) { p.ReceiveMaximum = Some[uint16](1) }},
	{"Topic Alias Maximum", "22 0000", []string{"CONNECT", "CONNACK"}, nil, func(p *Properties) { p.TopicAliasMaximum = Some[uint16](0) }},
	{"Topic Alias", "23 FFFF", []string{"PUBLISH"}, nil, func(p *Properties) { p.TopicAlias = Some[uint16](0xffff) }},
	{"Maximum QoS", "24 01", []string{"CONNACK"}, nil, func(p *Properties) { p.MaximumQoS = Some[byte](1) }},
	{"Retain Available", "25 00", []string{"CONNACK"}, nil, func(p *Properties) { p.RetainAvailable = Some[byte](0) }},
	{"User Property", "26 0001'k' 0000", everywhere, everywhere, func(p *Properties) { p.User = append(p.User, UserProperty{Key: "k"}) }},
	{"Maximum Packet Size", "27 00000001", []string{"CONNECT", "CONNACK"}, nil, func(p *Properties) { p.MaximumPacketSize = Some[uint32](1) }},
	{"Wildcard Subscription Available", "28 01", []string{"CONNACK"}, nil, func(p *Properties) { p.WildcardSubAvailable = Some[byte](1) }},
	{"Subscription Identifier Available", "29 01", []string{"CONNACK"}, nil, func(p *Properties) { p.SubIDsAvailable = Some[byte](1) }},
	{"Shared Subscription Available", "2A 01", []string{"CONNACK"}, nil, func(p *Properties) { p.SharedSubAvailable = Some[byte](1) }},
}

// needsMethod says whether an authentication method must come before a property.
func needsMethod(pl place, property string) bool {
	return property == "Authentication Data" || pl.name == "AUTH" && property != "Authentication Method"
}

func TestThereAre27Properties(t *testing.T) {
	require.Len(t, section2222, 27)
}

func TestEveryPropertyIsDecodedAndEncodedWhereItIsAllowedAndRefusedElsewhere(t *testing.T) {
	for _, pr := range section2222 {
		for _, pl := range places {
			t.Run(pr.name+" in "+pl.name, func(t *testing.T) {
				want := new(Properties)
				props := unhex(pr.wire)
				allowed := slices.Contains(pr.in, pl.name)
				if allowed && needsMethod(pl, pr.name) {
					want.AuthMethod = "m"
					props = append(unhex("15 0001'm'"), props...)
				}
				pr.set(want)
				wire := pl.packet(props)
				got, err := decode(wire, V5)
				if !allowed {
					// Section 2.2.2.2: an identifier not valid for its packet
					// type makes a Malformed Packet.
					e := requireError(t, err, "")
					require.Equal(t, MalformedPacket, e.Code)
					require.Contains(t, e.Reason, "is not allowed")
					return
				}
				require.NoError(t, err)
				require.Equal(t, want, pl.get(got))
				out, err := got.Append(nil, V5)
				require.NoError(t, err)
				require.ElementsMatch(t, wire, out, "the order of properties has no meaning")
				again, err := decode(out, V5)
				require.NoError(t, err)
				require.Equal(t, got, again)
			})
		}
	}
}

func TestAPropertyThatOccursTwiceIsAProtocolErrorUnlessItMayRepeat(t *testing.T) {
	for _, pr := range section2222 {
		for _, pl := range places {
			if !slices.Contains(pr.in, pl.name) {
				continue
			}
			t.Run(pr.name+" in "+pl.name, func(t *testing.T) {
				want := new(Properties)
				props := append(unhex(pr.wire), unhex(pr.wire)...)
				if needsMethod(pl, pr.name) {
					want.AuthMethod = "m"
					props = append(unhex("15 0001'm'"), props...)
				}
				got, err := decode(pl.packet(props), V5)
				if slices.Contains(pr.repeat, pl.name) {
					require.NoError(t, err)
					pr.set(want)
					pr.set(want)
					require.Equal(t, want, pl.get(got))
					return
				}
				e := requireError(t, err, "")
				require.Equal(t, ProtocolError, e.Code)
				require.Contains(t, e.Reason, "occurs more than once")
			})
		}
	}
}

func TestEveryCutOfAPropertyIsRefused(t *testing.T) {
	for _, pr := range section2222 {
		for _, pl := range places {
			if !slices.Contains(pr.in, pl.name) {
				continue
			}
			props := unhex(pr.wire)
			for i := 1; i < len(props); i++ {
				_, err := decode(pl.packet(props[:i]), V5)
				e := requireError(t, err, "%s in %s cut to %d bytes", pr.name, pl.name, i)
				require.Equal(t, MalformedPacket, e.Code)
			}
		}
	}
}

func TestAppendRefusesPropertiesThatAPacketDoesNotHave(t *testing.T) {
	build := map[string]func(*Properties) Packet{
		"CONNECT":     func(p *Properties) Packet { return &Connect{Properties: p} },
		"will":        func(p *Properties) Packet { return &Connect{Will: &Will{Topic: "t", Properties: p}} },
		"CONNACK":     func(p *Properties) Packet { return &Connack{Properties: p} },
		"PUBLISH":     func(p *Properties) Packet { return &Publish{Topic: "t", Properties: p} },
		"PUBACK":      func(p *Properties) Packet { return &Puback{Ack{PacketID: 1, Properties: p}} },
		"PUBREC":      func(p *Properties) Packet { return &Pubrec{Ack{PacketID: 1, Properties: p}} },
		"PUBREL":      func(p *Properties) Packet { return &Pubrel{Ack{PacketID: 1, Properties: p}} },
		"PUBCOMP":     func(p *Properties) Packet { return &Pubcomp{Ack{PacketID: 1, Properties: p}} },
		"SUBSCRIBE":   func(p *Properties) Packet { return &Subscribe{1, []Subscription{{Filter: "f"}}, p} },
		"SUBACK":      func(p *Properties) Packet { return &Suback{1, []ReasonCode{0}, p} },
		"UNSUBSCRIBE": func(p *Properties) Packet { return &Unsubscribe{1, []string{"f"}, p} },
		"UNSUBACK":    func(p *Properties) Packet { return &Unsuback{1, []ReasonCode{0}, p} },
		"DISCONNECT":  func(p *Properties) Packet { return &Disconnect{Properties: p} },
		"AUTH":        func(p *Properties) Packet { return &Auth{ContinueAuthentication, p} },
	}
	for _, pr := range section2222 {
		for _, pl := range places {
			props := new(Properties)
			pr.set(props)
			if needsMethod(pl, pr.name) && (slices.Contains(pr.in, pl.name) || pl.name == "AUTH") {
				props.AuthMethod = "m"
			}
			p := build[pl.name](props)
			out, err := p.Append([]byte("x"), V5)
			if slices.Contains(pr.in, pl.name) {
				require.NoError(t, err, "%s in %s", pr.name, pl.name)
			} else {
				requireError(t, err, "%s in %s", pr.name, pl.name)
				require.Equal(t, []byte("x"), out)
			}
			// Versions without properties leave them out.
			if c, ok := p.(*Connect); ok {
				c.ClientID = "c"
			}
			if pl.name == "AUTH" {
				continue
			}
			out, err = p.Append(nil, V31)
			require.NoError(t, err, "%s in %s", pr.name, pl.name)
			bare := build[pl.name](nil)
			if c, ok := bare.(*Connect); ok {
				c.ClientID = "c"
			}
			want, err := bare.Append(nil, V31)
			require.NoError(t, err)
			require.Equal(t, want, out)
		}
	}
}

func TestPropertiesThatArePresentButEmptyAreAsAbsent(t *testing.T) {
	p, err := decode(unhex("30 07 0001't' 03 03 0000"), V5)
	require.NoError(t, err)
	require.Nil(t, p.(*Publish).Properties)
	p, err = decode(unhex("30 07 0001't' 03 09 0000"), V5)
	require.NoError(t, err)
	require.Equal(t, &Properties{CorrelationData: []byte{}}, p.(*Publish).Properties)
}
