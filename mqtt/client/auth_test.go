package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A counter is a method in which both sides count on: 0 from the client, 1 from
// the server, and so on.
type counter struct{ method string }

func (c counter) Method() string { return c.method }

func (counter) Start() ([]byte, func([]byte, bool) ([]byte, error), error) {
	n := 0
	return []byte("0"), func(data []byte, _ bool) ([]byte, error) {
		if string(data) != fmt.Sprint(n+1) {
			return nil, errors.New("lost count")
		}
		n += 2
		return []byte(fmt.Sprint(n)), nil
	}, nil
}

func authOf(code packet.ReasonCode, method, data string) *packet.Auth {
	return &packet.Auth{Code: code, Properties: &packet.Properties{AuthMethod: method, AuthData: []byte(data)}}
}

func accepts(method, data string) *packet.Connack {
	return &packet.Connack{Properties: &packet.Properties{AuthMethod: method, AuthData: []byte(data)}}
}

const more = packet.ContinueAuthentication

// authenticated returns a client that has authenticated by the counter.
func authenticated(t *testing.T, l *listener) (*Client, *peer) {
	t.Helper()
	cfg := l.config()
	cfg.KeepAlive, cfg.Auth, cfg.Reconnect.Disabled = -1, counter{"count"}, true
	cfg.ConnectTimeout = 100 * time.Hour
	type result struct {
		c   *Client
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Dial(t.Context(), cfg)
		done <- result{c, err}
	}()
	p := l.accept()
	connect := expect[*packet.Connect](p)
	require.Equal(t, "count", connect.Properties.AuthMethod)
	require.Equal(t, "0", string(connect.Properties.AuthData))
	p.quiet()
	p.send(authOf(more, "count", "1"))
	require.Equal(t, authOf(more, "count", "2"), expect[*packet.Auth](p))
	p.quiet()
	p.send(accepts("count", "3"))
	r := <-done
	require.NoError(t, r.err)
	return r.c, p
}

// [MQTT-3.1.2-30], [MQTT-4.12.0-3], [MQTT-4.12.0-5]
func TestAnAuthenticationIsAnsweredUntilCONNACKAndNothingElseSent(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.1.2-30 MQTT-4.12.0-3 MQTT-4.12.0-5 MQTT-3.15.2-2 MQTT-3.15.2-3")
	synctest.Test(t, func(t *testing.T) {
		c, p := authenticated(t, newListener(t, packet.V5))
		disconnect(t, c, p)
	})
}

// [MQTT-4.12.1-1]
func TestAClientAuthenticatesAgainWithTheSameMethod(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.1-1 MQTT-4.12.0-3")
	synctest.Test(t, func(t *testing.T) {
		c, p := authenticated(t, newListener(t, packet.V5))
		for range 2 {
			done := make(chan error, 1)
			go func() { done <- c.Reauthenticate(t.Context()) }()
			require.Equal(t, authOf(packet.ReAuthenticate, "count", "0"), expect[*packet.Auth](p))
			require.ErrorContains(t, c.Reauthenticate(t.Context()), "going on")
			p.send(&packet.Publish{Topic: "meanwhile", QoS: 1, PacketID: 1})
			expect[*packet.Puback](p)
			p.send(authOf(more, "count", "1"))
			require.Equal(t, authOf(more, "count", "2"), expect[*packet.Auth](p))
			p.send(authOf(packet.Success, "count", "3"))
			require.NoError(t, <-done)
		}
		disconnect(t, c, p)
		require.ErrorIs(t, c.Reauthenticate(t.Context()), ErrClosed)
	})
}

// [MQTT-4.12.1-2]
func TestAReauthenticationThatFailsEndsTheConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.12.1-2")
	for name, server := range map[string]func(p *peer, cancel func()){
		"refused":          func(p *peer, _ func()) { p.send(&packet.Disconnect{Code: packet.NotAuthorized}) },
		"wrong answer":     func(p *peer, _ func()) { p.send(authOf(more, "count", "7")) },
		"accepted unasked": func(p *peer, _ func()) { p.send(authOf(packet.Success, "count", "")) },
		"another method":   func(p *peer, _ func()) { p.send(authOf(more, "other", "1")) },
		"another step":     func(p *peer, _ func()) { p.send(authOf(packet.ReAuthenticate, "count", "1")) },
		"lost":             func(p *peer, _ func()) { p.close() },
		"given up":         func(_ *peer, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, p := authenticated(t, newListener(t, packet.V5))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- c.Reauthenticate(ctx) }()
				expect[*packet.Auth](p)
				go server(p, cancel)
				require.Error(t, <-done)
				for {
					if _, _, err := p.in.Next(); err != nil {
						break
					}
				}
				p.close()
				<-c.Done()
				require.Error(t, c.Err())
			})
		})
	}
}

func TestAServerThatBreaksTheExchangeIsNotConnectedTo(t *testing.T) {
	for name, server := range map[string]func(p *peer){
		"wrong answer":        func(p *peer) { p.send(authOf(more, "count", "7")) },
		"another method":      func(p *peer) { p.send(authOf(more, "other", "1")) },
		"another step":        func(p *peer) { p.send(authOf(packet.Success, "count", "1")) },
		"accepted unproven":   func(p *peer) { p.send(&packet.Connack{}) },
		"accepted wrongly":    func(p *peer) { p.send(accepts("count", "5")) },
		"accepted by another": func(p *peer) { p.send(accepts("other", "1")) },
		"refused":             func(p *peer) { p.send(&packet.Connack{Code: packet.NotAuthorized}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				cfg.Auth = counter{"count"}
				done := make(chan error, 1)
				go func() {
					_, err := Dial(t.Context(), cfg)
					done <- err
				}()
				p := l.accept()
				expect[*packet.Connect](p)
				server(p)
				require.Error(t, <-done)
				p.expectEnd()
			})
		})
	}
}

func TestAuthNeedsMQTT5AndAnAuthenticatorThatStarts(t *testing.T) {
	_, err := Dial(t.Context(), &Config{URL: "mqtt://x", Version: packet.V311, Auth: counter{"count"}})
	require.ErrorContains(t, err, "MQTT 5")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		require.ErrorContains(t, c.Reauthenticate(t.Context()), "Config.Auth")
		disconnect(t, c, p)
	})
}
