package main

import (
	"net"
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
	code, stdout, stderr := anyquic(t, "mqtt", "sub", blocked, "--url", s.url("wss"), "--insecure", "-t", "r", "-C", "1", "-W", "20s")
	require.Zero(t, code, stderr)
	require.Equal(t, "raced\n", stdout)
	code, _, stderr = anyquic(t, "mqtt", "pub", "-t", "r", "-n")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--url")
}
