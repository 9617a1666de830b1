package websocket_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	_ "github.com/anyquic/anyquic/http3/websocket/http2connect"
	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	serverAddr = "192.0.2.1:443"
	oneWay     = 10 * time.Millisecond
)

// A lab is a server and a client of one HTTP version, in virtual time.
type lab struct {
	*testing.T
	proto  string              // "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"
	engine transport.Transport // of HTTP/3

	url       string // of the server, with its scheme for WebSocket
	transport http.RoundTripper
	network   *transporttest.Network // of HTTP/3
	shutdown  func(context.Context) error

	mu       sync.Mutex
	options  *websocket.AcceptOptions // of the next connection; guarded by mu
	accepted chan accepted            // by Accept
	taken    chan *rawStream          // by a server that is not ours
	answer   http.Header              // that such a server adds; guarded by mu
}

type accepted struct {
	conn *websocket.Conn
	err  error
}

// versions runs f over every version of HTTP, and HTTP/3 over every engine.
func versions(t *testing.T, f func(*lab)) {
	t.Helper()
	run := func(name string, l *lab, start func(*lab)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l.T = t
				l.accepted = make(chan accepted, 1)
				l.taken = make(chan *rawStream, 1)
				start(l)
				f(l)
			})
		})
	}
	run("HTTP1", &lab{proto: "HTTP/1.1"}, (*lab).serveTCP)
	run("HTTP2", &lab{proto: "HTTP/2.0"}, (*lab).serveTCP)
	for _, e := range engine.All() {
		run("HTTP3-"+e.Name(), &lab{proto: "HTTP/3.0", engine: e}, (*lab).serveQUIC)
	}
}

// ServeHTTP accepts at /accept, and takes streams without our help at /raw.
func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	opts, answer := l.options, l.answer
	l.mu.Unlock()
	if r.URL.Path == "/raw" {
		for k, v := range answer {
			w.Header()[k] = v
		}
		l.serveRaw(w, r)
		return
	}
	c, err := websocket.Accept(w, r, opts)
	l.accepted <- accepted{c, err}
	if err == nil {
		<-c.Context().Done()
	}
}

func (l *lab) serveTCP() {
	alpn, scheme := "http/1.1", "ws"
	if l.proto == "HTTP/2.0" {
		alpn, scheme = "h2", "wss"
	}
	serverTLS, clientTLS := testcert.New(alpn)
	ln := pipenet.Listen(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, 0)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(alpn == "http/1.1")
	protocols.SetHTTP2(alpn == "h2")
	srv := &http.Server{Handler: l, TLSConfig: serverTLS, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0)}
	l.url = scheme + "://localhost"
	l.shutdown = srv.Shutdown
	served := make(chan error, 1)
	var idle interface{ CloseIdleConnections() }
	if alpn == "h2" {
		go func() { served <- srv.ServeTLS(ln, "", "") }() // ends with Close
		dial := func(ctx context.Context, _, _ string, cfg *tls.Config) (net.Conn, error) {
			nc, err := ln.Dial(ctx)
			if err != nil {
				return nil, err
			}
			tc := tls.Client(nc, cfg)
			return tc, tc.HandshakeContext(ctx)
		}
		tr := &http2.Transport{TLSClientConfig: clientTLS, DialTLSContext: dial} //nolint:staticcheck // that of net/http refuses a :protocol
		l.transport, idle = tr, tr
	} else {
		go func() { served <- srv.Serve(ln) }() // ends with Close
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return ln.Dial(ctx) }}
		l.transport, idle = tr, tr
	}
	l.Cleanup(func() {
		idle.CloseIdleConnections()
		srv.Close()
		require.ErrorIs(l, <-served, http.ErrServerClosed)
		time.Sleep(time.Minute) // net/http lingers, which is virtual time
	})
}

func (l *lab) serveQUIC() {
	l.network = transporttest.NewNetwork(1)
	l.Cleanup(l.network.Close)
	access := transporttest.Link{Latency: oneWay}
	open := func(addr string) transport.Endpoint {
		e, err := l.engine.Open(l.network.Socket(addr, access, transporttest.Link{}), nil)
		require.NoError(l, err)
		l.Cleanup(func() { require.NoError(l, e.Close()) })
		return e
	}
	server, client := open(serverAddr), open("198.51.100.1:50000")
	ca := testcert.NewCA()
	srv := &http3.Server{Handler: l, TLS: ca.Server("localhost")}
	cfg, err := srv.TransportConfig()
	require.NoError(l, err)
	ln, err := server.Listen(cfg)
	require.NoError(l, err)
	var serving sync.WaitGroup
	serving.Go(func() { require.ErrorIs(l, srv.Serve(ln), http.ErrServerClosed) }) // ends with Close
	tr := &http3.Transport{
		TLS: ca.Client("localhost"),
		Dial: func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
			return client.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)), cfg)
		},
	}
	l.url, l.transport, l.shutdown = "wss://localhost", tr, srv.Shutdown
	l.Cleanup(func() {
		require.NoError(l, tr.Close())
		require.NoError(l, srv.Close())
		serving.Wait()
	})
}

// dial connects to a path of the server, by Dial.
func (l *lab) dial(path string, opts websocket.DialOptions) (*websocket.Conn, error) {
	opts.Transport = l.transport
	return websocket.Dial(l.Context(), l.url+path, &opts)
}

// both returns the two ends of a connection. Nil options are zero.
func (l *lab) both(accept *websocket.AcceptOptions, dial *websocket.DialOptions) (server, client *websocket.Conn) {
	l.Helper()
	l.setOptions(accept)
	if dial == nil {
		dial = &websocket.DialOptions{}
	}
	client, err := l.dial("/accept", *dial)
	require.NoError(l, err)
	a := <-l.accepted
	require.NoError(l, a.err)
	l.closeLater(a.conn)
	l.closeLater(client)
	return a.conn, client
}

func (l *lab) setOptions(o *websocket.AcceptOptions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options = o
}

// closeLater ends what a test leaves, before the server and the client end.
func (l *lab) closeLater(c *websocket.Conn) {
	l.Cleanup(func() {
		require.NoError(l, c.CloseNow())
		<-c.Context().Done()
	})
}

// A role is what our end of a connection is.
type role bool

const (
	asServer role = false
	asClient role = true
)

func (r role) String() string {
	if r == asClient {
		return "client"
	}
	return "server"
}

// roles runs f with our end as server and as client, over every version.
func roles(t *testing.T, f func(l *lab, r role)) {
	t.Helper()
	versions(t, func(l *lab) {
		for _, r := range []role{asServer, asClient} {
			f(l, r)
		}
	})
}

// connect returns our end of a connection, and the other as what is sent and
// received. Extensions is what the other end says about them; ours get the
// options.
func (l *lab) connect(r role, accept websocket.AcceptOptions, extensions string) (*websocket.Conn, *framer) {
	l.Helper()
	header := make(http.Header)
	if extensions != "" {
		header.Set("Sec-WebSocket-Extensions", extensions)
	}
	if r == asServer {
		l.setOptions(&accept)
		s, resp := l.rawDial("/accept", header)
		require.NotNil(l, s, resp.Status)
		a := <-l.accepted
		require.NoError(l, a.err)
		l.closeLater(a.conn)
		return a.conn, newFramer(l.T, s, true)
	}
	l.mu.Lock()
	l.answer = header
	l.mu.Unlock()
	c, err := l.dial("/raw", websocket.DialOptions{
		Compression: accept.Compression, ReadLimit: accept.ReadLimit, Heartbeat: accept.Heartbeat,
		Subprotocols: accept.Subprotocols,
	})
	require.NoError(l, err)
	l.closeLater(c)
	return c, newFramer(l.T, <-l.taken, false)
}

// A rawStream is what a handshake leaves, in the hands of a test.
type rawStream struct {
	io.Reader
	io.Writer
	closeWrite func()
	reset      func() // abnormally
}

// rawDial makes a handshake by hand. The stream is nil if the server refuses.
func (l *lab) rawDial(path string, header http.Header) (*rawStream, *http.Response) {
	l.Helper()
	u, err := url.Parse(l.url + path)
	require.NoError(l, err)
	u.Scheme = map[string]string{"ws": "http", "wss": "https"}[u.Scheme]
	ctx, cancel := context.WithCancel(l.Context())
	l.Cleanup(cancel)
	if header == nil {
		header = make(http.Header)
	}
	req := (&http.Request{Method: http.MethodConnect, URL: u, Header: header.Clone()}).WithContext(ctx)
	if req.Header.Get("Sec-WebSocket-Version") == "" {
		req.Header.Set("Sec-WebSocket-Version", "13")
	}
	pr, pw := io.Pipe()
	switch l.proto {
	case "HTTP/1.1":
		req.Method = http.MethodGet
		req.Header.Set("Connection", "keep-alive, Upgrade")
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	case "HTTP/2.0":
		req.Body, req.ContentLength = pr, -1
		fallthrough
	default:
		if req.Header[":protocol"] == nil {
			req.Header[":protocol"] = []string{"websocket"}
		}
	}
	resp, err := l.transport.RoundTrip(req)
	require.NoError(l, err)
	l.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		return nil, resp
	}
	reset := func() {
		pw.CloseWithError(io.ErrClosedPipe)
		resp.Body.Close()
		cancel()
	}
	switch l.proto {
	case "HTTP/1.1":
		require.Equal(l, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-WebSocket-Accept"), "RFC 6455, Section 1.3")
		rwc := resp.Body.(io.ReadWriteCloser)
		return &rawStream{rwc, rwc, func() {}, reset}, resp // it is for the server to close it
	case "HTTP/2.0":
		return &rawStream{resp.Body, pw, func() { pw.Close() }, reset}, resp
	}
	s, ok := http3.ResponseStream(resp)
	require.True(l, ok)
	return &rawStream{s, s, func() { s.Close() }, func() {
		s.CancelWrite(http3.ErrRequestCancelled)
		s.CancelRead(http3.ErrRequestCancelled)
	}}, resp
}

// serveRaw answers a handshake by hand.
func (l *lab) serveRaw(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	switch r.ProtoMajor {
	case 1:
		w.Header().Set("Connection", "upgrade")
		w.Header().Set("Upgrade", "WebSocket")
		w.Header().Set("Sec-WebSocket-Accept", websocket.AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
		w.WriteHeader(http.StatusSwitchingProtocols)
		nc, _, err := rc.Hijack()
		if err != nil {
			l.Error(err)
			return
		}
		l.taken <- &rawStream{nc, nc, func() { nc.Close() }, func() { nc.Close() }}
	case 2:
		done := make(chan struct{})
		var once sync.Once
		end := func() { once.Do(func() { close(done) }) }
		var returning sync.Mutex // w is the handler's until it returns, which the client may cause
		returned := false
		defer func() {
			returning.Lock()
			defer returning.Unlock()
			returned = true
		}()
		fw := &flushWriter{w: w, rc: rc}
		defer fw.stop()
		l.taken <- &rawStream{r.Body, fw, end, func() {
			returning.Lock()
			defer returning.Unlock()
			if !returned {
				_ = rc.SetWriteDeadline(time.Unix(1, 0))
			}
			end()
		}}
		_ = rc.Flush()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	default:
		s, err := http3.TakeStream(w)
		if err != nil {
			l.Error(err)
			return
		}
		l.taken <- &rawStream{s, s, func() { s.Close() }, func() {
			s.CancelWrite(http3.ErrRequestCancelled)
			s.CancelRead(http3.ErrRequestCancelled)
		}}
	}
}

// A flushWriter writes to a response until its handler returns.
type flushWriter struct {
	w  io.Writer
	rc *http.ResponseController

	mu      sync.Mutex
	stopped bool // guarded by mu
}

func (f *flushWriter) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return 0, io.ErrClosedPipe
	}
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// stop is for the handler to call at its end.
func (f *flushWriter) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
}
