package session_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func authPacket(code packet.ReasonCode, method, data string) *packet.Auth {
	p := &packet.Auth{Code: code, Properties: &packet.Properties{AuthMethod: method}}
	if data != "" {
		p.Properties.AuthData = []byte(data)
	}
	return p
}

// withMethod returns a bench whose client has authenticated with method "m".
func withMethod(t *testing.T, p packet.Properties) (*bench, *packet.Connack) {
	b := newBench(t, session.Limits{})
	ack := b.attach(&packet.Connect{Version: packet.V5, Properties: &p}, session.Attach{AuthMethod: "m", AuthData: []byte("last")})
	return b, ack
}

// [MQTT-4.12.0-5], [MQTT-4.12.0-6]
func TestConnackNamesTheMethodOfConnectAndNoOther(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.0-5 MQTT-4.12.0-6")
	_, ack := withMethod(t, packet.Properties{})
	require.Equal(t, "m", ack.Properties.AuthMethod)
	require.Equal(t, "last", string(ack.Properties.AuthData))
	b := newBench(t, session.Limits{})
	ack = b.connect(nil)
	require.Empty(t, ack.Properties.AuthMethod)
	require.Nil(t, ack.Properties.AuthData)
}

// [MQTT-4.12.0-2], [MQTT-4.12.0-5], [MQTT-4.12.1-1]
func TestAClientAuthenticatesAgainWhileItDoesOtherThings(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.0-2 MQTT-4.12.0-5 MQTT-4.12.1-1 MQTT-3.15.2-2 MQTT-3.15.2-3")
	b, _ := withMethod(t, packet.Properties{})
	for range 2 {
		first := authPacket(packet.ReAuthenticate, "m", "one")
		require.Equal(t, []session.Effect{{Kind: session.EffectAuth, Auth: first}}, b.receive(first))
		require.Len(t, b.receive(publish(0, 0)), 1, "the old authentication holds meanwhile")
		require.Empty(t, b.s.Authenticated(nil, packet.ContinueAuthentication, []byte("two"), ""))
		require.Equal(t, []packet.Packet{authPacket(packet.ContinueAuthentication, "m", "two")}, b.sent())
		require.Len(t, b.receive(publish(0, 0)), 1)
		require.Len(t, b.receive(authPacket(packet.ContinueAuthentication, "m", "three")), 1)
		require.Empty(t, b.s.Authenticated(nil, packet.Success, []byte("four"), ""))
		require.Equal(t, []packet.Packet{authPacket(packet.Success, "m", "four")}, b.sent())
	}
}

// [MQTT-4.12.1-2]
func TestAFailedReauthenticationClosesTheConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.1-2")
	b, _ := withMethod(t, packet.Properties{})
	b.receive(authPacket(packet.ReAuthenticate, "m", "one"))
	b.closed(b.s.Authenticated(nil, packet.NotAuthorized, nil, "no"), packet.NotAuthorized)
	require.Empty(t, b.s.Authenticated(nil, packet.Success, nil, ""), "it is over")
	require.Empty(t, b.sent())
}

// [MQTT-4.12.0-5], [MQTT-4.12.1-1]; Section 4.12.1.
func TestAuthOutOfTurnOrWithAnotherMethodIsAProtocolError(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.0-5 MQTT-4.12.1-1 MQTT-3.15.2-1")
	again, more := packet.ReAuthenticate, packet.ContinueAuthentication
	for name, steps := range map[string][]*packet.Auth{
		"another method":                {authPacket(again, "n", "")},
		"nothing to continue":           {authPacket(more, "m", "")},
		"twice":                         {authPacket(again, "m", ""), authPacket(again, "m", "")},
		"before the server has said so": {authPacket(again, "m", ""), authPacket(more, "m", "")},
		"the server's code":             {authPacket(packet.Success, "m", "")},
		"no method":                     {{Code: packet.Success}},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := withMethod(t, packet.Properties{})
			for _, p := range steps[:len(steps)-1] {
				require.Len(t, b.receive(p), 1)
			}
			b.closed(b.receive(steps[len(steps)-1]), packet.ProtocolError)
		})
	}
	b, _ := withMethod(t, packet.Properties{})
	b.receive(authPacket(again, "m", ""))
	b.s.Authenticated(nil, more, nil, "")
	b.sent()
	b.closed(b.receive(authPacket(again, "m", "")), packet.ProtocolError)
}

func TestTheMethodOfOneConnectionIsNotThatOfTheNext(t *testing.T) {
	b := newBench(t, session.Limits{})
	expiry := &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}
	b.attach(&packet.Connect{Version: packet.V5, Properties: expiry}, session.Attach{AuthMethod: "m"})
	b.receive(authPacket(packet.ReAuthenticate, "m", ""))
	b.s.Detach(nil, b.now)
	require.Empty(t, b.s.Authenticated(nil, packet.Success, nil, ""), "too late")
	b.connect(expiry)
	require.Empty(t, b.s.Authenticated(nil, packet.Success, nil, ""), "of another connection")
	b.closed(b.receive(authPacket(packet.ReAuthenticate, "m", "")), packet.ProtocolError)
}

// [MQTT-3.1.2-24]
func TestAuthThatTheClientDoesNotTakeEndsTheConnection(t *testing.T) {
	b, _ := withMethod(t, packet.Properties{MaximumPacketSize: packet.Some[uint32](60)})
	b.receive(authPacket(packet.ReAuthenticate, "m", ""))
	fx := b.s.Authenticated(nil, packet.ContinueAuthentication, []byte(strings.Repeat("x", 60)), "")
	require.Equal(t, packet.PacketTooLarge, fx[0].Code)
}

func TestARevokedSubscriptionIsNoLongerInTheList(t *testing.T) {
	b := connected(t, session.Limits{MaxSubscriptions: 1}, packet.Properties{})
	b.receiveOn(4, subscribe(1, "a"))
	require.False(t, b.s.Revoke("a"), "not yet granted")
	b.s.Subscribed(b.now, 4, 1, nil)
	require.True(t, b.s.Revoke("a"))
	require.False(t, b.s.Revoke("a"))
	require.Empty(t, b.subscriptions())
	require.Equal(t, mqtt.ControlStream, b.s.StreamOf("a"))
	require.Len(t, b.receive(subscribe(2, "b")), 1, "there is room for another")
}
