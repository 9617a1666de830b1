package packet_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/anyquic/anyquic/mqtt/packet"
)

func TestAnOptIsItsValueOrTheAlternative(t *testing.T) {
	require.Equal(t, 7, Some(7).Or(1))
	require.Equal(t, 0, Some(0).Or(1))
	require.Equal(t, 1, Opt[int]{}.Or(1))
}

func TestAHeaderThatParseHeaderDidNotReturnIsRefused(t *testing.T) {
	var refused *ConnectError
	for _, h := range []Header{{Type: CONNECT, Flags: 1}, {Type: CONNECT, Length: 1}} {
		_, err := Decode(h, nil, V5)
		require.ErrorAs(t, err, &refused)
		require.Nil(t, refused.Connack())
	}
	for _, h := range []Header{{}, {Type: 16}, {Type: PUBLISH, Flags: 6}, {Type: PUBLISH, Length: 1}, {Type: PINGREQ, Length: 1}} {
		_, err := Decode(h, nil, V5)
		requireError(t, err, "%v", h)
	}
	var p Publish
	requireError(t, p.Decode(Header{Type: PUBLISH, Flags: 8}, nil, V5), "")
	requireError(t, p.Decode(Header{Type: PUBLISH, Length: 1}, nil, V5), "")
	require.Nil(t, (&ConnectError{Err: &Error{Code: TopicAliasInvalid}, Version: V5}).Connack())
}

func TestAPacketLongerThanItsHeaderCanSayIsRefused(t *testing.T) {
	long := strings.Repeat("x", 65535)
	subs := make([]Subscription, MaxRemainingLength/65535+1)
	for i := range subs {
		subs[i].Filter = long
	}
	user := make([]UserProperty, MaxRemainingLength/(2*65535)+1)
	for i := range user {
		user[i] = UserProperty{long, long}
	}
	for _, p := range []Packet{
		&Subscribe{PacketID: 1, Subscriptions: subs},
		&Disconnect{Properties: &Properties{User: user}},
	} {
		out, err := p.Append(nil, V5)
		require.Nil(t, out)
		require.Equal(t, PacketTooLarge, requireError(t, err, "").Code)
	}
}
