package mqttquic_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// A client that speaks MQTT by hand, on a link of any kind.
type rawClient struct {
	*world
	stream mqtt.Stream
	in     *mqtt.Reader
}

func (w *world) raw(l mqtt.Link, id string) *rawClient {
	w.Helper()
	s, err := l.OpenStream(w.Context())
	require.NoError(w, err)
	c := &rawClient{w, s, mqtt.NewReader(s, 0)}
	c.send(&packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true})
	c.expect(packet.CONNACK)
	return c
}

func (c *rawClient) send(p packet.Packet) {
	c.Helper()
	b, err := p.Append(nil, packet.V5)
	require.NoError(c, err)
	_, err = c.stream.Write(b)
	require.NoError(c, err)
}

func (c *rawClient) expect(t packet.Type) {
	c.Helper()
	h, _, err := c.in.Next()
	require.NoError(c, err)
	require.Equal(c, t, h.Type)
}

// What a network loses without a word: the subscribers have vanished, and the
// broker's part of them is still there.
func TestAHundredVanishedSubscribersCostLittleMemoryAndTime(t *testing.T) {
	const subscribers, messages = 100, 20_000
	simulate(t, nil, func(w *world, _ transport.Transport) {
		b, err := broker.New(nil)
		require.NoError(w, err)
		served := make(chan error, 1)
		go func() { served <- b.ServeLinks(w.listener) }() // ends with the broker
		defer func() {
			require.NoError(w, b.Close())
			require.NoError(w, <-served)
		}()
		for i := range subscribers {
			l, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
			require.NoError(w, err)
			c := w.raw(l, fmt.Sprint("gone", i))
			c.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: packet.QoS(i % 2)}}})
			c.expect(packet.SUBACK)
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() { _ = b.ServeLink(context.Background(), mqtt.NewConnLink(theirs, mqtt.TCP)) }() // ends with ours
		pub := w.raw(mqtt.NewConnLink(ours, mqtt.TCP), "publisher")

		w.router.down.Store(true)
		before, began := memory(), time.Now()
		for range messages {
			pub.send(&packet.Publish{Topic: "t", Payload: make([]byte, 1000)})
		}
		pub.send(&packet.Pingreq{})
		pub.expect(packet.PINGRESP)
		took, held := time.Since(began), memory()-before
		s := b.Stats()
		w.Logf("the publisher waited for %v, the broker holds %d KB, of which it counts %d KB", took, held>>10, s.QueuedBytes>>10)
		require.Less(w, held, int64(64<<20))
		require.LessOrEqual(w, s.QueuedBytes, int64(subscribers<<20))
		require.Less(w, took, 2*time.Second, "no longer than for one of them")
		require.EqualValues(w, subscribers, s.Stalled)
		w.router.down.Store(false)
	})
}
