package packet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// section24 is the table of MQTT 5, Section 2.4.
const section24 = `
00 Success: CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH
01 Granted QoS 1: SUBACK
02 Granted QoS 2: SUBACK
04 Disconnect with Will Message: DISCONNECT
10 No matching subscribers: PUBACK PUBREC
11 No subscription existed: UNSUBACK
18 Continue authentication: AUTH
19 Re-authenticate: AUTH
80 Unspecified error: CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT
81 Malformed Packet: CONNACK DISCONNECT
82 Protocol Error: CONNACK DISCONNECT
83 Implementation specific error: CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT
84 Unsupported Protocol Version: CONNACK
85 Client Identifier not valid: CONNACK
86 Bad User Name or Password: CONNACK
87 Not authorized: CONNACK PUBACK PUBREC SUBACK UNSUBACK DISCONNECT
88 Server unavailable: CONNACK
89 Server busy: CONNACK DISCONNECT
8A Banned: CONNACK
8B Server shutting down: DISCONNECT
8C Bad authentication method: CONNACK DISCONNECT
8D Keep Alive timeout: DISCONNECT
8E Session taken over: DISCONNECT
8F Topic Filter invalid: SUBACK UNSUBACK DISCONNECT
90 Topic Name invalid: CONNACK PUBACK PUBREC DISCONNECT
91 Packet Identifier in use: PUBACK PUBREC SUBACK UNSUBACK
92 Packet Identifier not found: PUBREL PUBCOMP
93 Receive Maximum exceeded: DISCONNECT
94 Topic Alias invalid: DISCONNECT
95 Packet too large: CONNACK DISCONNECT
96 Message rate too high: DISCONNECT
97 Quota exceeded: CONNACK PUBACK PUBREC SUBACK DISCONNECT
98 Administrative action: DISCONNECT
99 Payload format invalid: CONNACK PUBACK PUBREC DISCONNECT
9A Retain not supported: CONNACK DISCONNECT
9B QoS not supported: CONNACK DISCONNECT
9C Use another server: CONNACK DISCONNECT
9D Server moved: CONNACK DISCONNECT
9E Shared Subscriptions not supported: SUBACK DISCONNECT
9F Connection rate exceeded: CONNACK DISCONNECT
A0 Maximum connect time: DISCONNECT
A1 Subscription Identifiers not supported: SUBACK DISCONNECT
A2 Wildcard Subscriptions not supported: SUBACK DISCONNECT
`

func TestReasonCodesAreAllowedWhereSection24HasThem(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-8 MQTT-3.4.2-1 MQTT-3.5.2-1 MQTT-3.6.2-1 MQTT-3.7.2-1 MQTT-3.9.3-2 MQTT-3.11.3-2 MQTT-3.14.2-1 MQTT-3.15.2-1")
	texts := map[ReasonCode]string{}
	allowed := map[ReasonCode]string{}
	for line := range strings.Lines(strings.TrimSpace(section24)) {
		left, right, _ := strings.Cut(strings.TrimSpace(line), ": ")
		code := ReasonCode(unhex(left[:2])[0])
		texts[code], allowed[code] = left[3:], " "+right+" "
	}
	require.Len(t, texts, 43)

	build := map[Type]func(ReasonCode) Packet{
		CONNACK:    func(c ReasonCode) Packet { return &Connack{Code: c} },
		PUBACK:     func(c ReasonCode) Packet { return &Puback{Ack{PacketID: 1, Code: c}} },
		PUBREC:     func(c ReasonCode) Packet { return &Pubrec{Ack{PacketID: 1, Code: c}} },
		PUBREL:     func(c ReasonCode) Packet { return &Pubrel{Ack{PacketID: 1, Code: c}} },
		PUBCOMP:    func(c ReasonCode) Packet { return &Pubcomp{Ack{PacketID: 1, Code: c}} },
		SUBACK:     func(c ReasonCode) Packet { return &Suback{PacketID: 1, Codes: []ReasonCode{c}} },
		UNSUBACK:   func(c ReasonCode) Packet { return &Unsuback{PacketID: 1, Codes: []ReasonCode{c}} },
		DISCONNECT: func(c ReasonCode) Packet { return &Disconnect{Code: c} },
		AUTH:       func(c ReasonCode) Packet { return &Auth{c, &Properties{AuthMethod: "m"}} },
	}
	for i := range 256 {
		c := ReasonCode(i)
		require.Equal(t, i >= 0x80, c.Failed())
		if text, ok := texts[c]; ok {
			require.Equal(t, text, c.String())
		} else {
			require.Contains(t, c.String(), "Reason Code 0x")
		}
		for typ, packet := range build {
			want := strings.Contains(allowed[c], " "+typ.String()+" ")
			require.Equal(t, want, c.AllowedIn(typ), "%v in %v", c, typ)
			p := packet(c)
			out, err := p.Append(nil, V5)
			if want {
				require.NoError(t, err, "%v in %v", c, typ)
				got, err := decode(out, V5)
				require.NoError(t, err)
				require.Equal(t, p, got)
			} else {
				require.Equal(t, ProtocolError, requireError(t, err, "%v in %v", c, typ).Code)
			}
		}
	}
}

func TestReasonCodesOfConnackAreTranslatedForVersionsBefore5(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.2.2-6")
	for c, want := range map[ReasonCode]byte{
		Success: 0, UnsupportedProtocolVersion: 1, ClientIDNotValid: 2, ServerUnavailable: 3, ServerBusy: 3,
		ServerMoved: 3, UseAnotherServer: 3, QuotaExceeded: 3, ConnectionRateExceeded: 3, UnspecifiedError: 3, ImplementationSpecificError: 3,
		BadUserNameOrPassword: 4, BadAuthenticationMethod: 4, NotAuthorized: 5, Banned: 5,
	} {
		for _, v := range []Version{V31, V311} {
			out, err := (&Connack{Code: c}).Append(nil, v)
			require.NoError(t, err)
			require.Equal(t, []byte{0x20, 2, 0, want}, out, "%v", c)
		}
	}
	// MQTT 3.1.1, [MQTT-3.2.2-6]: the connection is closed without a CONNACK.
	for _, c := range []ReasonCode{MalformedPacket, ProtocolError, PacketTooLarge, TopicNameInvalid, QoSNotSupported, RetainNotSupported, PayloadFormatInvalid} {
		_, err := (&Connack{Code: c}).Append(nil, V311)
		require.Equal(t, c, requireError(t, err, "").Code)
	}
	for code, want := range []ReasonCode{Success, UnsupportedProtocolVersion, ClientIDNotValid, ServerUnavailable, BadUserNameOrPassword, NotAuthorized} {
		p, err := decode([]byte{0x20, 2, 0, byte(code)}, V311)
		require.NoError(t, err)
		require.Equal(t, &Connack{Code: want}, p)
	}
}

func TestFailuresOfASubackAre0x80BeforeVersion5(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.9.3-2")
	out, err := (&Suback{PacketID: 1, Codes: []ReasonCode{GrantedQoS0, GrantedQoS1, GrantedQoS2, NotAuthorized, TopicFilterInvalid}}).Append(nil, V311)
	require.NoError(t, err)
	require.Equal(t, unhex("90 07 0001 00 01 02 80 80"), out)
}

func TestCodesAndPropertiesAreLeftOutBeforeVersion5(t *testing.T) {
	props := &Properties{ReasonString: "no"}
	for _, p := range []Packet{
		&Puback{Ack{1, NotAuthorized, props}}, &Pubrec{Ack{1, NotAuthorized, props}}, &Pubrel{Ack{1, PacketIDNotFound, props}},
		&Pubcomp{Ack{1, PacketIDNotFound, props}}, &Unsuback{1, []ReasonCode{NoSubscriptionExisted}, props}, &Unsuback{1, nil, props},
	} {
		out, err := p.Append(nil, V311)
		require.NoError(t, err)
		require.Equal(t, []byte{2, 0, 1}, out[1:])
	}
	out, err := (&Disconnect{ServerShuttingDown, props}).Append(nil, V311)
	require.NoError(t, err)
	require.Equal(t, []byte{0xE0, 0}, out)
	out, err = (&Subscribe{1, []Subscription{{Filter: "f", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}, nil}).Append(nil, V311)
	require.NoError(t, err)
	require.Equal(t, unhex("82 06 0001 0001'f' 01"), out)
}

func TestTypesAndVersionsHaveTheirNames(t *testing.T) {
	require.Equal(t, "PUBLISH", PUBLISH.String())
	require.Equal(t, "AUTH", AUTH.String())
	require.Equal(t, "reserved", Type(0).String())
	require.Equal(t, "type 16", Type(16).String())
	require.Equal(t, "3.1 3.1.1 5.0 level 6", strings.Join([]string{V31.String(), V311.String(), V5.String(), Version(6).String()}, " "))
}
