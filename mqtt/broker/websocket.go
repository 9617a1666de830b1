package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	"github.com/anyquic/anyquic/mqtt"
)

// WebSocketHandler returns a handler that serves MQTT over WebSocket (MQTT 5,
// Section 6): the subprotocol is "mqtt", or "mqttv3.1" for clients of 3.1;
// messages are binary and packets may span them; a browser's page must come
// from the same host. The carrier is [mqtt.WSS] if the request came over TLS.
//
// The handler's server must not set timeouts that end a hijacked connection.
// Shutdown and Close of the Broker end the connections, not those of the server.
func (b *Broker) WebSocketHandler() http.Handler {
	return http.HandlerFunc(b.serveWebSocket)
}

func (b *Broker) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if b.isClosing() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	hijacker := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(hijacker, r, &websocket.AcceptOptions{
		Subprotocols:    []string{"mqtt", "mqttv3.1"}, // [MQTT-6.0.0-3], [MQTT-6.0.0-4]
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	if ws.Subprotocol() == "" {
		ws.Close(websocket.StatusPolicyViolation, "subprotocol mqtt is required")
		return
	}
	carrier := mqtt.WebSocket
	if r.TLS != nil {
		carrier = mqtt.WSS
	}
	tuneTCP(hijacker.conn)
	conn := &wsConn{
		// Messages are read as a stream, so that their size needs no limit of
		// its own: that of packets holds. One that is not binary ends the
		// connection [MQTT-6.0.0-1].
		Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary),
		ws:   ws,
		raw:  hijacker.conn,
	}
	_ = b.ServeLink(context.Background(), &wsLink{Link: mqtt.NewConnLink(conn, carrier), tls: r.TLS})
	conn.closing.Wait()
}

// A hijacker remembers the connection that is taken from the HTTP server.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijacker) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

// A wsConn is a WebSocket connection as a net.Conn that ends as a Link's must:
// Close at once and without waiting for the peer, CloseWrite with notice.
type wsConn struct {
	net.Conn
	ws      *websocket.Conn
	raw     net.Conn
	once    sync.Once
	closing sync.WaitGroup
}

func (c *wsConn) Close() error {
	if t, ok := c.raw.(*tls.Conn); ok {
		return t.NetConn().Close() // without an alert, which could block
	}
	return c.raw.Close()
}

// CloseWrite sends a Close frame, after which WebSocket allows no more data.
func (c *wsConn) CloseWrite() error {
	c.once.Do(func() {
		// Ends when the peer has answered or the connection is closed, which
		// is within the linger; the handler waits for it.
		c.closing.Go(func() { c.ws.Close(websocket.StatusNormalClosure, "") })
	})
	return nil
}

// wsLink adds to a Link what its TLS connection negotiated before the upgrade.
type wsLink struct {
	mqtt.Link
	tls *tls.ConnectionState
}

func (l *wsLink) TLS() *tls.ConnectionState { return l.tls }
