package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPubAndSubUseStreams(t *testing.T) {
	s := startServe(t)
	for _, carrier := range []string{"quic", "wt", "tcp"} { // the last has none and does without
		for _, streams := range []string{"control", "topic", "dedicated", "hash:3"} {
			url, topic := s.url(carrier), "t/"+carrier+"/"+streams
			code, _, stderr := anyquic(t, "mqtt", "pub", url, "--insecure", "--streams", streams, "-t", topic, "-m", "kept", "-q", "2", "-r")
			require.Zero(t, code, stderr)
			code, stdout, stderr := anyquic(t, "mqtt", "sub", url, "--insecure", "--streams", streams, "-t", topic, "-C", "1", "-W", "2m")
			require.Zero(t, code, stderr)
			require.Equal(t, "kept\n", stdout)
		}
	}
}

func TestPubResumesItsSessionWithEarlyData(t *testing.T) {
	for _, policy := range []string{"off", "connect", "idempotent", "all"} {
		s := startServe(t, "--early-data", policy)
		file := filepath.Join(t.TempDir(), "tickets")
		for range 3 {
			code, _, stderr := anyquic(t, "mqtt", "pub", s.url("quic"), "--insecure", "--0rtt", "--tickets", file, "-t", "t", "-m", "m", "-q", "1")
			require.Zero(t, code, stderr)
		}
		kept, err := os.Stat(file)
		require.NoError(t, err)
		require.Positive(t, kept.Size())
		s.stop()
	}
	code, _, stderr := anyquic(t, "mqtt", "pub", "mqtt+quic://127.0.0.1:1", "--0rtt", "-t", "t", "-m", "m")
	require.NotZero(t, code)
	require.Contains(t, stderr, "--tickets")
}
