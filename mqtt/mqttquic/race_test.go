package mqttquic_test

import (
	"context"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// withBothPorts is withBroker with a TCP port beside it, whose connections drop ends.
func withBothPorts(t *testing.T, f func(w *world, b *broker.Broker, tcp *pipenet.Listener)) {
	t.Helper()
	simulate(t, nil, func(w *world, _ transport.Transport) {
		b, err := broker.New(nil)
		require.NoError(w, err)
		tcp := pipenet.Listen(&net.TCPAddr{IP: serverAddr.IP, Port: 1883}, 64<<10)
		served := make(chan error, 2)
		go func() { served <- b.ServeLinks(w.listener) }() // ends with b.Close
		go func() { served <- b.Serve(tcp, mqtt.TCP) }()
		defer func() {
			require.NoError(w, tcp.Close())
			require.NoError(w, b.Close())
			<-served
			<-served
		}()
		f(w, b, tcp)
	})
}

// clientConfig is for a client that prefers QUIC to TCP.
func (w *world) clientConfig(tcp *pipenet.Listener) *client.Config {
	return &client.Config{
		URLs:      []string{serverURL.String(), "mqtt://" + tcp.Addr().String()},
		TLS:       w.clientTLS,
		Dialers:   []client.LinkDialer{w.dialer()},
		Dial:      func(ctx context.Context, _ *url.URL) (net.Conn, error) { return tcp.Dial(ctx) },
		ClientID:  "racer",
		Reconnect: client.Backoff{Min: time.Second, Max: time.Second},
	}
}

func TestABlockedUDPPortCostsAClientItsHeadStartOnceAndIsTriedAgainLater(t *testing.T) {
	withBothPorts(t, func(w *world, b *broker.Broker, tcp *pipenet.Listener) {
		w.router.down.Store(true)
		start := time.Now()
		c, err := client.Dial(w.Context(), w.clientConfig(tcp))
		require.NoError(w, err)
		require.Equal(w, 300*time.Millisecond, time.Since(start))
		require.Equal(w, mqtt.TCP, c.Carrier())
		_, err = c.Publish(w.Context(), &packet.Publish{Topic: "a", QoS: 1})
		require.NoError(w, err)

		// It is remembered.
		tcp.Drop()
		synctest.Wait()
		start = time.Now()
		_, err = c.Publish(w.Context(), &packet.Publish{Topic: "a", QoS: 1})
		require.NoError(w, err)
		require.LessOrEqual(w, time.Since(start), time.Second, "the back-off alone")
		require.Equal(w, mqtt.TCP, c.Carrier())

		// Until it is forgotten. By then the port is open.
		w.router.down.Store(false)
		time.Sleep(5 * time.Minute) // virtual
		tcp.Drop()
		synctest.Wait()
		_, err = c.Publish(w.Context(), &packet.Publish{Topic: "a", QoS: 1})
		require.NoError(w, err)
		require.Equal(w, mqtt.QUIC, c.Carrier())
		require.NoError(w, c.Disconnect(w.Context()))
		require.EqualValues(w, 3, b.Stats().Connections[mqtt.TCP].Total+b.Stats().Connections[mqtt.QUIC].Total, "one CONNECT each")
	})
}

func TestAnOpenUDPPortWinsTheRaceAndNothingElseIsTried(t *testing.T) {
	withBothPorts(t, func(w *world, _ *broker.Broker, tcp *pipenet.Listener) {
		cfg := w.clientConfig(tcp)
		cfg.Dial = func(context.Context, *url.URL) (net.Conn, error) {
			w.Error("TCP was tried")
			return nil, net.ErrClosed
		}
		c, err := client.Dial(w.Context(), cfg)
		require.NoError(w, err)
		require.Equal(w, mqtt.QUIC, c.Carrier())
		require.IsType(w, &mqttquic.Link{}, c.Link())
		require.NoError(w, c.Disconnect(w.Context()))
	})
}
