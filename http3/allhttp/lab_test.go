package allhttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

const anyPort = "127.0.0.1:0"

// Protocols of requests.
const (
	proto1 = "HTTP/1.1"
	proto2 = "HTTP/2.0"
	proto3 = "HTTP/3.0"
)

// engines runs f for every engine, on the network of this host.
func engines(t *testing.T, f func(*testing.T, transport.Transport)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) { f(t, e) })
	}
}

// patient is for handshakes of processes that many others leave no time.
var patient = &transport.Config{HandshakeTimeout: time.Minute}

// A site is a running Server.
type site struct {
	*testing.T
	engine transport.Transport
	srv    *allhttp.Server
	ca     *testcert.CA
	addrs  []net.Addr
	served chan error // what Serve has returned
	log    *logBuffer
}

// open starts a Server on this host.
func open(t *testing.T, srv *allhttp.Server) *site {
	t.Helper()
	s, err := tryOpen(t, srv)
	require.NoError(t, err)
	return s
}

// tryOpen starts a Server, or returns why it cannot listen.
func tryOpen(t *testing.T, srv *allhttp.Server) (*site, error) {
	t.Helper()
	s := &site{T: t, engine: srv.Engine, srv: srv, ca: testcert.NewCA(), served: make(chan error, 1), log: new(logBuffer)}
	if srv.TLS == nil && srv.CertFile == "" {
		srv.TLS = s.ca.Server("localhost")
	}
	if srv.Addr == "" {
		srv.Addr = anyPort
	}
	if srv.QUIC == nil {
		srv.QUIC = patient
	}
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	}
	sockets, err := srv.Listen()
	if err != nil {
		return nil, err
	}
	s.serve(sockets)
	return s, nil
}

func (s *site) serve(sockets *allhttp.Sockets) {
	s.Helper()
	s.addrs = sockets.Addrs()
	go func() { s.served <- s.srv.Serve(sockets) }() // ends with Close
	s.Cleanup(func() {
		require.NoError(s, s.srv.Close())
		require.ErrorIs(s, <-s.served, http.ErrServerClosed)
	})
}

func (s *site) url() string { return "https://" + s.addrs[0].String() }

// client returns one that speaks a single version.
func (s *site) client(proto string) *http.Client {
	s.Helper()
	return clientOf(s.T, s.engine, s.ca.Client("localhost"), proto)
}

func clientOf(t *testing.T, e transport.Transport, cfg *tls.Config, proto string) *http.Client {
	t.Helper()
	if proto == proto3 {
		tr := &http3.Transport{Engine: e, TLS: cfg, Config: patient}
		t.Cleanup(func() { require.NoError(t, tr.Close()) })
		return &http.Client{Transport: tr}
	}
	p := new(http.Protocols)
	p.SetHTTP1(proto == proto1)
	p.SetHTTP2(proto == proto2)
	tr := &http.Transport{TLSClientConfig: cfg, Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := c.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(body)
}

// answerProto answers with the version of the request.
var answerProto = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto)
})

// A logBuffer collects what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

func portOf(t *testing.T, a net.Addr) string {
	t.Helper()
	_, p, err := net.SplitHostPort(a.String())
	require.NoError(t, err)
	return p
}

func background() context.Context { return context.Background() }

// trust returns the configuration of a client for a self-signed certificate.
func trust(server *tls.Config) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificates[0].Leaf)
	return &tls.Config{RootCAs: roots}
}
