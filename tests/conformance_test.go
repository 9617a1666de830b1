// Package tests holds what concerns the module as a whole: the conformance of
// every pair of engines, and who may import whom.
package tests

import (
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
}
