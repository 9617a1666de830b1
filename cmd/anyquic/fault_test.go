package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestServeMisbehavesIfItIsAskedTo(t *testing.T) {
	e := engine.Default()
	for _, carrier := range []string{"tcp", "tls", "quic", "wss", string(mqtt.WSSH3), string(mqtt.WebTransport)} {
		t.Run(carrier, func(t *testing.T) {
			s := startServe(t, "--fault", "all", "--fault-rate", "0.3", "--fault-limit", "100")
			topic := strings.ReplaceAll(carrier, "+", "-")
			const n = 50
			got := make(chan string, 10*n)
			losses := make(chan error, 1000)
			dial := func(id string, change func(*client.Config)) *client.Client {
				cfg := &client.Config{
					URL: s.url(carrier), ClientID: carrier + id, SessionExpiry: time.Hour,
					TLS:       &tls.Config{InsecureSkipVerify: true},
					Dialers:   []client.LinkDialer{&mqttquic.Dialer{Transport: e}, &mqttweb.Dialer{Transport: e}},
					Reconnect: client.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond},
				}
				change(cfg)
				for {
					c, err := client.Dial(t.Context(), cfg)
					if err == nil {
						t.Cleanup(func() { c.Close() })
						return c
					}
					var refused *client.ConnectError
					require.ErrorAs(t, err, &refused)
				}
			}
			sub := dial("sub", func(cfg *client.Config) {
				cfg.OnDisconnect = func(err error) { losses <- err }
				cfg.OnMessage = func(p *packet.Publish) {
					if !strings.HasPrefix(string(p.Payload), "publish-before") {
						got <- string(p.Payload)
					}
				}
			})
			pub := dial("pub", func(*client.Config) {})
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			_, err := sub.Subscribe(ctx, nil, packet.Subscription{Filter: topic + "/+", QoS: 2})
			require.NoError(t, err)
			for i := range n {
				_, err := pub.Publish(ctx, &packet.Publish{Topic: topic + "/t", Payload: fmt.Append(nil, i), QoS: 2})
				require.NoError(t, err)
			}
			seen := make(map[string]int)
			for len(seen) < n {
				select {
				case m := <-got:
					seen[m]++
					require.Equal(t, 1, seen[m], m)
				case <-ctx.Done():
					require.Fail(t, "messages are missing", "%d of %d; %d losses", len(seen), n, len(losses))
				}
			}
			require.NotEmpty(t, losses)
		})
	}
}

func TestServeRefusesFaultsBeyondLoopback(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--fault", "cut", "--allow-anonymous", "--tcp", "0.0.0.0:0"}, "loopback only"},
		{[]string{"--fault", "earthquake"}, "no such fault"},
		{[]string{"--fault", "cut", "--fault-rate", "2"}, "between 0 and 1"},
		{[]string{"--fault", "cut", "--fault-rate", "0"}, "--fault-rate is 0"},
	} {
		var stderr buffer
		args := append([]string{"serve", "--tls", "off", "--ws", "off", "--wss", "off", "--quic", "off", "--metrics", "off"}, tc.args...)
		require.NotZero(t, run(t.Context(), args, strings.NewReader(""), &buffer{}, &stderr))
		require.Contains(t, stderr.String(), tc.want)
	}
}
