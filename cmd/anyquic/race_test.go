package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSeveralURLsAreTriedUntilOneConnects(t *testing.T) {
	s := startServe(t)
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // takes packets and says nothing
	require.NoError(t, err)
	defer silent.Close()
	blocked := "mqtt+quic://" + silent.LocalAddr().String()
	code, _, stderr := anyquic(t, "mqtt", "pub", "--url", blocked, "--url", s.url("tls"), "--insecure", "-t", "r", "-m", "raced", "-q", "1", "-r")
	require.Zero(t, code, stderr)
	code, stdout, stderr := anyquic(t, "mqtt", "sub", blocked, "--url", s.url("wss"), "--insecure", "-t", "r", "-C", "1", "-W", "2m")
	require.Zero(t, code, stderr)
	require.Equal(t, "raced\n", stdout)
	code, _, stderr = anyquic(t, "mqtt", "pub", "-t", "r", "-n")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--url")
}

func TestSessionsOfTLSAreKeptForTheNextCommand(t *testing.T) {
	s := startServe(t)
	file := filepath.Join(t.TempDir(), "tickets")
	size := int64(0)
	for _, carrier := range []string{"tls", "quic", "wss+h3"} {
		for range 2 {
			code, _, stderr := anyquic(t, "mqtt", "pub", s.url(carrier), "--insecure", "--tickets", file, "-t", "r", "-m", "x", "-q", "1")
			require.Zero(t, code, stderr)
		}
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		require.Greater(t, info.Size(), size, "a session of %s", carrier)
		size = info.Size()
	}
	notes := filepath.Join(t.TempDir(), "notes")
	require.NoError(t, os.WriteFile(notes, []byte("what is not a file of tickets"), 0o600))
	code, _, stderr := anyquic(t, "mqtt", "pub", s.url("tls"), "--insecure", "--tickets", notes, "-t", "r", "-n")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--tickets")
}
