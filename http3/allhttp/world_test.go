package allhttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	rtt  = 20 * time.Millisecond
	host = "example.com"
	url  = "https://" + host
)

// A world is a network in virtual time, with DNS, UDP and TCP.
type world struct {
	*testing.T
	engine transport.Transport
	net    *transporttest.Network
	ca     *testcert.CA
	tr     *allhttp.Transport
	log    *logBuffer

	mu      sync.Mutex
	names   map[string][]netip.Addr      // guarded by mu
	tcp     map[string]*pipenet.Listener // by ip:port; guarded by mu
	tcpSent []string                     // addresses dialled; guarded by mu
	udpSent []string                     // guarded by mu
	sockets int                          // of clients; guarded by mu
	choices []allhttp.Choice             // guarded by mu
	dials   []allhttp.Dial               // guarded by mu
}

// worlds runs f in a bubble with a world, for every engine.
func worlds(t *testing.T, f func(w *world)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, engine: e, net: transporttest.NewNetwork(1), ca: testcert.NewCA(), log: new(logBuffer),
					names: make(map[string][]netip.Addr), tcp: make(map[string]*pipenet.Listener)}
				t.Cleanup(w.net.Close)
				w.tr = w.transport()
				f(w)
			})
		})
	}
}

// transport returns a client of the world.
func (w *world) transport() *allhttp.Transport {
	tr := w.newTransport()
	w.Cleanup(func() { require.NoError(w, tr.Close()) })
	return tr
}

// newTransport returns a client that is the caller's to close.
func (w *world) newTransport() *allhttp.Transport {
	return &allhttp.Transport{
		Engine: w.engine,
		Base: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: w.ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(0)}, DialContext: w.dialTCP, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: time.Second,
		},
		ListenPacket: w.listenPacket,
		LookupIP:     w.lookup,
		Logger:       slog.New(slog.NewTextHandler(w.log, nil)),
	}
}

func (w *world) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ips := w.names[name]; len(ips) > 0 {
		return ips, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (w *world) dialTCP(ctx context.Context, _, addr string) (net.Conn, error) {
	h, p, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := w.lookup(ctx, h)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.tcpSent = append(w.tcpSent, addr)
	var l *pipenet.Listener
	for _, ip := range ips {
		if l = w.tcp[net.JoinHostPort(ip.String(), p)]; l != nil {
			break
		}
	}
	w.mu.Unlock()
	select {
	case <-time.After(2 * rtt): // one of them is that of TLS
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	return l.Dial(ctx)
}

func (w *world) listenPacket(_ context.Context, to netip.AddrPort) (net.PacketConn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets++
	w.udpSent = append(w.udpSent, to.String())
	addr := fmt.Sprintf("198.51.100.1:%d", 40000+w.sockets)
	if to.Addr().Is6() {
		addr = fmt.Sprintf("[2001:db8::c]:%d", 40000+w.sockets)
	}
	return w.net.Socket(addr, transporttest.Link{Latency: rtt / 2}, transporttest.Link{Latency: rtt / 2}), nil
}

// tcpDials returns how often TCP connections were tried so far.
func (w *world) tcpDials() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tcpSent)
}

// udpDials returns how often QUIC connections were tried so far.
func (w *world) udpDials() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.udpSent)
}

// A machine is a server of the world.
type machine struct {
	srv  *allhttp.Server
	udp  *transporttest.Socket
	stop func()
}

// serve starts a server with certificates for the names on an address, and
// makes the names known.
func (w *world) serve(addr string, h http.Handler, change func(*allhttp.Server), names ...string) *machine {
	w.Helper()
	ap := netip.MustParseAddrPort(addr)
	srv := &allhttp.Server{Engine: w.engine, Handler: h, TLS: &tls.Config{Certificates: []tls.Certificate{w.ca.Certificate(names...)}}}
	if change != nil {
		change(srv)
	}
	m := &machine{srv: srv}
	sockets := new(allhttp.Sockets)
	if srv.Versions.Has(allhttp.HTTP3) {
		m.udp = w.net.Socket(addr, transporttest.Link{}, transporttest.Link{})
		sockets.UDP = append(sockets.UDP, m.udp)
	}
	if srv.Versions != allhttp.HTTP3 {
		l := pipenet.Listen(net.TCPAddrFromAddrPort(ap), 0)
		sockets.TCP = append(sockets.TCP, l)
		w.mu.Lock()
		w.tcp[addr] = l
		w.mu.Unlock()
	}
	w.mu.Lock()
	for _, n := range names {
		if !slices.Contains(w.names[n], ap.Addr()) {
			w.names[n] = append(w.names[n], ap.Addr())
		}
	}
	w.mu.Unlock()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(sockets) }() // ends with stop
	m.stop = sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.tcp, addr)
		w.mu.Unlock()
		require.NoError(w, srv.Close())
		require.ErrorIs(w, <-served, http.ErrServerClosed)
		time.Sleep(time.Minute) // of virtual time, in which net/http lingers
	})
	w.Cleanup(m.stop)
	synctest.Wait()
	return m
}

// cut makes a black hole of a machine's UDP, or mends it.
func (m *machine) cut(on bool) {
	m.udp.Links(transporttest.Link{Cut: on}, transporttest.Link{Cut: on})
}

// trace makes the world see what becomes of requests with the context.
func (w *world) trace(ctx context.Context) context.Context {
	return allhttp.WithTrace(ctx, &allhttp.Trace{
		Chosen: func(c allhttp.Choice) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.choices = append(w.choices, c)
		},
		Dialed: func(d allhttp.Dial) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dials = append(w.dials, d)
		},
	})
}

// choice returns the last Choice.
func (w *world) choice() allhttp.Choice {
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotEmpty(w, w.choices)
	return w.choices[len(w.choices)-1]
}

func (w *world) request(method, to string, body io.Reader) *http.Request {
	w.Helper()
	req, err := http.NewRequestWithContext(w.trace(w.Context()), method, to, body)
	require.NoError(w, err)
	return req
}

// send sends a request, reads the response, and checks that the handler, the
// response and the trace agree on the version.
func (w *world) send(req *http.Request) *http.Response {
	w.Helper()
	resp, err := w.tr.RoundTrip(req)
	require.NoError(w, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(w, err)
	require.NoError(w, resp.Body.Close())
	require.Equal(w, resp.Proto, w.choice().Proto)
	require.Equal(w, resp.Header.Get("Seen-Proto"), resp.Proto)
	require.Same(w, req, resp.Request)
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return resp
}

// get fetches and checks how.
func (w *world) get(to, proto string, reason allhttp.Reason) *http.Response {
	w.Helper()
	resp := w.send(w.request(http.MethodGet, to, nil))
	require.Equal(w, proto, resp.Proto)
	require.Equal(w, reason, w.choice().Reason)
	return resp
}

// seen is a handler that tells which version it has seen, and echoes.
var seen = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Seen-Proto", r.Proto)
	w.Header().Set("Seen-Alt-Used", r.Header.Get("Alt-Used"))
	w.Header().Set("Seen-Host", r.Host)
	_, _ = io.Copy(w, r.Body)
})

func linkOf(latency time.Duration) transporttest.Link { return transporttest.Link{Latency: latency} }

// closeIdle has the client close its idle connections, which all are: HTTP/2 keeps a
// stream for a moment after the caller has read all of its response.
func (w *world) closeIdle() {
	synctest.Wait()
	w.tr.CloseIdleConnections()
}

// settle lets everything happen that is under way.
func settle() {
	time.Sleep(10 * rtt)
	synctest.Wait()
}

// took returns how long f takes.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

var errBody = errors.New("body was read twice")

// A onceBody can be read once, and counts what is done to it.
type onceBody struct {
	io.Reader
	mu     sync.Mutex
	closed int
	ended  bool
}

func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return 0, errBody
	}
	n, err := b.Reader.Read(p)
	b.ended = err != nil
	return n, err
}

func (b *onceBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }
