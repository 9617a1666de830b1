package mqttweb

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/internal/acceptqueue"
	"github.com/anyquic/anyquic/internal/tcpqueue"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
)

// A ListenConfig configures a [Listener]. It must not be modified after use.
type ListenConfig struct {
	// Origins are the other origins whose pages may connect, as in
	// [webtransport.AcceptOptions]: "https://example.com:8443", "example.com" for
	// https and its usual port, "*.example.com", or "*" for every page there is.
	// Pages of the request's own host always may, and clients that are no
	// browsers.
	Origins []string
}

// A Listener is a http.Handler that answers requests for MQTT, and the
// [mqtt.LinkListener] that a broker gets the Links from:
//
//	l := mqttweb.NewListener(nil)
//	mux.Handle(mqttweb.Path, l)
//	go b.ServeLinks(l)
//
// The HTTP server must not have timeouts that end a WebSocket over HTTP/2; over
// other versions they do not count. For WebTransport it must be configured with
// [ServerConfig].
type Listener struct {
	origins []string
	ws      websocket.AcceptOptions
	handler http.Handler // serve, without what may be a replay
	queue   *acceptqueue.Queue[mqtt.Link]

	mu     sync.Mutex
	closed bool           // guarded by mu
	links  sync.WaitGroup // that are not over yet; Add only under mu while not closed
}

// NewListener returns a Listener. A nil cfg is the zero ListenConfig.
func NewListener(cfg *ListenConfig) *Listener {
	if cfg == nil {
		cfg = new(ListenConfig)
	}
	l := &Listener{origins: cfg.Origins}
	l.ws.Subprotocols = subprotocols
	l.ws.OriginPatterns, l.ws.AnyOrigin = websocketOrigins(cfg.Origins)
	l.handler = http3.RejectEarly(http.HandlerFunc(l.serve))
	l.queue = acceptqueue.New(func(link mqtt.Link, why acceptqueue.Reason) {
		code := mqtt.LinkNormal
		if why == acceptqueue.Full {
			code = mqtt.LinkOverloaded
		}
		_ = link.CloseWithCode(code)
	})
	return l
}

// subprotocols are those of WebSocket: [MQTT-6.0.0-3], [MQTT-6.0.0-4], and what
// clients of MQTT 3.1 ask for.
var subprotocols = []string{"mqtt", "mqttv3.1"}

// ServeHTTP answers a request for a WebSocket or a WebTransport session. Unless it
// came over HTTP/2, whose streams end with their handler, it returns before the
// Link ends.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.handler.ServeHTTP(w, r) }

func (l *Listener) serve(w http.ResponseWriter, r *http.Request) {
	if !l.begin() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	over := l.links.Done
	if l.queue.Full() {
		over()
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	if webtransport.IsRequest(r) {
		s, err := webtransport.Accept(w, r, &webtransport.AcceptOptions{Origins: l.origins, Protocols: []string{mqttquic.ALPN}})
		if err != nil {
			over()
			return // Accept has answered
		}
		context.AfterFunc(s.Context(), func() {
			<-s.Finished()
			over()
		})
		l.queue.Deliver(newSessionLink(s, true))
		return
	}
	l.serveWebSocket(w, r, over)
}

func (l *Listener) serveWebSocket(w http.ResponseWriter, r *http.Request, over func()) {
	var raw net.Conn
	if r.ProtoMajor == 1 {
		w = &hijacker{ResponseWriter: w, conn: &raw}
	}
	ws, err := websocket.Accept(w, r, &l.ws)
	if err != nil {
		over()
		return // Accept has answered
	}
	link := newSocketLink(ws, r.TLS, raw, over)
	link.goingAway = l.isClosed
	if ws.Subprotocol() == "" {
		link.close(websocket.StatusPolicyViolation, "subprotocol mqtt is required")
	} else {
		tcpqueue.Limit(raw)
		l.queue.Deliver(link)
	}
	if r.ProtoMajor == 2 {
		<-ws.Context().Done()
	}
}

// A hijacker remembers the connection that is taken from the server of HTTP/1.1.
type hijacker struct {
	http.ResponseWriter
	conn *net.Conn
}

func (h *hijacker) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	*h.conn = conn
	return conn, rw, err
}

// begin counts a Link that may come of a request. It reports false after Close.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.links.Add(1)
	return true
}

func (l *Listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Accept returns the next Link. Its handshake is complete; its first stream may
// come late or never.
func (l *Listener) Accept(ctx context.Context) (mqtt.Link, error) { return l.queue.Accept(ctx) }

// Addr returns an address without a place: that is the HTTP server's to know.
func (l *Listener) Addr() net.Addr { return handlerAddr{} }

type handlerAddr struct{}

func (handlerAddr) Network() string { return "http" }
func (handlerAddr) String() string  { return Path }

// Close stops accepting: requests are answered with 503 and Accept returns an error
// matching [net.ErrClosed]. Links live on; clients on WebSocket whose Links end
// normally from now on are told that the server goes away.
func (l *Listener) Close() error {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if !was {
		l.queue.Close()
	}
	return nil
}

// Wait returns when every Link has ended and its client knows, or has been given
// up. Close must be called before. If ctx is done first it returns ctx.Err(), and
// what goes on ends with the HTTP server's connections.
func (l *Listener) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last Link
		l.links.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
