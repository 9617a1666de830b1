package http3_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	serverAddr = "192.0.2.1:443"
	clientAddr = "198.51.100.1:50000"
	oneWay     = 10 * time.Millisecond
	authority  = "localhost"
	url        = "https://" + authority
)

// A serverConfig is what a case sets on a server of any version.
type serverConfig struct {
	readHeader, read, write, idle time.Duration
	maxHeaderBytes                int
}

// A clientConfig is what a case sets on a client of any version.
type clientConfig struct {
	responseHeader, expectContinue, idle time.Duration
	maxHeaderBytes                       int64
	disableCompression                   bool
}

// A stack is a version of HTTP and what it is made of.
type stack struct {
	proto  string              // "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"
	engine transport.Transport // of HTTP/3
	codec  string              // of HTTP/3
}

// stacks returns every version of HTTP, and HTTP/3 on every engine of the build with
// every codec of the build.
func stacks() []stack {
	all := []stack{{proto: "HTTP/1.1"}, {proto: "HTTP/2.0"}}
	for _, e := range engine.All() {
		for _, c := range http3.Codecs() {
			all = append(all, stack{"HTTP/3.0", e, c.Name})
		}
	}
	return all
}

func (s stack) String() string {
	if s.engine == nil {
		return s.proto
	}
	return s.proto + "-" + s.engine.Name() + "-" + s.codec
}

// A lab is a server and a client of one stack, in virtual time.
type lab struct {
	*testing.T
	stack
	server serverConfig
	client clientConfig

	http     *http.Client
	shutdown func(context.Context) error
	close    func() error
	link     func(transporttest.Link) // changes that of the server of HTTP/3
	drop     func()                   // ends every connection, but not the server
	log      logBuffer

	clientConns, serverConns atomic.Int64 // of HTTP/3
}

// versions runs f on every stack.
func versions(t *testing.T, f func(*lab)) {
	t.Helper()
	for _, s := range stacks() {
		t.Run(s.String(), func(t *testing.T) {
			if s.codec != "" {
				http3.UseCodec(t, s.codec)
			}
			synctest.Test(t, func(t *testing.T) { f(&lab{T: t, stack: s}) })
		})
	}
}

// engines runs f for every engine, in a bubble.
func engines(t *testing.T, f func(*testing.T, transport.Transport)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, e) })
		})
	}
}

// serve starts the server with h and makes the client. Every request and every
// connection is checked to be of the stack.
func (l *lab) serve(h http.HandlerFunc) {
	l.Helper()
	checked := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(l, l.proto, r.Proto)
		h(w, r)
	})
	if l.proto == "HTTP/3.0" {
		l.serve3(checked)
	} else {
		l.serveTCP(checked)
	}
}

func (l *lab) serveTCP(h http.Handler) {
	serverTLS, clientTLS := testcert.New("http/1.1")
	if l.proto == "HTTP/2.0" {
		serverTLS, clientTLS = testcert.New("h2")
	}
	ln := pipenet.Listen(net.TCPAddrFromAddrPort(mustAddrPort(serverAddr)), 256<<10)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(l.proto == "HTTP/1.1")
	protocols.SetHTTP2(l.proto == "HTTP/2.0")
	srv := &http.Server{
		Handler: h, TLSConfig: serverTLS, Protocols: protocols, ErrorLog: log.New(&l.log, "", 0),
		ReadHeaderTimeout: l.server.readHeader, ReadTimeout: l.server.read, WriteTimeout: l.server.write,
		IdleTimeout: l.server.idle, MaxHeaderBytes: l.server.maxHeaderBytes,
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }() // ends with Close
	tr := &http.Transport{
		TLSClientConfig: clientTLS, Protocols: protocols,
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.Dial(ctx) },
		ResponseHeaderTimeout: l.client.responseHeader, ExpectContinueTimeout: l.client.expectContinue,
		IdleConnTimeout: l.client.idle, MaxResponseHeaderBytes: l.client.maxHeaderBytes,
		DisableCompression: l.client.disableCompression,
	}
	l.http = &http.Client{Transport: tr}
	l.shutdown, l.close, l.drop = srv.Shutdown, srv.Close, ln.Drop
	l.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.Close()
		require.ErrorIs(l, <-served, http.ErrServerClosed)
		time.Sleep(time.Minute) // net/http lingers, which is virtual time
	})
}

func (l *lab) serve3(h http.Handler) {
	l.Helper()
	srv := &http3.Server{
		Handler: h, ReadHeaderTimeout: l.server.readHeader, ReadTimeout: l.server.read, WriteTimeout: l.server.write,
		IdleTimeout: l.server.idle, MaxHeaderBytes: l.server.maxHeaderBytes,
		Logger: slog.New(slog.NewTextHandler(&l.log, nil)),
	}
	tr := &http3.Transport{
		ResponseHeaderTimeout: l.client.responseHeader, ExpectContinueTimeout: l.client.expectContinue,
		IdleConnTimeout: l.client.idle, MaxResponseHeaderBytes: l.client.maxHeaderBytes,
		DisableCompression: l.client.disableCompression,
	}
	var mu sync.Mutex
	var conns []*http3.Conn
	srv.NewConn = func(c *http3.Conn) {
		l.check(c)
		l.serverConns.Add(1)
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}
	tr.NewConn = func(c *http3.Conn) {
		l.check(c)
		l.clientConns.Add(1)
	}
	w := newWorld(l.T, l.engine)
	w.start(srv, tr)
	l.link = func(link transporttest.Link) { w.socket.Links(link, transporttest.Link{}) }
	l.http = &http.Client{Transport: tr}
	l.shutdown, l.close = srv.Shutdown, srv.Close
	l.drop = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Transport().CloseWithError(http3.ErrNoError, "")
		}
		conns = nil
	}
	l.Cleanup(func() {
		require.Positive(l, l.clientConns.Load(), "the stack was used")
		require.Positive(l, l.serverConns.Load())
	})
}

// check asserts that a connection is what the name of the stack says.
func (l *lab) check(c *http3.Conn) {
	assert.Equal(l, l.codec, c.Codec())
	assert.Equal(l, l.engine.Name(), path.Base(reflect.TypeOf(c.Transport()).Elem().PkgPath()))
}

// A logBuffer keeps what a server logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A world is a simulated network with a server and clients of HTTP/3.
type world struct {
	*testing.T
	net     *transporttest.Network
	socket  *transporttest.Socket // the server's
	ca      *testcert.CA
	server  transport.Endpoint
	client  transport.Endpoint
	dials   int // by start's Transport
	serving sync.WaitGroup
}

func newWorld(t *testing.T, e transport.Transport) *world {
	t.Helper()
	return newWorldBehind(t, e, transporttest.Link{Latency: oneWay})
}

// newWorldBehind has a server whose packets take the link.
func newWorldBehind(t *testing.T, e transport.Transport, link transporttest.Link) *world {
	t.Helper()
	w := &world{T: t, net: transporttest.NewNetwork(1), ca: testcert.NewCA()}
	t.Cleanup(w.net.Close)
	access := transporttest.Link{Latency: oneWay}
	var err error
	w.socket = w.net.Socket(serverAddr, link, transporttest.Link{})
	w.server, err = e.Open(w.socket, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.server.Close()) })
	w.client, err = e.Open(w.net.Socket(clientAddr, access, transporttest.Link{}), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.client.Close()) })
	return w
}

// start serves, and makes tr dial the server.
func (w *world) start(srv *http3.Server, tr *http3.Transport) {
	w.Helper()
	if srv.TLS == nil {
		srv.TLS = w.ca.Server("localhost")
	}
	cfg, err := srv.TransportConfig()
	require.NoError(w, err)
	ln, err := w.server.Listen(cfg)
	require.NoError(w, err)
	w.serving.Go(func() { require.ErrorIs(w, srv.Serve(ln), http.ErrServerClosed) }) // ends with Close
	w.Cleanup(func() {
		require.NoError(w, srv.Close())
		w.serving.Wait()
		time.Sleep(time.Minute) // of virtual time, for handlers that are asleep
	})
	if tr == nil {
		return
	}
	tr.TLS = w.ca.Client("localhost")
	tr.Dial = func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
		w.dials++
		to := net.UDPAddrFromAddrPort(mustAddrPort(serverAddr))
		return http3.TraceDial(ctx, to, func(ctx context.Context) (transport.Conn, error) { return w.client.Dial(ctx, to, cfg) })
	}
	w.Cleanup(func() { require.NoError(w, tr.Close()) })
}

// do sends a request and returns the response, whose body is read.
func (l *lab) do(req *http.Request) (*http.Response, string) {
	l.Helper()
	resp, err := l.http.Do(req)
	require.NoError(l, err)
	return resp, l.body(resp)
}

func (l *lab) body(resp *http.Response) string {
	l.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(l, err)
	require.NoError(l, resp.Body.Close())
	return string(b)
}

func (l *lab) request(method, path string, body io.Reader) *http.Request {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), method, url+path, body)
	require.NoError(l, err)
	return req
}

func (l *lab) get(path string) (*http.Response, string) {
	l.Helper()
	return l.do(l.request(http.MethodGet, path, nil))
}

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
