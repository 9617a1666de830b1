// Package bench measures brokers and QUIC engines from outside: each server runs
// in a process of its own, targets take turns round by round, and what is
// reported are medians and their ratio to the first target, because the speed of
// a shared machine drifts.
package bench

import (
	"cmp"
	"slices"
	"time"
)

// A Sample is one measured figure of one round.
type Sample struct {
	Target   string  `json:"target"`   // what was measured: "anyquic/tcp", "mochi/tcp"
	Scenario string  `json:"scenario"` // "throughput", "latency" ...
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"`
	Round    int     `json:"round"`
	Value    float64 `json:"value"`
}

// A Figure is the median of a metric over the rounds, with the extremes.
type Figure struct {
	Scenario string  `json:"scenario"`
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"`
	Target   string  `json:"target"`
	Median   float64 `json:"median"`
	Min      float64 `json:"min"`
	Max      float64 `json:"max"`
	Rounds   int     `json:"rounds"`
	// Ratio is the median of this target's value over the first target's of
	// the same round; 0 if the latter is 0.
	Ratio float64 `json:"ratio"`
}

// Summarise returns the figures of samples, in the order in which the metrics
// and targets appear first.
func Summarise(samples []Sample) []Figure {
	type key struct{ scenario, metric, target string }
	var order []key
	rounds := make(map[key]map[int]float64)
	units := make(map[key]string)
	first := make(map[[2]string]string) // the first target of a metric
	for _, s := range samples {
		k := key{s.Scenario, s.Metric, s.Target}
		if rounds[k] == nil {
			rounds[k] = make(map[int]float64)
			order = append(order, k)
			units[k] = s.Unit
		}
		rounds[k][s.Round] = s.Value
		m := [2]string{s.Scenario, s.Metric}
		if _, ok := first[m]; !ok {
			first[m] = s.Target
		}
	}
	position := make(map[[2]string]int)
	for i, k := range order {
		m := [2]string{k.scenario, k.metric}
		if _, ok := position[m]; !ok {
			position[m] = i
		}
	}
	slices.SortStableFunc(order, func(a, b key) int {
		return cmp.Compare(position[[2]string{a.scenario, a.metric}], position[[2]string{b.scenario, b.metric}])
	})
	figures := make([]Figure, 0, len(order))
	for _, k := range order {
		base := rounds[key{k.scenario, k.metric, first[[2]string{k.scenario, k.metric}]}]
		var values, ratios []float64
		for round, v := range rounds[k] {
			values = append(values, v)
			if b := base[round]; b != 0 {
				ratios = append(ratios, v/b)
			}
		}
		slices.Sort(values)
		figures = append(figures, Figure{
			Scenario: k.scenario, Metric: k.metric, Unit: units[k], Target: k.target,
			Median: median(values), Min: values[0], Max: values[len(values)-1], Rounds: len(values),
			Ratio: median(ratios),
		})
	}
	return figures
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// percentile returns the value below which the fraction p of sorted lies.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
