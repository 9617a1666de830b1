package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport/engine"
)

// h3Serve runs `anyquic h3 serve` on a free port, until the test ends.
func h3Serve(t *testing.T, dir string, args ...string) (l h3Listening, stop func() int) {
	t.Helper()
	l, stop, _ = h3ServeLogged(t, dir, args...)
	return l, stop
}

// h3ServeLogged is h3Serve that returns the log too.
func h3ServeLogged(t *testing.T, dir string, args ...string) (l h3Listening, stop func() int, stderr *buffer) {
	t.Helper()
	stderr = new(buffer)
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"h3", "serve", dir, "--json", "--addr", "127.0.0.1:0"}, args...), strings.NewReader(""), w, stderr)
		w.Close()
	}()
	ended := -1
	stop = func() int {
		cancel()
		if ended < 0 {
			ended = <-code
		}
		return ended
	}
	t.Cleanup(func() { stop() })
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no server: exit status %d: %s", stop(), stderr.String())
	}
	require.NoError(t, json.Unmarshal(line, &l), "%s", line)
	return l, stop, stderr
}

// site is a folder to serve.
func site(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hello.txt"), []byte("hello, world\n"), 0o600))
	return dir
}

func h3GetJSON(t *testing.T, args ...string) (f fetched) {
	t.Helper()
	code, stdout, stderr := anyquic(t, append([]string{"h3", "get", "--insecure", "--json"}, args...)...)
	require.Zero(t, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &f), stdout)
	return f
}

func TestH3ServesAFolderOverEveryVersion(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			l, stop := h3Serve(t, site(t), "--engine", e.Name())
			require.Equal(t, e.Name(), l.Engine)
			require.Len(t, l.Addrs, 2)
			for _, tt := range []struct{ http, proto, engine string }{
				{"3", "HTTP/3.0", e.Name()},
				{"2", "HTTP/2.0", ""},
				{"1.1", "HTTP/1.1", ""},
			} {
				code, stdout, stderr := anyquic(t, "h3", "get", "--engine", e.Name(), "--insecure", "--http", tt.http, l.URL+"hello.txt")
				require.Zero(t, code, stderr)
				require.Equal(t, "hello, world\n", stdout)

				f := h3GetJSON(t, "--engine", e.Name(), "--http", tt.http, l.URL+"hello.txt")
				require.Equal(t, tt.proto, f.Proto)
				require.Equal(t, tt.engine, f.Engine)
				require.Equal(t, 200, f.Status)
				require.EqualValues(t, 13, f.Bytes)
				require.Positive(t, f.Timings.Connected)
				require.Positive(t, f.Timings.FirstByte)
				require.GreaterOrEqual(t, f.Timings.Total, f.Timings.FirstByte)

				var r echoedRequest
				code, stdout, stderr = anyquic(t, "h3", "get", "--engine", e.Name(), "--insecure", "--http", tt.http, "-H", "X-Test: yes", l.URL+"echo-request?q=1")
				require.Zero(t, code, stderr)
				require.NoError(t, json.Unmarshal([]byte(stdout), &r))
				require.Equal(t, tt.proto, r.Proto)
				require.Equal(t, tt.engine, r.Engine)
				require.Equal(t, "yes", r.Header.Get("X-Test"))
				require.Equal(t, "q=1", r.Query)
				require.Equal(t, "TLS 1.3", r.TLS)
				require.Contains(t, r.Remote, "127.0.0.1:")
			}
			code, stdout, stderr := anyquic(t, "h3", "get", "--insecure", "--http", "2", "-I", l.URL)
			require.Zero(t, code, stderr)
			require.Contains(t, stdout, `Alt-Svc: h3=":`)
			require.Zero(t, stop())
		})
	}
}

func TestH3GetRacesTheVersions(t *testing.T) {
	l, _ := h3Serve(t, site(t))
	// TCP begins a quarter of a second after QUIC, and where that has no time until then
	// it may win.
	require.Eventually(t, func() bool { return h3GetJSON(t, "--race", l.URL).Proto == "HTTP/3.0" }, patience, time.Millisecond)
	// Without UDP it is TCP, and nobody sees an error.
	l, _ = h3Serve(t, site(t), "--http", "1.1,2")
	require.Len(t, l.Addrs, 1)
	require.Equal(t, "HTTP/2.0", h3GetJSON(t, "--race", l.URL).Proto)
}

func TestH3GetSendsAndStoresBodies(t *testing.T) {
	l, _ := h3Serve(t, site(t))
	dir := t.TempDir()
	up, down := filepath.Join(dir, "up"), filepath.Join(dir, "down")
	body := strings.Repeat("0123456789", 100_000)
	require.NoError(t, os.WriteFile(up, []byte(body), 0o600))
	f := h3GetJSON(t, "-d", "@"+up, "-o", down, l.URL+"echo")
	require.EqualValues(t, len(body), f.Bytes)
	require.Equal(t, down, f.File)
	got, err := os.ReadFile(down)
	require.NoError(t, err)
	require.Equal(t, body, string(got))

	code, stdout, stderr := anyquicWithInput(t, "from standard input", "h3", "get", "--insecure", "-d", "@-", l.URL+"echo")
	require.Zero(t, code, stderr)
	require.Equal(t, "from standard input", stdout)

	code, _, stderr = anyquic(t, "h3", "get", "--insecure", "-o", "/dev/null", "--timings", l.URL+"stream-bytes/3000000")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "first byte")
	require.Contains(t, stderr, "3000000")

	t.Chdir(dir)
	code, _, stderr = anyquic(t, "h3", "get", "--insecure", "-O", l.URL+"hello.txt", l.URL+"hello.txt")
	require.Zero(t, code, stderr)
	got, err = os.ReadFile("hello.txt")
	require.NoError(t, err)
	require.Equal(t, "hello, world\n", string(got))
}

func TestH3GetResumesWithEarlyData(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			tickets := filepath.Join(t.TempDir(), "tickets")
			l, _ := h3Serve(t, site(t), "--0rtt", "--engine", e.Name())
			get := func(more ...string) (r echoedRequest, f fetched) {
				out := filepath.Join(t.TempDir(), "out")
				f = h3GetJSON(t, append([]string{"--0rtt", "--engine", e.Name(), "--tickets", tickets, "-o", out, l.URL + "echo-request"}, more...)...)
				b, err := os.ReadFile(out)
				require.NoError(t, err)
				require.NoError(t, json.Unmarshal(b, &r))
				return r, f
			}
			r, f := get()
			require.False(t, r.EarlyData || f.Early || f.Resumed)
			r, f = get()
			// Whether the handshake was still under way at the server is a matter of
			// microseconds.
			require.True(t, f.Resumed && f.Early)
			r, f = get("-d", "not safe")
			require.False(t, r.EarlyData, "POST waits for the handshake")
			require.Equal(t, 200, f.Status)
		})
	}
}

func TestH3GetKeepsSessionsInAFileOfTheUserAlone(t *testing.T) {
	l, _ := h3Serve(t, site(t), "--0rtt")
	home := t.TempDir()
	for _, name := range []string{"XDG_CACHE_HOME", "HOME", "LocalAppData"} {
		t.Setenv(name, home)
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	size := int64(0)
	for _, more := range [][]string{{}, {"--http", "1.1", "--tickets", filepath.Join(cache, "anyquic", "tickets")}} {
		args := append([]string{"--0rtt", "-o", filepath.Join(t.TempDir(), "out"), l.URL + "hello.txt"}, more...)
		h3GetJSON(t, args...)
		info, err := os.Stat(filepath.Join(cache, "anyquic", "tickets"))
		require.NoError(t, err)
		require.Greater(t, info.Size(), size, "a session of %v", more)
		size = info.Size()
		if runtime.GOOS != "windows" {
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
	}
	notes := filepath.Join(t.TempDir(), "notes")
	require.NoError(t, os.WriteFile(notes, []byte("what is not a file of tickets"), 0o600))
	code, _, stderr := anyquic(t, "h3", "get", "--insecure", "--tickets", notes, l.URL+"hello.txt")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--tickets")
}

func TestH3ServesNothingOutsideOfItsFolder(t *testing.T) {
	dir := site(t)
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "link")))
	l, _ := h3Serve(t, dir)
	for _, path := range []string{"link", "../secret", "%2e%2e/secret", "..%2fsecret"} {
		code, stdout, _ := anyquic(t, "h3", "get", "--insecure", "--fail", "-L", l.URL+path)
		require.Equal(t, 1, code, path)
		require.NotContains(t, stdout, "secret")
	}
	code, stdout, stderr := anyquic(t, "h3", "get", "--insecure", l.URL)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `<a href="hello.txt">`, "a listing")
}

func TestH3GetVerifiesTheServer(t *testing.T) {
	l, _ := h3Serve(t, site(t))
	for _, http := range []string{"3", "2"} {
		code, stdout, stderr := anyquic(t, "h3", "get", "--http", http, l.URL)
		require.Equal(t, 1, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "certificate")
	}
}

func TestH3GetSaysWhatIsWrong(t *testing.T) {
	l, _ := h3Serve(t, site(t))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--fail", l.URL + "missing"}, "404"},
		{[]string{"--max-time", "1ns", l.URL}, "--max-time"},
		{[]string{"ftp://localhost/"}, "https://"},
		{[]string{"-o", "x", "-O", l.URL}, "exclude"},
		{[]string{"-o", "x", l.URL, l.URL}, "--output"},
		{[]string{"-O", l.URL}, "file name"},
		{[]string{"-H", "nonsense", l.URL}, "nonsense"},
		{[]string{"-I", "-d", "x", l.URL}, "--head"},
		{[]string{"--race", "--http", "3", l.URL}, "--race"},
		{[]string{"--http", "4", l.URL}, "--http"},
		{[]string{"-d", "@/nowhere/file", l.URL}, "/nowhere/file"},
		{[]string{"--cafile", "/nowhere/ca", l.URL}, "/nowhere/ca"},
		{[]string{"--engine", "msquic", l.URL}, "msquic"},
	} {
		code, _, stderr := anyquic(t, append([]string{"h3", "get", "--insecure"}, tt.args...)...)
		require.Equal(t, 1, code, strings.Join(tt.args, " "))
		require.Contains(t, stderr, tt.want)
	}
}

func TestH3ServeRefusesWhatItCannotServe(t *testing.T) {
	l, _ := h3Serve(t, site(t))
	_, addr, _ := strings.Cut(l.Addrs[0], " ")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"/nowhere"}, "/nowhere"},
		{[]string{"--addr", "no port"}, "--addr"},
		{[]string{"--http", "0.9"}, "--http"},
		{[]string{"--cert", "x"}, "--key"},
		{[]string{"--cert", "/nowhere/c", "--key", "/nowhere/k"}, "/nowhere/c"},
		{[]string{"--log-level", "loud"}, "loud"},
		{[]string{"--addr", addr}, addr},
	} {
		code, _, stderr := anyquic(t, append([]string{"h3", "serve"}, tt.args...)...)
		require.Equal(t, 1, code, strings.Join(tt.args, " "))
		require.Contains(t, stderr, tt.want)
	}
}

// A download that is under way when the signal comes is not cut short.
func TestH3ServeDrains(t *testing.T) {
	const size = 40_000_000
	l, stop := h3Serve(t, site(t), "--drain-timeout", patience.String())
	out := filepath.Join(t.TempDir(), "out")
	done := make(chan int, 1)
	go func() {
		code, _, _ := anyquic(t, "h3", "get", "--insecure", "-o", out, l.URL+"stream-bytes/"+strconv.Itoa(size))
		done <- code
	}()
	require.Eventually(t, func() bool {
		info, err := os.Stat(out)
		return err == nil && info.Size() > 0
	}, patience, time.Millisecond)
	require.Zero(t, stop())
	require.Zero(t, <-done)
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
}
