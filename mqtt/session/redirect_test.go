package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// redirected returns what a client with a CONNECT gets after its CONNACK when it is
// redirected.
func redirected(t *testing.T, c *packet.Connect, reference string) []packet.Packet {
	t.Helper()
	now := time.Unix(1000, 0)
	s := session.New("c", session.Limits{})
	s.Attach(now, c, session.Attach{})
	fx := s.Redirect(nil, now, packet.UseAnotherServer, reference)
	require.Len(t, fx, 1)
	require.Equal(t, session.EffectClose, fx[0].Kind)
	require.Equal(t, packet.UseAnotherServer, fx[0].Code)
	require.Empty(t, s.Redirect(nil, now, packet.UseAnotherServer, reference), "once")
	o, ok := s.Next(now, mqtt.ControlStream)
	require.True(t, ok)
	require.Equal(t, packet.CONNACK, o.Packet.Type())
	var after []packet.Packet
	for o, ok = s.Next(now, mqtt.ControlStream); ok; o, ok = s.Next(now, mqtt.ControlStream) {
		after = append(after, o.Packet)
	}
	return after
}

func TestRedirectNamesTheOtherServerToClientsOfMQTT5(t *testing.T) {
	v5 := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}
	require.Equal(t, []packet.Packet{&packet.Disconnect{
		Code: packet.UseAnotherServer, Properties: &packet.Properties{ServerReference: "b.example"},
	}}, redirected(t, v5, "b.example"))
	require.Equal(t, []packet.Packet{&packet.Disconnect{Code: packet.UseAnotherServer}}, redirected(t, v5, ""))
	require.Empty(t, redirected(t, &packet.Connect{Version: packet.V311, ClientID: "c", CleanStart: true}, "b.example"))
}

// [MQTT-3.1.2-24]
func TestRedirectLeavesTheReferenceOutIfTheClientTakesNoSuchPacket(t *testing.T) {
	long := make([]byte, 200)
	for i := range long {
		long[i] = 'a'
	}
	c := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{MaximumPacketSize: packet.Some[uint32](100)}}
	require.Equal(t, []packet.Packet{&packet.Disconnect{Code: packet.UseAnotherServer}}, redirected(t, c, string(long)))
}
