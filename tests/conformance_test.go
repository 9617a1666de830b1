// Package tests holds what concerns the module as a whole: the conformance of
// every pair of engines, and who may import whom.
package tests

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// TestConformance holds every engine of the build to the contract, as client
// and as server of every other. Its subtests are named CLIENT-SERVER/Case.
// With -v it prints the table of results.
func TestConformance(t *testing.T) {
	var results []transporttest.Result
	for _, client := range engine.All() {
		for _, server := range engine.All() {
			results = append(results, transporttest.TestPair(t, client, server)...)
		}
	}
	if testing.Verbose() {
		require.NoError(t, transporttest.WriteMatrix(t.Output(), results))
	}
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		requireEveryPair(t, results)
	}
}

// requireEveryPair checks that every pair ran the same cases.
func requireEveryPair(t *testing.T, results []transporttest.Result) {
	t.Helper()
	ran := map[string]int{}
	for _, r := range results {
		ran[r.Pair]++
	}
	require.Len(t, ran, len(engine.All())*len(engine.All()))
	for pair, n := range ran {
		require.Equal(t, ran[results[0].Pair], n, pair)
	}
}
