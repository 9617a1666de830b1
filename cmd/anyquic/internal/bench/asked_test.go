package bench

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// verdictOf returns the verdict with a name on a target.
func verdictOf(t *testing.T, all []Verdict, what, target string) Verdict {
	t.Helper()
	for _, v := range all {
		if v.What == what && v.Target == target {
			return v
		}
	}
	t.Fatalf("no %s of %s in %+v", what, target, all)
	return Verdict{}
}

func TestWhatIsReachedIsTheMedianOfRatiosOfTheSameRound(t *testing.T) {
	samples := []Sample{
		{"anyquic/tcp", stepQoS0, "rate", "msg/s", 1, 500},
		{"mochi/tcp", stepQoS0, "rate", "msg/s", 1, 100},
		{"anyquic/tcp", stepQoS0, "rate", "msg/s", 2, 20}, // the machine was slow
		{"mochi/tcp", stepQoS0, "rate", "msg/s", 2, 10},
		{"anyquic/tcp", stepQoS0, "rate", "msg/s", 3, 400},
		{"mochi/tcp", stepQoS0, "rate", "msg/s", 3, 100},
		{"anyquic/tcp", stepQoS0, "lost", "%", 1, 0},
		{"anyquic/tcp", stepQoS0, "lost", "%", 2, 0},
		{"anyquic/tcp", stepQoS0, "lost", "%", 3, 0},
		{"anyquic/tcp", stepIdle, "memory per connection", "KiB", 1, 10},
		{"anyquic/quic/purego", stepLatency, "p99", "µs", 1, 300},
		{"anyquic/tcp", stepLatency, "p99", "µs", 1, 100},
		{"anyquic/durable/tcp", stepDurable, "rate", "msg/s", 1, 15_000},
	}
	all := Asked([]string{"anyquic/tcp", "anyquic/quic/purego"}, samples)
	require.Equal(t, Verdict{"QoS 0", "anyquic/tcp", "≥ 3.00 × mochi/tcp", 3, "", 4, 4.0 / 3, true, 3}, verdictOf(t, all, "QoS 0", "anyquic/tcp"))
	require.Equal(t, Verdict{"QoS 0: lost", "anyquic/tcp", "≤ 0 %", 0, "%", 0, 0, true, 3}, verdictOf(t, all, "QoS 0: lost", "anyquic/tcp"))
	require.Equal(t, Verdict{"latency p99", "anyquic/quic/purego", "≤ 2.50 × anyquic/tcp", 2.5, "", 3, 2.5 / 3, false, 1}, verdictOf(t, all, "latency p99", "anyquic/quic/purego"))
	require.Equal(t, Verdict{"durable QoS 1", "anyquic/durable/tcp", "≥ 30000 msg/s", 30_000, "msg/s", 15_000, 0.5, false, 1}, verdictOf(t, all, "durable QoS 1", "anyquic/durable/tcp"))
	idle := verdictOf(t, all, "idle memory", "anyquic/tcp")
	require.InDelta(t, 10.24, idle.Reached, 1e-9, "KB are 1000 bytes")
	require.True(t, idle.Met)
	require.Zero(t, verdictOf(t, all, "QoS 0", "anyquic/quic/purego").Rounds, "it was not measured")
	require.False(t, verdictOf(t, all, "fan-out", "anyquic/tcp").Met)

	var table bytes.Buffer
	require.NoError(t, PrintAsked(&table, all))
	rows := make(map[string]string)
	for row := range strings.Lines(table.String()) {
		if f := strings.Fields(row); len(f) > 0 {
			rows[strings.Join(f, " ")] = row
		}
	}
	for _, row := range []string{
		"what is asked target asked reached ratio",
		"QoS 0 anyquic/tcp ≥ 3.00 × mochi/tcp 4.00 1.33 yes",
		"QoS 0: lost anyquic/tcp ≤ 0 % 0 % yes",
		"durable QoS 1 anyquic/durable/tcp ≥ 30000 msg/s 15000 msg/s 0.50 no",
		"fan-out anyquic/tcp ≥ 4.00 × mochi/tcp not measured",
	} {
		require.Contains(t, rows, row)
	}
}

func TestAPlanBeginsNoRoundThatWouldTakeTooLong(t *testing.T) {
	var said []string
	p := Plan{MQTT: MQTT{Progress: func(s string) { said = append(said, s) }}} // no targets: a round takes no time
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := p.Run(ctx, 9)
	require.NoError(t, err)
	require.Equal(t, "1 rounds of 9: there is no time for another", said[len(said)-1])
}
