package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/transport/engine"
)

// TestMain lets the test's own binary be the servers that the benchmarks start, and
// the service that systemd does.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && (os.Args[1] == "bench" || os.Args[1] == "h3") {
		if os.Args[2] == "idler" {
			os.Exit(idler())
		}
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // those servers need not linger
	os.Exit(m.Run())
}

// idler is a foreign server, and a foreign client, that can do nothing.
func idler() int {
	hello := benchproc.Hello{URLs: map[string]string{"quic": "127.0.0.1:1"}}
	if err := benchproc.Answer(os.Stdin, os.Stdout, hello, func(*benchproc.Request) (any, error) {
		return nil, errors.ErrUnsupported
	}); err != nil {
		return 1
	}
	return 0
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
	r := benchReportOf(t, "mqtt", "--carrier", "tcp,tls,wss,wss+h3,quic,wt", "--pairs", "2", "--messages", "2000",
		"--rate", "200", "--duration", "100ms", "--idle", "20", "--settle", "1ms")
	for _, carrier := range []string{"tcp", "tls", "wss", "wss+h3", "quic", "wt"} {
		target := "anyquic/" + carrier
		require.Positive(t, r.value(t, target, "throughput", "rate"))
		require.Zero(t, r.value(t, target, "throughput", "lost"))
		require.Positive(t, r.value(t, target, "latency", "p99.9"))
		r.value(t, target, "throughput", "broker CPU per message")
		r.value(t, target, "idle", "memory per connection")
	}
	if runtime.GOOS == "linux" {
		require.Positive(t, r.value(t, "anyquic/quic", "idle", "resident memory of the engine's own connection"))
		r.value(t, "anyquic/quic", "idle", "resident memory beyond the engine's own")
	}
}

func TestBenchMQTTMeasuresEveryQoS(t *testing.T) {
	for _, qos := range []string{"1", "2"} {
		r := benchReportOf(t, "mqtt", "--carrier", "quic", "--scenario", "throughput", "--qos", qos, "--pairs", "2", "--messages", "2000")
		require.Zero(t, r.value(t, "anyquic/quic", "throughput", "lost"))
	}
}

func TestBenchMQTTFansOut(t *testing.T) {
	r := benchReportOf(t, "mqtt", "--carrier", "tcp,quic", "--protocol-version", "311", "--scenario", "fanout", "--fanout", "5", "--messages", "5000")
	for _, target := range []string{"anyquic/tcp", "anyquic/quic"} {
		require.Positive(t, r.value(t, target, "fanout", "rate"))
		require.Zero(t, r.value(t, target, "fanout", "lost"))
	}
}

func TestBenchMQTTBlocksASubscriber(t *testing.T) {
	// What is published at a time has room in a subscriber's queue of 1 MiB: where the
	// machine lets it wait, nothing is dropped.
	r := benchReportOf(t, "mqtt", "--carrier", "tcp", "--scenario", "blocked", "--fanout", "3", "--rate", "100", "--duration", "200ms", "--size", "65536")
	require.Positive(t, r.value(t, "anyquic/tcp", "blocked", "p99, all read"))
	require.Positive(t, r.value(t, "anyquic/tcp", "blocked", "p99, one does not"))
	require.Zero(t, r.value(t, "anyquic/tcp", "blocked", "lost, one does not"))
	require.Positive(t, r.value(t, "anyquic/tcp", "blocked", "p99 with the one to without"))
}

func TestBenchMQTTComparesStreamsOverALossyPathOnEveryEngine(t *testing.T) {
	for _, e := range engine.All() {
		r := benchReportOf(t, "mqtt", "--engine", e.Name(), "--carrier", "quic", "--scenario", "streams", "--duration", "300ms", "--rtt", "4ms", "--loss", "0.5")
		for _, side := range []string{"publishing", "subscribing"} {
			for streams, metric := range map[float64]string{0: "1 stream, ", 8: "8 streams, ", 64: "64 streams, "} {
				require.Equal(t, streams, r.value(t, "anyquic/quic", "streams", "data streams of the client, "+metric+side))
				require.Zero(t, r.value(t, "anyquic/quic", "streams", "lost, "+metric+side))
				// What is on its way takes half the round trip at least.
				require.GreaterOrEqual(t, r.value(t, "anyquic/quic", "streams", "p50, "+metric+side), 2000.0)
			}
			require.Positive(t, r.value(t, "anyquic/quic", "streams", "p95 of 8 streams to 1, "+side))
			require.Positive(t, r.value(t, "anyquic/quic", "streams", "p95 of 64 streams to 8, "+side))
		}
	}
}

func TestBenchMQTTMeasuresABrokerWithAStore(t *testing.T) {
	for _, sync := range []string{"always", "interval"} {
		dir := t.TempDir()
		r := benchReportOf(t, "mqtt", "--carrier", "tcp", "--scenario", "throughput", "--qos", "1", "--pairs", "2", "--messages", "2000", "--store", dir, "--sync", sync)
		require.Positive(t, r.value(t, "anyquic/tcp", "throughput", "rate"))
		require.Zero(t, r.value(t, "anyquic/tcp", "throughput", "lost"))
		if sync == "always" {
			require.GreaterOrEqual(t, r.value(t, "anyquic/tcp", "throughput", "store on the disk"), 2000*64/1024.0, "the log has every message")
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestBenchMQTTMeasuresAllThatIsAsked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	t.Chdir(dir)
	code, stdout, stderr := anyquic(t, "bench", "mqtt", "--all", "--rounds", "1", "--save", "../asked.json", "--messages", "2000", "--duration", "100ms", "--fanout", "3", "--pairs", "2",
		"--rate", "200", "--idle", "5", "--settle", "1ms", "--vanished", "2", "--rtt", "2ms", "--peer", "mochi="+os.Args[0]+" bench broker")
	require.Zero(t, code, stderr)
	var r askedReport
	saved, err := os.ReadFile("../asked.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(saved, &r), string(saved))
	require.NotEmpty(t, r.Asked)
	require.Contains(t, stdout, "what is asked")
	quic := make(map[string]bool)
	for _, v := range r.Asked {
		if runtime.GOOS == "linux" || !strings.HasPrefix(v.What, "idle memory beyond") {
			require.Equal(t, 1, v.Rounds, "%+v", v)
		}
		if strings.HasSuffix(v.What, "lost") {
			require.True(t, v.Met, "%+v", v)
		}
		if name, ok := strings.CutPrefix(v.Target, "anyquic/quic/"); ok {
			quic[name] = true
		}
	}
	require.Len(t, quic, len(engine.All()))
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left, "the store's folder")
}

func TestBenchMQTTEndsInTime(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, stderr := anyquic(t, "bench", "mqtt", "--all", "--rounds", "9", "--most", "1ns")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--most")
}

func TestBenchMQTTLetsSubscribersVanish(t *testing.T) {
	// All of it has room in the living one's queue, of 1 MiB: where the machine lets it
	// wait, nothing is dropped.
	r := benchReportOf(t, "mqtt", "--carrier", "quic", "--scenario", "vanished", "--vanished", "3", "--messages", "600", "--size", "1024", "--pace", "30000")
	require.Zero(t, r.value(t, "anyquic/quic", "vanished", "lost by the living, flat out"))
	require.Positive(t, r.value(t, "anyquic/quic", "vanished", "with the vanished, at 30000 msg/s"))
}

func TestBenchTransportMeasuresTheEngines(t *testing.T) {
	name := engine.Default().Name()
	r := benchReportOf(t, "transport", "--engine", name, "--engine", name, "--bulk", "1000000", "--streams", "100", "--pings", "20",
		"--handshakes", "4", "--parallel", "2", "--idle", "20", "--rtt", "2ms", "--duration", "100ms",
		"--scenario", "bulk,pings,streams,handshakes,idle,loss")
	for _, target := range []string{name, name + "#2"} {
		for _, metric := range [][2]string{
			{"bulk", "upload"},
			{"bulk", "download"},
			{"pings", "32-byte ping-pong, p99"},
			{"streams", "open, echo a byte, close"},
			{"handshakes", "1 at a time"},
			{"handshakes", "2 at a time"},
			{"loss", "download"},
		} {
			require.Positive(t, r.value(t, target, metric[0], metric[1]))
		}
		if runtime.GOOS == "linux" {
			require.Positive(t, r.value(t, target, "bulk", "upload, sender CPU"))
			require.Positive(t, r.value(t, target, "idle", "with an open stream, resident"))
		}
		require.Less(t, r.value(t, target, "loss", "lost on the way"), 100.0) // what a socket had no room for is in it
	}
}

func TestBenchTransportLetsAPeerLeaveOutWhatItCannotDo(t *testing.T) {
	r := benchReportOf(t, "transport", "--engine", engine.Default().Name(), "--scenario", "streams,bulk", "--streams", "10", "--bulk", "1000",
		"--peer", "idler="+os.Args[0]+" bench idler")
	for _, f := range r.Figures {
		require.NotEqual(t, "idler", f.Target)
	}
}

func TestBenchTransportNamesTheCongestionControl(t *testing.T) {
	e := engine.Default()
	cc := e.Features().CongestionControl[0]
	r := benchReportOf(t, "transport", "--engine", e.Name(), "--cc", cc, "--scenario", "pings", "--pings", "3")
	require.Positive(t, r.value(t, e.Name()+"/"+cc, "pings", "32-byte ping-pong, p50"))
}

func TestBenchH3MeasuresTheServersOnEveryEngine(t *testing.T) {
	name := engine.Default().Name()
	r := benchReportOf(t, "h3", "--requests", "200", "--conns", "2", "--parallel", "3", "--bulk", "300000", "--idle", "5",
		"--peer", "same="+os.Args[0]+" bench h3-server --engine "+name)
	targets := []string{"same"}
	for _, e := range engine.All() {
		targets = append(targets, "anyquic/"+e.Name())
	}
	require.Equal(t, "same", r.Figures[0].Target, "ratios are to the peer")
	for _, target := range targets {
		for _, metric := range [][2]string{
			{"requests", "rate"},
			{"requests", "latency, p99"},
			{"bulk", "download"},
			{"bulk", "upload"},
		} {
			require.Positive(t, r.value(t, target, metric[0], metric[1]))
		}
		r.value(t, target, "idle", "HTTP/3 connection, Go heap and stacks")
		r.value(t, target, "idle", "bare QUIC connection, Go heap and stacks")
	}
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"mqtt", "--carrier", "carrier-pigeon"}, "carrier-pigeon"},
		{[]string{"mqtt", "--carrier", "tcp", "--scenario", "speed"}, `"speed"`},
		{[]string{"mqtt", "--carrier", "tcp", "--scenario", "vanished"}, "QUIC"},
		{[]string{"mqtt", "--carrier", "tcp", "--scenario", "streams"}, "QUIC"},
		{[]string{"mqtt", "--scenario", "streams", "--streams", "65"}, "1 to 64"},
		{[]string{"mqtt", "--scenario", "streams", "--streams", "8,8"}, "each once"},
		{[]string{"mqtt", "--loss", "100"}, "--loss"},
		{[]string{"mqtt", "--all", "--scenario", "idle"}, "leave --scenario out"},
		{[]string{"mqtt", "--store", "/nowhere"}, "--store"},
		{[]string{"mqtt", "--store", ".", "-V", "311"}, "MQTT 5"},
		{[]string{"mqtt", "--size", "1"}, "--size"},
		{[]string{"mqtt", "--peer", "mochi"}, `--peer "mochi"`},
		{[]string{"mqtt", "--peer", "none=/nowhere/broker"}, "/nowhere/broker"},
		{[]string{"transport", "--engine", "msquic"}, "msquic"},
		{[]string{"transport", "--scenario", "speed"}, `"speed"`},
		{[]string{"transport", "--cc", "vegas"}, `"vegas"`},
		{[]string{"transport", "--loss", "100"}, "--loss"},
		{[]string{"transport", "--peer", "quic-go"}, `--peer "quic-go"`},
		{[]string{"transport", "--scenario", "pings", "--peer", "none=/nowhere/server", "--pings", "1", "--rounds", "1"}, "/nowhere/server"},
		{[]string{"transport", "--bulk", "0"}, "1 or more"},
		{[]string{"h3", "--scenario", "speed"}, `"speed"`},
		{[]string{"h3", "--engine", "msquic"}, "msquic"},
		{[]string{"h3", "--client", "msquic"}, "msquic"},
		{[]string{"h3", "--peer", "quic-go"}, `--peer "quic-go"`},
		{[]string{"h3", "--peer", "none=/nowhere/server"}, "/nowhere/server"},
		{[]string{"h3", "--conns", "0"}, "1 or more"},
	} {
		code, _, stderr := anyquic(t, append([]string{"bench"}, tt.args...)...)
		require.Equal(t, 1, code, strings.Join(tt.args, " "))
		require.Contains(t, stderr, tt.want)
	}
}
