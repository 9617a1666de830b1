package mqttquic_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

func TestAClientMigratesWithItsSessionAndWithoutConnectingAgain(t *testing.T) {
	withBothPorts(t, func(w *world, b *broker.Broker, tcp *pipenet.Listener) {
		var got []string
		cfg := w.clientConfig(tcp)
		cfg.OnMessage = func(p *packet.Publish) { got = append(got, p.Topic) }
		cfg.OnDisconnect = func(err error) { require.NoError(w, err, "the connection was lost") }
		c, err := client.Dial(w.Context(), cfg)
		require.NoError(w, err)
		_, err = c.Subscribe(w.Context(), nil, packet.Subscription{Filter: "#", QoS: 2})
		require.NoError(w, err)

		const n = 60
		acked := make(chan error, n)
		for i := range n {
			switch i {
			case 10: // a path that leads nowhere
				w.router.kill(secondAddr)
				pc := w.socket(secondAddr)
				err := c.Migrate(w.within(2*time.Second), pc)
				require.Error(w, err)
				require.NoError(w, pc.Close(), "it stayed the caller's")
				w.router.kill(nil)
				require.Equal(w, clientAddr.String(), c.Link().LocalAddr().String())
			case 30:
				to := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 4).To4(), Port: 40000}
				err := c.Migrate(w.Context(), w.socket(to))
				if errors.Is(err, errors.ErrUnsupported) {
					w.Fatal("every engine of this build migrates")
				}
				require.NoError(w, err)
				require.Equal(w, to.String(), c.Link().LocalAddr().String())
				w.router.kill(clientAddr) // the old network is gone
			}
			require.NoError(w, c.PublishAsync(w.Context(), &packet.Publish{Topic: fmt.Sprint(i), QoS: packet.QoS(1 + i%2)}, func(err error) { acked <- err }))
			time.Sleep(20 * time.Millisecond) // virtual
		}
		for range n {
			require.NoError(w, <-acked)
		}
		time.Sleep(time.Second) // virtual
		synctest.Wait()         // got is another goroutine's
		require.Len(w, got, n, "each once")
		require.EqualValues(w, 1, c.Stats().Connections)
		require.EqualValues(w, 1, b.Stats().Connections[mqtt.QUIC].Total)
		require.NoError(w, c.Disconnect(w.Context()))
		require.ErrorIs(w, c.Migrate(w.Context(), nil), net.ErrClosed)
	})
}

func TestAClientMigratesToASocketOfItsOwnOnLoopback(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			serverTLS, clientTLS := testcert.New()
			l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS, HandshakeTimeout: time.Minute})
			require.NoError(t, err)
			b, err := broker.New(nil)
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- b.ServeLinks(l) }() // ends with b.Close
			defer func() {
				require.NoError(t, b.Close())
				require.NoError(t, <-served)
			}()
			c, err := client.Dial(t.Context(), &client.Config{
				URL: "mqtt+quic://" + l.Addr().String(), TLS: clientTLS, Dialers: []client.LinkDialer{&mqttquic.Dialer{Transport: e, HandshakeTimeout: time.Minute}},
			})
			require.NoError(t, err)
			before := c.Link().LocalAddr().String()
			err = c.Migrate(t.Context(), nil)
			for range 5 {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				// The server has three seconds or so to answer on the new path (RFC 9000,
				// Section 8.2.4), which a busy machine may take. The connection is where it
				// was.
				require.Equal(t, before, c.Link().LocalAddr().String())
				err = c.Migrate(t.Context(), nil)
			}
			require.NoError(t, err)
			require.NotEqual(t, before, c.Link().LocalAddr().String())
			_, err = c.Publish(t.Context(), &packet.Publish{Topic: "a", QoS: 2})
			require.NoError(t, err)
			require.NoError(t, c.Disconnect(t.Context()))
			require.EqualValues(t, 1, c.Stats().Connections)
		})
	}
}

func TestOtherCarriersDoNotMigrate(t *testing.T) {
	withBothPorts(t, func(w *world, _ *broker.Broker, tcp *pipenet.Listener) {
		cfg := w.clientConfig(tcp)
		cfg.URLs = cfg.URLs[1:]
		c, err := client.Dial(w.Context(), cfg)
		require.NoError(w, err)
		require.ErrorIs(w, c.Migrate(context.Background(), nil), errors.ErrUnsupported)
		require.NoError(w, c.Disconnect(w.Context()))

		require.ErrorIs(w, mqttquic.Wrap(nil, true).Migrate(w.Context(), nil), errors.ErrUnsupported, "a server")
	})
}
