package webtransport_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/qpack"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	serverAddr = "192.0.2.1:443"
	oneWay     = 10 * time.Millisecond
	site       = "https://localhost"
)

// What the protocol says on the wire.
const (
	codeRejected = 0x3994bd84
	codeGone     = 0x170d7b68
	capsuleClose = 0x2843
	capsuleDrain = 0x78ae
)

// A world is a simulated network with a server and clients, in virtual time.
type world struct {
	*testing.T
	engine   transport.Transport
	ca       *testcert.CA
	server   transport.Endpoint
	client   transport.Endpoint
	srv      *http3.Server
	tr       *http3.Transport
	sessions chan *webtransport.Session // that the handler at / accepted
	failures chan error                 // of Accept
	dialled  []transport.Conn           // by tr
}

// simulate runs f for every engine.
func simulate(t *testing.T, f func(*world)) {
	t.Helper()
	simulateLink(t, slow, f)
}

// simulateLink is simulate with a server whose packets take the link.
func simulateLink(t *testing.T, link transporttest.Link, f func(*world)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runWorld(t, e, link, f) })
		})
	}
}

// slow is a link that has nothing but latency.
var slow = transporttest.Link{Latency: oneWay}

// runWorld runs f in a bubble.
func runWorld(t *testing.T, e transport.Transport, link transporttest.Link, f func(*world)) {
	w := &world{
		T: t, engine: e, ca: testcert.NewCA(),
		sessions: make(chan *webtransport.Session, 100), failures: make(chan error, 100),
	}
	n := transporttest.NewNetwork(1)
	t.Cleanup(n.Close)
	var err error
	w.server, err = e.Open(n.Socket(serverAddr, link, transporttest.Link{}), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.server.Close()) })
	w.client, err = e.Open(n.Socket("198.51.100.1:50000", slow, transporttest.Link{}), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.client.Close()) })
	w.tr = w.newTransport()
	f(w)
}

// newTransport makes a client of the server.
func (w *world) newTransport() *http3.Transport {
	tr := &http3.Transport{TLS: w.ca.Client("localhost")}
	tr.Dial = func(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
		c, err := w.client.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)), cfg)
		if err == nil {
			w.dialled = append(w.dialled, c)
		}
		return c, err
	}
	w.Cleanup(func() { require.NoError(w, tr.Close()) })
	return tr
}

// serve starts a server whose handler at / accepts sessions with opts.
func (w *world) serve(cfg *webtransport.Config, opts *webtransport.AcceptOptions) {
	w.Helper()
	w.serveWith(new(http3.Server), cfg, opts)
}

func (w *world) serveWith(srv *http3.Server, cfg *webtransport.Config, opts *webtransport.AcceptOptions) {
	w.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(rw http.ResponseWriter, r *http.Request) {
		s, err := webtransport.Accept(rw, r, opts)
		if err != nil {
			w.failures <- err
			return
		}
		w.sessions <- s
	})
	mux.HandleFunc("GET /hello", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "hello") })
	srv.Handler = mux
	srv.TLS = w.ca.Server("localhost")
	webtransport.ConfigureServer(srv, cfg)
	tc, err := srv.TransportConfig()
	require.NoError(w, err)
	ln, err := w.server.Listen(tc)
	require.NoError(w, err)
	w.srv = srv
	var serving sync.WaitGroup
	serving.Go(func() { require.ErrorIs(w, srv.Serve(ln), http.ErrServerClosed) }) // ends with Close
	w.Cleanup(func() {
		require.NoError(w, srv.Close())
		serving.Wait()
		time.Sleep(time.Minute) // of virtual time, for what lingers
	})
}

// dial starts a session and returns both of its ends.
func (w *world) dial(opts *webtransport.DialOptions) (client, server *webtransport.Session) {
	w.Helper()
	client, err := webtransport.Dial(w.Context(), w.tr, site+"/", opts)
	require.NoError(w, err)
	server = <-w.sessions
	for _, s := range []*webtransport.Session{client, server} {
		require.Contains(w, fmt.Sprintf("%T", s.Conn().Transport()), w.engine.Name(), "the engine of the test")
	}
	return client, server
}

// pair is serve and dial without options.
func (w *world) pair() (client, server *webtransport.Session) {
	w.Helper()
	w.serve(nil, nil)
	return w.dial(nil)
}

// ended waits for the end of a session and returns why.
func ended(t testing.TB, s *webtransport.Session) *webtransport.SessionError {
	t.Helper()
	<-s.Context().Done()
	var e *webtransport.SessionError
	require.ErrorAs(t, context.Cause(s.Context()), &e)
	return e
}

// What goes over the wire, byte by byte.

func cat(pp ...[]byte) []byte { return bytes.Join(pp, nil) }

func varints(vv ...uint64) (b []byte) {
	for _, v := range vv {
		b = http3.AppendVarint(b, v)
	}
	return b
}

func frame(typ uint64, payload ...[]byte) []byte {
	p := cat(payload...)
	return cat(varints(typ, uint64(len(p))), p)
}

func headers(kv ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(kv); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return frame(0x1, b.Bytes())
}

// connect is the head of a request for a session, with more fields.
func connect(proto string, more ...string) []byte {
	return headers(append([]string{":method", "CONNECT", ":scheme", "https", ":authority", "localhost", ":path", "/", ":protocol", proto}, more...)...)
}

// capsule is a DATA frame with a capsule.
func capsule(typ uint64, value ...[]byte) []byte {
	return frame(0x0, http3.AppendCapsule(nil, typ, cat(value...)))
}

func closing(code uint32, reason string) []byte {
	return capsule(capsuleClose, binary.BigEndian.AppendUint32(nil, code), []byte(reason))
}

// newest are the settings of a peer of the newest draft.
var newest = []uint64{0x33, 1, 0x8, 1, 0x2c7cf000, 1}

// A peer speaks byte by byte.
type peer struct {
	*testing.T
	conn transport.Conn
}

// peer connects to the server, with these settings.
func (w *world) peer(settings ...uint64) *peer {
	w.Helper()
	c, err := w.client.Dial(w.Context(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)),
		&transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), Datagrams: true})
	require.NoError(w, err)
	p := &peer{T: w.T, conn: c}
	p.uni(cat(varints(0), frame(0x4, varints(settings...))))
	return p
}

// listenPeer makes a server that speaks byte by byte. What it returns accepts a
// connection.
func (w *world) listenPeer(settings ...uint64) (accept func() *peer) {
	w.Helper()
	ln, err := w.server.Listen(&transport.Config{TLS: w.ca.Server("localhost", http3.ALPN), Datagrams: true})
	require.NoError(w, err)
	return func() *peer {
		c, err := ln.Accept(w.Context())
		require.NoError(w, err)
		p := &peer{T: w.T, conn: c}
		p.uni(cat(varints(0), frame(0x4, varints(settings...))))
		return p
	}
}

func (p *peer) uni(b []byte) transport.SendStream {
	p.Helper()
	s, err := p.conn.OpenUniStream(p.Context())
	require.NoError(p, err)
	_, err = s.Write(b)
	require.NoError(p, err)
	return s
}

func (p *peer) bidi(b []byte) transport.Stream {
	p.Helper()
	s, err := p.conn.OpenStream(p.Context())
	require.NoError(p, err)
	_, err = s.Write(b)
	require.NoError(p, err)
	return s
}

// head reads a HEADERS frame.
func (p *peer) head(s transport.ReceiveStream) map[string]string {
	p.Helper()
	typ, payload := p.frame(s)
	require.EqualValues(p, 0x1, typ)
	fields := make(map[string]string)
	for next := qpack.NewDecoder().Decode(payload); ; {
		f, err := next()
		if err == io.EOF {
			return fields
		}
		require.NoError(p, err)
		fields[f.Name] = f.Value
	}
}

// frame reads a frame.
func (p *peer) frame(s transport.ReceiveStream) (typ uint64, payload []byte) {
	p.Helper()
	r := byteReader{s}
	typ, err := http3.ReadVarint(r)
	require.NoError(p, err)
	n, err := http3.ReadVarint(r)
	require.NoError(p, err)
	payload = make([]byte, n)
	_, err = io.ReadFull(s, payload)
	require.NoError(p, err)
	return typ, payload
}

type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(r, p[:])
	return p[0], err
}

// session starts a session of a peer that is the client.
func (w *world) session(p *peer, proto string) (transport.Stream, *webtransport.Session) {
	w.Helper()
	s := p.bidi(connect(proto))
	require.Equal(w, "200", p.head(s)[":status"])
	return s, <-w.sessions
}

// answer accepts a request of the client under test and answers it.
func (p *peer) answer(kv ...string) (transport.Stream, map[string]string) {
	p.Helper()
	s, err := p.conn.AcceptStream(p.Context())
	require.NoError(p, err)
	h := p.head(s)
	_, err = s.Write(headers(kv...))
	require.NoError(p, err)
	return s, h
}

// cancelled reads a stream to its end and returns the code that it was cancelled
// with.
func (p *peer) cancelled(s transport.ReceiveStream) transport.ErrorCode {
	p.Helper()
	_, err := io.Copy(io.Discard, s)
	var se *transport.StreamError
	require.ErrorAs(p, err, &se)
	require.True(p, se.Remote)
	return se.Code
}

// stopped waits until nobody reads a stream any more and returns the code.
func (p *peer) stopped(s transport.SendStream) transport.ErrorCode {
	p.Helper()
	<-s.Context().Done()
	_, err := s.Write([]byte("x"))
	var se *transport.StreamError
	require.ErrorAs(p, err, &se)
	require.True(p, se.Remote)
	return se.Code
}

// ended waits for the end of the connection and returns the other side's code.
func (p *peer) ended() transport.ErrorCode {
	p.Helper()
	<-p.conn.Context().Done()
	var ae *transport.ApplicationError
	require.ErrorAs(p, context.Cause(p.conn.Context()), &ae)
	require.True(p, ae.Remote)
	return ae.Code
}

// timeout is a context that ends after d.
func (w *world) timeout(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}
