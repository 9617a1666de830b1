//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// A curlResult is what curl has printed.
type curlResult struct {
	version string // of HTTP, for the last transfer: "1.1", "2", "3"
	status  string
	head    string // of all responses, with their trailers
	body    []byte
	verbose string
}

// curl runs curl for a page of the site.
func (s *site) curl(t *testing.T, path string, options ...string) curlResult {
	t.Helper()
	dir := t.TempDir()
	args := []string{
		"-sSv", "--cacert", s.id.certFile, "--max-time", "110", "-o", filepath.Join(dir, "body"), "-D", filepath.Join(dir, "head"),
		"-w", "%{http_version} %{http_code}\n",
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, foreignProgram(t, "web-curl"), append(append(args, options...), s.url(path))...)
	var verbose bytes.Buffer
	cmd.Stderr = &verbose
	out, err := cmd.Output()
	require.NoError(t, err, "curl %s, server %s: %s", strings.Join(options, " "), s.engine.Name(), &verbose)
	r := curlResult{verbose: verbose.String()}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	r.version, r.status, _ = strings.Cut(lines[len(lines)-1], " ")
	head, err := os.ReadFile(filepath.Join(dir, "head"))
	require.NoError(t, err)
	r.head = strings.ReplaceAll(string(head), "\r\n", "\n")
	if r.body, err = os.ReadFile(filepath.Join(dir, "body")); !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return r
}

// curl3 is curl over HTTP/3 and nothing else.
func (s *site) curl3(t *testing.T, path string, options ...string) curlResult {
	t.Helper()
	r := s.curl(t, path, append([]string{"--http3-only"}, options...)...)
	require.Equal(t, "3", r.version, "server %s, ALPN h3", s.engine.Name())
	return r
}

func TestCurlExchangesBulkOverHTTP3(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		const size = 10 << 20
		got := s.curl3(t, pathBytes+"10485760")
		require.Equal(t, "200", got.status)
		require.True(t, bytes.Equal(pattern(size), got.body), "server %s, ALPN h3", s.engine.Name())

		file := filepath.Join(t.TempDir(), "upload")
		require.NoError(t, os.WriteFile(file, pattern(size), 0o600))
		for _, up := range []struct {
			method  string
			options []string
		}{
			{"POST", []string{"--data-binary", "@" + file}},
			{"POST", []string{"--data-binary", "@" + file, "-H", "Expect: 100-continue"}},
			{"PUT", []string{"-T", file}},
		} {
			got := s.curl3(t, pathSum, up.options...)
			var seen uploadSeen
			require.NoError(t, json.Unmarshal(got.body, &seen), "%s", got.body)
			require.Equal(t, uploadSeen{up.method, "HTTP/3.0", size, sumOf(pattern(size)), h3ALPN}, seen, "server %s", s.engine.Name())
		}
	})
}

func TestCurlSeesHeadsInterimResponsesAndTrailersOverHTTP3(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		head := s.curl3(t, pathBytes+"12345", "--head")
		require.Equal(t, "200", head.status)
		require.Contains(t, head.head, "\ncontent-length: 12345\n", "server %s, ALPN h3", s.engine.Name())

		hints := s.curl3(t, pathHints)
		require.Regexp(t, regexp.MustCompile(`(?s)^HTTP/3 103 \nlink: </style.css>; rel=preload\n\nHTTP/3 200 \n(.*\n)?trailer: X-Trailer\n.*\n\nx-trailer: at the end\n`), hints.head, "server %s, ALPN h3", s.engine.Name())
		require.Equal(t, "body", string(hints.body))

		missing := s.curl3(t, "/missing")
		require.Equal(t, "404", missing.status)
	})
}

func TestCurlMakesManyHTTP3RequestsAtOnceOnOneConnection(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		const n = 100 // the streams that a server grants at first: curl opens a second connection if credit for more comes late
		dir := t.TempDir()
		args := []string{
			"-sS", "--http3-only", "--cacert", s.id.certFile, "--max-time", "110", "-Z", "--parallel-max", "50",
			"-w", "%{http_version} %{num_connects}\n", "-o", filepath.Join(dir, "#1"), s.url(pathBytes + "[1000-1099]"),
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, foreignProgram(t, "web-curl"), args...)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "server %s, ALPN h3: %s", s.engine.Name(), &said)
		require.Equal(t, n, strings.Count(string(out), "\n"))
		require.Equal(t, n, strings.Count(string(out), "3 "), "%s", out)
		require.Equal(t, 1, strings.Count(string(out), "3 1\n"), "one transfer has connected, the others share that: %s", out)
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, files, n)
		for _, f := range files {
			got, err := os.ReadFile(filepath.Join(dir, f.Name()))
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(pattern(1099), got), f.Name())
			require.GreaterOrEqual(t, len(got), 1000)
		}
	})
}

// Where curl may use both TCP and QUIC it tries TCP when QUIC has not connected after a
// fifth of a second, or before. On a busy machine that is not enough.
const quicStart, quicStartOf = "--happy-eyeballs-timeout-ms", "100000"

func TestCurlGetsTheSameFromOnePortOverEveryVersion(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startAllHTTP(t, e, newIdentity(t))
		for _, v := range []struct{ option, version, proto, alpn string }{
			{"--http1.1", "1.1", "HTTP/1.1", "http/1.1"},
			{"--http2", "2", "HTTP/2.0", "h2"},
			{"--http3-only", "3", "HTTP/3.0", h3ALPN},
			{"--http3", "3", "HTTP/3.0", h3ALPN}, // it races TCP and QUIC, which has its start
		} {
			got := s.curl(t, pathBytes+"100000", v.option, quicStart, quicStartOf)
			require.Equal(t, v.version, got.version, "server %s", e.Name())
			require.True(t, bytes.Equal(pattern(100000), got.body), v.option)
			if v.version != "3" {
				require.Contains(t, strings.ToLower(got.head), `alt-svc: h3=":`+portOf(t, s.addr)+`"; ma=86400`, v.option)
			}
			got = s.curl(t, pathProto, v.option, quicStart, quicStartOf)
			require.Equal(t, v.proto+", ALPN "+v.alpn, string(got.body), "server %s, ALPN %s", e.Name(), v.alpn)
		}
	})
}

func TestCurlFollowsAltSvcToHTTP3(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startAllHTTP(t, e, newIdentity(t))
		cache := filepath.Join(t.TempDir(), "altsvc")
		got := s.curl(t, pathProto, "--alt-svc", cache, "--http2")
		require.Equal(t, "HTTP/2.0, ALPN h2", string(got.body))
		kept, err := os.ReadFile(cache)
		require.NoError(t, err)
		require.Contains(t, string(kept), "h3 127.0.0.1 "+portOf(t, s.addr))
		got = s.curl(t, pathProto, "--alt-svc", cache, quicStart, quicStartOf)
		require.Equal(t, "3", got.version)
		require.Equal(t, "HTTP/3.0, ALPN h3", string(got.body), "server %s, ALPN h3", e.Name())
	})
}

// The second request needs a connection of its own, since it is bound to an
// interface; it resumes the session of the first, which lasts until the ticket has come
// and more: at its end curl goes on to the second.
func TestCurlSendsEarlyDataOverHTTP3(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		both := []string{"-sS", "--http3-only", "--tls-earlydata", "--cacert", s.id.certFile, "--max-time", "110", "-w", " %{http_version} %{http_code}\n"}
		args := append([]string{"-o", "/dev/null", s.url(pathBytes + "3000000")}, both...)
		args = append(append(args, "--next", "--interface", "127.0.0.1", s.url(pathEarly)), both...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, foreignProgram(t, "web-curl"), args...)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "server %s, ALPN h3: %s", s.engine.Name(), &said)
		require.Equal(t, " 3 200\ntrue 3 200\n", string(out), "server %s, ALPN h3", s.engine.Name())
	})
}
