package bench

import (
	"context"
	"fmt"

	"github.com/anyquic/anyquic/internal/benchproc"
)

// idle opens connections that say nothing but CONNECT and reports what one costs
// the broker. A broker that can be started anew is: what it did before counts not.
// Of QUIC it reports too what a connection of the bare engine costs with a stream.
func (b *MQTT) idle(ctx context.Context, t *mqttRun) (samples []Sample, err error) {
	if t.Proc == nil {
		return nil, nil
	}
	at := t.MQTTTarget
	if t.Start != nil {
		if at.Proc, err = t.Start(ctx); err != nil {
			return nil, err
		}
		defer func() {
			if stopped := at.Proc.Stop(); err == nil {
				err = stopped
			}
		}()
		at.URL = at.Proc.URLs[t.Carrier]
	}
	warm, err := b.connect(ctx, at, idleWarmUp, "", nil)
	defer func() { closeAll(warm) }()
	if err != nil {
		return nil, err
	}
	before, err := settled(ctx, at.Proc, b.Settle)
	if err != nil {
		return nil, err
	}
	clients, err := b.connect(ctx, at, b.Idle, "", nil)
	defer func() { closeAll(clients) }()
	if err != nil {
		return nil, err
	}
	after, err := settled(ctx, at.Proc, b.Settle)
	if err != nil {
		return nil, err
	}
	per := func(of func(benchproc.Memory) uint64) float64 {
		return (float64(of(after)) - float64(of(before))) / float64(b.Idle) / 1024
	}
	samples = []Sample{t.sample("memory per connection", "KiB", per(benchproc.Memory.InUse))}
	if after.RSS == 0 {
		return samples, nil
	}
	resident := per(func(m benchproc.Memory) uint64 { return m.RSS })
	samples = append(samples, t.sample("resident memory per connection", "KiB", resident))
	if len(t.Bare.Server) == 0 {
		return samples, nil
	}
	bare, err := (&Transport{Idle: b.Idle, Settle: b.Settle, Command: b.Command}).Measure(ctx, "idle", t.Bare, t.round)
	if err != nil {
		return nil, fmt.Errorf("the engine by itself: %w", err)
	}
	for _, s := range bare {
		if s.Metric == "with an open stream, resident" {
			samples = append(samples,
				t.sample("resident memory of the engine's own connection", "KiB", s.Value),
				t.sample("resident memory beyond the engine's own", "KiB", resident-s.Value))
		}
	}
	return samples, nil
}
