//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

// A site is a server of ours on an engine, for foreign clients.
type site struct {
	engine transport.Transport
	id     *identity
	addr   string // 127.0.0.1:PORT
	log    *logBuffer
}

func (s *site) url(path string) string { return "https://" + s.addr + path }

// startHTTP3 serves HTTP/3 alone.
func startHTTP3(t *testing.T, e transport.Transport, id *identity) *site {
	t.Helper()
	s := &site{engine: e, id: id, log: newLogBuffer(t)}
	srv := &http3.Server{
		Handler:   siteHandler(),
		TLS:       id.serverTLS(),
		Transport: &transport.Config{EarlyData: true, HandshakeTimeout: patience},
		Logger:    slog.New(slog.NewTextHandler(s.log, nil)),
	}
	srv.TLS.NextProtos = nil
	webtransport.ConfigureServer(srv, nil)
	cfg, err := srv.TransportConfig()
	require.NoError(t, err)
	ln, err := transport.ListenAddr(e, "127.0.0.1:0", cfg)
	require.NoError(t, err)
	s.addr = ln.Addr().String()
	s.serve(t, func() error { return srv.Serve(ln) }, srv.Close)
	return s
}

// startAllHTTP serves HTTP/1.1, HTTP/2 and HTTP/3 on one port.
func startAllHTTP(t *testing.T, e transport.Transport, id *identity) *site {
	t.Helper()
	return startAllHTTPWith(t, e, id, siteHandler())
}

func startAllHTTPWith(t *testing.T, e transport.Transport, id *identity, handler http.Handler) *site {
	t.Helper()
	s := &site{engine: e, id: id, log: newLogBuffer(t)}
	var with http3.Server
	webtransport.ConfigureServer(&with, nil)
	srv := &allhttp.Server{
		Engine:     e,
		Addr:       "127.0.0.1:0",
		Handler:    handler,
		TLS:        id.serverTLS(),
		QUIC:       with.Transport,
		Extensions: with.Extensions,
		Logger:     slog.New(slog.NewTextHandler(s.log, nil)),
	}
	srv.TLS.NextProtos = nil
	srv.QUIC.EarlyData, srv.QUIC.HandshakeTimeout = true, patience
	sockets, err := srv.Listen()
	require.NoError(t, err)
	s.addr = sockets.UDP[0].LocalAddr().String()
	s.serve(t, func() error { return srv.Serve(sockets) }, srv.Close)
	return s
}

// serve runs a server until the test ends.
func (s *site) serve(t *testing.T, serve, closed func() error) {
	served := make(chan error, 1)
	go func() { served <- serve() }() // ends with closed
	t.Cleanup(func() {
		require.NoError(t, closed())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}

// eachSite runs a test with both kinds of server on each engine.
func eachSite(t *testing.T, test func(t *testing.T, s *site)) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		t.Run("http3.Server", func(t *testing.T) { test(t, startHTTP3(t, e, newIdentity(t))) })
		t.Run("allhttp.Server", func(t *testing.T) { test(t, startAllHTTP(t, e, newIdentity(t))) })
	})
}

// What a site answers, besides what it does at /ws and /wt.
const (
	pathBytes    = "/bytes/"   // with a number: so many bytes of pattern
	pathSum      = "/sum"      // an uploadSeen
	pathEcho     = "/echo"     // what came, while it comes, with the trailer of the request
	pathProto    = "/proto"    // the version of HTTP
	pathHints    = "/hints"    // a 103, and trailers
	pathTrailers = "/trailers" // the same without the 103
	pathEarly    = "/early"    // whether the connection began with early data
	pathWS       = "/ws"       // WebSocket: messages come back
	pathWT       = "/wt"       // WebTransport: streams and datagrams come back
)

const (
	siteTrailer = "X-Trailer"
	siteProto   = "X-Proto"
	siteWTProto = "echo-1" // a protocol of WebTransport that pathWT speaks
)

// An uploadSeen is what a server knows about a request with a body.
type uploadSeen struct {
	Method string `json:"method"`
	Proto  string `json:"proto"`
	Length int64  `json:"length"`
	Sum    string `json:"sum"` // SHA-256
	ALPN   string `json:"alpn"`
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func siteHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(pathBytes+"{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n < 0 || n > 64<<20 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(pattern(n)) // the client says what it misses; so below
	})
	mux.HandleFunc(pathSum, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(uploadSeen{r.Method, r.Proto, n, hex.EncodeToString(sum.Sum(nil)), r.TLS.NegotiatedProtocol})
	})
	mux.HandleFunc(pathEcho, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 and HTTP/3 are
		w.Header().Set("Trailer", siteTrailer)
		w.Header().Set(siteProto, r.Proto)
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(siteTrailer, r.Trailer.Get(siteTrailer))
	})
	mux.HandleFunc(pathProto, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, ALPN %s", r.Proto, r.TLS.NegotiatedProtocol)
	})
	mux.HandleFunc(pathHints, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		withTrailer(w)
	})
	mux.HandleFunc(pathTrailers, func(w http.ResponseWriter, _ *http.Request) { withTrailer(w) })
	mux.HandleFunc(pathEarly, func(w http.ResponseWriter, r *http.Request) {
		// Not http3.Early: the handshake may be complete when this runs.
		c := http3.ConnOf(w).Transport()
		if err := c.Handshake(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, c.State().EarlyData)
	})
	mux.HandleFunc(pathWS, echoWebSocket)
	mux.HandleFunc(pathWT, func(w http.ResponseWriter, r *http.Request) {
		s, err := webtransport.Accept(w, r, &webtransport.AcceptOptions{Origins: []string{r.URL.Query().Get("origin")}, Protocols: []string{siteWTProto}})
		if err == nil {
			echoSession(s)
		}
	})
	return mux
}

func withTrailer(w http.ResponseWriter) {
	w.Header().Set("Trailer", siteTrailer)
	fmt.Fprint(w, "body")
	w.Header().Set(siteTrailer, "at the end")
}

// echoWebSocket sends every message back, until the other side closes; to "version?"
// it says the version of HTTP. What the query names as origin may connect.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"echo"}, OriginPatterns: []string{r.URL.Query().Get("origin")}, ReadLimit: 1 << 20,
	})
	if err != nil {
		return // the client was told
	}
	defer c.CloseNow()
	for {
		typ, p, err := c.Read(context.Background())
		if string(p) == "version?" {
			p = []byte(c.Proto())
		}
		if err != nil || c.Write(context.Background(), typ, p) != nil {
			return
		}
	}
}

// echoSession sends back what comes on a session: on a bidirectional stream in its
// other direction, on a unidirectional one in a stream of this side's, a datagram in
// a datagram. It returns when the session has ended. One stream is this side's idea:
// it says hello.
func echoSession(s *webtransport.Session) {
	defer s.Close()
	ctx := s.Context()
	var g sync.WaitGroup // all of them end with the session
	defer g.Wait()
	g.Go(func() {
		hello, err := s.OpenStream(ctx)
		if err == nil {
			_, _ = hello.WriteLast([]byte("hello from the server"))
		}
	})
	g.Go(func() {
		for {
			p, err := s.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			_ = s.SendDatagram(p) // it may be lost anyway
		}
	})
	g.Go(func() {
		for {
			in, err := s.AcceptUniStream(ctx)
			if err != nil {
				return
			}
			g.Go(func() {
				p, err := io.ReadAll(in)
				if err != nil {
					return
				}
				if out, err := s.OpenUniStream(ctx); err == nil {
					_, _ = out.WriteLast(p)
				}
			})
		}
	})
	for {
		stream, err := s.AcceptStream(ctx)
		if err != nil {
			return
		}
		g.Go(func() {
			if _, err := io.Copy(stream, stream); err == nil {
				_ = stream.Close()
			}
		})
	}
}

// A logBuffer collects what servers and processes say; a test that fails shows it.
type logBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer  // guarded by mu
	more chan struct{} // has an element when something was added
}

func newLogBuffer(t *testing.T) *logBuffer {
	b := &logBuffer{more: make(chan struct{}, 1)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", b)
		}
	})
	return b
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
	return b.buf.Write(p)
}

// await waits until something is so that can change when the log does, and reports
// whether it is.
func (b *logBuffer) await(so func() bool) bool {
	timeout := time.After(patience)
	for !so() {
		select {
		case <-b.more:
		case <-timeout:
			return false
		}
	}
	return true
}

// String returns the last 8 KB.
func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.buf.Bytes()
	return string(all[max(0, len(all)-8<<10):])
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}
