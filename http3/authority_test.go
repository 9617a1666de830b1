package http3

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAuthorityIsASCIIAndHasNoZone(t *testing.T) {
	for host, want := range map[string]string{
		"example.com":          "example.com",
		"example.com:8443":     "example.com:8443",
		"bücher.example":       "xn--bcher-kva.example",
		"BÜCHER.example:1":     "xn--bcher-kva.example:1",
		"[::1]:443":            "[::1]:443",
		"[fe80::1%en0]":        "[fe80::1]",
		"[fe80::1%25en0]:4433": "[fe80::1]:4433",
		"exa mple.com":         "",
		"user@example.com":     "",
		"[fe80::1%en 0]:1":     "[fe80::1]:1",
	} {
		for _, req := range []*http.Request{
			{URL: &url.URL{Host: host}},
			{URL: &url.URL{Host: "other.example"}, Host: host},
		} {
			got, err := authority(req)
			require.Equal(t, want, got, host)
			require.Equal(t, want == "", err != nil, host)
		}
	}
}

func TestConnectionsAreKeptByTheASCIIName(t *testing.T) {
	for host, want := range map[string]string{
		"example.com":        "example.com:443",
		"bücher.example:8":   "xn--bcher-kva.example:8",
		"[::1]":              "[::1]:443",
		"[fe80::1%en0]:4433": "[fe80::1%en0]:4433",
	} {
		require.Equal(t, want, authorityAddr(host))
	}
}
