package main

import (
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport/engine"
)

func TestCheckPrintsWhatFileAndFlagsMakeOfTheDefaults(t *testing.T) {
	file := writeFile(t, "broker.yaml", `
host: 0.0.0.0
listen:
  tls: off
  quic: 127.0.0.1:4433
limits:
  queue-bytes: 1000
timeouts:
  connect: 3s
access:
  users: users.txt
`)
	code, stdout, stderr := anyquic(t, "serve", "--config", file, "--quic", "127.0.0.1:5544", "--ws-path", "/ws", "--check")
	require.Zero(t, code, stderr)
	var cfg serveConfig
	require.NoError(t, yaml.UnmarshalWithOptions([]byte(stdout), &cfg, yaml.Strict()), stdout)

	want := defaults()
	want.Engine = engine.Default().Name()
	want.Host = "0.0.0.0"
	want.Listen.TCP = "0.0.0.0:1883"
	want.Listen.TLS = off
	want.Listen.WSS = "0.0.0.0:8443"
	want.Listen.QUIC = "127.0.0.1:5544" // the flag wins
	want.Listen.WSPath = "/ws"
	want.Limits.QueueBytes = 1000
	want.Timeouts.Connect = 3e9
	want.Access.Users = "users.txt"
	require.Equal(t, want, cfg)

	// What --check prints is a configuration file itself.
	again := writeFile(t, "again.yaml", stdout)
	code, second, stderr := anyquic(t, "serve", "--config", again, "--check")
	require.Zero(t, code, stderr)
	require.Equal(t, stdout, second)
}

func TestWithoutFlagsOnlyLoopbackIsOpened(t *testing.T) {
	cfg := defaults()
	require.NoError(t, cfg.resolve())
	require.Equal(t, listenConfig{
		TCP: "127.0.0.1:1883", TLS: "127.0.0.1:8883", WS: off, WSS: "127.0.0.1:8443", WSPath: "/mqtt", HTTP3: true, Early: "connect",
		QUIC: "127.0.0.1:14567", Streams: 16, Metrics: "127.0.0.1:9090",
	}, cfg.Listen)
}

func TestEveryDefaultIsExplicit(t *testing.T) {
	cfg := defaults()
	require.NoError(t, cfg.resolve())
	require.NotZero(t, cfg.Limits.QueueBytes)
	require.NotZero(t, cfg.Limits.MaximumPacketSize)
	require.NotZero(t, cfg.Timeouts.Connect)
	require.NotZero(t, cfg.Timeouts.SessionExpiry)
}

func TestOpenListenersAreWarnedOf(t *testing.T) {
	s := startServe(t, "--tcp", "0.0.0.0:0", "--allow-anonymous")
	s.stop()
	require.Contains(t, s.stderr.String(), "anyone who can reach this address may connect")
	s = startServe(t)
	s.stop()
	require.NotContains(t, s.stderr.String(), "anyone")
}
