package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test's own binary be the servers that the benchmarks start.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // those servers need not linger
	os.Exit(m.Run())
}

func benchReportOf(t *testing.T, args ...string) benchReport {
	t.Helper()
	code, stdout, stderr := anyquic(t, append(append([]string{"bench"}, args...), "--json", "--rounds", "1")...)
	require.Zero(t, code, stderr)
	var r benchReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	return r
}

// value returns the median of a metric.
func (r benchReport) value(t *testing.T, target, scenario, metric string) float64 {
	t.Helper()
	for _, f := range r.Figures {
		if f.Target == target && f.Scenario == scenario && f.Metric == metric {
			return f.Median
		}
	}
	t.Fatalf("no %s/%s of %s in %+v", scenario, metric, target, r.Figures)
	return 0
}

func TestBenchMQTTMeasuresEveryCarrier(t *testing.T) {
	r := benchReportOf(t, "mqtt", "--carrier", "tcp,tls,wss,quic", "--pairs", "2", "--messages", "2000",
		"--rate", "200", "--duration", "100ms", "--idle", "20")
	for _, carrier := range []string{"tcp", "tls", "wss", "quic"} {
		target := "anyquic/" + carrier
		require.Positive(t, r.value(t, target, "throughput", "rate"))
		require.Zero(t, r.value(t, target, "throughput", "lost"))
		require.Positive(t, r.value(t, target, "latency", "p99.9"))
		r.value(t, target, "throughput", "broker CPU per message")
		r.value(t, target, "idle", "memory per connection")
	}
}

func TestBenchMQTTMeasuresEveryQoS(t *testing.T) {
	for _, qos := range []string{"1", "2"} {
		r := benchReportOf(t, "mqtt", "--carrier", "quic", "--scenario", "throughput", "--qos", qos, "--pairs", "2", "--messages", "2000")
		require.Zero(t, r.value(t, "anyquic/quic", "throughput", "lost"))
	}
}

func TestBenchMQTTLetsSubscribersVanish(t *testing.T) {
	r := benchReportOf(t, "mqtt", "--carrier", "quic", "--scenario", "vanished", "--vanished", "3", "--messages", "3000", "--size", "1024", "--pace", "30000")
	require.Zero(t, r.value(t, "anyquic/quic", "vanished", "lost by the living, flat out"))
	require.Positive(t, r.value(t, "anyquic/quic", "vanished", "with the vanished, at 30000 msg/s"))
}

func TestBenchTransportMeasuresTheEngines(t *testing.T) {
	r := benchReportOf(t, "transport", "--bulk", "1000000", "--streams", "100", "--pings", "20", "--handshakes", "4", "--idle", "4")
	for _, metric := range []string{"upload, one stream", "download, one stream"} {
		require.Positive(t, r.value(t, "purego", "bulk", metric))
	}
	require.Positive(t, r.value(t, "purego", "streams", "open, echo a byte, close"))
	require.Positive(t, r.value(t, "purego", "pings", "32-byte ping-pong, p99"))
	require.Positive(t, r.value(t, "purego", "handshakes", "handshakes"))
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"mqtt", "--carrier", "carrier-pigeon"}, "carrier-pigeon"},
		{[]string{"mqtt", "--carrier", "tcp", "--scenario", "speed"}, `"speed"`},
		{[]string{"mqtt", "--carrier", "tcp", "--scenario", "vanished"}, "QUIC"},
		{[]string{"mqtt", "--size", "1"}, "--size"},
		{[]string{"mqtt", "--peer", "mochi"}, `--peer "mochi"`},
		{[]string{"mqtt", "--peer", "none=/nowhere/broker"}, "/nowhere/broker"},
		{[]string{"transport", "--engines", "msquic"}, "msquic"},
		{[]string{"transport", "--bulk", "0"}, "1 or more"},
	} {
		code, _, stderr := anyquic(t, append([]string{"bench"}, tt.args...)...)
		require.Equal(t, 1, code, strings.Join(tt.args, " "))
		require.Contains(t, stderr, tt.want)
	}
}
