package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServePublishesItsFiguresUnlessItIsToldNotTo(t *testing.T) {
	s := startServe(t, "--sys-interval", "1h")
	code, stdout, stderr := anyquic(t, "mqtt", "sub", s.url("quic"), "--insecure", "-t", "$SYS/broker/version", "-C", "1", "-W", "2m")
	require.Zero(t, code, stderr)
	require.Equal(t, "anyquic "+buildVersion().Version+"\n", stdout)

	s = startServe(t, "--sys-interval", "0")
	p := s.connect(t, "a")
	p.subscribe(0, "$SYS/#")
	p.ping()

	code, _, stderr = anyquic(t, "serve", "--sys-interval", "1ms", "--check")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--sys-interval 1ms")
}
