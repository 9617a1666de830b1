package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFiguresAreMediansAndRatiosOfTheSameRound(t *testing.T) {
	samples := []Sample{
		{"a", "throughput", "rate", "msg/s", 1, 100},
		{"b", "throughput", "rate", "msg/s", 1, 300},
		{"a", "throughput", "lost", "messages", 1, 0},
		{"b", "throughput", "lost", "messages", 1, 7},
		{"a", "throughput", "rate", "msg/s", 2, 10}, // the machine was slow
		{"b", "throughput", "rate", "msg/s", 2, 20},
		{"a", "throughput", "rate", "msg/s", 3, 100},
		{"b", "throughput", "rate", "msg/s", 3, 200},
	}
	require.Equal(t, []Figure{
		{"throughput", "rate", "msg/s", "a", 100, 10, 100, 3, 1},
		{"throughput", "rate", "msg/s", "b", 200, 20, 300, 3, 2},
		{"throughput", "lost", "messages", "a", 0, 0, 0, 1, 0},
		{"throughput", "lost", "messages", "b", 7, 7, 7, 1, 0},
	}, Summarise(samples))
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	require.Zero(t, percentile(d, 0.5))
	for i := range 1000 {
		d = append(d, time.Duration(i))
	}
	require.Equal(t, time.Duration(500), percentile(d, 0.5))
	require.Equal(t, time.Duration(999), percentile(d, 0.999))
	require.Equal(t, time.Duration(999), percentile(d, 1))
}
