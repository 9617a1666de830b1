package bench

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// streamTopics is how many topics there are for streams: enough for each of
// [client.MaxHash] streams to have some, however they are hashed.
const streamTopics = 1024

// The sides of the broker that a lossy path may be on.
var sides = [...]string{"publishing", "subscribing"}

// streams publishes StreamRate messages a second on many topics through a path that
// loses packets, on each number of Streams: one path between publisher and broker,
// with the subscriber beside the broker, and at the same time one between broker
// and subscriber, with the publisher beside the broker. Both clients of a way
// use as many streams. It reports how long messages take, and the ratios of p95.
func (b *MQTT) streams(ctx context.Context, t *mqttRun) ([]Sample, error) {
	if t.carrier() != mqttquic.Scheme {
		return nil, errNoQUIC
	}
	var samples []Sample
	p95 := make(map[string]map[int]float64) // by side and streams
	for _, n := range b.Streams {
		b.progress("round %d: streams of %s: %d", t.round, t.Name, n)
		var got [len(sides)][]Sample
		g, gctx := errgroup.WithContext(ctx)
		for i := range sides {
			g.Go(func() (err error) {
				got[i], err = b.overLossyPath(gctx, t, i, n)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("%d streams: %w", n, err)
		}
		for i, side := range sides {
			samples = append(samples, got[i]...)
			if p95[side] == nil {
				p95[side] = make(map[int]float64)
			}
			for _, s := range got[i] {
				if strings.HasPrefix(s.Metric, "p95") {
					p95[side][n] = s.Value
				}
			}
		}
	}
	for _, side := range sides {
		for _, r := range [][2]int{{8, 1}, {64, 8}} {
			if of, to := p95[side][r[0]], p95[side][r[1]]; of > 0 && to > 0 {
				samples = append(samples, t.sample(fmt.Sprintf("p95 of %d streams to %d, %s", r[0], r[1], side), "", of/to))
			}
		}
	}
	return samples, nil
}

// overLossyPath measures one of sides with n streams.
func (b *MQTT) overLossyPath(ctx context.Context, t *mqttRun, way, n int) ([]Sample, error) {
	side := sides[way]
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, err
	}
	path := b.Loss
	path.Seed = uint64(len(sides)*t.round + way) // the same losses for every target and number
	relay, err := newRelay(u.Host, path)
	if err != nil {
		return nil, err
	}
	defer relay.close()
	u.Host = relay.addr()
	far := t.MQTTTarget
	far.URL = u.String()

	with := *b
	with.Policy = client.Hash(n)
	if n == 1 {
		with.Policy = client.Control
	}
	w := newStopwatch(b.StreamRate * int(b.Duration/time.Second+1))
	var warm atomic.Int64
	receive := func(p *packet.Publish) {
		if len(p.Payload) == 0 {
			warm.Add(1)
			return
		}
		w.receive(p)
	}
	publishAt, subscribeAt := far, t.MQTTTarget
	if way == 1 {
		publishAt, subscribeAt = subscribeAt, publishAt
	}
	var clients []*client.Client // publisher, subscriber
	defer func() { closeAll(clients) }()
	for _, c := range []struct {
		at     MQTTTarget
		handle func(*packet.Publish)
	}{{publishAt, nil}, {subscribeAt, receive}} {
		one, err := with.connect(ctx, c.at, 1, "", c.handle)
		if err != nil {
			return nil, err
		}
		clients = append(clients, one...)
	}
	publisher, subscriber := clients[0], clients[1]
	topics := make([]string, streamTopics)
	for i := range topics {
		topics[i] = fmt.Sprintf("bench/streams/%s/%d", side, i)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(streamTopics / 8)
	for _, topic := range topics {
		g.Go(func() error { // a SUBSCRIBE each: its stream is the stream of what it asks for
			_, err := subscriber.Subscribe(gctx, nil, packet.Subscription{Filter: topic, QoS: b.QoS})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(streamTopics / 8)
	for _, topic := range topics {
		g.Go(func() error { // which opens the streams
			_, err := publisher.Publish(gctx, &packet.Publish{Topic: topic, QoS: packet.AtLeastOnce})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := await(ctx, &warm, streamTopics, patience); err != nil {
		return nil, err
	}
	var data int
	for _, c := range clients {
		link, ok := c.Link().(*mqttquic.Link)
		if !ok {
			return nil, errNoQUIC
		}
		if data = int(link.Conn().Stats().StreamsOpened) - 1; data != n && n > 1 || data != 0 && n == 1 {
			return nil, fmt.Errorf("the client has %d data streams: does the broker grant as many?", data)
		}
	}
	before, passed := relay.counters()
	sent, err := b.roundRobin(ctx, publisher, topics, w)
	if err != nil {
		return nil, err
	}
	of := fmt.Sprintf(", %d streams, %s", n, side)
	if n == 1 {
		of = ", 1 stream, " + side
	}
	samples, err := w.samples(ctx, t, of, sent)
	if err != nil {
		return nil, err
	}
	for _, c := range clients {
		if err := c.Err(); err != nil {
			return nil, err
		}
	}
	lost, total := relay.counters()
	dropped := 100 * float64(lost-before) / float64(max(1, total-passed))
	return append(samples,
		t.sample("data streams of the client"+of, "", float64(data)),
		t.sample("dropped on the way"+of, "%", dropped)), nil
}

// roundRobin publishes StreamRate messages a second for Duration, on one topic after
// the other, and returns how many that were.
func (b *MQTT) roundRobin(ctx context.Context, c *client.Client, topics []string, w *stopwatch) (int64, error) {
	p := &packet.Publish{QoS: b.QoS, Payload: make([]byte, b.Size)}
	start := time.Now()
	interval := time.Second / time.Duration(b.StreamRate)
	for i := int64(0); ; i++ {
		due := interval * time.Duration(i)
		if due >= b.Duration {
			return i, nil
		}
		sleep(time.Until(start.Add(due)))
		p.Topic = topics[i%int64(len(topics))]
		w.stamp(p)
		if err := c.PublishAsync(ctx, p, nil); err != nil {
			return i, fmt.Errorf("publish: %w", err)
		}
	}
}

// CheckStreams reports whether every number is one that a client may use.
func CheckStreams(numbers []int) error {
	for _, n := range numbers {
		if n < 1 || n > client.MaxHash {
			return fmt.Errorf("%d streams: use 1 to %d", n, client.MaxHash)
		}
	}
	if len(numbers) == 0 || len(slices.Compact(slices.Sorted(slices.Values(numbers)))) != len(numbers) {
		return fmt.Errorf("the numbers of streams %v: name one or more, each once", numbers)
	}
	return nil
}
