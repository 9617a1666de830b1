package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestTheLogInJSONNamesClientAddressCarrierAndReasonAndNoSecret(t *testing.T) {
	s := startServe(t, "--log-format", "json", "--log-level", "debug")
	for _, carrier := range []string{"tcp", "quic", "wss", "wt"} {
		code, _, stderr := anyquic(t, "mqtt", "pub", s.url(carrier), "--insecure", "-i", "id-"+carrier, "-u", "ann", "-P", "hunter2", "-t", "x", "-m", "confidential", "-q", "1")
		require.Zero(t, code, stderr)
	}
	lost := s.connect(t, "id-lost", func(c *packet.Connect) {
		c.Username, c.Password = packet.Some("ann"), []byte("hunter2")
		c.Will = &packet.Will{Topic: "x", Payload: []byte("confidential")}
	})
	lost.send(&packet.Publish{Topic: "x", Payload: []byte("confidential"), QoS: 1, PacketID: 0x1234})
	next[*packet.Puback](lost)
	lost.conn.Close()

	type line struct {
		Time                                                    time.Time
		Level, Msg, Client, User, Remote, Carrier, Reason, Code string
		Version                                                 string
	}
	lines := func() map[string]line {
		found := map[string]line{}
		for text := range strings.Lines(s.stderr.String()) {
			if !strings.HasSuffix(text, "\n") {
				break // it is being written
			}
			var l line
			require.NoError(t, json.Unmarshal([]byte(text), &l), text)
			found[l.Msg+" "+l.Client] = l
		}
		return found
	}
	require.Eventually(t, func() bool {
		n := 0
		for what := range lines() {
			if strings.HasPrefix(what, "mqtt: disconnected") {
				n++
			}
		}
		return n == 5
	}, patience, 5*time.Millisecond, "%s", &s.stderr)
	found := lines()
	for _, carrier := range []string{"tcp", "quic", "wss", "wt", "lost"} {
		on, off := found["mqtt: connected id-"+carrier], found["mqtt: disconnected id-"+carrier]
		want := "DEBUG"
		if carrier == "lost" {
			carrier, want = "tcp", "INFO"
			require.Contains(t, off.Reason, "connection closed without DISCONNECT")
			require.Equal(t, "0x80 Unspecified error", off.Code)
		} else {
			require.Equal(t, "0x00 Success", off.Code)
		}
		require.Equal(t, "DEBUG", on.Level)
		require.Equal(t, want, off.Level)
		require.Equal(t, "5.0", on.Version)
		for _, l := range []line{on, off} {
			require.Equal(t, carrier, l.Carrier)
			require.Equal(t, "ann", l.User)
			require.Regexp(t, `^127\.0\.0\.1:\d+$`, l.Remote)
			require.False(t, l.Time.IsZero())
		}
	}
	require.NotContains(t, s.stderr.String(), "hunter2")
	require.NotContains(t, s.stderr.String(), "confidential")
}
