package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatPubCannotDeliverStaysInTheFileForTheNext(t *testing.T) {
	nobody := "mqtt://" + refusing(t)
	file := filepath.Join(t.TempDir(), "queue")
	for _, m := range []string{"first", "second"} {
		code, _, stderr := anyquic(t, "mqtt", "pub", nobody, "-i", "p", "-t", "q/"+m, "-m", m, "-q", "2", "-r", "--queue", file, "--queue-wait", "0s")
		require.Zero(t, code, stderr)
		require.Contains(t, stderr, "stays in "+file)
	}

	s := startServe(t)
	code, _, stderr := anyquicWithInput(t, "third\n", "mqtt", "pub", s.url("tcp"), "-i", "p", "-t", "q/third", "-l", "-r", "--queue", file, "--queue-sync", "--queue-wait", "2m")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	code, stdout, stderr := anyquic(t, "mqtt", "sub", s.url("tcp"), "-t", "q/#", "-C", "3", "-W", "2m")
	require.Zero(t, code, stderr)
	require.ElementsMatch(t, []string{"first", "second", "third"}, strings.Fields(stdout))

	code, _, stderr = anyquic(t, "mqtt", "pub", s.url("tcp"), "-i", "another", "-t", "q", "-n", "--queue", file)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `client "p"`)
	code, _, stderr = anyquic(t, "mqtt", "pub", s.url("tcp"), "-t", "q", "-n", "--queue-sync")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--queue")
}
