package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestTwoBrokersExchangeMessagesByTheBridgesOfTheFile(t *testing.T) {
	remote := startServe(t)
	for _, carrier := range []string{"quic", "tls", "tcp", "wss"} {
		t.Run(carrier, func(t *testing.T) {
			local := startServe(t, "--config", writeFile(t, "broker.yaml", fmt.Sprintf(`
node: here
bridges:
  - name: up
    url: %s
    insecure: true
    forward:
      - filter: sensors/#
        to: %s/sensors/$1
    subscribe:
      - filter: orders/+
        qos: 1
`, remote.url(carrier), carrier)))
			subscribe := func(s *served, filter string) <-chan *packet.Publish {
				got := make(chan *packet.Publish, 1)
				c := dialClient(t, s)
				_, err := c.Subscribe(t.Context(), func(p *packet.Publish) { got <- client.Clone(p) }, packet.Subscription{Filter: filter, QoS: 2})
				require.NoError(t, err)
				return got
			}
			up, down := subscribe(remote, carrier+"/#"), subscribe(local, "orders/#")
			_, err := dialClient(t, local).Publish(t.Context(), &packet.Publish{Topic: "sensors/a/b", Payload: []byte("1"), QoS: 2})
			require.NoError(t, err)
			p := <-up // waits for the bridge to connect
			require.Equal(t, carrier+"/sensors/a/b", p.Topic)
			require.Equal(t, packet.ExactlyOnce, p.QoS)

			// The subscription may not be made yet, and is then made with what is retained.
			_, err = dialClient(t, remote).Publish(t.Context(), &packet.Publish{Topic: "orders/" + carrier, Payload: []byte("2"), QoS: 2, Retain: true})
			require.NoError(t, err)
			for p = <-down; p.Topic != "orders/"+carrier; p = <-down { // of the carriers before
			}
			require.Equal(t, packet.AtLeastOnce, p.QoS)

			_, text := local.get(t, "/metrics")
			require.Contains(t, text, `anyquic_bridge_connected{bridge="up"} 1`)
			require.Contains(t, text, `anyquic_bridge_received_total{bridge="up"} `)
			require.Contains(t, text, `anyquic_bridge_dropped_total{bridge="up",reason="queue full"} 0`)
		})
	}
}

func TestBridgesThatAreWrongAreRefusedWithAReason(t *testing.T) {
	const good = "bridges:\n  - name: a\n    url: mqtt://localhost\n    forward:\n"
	for text, want := range map[string]string{
		good + "      - filter: a/#/b\n":                                                       "[5:15] rewrite: filter \"a/#/b\"",
		good + "      - filter: a/+\n        to: b/$2\n":                                       "there is no $2",
		good + "      - filter: a/+\n        qos: 3\n":                                         "qos 3: use 0, 1 or 2",
		good + "      - filter: a/+\n        qso: 1\n":                                         "unknown field \"qso\"",
		good + "      - filter: a\n    version: 4.2\n":                                         "use 5, 311 or 31",
		good + "      - filter: a\n    password-file: /does/not/exist\n":                       "password-file: ",
		good + "      - filter: a\n    cert: x\n":                                              "go together",
		good + "      - filter: a\n    queue-bytes: -1\n":                                      "cannot be negative",
		good + "      - filter: a\n  - name: a\n    url: mqtt://b\n    forward: [filter: b]\n": "entry 2: bridge: a: another bridge has that name",
		"bridges:\n  - name: a\n    url: mqtt://localhost\n":                                   "nothing to carry",
		"bridges:\n  - name: a\n    url: ftp://x\n    forward: [filter: a]\n":                  "entry 1: bridge: a: remote broker: ",
	} {
		code, _, stderr := anyquic(t, "serve", "--check", "--config", writeFile(t, "bad.yaml", text))
		require.NotZero(t, code, text)
		require.Contains(t, stderr, want, text)
	}
}

// dialClient connects to a broker over TCP.
func dialClient(t *testing.T, s *served) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), &client.Config{URL: s.url("tcp")})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
