package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// openLink connects to the server as the URL demands, up to the end of the
// carrier's handshake.
func (c *Client) openLink(ctx context.Context) (mqtt.Link, error) {
	switch c.target.carrier {
	case mqtt.TCP:
		conn, err := c.dialConn(ctx)
		if err != nil {
			return nil, err
		}
		return mqtt.NewConnLink(conn, mqtt.TCP), nil
	case mqtt.TLS:
		conn, err := c.dialConn(ctx)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(conn, c.tlsConfig())
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return mqtt.NewConnLink(tc, mqtt.TLS), nil
	case mqtt.WebSocket, mqtt.WSS:
		return c.dialWebSocket(ctx)
	default:
		return c.cfg.QUIC.DialLink(ctx, c.target.addr, c.tlsConfig())
	}
}

func (c *Client) dialConn(ctx context.Context) (net.Conn, error) {
	if c.cfg.Dial != nil {
		u := *c.target.url
		return c.cfg.Dial(ctx, &u)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", c.target.addr)
}

func (c *Client) tlsConfig() *tls.Config {
	if c.cfg.TLS == nil {
		return &tls.Config{ServerName: c.target.host}
	}
	conf := c.cfg.TLS.Clone()
	if conf.ServerName == "" {
		conf.ServerName = c.target.host
	}
	return conf
}

// subprotocols are what client and server negotiate on WebSocket ([MQTT-6.0.0-3]).
// MQTT 3.1 has one of its own, which not every server of 3.1 insists on.
func subprotocols(v packet.Version) []string {
	if v == packet.V31 {
		return []string{"mqttv3.1", "mqtt"}
	}
	return []string{"mqtt"}
}

func (c *Client) dialWebSocket(ctx context.Context) (mqtt.Link, error) {
	var raw atomic.Pointer[net.Conn]
	t := &http.Transport{
		// A Transport of its own: no proxy from the environment, no HTTP/2,
		// and a connection that nobody shares.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.dialConn(ctx)
			if err == nil {
				raw.Store(&conn)
			}
			return conn, err
		},
		TLSClientConfig: c.webSocketTLS(),
	}
	defer t.CloseIdleConnections()
	ws, resp, err := websocket.Dial(ctx, c.target.url.String(), &websocket.DialOptions{ //nolint:bodyclose // it is closed, or the connection's
		HTTPClient: &http.Client{
			Transport: t,
			// The credentials of CONNECT are for the server of the URL.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols: subprotocols(c.cfg.Version),
	})
	if err != nil {
		// The query of the URL may be a credential, and errors end up in logs.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = fmt.Errorf("websocket: %w", e.Err)
		}
		return nil, err
	}
	if ws.Subprotocol() == "" {
		return nil, errors.Join(errors.New("websocket: the server does not speak the subprotocol mqtt"), ws.CloseNow())
	}
	// [MQTT-6.0.0-1]: binary frames; packets need not fit the frames.
	w := &wsConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws}
	if p := raw.Load(); p != nil {
		w.local, w.remote = (*p).LocalAddr(), (*p).RemoteAddr()
	}
	return &wsLink{mqtt.NewConnLink(w, c.target.carrier), resp.TLS}, nil
}

// A wsLink knows the TLS state beneath a WebSocket.
type wsLink struct {
	mqtt.Link
	tls *tls.ConnectionState // nil without TLS
}

func (l *wsLink) TLS() *tls.ConnectionState { return l.tls }

func (c *Client) webSocketTLS() *tls.Config {
	conf := c.tlsConfig()
	conf.NextProtos = []string{"http/1.1"} // RFC 6455 is for HTTP/1.1
	return conf
}

// A wsConn is a WebSocket as a net.Conn with real addresses. Close does not wait
// for the peer: after DISCONNECT it is the server that closes.
type wsConn struct {
	net.Conn
	ws            *websocket.Conn
	local, remote net.Addr
}

func (w *wsConn) LocalAddr() net.Addr  { return w.local }
func (w *wsConn) RemoteAddr() net.Addr { return w.remote }

func (w *wsConn) Close() error { return w.ws.CloseNow() }
