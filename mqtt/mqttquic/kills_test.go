package mqttquic_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A killerDialer knows the streams of the connection that was dialled last.
type killerDialer struct {
	*mqttquic.Dialer
	mu      sync.Mutex
	link    mqtt.Link
	streams map[mqtt.StreamID]mqtt.Stream
}

type killerLink struct {
	mqtt.Link
	d *killerDialer
}

func (d *killerDialer) DialLink(ctx context.Context, u *url.URL, conf *tls.Config) (mqtt.Link, error) {
	l, err := d.Dialer.DialLink(ctx, u, conf)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.link, d.streams = l, map[mqtt.StreamID]mqtt.Stream{}
	return &killerLink{l, d}, nil
}

func (l *killerLink) OpenStream(ctx context.Context) (mqtt.Stream, error) {
	s, err := l.Link.OpenStream(ctx)
	if err == nil {
		l.d.mu.Lock()
		defer l.d.mu.Unlock()
		l.d.streams[s.ID()] = s
	}
	return s, err
}

// kill ends some data stream, which it reports, or the connection.
func (d *killerDialer) kill(rng *rand.Rand) (stream bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rng.IntN(8) == 0 {
		_ = d.link.CloseWithCode(mqtt.LinkControlDown)
		return false
	}
	ids := slices.Sorted(maps.Keys(d.streams))
	if len(ids) < 2 {
		return false
	}
	id := ids[1+rng.IntN(len(ids)-1)]
	s := d.streams[id]
	delete(d.streams, id)
	s.Reset(uint64(rng.IntN(3)))
	return true
}

// Both clients lose streams and connections again and again, while messages go from
// one to the other through the broker.
func TestClientsLoseNothingWhenTheirStreamsAreReset(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			withBrokerStats(t, nil, func(w *world, b *broker.Broker) {
				rng := rand.New(rand.NewPCG(seed, 1))
				dial := func(id string, d *killerDialer) *client.Client {
					c, err := client.Dial(w.Context(), &client.Config{
						URL: serverURL.String(), TLS: w.clientTLS, Dialers: []client.LinkDialer{d}, ClientID: id,
						SessionExpiry: time.Hour, Streams: client.Hash(4), Reconnect: client.Backoff{Min: time.Second},
					})
					require.NoError(w, err)
					return c
				}
				subDialer, pubDialer := &killerDialer{Dialer: w.dialer()}, &killerDialer{Dialer: w.dialer()}
				sub, pub := dial("sub", subDialer), dial("pub", pubDialer)
				var mu sync.Mutex
				got := map[string]int{}
				const topics = 6
				for i := range topics {
					_, err := sub.Subscribe(w.Context(), func(p *packet.Publish) {
						mu.Lock()
						defer mu.Unlock()
						got[string(p.Payload)]++
					}, packet.Subscription{Filter: fmt.Sprint("t/", i), QoS: 2})
					require.NoError(w, err)
				}
				// How many streams live when one is to be killed depends on who runs
				// first: messages are sent until enough have been.
				const atLeast, enough, atMost = 1500, 41, 15000
				acked := make(chan error, atMost)
				n, cut := 0, 0
				for ; n < atLeast || cut < enough && n < atMost; n++ {
					i := n
					require.NoError(w, pub.PublishAsync(w.Context(), &packet.Publish{
						Topic: fmt.Sprint("t/", i%topics), QoS: packet.QoS(1 + i%2), Payload: fmt.Append(nil, i),
					}, func(err error) { acked <- err }))
					if rng.IntN(3) == 0 {
						time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond) // virtual
					}
					if rng.IntN(12) == 0 {
						d := subDialer
						if rng.IntN(2) == 0 {
							d = pubDialer
						}
						if d.kill(rng) {
							cut++
						}
					}
				}
				for range n {
					require.NoError(w, <-acked)
				}
				time.Sleep(10 * time.Minute) // virtual: whatever was cut last is connected again
				mu.Lock()
				defer mu.Unlock()
				for i := range n {
					if times := got[fmt.Sprint(i)]; i%2 == 1 {
						require.Equal(w, 1, times, "QoS 2 message %d", i)
					} else {
						require.Positive(w, times, "QoS 1 message %d", i)
					}
				}
				require.GreaterOrEqual(w, cut, enough)
				w.Logf("%d streams lost, %d connections made", cut, b.Stats().Connections[mqtt.QUIC].Total)
				require.NoError(w, sub.Close())
				require.NoError(w, pub.Close())
			})
		})
	}
}
