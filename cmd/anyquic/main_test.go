package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/transport/engine"
)

// patience ends what hangs. A machine that is busy with other tests may need a good part
// of it.
const patience = 2 * time.Minute

// anyquic runs the program and returns its exit status and what it printed.
func anyquic(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return anyquicWithInput(t, "", args...)
}

func anyquicWithInput(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	var out bytes.Buffer
	var errs buffer // the servers of a benchmark write to it too
	code = run(ctx, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// A buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A served is a running `anyquic serve`.
type served struct {
	listening
	stderr buffer
	stop   context.CancelFunc
	code   chan int
}

// url returns where a listener is, or a carrier that has none of its own.
func (s *served) url(name string) string {
	for _, l := range s.Listeners {
		if l.Name == name {
			return l.URL
		}
		if url := l.More[mqtt.Carrier(name)]; url != "" {
			return url
		}
	}
	return ""
}

func (s *served) addr(name string) string {
	for _, l := range s.Listeners {
		if l.Name == name {
			return l.Addr
		}
	}
	return ""
}

func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{code: make(chan int, 1)}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	any := "127.0.0.1:0"
	args = append([]string{
		"serve", "--json", "--tcp", any, "--tls", any, "--ws", any, "--wss", any, "--quic", any, "--metrics", any,
		"--connect-timeout", "1m", "--drain-timeout", "1m",
	}, args...)
	r, w := io.Pipe()
	go func() { // ends with stop
		s.code <- run(ctx, args, strings.NewReader(""), w, &s.stderr)
		w.Close()
	}()
	ended := sync.OnceFunc(func() {
		stop()
		assert.Zero(t, <-s.code, "exit status: %s", &s.stderr)
	})
	t.Cleanup(ended)
	s.stop = ended
	line, err := bufio.NewReader(r).ReadBytes('\n')
	require.NoError(t, err, s.stderr.String())
	require.NoError(t, json.Unmarshal(line, &s.listening))
	require.Equal(t, engine.Default().Name(), s.Engine)
	return s
}

func TestEveryCarrierDeliversWhatIsPublished(t *testing.T) {
	s := startServe(t)
	urls := map[string]string{"wss+h2": strings.Replace(s.url("wss"), "wss:", "wss+h2:", 1)}
	for _, carrier := range []string{"tcp", "tls", "ws", "wss", "wss+h3", "quic", "wt"} {
		urls[carrier] = s.url(carrier)
	}
	for _, l := range s.Listeners {
		if l.Name == "quic" {
			for carrier, url := range l.More {
				urls[string(carrier)+" on the port of QUIC"] = url
			}
		}
	}
	require.Len(t, urls, 10)
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			topic := "t/" + strings.ReplaceAll(name, "+", "-")
			code, _, stderr := anyquic(t, "mqtt", "pub", url, "--insecure", "-t", topic, "-m", "kept", "-q", "1", "-r")
			require.Zero(t, code, stderr)
			code, stdout, stderr := anyquic(t, "mqtt", "sub", url, "--insecure", "-t", topic, "-C", "1", "-v", "-W", "2m")
			require.Zero(t, code, stderr)
			require.Equal(t, topic+" kept\n", stdout)
		})
	}
	s.counts(t, map[string]float64{
		`quic_handshakes_total{listener="quic"}`: 6, `quic_handshakes_total{listener="wss"}`: 4,
	})
	m := s.scrape(t)
	for carrier, n := range map[string]int{"tcp": 2, "tls": 2, "ws": 2, "wss": 2, "wss+h2": 2, "wss+h3": 4, "quic": 2, "wt": 4} {
		require.EqualValues(t, n, m[fmt.Sprintf(`mqtt_connections_total{carrier="%s"}`, carrier)], carrier)
	}
}

// get asks the metrics listener.
func (s *served) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + s.addr("metrics") + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func TestHTTP3IsAdvertisedAndCanBeTurnedOff(t *testing.T) {
	ask := func(s *served) http.Header {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		defer c.CloseIdleConnections()
		resp, err := c.Get("https://" + s.addr("wss") + "/mqtt")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
		return resp.Header
	}
	s := startServe(t)
	_, port, err := net.SplitHostPort(s.addr("wss"))
	require.NoError(t, err)
	require.Equal(t, `h3=":`+port+`"; ma=86400`, ask(s).Get("Alt-Svc"))

	without := startServe(t, "--http3=false")
	require.Empty(t, ask(without).Get("Alt-Svc"))
	for _, l := range without.Listeners {
		require.Empty(t, l.More)
		if l.Name == "quic" {
			url := "wss+h3://" + l.Addr + "/mqtt"
			code, _, stderr := anyquic(t, "mqtt", "pub", url, "--insecure", "-t", "x", "-m", "a")
			require.Equal(t, 1, code)
			require.NotEmpty(t, stderr)
		}
	}
}

func TestOriginsMayConnectIfTheyAreNamed(t *testing.T) {
	s := startServe(t, "--origins", "https://app.example, *.pages.example")
	for origin, want := range map[string]int{
		"https://app.example":     http.StatusSwitchingProtocols,
		"https://a.pages.example": http.StatusSwitchingProtocols,
		"https://evil.example":    http.StatusForbidden,
	} {
		c, err := net.Dial("tcp", s.addr("ws"))
		require.NoError(t, err)
		_, err = io.WriteString(c, "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: "+origin+"\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode, origin)
		require.NoError(t, c.Close())
	}
}

func TestSubPrintsJSON(t *testing.T) {
	s := startServe(t)
	for payload, want := range map[string]message{
		"text":     {Topic: "j", Retain: true, Payload: "text"},
		"\xff\x00": {Topic: "j", Retain: true, Base64: []byte("\xff\x00")},
	} {
		code, _, stderr := anyquicWithInput(t, payload, "mqtt", "pub", s.url("tcp"), "-t", "j", "-s", "-q", "2", "-r")
		require.Zero(t, code, stderr)
		code, stdout, stderr := anyquic(t, "mqtt", "sub", s.url("tcp"), "-t", "j", "-C", "1", "--json", "-W", "2m")
		require.Zero(t, code, stderr)
		var got message
		require.NoError(t, json.Unmarshal([]byte(stdout), &got), stdout)
		require.False(t, got.Time.IsZero())
		got.Time = time.Time{}
		require.Equal(t, want, got)
	}
}

func TestMetricsCountAndHealthAnswers(t *testing.T) {
	s := startServe(t)
	code, _, stderr := anyquic(t, "mqtt", "pub", s.url("quic"), "--insecure", "-t", "m", "-m", "x", "-q", "1")
	require.Zero(t, code, stderr)
	status, body := s.get(t, "/healthz")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "ok\n", body)
	s.counts(t, map[string]float64{
		`mqtt_connections_total{carrier="quic"}`: 1, `mqtt_messages_received_total{qos="1"}`: 1, `quic_handshakes_total{listener="quic"}`: 1,
	})
	_, body = s.get(t, "/metrics")
	require.Contains(t, body, `anyquic_build_info{engine="`+engine.Default().Name()+`",`)
}

func TestServerThatEndsTellsItsClients(t *testing.T) {
	s := startServe(t)
	var out, errs buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	code := make(chan int, 1)
	go func() { // ends with cancel
		code <- run(ctx, []string{"mqtt", "sub", s.url("quic"), "--insecure", "-t", "#", "-v"}, strings.NewReader(""), &out, &errs)
	}()
	require.Eventually(t, func() bool {
		code, _, _ := anyquic(t, "mqtt", "pub", s.url("tcp"), "-t", "there", "-m", "?")
		return code == 0 && strings.Contains(out.String(), "there ?\n")
	}, patience, 10*time.Millisecond)
	s.stop()
	require.Eventually(t, func() bool { return strings.Contains(errs.String(), "0x8b") }, patience, 10*time.Millisecond)
	cancel()
	require.Zero(t, <-code)
}

func TestEnginesAndVersionSayWhatIsInside(t *testing.T) {
	code, stdout, _ := anyquic(t, "engines", "--json")
	require.Zero(t, code)
	var infos []engineInfo
	require.NoError(t, json.Unmarshal([]byte(stdout), &infos))
	require.Len(t, infos, len(engine.All()))
	require.True(t, infos[0].Default)
	for _, info := range infos {
		require.NotEmpty(t, info.Features.Versions)
		require.NotEmpty(t, info.Features.CongestionControl)
	}
	code, stdout, _ = anyquic(t, "engines")
	require.Zero(t, code)
	require.Contains(t, stdout, "active migration")
	require.Contains(t, stdout, "HTTP/3 on any of them: codec "+http3.Codecs()[0].Name)

	code, stdout, _ = anyquic(t, "version", "--json")
	require.Zero(t, code)
	var v versionInfo
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	require.Equal(t, engine.Default().Name(), v.Engine)
	code, stdout, _ = anyquic(t, "version")
	require.Zero(t, code)
	for name, version := range v.Versions {
		require.Contains(t, stdout, name+" "+version)
	}
}
