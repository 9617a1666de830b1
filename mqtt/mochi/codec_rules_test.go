package mochi_test

import (
	"regexp"
	"slices"
	"sync"
)

// A rule is a difference between our codec and another one that is agreed on, because of
// what MQTT says. Statements without a version, and sections, are those of MQTT 5.
type rule struct {
	codec     string // empty: any
	what      string // a regular expression for what is said about it
	statement string
	example   string // a packet of MQTT 5 that shows it, in hexadecimal digits
}

func agreed(rules []rule, codec, what string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		return (r.codec == "" || r.codec == codec) && compiled(r.what).MatchString(what)
	})
}

var expressions sync.Map // *regexp.Regexp by its text

func compiled(text string) *regexp.Regexp {
	e, ok := expressions.Load(text)
	if !ok {
		e, _ = expressions.LoadOrStore(text, regexp.MustCompile(text))
	}
	return e.(*regexp.Regexp)
}

// strict are the packets that we refuse and others take, by what we say of them.
// That we refuse what we must is what the codec's own tests show.
var strict = []rule{
	{what: `has a null character$`, statement: "MQTT-1.5.4-2"},
	{what: `is not valid UTF-8$`, statement: "MQTT-1.5.4-1"},
	{what: `is not encoded in as few bytes as possible$`, statement: "MQTT-1.5.5-1"},
	{what: `is longer than four bytes$`, statement: "Section 1.5.5"},
	{what: `bytes too many$`, statement: "Sections 1.2 (malformed packet) and 2.1.4: the fields end where the remaining length does"},
	{what: `: truncated `, statement: "Sections 1.2 (malformed packet) and 2.1.4: the fields end where the remaining length does"},
	{what: `fixed header flags are `, statement: "MQTT-2.1.3-1"},
	{what: `packet type is 15, which is reserved before MQTT 5$`, statement: "MQTT 3.1.1, Section 2.2.1"},
	{what: `packet identifier is zero$`, statement: "MQTT-2.2.1-3 to MQTT-2.2.1-5"},
	{what: `is not allowed$`, statement: "Section 2.2.2.2; of reason codes MQTT-3.2.2-8, 3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1, 3.9.3-2, 3.11.3-2, 3.14.2-1, 3.15.2-1"},
	{what: `occurs more than once$`, statement: "a protocol error, by the property's section in 3.1.2.11 and its like"},
	{what: `is neither 0 nor 1$`, statement: "a protocol error, by the property's section in 3.1.2.11 and 3.2.2.3"},
	{what: `(maximum QoS|topic alias|subscription identifier|receive maximum|maximum packet size) (is )?\d+$`, statement: "MQTT-3.3.2-8; Sections 3.1.2.11.3, 3.1.2.11.4, 3.2.2.3.4, 3.8.2.1.2"},
	{what: `authentication method$`, statement: "Sections 3.1.2.11.10 and 3.15.2.2.2"},
	{what: `protocol name is neither`, statement: "MQTT-3.1.2-1"},
	{what: `protocol version is not supported$`, statement: "MQTT-3.1.2-2"},
	{what: `reserved connect flag is set$`, statement: "MQTT-3.1.2-3"},
	{what: `will (QoS|retain) without a will$`, statement: "MQTT-3.1.2-11, MQTT-3.1.2-13"},
	{what: `will QoS (is )?\d`, statement: "MQTT-3.1.2-12"},
	{what: `password without a user name$`, statement: "MQTT 3.1.1, MQTT-3.1.2-22"},
	{what: `reserved acknowledge flags are set$`, statement: "MQTT-3.2.2-1"},
	{what: `session present in a refusal$`, statement: "MQTT-3.2.2-6"},
	{what: `return code .*is reserved$`, statement: "MQTT 3.1.1, Sections 3.2.2.3 and 3.9.3 (MQTT-3.9.3-2)"},
	{what: `DUP is set with QoS 0$`, statement: "MQTT-3.3.1-2"},
	{what: `QoS is 3$`, statement: "MQTT-3.3.1-4"},
	{what: `(topic name|response topic) has a wildcard$`, statement: "MQTT-3.3.2-2, MQTT-3.3.2-14"},
	{what: `(topic name|topic filter|will topic|response topic) is empty`, statement: "MQTT-4.7.3-1, Section 3.3.2.1"},
	{what: `no topic filter$`, statement: "MQTT-3.8.3-2, MQTT-3.10.3-2"},
	{what: `no reason code$`, statement: "MQTT-3.8.4-6, MQTT-3.11.3-1"},
	{what: `reserved bits of the subscription options are set$`, statement: "MQTT-3.8.3-5"},
	{what: `retain handling (is )?3$`, statement: "Section 3.8.3.1"},
	{what: `no local on a shared subscription$`, statement: "MQTT-3.8.3-4"},
	{what: `topic filter has a misplaced [#+]$`, statement: "MQTT-4.7.1-1, MQTT-4.7.1-2"},
	{what: `topic filter has (a share name but no filter|an invalid share name)$`, statement: "MQTT-4.8.2-1, MQTT-4.8.2-2"},
}

// lenient are the packets that we take and others refuse, by type and what they
// say.
var lenient = []rule{
	{"mochi", `^AUTH: .*(reason code|EOF)`, "Section 3.15.2.1: reason code and properties may be left out", "F0 00"},
	{"mochi", `^CONNECT: .*password flag set but no value`, "Section 3.1.3.6: binary data, which may be empty (1.5.6)",
		"10 0F 0004 'MQTT' 05 42 0000 00 0000 0000"},
	{
		"mochi", `^CONNECT: .*(username flag set but no value|: (username|password)$)`, "MQTT 3.1, Section 3.1: user name and password may be missing in spite of their flags, for older clients",
		"10 0F 0006 'MQIsdp' 03 82 0000 0001 'c'",
	},
	{
		"mochi", `^CONNECT: .*reserved bit not 0`, "MQTT 3.1, Section 3.1: the bit is not used",
		"10 0F 0006 'MQIsdp' 03 03 0000 0001 'c'",
	},
	{
		"mochi", `^CONNECT: .*protocol version`, "not in a standard: bridges of MQTT 3.x set bit 7 of the protocol level, and servers that do not know that may refuse it [MQTT-3.1.2-2]",
		"10 0D 0004 'MQTT' 84 02 0000 0001 'c'",
	},
	{"mochi", `^CONNECT: .*will flag no payload`, "Section 3.1.3.4: binary data, which may be empty (1.5.6)",
		"10 13 0004 'MQTT' 05 06 0000 00 0000 00 0001 't' 0000"},
	{"mochi", `^PUBLISH: .*contained subscription identifier`, "Section 3.3.2.3.8: servers send it; only a client must not (MQTT-3.3.4-6), which is for the session to see",
		"30 06 0001 't' 02 0B 01"},
	{"paho", `^DISCONNECT: EOF`, "Section 3.14.2.2.1: below a remaining length of 2 there are no properties, and of 1 no reason code", "E0 00"},
}

// different are the packets that others understand in another way, by type.
var different = []rule{
	{"mochi", `^(PUBACK|PUBREC|PUBREL|PUBCOMP)$`, "Sections 3.4.2.2.1 and its like: with a remaining length of 3 there is a reason code and there are no properties", "40 03 000A 10"},
	{"mochi", `^DISCONNECT$`, "Section 3.14.2.2.1: with a remaining length of 1 there is a reason code", "E0 01 04"},
	{"mochi", `^PUBLISH$`, "Section 3.3.2.3.6: correlation data is binary data, which may be empty (1.5.6), and goes to the receiver unaltered (MQTT-3.3.2-16)",
		"30 07 0001 't' 03 09 0000"},
	{
		"paho", `^PUBLISH$`, "Section 3.3.2.3.8: there may be several subscription identifiers (MQTT-3.3.4-4)",
		"30 08 0001 't' 04 0B 01 0B 02",
	},
}
