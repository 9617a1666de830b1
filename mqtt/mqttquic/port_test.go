package mqttquic

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPortIsAddedWhereItIsMissing(t *testing.T) {
	for in, want := range map[string]string{
		"host":           "host:14567",
		"host:":          "host:14567",
		"host:1":         "host:1",
		"192.0.2.1":      "192.0.2.1:14567",
		"192.0.2.1:5":    "192.0.2.1:5",
		"2001:db8::1":    "[2001:db8::1]:14567",
		"[2001:db8::1]":  "[2001:db8::1]:14567",
		"[2001:db8::1]:": "[2001:db8::1]:14567",
		"[::1]:7":        "[::1]:7",
	} {
		got, err := withPort(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
}
