package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// A Verdict is something that is asked of the broker, and what it reaches.
type Verdict struct {
	What   string `json:"what"`
	Target string `json:"target"`
	Asked  string `json:"asked"`
	// Bound is the number in Asked.
	Bound float64 `json:"bound"`
	Unit  string  `json:"unit"`
	// Reached is the median over the rounds of the figure, which is a ratio of
	// figures of one round where two are compared. It and what follows count
	// only if there were Rounds in which it was measured.
	Reached float64 `json:"reached"`
	// Ratio is how much better than asked that is: 1 and more is as asked. It is
	// infinite, and 0 here, where nothing may be and nothing is.
	Ratio  float64 `json:"ratio"`
	Met    bool    `json:"met"`
	Rounds int     `json:"rounds"`
}

// mochi is the peer that the figures of others are asked in multiples of.
const mochi = "mochi/tcp"

// A demand is what is asked of every target on a carrier.
type demand struct {
	what     string
	carrier  string
	step     string
	metric   string
	than     string // a target to divide by, or ""
	bound    float64
	unit     string
	atMost   bool
	scale    float64 // to unit
	lossless bool    // nothing may be lost either: another verdict
}

var demands = func() []demand {
	const kb = 1.024 // of KiB
	all := []demand{
		{what: "QoS 0", carrier: "tcp", step: stepQoS0, metric: "rate", than: mochi, bound: 3, lossless: true},
		{what: "QoS 0", carrier: "quic", step: stepQoS0, metric: "rate", than: mochi, bound: 1, lossless: true},
		{what: "QoS 1", carrier: "tcp", step: stepQoS1, metric: "rate", than: mochi, bound: 2, lossless: true},
		{what: "QoS 1", carrier: "quic", step: stepQoS1, metric: "rate", than: mochi, bound: 1.3, lossless: true},
		{what: "fan-out", carrier: "tcp", step: stepFanOut, metric: "rate", than: mochi, bound: 4, lossless: true},
		{what: "latency p99", carrier: "quic", step: stepLatency, metric: "p99", than: "anyquic/tcp", bound: 2.5, atMost: true, lossless: true},
		{what: "durable QoS 1", carrier: "durable", step: stepDurable, metric: "rate", bound: 30_000, unit: "msg/s", lossless: true},
		{what: "idle memory", carrier: "tcp", step: stepIdle, metric: "memory per connection", bound: 12, unit: "KB", atMost: true, scale: kb},
		{what: "idle memory", carrier: "tls", step: stepIdle, metric: "memory per connection", bound: 30, unit: "KB", atMost: true, scale: kb},
		{what: "idle memory beyond the engine's own", carrier: "quic", step: stepIdle, metric: "resident memory beyond the engine's own", bound: 15, unit: "KB", atMost: true, scale: kb},
		{what: "p99 of others beside a blocked subscriber", carrier: "tcp", step: stepBlocked, metric: "p99 with the one to without", bound: 1.1, atMost: true},
		{what: "memory of the vanished", carrier: "quic", step: stepVanish, metric: "memory of the vanished, flat out", bound: 64, unit: "MB", atMost: true, scale: 1.048576},
		{what: "lost by the living beside them", carrier: "quic", step: stepVanish, metric: "lost by the living, flat out", unit: "messages", atMost: true},
	}
	for _, side := range sides {
		all = append(all,
			demand{what: "p95 of 8 streams to 1, " + side, carrier: "quic", step: stepStreams, metric: "p95 of 8 streams to 1, " + side, bound: 0.5, atMost: true},
			demand{what: "p95 of 64 streams to 8, " + side, carrier: "quic", step: stepStreams, metric: "p95 of 64 streams to 8, " + side, bound: 1.1, atMost: true},
			demand{what: "64 streams: lost, " + side, carrier: "quic", step: stepStreams, metric: "lost, 64 streams, " + side, unit: "%", atMost: true})
	}
	var with []demand
	for _, d := range all {
		with = append(with, d)
		if d.lossless {
			with = append(with, demand{what: d.what + ": lost", carrier: d.carrier, step: d.step, metric: "lost", unit: "%", atMost: true})
		}
	}
	return with
}()

// Asked compares the samples of a [Plan] with what is asked of targets, ours.
func Asked(targets []string, samples []Sample) []Verdict {
	type key struct {
		step, metric, target string
		round                int
	}
	values := make(map[key]float64)
	rounds := 0
	for _, s := range samples {
		values[key{s.Scenario, s.Metric, s.Target, s.Round}] = s.Value
		rounds = max(rounds, s.Round)
	}
	var all []Verdict
	for _, d := range demands {
		of := targets
		if d.carrier == "durable" {
			of = []string{"anyquic/durable/tcp"}
		}
		for _, t := range of {
			if carrierOf(t) != d.carrier {
				continue
			}
			var reached []float64
			for round := 1; round <= rounds; round++ {
				v, ok := values[key{d.step, d.metric, t, round}]
				if d.than != "" {
					than, have := values[key{d.step, d.metric, d.than, round}]
					ok = ok && have && than > 0
					v /= than
				}
				if d.scale != 0 {
					v *= d.scale
				}
				if ok {
					reached = append(reached, v)
				}
			}
			all = append(all, d.verdict(t, reached))
		}
	}
	return all
}

func (d *demand) verdict(target string, reached []float64) Verdict {
	v := Verdict{What: d.what, Target: target, Bound: d.bound, Unit: d.unit, Rounds: len(reached)}
	unit := d.unit
	if d.than != "" {
		unit = "× " + d.than
	}
	sign := "≥"
	if d.atMost {
		sign = "≤"
	}
	v.Asked = strings.TrimSpace(fmt.Sprintf("%s %s %s", sign, number(d.bound), unit))
	if len(reached) == 0 {
		return v
	}
	v.Reached = median(reached)
	v.Met = v.Reached >= d.bound
	ratio := v.Reached / d.bound
	if d.atMost {
		v.Met = v.Reached <= d.bound
		ratio = d.bound / v.Reached
	}
	if !math.IsInf(ratio, 0) && !math.IsNaN(ratio) {
		v.Ratio = ratio
	}
	return v
}

// PrintAsked writes verdicts as a table for people.
func PrintAsked(w io.Writer, verdicts []Verdict) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\nwhat is asked\ttarget\tasked\treached\tratio\t")
	for _, v := range verdicts {
		reached, ratio, met := "not measured", "", ""
		if v.Rounds > 0 {
			reached, met = strings.TrimSpace(number(v.Reached)+" "+v.Unit), "no"
			if v.Met {
				met = "yes"
			}
			if v.Ratio != 0 {
				ratio = number(v.Ratio)
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", v.What, v.Target, v.Asked, reached, ratio, met)
	}
	return tw.Flush()
}
