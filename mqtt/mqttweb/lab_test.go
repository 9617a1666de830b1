package mqttweb_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/qpack"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
	"github.com/anyquic/anyquic/transport/transporttest"
)

const (
	serverAddr = "192.0.2.1:443"
	site       = "localhost" + mqttweb.Path

	// patience is how long a test on loopback waits for what must happen.
	patience = time.Minute
)

// A world is a simulated network with a broker on HTTP/3 and clients of it, in
// virtual time.
type world struct {
	*testing.T
	engine   transport.Transport
	network  *transporttest.Network
	ca       *testcert.CA
	broker   *broker.Broker
	listener *mqttweb.Listener
	server   *http3.Server
	endpoint transport.Endpoint // the client's
}

// simulate runs f for every engine.
func simulate(t *testing.T, cfg *mqttweb.ListenConfig, bc *broker.Config, f func(*world)) {
	t.Helper()
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, engine: e, ca: testcert.NewCA(), network: transporttest.NewNetwork(1), listener: mqttweb.NewListener(cfg)}
				defer w.network.Close()
				if bc == nil {
					bc = new(broker.Config)
				}
				w.start(bc)
				f(w)
			})
		})
	}
}

func (w *world) start(bc *broker.Config) {
	var err error
	w.broker, err = broker.New(bc)
	require.NoError(w, err)
	mux := http.NewServeMux()
	mux.Handle(mqttweb.Path, w.listener)
	mux.HandleFunc("GET /hello", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "hello") })
	w.server = &http3.Server{Handler: mux, TLS: w.ca.Server("localhost"), IdleTimeout: time.Minute}
	w.server.Transport, w.server.Extensions = mqttweb.ServerConfig(nil)
	cfg, err := w.server.TransportConfig()
	require.NoError(w, err)
	slow := transporttest.Link{Latency: 10 * time.Millisecond}
	ep, err := w.engine.Open(w.network.Socket(serverAddr, slow, slow), nil)
	require.NoError(w, err)
	ln, err := ep.Listen(cfg)
	require.NoError(w, err)
	var serving sync.WaitGroup
	serving.Go(func() { require.ErrorIs(w, w.server.Serve(ln), http.ErrServerClosed) }) // ends with Close
	serving.Go(func() { require.NoError(w, w.broker.ServeLinks(w.listener)) })          // ends with the broker
	w.endpoint, err = w.engine.Open(w.network.Socket("198.51.100.1:50000", slow, slow), nil)
	require.NoError(w, err)
	w.Cleanup(func() {
		require.NoError(w, errors.Join(w.broker.Close(), w.listener.Wait(context.Background())))
		require.NoError(w, errors.Join(w.endpoint.Close(), w.server.Close(), ep.Close()))
		serving.Wait()
		time.Sleep(time.Minute) // of virtual time, for what lingers
	})
}

func (w *world) dialQUIC(ctx context.Context, _ string, cfg *transport.Config) (transport.Conn, error) {
	return w.endpoint.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverAddr)), cfg)
}

// link connects with a scheme.
func (w *world) link(scheme string) mqtt.Link {
	w.Helper()
	d := &mqttweb.Dialer{DialQUIC: w.dialQUIC}
	l, err := d.DialLink(w.Context(), &url.URL{Scheme: scheme, Host: "localhost"}, w.ca.Client("localhost"))
	require.NoError(w, err)
	w.Cleanup(func() { _ = l.CloseWithCode(mqtt.LinkNormal) })
	return l
}

// client connects with a scheme and sends CONNECT.
func (w *world) client(scheme, id string) *rawClient {
	w.Helper()
	return connected(w, w.link(scheme), id)
}

// A rawClient is a Link with a control stream, packet by packet.
type rawClient struct {
	t      testing.TB
	link   mqtt.Link
	stream mqtt.Stream
	in     *mqtt.Reader
}

func newClient(t testing.TB, l mqtt.Link) *rawClient {
	t.Helper()
	s, err := l.OpenStream(t.Context())
	require.NoError(t, err)
	require.Equal(t, mqtt.ControlStream, s.ID())
	return &rawClient{t, l, s, mqtt.NewReader(s, 0)}
}

func connected(t testing.TB, l mqtt.Link, id string) *rawClient {
	t.Helper()
	c := newClient(t, l)
	c.send(&packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true})
	require.Equal(t, packet.Success, receive[*packet.Connack](c).Code)
	return c
}

func encode(t testing.TB, pks ...packet.Packet) (b []byte) {
	t.Helper()
	for _, pk := range pks {
		var err error
		b, err = pk.Append(b, packet.V5)
		require.NoError(t, err)
	}
	return b
}

func (c *rawClient) send(pks ...packet.Packet) {
	c.t.Helper()
	_, err := c.stream.Write(encode(c.t, pks...))
	require.NoError(c.t, err)
}

// receive expects a packet of a type.
func receive[P packet.Packet](c *rawClient) P {
	c.t.Helper()
	h, body, err := c.in.Next()
	require.NoError(c.t, err)
	pk, err := packet.Decode(h, body, packet.V5)
	require.NoError(c.t, err)
	p, ok := pk.(P)
	require.True(c.t, ok, "got %T", pk)
	return p
}

func (c *rawClient) subscribe(filter string) {
	c.t.Helper()
	c.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: filter, QoS: 1}}})
	require.Equal(c.t, packet.GrantedQoS1, receive[*packet.Suback](c).Codes[0])
}

func (c *rawClient) ping() {
	c.t.Helper()
	c.send(new(packet.Pingreq))
	receive[*packet.Pingresp](c)
}

// message expects a PUBLISH.
func (c *rawClient) message(topic, payload string) {
	c.t.Helper()
	m := receive[*packet.Publish](c)
	require.Equal(c.t, topic, m.Topic)
	require.Equal(c.t, payload, string(m.Payload))
}

// What goes over the wire, byte by byte.

func varints(vv ...uint64) (b []byte) {
	for _, v := range vv {
		b = http3.AppendVarint(b, v)
	}
	return b
}

func frame(typ uint64, payload []byte) []byte {
	return append(varints(typ, uint64(len(payload))), payload...)
}

func headers(kv ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(kv); i += 2 {
		_ = e.WriteField(qpack.HeaderField{Name: kv[i], Value: kv[i+1]})
	}
	return frame(0x1, b.Bytes())
}

// A browser speaks byte by byte what Chromium was seen to say: the settings and
// header fields of draft-02, and no application protocol.
type browser struct {
	t    testing.TB
	conn transport.Conn
}

func newBrowser(t testing.TB, conn transport.Conn) *browser {
	t.Helper()
	s, err := conn.OpenUniStream(t.Context())
	require.NoError(t, err)
	_, err = s.Write(append(varints(0), frame(0x4, varints(0x1, 0, 0x6, 262144, 0x7, 0, 0x33, 1, 0xffd277, 1, 0x2b603742, 1, 0x1f*7+0x21, 99))...))
	require.NoError(t, err)
	return &browser{t, conn}
}

// session asks for a session from a page of an origin and returns its number and
// the status of the answer.
func (b *browser) session(authority, origin string) (id uint64, status string) {
	b.t.Helper()
	s := b.stream(headers(":method", "CONNECT", ":scheme", "https", ":authority", authority, ":path", mqttweb.Path,
		":protocol", "webtransport", "sec-webtransport-http3-draft02", "1", "origin", origin))
	r := byteReader{s}
	typ, err := http3.ReadVarint(r)
	require.NoError(b.t, err)
	require.EqualValues(b.t, 1, typ)
	n, err := http3.ReadVarint(r)
	require.NoError(b.t, err)
	head := make([]byte, n)
	_, err = io.ReadFull(s, head)
	require.NoError(b.t, err)
	f, err := qpack.NewDecoder().Decode(head)()
	require.NoError(b.t, err)
	require.Equal(b.t, ":status", f.Name)
	return uint64(s.StreamID()), f.Value
}

// stream opens a stream that begins with p.
func (b *browser) stream(p []byte) transport.Stream {
	b.t.Helper()
	s, err := b.conn.OpenStream(b.t.Context())
	require.NoError(b.t, err)
	_, err = s.Write(p)
	require.NoError(b.t, err)
	return s
}

type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(r, p[:])
	return p[0], err
}

// on returns a client on a stream that is open.
func (b *browser) on(s transport.Stream) *rawClient {
	return &rawClient{t: b.t, stream: rawStream{s}, in: mqtt.NewReader(s, 0)}
}

// A rawStream is a QUIC stream as a mqtt.Stream.
type rawStream struct{ transport.Stream }

func (s rawStream) ID() mqtt.StreamID { return mqtt.StreamID(s.StreamID()) }
func (s rawStream) CloseWrite() error { return s.Stream.Close() }
func (s rawStream) Abandoned() error  { return nil }
func (s rawStream) Reset(code uint64) { s.CancelWrite(transport.ErrorCode(code)) }

// A site is a broker on loopback: TCP, WebSocket over HTTP/1.1 and HTTP/2, and, by
// an engine, HTTP/3.
type loopback struct {
	broker   *broker.Broker
	listener *mqttweb.Listener
	tcp, web string // addresses; web is with TLS, for TCP and UDP
	plain    string
	h3       string      // empty without an engine
	tls      *tls.Config // of clients
}

func newLoopback(t *testing.T, e transport.Transport, cfg *mqttweb.ListenConfig, bc *broker.Config) *loopback {
	t.Helper()
	b, err := broker.New(bc)
	require.NoError(t, err)
	s := &loopback{broker: b, listener: mqttweb.NewListener(cfg)}
	server, clientTLS := testcert.New()
	s.tls = clientTLS
	mux := http.NewServeMux()
	mux.Handle(mqttweb.Path, s.listener)
	var serving sync.WaitGroup
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return l
	}
	mqttTCP, web, plain := listen(), listen(), listen()
	s.tcp, s.web, s.plain = mqttTCP.Addr().String(), web.Addr().String(), plain.Addr().String()
	secure, insecure := &http.Server{Handler: mux, TLSConfig: server.Clone()}, &http.Server{Handler: mux}
	closeH3 := func() error { return nil }
	if e != nil {
		h3 := &http3.Server{Handler: mux, TLS: server}
		h3.Transport, h3.Extensions = mqttweb.ServerConfig(&transport.Config{HandshakeTimeout: patience})
		tc, err := h3.TransportConfig()
		require.NoError(t, err)
		pc, err := net.ListenPacket("udp", "127.0.0.1:0") // the number of the TCP port may be taken
		require.NoError(t, err)
		s.h3 = pc.LocalAddr().String()
		ep, err := e.Open(pc, nil)
		require.NoError(t, err)
		ln, err := ep.Listen(tc)
		require.NoError(t, err)
		serving.Go(func() { _ = h3.Serve(ln) }) // ends with Close
		closeH3 = func() error { return errors.Join(h3.Close(), ep.Close()) }
	}
	serving.Go(func() { _ = b.Serve(mqttTCP, mqtt.TCP) })   // ends with the broker
	serving.Go(func() { _ = b.ServeLinks(s.listener) })     // ends with the broker
	serving.Go(func() { _ = secure.ServeTLS(web, "", "") }) // ends with Close
	serving.Go(func() { _ = insecure.Serve(plain) })        // ends with Close
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, errors.Join(b.Close(), s.listener.Wait(ctx)))
		require.NoError(t, errors.Join(secure.Close(), insecure.Close(), closeH3()))
		serving.Wait()
	})
	return s
}

// url is where a scheme leads to.
func (s *loopback) url(scheme string) *url.URL {
	host := s.h3
	switch scheme {
	case "ws":
		host = s.plain
	case "wss", "wss+h2":
		host = s.web
	}
	return &url.URL{Scheme: scheme, Host: host, Path: mqttweb.Path}
}

// onEveryVersion runs f with a scheme for WebSocket on each version of HTTP, by
// every engine.
func onEveryVersion(t *testing.T, f func(t *testing.T, e transport.Transport, scheme string)) {
	for _, scheme := range []string{"ws", "wss", "wss+h2"} {
		t.Run(scheme, func(t *testing.T) { f(t, nil, scheme) })
	}
	for _, e := range engine.All() {
		t.Run(fmt.Sprint("wss+h3-", e.Name()), func(t *testing.T) { f(t, e, "wss+h3") })
	}
}
