package topic_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/topic"
)

func TestRetainedObeysTheDollarRule(t *testing.T) {
	r := topic.NewRetained[int]()
	for i, name := range []string{"$SYS", "$SYS/a", "a", "a/$SYS", "/a"} {
		r.Set(name, i)
	}
	for filter, want := range map[string][]string{
		"#":      {"a", "a/$SYS", "/a"},
		"+":      {"a"},
		"+/a":    {"/a"},
		"+/#":    {"a", "a/$SYS", "/a"},
		"$SYS/#": {"$SYS", "$SYS/a"},
		"$SYS/+": {"$SYS/a"},
		"$SYS":   {"$SYS"},
		"a/+":    {"a/$SYS"},
	} {
		got := []string{}
		r.Match(filter, func(name string, _ int) bool { got = append(got, name); return true })
		require.ElementsMatch(t, want, got, filter)
	}
}

func TestRetainedMatchStopsWhenToldTo(t *testing.T) {
	r := topic.NewRetained[int]()
	for i := range 100 {
		r.Set(fmt.Sprintf("a/%d/b", i), i)
	}
	for _, filter := range []string{"#", "a/+/b", "a/#", "a/7/b"} {
		n := 0
		r.Match(filter, func(string, int) bool { n++; return false })
		require.Equal(t, 1, n, filter)
	}
}

func TestRetainedMatchMayDeleteWhatItIsShown(t *testing.T) {
	r := topic.NewRetained[int]()
	for i := range 1000 {
		r.Set(fmt.Sprintf("a/%d/b", i), i)
	}
	n := 0
	r.Match("a/#", func(name string, v int) bool {
		n++
		require.True(t, r.DeleteIf(name, func(w int) bool { return w == v }))
		return true
	})
	require.Equal(t, 1000, n)
	require.Zero(t, r.Len())
}

func TestDeleteIfSparesAValueThatWasSetMeanwhile(t *testing.T) {
	r := topic.NewRetained[int]()
	require.False(t, r.DeleteIf("a", func(int) bool { return true }))
	r.Set("a", 1)
	require.False(t, r.DeleteIf("a", func(v int) bool { return v != 1 }))
	require.False(t, r.DeleteIf("a", func(int) bool { r.Set("a", 1); return true })) // equal, but another
	require.True(t, r.DeleteIf("a", func(v int) bool { return v == 1 }))
	_, ok := r.Get("a")
	require.False(t, ok)
}

// A Match that began before a split walks nodes that are out of date; the values are not.
func TestRetainedMatchYieldsTheValueOfTheMoment(t *testing.T) {
	r := topic.NewRetained[int]()
	for i := range 50 {
		r.Set(fmt.Sprintf("a/%d/b", i), 0)
	}
	first := true
	r.Match("a/+/b", func(name string, v int) bool {
		if first {
			first = false
			for i := range 50 {
				r.Set(fmt.Sprintf("a/%d", i), 1)          // splits
				r.Set(fmt.Sprintf("a/%d/b", i), 1)        // replaces
				r.Set(fmt.Sprintf("a/x%d/c", i*1000), 99) // grows the table
			}
			return true
		}
		require.Equal(t, 1, v, name)
		return true
	})
}

func BenchmarkRetainedMatch(b *testing.B) {
	r := topic.NewRetained[int]()
	for i := range 100_000 {
		r.Set(fmt.Sprintf("device/%d/temp/in", i), i)
	}
	for _, filter := range []string{"device/77/temp/in", "device/77/#", "device/+/temp/in"} {
		b.Run(filter, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Match(filter, func(string, int) bool { return true })
			}
		})
	}
}

func BenchmarkRetainedSet(b *testing.B) {
	r := topic.NewRetained[int]()
	names := make([]string, 1<<17)
	for i := range names {
		names[i] = fmt.Sprintf("device/%d/temp/in", i)
		r.Set(names[i], i)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Set(names[rand.IntN(len(names))], 1)
	}
}
