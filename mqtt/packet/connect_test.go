package packet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

func TestARefusedConnectSaysHowToAnswerIt(t *testing.T) {
	for _, c := range []struct {
		name string
		wire string // of the body
		want string // of the CONNACK; empty: none
	}{
		{"MQTT 6 is answered in MQTT 5", "0004'MQTT' 06 02 0000 00 0000", "20 03 00 84 00"},
		{"MQTT level 133 is answered in MQTT 5", "0004'MQTT' 85 02 0000 00 0000", "20 03 00 84 00"},
		{"MQTT 3 is answered in 3.1.1", "0004'MQTT' 03 02 0000 0000", "20 02 00 01"},
		{"MQIsdp 4 is answered in 3.1.1", "0006'MQIsdp' 04 02 0000 0000", "20 02 00 01"},
		{"a bridge of mosquitto with another level", "0004'MQTT' 83 02 0000 0001'c'", "20 02 00 01"},
		{"a bridge of mosquitto with 3.1.1 and its old name", "0006'MQIsdp' 84 02 0000 0001'c'", "20 02 00 01"},
		{"what is not MQTT gets no answer", "0004'HTTP' 05 02 0000 00 0000", ""},
		{"a body without a version gets no answer", "0004'MQTT'", ""},
		{"3.1 with a long identifier", "0006'MQIsdp' 03 02 0000 0018'abcdefghijklmnopqrstuvwx'", "20 02 00 02"},
		{"3.1.1 with an empty identifier and a lasting session", "0004'MQTT' 04 00 0000 0000", "20 02 00 02"},
		{"3.1.1 has no return code for a malformed packet", "0004'MQTT' 04 03 0000 0000", ""},
		{"5 malformed", "0004'MQTT' 05 03 0000 00 0000", "20 03 00 81 00"},
		{"5 cut", "0004'MQTT' 05 02 00", "20 03 00 81 00"},
		{"5 with a protocol error", "0004'MQTT' 05 02 0000 03 21 0000 0000", "20 03 00 82 00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(packetOf(0x10, unhex(c.wire)), 0)
			var refused *ConnectError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, refused.Err, requireError(t, err, ""))
			answer := refused.Connack()
			if c.want == "" {
				require.Nil(t, answer)
				return
			}
			out, err := answer.Append(nil, refused.Version)
			require.NoError(t, err)
			require.Equal(t, unhex(c.want), out)
		})
	}
}

func TestABridgeOfVersion3SaysSoInTheProtocolLevel(t *testing.T) {
	for wire, want := range map[string]*Connect{
		"0006'MQIsdp' 83 02 0000 0001'c'": {Version: V31, Bridge: true, ClientID: "c", CleanStart: true},
		"0004'MQTT' 84 02 0000 0001'c'":   {Version: V311, Bridge: true, ClientID: "c", CleanStart: true},
	} {
		p, err := decode(packetOf(0x10, unhex(wire)), 0)
		require.NoError(t, err)
		require.Equal(t, want, p)
		out, err := p.Append(nil, 0)
		require.NoError(t, err)
		require.Equal(t, packetOf(0x10, unhex(wire)), out)
	}
	_, err := (&Connect{Version: V5, Bridge: true}).Append(nil, 0)
	requireError(t, err, "bridge")
}

func TestVersion31IsMoreLenientAsItsTextSays(t *testing.T) {
	for name, wire := range map[string]string{
		"the reserved flag is not used":             "03 0000 0001'c'",
		"will QoS and retain are disregarded":       "3A 0000 0001'c'",
		"a missing user name is valid":              "82 0000 0001'c'",
		"a missing user name and password is valid": "C2 0000 0001'c'",
	} {
		p, err := decode(packetOf(0x10, unhex("0006'MQIsdp' 03"+wire)), 0)
		require.NoError(t, err, name)
		require.Equal(t, &Connect{Version: V31, ClientID: "c", CleanStart: true}, p, name)
	}
	p, err := decode(packetOf(0x10, unhex("0006'MQIsdp' 03 C2 0000 0001'c' 0001'u'")), 0)
	require.NoError(t, err)
	require.Equal(t, &Connect{Version: V31, ClientID: "c", CleanStart: true, Username: Some("u")}, p)

	c, err := decode(unhex("20 02 01 00"), V31)
	require.NoError(t, err)
	require.Equal(t, &Connack{}, c, "MQTT 3.1 has no session present flag")
	out, err := (&Connack{SessionPresent: true}).Append(nil, V31)
	require.NoError(t, err)
	require.Equal(t, unhex("20 02 00 00"), out)
}

func TestClientIdentifiersHaveTheLengthOfTheirVersion(t *testing.T) {
	for _, c := range []struct {
		v     Version
		id    string
		clean bool
		ok    bool
	}{
		{V31, "", true, false},
		{V31, "1", true, true},
		{V31, strings.Repeat("\u00e4", 23), false, true},
		{V31, strings.Repeat("x", 24), true, false},
		{V311, "", true, true},
		{V311, "", false, false},
		{V311, strings.Repeat("x", 65535), false, true},
		{V5, "", true, true},
		{V5, "", false, true},
		{V5, strings.Repeat("x", 65535), false, true},
		{V5, strings.Repeat("x", 65536), false, false},
		{V5, "\xff", false, false},
	} {
		want := &Connect{Version: c.v, ClientID: c.id, CleanStart: c.clean}
		out, err := want.Append(nil, 0)
		if !c.ok {
			requireError(t, err, "%v %.30q", c.v, c.id)
			continue
		}
		require.NoError(t, err)
		got, err := decode(out, 0)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestConnectIsEncodedInItsOwnVersionBeforeTheArgument(t *testing.T) {
	out, err := (&Connect{Version: V311, CleanStart: true}).Append(nil, V5)
	require.NoError(t, err)
	require.Equal(t, unhex("10 0C 0004'MQTT' 04 02 0000 0000"), out)
	out, err = (&Connect{CleanStart: true}).Append(nil, V5)
	require.NoError(t, err)
	require.Equal(t, unhex("10 0D 0004'MQTT' 05 02 0000 00 0000"), out)
}
