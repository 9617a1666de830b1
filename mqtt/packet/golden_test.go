package packet_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// unhex decodes hexadecimal digits; 'text' between quotes stands for itself.
func unhex(s string) []byte {
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			panic(err)
		}
		out = append(out, b...)
	}
	return out
}

// decode decodes a whole packet.
func decode(b []byte, v Version) (Packet, error) {
	h, n, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if n == 0 || len(b) != n+h.Length {
		return nil, errIncomplete
	}
	return Decode(h, b[n:], v)
}

var errIncomplete = errors.New("not one whole packet")

// golden are packets laid out by hand after the figures of the specifications.
var golden = []struct {
	name string
	v    Version
	wire string
	want Packet
}{
	// MQTT 3.1, Section 3.1, figure of the variable header.
	{"CONNECT 3.1 as the figure has it", V31, "10 26 0006'MQIsdp' 03 CE 000A 0003'cid' 0001't' 0002'hi' 0004'user' 0006'secret'",
		&Connect{Version: V31, ClientID: "cid", CleanStart: true, KeepAlive: 10, Username: Some("user"), Password: []byte("secret"),
			Will: &Will{Topic: "t", Payload: []byte("hi"), QoS: AtLeastOnce}}},
	// MQTT 3.1.1, Figure 3.6.
	{"CONNECT 3.1.1 as the figure has it", V311, "10 18 0004'MQTT' 04 CE 000A 0000 0001't' 0000 0001'u' 0002'pw'",
		&Connect{Version: V311, CleanStart: true, KeepAlive: 10, Username: Some("u"), Password: []byte("pw"),
			Will: &Will{Topic: "t", Payload: []byte{}, QoS: AtLeastOnce}}},
	// MQTT 5, Figure 3-6: flags 1100 1110, keep alive 10, session expiry interval 10.
	{"CONNECT 5 as the figure has it", V5, "10 27 0004'MQTT' 05 CE 000A 05 11 0000000A 0002'id' 05 18 00000005 0001't' 0001'm' 0001'u' 0002'pw'",
		&Connect{Version: V5, ClientID: "id", CleanStart: true, KeepAlive: 10, Username: Some("u"), Password: []byte("pw"),
			Will:       &Will{Topic: "t", Payload: []byte("m"), QoS: AtLeastOnce, Properties: &Properties{WillDelay: Some[uint32](5)}},
			Properties: &Properties{SessionExpiry: Some[uint32](10)}}},
	{"CONNECT 5, the smallest", V5, "10 0D 0004'MQTT' 05 00 0000 00 0000", &Connect{Version: V5}},
	{"CONNECT 5, a password without a user name", V5, "10 0F 0004'MQTT' 05 40 0000 00 0000 0000",
		&Connect{Version: V5, Password: []byte{}}},
	{"CONNACK 3.1", V31, "20 02 00 00", &Connack{}},
	{"CONNACK 3.1.1, session present", V311, "20 02 01 00", &Connack{SessionPresent: true}},
	{"CONNACK 3.1.1, unacceptable protocol version", V311, "20 02 00 01", &Connack{Code: UnsupportedProtocolVersion}},
	{"CONNACK 3.1.1, not authorized", V311, "20 02 00 05", &Connack{Code: NotAuthorized}},
	{"CONNACK 5, session present", V5, "20 03 01 00 00", &Connack{SessionPresent: true}},
	{"CONNACK 5, unsupported protocol version", V5, "20 03 00 84 00", &Connack{Code: UnsupportedProtocolVersion}},
	{"CONNACK 5 with properties", V5, "20 11 00 00 0E 12 0003'gen' 13 003C 21 0014 2A 00",
		&Connack{Properties: &Properties{AssignedClientID: "gen", ServerKeepAlive: Some[uint16](60), ReceiveMaximum: Some[uint16](20), SharedSubAvailable: Some[byte](0)}}},
	// MQTT 3.1.1, Figure 3.11: topic a/b, packet identifier 10.
	{"PUBLISH 3.1.1 as the figure has it", V311, "32 07 0003'a/b' 000A", &Publish{Topic: "a/b", PacketID: 10, QoS: AtLeastOnce, Payload: []byte{}}},
	{"PUBLISH 3.1, repeated and retained", V31, "3D 09 0003'a/b' 000A'hi'",
		&Publish{Topic: "a/b", PacketID: 10, QoS: ExactlyOnce, Dup: true, Retain: true, Payload: []byte("hi")}},
	// MQTT 5, Figure 3-9: topic a/b, packet identifier 10, no properties.
	{"PUBLISH 5 as the figure has it", V5, "32 08 0003'a/b' 000A 00", &Publish{Topic: "a/b", PacketID: 10, QoS: AtLeastOnce, Payload: []byte{}}},
	{"PUBLISH 5, QoS 0", V5, "30 08 0003'a/b' 00'hi'", &Publish{Topic: "a/b", Payload: []byte("hi")}},
	{"PUBLISH 5, the topic by alias", V5, "30 08 0000 03 23 0007'hi'",
		&Publish{Payload: []byte("hi"), Properties: &Properties{TopicAlias: Some[uint16](7)}}},
	{"PUBACK 3.1.1", V311, "40 02 000A", &Puback{Ack{PacketID: 10}}},
	{"PUBACK 5", V5, "40 02 000A", &Puback{Ack{PacketID: 10}}},
	{"PUBACK 5, without properties", V5, "40 03 000A 10", &Puback{Ack{PacketID: 10, Code: NoMatchingSubscribers}}},
	{"PUBACK 5, with a reason", V5, "40 09 000A 97 05 1F 0002'no'",
		&Puback{Ack{PacketID: 10, Code: QuotaExceeded, Properties: &Properties{ReasonString: "no"}}}},
	{"PUBREC 3.1", V31, "50 02 000A", &Pubrec{Ack{PacketID: 10}}},
	{"PUBREC 5", V5, "50 03 000A 91", &Pubrec{Ack{PacketID: 10, Code: PacketIDInUse}}},
	{"PUBREL 3.1.1", V311, "62 02 000A", &Pubrel{Ack{PacketID: 10}}},
	{"PUBREL 5", V5, "62 03 000A 92", &Pubrel{Ack{PacketID: 10, Code: PacketIDNotFound}}},
	{"PUBCOMP 3.1.1", V311, "70 02 000A", &Pubcomp{Ack{PacketID: 10}}},
	{"PUBCOMP 5, with a user property", V5, "70 0B 000A 00 07 26 0001'k' 0001'v'",
		&Pubcomp{Ack{PacketID: 10, Properties: &Properties{User: []UserProperty{{"k", "v"}}}}}},
	// MQTT 3.1.1, Figure 3.23.
	{"SUBSCRIBE 3.1.1 as the figure has it", V311, "82 0E 000A 0003'a/b' 01 0003'c/d' 02",
		&Subscribe{PacketID: 10, Subscriptions: []Subscription{{Filter: "a/b", QoS: AtLeastOnce}, {Filter: "c/d", QoS: ExactlyOnce}}}},
	// MQTT 5, Figures 3-19 and 3-21.
	{"SUBSCRIBE 5 as the figure has it", V5, "82 0F 000A 00 0003'a/b' 01 0003'c/d' 02",
		&Subscribe{PacketID: 10, Subscriptions: []Subscription{{Filter: "a/b", QoS: AtLeastOnce}, {Filter: "c/d", QoS: ExactlyOnce}}}},
	{"SUBSCRIBE 5 with everything", V5, "82 17 000A 03 0B 8001 0001'#' 2D 000A'$share/g/a' 00",
		&Subscribe{PacketID: 10, Properties: &Properties{SubscriptionIDs: []uint32{128}}, Subscriptions: []Subscription{
			{Filter: "#", QoS: AtLeastOnce, NoLocal: true, RetainAsPublished: true, RetainHandling: RetainDoNotSend},
			{Filter: "$share/g/a"}}}},
	// MQTT 3.1.1, Figure 3.26.
	{"SUBACK 3.1.1 as the figure has it", V311, "90 05 000A 00 02 80", &Suback{PacketID: 10, Codes: []ReasonCode{GrantedQoS0, GrantedQoS2, UnspecifiedError}}},
	{"SUBACK 5", V5, "90 06 000A 00 01 87 A2", &Suback{PacketID: 10, Codes: []ReasonCode{GrantedQoS1, NotAuthorized, WildcardSubscriptionsNotSupported}}},
	// MQTT 3.1.1, Figure 3.30.
	{"UNSUBSCRIBE 3.1.1 as the figure has it", V311, "A2 0C 000A 0003'a/b' 0003'c/d'", &Unsubscribe{PacketID: 10, Filters: []string{"a/b", "c/d"}}},
	{"UNSUBSCRIBE 5 as the figure has it", V5, "A2 0D 000A 00 0003'a/b' 0003'c/d'", &Unsubscribe{PacketID: 10, Filters: []string{"a/b", "c/d"}}},
	{"UNSUBACK 3.1.1", V311, "B0 02 000A", &Unsuback{PacketID: 10}},
	{"UNSUBACK 5", V5, "B0 05 000A 00 00 11", &Unsuback{PacketID: 10, Codes: []ReasonCode{Success, NoSubscriptionExisted}}},
	{"PINGREQ", V311, "C0 00", &Pingreq{}},
	{"PINGRESP", V5, "D0 00", &Pingresp{}},
	{"DISCONNECT 3.1.1", V311, "E0 00", &Disconnect{}},
	{"DISCONNECT 5", V5, "E0 00", &Disconnect{}},
	{"DISCONNECT 5, without properties", V5, "E0 01 04", &Disconnect{Code: DisconnectWithWill}},
	// MQTT 5, Figure 3-24: session expiry interval 0.
	{"DISCONNECT 5 as the figure has it", V5, "E0 07 00 05 11 00000000", &Disconnect{Properties: &Properties{SessionExpiry: Some[uint32](0)}}},
	{"AUTH, nothing but the header", V5, "F0 00", &Auth{}},
	{"AUTH", V5, "F0 0D 18 0B 15 0001'm' 16 0004 DEADBEEF",
		&Auth{Code: ContinueAuthentication, Properties: &Properties{AuthMethod: "m", AuthData: []byte{0xde, 0xad, 0xbe, 0xef}}}},
}

func TestGoldenPacketsDecodeAndEncode(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			wire := unhex(g.wire)
			got, err := decode(wire, g.v)
			require.NoError(t, err)
			require.Equal(t, g.want, got)
			require.Equal(t, g.want.Type(), got.Type())

			out, err := g.want.Append([]byte("before"), g.v)
			require.NoError(t, err)
			require.Equal(t, append([]byte("before"), wire...), out)

			if p, ok := g.want.(*Publish); ok {
				require.Equal(t, len(wire), p.Size(g.v))
			}
		})
	}
}

func TestEveryTruncationOfAPacketIsRefused(t *testing.T) {
	for _, g := range golden {
		wire := unhex(g.wire)
		h, n, err := ParseHeader(wire)
		require.NoError(t, err, g.name)
		for i := range n {
			_, got, err := ParseHeader(wire[:i])
			require.NoError(t, err, g.name)
			require.Zero(t, got, "%s: a header of %d bytes", g.name, i)
		}
		for i := range h.Length {
			// A body shorter than its header says.
			_, err := Decode(h, wire[n:n+i], g.v)
			requireError(t, err, "%s: a body of %d bytes", g.name, i)

			// A shorter packet. Some of them are packets too: a payload, a
			// filter list or what may be left out can be shorter.
			p, err := Decode(Header{h.Type, h.Flags, i}, wire[n:n+i], g.v)
			if err != nil {
				requireError(t, err, "%s cut to %d bytes", g.name, i)
				continue
			}
			_, err = p.Append(nil, g.v)
			require.NoError(t, err, "%s cut to %d bytes", g.name, i)
		}
	}
}

func TestEveryChangeOfOneByteIsDecodedOrRefused(t *testing.T) {
	for _, g := range golden {
		wire := unhex(g.wire)
		for i := range wire {
			for c := range 256 {
				changed := append([]byte(nil), wire...)
				changed[i] = byte(c)
				for _, v := range []Version{V31, V311, V5} {
					p, err := decode(changed, v)
					if err != nil {
						if !errors.Is(err, errIncomplete) {
							requireError(t, err, "%s, byte %d is %#x", g.name, i, c)
						}
						continue
					}
					_, err = p.Append(nil, v)
					require.NoError(t, err, "%s, byte %d is %#x, version %v", g.name, i, c, v)
				}
			}
		}
	}
}

// requireError checks that err is an Error with a code that can be sent and a
// reason.
func requireError(t *testing.T, err error, msg string, args ...any) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e, append([]any{msg}, args...)...)
	require.True(t, e.Code.Failed(), append([]any{msg}, args...)...)
	require.NotEmpty(t, e.Reason)
	return e
}
