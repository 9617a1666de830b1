package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestSlowClientsAreReportedListedAndKicked(t *testing.T) {
	s := startServe(t, "--queue-bytes", "65536", "--hold-timeout", "1m", "--stall-timeout", "10ms")
	s.connect(t, "quick").subscribe(1, "t")
	s.dialStreams(t)
	slow := s.connect(t, "slow\x1b[2J", one1)
	slow.subscribe(1, "t/slow")
	pub := s.connect(t, "pub")
	for i := range 16 {
		pub.send(&packet.Publish{Topic: "t/slow", Payload: make([]byte, 8<<10), QoS: 1, PacketID: uint16(i + 1)})
	}
	list := func(args ...string) (l clientList) {
		t.Helper()
		code, stdout, stderr := anyquic(t, append([]string{"mqtt", "clients", "--at", s.addr("metrics"), "--json"}, args...)...)
		require.Zero(t, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &l), stdout)
		return l
	}
	var l clientList
	require.Eventually(t, func() bool {
		l = list("--slow")
		return l.Found == 1 && l.Clients[0].Stalled && l.Clients[0].Slow > time.Millisecond
	}, patience, 5*time.Millisecond)
	c := l.Clients[0]
	require.Equal(t, "slow\x1b[2J", c.ClientID)
	require.Equal(t, mqtt.TCP, c.Carrier)
	require.Regexp(t, `^127\.0\.0\.1:\d+$`, c.Remote)
	require.Greater(t, c.QueueBytes, 32<<10)
	require.Equal(t, 1, c.Inflight)
	require.Positive(t, c.Queued)

	all := list()
	require.Equal(t, 4, all.Found)
	require.Equal(t, c.ClientID, all.Clients[0].ClientID, "the slow ones first")
	quic := list("--client", "streams")
	require.Equal(t, mqtt.QUIC, quic.Clients[0].Carrier)
	require.Positive(t, quic.Clients[0].RTT)
	require.Empty(t, list("--client", "nobody").Clients)
	code, stdout, _ := anyquic(t, "mqtt", "clients", "--at", s.addr("metrics"), "--limit", "1")
	require.Zero(t, code)
	require.Contains(t, stdout, `"slow\x1b[2J"`, "nothing that a terminal would obey")
	require.NotContains(t, stdout, "\x1b")
	require.Contains(t, stdout, "takes nothing")
	require.Contains(t, stdout, "and 3 more")

	code, _, stderr := anyquic(t, "mqtt", "clients", "--at", s.addr("metrics"), "--kick", c.ClientID)
	require.Zero(t, code, stderr)
	for {
		p, err := slow.read()
		require.NoError(t, err)
		if d, ok := p.(*packet.Disconnect); ok {
			require.Equal(t, packet.AdministrativeAction, d.Code)
			break
		}
	}
	slow.conn.Close()
	require.Eventually(t, func() bool { return list("--slow").Found == 0 }, patience, 5*time.Millisecond)
	require.Contains(t, s.stderr.String(), "client disconnected by the administrator")
	code, _, stderr = anyquic(t, "mqtt", "clients", "--at", s.addr("metrics"), "--kick", "nobody")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no such client is connected")
}

func TestClientsAreShownAndKickedFromThisMachineOnly(t *testing.T) {
	ops := newQUICLab(t).ops
	h := monitoring(ops)
	ask := func(change func(*http.Request)) int {
		r := httptest.NewRequest(http.MethodGet, clientsPath, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost:9090"
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	kick := func(contentType, body string) func(*http.Request) {
		return func(r *http.Request) {
			k := httptest.NewRequest(http.MethodPost, kickPath, strings.NewReader(body))
			k.RemoteAddr, k.Host = r.RemoteAddr, r.Host
			k.Header.Set("Content-Type", contentType)
			*r = *k
		}
	}
	for _, c := range []struct {
		what   string
		change func(*http.Request)
		want   int
	}{
		{"this machine", func(*http.Request) {}, http.StatusOK},
		{"by IPv6", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:5", "[::1]:9090" }, http.StatusOK},
		{"by IPv6 without a port", func(r *http.Request) { r.RemoteAddr, r.Host = "[::1]:5", "[::1]" }, http.StatusOK},
		{"by IPv4 in IPv6", func(r *http.Request) { r.RemoteAddr = "[::ffff:127.0.0.1]:5" }, http.StatusOK},
		{"another machine", func(r *http.Request) { r.RemoteAddr = "192.0.2.1:5" }, http.StatusForbidden},
		{"a page whose name points here", func(r *http.Request) { r.Host = "evil.example:9090" }, http.StatusForbidden},
		{"a name that looks like ours", func(r *http.Request) { r.Host = "localhost.evil.example" }, http.StatusForbidden},
		{"no host", func(r *http.Request) { r.Host = "" }, http.StatusForbidden},
		{"a proxy", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }, http.StatusForbidden},
		{"a proxy by its standard header", func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1") }, http.StatusForbidden},
		{"a proxy that tells nothing but the scheme", func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, http.StatusForbidden},
		{"a proxy with an empty header", func(r *http.Request) { r.Header.Set("Via", "") }, http.StatusForbidden},
		{"nginx as it is installed", func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.0", 1, 0 }, http.StatusForbidden},
		{"a limit that is none", func(r *http.Request) { r.URL.RawQuery = "limit=0" }, http.StatusBadRequest},
		{"slow that is neither", func(r *http.Request) { r.URL.RawQuery = "slow=very" }, http.StatusBadRequest},
		{"kick, a form", kick("application/x-www-form-urlencoded", "client=a"), http.StatusUnsupportedMediaType},
		{"kick, plain text", kick("text/plain", `{"client":"a"}`), http.StatusUnsupportedMediaType},
		{"kick, nobody", kick("application/json", `{}`), http.StatusBadRequest},
		{"kick, no end", kick("application/json", `{"client":"`+strings.Repeat("a", maxKick)+`"}`), http.StatusBadRequest},
		{"kick, who is not there", kick("application/json; charset=utf-8", `{"client":"a"}`), http.StatusNotFound},
		{"kick by GET", func(r *http.Request) { r.URL.Path = kickPath }, http.StatusMethodNotAllowed},
	} {
		require.Equal(t, c.want, ask(c.change), c.what)
	}
}
