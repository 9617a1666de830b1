package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestEveryQuotaOfTheBrokerIsASetting(t *testing.T) {
	d := defaults()
	q := d.Quotas.quotas()
	want := broker.DefaultConfig().Quotas
	require.Equal(t, want.PendingPerAddr, q.PendingPerAddr)
	require.Equal(t, want.FailedLogins, q.FailedLogins)
	require.NoError(t, d.Quotas.check())

	code, stdout, stderr := anyquic(t, "serve", "--check", "--total-message-rate", "5", "--byte-rate-per-listener", "6e3",
		"--message-rate-per-address", "7", "--pending-connections", "8", "--pending-connections-per-address", "9",
		"--failed-logins-per-address", "0.5", "--ipv6-prefix", "56", "--deny-networks", "192.0.2.0/24,2001:db8::1", "--password-checks", "1")
	require.Zero(t, code, stderr)
	for _, line := range []string{
		"total-message-rate: 5", "byte-rate-per-listener: 6000", "message-rate-per-address: 7", "pending-connections: 8",
		"pending-connections-per-address: 9", "failed-logins-per-address: 0.5", "ipv6-prefix: 56", "192.0.2.0/24,2001:db8::1", "password-checks: 1",
	} {
		require.Contains(t, stdout, line)
	}
	for want, args := range map[string][]string{
		"--ipv6-prefix 0":      {"--ipv6-prefix", "0"},
		`--deny-networks: "x"`: {"--deny-networks", "x"},
		"--total-byte-rate":    {"--total-byte-rate", "-1"},
		"--password-queue":     {"--password-queue", "0"},
	} {
		code, _, stderr := anyquic(t, append([]string{"serve", "--check"}, args...)...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, want)
	}
	all, err := networks("192.0.2.0/24, 2001:db8::1,192.0.2.1,")
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("192.0.2.1/32")}, all)
}

func TestSIGHUPReloadsQuotas(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals")
	}
	config := filepath.Join(t.TempDir(), "broker.yaml")
	require.NoError(t, os.WriteFile(config, []byte("quotas: {total-subscriptions: 1}\n"), 0o600))
	s := startServe(t, "--config", config)
	p := s.connect(t, "p")
	ask := func(filter string) packet.ReasonCode {
		p.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter}}})
		return nextSuback(p)[0]
	}
	require.Equal(t, packet.Success, ask("a"))
	require.Equal(t, packet.QuotaExceeded, ask("b"))
	require.NoError(t, os.WriteFile(config, []byte("quotas: {total-subscriptions: 2}\n"), 0o600))
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return strings.Contains(s.stderr.String(), "configuration reloaded") }, patience, time.Millisecond)
	require.NotContains(t, s.stderr.String(), "need a restart")
	require.Equal(t, packet.Success, ask("b"))
}

func TestABrokerThatAsksNobodyIsNotOpenedByAProxy(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
	}{
		{nil, http.StatusForbidden},
		{[]string{"--allow-anonymous"}, http.StatusSwitchingProtocols},
		{[]string{"--users", writeFile(t, "users", userLine(t, "alice", "of alice"))}, http.StatusSwitchingProtocols},
	} {
		s := startServe(t, tt.args...)
		ask := func(change func(*http.Request)) int {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addr("ws")+"/mqtt", nil)
			require.NoError(t, err)
			for k, v := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "mqtt",
			} {
				r.Header.Set(k, v)
			}
			change(r)
			resp, err := http.DefaultTransport.RoundTrip(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusForbidden {
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Contains(t, string(body), "--allow-anonymous")
			}
			return resp.StatusCode
		}
		require.Equal(t, http.StatusSwitchingProtocols, ask(func(*http.Request) {}))
		require.Equal(t, tt.want, ask(func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }), tt.args)
	}
}

func TestAProxyIsKnownByWhatItAdds(t *testing.T) {
	plain := httptest.NewRequest(http.MethodGet, "/", nil)
	require.False(t, forwarded(plain))
	for _, name := range append(forwardingHeaders, "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto") {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set(name, "x")
		require.True(t, forwarded(r), name)
	}
}
