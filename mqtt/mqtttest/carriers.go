package mqtttest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
)

// TCP is MQTT on TCP.
func TCP() Carrier {
	return Carrier{Name: "tcp", Kind: mqtt.TCP, Serve: func(t testing.TB, b *broker.Broker) Target {
		l := listenTCP(t)
		serve(t, func() error { return b.Serve(l, mqtt.TCP) })
		var d net.Dialer
		return Target{
			Dial: func(ctx context.Context) (mqtt.Link, error) {
				c, err := d.DialContext(ctx, "tcp", l.Addr().String())
				if err != nil {
					return nil, err
				}
				return mqtt.NewConnLink(c, mqtt.TCP), nil
			},
			Client: func(cfg *client.Config) { cfg.URL = "mqtt://" + l.Addr().String() },
		}
	}}
}

// TLS is MQTT on TLS on TCP.
func TLS() Carrier {
	server, clientTLS := testcert.New("mqtt")
	return Carrier{Name: "tls", Kind: mqtt.TLS, Serve: func(t testing.TB, b *broker.Broker) Target {
		l := listenTCP(t)
		serve(t, func() error { return b.Serve(tls.NewListener(l, server), mqtt.TLS) })
		d := tls.Dialer{Config: clientTLS}
		return Target{
			Dial: func(ctx context.Context) (mqtt.Link, error) {
				c, err := d.DialContext(ctx, "tcp", l.Addr().String())
				if err != nil {
					return nil, err
				}
				return mqtt.NewConnLink(c, mqtt.TLS), nil
			},
			Client: func(cfg *client.Config) {
				cfg.URL, cfg.TLS = "mqtts://"+l.Addr().String(), clientTLS
			},
		}
	}}
}

// WebSocket is MQTT in binary WebSocket messages on TCP (MQTT 5, Section 6).
func WebSocket() Carrier {
	return Carrier{Name: "ws", Kind: mqtt.WebSocket, Serve: func(t testing.TB, b *broker.Broker) Target {
		return serveWebSocket(t, b, "ws", mqtt.WebSocket, nil, nil)
	}}
}

// WSS is WebSocket on TLS.
func WSS() Carrier {
	server, clientTLS := testcert.New("http/1.1")
	return Carrier{Name: "wss", Kind: mqtt.WSS, Serve: func(t testing.TB, b *broker.Broker) Target {
		return serveWebSocket(t, b, "wss", mqtt.WSS, server, clientTLS)
	}}
}

func serveWebSocket(t testing.TB, b *broker.Broker, scheme string, kind mqtt.Carrier, server, clientTLS *tls.Config) Target {
	l := listenTCP(t)
	url := scheme + "://" + l.Addr().String() + "/mqtt"
	hs := &http.Server{Handler: b.WebSocketHandler()}
	if server != nil {
		l = tls.NewListener(l, server)
	}
	served := make(chan struct{})
	go func() { // ends with hs.Close
		defer close(served)
		_ = hs.Serve(l)
	}()
	t.Cleanup(func() { hs.Close(); <-served })
	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS}}
	t.Cleanup(httpClient.CloseIdleConnections)
	return Target{
		Dial: func(ctx context.Context) (mqtt.Link, error) {
			c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
				HTTPClient: httpClient, Subprotocols: []string{"mqtt"}, CompressionMode: websocket.CompressionDisabled,
			})
			if err != nil {
				return nil, err
			}
			if c.Subprotocol() != "mqtt" { // [MQTT-6.0.0-4]
				return nil, errors.Join(errors.New("the server did not choose the subprotocol mqtt"), c.CloseNow())
			}
			c.SetReadLimit(-1)
			return mqtt.NewConnLink(websocket.NetConn(context.Background(), c, websocket.MessageBinary), kind), nil
		},
		Client: func(cfg *client.Config) { cfg.URL, cfg.TLS = url, clientTLS },
	}
}

// QUIC is MQTT on QUIC by an engine: listen is mqttquic.ListenAddr with it, and
// d has it as its Transport.
func QUIC(name string, listen func(addr string, cfg *mqttquic.ListenConfig) (*mqttquic.Listener, error), d *mqttquic.Dialer) Carrier {
	server, clientTLS := testcert.New() // the listener itself says what it speaks
	return Carrier{Name: name, Kind: mqtt.QUIC, Serve: func(t testing.TB, b *broker.Broker) Target {
		l, err := listen("127.0.0.1:0", &mqttquic.ListenConfig{TLS: server})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.CloseNow() })
		serve(t, func() error { return b.ServeLinks(l) })
		return Target{
			Dial: func(ctx context.Context) (mqtt.Link, error) { return d.DialLink(ctx, l.Addr().String(), clientTLS) },
			Client: func(cfg *client.Config) {
				cfg.URL, cfg.TLS, cfg.QUIC = "mqtt+quic://"+l.Addr().String(), clientTLS, d
			},
		}
	}}
}

func listenTCP(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// serve runs f, which returns when the broker is closed.
func serve(t testing.TB, f func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }() // ends with the broker, which the test closes, or its listener
	t.Cleanup(func() {
		if err := <-done; err != nil {
			require.ErrorIs(t, err, net.ErrClosed)
		}
	})
}
