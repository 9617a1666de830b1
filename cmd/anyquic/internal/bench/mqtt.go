package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// An MQTTTarget is a broker to measure.
type MQTTTarget struct {
	Name string
	URL  string
	// Proc is the broker's process; nil if it is somebody else's, whose
	// processor time and memory are then not reported.
	Proc *benchproc.Process

	// StoreDir is the folder of the broker's store, if it has one.
	StoreDir string

	// Start, if not nil, starts another process of the broker, for idle. It
	// listens at what its Hello has for the Carrier.
	Start   func(context.Context) (*benchproc.Process, error)
	Carrier string
	// Bare, if it is set, is the engine by itself, for idle to compare with.
	Bare TransportTarget
	// Engine, if not nil, replaces MQTT.Engine, and Dialers MQTT.Dialers.
	Engine  transport.Transport
	Dialers []client.LinkDialer
}

// MQTT measures brokers.
type MQTT struct {
	Dialers  []client.LinkDialer // for carriers beyond TCP and TLS
	Version  packet.Version
	QoS      packet.QoS
	Pairs    int           // publisher-subscriber pairs, a topic each
	Size     int           // payload, bytes; at least 8
	Messages int           // of all pairs together
	Rate     int           // messages a second for latency and blocked
	Duration time.Duration // of latency and blocked
	FanOut   int           // subscribers of one topic for fanout and blocked
	Idle     int           // connections for idle
	Vanished int           // subscribers for vanished
	Pace     int           // messages a second for vanished, beside flat out
	Settle   time.Duration // how long memory is left alone before idle looks

	// Durable lets subscribers have sessions that outlive their connections
	// (MQTT 5), which a broker with a store keeps on the disk.
	Durable bool

	// For streams:
	Streams    []int     // numbers of streams to compare
	StreamRate int       // messages a second
	Loss       LossyPath // without the seed

	// Policy is the clients' for streams.
	Policy client.StreamPolicy
	// Command starts the processes of idle's bare engine.
	Command func(ctx context.Context, words []string) *exec.Cmd

	// Engine makes the connections that vanish.
	Engine transport.Transport
	// Progress, if not nil, is told what begins, from several goroutines.
	Progress func(string)
}

// MQTTScenarios are what [MQTT.Measure] can measure.
var MQTTScenarios = []string{"throughput", "latency", "fanout", "blocked", "streams", "idle", "vanished"}

// Measure measures a target once.
func (b *MQTT) Measure(ctx context.Context, scenario string, t MQTTTarget, round int) ([]Sample, error) {
	run, ok := map[string]func(context.Context, *mqttRun) ([]Sample, error){
		"throughput": b.throughput, "latency": b.latency, "fanout": b.fanOut, "blocked": b.blocked,
		"streams": b.streams, "idle": b.idle, "vanished": b.vanished,
	}[scenario]
	if !ok {
		return nil, fmt.Errorf("no scenario %q", scenario)
	}
	r := &mqttRun{t, scenario, round}
	b.progress("round %d: %s of %s", round, scenario, t.Name)
	samples, err := run(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", scenario, t.Name, err)
	}
	return samples, nil
}

// An mqttRun is one measurement of one target.
type mqttRun struct {
	MQTTTarget
	scenario string
	round    int
}

func (r *mqttRun) sample(metric, unit string, v float64) Sample {
	return Sample{r.Name, r.scenario, metric, unit, r.round, v}
}

// durableFor is how long the sessions of Durable outlive their connections. The next
// round discards them.
const durableFor = time.Minute

// stalled is how long a subscriber may get nothing before what has not come
// counts as lost; patience is that where nothing should be, and a busy machine is
// waited for.
const (
	stalled  = 3 * time.Second
	patience = 15 * time.Second
)

// throughput publishes Messages as fast as the broker takes them, and reports
// how many a second arrive, how many are lost, and the broker's processor time.
func (b *MQTT) throughput(ctx context.Context, t *mqttRun) ([]Sample, error) {
	return b.flood(ctx, t, b.Pairs, 1)
}

// fanOut is throughput from one publisher to FanOut subscribers of its topic.
// Messages are those that arrive.
func (b *MQTT) fanOut(ctx context.Context, t *mqttRun) ([]Sample, error) {
	return b.flood(ctx, t, 1, b.FanOut)
}

// flood publishes on as many topics as there are publishers, each with as many
// subscribers as said.
func (b *MQTT) flood(ctx context.Context, t *mqttRun, publishers, subscribers int) ([]Sample, error) {
	each := max(1, b.Messages/publishers/subscribers)
	var received atomic.Int64
	var last atomic.Int64 // when the last message came, since clock
	clock := time.Now()
	pairs, err := b.groups(ctx, t.MQTTTarget, publishers, subscribers, func(*packet.Publish) {
		received.Add(1)
		last.Store(int64(time.Since(clock)))
	})
	if err != nil {
		return nil, err
	}
	defer pairs.close()

	idle, err := t.cpu()
	if err != nil {
		return nil, err
	}
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
	sent := int64(each * publishers * subscribers)
	if err := await(ctx, &received, sent, stalled); err != nil {
		return nil, err
	}
	took := time.Duration(last.Load()) - start
	used, err := t.cpu()
	if err != nil {
		return nil, err
	}
	got := received.Load()
	samples := []Sample{
		t.sample("rate", "msg/s", float64(got)/took.Seconds()),
		t.sample("lost", "%", 100*float64(sent-got)/float64(sent)),
	}
	if t.Proc != nil {
		samples = append(samples, t.sample("broker CPU per message", "µs", microseconds(used-idle)/float64(max(got, 1))))
	}
	if t.StoreDir != "" {
		size, err := sizeOf(t.StoreDir)
		if err != nil {
			return nil, err
		}
		samples = append(samples, t.sample("store on the disk", "KiB", float64(size)/1024))
	}
	if n := refused.Load(); n > 0 {
		samples = append(samples, t.sample("refused", "messages", float64(n)))
	}
	return samples, nil
}

// sizeOf returns how many bytes the files in a folder have. They come and go.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				size += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return size, err
}

// latency publishes Rate messages a second for Duration, evenly over the pairs, and
// reports how long they take from publisher to subscriber.
func (b *MQTT) latency(ctx context.Context, t *mqttRun) ([]Sample, error) {
	w := newStopwatch(b.Rate * int(b.Duration/time.Second+1))
	pairs, err := b.groups(ctx, t.MQTTTarget, b.Pairs, 1, w.receive)
	if err != nil {
		return nil, err
	}
	defer pairs.close()
	sent, err := b.paced(ctx, pairs.publishers, w)
	if err != nil {
		return nil, err
	}
	return w.samples(ctx, t, "", sent)
}

// A stopwatch takes how long messages are on their way. They carry when they were
// sent, on its clock.
type stopwatch struct {
	start    time.Time
	received atomic.Int64

	mu   sync.Mutex
	took []time.Duration // guarded by mu
}

func newStopwatch(messages int) *stopwatch {
	return &stopwatch{start: time.Now(), took: make([]time.Duration, 0, messages)}
}

// stamp writes the time into the payload.
func (w *stopwatch) stamp(p *packet.Publish) {
	binary.BigEndian.PutUint64(p.Payload, uint64(time.Since(w.start)))
}

func (w *stopwatch) receive(p *packet.Publish) {
	sent := time.Duration(binary.BigEndian.Uint64(p.Payload))
	w.mu.Lock()
	w.took = append(w.took, time.Since(w.start)-sent)
	w.mu.Unlock()
	w.received.Add(1)
}

// samples waits for what was sent, expected messages, and reports it. The
// metrics' names end with suffix.
func (w *stopwatch) samples(ctx context.Context, t *mqttRun, suffix string, expected int64) ([]Sample, error) {
	if err := await(ctx, &w.received, expected, patience); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.took)
	return delays(t, suffix, w.took, expected), nil
}

// delays are the samples of messages that took so long, sorted, of so many.
func delays(t *mqttRun, suffix string, took []time.Duration, expected int64) []Sample {
	of := func(p float64) float64 { return microseconds(percentile(took, p)) }
	return []Sample{
		t.sample("p50"+suffix, "µs", of(0.5)),
		t.sample("p95"+suffix, "µs", of(0.95)),
		t.sample("p99"+suffix, "µs", of(0.99)),
		t.sample("p99.9"+suffix, "µs", of(0.999)),
		t.sample("lost"+suffix, "%", 100*float64(expected-int64(len(took)))/float64(max(1, expected))),
	}
}

// paced publishes Rate messages a second for Duration, evenly over the publishers,
// and returns how many that were.
func (b *MQTT) paced(ctx context.Context, publishers []*client.Client, w *stopwatch) (int64, error) {
	var g errgroup.Group
	interval := time.Second * time.Duration(len(publishers)) / time.Duration(b.Rate)
	var sent atomic.Int64
	for i, c := range publishers {
		g.Go(func() error {
			p := &packet.Publish{Topic: topic(i), QoS: b.QoS, Payload: make([]byte, b.Size)}
			time.Sleep(interval * time.Duration(i) / time.Duration(len(publishers))) // not all at once
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for end := time.Now().Add(b.Duration); time.Now().Before(end); <-tick.C {
				w.stamp(p)
				if err := c.PublishAsync(ctx, p, nil); err != nil {
					return fmt.Errorf("publish: %w", err)
				}
				sent.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	return sent.Load(), err
}

func (b *MQTT) progress(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

// carrier returns the scheme of the target's URL.
func (t MQTTTarget) carrier() string {
	scheme, _, _ := strings.Cut(t.URL, ":")
	return scheme
}

// cpu returns the processor time that the broker has used so far.
func (t MQTTTarget) cpu() (time.Duration, error) {
	if t.Proc == nil {
		return 0, nil
	}
	u, err := t.Proc.Usage()
	return u.CPU, err
}

// await waits until n messages have come, or none for a while. It counts time in which
// this process has run: what comes while the machine stands still is not late.
func await(ctx context.Context, received *atomic.Int64, n int64, while time.Duration) error {
	const step = time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	have := received.Load()
	for quiet := time.Duration(0); have < n && quiet < while; quiet += step {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := received.Load(); now != have {
			have, quiet = now, 0
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

// groups connects publishers, and for each topic of theirs subscribers.
func (b *MQTT) groups(ctx context.Context, t MQTTTarget, publishers, subscribers int, handle func(*packet.Publish)) (*clientPairs, error) {
	var p clientPairs
	var err error
	var name string
	if b.Durable {
		name = "subscriber"
	}
	if p.subscribers, err = b.connect(ctx, t, publishers*subscribers, name, handle); err == nil {
		for i, c := range p.subscribers {
			if _, err = c.Subscribe(ctx, nil, packet.Subscription{Filter: topic(i / subscribers), QoS: b.QoS}); err != nil {
				break
			}
		}
	}
	if err == nil {
		p.publishers, err = b.connect(ctx, t, publishers, "", nil)
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
	dialers := b.Dialers
	if t.Dialers != nil {
		dialers = t.Dialers
	}
	var expiry time.Duration
	if b.Durable && name != "" {
		expiry = durableFor
	}
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
				Dialers:    dialers,
				TLS:        &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the benchmark's own server has a self-signed certificate
				Version:    b.Version,
				CleanStart: true,
				KeepAlive:  -1,
				OnMessage:  handle,
				Streams:    b.Policy,
				Reconnect:  client.Backoff{Disabled: true},

				SessionExpiry: expiry,
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
	errNoTCP   = errors.New("bench: the target is not on TCP")
	errNoQUIC  = errors.New("bench: the target does not listen on QUIC")
	errForeign = errors.New("bench: only the memory of a process that the benchmark started is known")
)
