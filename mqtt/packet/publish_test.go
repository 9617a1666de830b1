package packet_test

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

func TestPublishDecodeDoesNotAllocateForTheTopicThatItHas(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		raw, err := (&Publish{Topic: "sensors/k\u00fcche/temperature", Payload: make([]byte, 64), QoS: 1, PacketID: 7}).Append(nil, v)
		require.NoError(t, err)
		var p Publish
		decodeOnce := func() {
			h, n, err := ParseHeader(raw)
			if err == nil {
				err = p.Decode(h, raw[n:], v)
			}
			require.NoError(t, err)
		}
		decodeOnce()
		topic := unsafe.StringData(p.Topic)
		require.Zero(t, testing.AllocsPerRun(100, decodeOnce))
		require.Same(t, topic, unsafe.StringData(p.Topic))

		buf := raw[:0]
		require.Zero(t, testing.AllocsPerRun(100, func() { buf, _ = p.Append(buf[:0], v) }))
	}
}

func TestPublishDecodeLeavesNothingOfTheMessageBefore(t *testing.T) {
	p := Publish{
		Topic: "old", Payload: []byte("old"), PacketID: 9, QoS: 2, Retain: true, Dup: true,
		Properties: &Properties{ContentType: "old"},
	}
	h, n, err := ParseHeader(unhex("30 05 0001't' 00'x'"))
	require.NoError(t, err)
	require.NoError(t, p.Decode(h, unhex("30 05 0001't' 00'x'")[n:], V5))
	require.Equal(t, Publish{Topic: "t", Payload: []byte("x")}, p)

	require.Error(t, p.Decode(Header{Type: PUBACK, Length: 2}, []byte{0, 1}, V5))
}

func TestDecodedBytesAliasTheBufferAndStringsDoNot(t *testing.T) {
	raw := unhex("30 0D 0001't' 05 09 0002'cd' 'body'")
	p, err := decode(raw, V5)
	require.NoError(t, err)
	m := p.(*Publish)
	for i := range raw {
		raw[i] = '!'
	}
	require.Equal(t, "t", m.Topic)
	require.Equal(t, "!!!!", string(m.Payload))
	require.Equal(t, "!!", string(m.Properties.CorrelationData))
	require.Equal(t, len(m.Payload), cap(m.Payload), "appending to a payload must not write into the buffer")
	require.Equal(t, 2, cap(m.Properties.CorrelationData))
}

func TestAppendPublishPutsTheHeaderInPlaceOfTheMessagesOwn(t *testing.T) {
	shared := &Publish{
		Topic: "a/b", Payload: []byte("hi"), PacketID: 99, QoS: ExactlyOnce, Dup: true, Retain: true,
		Properties: &Properties{
			MessageExpiry: Some[uint32](60), ContentType: "ct", TopicAlias: Some[uint16](99),
			SubscriptionIDs: []uint32{99}, User: []UserProperty{{"k", "v"}, {"k", "w"}},
		},
	}
	before := *shared
	own := *before.Properties
	user := []UserProperty{{"k", "v"}, {"k", "w"}}
	for _, c := range []struct {
		name string
		v    Version
		h    PublishHeader
		want Publish
	}{
		{"nothing", V5, PublishHeader{}, Publish{Topic: "a/b", Properties: &Properties{MessageExpiry: Some[uint32](60), ContentType: "ct", User: user}}},
		{"everything", V5, PublishHeader{
			PacketID: 7, QoS: AtLeastOnce, Dup: true, Retain: true, SubscriptionIDs: []uint32{1, 300}, Alias: 5, OmitTopic: true, Expiry: Some[uint32](0),
		}, Publish{
			PacketID: 7, QoS: AtLeastOnce, Dup: true, Retain: true,
			Properties: &Properties{MessageExpiry: Some[uint32](0), ContentType: "ct", User: user, SubscriptionIDs: []uint32{1, 300}, TopicAlias: Some[uint16](5)},
		}},
		{"an alias with its topic", V5, PublishHeader{Alias: 5}, Publish{
			Topic: "a/b", Properties: &Properties{MessageExpiry: Some[uint32](60), ContentType: "ct", User: user, TopicAlias: Some[uint16](5)},
		}},
		{"before MQTT 5", V311, PublishHeader{PacketID: 7, QoS: ExactlyOnce, SubscriptionIDs: []uint32{1}, Alias: 5, Expiry: Some[uint32](1)},
			Publish{Topic: "a/b", PacketID: 7, QoS: ExactlyOnce}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Payload = []byte("hi")
			out, err := AppendPublish([]byte("x"), c.v, shared, c.h)
			require.NoError(t, err)
			require.Equal(t, len(out)-1, PublishSize(c.v, shared, c.h))
			got, err := decode(out[1:], c.v)
			require.NoError(t, err)
			require.Equal(t, &c.want, got)
			require.Equal(t, len(out)-1, got.(*Publish).Size(c.v))
		})
	}
	require.Equal(t, before, *shared)
	require.Equal(t, own, *shared.Properties)

	h := PublishHeader{PacketID: 7, QoS: 1, SubscriptionIDs: []uint32{1, 2}, Alias: 3, OmitTopic: true, Expiry: Some[uint32](59)}
	buf, err := AppendPublish(nil, V5, shared, h)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { buf, _ = AppendPublish(buf[:0], V5, shared, h) }))

	// A message without properties takes a header's.
	out, err := AppendPublish(nil, V5, &Publish{Topic: "t"}, PublishHeader{SubscriptionIDs: []uint32{1}})
	require.NoError(t, err)
	require.Equal(t, unhex("30 06 0001't' 02 0B01"), out)
}

func TestAppendRefusesWhatDecodeRefusesAndLeavesTheBufferAsItWas(t *testing.T) {
	long := strings.Repeat("x", 65536)
	id := Ack{}
	for _, c := range []struct {
		name   string
		v      Version
		p      Packet
		code   ReasonCode
		reason string
	}{
		{"QoS 3", V5, &Publish{Topic: "t", QoS: 3, PacketID: 1}, MalformedPacket, "QoS is 3"},
		{"DUP with QoS 0", V5, &Publish{Topic: "t", Dup: true}, MalformedPacket, "DUP"},
		{"identifier with QoS 0", V5, &Publish{Topic: "t", PacketID: 1}, ProtocolError, "packet identifier with QoS 0"},
		{"QoS 1 without an identifier", V5, &Publish{Topic: "t", QoS: 1}, ProtocolError, "packet identifier is zero"},
		{"no topic", V5, &Publish{}, ProtocolError, "no topic alias"},
		{"alias before MQTT 5", V311, &Publish{Properties: &Properties{TopicAlias: Some[uint16](1)}}, MalformedPacket, "topic name is empty"},
		{"alias 0", V5, &Publish{Topic: "t", Properties: &Properties{TopicAlias: Some[uint16](0)}}, TopicAliasInvalid, "topic alias is 0"},
		{"wildcard", V5, &Publish{Topic: "t/#"}, MalformedPacket, "wildcard"},
		{"topic that is not UTF-8", V5, &Publish{Topic: "\xff"}, MalformedPacket, "UTF-8"},
		{"long topic", V5, &Publish{Topic: long}, MalformedPacket, "longer than 65535"},
		{"subscription identifier 0", V5, &Publish{Topic: "t", Properties: &Properties{SubscriptionIDs: []uint32{0}}}, ProtocolError, "subscription identifier is 0"},
		{"large subscription identifier", V5, &Publish{Topic: "t", Properties: &Properties{SubscriptionIDs: []uint32{MaxRemainingLength + 1}}}, MalformedPacket, "subscription identifier is larger"},
		{"long content type", V5, &Publish{Topic: "t", Properties: &Properties{ContentType: long}}, MalformedPacket, "content type is longer"},
		{"content type that is not UTF-8", V5, &Publish{Topic: "t", Properties: &Properties{ContentType: "\xc0\x80"}}, MalformedPacket, "content type is not valid"},
		{"long correlation data", V5, &Publish{Topic: "t", Properties: &Properties{CorrelationData: []byte(long)}}, MalformedPacket, "correlation data is longer"},
		{"user property with a null character", V5, &Publish{Topic: "t", Properties: &Properties{User: []UserProperty{{"a", "b"}, {"c", "\x00"}}}}, MalformedPacket, "user property value has a null"},
		{"user property that is long", V5, &Publish{Topic: "t", Properties: &Properties{User: []UserProperty{{long, "b"}}}}, MalformedPacket, "user property name is longer"},
		{"response topic with a wildcard", V5, &Publish{Topic: "t", Properties: &Properties{ResponseTopic: "+"}}, MalformedPacket, "response topic has a wildcard"},
		{"payload format 2", V5, &Publish{Topic: "t", Properties: &Properties{PayloadFormat: Some[byte](2)}}, ProtocolError, "payload format"},
		{"large payload", V5, &Publish{Topic: "t", Payload: make([]byte, MaxRemainingLength)}, PacketTooLarge, "remaining length"},

		{"will QoS 3", V5, &Connect{Will: &Will{Topic: "t", QoS: 3}}, MalformedPacket, "will QoS is 3"},
		{"will QoS 4", V5, &Connect{Will: &Will{Topic: "t", QoS: 4}}, MalformedPacket, "will QoS is 4"},
		{"will topic empty", V5, &Connect{Will: &Will{}}, MalformedPacket, "will topic is empty"},
		{"long will topic", V5, &Connect{Will: &Will{Topic: long}}, MalformedPacket, "will topic is longer"},
		{"long will payload", V5, &Connect{Will: &Will{Topic: "t", Payload: []byte(long)}}, MalformedPacket, "will payload is longer"},
		{"long password", V5, &Connect{Password: []byte(long)}, MalformedPacket, "password is longer"},
		{"long user name", V5, &Connect{Username: Some(long)}, MalformedPacket, "user name is longer"},
		{"password without a user name", V311, &Connect{CleanStart: true, Password: []byte{}}, MalformedPacket, "password without"},
		{"receive maximum 0", V5, &Connect{Properties: &Properties{ReceiveMaximum: Some[uint16](0)}}, ProtocolError, "receive maximum"},
		{"authentication data alone", V5, &Connect{Properties: &Properties{AuthData: []byte{}}}, ProtocolError, "authentication data"},
		{"session present in a refusal", V5, &Connack{SessionPresent: true, Code: ServerBusy}, ProtocolError, "session present"},

		{"PUBACK 0", V5, &Puback{id}, ProtocolError, "PUBACK: packet identifier"},
		{"PUBREC 0", V5, &Pubrec{id}, ProtocolError, "PUBREC: packet identifier"},
		{"PUBREL 0", V311, &Pubrel{id}, ProtocolError, "PUBREL: packet identifier"},
		{"PUBCOMP 0", V31, &Pubcomp{id}, ProtocolError, "PUBCOMP: packet identifier"},
		{"long reason string", V5, &Puback{Ack{PacketID: 1, Properties: &Properties{ReasonString: long}}}, MalformedPacket, "reason string is longer"},

		{"SUBSCRIBE 0", V5, &Subscribe{Subscriptions: []Subscription{{Filter: "f"}}}, ProtocolError, "SUBSCRIBE: packet identifier"},
		{"no filter", V5, &Subscribe{PacketID: 1}, ProtocolError, "no topic filter"},
		{"QoS 3 of a filter", V311, &Subscribe{1, []Subscription{{Filter: "f", QoS: 3}}, nil}, ProtocolError, "maximum QoS is 3"},
		{"retain handling 3", V5, &Subscribe{1, []Subscription{{Filter: "f", RetainHandling: 3}}, nil}, ProtocolError, "retain handling is 3"},
		{"no local on a shared subscription", V5, &Subscribe{1, []Subscription{{Filter: "$share/g/f", NoLocal: true}}, nil}, ProtocolError, "no local"},
		{"two subscription identifiers", V5, &Subscribe{1, []Subscription{{Filter: "f"}}, &Properties{SubscriptionIDs: []uint32{1, 2}}}, ProtocolError, "more than once"},
		{"long filter", V5, &Subscribe{1, []Subscription{{Filter: long}}, nil}, MalformedPacket, "topic filter is longer"},
		{"filter with a null character", V5, &Unsubscribe{1, []string{"\x00"}, nil}, MalformedPacket, "topic filter has a null"},
		{"UNSUBSCRIBE 0", V5, &Unsubscribe{Filters: []string{"f"}}, ProtocolError, "UNSUBSCRIBE: packet identifier"},
		{"UNSUBSCRIBE of nothing", V5, &Unsubscribe{PacketID: 1}, ProtocolError, "no topic filter"},
		{"SUBACK 0", V5, &Suback{Codes: []ReasonCode{0}}, ProtocolError, "SUBACK: packet identifier"},
		{"SUBACK without codes", V5, &Suback{PacketID: 1}, MalformedPacket, "no reason code"},
		{"UNSUBACK without codes", V5, &Unsuback{PacketID: 1}, MalformedPacket, "no reason code"},
		{"UNSUBACK 0", V311, &Unsuback{}, ProtocolError, "UNSUBACK: packet identifier"},
		{"AUTH before MQTT 5", V311, &Auth{}, MalformedPacket, "reserved before MQTT 5"},
		{"AUTH without a method", V5, &Auth{Code: ReAuthenticate}, ProtocolError, "no authentication method"},
		{"AUTH with another property", V5, &Auth{Properties: &Properties{ReasonString: "r"}}, ProtocolError, "no authentication method"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := bytes.Repeat([]byte{'x'}, 8)
			out, err := c.p.Append(before[:4], c.v)
			e := requireError(t, err, "")
			require.Equal(t, c.code, e.Code)
			require.Contains(t, e.Reason, c.reason)
			require.Equal(t, "xxxx", string(out))
			require.Same(t, &before[0], &out[0])
		})
	}
	_, err := AppendPublish(nil, V5, &Publish{Topic: "t"}, PublishHeader{OmitTopic: true})
	require.Equal(t, ProtocolError, requireError(t, err, "").Code)
	_, err = AppendPublish(nil, V311, &Publish{Topic: "t"}, PublishHeader{OmitTopic: true, Alias: 1})
	require.Equal(t, MalformedPacket, requireError(t, err, "").Code)
}

func TestACheckedMessageIsEncodedAsAnyOther(t *testing.T) {
	p := &Publish{Topic: "a/b", Payload: []byte("x"), Properties: &Properties{ContentType: "t", ResponseTopic: "r"}}
	for _, v := range []Version{V31, V311, V5} {
		h := PublishHeader{QoS: 1, PacketID: 7, SubscriptionIDs: []uint32{1, 300}, Expiry: Some[uint32](5)}
		want, err := AppendPublish(nil, v, p, h)
		require.NoError(t, err)
		h.Checked = true
		got, err := AppendPublish(nil, v, p, h)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	// What differs between receivers is still checked.
	_, err := AppendPublish(nil, V5, p, PublishHeader{QoS: 1, Checked: true})
	requireError(t, err, "")
}
