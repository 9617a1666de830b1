//go:build interop

package interop

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/testbuild"
	"github.com/anyquic/anyquic/transport"
)

// nginxConf is for one process that serves files, over TCP and UDP, and answers
// /echo/ with what nginx knows about a request. Uploads go to files at /up/.
const nginxConf = `
daemon off;
user root;
worker_processes 1;
worker_shutdown_timeout %[7]s;
pid %[1]s/nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
	access_log off;
	default_type application/octet-stream;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	client_max_body_size 64m;
	ssl_certificate %[3]s;
	ssl_certificate_key %[4]s;
	ssl_protocols TLSv1.3;
	ssl_early_data on;
	quic_host_key %[1]s/host.key;
	keepalive_requests %[6]d;
	send_timeout 5m;
	client_body_timeout 5m;
	server {
		listen %[2]s quic;
		listen %[2]s ssl;
		http2 on;
		add_header Alt-Svc 'h3=":%[5]s"; ma=86400' always;
		add_header X-Proto $server_protocol always;
		add_header X-Got "$http_x_one,$http_x_two" always;
		root %[1]s/www;
		location /up/ { dav_methods PUT; create_full_put_path on; }
		location = /echo { return 200 "$request_method $request_uri $server_protocol $http3 $http_user_agent"; }
	}
}
`

// An nginxServer is nginx, running.
type nginxServer struct {
	addr  string
	dir   string // with www/ in it
	id    *identity
	log   *logBuffer
	stdin io.Writer // takes the names of signals
	cmd   *exec.Cmd
	ended chan error
}

// startNginx runs nginx as a server of HTTP/3, HTTP/2 and HTTP/1.1, which wants so
// many requests on one connection.
func startNginx(t *testing.T, requests int) *nginxServer {
	t.Helper()
	return startNginxWith(t, requests, "1m")
}

// startNginxWith has worker_shutdown_timeout as well: what a process that is to end gives
// to its connections.
func startNginxWith(t *testing.T, requests int, shutdown string) *nginxServer {
	t.Helper()
	program := foreignProgram(t, "web-nginx")
	id := newIdentity(t)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "www"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "www", "file"), pattern(nginxFile), 0o644))
	// The key for connection IDs and stateless resets, which outlives a reload.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "host.key"), pattern(32), 0o600))
	// Another program may take the port, and then the next is tried.
	for range 10 {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		conf := filepath.Join(dir, "nginx.conf")
		text := fmt.Sprintf(nginxConf, dir, addr, id.certFile, id.keyFile, portOf(t, addr), requests, shutdown)
		require.NoError(t, os.WriteFile(conf, []byte(text), 0o644))

		s := &nginxServer{addr: addr, dir: dir, id: id, log: newLogBuffer(t), ended: make(chan error, 1)}
		s.cmd = exec.Command(program, "-e", "stderr", "-p", dir, "-c", conf)
		s.cmd.Env = append(testbuild.Env(), "WEB_SIGNALS=1")
		s.cmd.Stderr = s.log
		stdin, err := s.cmd.StdinPipe()
		require.NoError(t, err)
		s.stdin = stdin
		require.NoError(t, s.cmd.Start())
		go func() { s.ended <- s.cmd.Wait() }() // ends with its standard input
		t.Cleanup(func() {
			stdin.Close()
			<-s.ended
		})
		if s.awaits(t, "start worker process ", "[emerg]") == 0 {
			return s
		}
		require.Contains(t, s.log.String(), "Address already in use")
	}
	t.Fatal("nginx finds no port")
	return nil
}

const nginxFile = 8 << 20 // bytes, of /file

// awaits waits until the log has one of the texts, and returns which.
func (s *nginxServer) awaits(t *testing.T, texts ...string) (which int) {
	t.Helper()
	said := func() bool {
		which = slices.IndexFunc(texts, func(text string) bool { return strings.Contains(s.log.String(), text) })
		return which >= 0
	}
	require.True(t, s.log.await(said), "nginx does not say %q", texts)
	return which
}

// signal sends nginx's main process a signal.
func (s *nginxServer) signal(t *testing.T, name string) {
	t.Helper()
	_, err := fmt.Fprintln(s.stdin, name)
	require.NoError(t, err)
}

// A webClient is one of our clients on an engine.
type webClient struct {
	*http.Client
	engine transport.Transport
	host   string           // of the server
	h3     *http3.Transport // if it is that
}

// eachWebClient runs a test with http3.Transport and allhttp.Transport on each
// engine; the latter has been told of the server's HTTP/3.
func eachWebClient(t *testing.T, start func(t *testing.T) (addr string, id *identity), test func(t *testing.T, c webClient)) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		t.Run("http3.Transport", func(t *testing.T) {
			addr, id := start(t)
			tr := newHTTP3Transport(t, e, id)
			test(t, webClient{&http.Client{Transport: tr, Timeout: patience}, e, addr, tr})
		})
		t.Run("allhttp.Transport", func(t *testing.T) {
			addr, id := start(t)
			tr := newAllHTTPTransport(t, e, id)
			require.NoError(t, tr.AddAltSvc("https://"+addr, fmt.Sprintf("h3=%q", ":"+portOf(t, addr))))
			test(t, webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: e, host: addr})
		})
	})
}

// withoutALPN is for transports, which choose by themselves.
func withoutALPN(id *identity) *tls.Config {
	config := id.clientTLS()
	config.NextProtos = nil
	return config
}

func newHTTP3Transport(t *testing.T, e transport.Transport, id *identity) *http3.Transport {
	t.Helper()
	tr := &http3.Transport{Engine: e, TLS: withoutALPN(id), Config: &transport.Config{HandshakeTimeout: patience}}
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

func newAllHTTPTransport(t *testing.T, e transport.Transport, id *identity) *allhttp.Transport {
	t.Helper()
	tr := &allhttp.Transport{Engine: e, Base: &http.Transport{TLSClientConfig: withoutALPN(id)}, RaceDelay: patience}
	t.Cleanup(func() { require.NoError(t, tr.Close()) })
	return tr
}

// do sends a request and returns the response with its whole body.
func (c webClient) do(method, path string, body []byte, header http.Header) (*http.Response, []byte, error) {
	var from io.Reader
	if body != nil {
		from = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, "https://"+c.host+path, from)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

func nginxStarts(t *testing.T) (string, *identity) {
	s := startNginx(t, 100_000)
	return s.addr, s.id
}

func TestNginxExchangesBulkOverHTTP3(t *testing.T) {
	eachWebClient(t, nginxStarts, func(t *testing.T, c webClient) {
		who := "client " + c.engine.Name() + ", ALPN h3"
		resp, got, err := c.do(http.MethodGet, "/file", nil, nil)
		require.NoError(t, err, who)
		require.Equal(t, "HTTP/3.0", resp.Proto, who)
		require.Equal(t, "HTTP/3.0", resp.Header.Get("X-Proto"), "nginx thinks so too")
		require.Equal(t, h3ALPN, resp.TLS.NegotiatedProtocol, who)
		require.True(t, bytes.Equal(pattern(nginxFile), got), who)

		resp, _, err = c.do(http.MethodPut, "/up/a", pattern(10<<20), nil)
		require.NoError(t, err, who)
		require.Equal(t, http.StatusCreated, resp.StatusCode)
		resp, got, err = c.do(http.MethodGet, "/up/a", nil, http.Header{"Range": {"bytes=-100000"}})
		require.NoError(t, err, who)
		require.Equal(t, http.StatusPartialContent, resp.StatusCode)
		require.True(t, bytes.Equal(pattern(10 << 20)[10<<20-100000:], got), who)

		resp, got, err = c.do(http.MethodHead, "/file", nil, nil)
		require.NoError(t, err, who)
		require.EqualValues(t, nginxFile, resp.ContentLength)
		require.Empty(t, got)
	})
}

// Each request has fields that the one before had and one that is new: with a
// dynamic table they are references and insertions, which nginx keeps 4 KB of.
func TestNginxAnswersManyHTTP3RequestsAtOnceOnOneConnection(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startNginx(t, 100_000)
		tr := newHTTP3Transport(t, e, s.id)
		c := webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: e, host: s.addr}
		conn, err := tr.Connect(t.Context(), s.addr)
		require.NoError(t, err)
		require.Equal(t, http3.Codecs()[0].Name, conn.Codec(), "the codec that the build prefers")
		const n, workers = 2000, 50
		var g sync.WaitGroup
		errs := make(chan error, n)
		for w := range workers {
			g.Go(func() {
				for i := w; i < n; i += workers {
					one, two := fmt.Sprintf("value that repeats %d", i%7), fmt.Sprintf("value that is new %d", i)
					resp, got, err := c.do(http.MethodGet, fmt.Sprintf("/echo?%d", i), nil, http.Header{
						"X-One": {one}, "X-Two": {two}, "User-Agent": {"anyquic"},
					})
					switch {
					case err != nil:
						errs <- fmt.Errorf("request %d, response %v: %w", i, resp, err)
					case string(got) != fmt.Sprintf("GET /echo?%d HTTP/3.0 h3 anyquic", i), resp.Header.Get("X-Got") != one+","+two:
						errs <- fmt.Errorf("request %d: %q, %q", i, got, resp.Header)
					}
				}
			})
		}
		g.Wait()
		close(errs)
		for err := range errs {
			require.NoError(t, err, "client %s, codec %s, ALPN h3", e.Name(), conn.Codec())
		}
		require.Same(t, conn, tr.Connected(s.addr), "all on one connection")
	})
}

func TestNginxTakesEarlyDataOverHTTP3(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startNginx(t, 100_000)
		tr := newHTTP3Transport(t, e, s.id)
		sessions := make(sessionQueue, 16)
		tr.Config = &transport.Config{EarlyData: true, Sessions: putOnly{sessions}}
		c := webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: e, host: s.addr}
		_, _, err := c.do(http.MethodGet, "/echo", nil, nil)
		require.NoError(t, err)
		require.False(t, tr.Connected(s.addr).Transport().State().EarlyData, "there is nothing to resume")

		again := newHTTP3Transport(t, e, s.id)
		again.Config = &transport.Config{EarlyData: true, Sessions: sessions}
		c.Client = &http.Client{Transport: again, Timeout: patience}
		_, got, err := c.do(http.MethodGet, "/echo", nil, http.Header{"User-Agent": {"early"}})
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.Equal(t, "GET /echo HTTP/3.0 h3 early", string(got))
		conn, err := again.Connect(t.Context(), s.addr)
		require.NoError(t, err)
		require.True(t, conn.Transport().State().EarlyData, "client %s: nginx has accepted it, ALPN h3", e.Name())
	})
}

func TestNginxsAltSvcLeadsToHTTP3(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startNginx(t, 100_000)
		c := webClient{Client: &http.Client{Transport: newAllHTTPTransport(t, e, s.id), Timeout: patience}, engine: e, host: s.addr}
		resp, _, err := c.do(http.MethodGet, "/echo", nil, nil)
		require.NoError(t, err)
		require.Equal(t, "HTTP/2.0", resp.Proto)
		var got []byte
		require.Eventually(t, func() bool {
			c.CloseIdleConnections() // HTTP/2 keeps a stream for a moment after its response
			resp, got, err = c.do(http.MethodGet, "/echo", nil, http.Header{"User-Agent": {"a"}})
			return err != nil || resp.Proto != "HTTP/2.0"
		}, patience, 10*time.Millisecond)
		require.NoError(t, err)
		require.Equal(t, "HTTP/3.0", resp.Proto, "client %s", e.Name())
		require.Equal(t, "GET /echo HTTP/3.0 h3 a", string(got))
	})
}

// blocked starts a download of /file that it does not read, so that nginx cannot end
// the connection, and returns what reads it.
func (c webClient) blocked(t *testing.T) io.ReadCloser {
	t.Helper()
	resp, err := c.Get("https://" + c.host + "/file") //nolint:noctx // the client has a timeout
	require.NoError(t, err)
	require.Equal(t, "HTTP/3.0", resp.Proto)
	t.Cleanup(func() { resp.Body.Close() })
	return resp.Body
}

// nginx says with a GOAWAY that it takes no more than so many requests on one
// connection, and refuses those that it gets anyway.
func TestNoRequestFailsWhenNginxWantsNoMoreOnOneConnection(t *testing.T) {
	const most, n = 50, 80
	start := func(t *testing.T) (string, *identity) {
		s := startNginx(t, most)
		return s.addr, s.id
	}
	eachWebClient(t, start, func(t *testing.T, c webClient) {
		c.blocked(t)
		errs := make(chan error, n)
		for range n {
			go func() { // ends with the response, or the client's patience
				resp, got, err := c.do(http.MethodPost, "/echo", []byte("not idempotent"), http.Header{"User-Agent": {"a"}})
				if err == nil && (resp.Proto != "HTTP/3.0" || string(got) != "POST /echo HTTP/3.0 h3 a") {
					err = fmt.Errorf("%s, %q", resp.Proto, got)
				}
				errs <- err
			}()
		}
		for range n {
			require.NoError(t, <-errs, "client %s, ALPN h3", c.engine.Name())
		}
	})
}

// With its last answer on a connection nginx ends that: both can be read by the engine
// before the answer is read from it. An engine without ReadAfterEnd then loses what
// was not read; what is incomplete must not be taken for an answer.
func TestNginxsLastAnswerOnAConnectionArrives(t *testing.T) {
	const most, clients, n = 50, 4, 400
	start := func(t *testing.T) (string, *identity) {
		s := startNginx(t, most)
		return s.addr, s.id
	}
	eachWebClient(t, start, func(t *testing.T, c webClient) {
		errs := make(chan error, clients*n)
		for range clients {
			go func() { // ends with the last response, or the client's patience
				for range n {
					resp, got, err := c.do(http.MethodPost, "/echo", []byte("not idempotent"), http.Header{"User-Agent": {"a"}})
					if err == nil && (resp.Proto != "HTTP/3.0" || string(got) != "POST /echo HTTP/3.0 h3 a") {
						err = fmt.Errorf("%s, %q", resp.Proto, got)
					}
					errs <- err
				}
			}()
		}
		for range clients * n {
			if err := <-errs; c.engine.Features().ReadAfterEnd {
				require.NoError(t, err, "client %s, ALPN h3", c.engine.Name())
			} else if err != nil {
				require.ErrorIs(t, err, net.ErrClosed, "client %s, ALPN h3", c.engine.Name())
			}
		}
	})
}

// nginx reads its configuration again: the process that serves a connection closes it
// and ends, another takes over. While there are both, nginx gives packets
// to either, which answers those that it does not know with a stateless reset; so the
// requests come before and after that. A process that has so lost sight of a client
// ends after its worker_shutdown_timeout.
func TestNoRequestFailsWhenNginxReloads(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startNginxWith(t, 100_000, "8s")
		tr := newHTTP3Transport(t, e, s.id)
		c := webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: e, host: s.addr}
		for i := range 3 {
			for range 10 {
				_, got, err := c.do(http.MethodPost, "/echo", []byte("not idempotent"), http.Header{"User-Agent": {"a"}})
				require.NoError(t, err, "client %s, ALPN h3, after %d reloads", e.Name(), i)
				require.Equal(t, "POST /echo HTTP/3.0 h3 a", string(got))
			}
			conn := tr.Connected(s.addr)
			require.NotNil(t, conn, "it is kept alive")
			s.signal(t, "HUP")
			select {
			case <-conn.Transport().Context().Done():
			case <-time.After(patience):
				t.Fatal("nginx did not end the connection")
			}
			ended := func() bool { return strings.Count(s.log.String(), "exited with code 0") > i }
			require.True(t, s.log.await(ended))
		}
	})
}

// nginx is told to quit while it answers, and says so with a GOAWAY: what it has taken
// it answers to the end.
func TestNginxAnswersWhatItHasTakenWhenItQuits(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		s := startNginx(t, 100_000)
		tr := newHTTP3Transport(t, e, s.id)
		c := webClient{Client: &http.Client{Transport: tr, Timeout: patience}, engine: e, host: s.addr}
		held := c.blocked(t)
		conn := tr.Connected(s.addr)
		require.NotNil(t, conn)
		from, to := io.Pipe()
		req, err := http.NewRequest(http.MethodPut, "https://"+s.addr+"/up/a", from)
		require.NoError(t, err)
		answered := make(chan error, 1)
		go func() { // ends with the response, or the client's patience
			resp, err := c.Do(req)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			answered <- err
		}()
		half := pattern(nginxFile)[:nginxFile/2]
		_, err = to.Write(half) // most of it has gone when that returns
		require.NoError(t, err)

		s.signal(t, "QUIT")
		s.awaits(t, "gracefully shutting down")
		select {
		case <-conn.Draining():
		case <-time.After(patience):
			t.Fatal("there was no GOAWAY")
		}
		_, err = to.Write(half)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		require.NoError(t, to.Close())
		require.NoError(t, <-answered, "client %s, ALPN h3", e.Name())
		got, err := os.ReadFile(filepath.Join(s.dir, "www", "up", "a"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(append(half, half...), got))

		require.NoError(t, held.Close())
		s.signal(t, "WAIT")
		select {
		case err := <-s.ended:
			require.NoError(t, err)
			s.ended <- nil // for the end of the test
		case <-time.After(patience):
			t.Fatal("nginx does not quit")
		}
	})
}
