package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/anyquic/anyquic/internal/durations"
)

// metricPrefix is what the names of all series begin with, but for those of Go and
// of the process.
const metricPrefix = "anyquic_"

// monitoring serves /metrics for Prometheus and /healthz for supervisors and
// load balancers: 200 while the broker accepts clients, 503 while it drains; and to
// this machine what admin adds.
func monitoring(ops *operations) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(ops.figures),
	)
	registry.MustRegister(ops.bridges)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if ops.draining.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("draining\n"))
			return
		}
		w.Write([]byte("ok\n"))
	})
	ops.admin(mux)
	return mux
}

// A collector translates the figures into allSeries at each scrape.
type collector struct {
	figures func() *figures
	descs   []*prometheus.Desc // of allSeries
}

func newCollector(f func() *figures) *collector {
	c := &collector{figures: f}
	for _, s := range allSeries {
		c.descs = append(c.descs, prometheus.NewDesc(metricPrefix+s.name, s.help, s.labels, nil))
	}
	return c
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	f := c.figures()
	for i, s := range allSeries {
		kind := prometheus.GaugeValue
		if s.kind == counter {
			kind = prometheus.CounterValue
		}
		s.values(f, func(v any, labels ...string) {
			switch v := v.(type) {
			case durations.Histogram:
				ch <- prometheus.MustNewConstHistogram(c.descs[i], v.Count, v.Sum.Seconds(), buckets(&v), labels...)
			case float64:
				ch <- prometheus.MustNewConstMetric(c.descs[i], kind, v, labels...)
			}
		})
	}
}

// buckets returns the classes of h as Prometheus has them: each with all below it.
func buckets(h *durations.Histogram) map[float64]uint64 {
	m := make(map[float64]uint64, len(durations.Bounds))
	n := uint64(0)
	for i, b := range durations.Bounds {
		n += h.Classes[i]
		m[b.Seconds()] = n
	}
	return m
}
