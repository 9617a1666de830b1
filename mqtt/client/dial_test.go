package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A linkDialer is a LinkDialer whose Links are those of a listener.
type linkDialer struct {
	l    *listener
	url  *url.URL
	conf *tls.Config
	idle time.Duration
}

type idleLink struct {
	mqtt.Link
	d *linkDialer
}

func (l *idleLink) SetIdleTimeout(d time.Duration) { l.d.idle = d }

func (d *linkDialer) Scheme(name string) (mqtt.Scheme, bool) {
	switch name {
	case "mqtt+quic":
		return mqtt.Scheme{Carrier: mqtt.QUIC, Port: "14567"}, true
	case "wss":
		return mqtt.Scheme{Carrier: mqtt.WSS, Port: "443", Path: "/mqtt"}, true
	}
	return mqtt.Scheme{}, false
}

func (d *linkDialer) DialLink(ctx context.Context, u *url.URL, conf *tls.Config) (mqtt.Link, error) {
	d.url, d.conf = u, conf
	conn, err := d.l.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &idleLink{mqtt.NewConnLink(conn, mqtt.QUIC), d}, nil
}

func TestOtherCarriersGoThroughTheirDialer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		d := &linkDialer{l: l}
		own := &tls.Config{MinVersion: tls.VersionTLS13}
		c, p := dialed(t, l, &Config{URL: "mqtt+quic://broker.test", Dialers: []LinkDialer{d}, TLS: own}, &packet.Connack{})
		require.Equal(t, mqtt.QUIC, c.Carrier())
		require.Equal(t, "mqtt+quic://broker.test", d.url.String())
		require.Equal(t, "broker.test", d.conf.ServerName)
		require.Equal(t, uint16(tls.VersionTLS13), d.conf.MinVersion)
		require.Empty(t, own.ServerName, "the caller's is not changed")
		require.Equal(t, 2*defaultKeepAlive, d.idle, "the carrier is not faster than the keep-alive")
		disconnect(t, c, p)
	})
}

func TestAFailedHandshakeNamesItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		go func() {
			conn := <-l.conns
			conn.Read(make([]byte, 16<<10)) // the ClientHello
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close()
		}()
		cfg := l.config()
		cfg.URL = "mqtts://broker.test"
		_, err := Dial(t.Context(), cfg)
		var e *ConnectionError
		require.ErrorAs(t, err, &e)
		require.Equal(t, "dial", e.Op)
		require.False(t, errors.Is(err, context.DeadlineExceeded))
	})
}

// Signed URLs carry their credentials in the query.
func TestTheQueryOfAURLIsNotRepeated(t *testing.T) {
	target, err := parseURL("wss://host/path?X-Token=secret", []LinkDialer{new(linkDialer)})
	require.NoError(t, err)
	require.Equal(t, "wss://host/path", target.String())
}
