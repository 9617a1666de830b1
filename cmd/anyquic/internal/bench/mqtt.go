package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An MQTTTarget is a broker to measure.
type MQTTTarget struct {
	Name string
	URL  string
	// Proc is the broker's process; nil if it is somebody else's, whose
	// processor time and memory are then not reported.
	Proc *benchproc.Process
}

// MQTT measures brokers.
type MQTT struct {
	Dialers  []client.LinkDialer // for carriers beyond TCP and TLS
	Version  packet.Version
	QoS      packet.QoS
	Pairs    int // publisher-subscriber pairs, a topic each
	Size     int // payload, bytes; at least 8
	Messages int // of all pairs together
	// Progress, if not nil, is told what begins.
	Progress func(string)
}

// stalled is how long a subscriber may get nothing before what has not come
// counts as lost.
const stalled = 3 * time.Second

// Throughput publishes Messages as fast as the broker takes them, and reports
// how many a second arrive, how many are lost, and the broker's processor time.
func (b *MQTT) Throughput(ctx context.Context, t MQTTTarget, round int) ([]Sample, error) {
	b.progress("round %d: throughput of %s", round, t.Name)
	each := b.Messages / b.Pairs
	var received atomic.Int64
	var last atomic.Int64 // when the last message came, since clock
	clock := time.Now()
	pairs, err := b.pairs(ctx, t, func(p *packet.Publish) {
		received.Add(1)
		last.Store(int64(time.Since(clock)))
	})
	if err != nil {
		return nil, err
	}
	defer pairs.close()

	cpu := t.cpu()
	start := time.Since(clock)
	payload := make([]byte, b.Size)
	var g errgroup.Group
	var refused atomic.Int64
	for i, c := range pairs.publishers {
		g.Go(func() error {
			p := &packet.Publish{Topic: topic(i), QoS: b.QoS, Payload: payload}
			var pending sync.WaitGroup
			done := func(err error) {
				if err != nil {
					refused.Add(1)
				}
				pending.Done()
			}
			for range each {
				pending.Add(1)
				if err := c.PublishAsync(ctx, p, done); err != nil {
					return fmt.Errorf("publish: %w", err)
				}
			}
			pending.Wait()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	sent := int64(each * b.Pairs)
	if err := await(ctx, &received, sent); err != nil {
		return nil, err
	}
	took := time.Duration(last.Load()) - start
	used := t.cpu() - cpu
	got := received.Load()
	sample := func(metric, unit string, v float64) Sample {
		return Sample{t.Name, "throughput", metric, unit, round, v}
	}
	samples := []Sample{
		sample("rate", "msg/s", float64(got)/took.Seconds()),
		sample("lost", "%", 100*float64(sent-got)/float64(sent)),
	}
	if t.Proc != nil {
		samples = append(samples, sample("broker CPU per message", "µs", microseconds(used)/float64(max(got, 1))))
	}
	if n := refused.Load(); n > 0 {
		samples = append(samples, sample("refused", "messages", float64(n)))
	}
	return samples, nil
}

// Latency publishes perSecond messages a second for the given time, evenly over
// the pairs, and reports how long they take from publisher to subscriber.
func (b *MQTT) Latency(ctx context.Context, t MQTTTarget, round, perSecond int, d time.Duration) ([]Sample, error) {
	b.progress("round %d: latency of %s", round, t.Name)
	start := time.Now()
	var mu sync.Mutex
	took := make([]time.Duration, 0, perSecond*int(d/time.Second+1))
	var received atomic.Int64
	pairs, err := b.pairs(ctx, t, func(p *packet.Publish) {
		sent := time.Duration(binary.BigEndian.Uint64(p.Payload))
		mu.Lock()
		took = append(took, time.Since(start)-sent)
		mu.Unlock()
		received.Add(1)
	})
	if err != nil {
		return nil, err
	}
	defer pairs.close()

	var g errgroup.Group
	interval := time.Second * time.Duration(b.Pairs) / time.Duration(perSecond)
	var sent atomic.Int64
	for i, c := range pairs.publishers {
		g.Go(func() error {
			p := &packet.Publish{Topic: topic(i), QoS: b.QoS, Payload: make([]byte, b.Size)}
			time.Sleep(interval * time.Duration(i) / time.Duration(b.Pairs)) // not all at once
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
				binary.BigEndian.PutUint64(p.Payload, uint64(time.Since(start)))
				if err := c.PublishAsync(ctx, p, nil); err != nil {
					return fmt.Errorf("publish: %w", err)
				}
				sent.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := await(ctx, &received, sent.Load()); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	sample := func(metric string, v time.Duration) Sample {
		return Sample{t.Name, "latency", metric, "µs", round, microseconds(v)}
	}
	return []Sample{
		sample("p50", percentile(took, 0.5)),
		sample("p99", percentile(took, 0.99)),
		sample("p99.9", percentile(took, 0.999)),
		{t.Name, "latency", "lost", "%", round, 100 * float64(sent.Load()-received.Load()) / float64(max(1, sent.Load()))},
	}, nil
}

// Idle opens n connections that say nothing but CONNECT and reports what one
// costs the broker.
func (b *MQTT) Idle(ctx context.Context, t MQTTTarget, round, n int) ([]Sample, error) {
	b.progress("round %d: %d idle connections to %s", round, n, t.Name)
	if t.Proc == nil {
		return nil, nil
	}
	before, err := t.Proc.Memory()
	if err != nil {
		return nil, err
	}
	clients, err := b.connect(ctx, t, n, "", nil)
	defer closeAll(clients)
	if err != nil {
		return nil, err
	}
	after, err := t.Proc.Memory()
	if err != nil {
		return nil, err
	}
	return []Sample{{t.Name, "idle", "memory per connection", "KiB", round, (float64(after.InUse()) - float64(before.InUse())) / float64(n) / 1024}}, nil
}

func (b *MQTT) progress(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

func (t MQTTTarget) cpu() time.Duration {
	if t.Proc == nil {
		return 0
	}
	d, err := t.Proc.CPU()
	if err != nil {
		return 0 // not on Linux: reported as 0
	}
	return d
}

// await waits until n messages have come, or none for a while.
func await(ctx context.Context, received *atomic.Int64, n int64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	have, since := received.Load(), time.Now()
	for have < n && time.Since(since) < stalled {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := received.Load(); now != have {
			have, since = now, time.Now()
		}
	}
	return nil
}

func topic(i int) string { return fmt.Sprintf("bench/%d", i) }

// clientPairs are connected publishers and subscribers.
type clientPairs struct{ publishers, subscribers []*client.Client }

func (p *clientPairs) close() {
	closeAll(p.publishers)
	closeAll(p.subscribers)
}

func closeAll(clients []*client.Client) {
	for _, c := range clients {
		c.Close()
	}
}

func (b *MQTT) pairs(ctx context.Context, t MQTTTarget, handle func(*packet.Publish)) (*clientPairs, error) {
	var p clientPairs
	var err error
	if p.subscribers, err = b.connect(ctx, t, b.Pairs, "", handle); err == nil {
		for i, c := range p.subscribers {
			if _, err = c.Subscribe(ctx, nil, packet.Subscription{Filter: topic(i), QoS: b.QoS}); err != nil {
				break
			}
		}
	}
	if err == nil {
		p.publishers, err = b.connect(ctx, t, b.Pairs, "", nil)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return &p, nil
}

// connect opens n connections, a few at a time. Their client identifiers are
// name and a number; the broker's choice if name is empty.
func (b *MQTT) connect(ctx context.Context, t MQTTTarget, n int, name string, handle func(*packet.Publish)) ([]*client.Client, error) {
	clients := make([]*client.Client, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range clients {
		g.Go(func() error {
			var id string
			if name != "" {
				id = fmt.Sprintf("%s-%d", name, i)
			}
			c, err := client.Dial(gctx, &client.Config{
				ClientID:   id,
				URL:        t.URL,
				Dialers:    b.Dialers,
				TLS:        &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the benchmark's own server has a self-signed certificate
				Version:    b.Version,
				CleanStart: true,
				KeepAlive:  -1,
				OnMessage:  handle,
				Reconnect:  client.Backoff{Disabled: true},
			})
			if err != nil {
				return fmt.Errorf("connect to %s: %w", t.Name, err)
			}
			clients[i] = c
			return nil
		})
	}
	err := g.Wait()
	clients = slices.DeleteFunc(clients, func(c *client.Client) bool { return c == nil })
	if err != nil {
		closeAll(clients)
		return nil, err
	}
	return clients, nil
}

// Why a scenario cannot run.
var (
	errNoQUIC  = errors.New("bench: the target does not listen on QUIC")
	errForeign = errors.New("bench: only the memory of a process that the benchmark started is known")
)
