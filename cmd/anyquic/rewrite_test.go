package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestTopicsAreRewrittenAndDelayedAsTheFileSays(t *testing.T) {
	s := startServe(t, "--delayed", "--config", writeFile(t, "broker.yaml", `
rewrite:
  - filter: y/#
    match: y/(.+)/z/(.+)
    to: y/z/$2
  - filter: in/+
    to: published/$1
    on: publish
  - filter: in/+
    to: subscribed/$1
    on: subscribe
`))
	c := dialClient(t, s)
	_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "y/a/z/+"}, packet.Subscription{Filter: "y/b/z/+"}, packet.Subscription{Filter: "in/x"})
	require.NoError(t, err)
	all := make(chan string, 3)
	_, err = dialClient(t, s).Subscribe(t.Context(), func(p *packet.Publish) { all <- p.Topic }, packet.Subscription{Filter: "#", QoS: 1})
	require.NoError(t, err)
	for topic, want := range map[string]string{"y/a/z/b": "y/z/b", "in/x": "published/x", "$delayed/0/in/y": "published/y"} {
		_, err := c.Publish(t.Context(), &packet.Publish{Topic: topic, QoS: 1})
		require.NoError(t, err)
		require.Equal(t, want, <-all)
	}
	_, text := s.get(t, "/metrics")
	require.Contains(t, text, "anyquic_mqtt_delayed_messages 0")
	require.Contains(t, text, "anyquic_mqtt_subscriptions 3")
}

func TestRulesThatAreWrongAreRefusedWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"rewrite:\n  - filter: a\n    to: b\n  - filter: a/+\n    to: b/$2\n": "[4:11] rewrite: to \"b/$2\": there is no $2",
		"rewrite:\n  - filter: a\n    match: (\n    to: b\n":                  "[2:",
		"rewrite:\n  - filter: a\n    to: b\n    on: both\n":                  "on \"both\": use publish or subscribe",
		"rewrite:\n  - filter: a\n":                                           "rewrite: to \"\": empty",
		"rewrite:\n  - filter: a\n    to: b\n    form: c\n":                   "unknown field \"form\"",
		"delayed:\n  bytes: 0\n":                                              "--delayed-bytes must be more than 0",
		"delayed:\n  max: 0s\n":                                               "--delayed-max must be more than 0",
	} {
		code, _, stderr := anyquic(t, "serve", "--check", "--config", writeFile(t, "bad.yaml", text))
		require.NotZero(t, code, text)
		require.Contains(t, stderr, want, text)
	}
}
