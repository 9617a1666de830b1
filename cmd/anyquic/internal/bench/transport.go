package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/anyquic/anyquic/internal/benchproc"
)

// A TransportTarget is what to measure: a server and a client of one kind, which
// are commands that run as package benchproc describes. The client is told the
// address that the server calls "quic", or "tls".
type TransportTarget struct {
	Name           string
	Server, Client []string
}

// Transport measures QUIC engines.
type Transport struct {
	Bulk       int64 // bytes to send on one stream, each way
	Streams    int   // streams to open
	Pings      int
	Handshakes int
	Parallel   int           // handshakes at once, beside one at a time
	Idle       int           // connections to hold
	Settle     time.Duration // how long memory is left alone before idle looks; default 2s
	Loss       LossyPath
	Duration   time.Duration // how long loss is watched
	// Command starts the processes; it sets where their standard error goes.
	Command  func(ctx context.Context, words []string) *exec.Cmd
	Progress func(string) // may be nil; is told what begins
}

// TransportScenarios are the names for Measure, in the order of the report.
var TransportScenarios = []string{"bulk", "pings", "streams", "handshakes", "idle", "quiet", "loss"}

// idleWarmUp is how many connections a server has had, and still has, when the
// memory of more is measured: its code and tables are in memory by then.
const idleWarmUp = 16

// quietSettle is how long a connection is left alone before it counts as quiet: what
// follows a handshake, such as the search for the path's MTU and the discard of keys,
// is over by then. quietFor is how long it is then watched.
const (
	quietSettle = 4 * time.Second
	quietFor    = 2 * time.Second
)

// A pair is a server and a client in processes of their own.
type pair struct {
	server, client *benchproc.Process
	addr           string // where the client is told to connect to
}

// Measure runs a scenario once, with a new server and a new client. What t cannot
// do it leaves out.
func (b *Transport) Measure(ctx context.Context, scenario string, t TransportTarget, round int) (samples []Sample, err error) {
	run, ok := map[string]func(context.Context, *pair) ([]Sample, error){
		"bulk": b.bulk, "pings": b.pings, "streams": b.streams, "handshakes": b.handshakes,
		"idle": b.idle, "quiet": b.quiet, "loss": b.loss,
	}[scenario]
	if !ok {
		return nil, fmt.Errorf("no scenario %q", scenario)
	}
	if b.Progress != nil {
		b.Progress(fmt.Sprintf("round %d: %s of %s", round, scenario, t.Name))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s of %s: %w", scenario, t.Name, err)
		}
	}()
	b.Loss.Seed = uint64(round) // the same losses for every target
	var p pair
	if p.server, err = benchproc.Start(b.Command(ctx, t.Server)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.server.Stop()) }()
	if p.client, err = benchproc.Start(b.Command(ctx, t.Client)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.client.Stop()) }()
	p.addr = p.server.URLs["quic"]
	if p.addr == "" {
		p.addr = p.server.URLs["tls"]
	}
	samples, err = run(ctx, &p)
	for i := range samples {
		samples[i].Target, samples[i].Scenario, samples[i].Round = t.Name, scenario, round
	}
	return samples, err
}

// call returns nil, nil if the client cannot do what it is told.
func (p *pair) call(ctx context.Context, req benchproc.Request) (*benchproc.Result, error) {
	var r benchproc.Result
	err := p.client.Call(ctx, req, &r)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, nil // it is left out
	}
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// A bill is what something has cost both sides.
type bill struct{ server, client benchproc.Usage }

// measured is call with the bill.
func (p *pair) measured(ctx context.Context, req benchproc.Request) (*benchproc.Result, bill, error) {
	before, err := p.usage()
	if err != nil {
		return nil, bill{}, err
	}
	r, err := p.call(ctx, req)
	if err != nil {
		return nil, bill{}, err
	}
	after, err := p.usage()
	return r, bill{after.server.Sub(before.server), after.client.Sub(before.client)}, err
}

func (p *pair) usage() (b bill, err error) {
	if b.server, err = p.server.Usage(); err != nil {
		return b, err
	}
	b.client, err = p.client.Usage()
	return b, err
}

// each appends what one of n things has cost a side, as far as it is known.
func each(samples []Sample, what, side string, u benchproc.Usage, n float64, unit time.Duration, unitName string) []Sample {
	if u.CPU > 0 {
		samples = append(samples, Sample{Metric: what + ", " + side + " CPU", Unit: unitName, Value: float64(u.CPU) / n / float64(unit)})
	}
	return samples
}

// allocations appends how much a side has allocated, if it counts packets.
func allocations(samples []Sample, what, side string, u benchproc.Usage, packets uint64) []Sample {
	if packets > 0 && u.Mallocs > 0 {
		samples = append(samples, Sample{Metric: what + ", " + side + " Go allocations", Unit: "/packet", Value: float64(u.Mallocs) / float64(packets)})
	}
	return samples
}

func (b *Transport) bulk(ctx context.Context, p *pair) (samples []Sample, err error) {
	for _, way := range []struct{ name, do string }{{"upload", benchproc.DoUpload}, {"download", benchproc.DoDownload}} {
		if _, err := p.call(ctx, benchproc.Request{Do: benchproc.DoConnect, Addr: p.addr}); err != nil {
			return nil, err
		}
		r, cost, err := p.measured(ctx, benchproc.Request{Do: way.do, N: b.Bulk})
		if err != nil {
			return nil, err
		}
		if r == nil {
			continue
		}
		sender, receiver := cost.client, cost.server
		if way.do == benchproc.DoDownload {
			sender, receiver = receiver, sender
		}
		size := float64(b.Bulk)
		samples = append(samples, Sample{Metric: way.name, Unit: "MB/s", Value: size / 1e6 / r.Took.Seconds()})
		samples = each(samples, way.name, "sender", sender, size, time.Nanosecond, "ns/byte")
		samples = each(samples, way.name, "receiver", receiver, size, time.Nanosecond, "ns/byte")
		samples = allocations(samples, way.name, "sender", sender, r.Packets)
		samples = allocations(samples, way.name, "receiver", receiver, r.Packets)
	}
	return samples, nil
}

func (b *Transport) pings(ctx context.Context, p *pair) (samples []Sample, err error) {
	if _, err := p.call(ctx, benchproc.Request{Do: benchproc.DoConnect, Addr: p.addr}); err != nil {
		return nil, err
	}
	// Both sides are warm, and the handshake is confirmed, after the first.
	if r, err := p.call(ctx, benchproc.Request{Do: benchproc.DoPings, N: int64(b.Pings)/10 + 1}); r == nil || err != nil {
		return nil, err
	}
	if _, err := p.call(ctx, benchproc.Request{Do: benchproc.DoConnect, Addr: p.addr}); err != nil {
		return nil, err
	}
	r, cost, err := p.measured(ctx, benchproc.Request{Do: benchproc.DoPings, N: int64(b.Pings)})
	if r == nil || err != nil {
		return nil, err
	}
	const what = "32-byte ping-pong"
	samples = append(samples,
		Sample{Metric: what + ", p50", Unit: "µs", Value: microseconds(r.P50)},
		Sample{Metric: what + ", p99", Unit: "µs", Value: microseconds(r.P99)})
	for _, side := range cost.sides() {
		samples = each(samples, what, side.name, side.used, float64(b.Pings), time.Microsecond, "µs")
		samples = allocations(samples, what, side.name, side.used, r.Packets)
	}
	return samples, nil
}

// A billedSide is one side of a bill.
type billedSide struct {
	name string
	used benchproc.Usage
}

func (b bill) sides() []billedSide { return []billedSide{{"server", b.server}, {"client", b.client}} }

// streams opens streams with 64 at work at once, each with one byte echoed.
func (b *Transport) streams(ctx context.Context, p *pair) ([]Sample, error) {
	if _, err := p.call(ctx, benchproc.Request{Do: benchproc.DoConnect, Addr: p.addr}); err != nil {
		return nil, err
	}
	r, err := p.call(ctx, benchproc.Request{Do: benchproc.DoStreams, N: int64(b.Streams), Parallel: 64})
	if r == nil || err != nil {
		return nil, err
	}
	return []Sample{{Metric: "open, echo a byte, close", Unit: "streams/s", Value: float64(b.Streams) / r.Took.Seconds()}}, nil
}

func (b *Transport) handshakes(ctx context.Context, p *pair) (samples []Sample, err error) {
	for _, way := range []struct{ n, parallel int }{{b.Handshakes/4 + 1, 1}, {b.Handshakes, b.Parallel}} {
		what := fmt.Sprintf("%d at a time", way.parallel)
		r, cost, err := p.measured(ctx, benchproc.Request{Do: benchproc.DoHandshakes, Addr: p.addr, N: int64(way.n), Parallel: way.parallel})
		if r == nil || err != nil {
			return nil, err
		}
		n := float64(way.n)
		samples = append(samples, Sample{Metric: what, Unit: "handshakes/s", Value: n / r.Took.Seconds()})
		for _, side := range cost.sides() {
			samples = each(samples, what, side.name, side.used, n, time.Microsecond, "µs")
		}
	}
	return samples, nil
}

// idle measures connections that do nothing, first without a stream and then with
// one open.
func (b *Transport) idle(ctx context.Context, p *pair) (samples []Sample, err error) {
	for _, req := range []benchproc.Request{{Do: benchproc.DoHold, Addr: p.addr, N: idleWarmUp}, {Do: benchproc.DoOpen}} {
		if r, err := p.call(ctx, req); r == nil || err != nil {
			return nil, err
		}
	}
	before, err := settled(ctx, p.server, b.Settle)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name string
		req  benchproc.Request
	}{
		{"without a stream", benchproc.Request{Do: benchproc.DoHold, Addr: p.addr, N: int64(b.Idle)}},
		{"with an open stream", benchproc.Request{Do: benchproc.DoOpen}},
	} {
		if r, err := p.call(ctx, step.req); r == nil || err != nil {
			return samples, err
		}
		after, err := settled(ctx, p.server, b.Settle)
		if err != nil {
			return nil, err
		}
		per := func(after, before uint64) float64 { return (float64(after) - float64(before)) / float64(b.Idle) / 1024 }
		if after.RSS > 0 {
			samples = append(samples, Sample{Metric: step.name + ", resident", Unit: "KiB", Value: per(after.RSS, before.RSS)})
		}
		if after.InUse() > 0 {
			samples = append(samples, Sample{Metric: step.name + ", Go heap and stacks", Unit: "KiB", Value: per(after.InUse(), before.InUse())})
		}
	}
	return samples, nil
}

// settled returns a process's memory once it no longer shrinks: stacks shrink from
// one garbage collection to the next, what a handshake needed is freed when the peer
// has confirmed it, and is returned to the system when there are no more of them.
func settled(ctx context.Context, p *benchproc.Process, wait time.Duration) (benchproc.Memory, error) {
	select {
	case <-ctx.Done():
	case <-time.After(cmp.Or(wait, 2*time.Second)):
	}
	m, err := p.Memory()
	for range 10 {
		if err != nil {
			return m, err
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		before := m
		m, err = p.Memory()
		if m.RSS+m.InUse() > (before.RSS+before.InUse())/1000*999 {
			break
		}
	}
	return m, err
}

// quiet measures what a connection costs on which nothing happens.
func (b *Transport) quiet(ctx context.Context, p *pair) (samples []Sample, err error) {
	for _, req := range []benchproc.Request{{Do: benchproc.DoHold, Addr: p.addr, N: 1}, {Do: benchproc.DoOpen}} {
		if r, err := p.call(ctx, req); r == nil || err != nil {
			return nil, err
		}
	}
	var used [2]bill
	for i, wait := range []time.Duration{quietSettle, quietFor} {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		if used[i], err = p.usage(); err != nil {
			return nil, err
		}
	}
	cost := bill{used[1].server.Sub(used[0].server), used[1].client.Sub(used[0].client)}
	for _, side := range cost.sides() {
		samples = each(samples, "idle", side.name, side.used, quietFor.Seconds(), time.Microsecond, "µs/s")
	}
	return samples, nil
}

// loss measures how much arrives over a lossy path.
func (b *Transport) loss(ctx context.Context, p *pair) (samples []Sample, err error) {
	if p.server.URLs["quic"] == "" {
		return nil, nil // the relay is for UDP
	}
	r, err := newRelay(p.addr, b.Loss)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if _, err := p.call(ctx, benchproc.Request{Do: benchproc.DoConnect, Addr: r.addr()}); err != nil {
		return nil, err
	}
	got, cost, err := p.measured(ctx, benchproc.Request{Do: benchproc.DoWatch, For: b.Duration})
	if got == nil || err != nil {
		return nil, err
	}
	lost, total := r.counters()
	samples = append(samples,
		Sample{Metric: "download", Unit: "MB/s", Value: float64(got.Bytes) / 1e6 / got.Took.Seconds()},
		Sample{Metric: "lost on the way", Unit: "%", Value: 100 * float64(lost) / float64(max(1, total))})
	return each(samples, "download", "sender", cost.server, float64(max(1, got.Bytes)), time.Nanosecond, "ns/byte"), nil
}
