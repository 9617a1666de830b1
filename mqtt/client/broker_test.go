package client_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// Carriers that need no other package; mqtttest has all.
var carriers = []mqtt.Carrier{mqtt.TCP, mqtt.TLS}

// serve starts a broker on one carrier of loopback.
func serve(t *testing.T, carrier mqtt.Carrier) (addr string, clientTLS *tls.Config) {
	b, err := broker.New(nil)
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serverTLS, clientTLS := testcert.New()
	if carrier == mqtt.TLS {
		ln = tls.NewListener(ln, serverTLS)
	}
	done := make(chan error, 1)
	scheme := map[mqtt.Carrier]string{mqtt.TCP: "mqtt", mqtt.TLS: "mqtts"}[carrier]
	go func() { done <- b.Serve(ln, carrier) }()
	t.Cleanup(func() {
		ln.Close()
		require.NoError(t, b.Close())
		<-done
	})
	return scheme + "://localhost:" + strings.Split(ln.Addr().String(), ":")[1], clientTLS
}

func dial(t *testing.T, cfg *client.Config) *client.Client {
	c, err := client.Dial(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMessagesPassThroughTheBrokerOnEveryCarrier(t *testing.T) {
	for _, carrier := range carriers {
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
			t.Run(fmt.Sprintf("%s/%v", carrier, v), func(t *testing.T) {
				addr, conf := serve(t, carrier)
				got := make(chan *packet.Publish, 100)
				sub := dial(t, &client.Config{URL: addr, TLS: conf, Version: v, ClientID: "sub", CleanStart: true})
				require.Equal(t, carrier, sub.Carrier())
				require.Equal(t, carrier == mqtt.TLS, sub.TLS() != nil)
				_, err := sub.Subscribe(t.Context(), func(p *packet.Publish) { got <- client.Clone(p) },
					packet.Subscription{Filter: "a/#", QoS: 2})
				require.NoError(t, err)
				pub := dial(t, &client.Config{URL: addr, TLS: conf, Version: v, ClientID: "pub", CleanStart: true})
				for i := range 30 {
					_, err := pub.Publish(t.Context(), &packet.Publish{
						Topic: fmt.Sprintf("a/%d", i), Payload: []byte(strings.Repeat("x", i*i*i)), QoS: packet.QoS(i % 3),
					})
					require.NoError(t, err)
				}
				seen := map[string]packet.QoS{}
				for range 30 {
					p := <-got
					seen[p.Topic] = p.QoS
				}
				for i := range 30 {
					require.Equal(t, packet.QoS(i%3), seen[fmt.Sprintf("a/%d", i)])
				}
				require.NoError(t, pub.Disconnect(t.Context()))
				require.NoError(t, sub.Disconnect(t.Context()))
				require.Empty(t, got, "once")
			})
		}
	}
}

func TestTheBrokerClosesAfterDisconnectAndNobodyWaits(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := broker.New(nil)
				require.NoError(t, err)
				serverTLS, clientTLS := testcert.New()
				port := pipenet.Listen(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8883}, 64<<10)
				served := make(chan error, 1)
				go func() { served <- b.Serve(tls.NewListener(port, serverTLS), mqtt.TLS) }() // ends with port
				defer func() {
					require.NoError(t, port.Close())
					require.NoError(t, b.Close())
					<-served
				}()
				c := dial(t, &client.Config{
					URL: "mqtts://localhost", TLS: clientTLS, Version: v, ClientID: "c", CleanStart: true,
					Dial: func(ctx context.Context, _ *url.URL) (net.Conn, error) { return port.Dial(ctx) },
				})
				start := time.Now()
				require.NoError(t, c.Disconnect(t.Context()))
				require.Zero(t, time.Since(start))
			})
		})
	}
}

func TestAServerWithoutATrustedCertificateIsRefused(t *testing.T) {
	addr, _ := serve(t, mqtt.TLS)
	_, err := client.Dial(t.Context(), &client.Config{URL: addr})
	var e *tls.CertificateVerificationError
	require.ErrorAs(t, err, &e)
}

// cutDialer returns a dialer that sends its connections to cut as well.
func cutDialer(cut chan net.Conn) func(context.Context, *url.URL) (net.Conn, error) {
	return func(ctx context.Context, u *url.URL) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", u.Host)
		if err == nil {
			cut <- conn
		}
		return conn, err
	}
}

func TestNothingIsLostWhenConnectionsBreak(t *testing.T) {
	addr, _ := serve(t, mqtt.TCP)
	const n = 300
	got := map[string]int{}
	all := make(chan struct{})
	cut := make(chan net.Conn, 100)
	cfg := func(id string) *client.Config {
		return &client.Config{
			URL: addr, ClientID: id, SessionExpiry: time.Minute, InflightMax: 10,
			Dial:      cutDialer(cut),
			Reconnect: client.Backoff{Min: time.Millisecond, Max: 2 * time.Millisecond},
		}
	}
	sub := dial(t, cfg("sub"))
	_, err := sub.Subscribe(t.Context(), func(p *packet.Publish) {
		if got[string(p.Payload)]++; len(got) == n {
			select {
			case <-all:
			default:
				close(all)
			}
		}
	}, packet.Subscription{Filter: "t", QoS: 2})
	require.NoError(t, err)
	pub := dial(t, cfg("pub"))
	acked := make(chan error, n)
	for i := range n {
		require.NoError(t, pub.PublishAsync(t.Context(), &packet.Publish{
			Topic: "t", Payload: fmt.Append(nil, i), QoS: 2,
		}, func(err error) { acked <- err }))
		if i%30 == 15 {
			for len(cut) > 0 {
				(<-cut).Close()
			}
		}
	}
	for range n {
		require.NoError(t, <-acked)
	}
	<-all
	require.NoError(t, sub.Disconnect(t.Context()))
	require.Len(t, got, n)
	for payload, times := range got {
		require.Equal(t, 1, times, "%s exactly once", payload)
	}
	require.Greater(t, pub.Stats().Connections, uint64(1), "connections were cut")
}

func TestRequestAndResponseThroughTheBroker(t *testing.T) {
	addr, _ := serve(t, mqtt.TCP)
	server := dial(t, &client.Config{URL: addr})
	_, err := server.Subscribe(t.Context(), func(p *packet.Publish) {
		err := server.PublishAsync(context.Background(), &packet.Publish{
			Topic: p.Properties.ResponseTopic, Payload: append([]byte("re: "), p.Payload...), QoS: 1,
			Properties: &packet.Properties{CorrelationData: p.Properties.CorrelationData},
		}, nil)
		require.NoError(t, err)
	}, packet.Subscription{Filter: "service", QoS: 1})
	require.NoError(t, err)
	c := dial(t, &client.Config{URL: addr})
	for i := range 3 {
		p, err := c.Request(t.Context(), "service", fmt.Append(nil, i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("re: %d", i), string(p.Payload))
	}
	_, err = c.Request(t.Context(), "nobody", nil)
	require.ErrorIs(t, err, client.ErrNoSubscribers)
}

func TestAnotherClientTakesOver(t *testing.T) {
	addr, _ := serve(t, mqtt.TCP)
	first := dial(t, &client.Config{URL: addr, ClientID: "same"})
	second := dial(t, &client.Config{URL: addr, ClientID: "same"})
	<-first.Done()
	var e *client.DisconnectError
	require.ErrorAs(t, first.Err(), &e)
	require.Equal(t, packet.SessionTakenOver, e.Code)
	_, err := second.Publish(context.Background(), &packet.Publish{Topic: "a", QoS: 1})
	require.NoError(t, err)
}
