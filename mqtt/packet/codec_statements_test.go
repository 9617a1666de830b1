package packet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

// What both sides send and receive passes through this package, so that it proves
// for both what it neither encodes nor decodes.

func TestStringsArePassedOnAsTheyAreOrRefused(t *testing.T) {
	t.Attr("mqtt5", "MQTT-1.5.4-1 MQTT-1.5.4-2 MQTT-1.5.4-3 MQTT-1.5.7-1 MQTT-3.1.3-4 MQTT-3.1.3-11 MQTT-3.1.3-12 MQTT-3.3.2-1 MQTT-3.3.2-13 MQTT-3.3.2-19 MQTT-3.8.3-1 MQTT-3.10.3-1 MQTT-4.7.3-2")
	t.Attr("mqtt3.1.1", "MQTT-1.5.3-1 MQTT-1.5.3-2 MQTT-1.5.3-3 MQTT-3.1.3-4 MQTT-3.1.3-10 MQTT-3.1.3-11 MQTT-3.3.2-1 MQTT-3.8.3-1 MQTT-3.10.3-1 MQTT-4.7.3-2")
	const placeholder = "STRINGHERE" // as long as every string below
	old := map[string]func(string) Packet{
		"client identifier": func(s string) Packet { return &Connect{ClientID: s, CleanStart: true} },
		"will topic":        func(s string) Packet { return &Connect{CleanStart: true, Will: &Will{Topic: s, Payload: []byte{}}} },
		"user name":         func(s string) Packet { return &Connect{CleanStart: true, Username: Some(s)} },
		"topic name":        func(s string) Packet { return &Publish{Topic: s, Payload: []byte{}} },
		"topic filter":      func(s string) Packet { return &Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: s}}} },
		"filter to remove":  func(s string) Packet { return &Unsubscribe{PacketID: 1, Filters: []string{s}} },
	}
	five := map[string]func(string) Packet{
		"response topic": func(s string) Packet {
			return &Publish{Topic: "t", Payload: []byte{}, Properties: &Properties{ResponseTopic: s}}
		},
		"content type": func(s string) Packet {
			return &Publish{Topic: "t", Payload: []byte{}, Properties: &Properties{ContentType: s}}
		},
		"name": func(s string) Packet {
			return &Publish{Topic: "t", Payload: []byte{}, Properties: &Properties{User: []UserProperty{{Key: s, Value: "v"}}}}
		},
		"value": func(s string) Packet {
			return &Publish{Topic: "t", Payload: []byte{}, Properties: &Properties{User: []UserProperty{{Key: "k", Value: s}}}}
		},
		"reason string": func(s string) Packet { return &Disconnect{Properties: &Properties{ReasonString: s}} },
	}
	check := func(name string, v Version, build func(string) Packet) {
		wire, err := build(placeholder).Append(nil, v)
		require.NoError(t, err, name)
		with := func(s string) []byte {
			require.Len(t, s, len(placeholder))
			return []byte(strings.Replace(string(wire), placeholder, s, 1))
		}
		for _, good := range []string{"\ufeff1234567", "123\ufeff4567", "1234567\ufeff", "\u00e9\u4e16\U0001F6001", "\uffff1234567", "\u00011234567\u007f\u0001"[:10]} {
			p, err := decode(with(good), v)
			require.NoError(t, err, "%s %q", name, good)
			again, err := p.Append(nil, v)
			require.NoError(t, err)
			require.Equal(t, with(good), again, "not a byte is lost")
			p = build(good)
			again, err = p.Append(nil, v)
			require.NoError(t, err)
			require.Equal(t, with(good), again)
		}
		for _, bad := range []string{"1234567\xed\xa0\x80", "1234567\xed\xbf\xbf", "123456789\xff", "12345678\xc0\xaf", "\xc3123456789", "123456\xf4\x90\x80\x80", "\x00123456789", "12345\x006789"} {
			_, err := decode(with(bad), v)
			require.Equal(t, MalformedPacket, requireError(t, err, "%s %q", name, bad).Code)
			_, err = build(bad).Append(nil, v)
			requireError(t, err, "%s %q", name, bad)
		}
	}
	for name, build := range old {
		check(name, V311, build)
		check(name, V5, build)
	}
	for name, build := range five {
		check(name, V5, build)
	}
}

func TestVariableByteIntegersAreAsShortAsTheyCanBe(t *testing.T) {
	t.Attr("mqtt5", "MQTT-1.5.5-1")
	for _, c := range []struct {
		value uint32
		wire  string
	}{
		{1, "01"}, {127, "7F"}, {128, "8001"}, {16_383, "FF7F"}, {16_384, "808001"}, {2_097_151, "FFFF7F"}, {2_097_152, "80808001"}, {MaxRemainingLength, "FFFFFF7F"},
	} {
		integer := unhex(c.wire)
		out, err := (&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: "f"}}, Properties: &Properties{SubscriptionIDs: []uint32{c.value}}}).Append(nil, V5)
		require.NoError(t, err)
		want := append([]byte{0, 1, byte(1 + len(integer)), 0x0B}, integer...)
		require.Equal(t, packetOf(0x82, append(want, 0, 1, 'f', 0)), out)
	}
	// As a remaining length: topic, property length, payload.
	for n, header := range map[int]int{127: 2, 128: 3, 16_383: 3, 16_384: 4, 2_097_151: 4, 2_097_152: 5} {
		out, err := (&Publish{Topic: "t", Payload: make([]byte, n-4)}).Append(nil, V5)
		require.NoError(t, err)
		require.Len(t, out, n+header)
		h, size, err := ParseHeader(out)
		require.NoError(t, err)
		require.Equal(t, header, size)
		require.Equal(t, n, h.Length)
	}
	for _, longer := range []string{"C0 8000", "C0 808000", "C0 80808000"} {
		_, _, err := ParseHeader(unhex(longer))
		require.Equal(t, MalformedPacket, requireError(t, err, longer).Code)
	}
}

func TestAPublishOfQoS0HasNoIdentifier(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.2.1-2 MQTT-3.3.1-2 MQTT-4.3.1-1")
	t.Attr("mqtt3.1.1", "MQTT-2.3.1-5 MQTT-3.3.1-2 MQTT-4.3.1-1")
	for v, want := range map[Version]string{V311: "30 04 0001't' 6D", V5: "30 05 0001't' 00 6D"} {
		out, err := (&Publish{Topic: "t", Payload: []byte("m")}).Append(nil, v)
		require.NoError(t, err)
		require.Equal(t, unhex(want), out)
		_, err = (&Publish{Topic: "t", PacketID: 1}).Append(nil, v)
		requireError(t, err, "identifier")
		_, err = (&Publish{Topic: "t", Dup: true}).Append(nil, v)
		requireError(t, err, "DUP")
		out, err = AppendPublish(nil, v, &Publish{Topic: "t", PacketID: 9, QoS: 1, Dup: true, Payload: []byte("m")}, PublishHeader{})
		require.NoError(t, err)
		require.Equal(t, byte(0x30), out[0], "what was received says nothing of what is sent")
	}
}

func TestNoPropertiesAreALengthOfZero(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.2.2-1")
	ack := Ack{PacketID: 1, Code: UnspecifiedError}
	for _, props := range []*Properties{nil, {}} {
		ack.Properties = props
		for _, c := range []struct {
			p    Packet
			wire string
		}{
			{&Connect{ClientID: "c", Properties: props}, "10 0E 0004'MQTT' 05 00 0000 00 0001'c'"},
			{&Connect{ClientID: "c", Will: &Will{Topic: "t", Properties: props}, Properties: props}, "10 14 0004'MQTT' 05 04 0000 00 0001'c' 00 0001't' 0000"},
			{&Connack{Properties: props}, "20 03 00 00 00"},
			{&Publish{Topic: "t", Properties: props}, "30 04 0001't' 00"},
			{&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: "f"}}, Properties: props}, "82 07 0001 00 0001'f' 00"},
			{&Suback{PacketID: 1, Codes: []ReasonCode{0}, Properties: props}, "90 04 0001 00 00"},
			{&Unsubscribe{PacketID: 1, Filters: []string{"f"}, Properties: props}, "A2 06 0001 00 0001'f'"},
			{&Unsuback{PacketID: 1, Codes: []ReasonCode{0}, Properties: props}, "B0 04 0001 00 00"},
		} {
			out, err := c.p.Append(nil, V5)
			require.NoError(t, err)
			require.Equal(t, unhex(c.wire), out, "%T", c.p)
		}
		// Those that may end before their properties, as their sections say.
		for _, p := range []Packet{&Puback{ack}, &Pubrec{ack}, &Disconnect{UnspecifiedError, props}} {
			out, err := p.Append(nil, V5)
			require.NoError(t, err)
			got, err := decode(out, V5)
			require.NoError(t, err)
			again, err := got.Append(nil, V5)
			require.NoError(t, err)
			require.Equal(t, out, again)
		}
	}
}

func TestFlagsOfConnectSayWhatFollows(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-9 MQTT-3.1.2-11 MQTT-3.1.2-12 MQTT-3.1.2-13 MQTT-3.1.2-16 MQTT-3.1.2-17 MQTT-3.1.2-18 MQTT-3.1.2-19 MQTT-3.1.3-1 MQTT-3.1.3-3")
	t.Attr("mqtt3.1.1", "MQTT-3.1.2-9 MQTT-3.1.2-11 MQTT-3.1.2-13 MQTT-3.1.2-14 MQTT-3.1.2-15 MQTT-3.1.2-18 MQTT-3.1.2-19 MQTT-3.1.2-20 MQTT-3.1.2-21 MQTT-3.1.2-22 MQTT-3.1.3-1 MQTT-3.1.3-3")
	for _, v := range []Version{V311, V5} {
		for set := range 8 {
			c := &Connect{Version: v, ClientID: "c", CleanStart: true}
			wantFlags, properties := byte(2), ""
			if v == V5 {
				properties = "\x00"
			}
			tail := "\x00\x01c"
			if set&1 != 0 {
				c.Will = &Will{Topic: "wt", Payload: []byte("wp"), QoS: 2, Retain: true}
				wantFlags |= 0x04 | 0x10 | 0x20
				tail += properties + "\x00\x02wt\x00\x02wp"
			}
			if set&2 != 0 {
				c.Username = Some("u")
				wantFlags |= 0x80
				tail += "\x00\x01u"
			}
			if set&4 != 0 {
				c.Password = []byte("p")
				wantFlags |= 0x40
				tail += "\x00\x01p"
			}
			out, err := c.Append(nil, v)
			if v == V311 && set&6 == 4 {
				requireError(t, err, "a password alone")
				continue
			}
			require.NoError(t, err)
			body := "\x00\x04MQTT" + string([]byte{byte(v), wantFlags, 0, 0}) + properties + tail
			require.Equal(t, packetOf(0x10, []byte(body)), out)

			// With any other flags the same bytes are no CONNECT, but those that
			// have the same fields in them.
			for flags := range 256 {
				body := []byte(body)
				body[7] = byte(flags)
				p, err := decode(packetOf(0x10, body), v)
				if err != nil {
					continue
				}
				got := p.(*Connect)
				require.Zero(t, flags&1)
				require.Equal(t, flags&0x04 != 0, got.Will != nil)
				require.Equal(t, flags&0x80 != 0, got.Username.Set)
				require.Equal(t, flags&0x40 != 0, got.Password != nil)
				require.NotEqual(t, 0x18, flags&0x18)
				require.True(t, got.Will != nil || flags&0x38 == 0)
				require.True(t, v == V5 || got.Username.Set || got.Password == nil)
			}
		}
	}
}

func TestTopicsAndFiltersAreAsLongAsTheirLengthCanSay(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.7.3-1 MQTT-4.7.3-3 MQTT-3.3.2-2 MQTT-4.7.0-1")
	t.Attr("mqtt3.1.1", "MQTT-4.7.3-1 MQTT-4.7.3-3 MQTT-3.3.2-2 MQTT-4.7.1-1")
	for _, v := range []Version{V311, V5} {
		for n, ok := range map[int]bool{0: false, 1: true, 65535: true, 65536: false} {
			s := strings.Repeat("t", n)
			for _, p := range []Packet{
				&Publish{Topic: s, Payload: []byte{}},
				&Subscribe{PacketID: 1, Subscriptions: []Subscription{{Filter: s}}},
				&Unsubscribe{PacketID: 1, Filters: []string{s}},
			} {
				out, err := p.Append(nil, v)
				if !ok {
					requireError(t, err, "%T of %d", p, n)
					continue
				}
				require.NoError(t, err)
				got, err := decode(out, v)
				require.NoError(t, err)
				require.Equal(t, p, got)
			}
		}
		for _, wild := range []string{"#", "+", "a/#", "a/+/b", "a+"} {
			_, err := (&Publish{Topic: wild}).Append(nil, v)
			requireError(t, err, wild)
		}
	}
}
