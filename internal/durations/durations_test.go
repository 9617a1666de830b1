package durations_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/durations"
)

func TestEveryDurationIsInTheFirstClassThatReachesIt(t *testing.T) {
	require.True(t, slices.IsSorted(durations.Bounds[:]))
	var c durations.Counter
	require.Zero(t, c.Histogram())
	c.Add(0)
	for _, b := range durations.Bounds {
		c.Add(b)
		c.Add(b + 1)
	}
	h := c.Histogram()
	var sum time.Duration
	for i, n := range h.Classes {
		want := uint64(2) // its bound, and what is just above the one before
		if i == len(durations.Bounds) {
			want = 1
		} else {
			sum += 2*durations.Bounds[i] + 1
		}
		require.Equal(t, want, n, "class %d", i)
	}
	require.Equal(t, sum, h.Sum)
	require.EqualValues(t, 2*len(durations.Bounds)+1, h.Count)

	c.Add(math.MaxInt64 / 2)
	require.EqualValues(t, 2, c.Histogram().Classes[len(durations.Bounds)])
}

func TestCountingAllocatesNothing(t *testing.T) {
	var c durations.Counter
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Add(time.Millisecond) }))
}
