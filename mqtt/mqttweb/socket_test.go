package mqttweb_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	_ "github.com/anyquic/anyquic/http3/websocket/http2connect"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// dialWebSocket connects as a client that knows nothing of MQTT.
func dialWebSocket(t *testing.T, s *loopback, e transport.Transport, scheme string, h http.Header, protocols ...string) (*websocket.Conn, error) {
	t.Helper()
	var rt http.RoundTripper
	switch scheme {
	case "wss+h3":
		tr := &http3.Transport{Engine: e, TLS: s.tls, Config: &transport.Config{HandshakeTimeout: patience}}
		t.Cleanup(func() { require.NoError(t, tr.Close()) })
		rt = tr
	case "wss+h2":
	default:
		rt = &http.Transport{TLSClientConfig: s.tls}
	}
	u := s.url(scheme)
	u.Scheme = "https"
	if scheme == "ws" {
		u.Scheme = "http"
	}
	ws, err := websocket.Dial(t.Context(), u.String(), &websocket.DialOptions{
		Transport: rt, Version: map[string]int{"wss+h2": 2}[scheme], TLS: s.tls, Header: h, Subprotocols: protocols,
	})
	if err == nil {
		t.Cleanup(func() { _ = ws.CloseNow() })
	}
	return ws, err
}

// closedWith reads to the end and returns what the Close frame said.
func closedWith(t *testing.T, ws *websocket.Conn) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, _, err := ws.Read(ctx)
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*websocket.CloseError](err)
		require.True(t, ok, "%v", err)
		require.True(t, e.Remote, "%v", err)
		return e.Code
	}
}

func connect(t *testing.T, v packet.Version, id string) []byte {
	t.Helper()
	b, err := (&packet.Connect{Version: v, ClientID: id, CleanStart: true}).Append(nil, v)
	require.NoError(t, err)
	return b
}

func TestTheCloseFrameSaysWhyALinkEnds(t *testing.T) {
	disconnect := []byte{0xE0, 0}
	malformed := []byte{0x00, 0}
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, nil, nil)
		start := func(more ...byte) *websocket.Conn {
			ws, err := dialWebSocket(t, s, e, scheme, nil, "mqtt")
			require.NoError(t, err)
			require.Equal(t, "mqtt", ws.Subprotocol())
			require.NoError(t, ws.Write(t.Context(), websocket.Binary, connect(t, packet.V311, "c")))
			_, connack, err := ws.Read(t.Context())
			require.NoError(t, err)
			require.Equal(t, []byte{0x20, 2, 0, 0}, connack)
			if len(more) > 0 {
				require.NoError(t, ws.Write(t.Context(), websocket.Binary, more))
			}
			return ws
		}
		require.Equal(t, websocket.StatusNormal, closedWith(t, start(disconnect...)))
		require.Equal(t, websocket.StatusProtocolError, closedWith(t, start(malformed...)))

		ws := start()
		require.NoError(t, ws.Write(t.Context(), websocket.Text, []byte("text")))
		require.Equal(t, websocket.StatusUnsupportedData, closedWith(t, ws)) // [MQTT-6.0.0-1]

		ws, err := dialWebSocket(t, s, e, scheme, nil)
		require.NoError(t, err)
		require.Equal(t, websocket.StatusPolicyViolation, closedWith(t, ws))

		ws = start()
		done := make(chan error, 1)
		go func() { done <- s.broker.Shutdown(context.Background()) }() // ends within the drain timeout
		require.Equal(t, websocket.StatusGoingAway, closedWith(t, ws))
		require.NoError(t, <-done)

		_, err = dialWebSocket(t, s, e, scheme, nil, "mqtt")
		refused, ok := errors.AsType[*websocket.HandshakeError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, http.StatusServiceUnavailable, refused.StatusCode)
	})
}

func TestTooManyClientsAreToldToTryAgainLater(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, nil, &broker.Config{MaxConns: 1})
		first, err := dialWebSocket(t, s, e, scheme, nil, "mqtt")
		require.NoError(t, err)
		require.NoError(t, first.Write(t.Context(), websocket.Binary, connect(t, packet.V311, "first")))
		_, _, err = first.Read(t.Context())
		require.NoError(t, err)
		second, err := dialWebSocket(t, s, e, scheme, nil, "mqtt")
		require.NoError(t, err)
		require.NoError(t, second.Write(t.Context(), websocket.Binary, connect(t, packet.V311, "second")))
		_, connack, err := second.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, []byte{0x20, 2, 0, 3}, connack, "server unavailable")
		require.Equal(t, websocket.StatusTryAgainLater, closedWith(t, second))
	})
}

func TestPagesOfOtherOriginsAreRefusedUnlessAllowed(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, &mqttweb.ListenConfig{Origins: []string{"app.example", "https://*.pages.example", "http://[::1]:8080"}}, nil)
		own := "https://" + s.url(scheme).Host
		if scheme == "ws" {
			own = "http://" + s.plain
		}
		for origin, allowed := range map[string]bool{
			own:                           true,
			"https://app.example":         true,
			"https://a.pages.example":     true,
			"http://[::1]:8080":           true,
			"http://app.example":          false,
			"https://app.example:444":     false,
			"https://pages.example":       false,
			"https://evil.example":        false,
			"https://app.example.evil":    false,
			"http://[::1]:8081":           false,
			"null":                        false,
			"https://a.pages.example.org": false,
		} {
			ws, err := dialWebSocket(t, s, e, scheme, http.Header{"Origin": {origin}}, "mqtt")
			if allowed {
				require.NoError(t, err, origin)
				require.NoError(t, ws.Close(websocket.StatusNormal, ""))
				continue
			}
			refused, ok := errors.AsType[*websocket.HandshakeError](err)
			require.True(t, ok, "%s: %v", origin, err)
			require.Equal(t, http.StatusForbidden, refused.StatusCode, origin)
		}
	})
}

func TestEveryOriginMayBeAllowed(t *testing.T) {
	s := newLoopback(t, nil, &mqttweb.ListenConfig{Origins: []string{"*"}}, nil)
	_, err := dialWebSocket(t, s, nil, "wss", http.Header{"Origin": {"https://evil.example"}}, "mqtt")
	require.NoError(t, err)
}

func TestPacketsMaySpanMessages(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, nil, nil)
		ws, err := dialWebSocket(t, s, e, scheme, nil, "mqttv3.1")
		require.NoError(t, err)
		require.Equal(t, "mqttv3.1", ws.Subprotocol())
		for _, b := range append(connect(t, packet.V31, "c"), 0xC0, 0) {
			require.NoError(t, ws.Write(t.Context(), websocket.Binary, []byte{b}))
		}
		var got []byte
		for len(got) < 6 {
			typ, b, err := ws.Read(t.Context())
			require.NoError(t, err)
			require.Equal(t, websocket.Binary, typ)
			got = append(got, b...)
		}
		require.Equal(t, []byte{0x20, 2, 0, 0, 0xD0, 0}, got)
	})
}

// A subscriber that takes nothing must not hold up the broker's end.
func TestAClientThatDoesNotReadIsNotWaitedFor(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		s := newLoopback(t, e, nil, &broker.Config{StallTimeout: time.Hour, HoldTimeout: time.Hour})
		ws, err := dialWebSocket(t, s, e, scheme, nil, "mqtt")
		require.NoError(t, err)
		require.NoError(t, ws.Write(t.Context(), websocket.Binary, connect(t, packet.V5, "deaf")))
		require.NoError(t, ws.Write(t.Context(), websocket.Binary, encode(t,
			&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t"}}})))
		_, _, err = ws.Read(t.Context())
		require.NoError(t, err)

		conn, err := net.Dial("tcp", s.tcp)
		require.NoError(t, err)
		pub := connected(t, mqtt.NewConnLink(conn, mqtt.TCP), "pub")
		big := encode(t, &packet.Publish{Topic: "t", Payload: make([]byte, 500_000)})
		for full := false; !full; {
			require.NoError(t, pub.stream.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
			_, err := pub.stream.Write(big)
			// The publisher is made to wait; or not, if the carrier can tell that
			// there is nobody to wait for.
			full = err != nil || s.broker.Stats().Dropped[broker.DropQueueFull] > 0
		}
		start := time.Now()
		require.NoError(t, s.broker.Close())
		require.Less(t, time.Since(start), time.Minute)
		require.NoError(t, pub.link.CloseWithCode(mqtt.LinkNormal))
	})
}

func TestAServerThatDoesNotSpeakMQTTIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"a WebSocket without the subprotocol": {func(w http.ResponseWriter, r *http.Request) {
			if ws, err := websocket.Accept(w, r, nil); err == nil {
				_ = ws.CloseNow()
			}
		}, "mqttweb: the server does not speak the subprotocol mqtt"},
		"no WebSocket": {http.NotFound, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(tt.handler)
			defer s.Close()
			u, err := url.Parse("ws" + strings.TrimPrefix(s.URL, "http") + "/mqtt?X-Token=secret")
			require.NoError(t, err)
			_, err = new(mqttweb.Dialer).DialLink(t.Context(), u, nil)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "secret", "signed URLs carry credentials")
		})
	}
}

func TestAWebSocketIsNotRedirected(t *testing.T) {
	elsewhere := make(chan struct{}, 1)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere <- struct{}{} }))
	defer other.Close()
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	_, err := new(mqttweb.Dialer).DialLink(t.Context(), &url.URL{Scheme: "ws", Host: s.Listener.Addr().String()}, nil)
	require.ErrorContains(t, err, "307")
	require.Empty(t, elsewhere)
}

func TestNetDialOpensTheConnections(t *testing.T) {
	s := newLoopback(t, nil, nil, nil)
	for scheme, carrier := range map[string]mqtt.Carrier{"ws": mqtt.WebSocket, "wss": mqtt.WSS, "wss+h2": mqtt.WSSH2} {
		to := s.url(scheme).Host
		var asked *url.URL
		d := &mqttweb.Dialer{NetDial: func(ctx context.Context, u *url.URL) (net.Conn, error) {
			asked = u
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		}}
		l, err := d.DialLink(t.Context(), &url.URL{Scheme: scheme, Host: "localhost"}, s.tls)
		require.NoError(t, err)
		require.Equal(t, scheme+"://localhost", asked.String())
		require.Equal(t, carrier, l.Carrier())
		require.Equal(t, carrier.Secure(), l.TLS() != nil)
		require.Equal(t, to, l.RemoteAddr().String())
		require.IsType(t, &net.TCPAddr{}, l.LocalAddr())
		connected(t, l, "c").ping()
		require.EqualValues(t, 1, s.broker.Stats().Connections[carrier].Total)
		require.NoError(t, l.CloseWithCode(mqtt.LinkNormal))
	}
}

func TestAnUntrustedCertificateIsRefused(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, e transport.Transport, scheme string) {
		if scheme == "ws" {
			return
		}
		s := newLoopback(t, e, nil, nil)
		_, err := (&mqttweb.Dialer{Transport: e}).DialLink(t.Context(), s.url(scheme), nil)
		require.ErrorContains(t, err, "certificate")
	})
}

func TestADialerNamesWhatItLacks(t *testing.T) {
	for scheme, want := range map[string]string{
		"wss+h3":  "neither Transport nor DialQUIC",
		"mqtt+wt": "neither Transport nor DialQUIC",
		"http":    `URL scheme "http"`,
	} {
		_, err := new(mqttweb.Dialer).DialLink(t.Context(), &url.URL{Scheme: scheme, Host: "localhost"}, nil)
		require.ErrorContains(t, err, want)
	}
	// A server of HTTP/1.1 cannot do what HTTP/2 does.
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	conf := s.Client().Transport.(*http.Transport).TLSClientConfig
	conf.ServerName = "example.com"
	_, err := new(mqttweb.Dialer).DialLink(t.Context(), &url.URL{Scheme: "wss+h2", Host: s.Listener.Addr().String()}, conf)
	require.ErrorContains(t, err, "no application protocol")
}
