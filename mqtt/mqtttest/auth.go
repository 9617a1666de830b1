package mqtttest

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/auth"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// twoUsers are alice and bob, both with the password "pencil": one can use SCRAM,
// the other cannot.
const twoUsers = `alice:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=
bob:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$jVhqmhryg9cVIz69QRMw92CgHDmJT2jige8KZ+yGwww
`

// theirRules give each a topic of its own, and both a common one.
const theirRules = `allow both own/%u/#
allow client=will-c write gone/%c
deny both common/secret/#
allow user=* both common/#
`

func (r *run) file(content string) string {
	r.Helper()
	name := filepath.Join(r.TempDir(), "file")
	require.NoError(r, os.WriteFile(name, []byte(content), 0o600))
	return name
}

// guard starts a broker for two users and their rules.
func (r *run) guard() {
	r.Helper()
	users, err := auth.OpenUsers(r.file(twoUsers))
	require.NoError(r, err)
	rules, err := auth.OpenRules(r.file(theirRules))
	require.NoError(r, err)
	r.start(&broker.Config{Auth: users, ACL: rules})
}

// login returns a CONNECT with user name and password.
func login(v packet.Version, id, user, password string) *packet.Connect {
	return &packet.Connect{Version: v, ClientID: id, CleanStart: true, Username: packet.Some(user), Password: []byte(password)}
}

func (r *run) user(v packet.Version, user string) *peer {
	r.Helper()
	p, _ := r.connect(login(v, user+"-c", user, "pencil"))
	return p
}

// A scramPeer is a client in the middle of an exchange.
type scramPeer struct {
	*peer
	next func([]byte, bool) ([]byte, error)
}

func authPacket(code packet.ReasonCode, method string, data []byte) *packet.Auth {
	return &packet.Auth{Code: code, Properties: &packet.Properties{AuthMethod: method, AuthData: data}}
}

func (r *run) beginSCRAM(user, password string) (first []byte, next func([]byte, bool) ([]byte, error)) {
	r.Helper()
	s, err := auth.NewSCRAM(user, password)
	require.NoError(r, err)
	first, next, err = s.Start()
	require.NoError(r, err)
	return first, next
}

// dialSCRAM connects as far as the server's first AUTH, which it returns.
func (r *run) dialSCRAM(user, password string) (scramPeer, *packet.Auth) {
	r.Helper()
	first, next := r.beginSCRAM(user, password)
	p := r.dial()
	p.send(&packet.Connect{Version: packet.V5, ClientID: user + "-c", CleanStart: true, Properties: &packet.Properties{
		AuthMethod: auth.SCRAMSHA256, AuthData: first,
	}})
	return scramPeer{p, next}, expect[*packet.Auth](p)
}

// answer sends the client's answer to a step of the server.
func (p scramPeer) answer(step *packet.Auth) {
	p.r.Helper()
	require.Equal(p.r, packet.ContinueAuthentication, step.Code, "[MQTT-4.12.0-2]")
	require.Equal(p.r, auth.SCRAMSHA256, step.Properties.AuthMethod, "[MQTT-4.12.0-5]")
	require.Empty(p.r, step.Properties.ReasonString)
	require.Empty(p.r, step.Properties.User)
	data, err := p.next(step.Properties.AuthData, false)
	require.NoError(p.r, err)
	p.send(authPacket(packet.ContinueAuthentication, auth.SCRAMSHA256, data))
}

// proven checks the server's last word.
func (p scramPeer) proven(props *packet.Properties) {
	p.r.Helper()
	require.Equal(p.r, auth.SCRAMSHA256, props.AuthMethod, "[MQTT-4.12.0-5]")
	_, err := p.next(props.AuthData, true)
	require.NoError(p.r, err)
}

// connectSCRAM connects alice.
func (r *run) connectSCRAM() *peer {
	r.Helper()
	p, step := r.dialSCRAM("alice", "pencil")
	p.answer(step)
	ack := expect[*packet.Connack](p.peer)
	require.Equal(r, packet.Success, ack.Code)
	p.proven(ack.Properties)
	return p.peer
}

var authCases = []testCase{
	{"UsersNeedTheirPasswords", func(r *run) { // Section 3.1.3.5, Section 5.4.1
		r.guard()
		for _, v := range versions {
			for _, user := range []string{"alice", "bob"} {
				r.user(v, user).disconnect(packet.NormalDisconnection)
				p := r.dial()
				p.version = v
				p.send(login(v, "c", user, "Pencil"))
				p.expectRefused(packet.BadUserNameOrPassword)
			}
			for _, c := range []*packet.Connect{login(v, "c", "mallory", "pencil"), {Version: v, ClientID: "c", CleanStart: true}} {
				p := r.dial()
				p.version = v
				p.send(c)
				p.expectRefused(packet.BadUserNameOrPassword)
			}
		}
		require.EqualValues(r, 4*len(versions), r.broker.Stats().Denied)
	}},
	{"ClientsProveThemselvesByAuth", func(r *run) { // Section 4.12
		r.Attr("mqtt5", "MQTT-4.12.0-2 MQTT-4.12.0-5 MQTT-3.15.2-2 MQTT-3.15.2-3")
		r.guard()
		p := r.connectSCRAM()
		p.subscribe("own/alice/x", 1)
		p.publish("own/alice/x", "as alice", 1)
		p.message("own/alice/x", "as alice")
		p.disconnect(packet.NormalDisconnection)
	}},
	{"WhoDoesNotProveItselfByAuthIsRefused", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.12.0-1 MQTT-4.12.0-4 MQTT-4.13.2-1")
		r.guard()
		for _, who := range [][2]string{{"alice", "Pencil"}, {"bob", "pencil"}, {"mallory", "pencil"}} {
			p, step := r.dialSCRAM(who[0], who[1])
			p.answer(step)
			p.expectRefused(packet.NotAuthorized)
		}
		p := r.dial()
		p.send(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{AuthMethod: "SCRAM-SHA-1"}})
		p.expectRefused(packet.BadAuthenticationMethod)
		for _, nonsense := range [][]byte{nil, {}, []byte("n,,"), []byte(strings.Repeat("n", 60000)), {0xff, 0}} {
			p := r.dial()
			p.send(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, Properties: &packet.Properties{AuthMethod: auth.SCRAMSHA256, AuthData: nonsense}})
			p.expectRefused(packet.NotAuthorized)
		}
	}},
	{"OnlyAuthAndDisconnectComeBeforeConnack", func(r *run) { // [MQTT-3.1.2-30]
		r.Attr("mqtt5", "MQTT-4.12.0-4 MQTT-4.12.0-5 MQTT-4.13.1-1 MQTT-3.15.2-1")
		r.guard()
		more := packet.ContinueAuthentication
		for _, early := range []packet.Packet{
			&packet.Publish{Topic: "common/x"}, &packet.Pingreq{}, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "common/x"}}},
			login(packet.V5, "c", "alice", "pencil"),
			authPacket(more, "other", nil), authPacket(packet.ReAuthenticate, auth.SCRAMSHA256, nil), &packet.Auth{Code: packet.Success},
		} {
			p, _ := r.dialSCRAM("alice", "pencil")
			p.send(early)
			p.expectRefused(packet.ProtocolError)
		}
		p, _ := r.dialSCRAM("alice", "pencil")
		p.sendRaw([]byte{0xF1, 0})
		p.expectRefused(packet.MalformedPacket)
		p, _ = r.dialSCRAM("alice", "pencil")
		p.send(&packet.Disconnect{})
		p.expectEnd()
	}},
	{"AuthMayBeDoneAgain", func(r *run) { // Section 4.12.1
		r.Attr("mqtt5", "MQTT-4.12.0-2 MQTT-4.12.0-5 MQTT-4.12.1-1")
		r.guard()
		p := r.connectSCRAM()
		p.subscribe("common/x", 0)
		pub := r.user(packet.V311, "bob")
		for range 3 {
			first, next := r.beginSCRAM("alice", "pencil")
			p.send(authPacket(packet.ReAuthenticate, auth.SCRAMSHA256, first))
			step := expect[*packet.Auth](p)
			pub.publish("common/x", "meanwhile", 1)
			p.message("common/x", "meanwhile")
			p.publish("own/alice/x", "likewise", 1)
			s := scramPeer{p, next}
			s.answer(step)
			last := expect[*packet.Auth](p)
			require.Equal(r, packet.Success, last.Code)
			s.proven(last.Properties)
		}
		p.ping()
	}},
	{"AuthAgainThatFailsEndsTheConnection", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.12.1-2 MQTT-4.12.1-1 MQTT-4.12.0-5")
		r.guard()
		p := r.connectSCRAM()
		first, next := r.beginSCRAM("alice", "Pencil")
		p.send(authPacket(packet.ReAuthenticate, auth.SCRAMSHA256, first))
		scramPeer{p, next}.answer(expect[*packet.Auth](p))
		p.expectDisconnect(packet.NotAuthorized)

		p = r.connectSCRAM()
		p.send(authPacket(packet.ReAuthenticate, "other", first))
		p.expectDisconnect(packet.ProtocolError)
		p = r.connectSCRAM()
		p.send(authPacket(packet.ContinueAuthentication, auth.SCRAMSHA256, first))
		p.expectDisconnect(packet.ProtocolError)
		p = r.user(packet.V5, "alice") // by password: there is no method
		p.send(authPacket(packet.ReAuthenticate, auth.SCRAMSHA256, first))
		p.expectDisconnect(packet.ProtocolError)
	}},
	{"ClientAuthenticatesByAuthAndAgain", func(r *run) {
		r.Attr("mqtt5", "MQTT-4.12.0-3 MQTT-4.12.1-1")
		r.guard()
		scram, err := auth.NewSCRAM("alice", "pencil")
		require.NoError(r, err)
		c, k := r.dialClient(&client.Config{ClientID: "c", Auth: scram})
		for range 2 {
			require.NoError(r, c.Reauthenticate(r.patient()))
			_, err = c.Publish(r.patient(), &packet.Publish{Topic: "own/alice/x", QoS: 1})
			require.NoError(r, err)
		}
		k.kill(r)
		_, err = c.Publish(r.patient(), &packet.Publish{Topic: "own/alice/x", QoS: 1})
		require.NoError(r, err, "it has authenticated on its next connection")

		wrong, err := auth.NewSCRAM("alice", "Pencil")
		require.NoError(r, err)
		cfg := &client.Config{ClientID: "w", Auth: wrong}
		r.target.Client(cfg)
		_, err = client.Dial(r.patient(), cfg)
		var refused *client.ConnectError
		require.ErrorAs(r, err, &refused)
		require.Equal(r, packet.NotAuthorized, refused.Code)
	}},
	{"PublishThatIsNotAllowedIsRefused", func(r *run) { // reason code 0x87; MQTT 3.1.1, [MQTT-3.3.5-2]
		r.Attr("mqtt3.1.1", "MQTT-3.3.5-2")
		r.guard()
		alice := r.user(packet.V5, "alice")
		alice.subscribe("own/alice/#", 2)
		alice.subscribe("common/x", 2)
		for _, v := range versions {
			bob := r.user(v, "bob")
			for q := packet.AtMostOnce; q <= packet.ExactlyOnce; q++ {
				for range 2 {
					want := packet.Success
					if v == packet.V5 && q > 0 {
						want = packet.NotAuthorized
					}
					require.Equal(r, want, bob.publishPacket(&packet.Publish{Topic: "own/alice/x", Payload: []byte("no"), QoS: q, Retain: true}))
				}
				bob.publish("common/x", "yes", q)
				alice.message("common/x", "yes")
			}
			bob.disconnect(packet.NormalDisconnection)
		}
		alice.ping()
		require.EqualValues(r, 6*len(versions), r.broker.Stats().Dropped[broker.DropDenied])
		require.Zero(r, r.broker.Stats().Retained)
	}},
	{"SubscribeThatIsNotAllowedIsRefusedByFilter", func(r *run) { // Section 3.9.3
		r.guard()
		for _, v := range versions {
			denied := packet.NotAuthorized
			if v < packet.V5 {
				denied = packet.UnspecifiedError // 0x80
			}
			alice := r.user(v, "alice")
			ack := alice.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{
				{Filter: "own/bob/#", QoS: 1}, {Filter: "own/alice/#", QoS: 1}, {Filter: "#"}, {Filter: "common/open", QoS: 2},
				{Filter: "$share/g/own/bob/x"}, {Filter: "$share/g/common/open", QoS: 1}, {Filter: "common/#"}, {Filter: "own/+/x"},
			}})
			require.Equal(r, []packet.ReasonCode{denied, 1, denied, 2, denied, 1, denied, denied}, ack.Codes)
			bob := r.user(packet.V5, "bob")
			bob.publish("own/bob/x", "for bob", 1)
			bob.publish("common/open", "for all", 0)
			alice.message("common/open", "for all")
			alice.message("common/open", "for all")
			alice.ping()
			alice.disconnect(packet.NormalDisconnection)
			bob.disconnect(packet.NormalDisconnection)
		}
	}},
	{"WillThatIsNotAllowedIsRefused", func(r *run) {
		r.guard()
		alice := r.user(packet.V5, "alice")
		alice.subscribe("common/open", 0)
		for _, v := range versions {
			for _, topic := range []string{"own/alice/x", "gone/other"} {
				c := login(v, "will-c", "bob", "pencil")
				c.Will = &packet.Will{Topic: topic, Payload: []byte("w")}
				p := r.dial()
				p.version = v
				p.send(c)
				p.expectRefused(packet.NotAuthorized)
			}
			c := login(v, "will-c", "bob", "pencil")
			c.Will = &packet.Will{Topic: "common/open", Payload: []byte("w")}
			p, _ := r.connect(c)
			p.kill()
			alice.message("common/open", "w")
			c.Will.Topic = "gone/will-c"
			p, _ = r.connect(c)
			p.disconnect(packet.NormalDisconnection)
		}
		alice.ping()
	}},
	{"ASessionIsItsUsersOwn", func(r *run) {
		r.guard()
		keep := func(user string) *packet.Connect {
			c := login(packet.V5, "shared-id", user, "pencil")
			c.CleanStart, c.Properties = false, &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}
			return c
		}
		alice, _ := r.connect(keep("alice"))
		alice.subscribe("own/alice/x", 1)
		for range 2 {
			p := r.dial()
			p.send(keep("bob"))
			p.expectRefused(packet.NotAuthorized)
			r.user(packet.V5, "alice").publish("own/alice/x", "hers", 1)
			if alice != nil {
				alice.message("own/alice/x", "hers")
				alice.ping()
				alice.kill()
				alice = nil
			}
		}
		again, ack := r.connect(keep("alice"))
		require.True(r, ack.SessionPresent)
		again.message("own/alice/x", "hers")
	}},
}

// authStreamCases are for carriers with data streams.
var authStreamCases = []testCase{
	{"WhatIsNotAllowedIsRefusedOnItsStream", func(r *run) {
		r.guard()
		p := r.user(packet.V5, "alice")
		s := p.openStream()
		require.Equal(r, packet.NotAuthorized, s.publishPacket(&packet.Publish{Topic: "own/bob/x", QoS: 1}))
		require.Equal(r, packet.NotAuthorized, s.publishPacket(&packet.Publish{Topic: "own/bob/x", QoS: 2}))
		ack := s.suback(&packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "own/bob/x"}, {Filter: "own/alice/x"}}})
		require.Equal(r, []packet.ReasonCode{packet.NotAuthorized, 0}, ack.Codes)
		p.publish("own/alice/x", "hers", 0)
		s.message("own/alice/x", "hers")
		p.ping()
	}},
	{"DataStreamsWaitForTheEndOfTheAuthentication", func(r *run) {
		r.guard()
		p, step := r.dialSCRAM("alice", "pencil")
		s := p.openStream()
		s.send(&packet.Publish{Topic: "own/alice/x", QoS: 1, PacketID: 9})
		p.answer(step)
		ack := expect[*packet.Connack](p.peer)
		p.proven(ack.Properties)
		require.EqualValues(r, 9, expect[*packet.Puback](s).PacketID)
		require.Equal(r, mqtt.ControlStream, p.stream.ID())
	}},
}
