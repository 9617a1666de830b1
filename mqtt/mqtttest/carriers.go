package mqtttest

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"testing"

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
	return Carrier{Name: "tls", Kind: mqtt.TLS, ALPN: "mqtt", Serve: func(t testing.TB, b *broker.Broker) Target {
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

// QUIC is MQTT on QUIC by an engine: listen is mqttquic.ListenAddr with it, and
// d has it as its Transport.
func QUIC(name string, listen func(addr string, cfg *mqttquic.ListenConfig) (*mqttquic.Listener, error), d *mqttquic.Dialer) Carrier {
	server, clientTLS := testcert.New() // the listener itself says what it speaks
	return Carrier{Name: name, Kind: mqtt.QUIC, ALPN: mqttquic.ALPN, Serve: func(t testing.TB, b *broker.Broker) Target {
		l, err := listen("127.0.0.1:0", &mqttquic.ListenConfig{TLS: server})
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.CloseNow() })
		serve(t, func() error { return b.ServeLinks(l) })
		return dialedBy(t, d, mqttquic.Scheme+"://"+l.Addr().String(), clientTLS)
	}}
}

// dialedBy returns a Target that d connects to.
func dialedBy(t testing.TB, d client.LinkDialer, rawURL string, clientTLS *tls.Config) Target {
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	return Target{
		Dial: func(ctx context.Context) (mqtt.Link, error) {
			target := *u
			return d.DialLink(ctx, &target, clientTLS)
		},
		Client: func(cfg *client.Config) {
			cfg.URL, cfg.TLS, cfg.Dialers = rawURL, clientTLS, []client.LinkDialer{d}
		},
	}
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
