package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Plan is all that is asked of the broker, measured round by round: the targets of
// each step take turns. [Asked] says what was reached.
type Plan struct {
	MQTT    MQTT         // sizes and times; each step has its QoS and its number of messages
	Own     []MQTTTarget // ours: TCP, TLS, and QUIC on each engine
	Durable []MQTTTarget // ours, with a store
	Peers   []MQTTTarget // on TCP

	messages bool // MQTT.Messages is for every step
}

// What the steps are called in samples.
const (
	stepQoS0    = "QoS 0"
	stepQoS1    = "QoS 1"
	stepDurable = "QoS 1 durable"
	stepFanOut  = "fan-out"
	stepLatency = "latency"
	stepBlocked = "blocked"
	stepStreams = "streams"
	stepIdle    = "idle"
	stepVanish  = "vanished"
)

// A step is a scenario with a load.
type step struct {
	name, scenario string
	targets        []MQTTTarget
	// together has all targets measured at once, since machine time does not
	// matter to them.
	together bool
	load     func(*MQTT)
}

// Scale says what of the sizes in MQTT the user has chosen. The others are such that
// five rounds take ten minutes.
func (p *Plan) Scale(messages, duration, idle bool) {
	p.messages = messages
	if !duration {
		p.MQTT.Duration = 4 * time.Second
	}
	if !idle {
		p.MQTT.Idle = 500
	}
}

// steps returns the steps of a round.
func (p *Plan) steps() []step {
	of := func(carriers ...string) (some []MQTTTarget) {
		for _, t := range p.Own {
			for _, c := range carriers {
				if t.Carrier == c {
					some = append(some, t)
				}
			}
		}
		return some
	}
	// Where there are peers it is MQTT 3.1.1, the newest that each of them has.
	flood := func(qos packet.QoS, messages int) func(*MQTT) {
		return func(b *MQTT) {
			b.Version, b.QoS = packet.V311, qos
			if !p.messages {
				b.Messages = messages
			}
		}
	}
	with := func(own []MQTTTarget) []MQTTTarget { return append(own, p.Peers...) }
	return []step{
		{stepQoS0, "throughput", with(of("tcp", "quic")), false, flood(packet.AtMostOnce, 500_000)},
		{stepQoS1, "throughput", with(of("tcp", "quic")), false, flood(packet.AtLeastOnce, 100_000)},
		{stepDurable, "throughput", p.Durable, false, func(b *MQTT) {
			flood(packet.AtLeastOnce, 100_000)(b)
			b.Version, b.Durable = packet.V5, true
		}},
		{stepFanOut, "fanout", with(of("tcp", "quic")), false, flood(packet.AtMostOnce, 1_000_000)},
		{stepLatency, "latency", of("tcp", "tls", "quic"), false, nil},
		{stepBlocked, "blocked", of("tcp"), false, func(b *MQTT) { b.Rate = max(1, b.Rate/5) }},
		{stepStreams, "streams", of("quic"), true, func(b *MQTT) { b.Duration *= 2 }}, // losses are few
		{stepIdle, "idle", with(of("tcp", "tls", "quic")), true, func(b *MQTT) { b.Version = packet.V311 }},
		{stepVanish, "vanished", of("quic"), false, func(b *MQTT) {
			flood(packet.AtMostOnce, 10_000)(b)
			b.Version, b.Size = packet.V5, 1024
		}},
	}
}

// Run measures rounds. It begins none that would not end before ctx's deadline, by
// what the longest so far has taken, and returns the rounds that are complete, with an
// error too.
func (p *Plan) Run(ctx context.Context, rounds int) (samples []Sample, err error) {
	steps := p.steps()
	start := time.Now()
	var longest time.Duration
	for round := 1; round <= rounds; round++ {
		began := time.Now()
		if end, ok := ctx.Deadline(); ok && round > 1 && began.Add(longest).After(end) {
			p.MQTT.progress("%d rounds of %d: there is no time for another", round-1, rounds)
			break
		}
		var got []Sample
		for i, s := range steps {
			p.MQTT.progress("round %d of %d, %d of %d: %s (%v)", round, rounds, i+1, len(steps), s.name, time.Since(start).Round(time.Second))
			of, err := p.measure(ctx, s, round)
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && round > 1 {
				p.MQTT.progress("round %d is left out: the time is over", round)
				return samples, nil
			}
			if err != nil {
				return samples, errors.Join(ctx.Err(), fmt.Errorf("round %d: %w", round, err))
			}
			got = append(got, of...)
		}
		samples = append(samples, got...)
		longest = max(longest, time.Since(began))
	}
	return samples, nil
}

func (p *Plan) measure(ctx context.Context, s step, round int) (samples []Sample, err error) {
	b := p.MQTT
	if s.load != nil {
		s.load(&b)
	}
	got := make([][]Sample, len(s.targets))
	g, gctx := errgroup.WithContext(ctx)
	if !s.together {
		g.SetLimit(1)
	}
	for i, t := range s.targets {
		g.Go(func() (err error) {
			got[i], err = b.Measure(gctx, s.scenario, t, round)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	for _, of := range got {
		for _, sample := range of {
			sample.Scenario = s.name
			samples = append(samples, sample)
		}
	}
	return samples, nil
}

// Names returns the names of our targets without a store.
func (p *Plan) Names() (names []string) {
	for _, t := range p.Own {
		names = append(names, t.Name)
	}
	return names
}

// carrierOf returns the carrier in a target's name: "quic" of "anyquic/quic/purego".
func carrierOf(name string) string {
	if part := strings.Split(name, "/"); len(part) > 1 {
		return part[1]
	}
	return ""
}
