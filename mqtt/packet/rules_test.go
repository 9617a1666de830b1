package packet_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// packetOf puts a fixed header before a body.
func packetOf(first byte, body []byte) []byte {
	out := []byte{first}
	n := len(body)
	for n >= 0x80 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(append(out, byte(n)), body...)
}

func TestPacketsThatBreakARuleAreRefused(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-3 MQTT-3.3.1-4 MQTT-3.3.2-14 MQTT-3.8.3-2 MQTT-3.8.3-4 MQTT-3.8.3-5 MQTT-3.10.3-2")
	t.Attr("mqtt3.1.1", "MQTT-2.3.1-1 MQTT-3.3.1-4 MQTT-3.8.3-3 MQTT-3.8.3-4 MQTT-3.10.3-2")
	const (
		c31  = "10: 0006'MQIsdp' 03"
		c311 = "10: 0004'MQTT' 04"
		c5   = "10: 0004'MQTT' 05"
	)
	all := []Version{V31, V311, V5}
	v4, v5 := []Version{V311}, []Version{V5}
	old, notOld := []Version{V31, V311}, []Version{V311, V5}

	// A colon in wire stands for the remaining length of what follows.
	for _, c := range []struct {
		name   string
		vs     []Version
		wire   string
		code   ReasonCode
		reason string
	}{
		// Strings, on the topic name of a PUBLISH.
		{"null character [MQTT-1.5.4-2]", all, "30: 0002'a'00 00", MalformedPacket, "topic name has a null character"},
		{"null character after other text", all, "30: 0004 C3A4 00'a' 00", MalformedPacket, "topic name has a null character"},
		{"surrogate [MQTT-1.5.4-1]", all, "30: 0003 EDA080 00", MalformedPacket, "topic name is not valid UTF-8"},
		{"overlong form", all, "30: 0002 C080 00", MalformedPacket, "topic name is not valid UTF-8"},
		{"beyond U+10FFFF", all, "30: 0004 F4908080 00", MalformedPacket, "topic name is not valid UTF-8"},
		{"lone continuation byte", all, "30: 0001 80 00", MalformedPacket, "topic name is not valid UTF-8"},
		{"cut character", all, "30: 0002 E282 00", MalformedPacket, "topic name is not valid UTF-8"},
		{"string longer than the packet", all, "30: 0005'abc' 00", MalformedPacket, "truncated topic name"},

		// PUBLISH.
		{"topic with + [MQTT-3.3.2-2]", all, "30: 0003'a/+' 00", MalformedPacket, "topic name has a wildcard"},
		{"topic with # [MQTT-3.3.2-2]", all, "30: 0001'#' 00", MalformedPacket, "topic name has a wildcard"},
		{"topic with # after a letter of two bytes", all, "30: 0003 C3A4'#' 00", MalformedPacket, "topic name has a wildcard"},
		{"no topic [MQTT-4.7.3-1]", old, "30: 0000", MalformedPacket, "topic name is empty"},
		{"no topic and no alias", v5, "30: 0000 00", ProtocolError, "topic name is empty and there is no topic alias"},
		{"no topic and other properties", v5, "30: 0000 02 01 01", ProtocolError, "topic name is empty and there is no topic alias"},
		{"packet identifier 0 [MQTT-2.2.1-3]", all, "32: 0001'a' 0000 00", ProtocolError, "PUBLISH: packet identifier is zero"},
		{"no packet identifier", all, "34: 0001'a' 00", MalformedPacket, "truncated packet identifier"},
		{"no property length", v5, "30: 0001'a'", MalformedPacket, "truncated property length"},
		{"properties beyond the packet", v5, "30: 0001'a' 05 01 01", MalformedPacket, "truncated properties"},
		{"property length not minimal [MQTT-1.5.5-1]", v5, "30: 0001'a' 8000", MalformedPacket, "property length is not encoded in as few bytes"},
		{"property length of five bytes", v5, "30: 0001'a' 8080808001", MalformedPacket, "property length is longer than four bytes"},
		{"topic alias 0 [MQTT-3.3.2-8]", v5, "30: 0001'a' 03 23 0000", TopicAliasInvalid, "topic alias is 0"},
		{"subscription identifier 0", v5, "30: 0001'a' 02 0B 00", ProtocolError, "subscription identifier is 0"},
		{"subscription identifier not minimal", v5, "30: 0001'a' 03 0B 8000", MalformedPacket, "subscription identifier is not encoded in as few bytes"},
		{"response topic with a wildcard [MQTT-3.3.2-14]", v5, "30: 0001'a' 06 08 0003'b/#'", MalformedPacket, "response topic has a wildcard"},
		{"empty response topic [MQTT-4.7.3-1]", v5, "30: 0001'a' 03 08 0000", MalformedPacket, "response topic is empty"},
		{"payload format 2", v5, "30: 0001'a' 02 01 02", ProtocolError, "payload format indicator is neither 0 nor 1"},
		{"unknown property", v5, "30: 0001'a' 02 04 00", MalformedPacket, "property identifier 0x04 is unknown"},
		{"unknown property beyond the table", v5, "30: 0001'a' 02 7F 00", MalformedPacket, "property identifier 0x7f is unknown"},
		{"property 0", v5, "30: 0001'a' 01 00", MalformedPacket, "is unknown"},
		{"property cut by the property length", v5, "30: 0001'a' 03 02 0000 0001", MalformedPacket, "truncated message expiry interval"},
		{"user property without a value", v5, "30: 0001'a' 04 26 0001'k'", MalformedPacket, "truncated user property value"},
		{"user property that is not UTF-8", v5, "30: 0001'a' 06 26 0001 FF 0000", MalformedPacket, "user property name is not valid UTF-8"},

		// CONNECT.
		{"nothing", all, "10:", MalformedPacket, "CONNECT: truncated protocol name"},
		{"no flags", all, c5, MalformedPacket, "truncated connect flags"},
		{"reserved flag [MQTT-3.1.2-3]", notOld, c5 + "03 0000 00 0000", MalformedPacket, "reserved connect flag"},
		{"reserved flag in 3.1.1", notOld, c311 + "03 0000 0001'c'", MalformedPacket, "reserved connect flag"},
		{"will QoS 3 [MQTT-3.1.2-12]", all, c5 + "1E 0000 00 0000 00 0001't' 0000", MalformedPacket, "will QoS is 3"},
		{"will QoS 3 in 3.1", all, c31 + "1E 0000 0001'c' 0001't' 0000", MalformedPacket, "will QoS is 3"},
		{"will QoS without a will [MQTT-3.1.2-11]", all, c5 + "0A 0000 00 0000", MalformedPacket, "will QoS without a will"},
		{"will retain without a will [MQTT-3.1.2-13]", all, c311 + "22 0000 0000", MalformedPacket, "will retain without a will"},
		{"password without a user name, 3.1.1 [MQTT-3.1.2-22]", all, c311 + "42 0000 0000 0000", MalformedPacket, "password without a user name"},
		{"password without a user name, 3.1", all, c31 + "42 0000 0001'c' 0000", MalformedPacket, "password without a user name"},
		{"user name missing", all, c5 + "82 0000 00 0000", MalformedPacket, "truncated user name"},
		{"password missing", all, c5 + "42 0000 00 0000", MalformedPacket, "truncated password"},
		{"user name missing in 3.1.1", all, c311 + "82 0000 0000", MalformedPacket, "truncated user name"},
		{"user name that is not UTF-8", all, c311 + "82 0000 0000 0001 FF", MalformedPacket, "user name is not valid UTF-8"},
		{"client identifier with a null character", all, c5 + "02 0000 00 0001 00", MalformedPacket, "client identifier has a null"},
		{"user name without its flag", all, c5 + "02 0000 00 0000 0001'u'", MalformedPacket, "3 bytes too many"},
		{"will topic with a wildcard", all, c5 + "06 0000 00 0000 00 0001'#' 0000", MalformedPacket, "will topic has a wildcard"},
		{"will topic empty", all, c311 + "06 0000 0000 0000 0000", MalformedPacket, "will topic is empty"},
		{"will payload missing", all, c5 + "06 0000 00 0000 00 0001't'", MalformedPacket, "truncated will payload"},
		{"will response topic with a wildcard", all, c5 + "06 0000 00 0000 04 08 0001'+' 0001't' 0000", MalformedPacket, "will: response topic has a wildcard"},
		{"will property in a CONNECT", all, c5 + "02 0000 05 18 00000000 0000", MalformedPacket, "CONNECT: will delay interval is not allowed"},
		{"CONNECT property in a will", all, c5 + "06 0000 00 0000 03 21 0001 0001't' 0000", MalformedPacket, "CONNECT: will: receive maximum is not allowed"},
		{"receive maximum 0", all, c5 + "02 0000 03 21 0000 0000", ProtocolError, "receive maximum is 0"},
		{"maximum packet size 0", all, c5 + "02 0000 05 27 00000000 0000", ProtocolError, "maximum packet size is 0"},
		{"request problem information 2", all, c5 + "02 0000 02 17 02 0000", ProtocolError, "request problem information is neither"},
		{"request response information 2", all, c5 + "02 0000 02 19 02 0000", ProtocolError, "request response information is neither"},
		{"authentication data without a method", all, c5 + "02 0000 03 16 0000 0000", ProtocolError, "authentication data without an authentication method"},
		{"client identifier of 3.1 empty", all, c31 + "02 0000 0000", ClientIDNotValid, "client identifier"},
		{"client identifier of 3.1 with 24 characters", all, c31 + "02 0000 0018'abcdefghijklmnopqrstuvwx'", ClientIDNotValid, "client identifier"},
		{"client identifier of 3.1.1 empty in a lasting session [MQTT-3.1.3-8]", all, c311 + "00 0000 0000", ClientIDNotValid, "client identifier is empty"},
		{"another protocol", all, "10: 0004'HTTP' 05 02 0000 00 0000", UnsupportedProtocolVersion, "protocol name"},
		{"a later version", all, "10: 0004'MQTT' 06 02 0000 00 0000", UnsupportedProtocolVersion, "protocol version"},
		{"an earlier version", all, "10: 0004'MQTT' 03 02 0000 0000", UnsupportedProtocolVersion, "protocol version"},
		{"the old name with the new level", all, "10: 0006'MQIsdp' 04 02 0000 0000", UnsupportedProtocolVersion, "protocol version"},
		{"a bridge of MQTT 5, which has no mark", all, "10: 0004'MQTT' 85 02 0000 00 0000", UnsupportedProtocolVersion, "protocol version"},

		// CONNACK.
		{"reserved acknowledge flags [MQTT-3.2.2-1]", v5, "20: 02 00 00", MalformedPacket, "reserved acknowledge flags"},
		{"reserved acknowledge flags", v4, "20: 80 00", MalformedPacket, "reserved acknowledge flags"},
		{"session present in a refusal [MQTT-3.2.2-6]", v5, "20: 01 87 00", ProtocolError, "session present in a refusal"},
		{"session present in a refusal", v4, "20: 01 05", ProtocolError, "session present in a refusal"},
		{"return code 6", old, "20: 00 06", MalformedPacket, "return code 6 is reserved"},
		{"reason code of others", v5, "20: 00 8E 00", ProtocolError, "CONNACK: reason code 0x8e is not allowed"},
		{"too long", old, "20: 00 00 00", MalformedPacket, "1 bytes too many"},
		{"too short", all, "20: 00", MalformedPacket, "truncated reason code"},
		{"maximum QoS 2", v5, "20: 00 00 02 24 02", ProtocolError, "maximum QoS is neither"},
		{"retain available 2", v5, "20: 00 00 02 25 02", ProtocolError, "retain available is neither"},
		{"wildcard subscription available 2", v5, "20: 00 00 02 28 02", ProtocolError, "wildcard subscription available is neither"},
		{"subscription identifiers available 2", v5, "20: 00 00 02 29 02", ProtocolError, "subscription identifiers available is neither"},
		{"shared subscription available 2", v5, "20: 00 00 02 2A 02", ProtocolError, "shared subscription available is neither"},
		{"receive maximum 0 from the server", v5, "20: 00 00 03 21 0000", ProtocolError, "receive maximum is 0"},
		{"maximum packet size 0 from the server", v5, "20: 00 00 05 27 00000000", ProtocolError, "maximum packet size is 0"},

		// Acknowledgements.
		{"PUBACK identifier 0", all, "40: 0000", ProtocolError, "PUBACK: packet identifier is zero"},
		{"PUBREC identifier 0", all, "50: 0000", ProtocolError, "PUBREC: packet identifier is zero"},
		{"PUBREL identifier 0", all, "62: 0000", ProtocolError, "PUBREL: packet identifier is zero"},
		{"PUBCOMP identifier 0", all, "70: 0000", ProtocolError, "PUBCOMP: packet identifier is zero"},
		{"PUBACK of one byte", all, "40: 00", MalformedPacket, "truncated packet identifier"},
		{"PUBACK with a reason code before MQTT 5", old, "40: 0001 00", MalformedPacket, "1 bytes too many"},
		{"PUBACK with a code of PUBREL", v5, "40: 0001 92", ProtocolError, "PUBACK: reason code 0x92 is not allowed"},
		{"PUBREL with a code of PUBACK", v5, "62: 0001 10", ProtocolError, "PUBREL: reason code 0x10 is not allowed"},
		{"bytes behind the properties", v5, "70: 0001 00 00 00", MalformedPacket, "1 bytes too many"},
		{"PUBREL with DUP", notOld, "6A: 0001", MalformedPacket, "PUBREL: fixed header flags are 0xa"},

		// SUBSCRIBE and UNSUBSCRIBE.
		{"SUBSCRIBE identifier 0", all, "82: 0000 00", ProtocolError, "SUBSCRIBE: packet identifier is zero"},
		{"no filter [MQTT-3.8.3-2]", v5, "82: 0001 00", ProtocolError, "SUBSCRIBE: no topic filter"},
		{"no filter in 3.x", old, "82: 0001", ProtocolError, "SUBSCRIBE: no topic filter"},
		{"DUP", notOld, "8A: 0001 00 0001'a' 00", MalformedPacket, "SUBSCRIBE: fixed header flags"},
		{"no options", v5, "82: 0001 00 0001'a'", MalformedPacket, "truncated subscription options"},
		{"reserved options [MQTT-3.8.3-5]", v5, "82: 0001 00 0001'a' 40", MalformedPacket, "reserved bits"},
		{"the other reserved option", v5, "82: 0001 00 0001'a' 80", MalformedPacket, "reserved bits"},
		{"options of MQTT 5 in 3.x", old, "82: 0001 0001'a' 04", MalformedPacket, "reserved bits"},
		{"QoS 3", v5, "82: 0001 00 0001'a' 03", ProtocolError, "maximum QoS is 3"},
		{"QoS 3 in 3.x", old, "82: 0001 0001'a' 03", ProtocolError, "maximum QoS is 3"},
		{"retain handling 3", v5, "82: 0001 00 0001'a' 30", ProtocolError, "retain handling is 3"},
		{"no local on a shared subscription [MQTT-3.8.3-4]", v5, "82: 0001 00 000A'$share/g/a' 04", ProtocolError, "no local on a shared subscription"},
		{"the second filter is wrong too", v5, "82: 0001 00 0001'a' 00 0002'b#' 00", MalformedPacket, "misplaced #"},
		{"two subscription identifiers", v5, "82: 0001 04 0B01 0B02 0001'a' 00", ProtocolError, "subscription identifier occurs more than once"},
		{"subscription identifier 0 in a SUBSCRIBE", v5, "82: 0001 02 0B00 0001'a' 00", ProtocolError, "subscription identifier is 0"},
		{"UNSUBSCRIBE identifier 0", all, "A2: 0000 00", ProtocolError, "UNSUBSCRIBE: packet identifier is zero"},
		{"UNSUBSCRIBE without a filter [MQTT-3.10.3-2]", v5, "A2: 0001 00", ProtocolError, "UNSUBSCRIBE: no topic filter"},
		{"UNSUBSCRIBE with DUP", notOld, "AA: 0001 00 0001'a'", MalformedPacket, "UNSUBSCRIBE: fixed header flags"},
		{"UNSUBSCRIBE of a wrong filter", v5, "A2: 0001 00 0002'+a'", MalformedPacket, "UNSUBSCRIBE: topic filter has a misplaced +"},

		// SUBACK and UNSUBACK.
		{"SUBACK without codes", v5, "90: 0001 00", MalformedPacket, "SUBACK: no reason code"},
		{"SUBACK without return codes", old, "90: 0001", MalformedPacket, "SUBACK: no reason code"},
		{"SUBACK with a code of UNSUBACK", v5, "90: 0001 00 11", ProtocolError, "reason code 0x11"},
		{"SUBACK with a code of MQTT 5 before it", old, "90: 0001 87", ProtocolError, "reason code 0x87"},
		{"UNSUBACK without codes", v5, "B0: 0001 00", MalformedPacket, "UNSUBACK: no reason code"},
		{"UNSUBACK with codes before MQTT 5", old, "B0: 0001 00", MalformedPacket, "1 bytes too many"},
		{"UNSUBACK with a code of SUBACK", v5, "B0: 0001 00 01", ProtocolError, "reason code 0x01"},
		{"SUBACK identifier 0", all, "90: 0000 00", ProtocolError, "packet identifier is zero"},
		{"UNSUBACK identifier 0", all, "B0: 0000", ProtocolError, "packet identifier is zero"},

		// The rest.
		{"PINGREQ with a body", all, "C0: 00", MalformedPacket, "PINGREQ: 1 bytes too many"},
		{"PINGRESP with a body", all, "D0: 00", MalformedPacket, "PINGRESP: 1 bytes too many"},
		{"DISCONNECT with a body before MQTT 5", old, "E0: 00", MalformedPacket, "DISCONNECT: 1 bytes too many"},
		{"DISCONNECT with a code of CONNACK", v5, "E0: 85", ProtocolError, "DISCONNECT: reason code 0x85"},
		{"bytes behind DISCONNECT", v5, "E0: 00 00 00", MalformedPacket, "1 bytes too many"},
		{"AUTH before MQTT 5", old, "F0:", MalformedPacket, "packet type is 15"},
		{"AUTH with another code", v5, "F0: 04", ProtocolError, "AUTH: reason code 0x04"},
		{"AUTH without a method", v5, "F0: 18 00", ProtocolError, "AUTH: no authentication method"},
		{"AUTH with only a code", v5, "F0: 19", ProtocolError, "AUTH: no authentication method"},
		{"AUTH with an empty method", v5, "F0: 00 06 15 0000 16 0000", ProtocolError, "authentication data without an authentication method"},
		{"QoS 3 of the message [MQTT-3.3.1-4]", all, "36: 0001'a' 0001 00", MalformedPacket, "PUBLISH: QoS is 3"},
		{"DUP with QoS 0 [MQTT-3.3.1-2]", all, "38: 0001'a' 00", MalformedPacket, "PUBLISH: DUP is set with QoS 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, body, _ := strings.Cut(c.wire, ":")
			wire := packetOf(unhex(first)[0], unhex(body))
			for _, v := range c.vs {
				p, err := decode(wire, v)
				require.Nil(t, p)
				e := requireError(t, err, "version %v", v)
				require.Equal(t, c.code, e.Code, e.Reason)
				require.Contains(t, e.Reason, c.reason)
				require.Equal(t, "mqtt: "+strings.ToLower(c.code.String())+": "+e.Reason, err.Error())
			}
		})
	}
}

func TestFiltersAreCheckedAsSection47Says(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.7.1-1 MQTT-4.7.1-2 MQTT-4.8.2-1 MQTT-4.8.2-2")
	t.Attr("mqtt3.1.1", "MQTT-4.7.1-2 MQTT-4.7.1-3")
	subscribe := func(f string, v Version) []byte {
		body := []byte{0, 1}
		if v == V5 {
			body = append(body, 0)
		}
		body = append(body, byte(len(f)>>8), byte(len(f)))
		return packetOf(0x82, append(append(body, f...), 0))
	}
	for _, f := range []string{
		"a", "/", "a/", "/a", "//", " ", "#", "a/#", "/#", "+", "+/+", "a/+/b", "/+", "+/", "+/#", "$SYS/#", "$", "$share",
		"$shared/+", "$share/g/#", "$share/g/+/a", "$share/g//", "$share/$/a", "a/$share/+", "\u00e4/\ufeff\u0001", "$Share/+/a",
	} {
		for _, v := range []Version{V31, V311, V5} {
			_, err := decode(subscribe(f, v), v)
			require.NoError(t, err, "%q in version %v", f, v)
		}
	}
	for _, f := range []string{"", "a#", "#/", "#/a", "a/#/b", "##", "a+", "+a", "a/+b", "a/b+/c", "++", "+#", "#+"} {
		for _, v := range []Version{V31, V311, V5} {
			_, err := decode(subscribe(f, v), v)
			require.Equal(t, MalformedPacket, requireError(t, err, "%q", f).Code)
			_, err = (&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: f}}}).Append(nil, v)
			requireError(t, err, "%q", f)
			_, err = (&Unsubscribe{PacketID: 1, Filters: []string{f}}).Append(nil, v)
			requireError(t, err, "%q", f)
		}
	}
	// [MQTT-4.8.2-1], [MQTT-4.8.2-2]. Before MQTT 5 there are no shared
	// subscriptions, and "$share" is a level as any other.
	for _, f := range []string{"$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#/a", "$share/a+b/c", "$share/#", "$share/g/a#", "$share/g/+a"} {
		_, err := decode(subscribe(f, V5), V5)
		require.Equal(t, MalformedPacket, requireError(t, err, "%q", f).Code)
	}
	for _, f := range []string{"$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#"} {
		_, err := decode(subscribe(f, V311), V311)
		require.NoError(t, err, "%q", f)
	}
}

func TestHeadersAreRefusedAsSoonAsTheirBytesAreThere(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.1.3-1 MQTT-3.6.1-1 MQTT-3.8.1-1 MQTT-3.10.1-1 MQTT-3.14.1-1 MQTT-3.15.1-1")
	t.Attr("mqtt3.1.1", "MQTT-2.2.2-1 MQTT-3.6.1-1 MQTT-3.8.1-1 MQTT-3.10.1-1")
	want := map[Type][]byte{ // MQTT 5, Table 2-2; DUP where MQTT 3.1 has it
		CONNECT: {0}, CONNACK: {0}, PUBLISH: {0, 1, 2, 3, 4, 5, 10, 11, 12, 13}, PUBACK: {0}, PUBREC: {0}, PUBREL: {2, 10},
		PUBCOMP: {0}, SUBSCRIBE: {2, 10}, SUBACK: {0}, UNSUBSCRIBE: {2, 10}, UNSUBACK: {0}, PINGREQ: {0}, PINGRESP: {0},
		DISCONNECT: {0}, AUTH: {0},
	}
	for first := range 256 {
		typ, flags := Type(first>>4), byte(first&15)
		_, n, err := ParseHeader([]byte{byte(first)})
		require.Zero(t, n)
		if bytes.IndexByte(want[typ], flags) >= 0 {
			require.NoError(t, err, "%#02x", first)
		} else {
			require.Equal(t, MalformedPacket, requireError(t, err, "%#02x", first).Code)
		}
	}
	for _, c := range []struct {
		wire   string
		n      int
		length int
		bad    string
	}{
		{"", 0, 0, ""},
		{"30", 0, 0, ""},
		{"30 80", 0, 0, ""},
		{"30 FFFFFF", 0, 0, ""},
		{"30 00", 2, 0, ""},
		{"30 7F", 2, 127, ""},
		{"30 8001", 3, 128, ""},
		{"30 FF7F", 3, 16_383, ""},
		{"30 808001", 4, 16_384, ""},
		{"30 FFFF7F", 4, 2_097_151, ""},
		{"30 80808001", 5, 2_097_152, ""},
		{"30 FFFFFF7F", 5, MaxRemainingLength, ""},
		{"30 8000", 0, 0, "remaining length is not encoded in as few bytes as possible"},
		{"30 FF8000", 0, 0, "remaining length is not encoded in as few bytes as possible"},
		{"30 80808000", 0, 0, "remaining length is not encoded in as few bytes as possible"},
		{"30 80808080", 0, 0, "remaining length is longer than four bytes"},
		{"30 FFFFFFFF7F", 0, 0, "remaining length is longer than four bytes"},
	} {
		h, n, err := ParseHeader(unhex(c.wire))
		if c.bad != "" {
			require.Contains(t, requireError(t, err, "%s", c.wire).Reason, c.bad)
			continue
		}
		require.NoError(t, err, c.wire)
		require.Equal(t, c.n, n, c.wire)
		require.Equal(t, c.length, h.Length, c.wire)
	}
}

func TestVersion31RepeatsWithDup(t *testing.T) {
	for first, body := range map[byte]string{0x6A: "0001", 0x8A: "0001 0001'a' 01", 0xAA: "0001 0001'a'"} {
		p, err := decode(packetOf(first, unhex(body)), V31)
		require.NoError(t, err)
		out, err := p.Append(nil, V31)
		require.NoError(t, err)
		require.Equal(t, first&^8, out[0])
	}
}

func TestDecodeRefusesAVersionThatThereIsNot(t *testing.T) {
	for _, v := range []Version{0, 2, 6} {
		for _, g := range golden {
			if g.want.Type() == CONNECT {
				continue
			}
			_, err := decode(unhex(g.wire), v)
			require.Contains(t, requireError(t, err, "%s", g.name).Reason, fmt.Sprintf("the protocol version is %d", v))
			_, err = g.want.Append(nil, v)
			requireError(t, err, "%s", g.name)
		}
	}
	_, err := (&Connect{}).Append(nil, 0)
	requireError(t, err, "CONNECT")
}
