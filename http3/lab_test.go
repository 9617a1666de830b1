package http3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	serverAddr = "192.0.2.1:443"
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

// A lab is a server and a client of one HTTP version, in virtual time.
type lab struct {
	*testing.T
	proto  string              // "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"
	engine transport.Transport // of HTTP/3
	server serverConfig
	client clientConfig

	http     *http.Client
	shutdown func(context.Context) error
	close    func() error
}

// versions runs f over every version of HTTP, and HTTP/3 over every engine.
func versions(t *testing.T, f func(*lab)) {
	t.Helper()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lab{T: t, proto: proto}
				f(l)
			})
		})
	}
	engines(t, func(t *testing.T, e transport.Transport) { f(&lab{T: t, proto: "HTTP/3.0", engine: e}) })
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

// serve starts the server with h and makes the client.
func (l *lab) serve(h http.HandlerFunc) {
	l.Helper()
	if l.proto == "HTTP/3.0" {
		l.serve3(h)
	} else {
		l.serveTCP(h)
	}
	// Tests that follow redirects or not do so by themselves.
	l.http.CheckRedirect = nil
}

func (l *lab) serveTCP(h http.Handler) {
	serverTLS, clientTLS := testcert.New("http/1.1")
	if l.proto == "HTTP/2.0" {
		serverTLS, clientTLS = testcert.New("h2")
	}
	ln := newPipeListener()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(l.proto == "HTTP/1.1")
	protocols.SetHTTP2(l.proto == "HTTP/2.0")
	srv := &http.Server{
		Handler: h, TLSConfig: serverTLS, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0),
		ReadHeaderTimeout: l.server.readHeader, ReadTimeout: l.server.read, WriteTimeout: l.server.write,
		IdleTimeout: l.server.idle, MaxHeaderBytes: l.server.maxHeaderBytes,
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }() // ends with Close
	tr := &http.Transport{
		TLSClientConfig: clientTLS, Protocols: protocols,
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.dial(ctx) },
		ResponseHeaderTimeout: l.client.responseHeader, ExpectContinueTimeout: l.client.expectContinue,
		IdleConnTimeout: l.client.idle, MaxResponseHeaderBytes: l.client.maxHeaderBytes,
		DisableCompression: l.client.disableCompression,
	}
	l.http = &http.Client{Transport: tr}
	l.shutdown, l.close = srv.Shutdown, srv.Close
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
	}
	tr := &http3.Transport{
		ResponseHeaderTimeout: l.client.responseHeader, ExpectContinueTimeout: l.client.expectContinue,
		IdleConnTimeout: l.client.idle, MaxResponseHeaderBytes: l.client.maxHeaderBytes,
		DisableCompression: l.client.disableCompression,
	}
	newWorld(l.T, l.engine).start(srv, tr)
	l.http = &http.Client{Transport: tr}
	l.shutdown, l.close = srv.Shutdown, srv.Close
}

// A world is a simulated network with a server and clients of HTTP/3.
type world struct {
	*testing.T
	net     *transporttest.Network
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
	w.server, err = e.Open(w.net.Socket(serverAddr, link, transporttest.Link{}), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.server.Close()) })
	w.client, err = e.Open(w.net.Socket("198.51.100.1:50000", access, transporttest.Link{}), nil)
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
		return w.client.Dial(ctx, net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)), cfg)
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

// A pipeListener accepts connections that are made in memory.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	var a, b halfPipe
	a.cond.L, b.cond.L = &a.mu, &b.mu
	client, server := &pipeConn{r: &a, w: &b}, &pipeConn{r: &b, w: &a}
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(mustAddrPort(serverAddr)) }

// pipeBuffer is what a pipe holds, in bytes, before a Write waits.
const pipeBuffer = 256 << 10

// A halfPipe is a direction of a connection.
type halfPipe struct {
	mu                    sync.Mutex
	cond                  sync.Cond
	buf                   bytes.Buffer
	closed                bool
	readEnd, writeEnd     time.Time
	readTimer, writeTimer *time.Timer
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (h *halfPipe) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case expired(h.readEnd):
			return 0, os.ErrDeadlineExceeded
		case h.buf.Len() > 0:
			h.cond.Broadcast()
			return h.buf.Read(p)
		case h.closed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *halfPipe) Write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		switch room := pipeBuffer - h.buf.Len(); {
		case h.closed:
			return n, errors.New("broken pipe")
		case expired(h.writeEnd):
			return n, os.ErrDeadlineExceeded
		case room > 0:
			m, _ := h.buf.Write(p[:min(room, len(p))])
			n, p = n+m, p[m:]
			h.cond.Broadcast()
		default:
			h.cond.Wait()
		}
	}
	return n, nil
}

func (h *halfPipe) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.cond.Broadcast()
}

func (h *halfPipe) setDeadline(end *time.Time, timer **time.Timer, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*end = t
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	if !t.IsZero() {
		*timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.cond.Broadcast()
		})
	}
	h.cond.Broadcast()
}

// A pipeConn is an end of a connection in memory.
type pipeConn struct{ r, w *halfPipe }

func (c *pipeConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.w.Write(p) }
func (c *pipeConn) LocalAddr() net.Addr         { return net.TCPAddrFromAddrPort(mustAddrPort(serverAddr)) }
func (c *pipeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(mustAddrPort("198.51.100.1:50000"))
}

func (c *pipeConn) Close() error {
	c.r.close()
	c.w.close()
	return c.SetDeadline(time.Time{})
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.r.setDeadline(&c.r.readEnd, &c.r.readTimer, t)
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.w.setDeadline(&c.w.writeEnd, &c.w.writeTimer, t)
	return nil
}

func (c *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
