package client

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestConnectSaysWhatTheConfigSays(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.0-1 MQTT-3.1.3-2")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.CleanStart = true
		cfg.KeepAlive = 1500 * time.Millisecond // rounded up
		cfg.SessionExpiry = time.Hour
		cfg.ReceiveMaximum = 7
		cfg.MaximumPacketSize = 4096
		cfg.TopicAliasMaximum = 3
		cfg.Username, cfg.Password = "u", []byte("p")
		cfg.Will = &packet.Will{Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true}
		cfg.UserProperties = []packet.UserProperty{{Key: "k", Value: "v"}}
		go func() {
			c, err := Dial(context.Background(), cfg)
			require.NoError(t, err)
			c.Close()
		}()
		p, got := l.accepted(&packet.Connack{})
		want := &packet.Connect{
			Version: packet.V5, ClientID: "c", CleanStart: true, KeepAlive: 2,
			Username: packet.Some("u"), Password: []byte("p"), Will: cfg.Will,
			Properties: &packet.Properties{
				SessionExpiry: packet.Some[uint32](3600), ReceiveMaximum: packet.Some[uint16](7),
				MaximumPacketSize: packet.Some[uint32](4096), TopicAliasMaximum: packet.Some[uint16](3),
				User: cfg.UserProperties,
			},
		}
		got.Will.Properties = nil
		require.Equal(t, want, got)
		p.expectEnd()
	})
}

func TestARefusalIsAConnectError(t *testing.T) {
	for _, c := range []struct {
		name string
		v    packet.Version
		ack  packet.Connack
		want ConnectError
	}{
		{"5 not authorized", packet.V5, packet.Connack{Code: packet.NotAuthorized}, ConnectError{Code: packet.NotAuthorized}},
		{"5 with a reason and another server", packet.V5,
			packet.Connack{Code: packet.UseAnotherServer, Properties: &packet.Properties{ReasonString: "full", ServerReference: "b:1"}},
			ConnectError{packet.UseAnotherServer, "full", "b:1"}},
		{"3.1.1 bad user name", packet.V311, packet.Connack{Code: packet.BadUserNameOrPassword}, ConnectError{Code: packet.BadUserNameOrPassword}},
		{"3.1 server unavailable", packet.V31, packet.Connack{Code: packet.ServerUnavailable}, ConnectError{Code: packet.ServerUnavailable}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, c.v)
				done := make(chan error, 1)
				go func() {
					_, err := Dial(context.Background(), l.config())
					done <- err
				}()
				p, _ := l.accepted(&c.ack)
				p.expectEnd()
				var e *ConnectError
				require.ErrorAs(t, <-done, &e)
				require.Equal(t, c.want, *e)
			})
		})
	}
}

func TestTheFirstPacketMustBeCONNACK(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		code  packet.ReasonCode
	}{
		{"PUBLISH", []byte{0x30, 4, 0, 1, 'a', 0}, packet.ProtocolError},
		{"AUTH", []byte{0xF0, 2, 0x18, 0}, packet.ProtocolError},
		{"reserved type", []byte{0, 0}, packet.MalformedPacket},
		{"reserved flags", []byte{0x21, 0}, packet.MalformedPacket},
		{"length of five bytes", []byte{0x20, 0xFF, 0xFF, 0xFF, 0xFF, 1}, packet.MalformedPacket},
		{"larger than the maximum", []byte{0x20, 0xFF, 0xFF, 0xFF, 0x7F}, packet.PacketTooLarge},
		{"session present after a clean start", []byte{0x20, 3, 1, 0, 0}, packet.ProtocolError},
		{"session present with a refusal", []byte{0x20, 3, 1, 0x87, 0}, packet.MalformedPacket},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				done := make(chan error, 1)
				go func() {
					cfg := l.config()
					cfg.CleanStart = true
					_, err := Dial(context.Background(), cfg)
					done <- err
				}()
				p := l.accept()
				expect[*packet.Connect](p)
				p.raw(c.bytes)
				p.expectEnd()
				var e *ProtocolError
				require.ErrorAs(t, <-done, &e)
				if c.name != "AUTH" && c.name != "session present with a refusal" {
					require.Equal(t, c.code, e.Code, e.Reason)
				}
			})
		})
	}
}

func TestDialFailsWithTheNetworksReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		refused := errors.New("no route")
		l.fail <- refused
		_, err := Dial(context.Background(), l.config())
		var e *ConnectionError
		require.ErrorAs(t, err, &e)
		require.Equal(t, "dial", e.Op)
		require.ErrorIs(t, err, refused)

		go func() { p := l.accept(); expect[*packet.Connect](p); p.close() }()
		_, err = Dial(context.Background(), l.config())
		require.ErrorAs(t, err, &e)
		require.Equal(t, "connect", e.Op)
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestASilentServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		silent := func() {
			p := l.accept()
			expect[*packet.Connect](p)
			p.expectEnd()
		}
		start := time.Now()
		go silent()
		_, err := Dial(context.Background(), l.config())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		after(t, 30*time.Second, start)

		start = time.Now()
		go silent()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = Dial(ctx, l.config())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		after(t, time.Second, start)
	})
}

func TestConfigMistakesAreFoundBeforeAnythingIsDialed(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.1.3-7")
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no URL", Config{}, "client: URL is empty"},
		{"unknown scheme", Config{URL: "http://h"}, `client: URL scheme "http" is unknown (have mqtt and mqtts, and what is in Config.Dialers)`},
		{"no scheme", Config{URL: "host"}, `client: URL scheme "" is unknown`},
		{"no host", Config{URL: "mqtt://:1883"}, "client: URL has no host: want mqtt://host:port"},
		{"opaque", Config{URL: "mqtt:host"}, "client: URL has no host"},
		{"credentials", Config{URL: "mqtt://user:secret@h"}, "client: URL contains credentials: set Config.Username and Config.Password"},
		{"not a URL, with a password", Config{URL: "mqtt://user:secret@h:port"}, "client: URL is not valid"},
		{"path", Config{URL: "mqtt://h/topic"}, "client: URL has a path, which mqtt has no place for"},
		{"query", Config{URL: "mqtts://h?x=1"}, "client: URL has a query, which mqtts has no place for"},
		{"fragment", Config{URL: "wss://h/mqtt#x", Dialers: []LinkDialer{new(linkDialer)}}, "client: URL has a fragment"},
		{"QUIC without a dialer", Config{URL: "mqtt+quic://h"}, "client: Config.Dialers must have a mqttquic.Dialer for mqtt+quic URLs"},
		{"WebSocket without its dialer", Config{URL: "ws://h", Dialers: []LinkDialer{new(linkDialer)}}, "client: Config.Dialers must have a mqttweb.Dialer for ws URLs"},
		{"version", Config{URL: "mqtt://h", Version: 6}, "client: Config.Version is 6"},
		{"long keep-alive", Config{URL: "mqtt://h", KeepAlive: 20 * time.Hour}, "client: Config.KeepAlive is larger than 65535 s"},
		{"negative expiry", Config{URL: "mqtt://h", SessionExpiry: -1}, "client: Config.SessionExpiry is negative"},
		{"no queue", Config{URL: "mqtt://h", QueueBytes: -1}, "client: Config.InflightMax and Config.QueueBytes cannot be none"},
		{"back-off", Config{URL: "mqtt://h", Reconnect: Backoff{Min: time.Hour, Max: time.Minute}}, "client: Config.Reconnect needs 0 < Min <= Max"},
		{"alias maximum", Config{URL: "mqtt://h", TopicAliasMaximum: 1 << 16}, "client: Config.TopicAliasMaximum is larger than 65535"},
		{"will with a wildcard", Config{URL: "mqtt://h", Will: &packet.Will{Topic: "a/#"}}, ""},
		{"3.1.1 session without a name", Config{URL: "mqtt://h", Version: packet.V311}, ""},
		{"3.1.1 password without user name", Config{URL: "mqtt://h", Version: packet.V311, CleanStart: true, Password: []byte("x")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Dial(context.Background(), &c.cfg)
			require.Error(t, err)
			require.Contains(t, err.Error(), c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestURLsNameCarrierPortAndPath(t *testing.T) {
	for _, c := range []struct {
		url     string
		carrier mqtt.Carrier
		addr    string
		path    string
	}{
		{"mqtt://h", mqtt.TCP, "h:1883", ""},
		{"tcp://h:1", mqtt.TCP, "h:1", ""},
		{"MQTTS://h/", mqtt.TLS, "h:8883", "/"},
		{"ssl://h", mqtt.TLS, "h:8883", ""},
		{"tls://[::1]", mqtt.TLS, "[::1]:8883", ""},
		{"wss://h", mqtt.WSS, "h:443", "/mqtt"},
		{"wss://h/x?y=z", mqtt.WSS, "h:443", "/x"},
		{"WSS://h/", mqtt.WSS, "h:443", "/"},
		{"mqtt+quic://h", mqtt.QUIC, "h:14567", ""},
		{"mqtt+quic://[fe80::1]:7", mqtt.QUIC, "[fe80::1]:7", ""},
	} {
		t.Run(c.url, func(t *testing.T) {
			g, err := parseURL(c.url, []LinkDialer{new(linkDialer)})
			require.NoError(t, err)
			require.Equal(t, c.carrier, g.carrier)
			require.Equal(t, c.addr, g.addr)
			require.Equal(t, c.path, g.url.Path)
		})
	}
}

func TestMQTT31InventsAClientIDAndKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V31)
		cfg := l.config()
		cfg.ClientID = ""
		ids := make(chan string, 2)
		go func() {
			for range 2 {
				p, c := l.accepted(&packet.Connack{})
				ids <- c.ClientID
				p.close()
			}
			p, _ := l.accepted(&packet.Connack{})
			ids <- ""
			p.expectEnd()
		}()
		c, err := Dial(context.Background(), cfg)
		require.NoError(t, err)
		id := <-ids
		require.Len(t, id, 20)
		require.Equal(t, id, <-ids)
		require.Equal(t, id, c.ClientID())
		<-ids
		c.Close()
	})
}

func TestAnAssignedClientIDIsUsedAgain(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.3-2")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.ClientID, cfg.CleanStart = "", true
		c, p := dialed(t, l, cfg, &packet.Connack{Properties: &packet.Properties{AssignedClientID: "given"}})
		require.Equal(t, "given", c.ClientID())
		p.close()
		p, again := l.accepted(&packet.Connack{})
		require.Equal(t, "given", again.ClientID)
		require.False(t, again.CleanStart, "a clean start is for the first connection")
		disconnect(t, c, p)
	})
}

func TestACleanSessionStaysCleanBeforeMQTT5(t *testing.T) {
	t.Attr("mqtt3.1.1", "MQTT-3.1.2-6")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		cfg := l.config()
		cfg.CleanStart = true
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.close()
		p, again := l.accepted(&packet.Connack{})
		require.True(t, again.CleanStart)
		disconnect(t, c, p)
	})
}
