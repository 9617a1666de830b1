package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A linkDialer is a LinkDialer whose Links are those of a listener.
type linkDialer struct {
	l    *listener
	addr string
	conf *tls.Config
	idle time.Duration
}

type idleLink struct {
	mqtt.Link
	d *linkDialer
}

func (l *idleLink) SetIdleTimeout(d time.Duration) { l.d.idle = d }

func (d *linkDialer) DialLink(ctx context.Context, addr string, conf *tls.Config) (mqtt.Link, error) {
	d.addr, d.conf = addr, conf
	conn, err := d.l.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &idleLink{mqtt.NewConnLink(conn, mqtt.QUIC), d}, nil
}

func TestQUICGoesThroughTheLinkDialer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		d := &linkDialer{l: l}
		own := &tls.Config{MinVersion: tls.VersionTLS13}
		c, p := dialed(t, l, &Config{URL: "mqtt+quic://broker.test", QUIC: d, TLS: own}, &packet.Connack{})
		require.Equal(t, mqtt.QUIC, c.Carrier())
		require.Equal(t, "broker.test:14567", d.addr)
		require.Equal(t, "broker.test", d.conf.ServerName)
		require.Equal(t, uint16(tls.VersionTLS13), d.conf.MinVersion)
		require.Empty(t, own.ServerName, "the caller's is not changed")
		require.Equal(t, 2*defaultKeepAlive, d.idle, "the carrier is not faster than the keep-alive")
		disconnect(t, c, p)
	})
}

// A server may speak WebSocket and know nothing of MQTT.
func TestAWebSocketWithoutTheSubprotocolIsRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err == nil {
			ws.CloseNow()
		}
	}))
	defer s.Close()
	_, err := Dial(t.Context(), &Config{URL: "ws" + strings.TrimPrefix(s.URL, "http")})
	require.ErrorContains(t, err, "client: dial: websocket: the server does not speak the subprotocol mqtt")
}

func TestAWebSocketIsNotRedirected(t *testing.T) {
	elsewhere := make(chan struct{}, 1)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere <- struct{}{} }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	_, err := Dial(t.Context(), &Config{URL: "ws" + strings.TrimPrefix(s.URL, "http")})
	require.Error(t, err)
	require.Empty(t, elsewhere)
}

func TestAWebSocketHasTheAddressesOfItsConnection(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			return
		}
		conn := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
		in := mqtt.NewReader(conn, 0)
		if _, _, err := in.Next(); err != nil {
			return
		}
		b, _ := (&packet.Connack{}).Append(nil, packet.V5)
		conn.Write(b)
		in.Next() // DISCONNECT
		conn.Close()
	}))
	defer s.Close()
	c, err := Dial(t.Context(), &Config{URL: "ws" + strings.TrimPrefix(s.URL, "http")})
	require.NoError(t, err)
	require.Equal(t, s.Listener.Addr().String(), c.Link().RemoteAddr().String())
	require.IsType(t, &net.TCPAddr{}, c.Link().LocalAddr())
	require.NoError(t, c.Disconnect(t.Context()))
	require.Nil(t, c.Link())
	require.Nil(t, c.TLS())
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
	s := httptest.NewServer(http.NotFoundHandler())
	address := strings.TrimPrefix(s.URL, "http")
	s.Close()
	_, err := Dial(t.Context(), &Config{URL: "ws" + address + "/mqtt?X-Token=secret"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
	target, err := parseURL("wss://host/path?X-Token=secret")
	require.NoError(t, err)
	require.Equal(t, "wss://host/path", target.String())
}
