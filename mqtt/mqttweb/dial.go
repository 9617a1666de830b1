package mqttweb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http2"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

// schemes are those of the URLs that a Dialer takes.
var schemes = map[string]mqtt.Scheme{
	"ws":      {Carrier: mqtt.WebSocket, Port: "80", Path: Path},
	"wss":     {Carrier: mqtt.WSS, Port: "443", Path: Path},
	"wss+h2":  {Carrier: mqtt.WSSH2, Port: "443", Path: Path},
	"wss+h3":  {Carrier: mqtt.WSSH3, Port: "443", Path: Path},
	"mqtt+wt": {Carrier: mqtt.WebTransport, Port: "443", Path: Path},
}

// A Dialer connects to brokers over WebSocket and WebTransport. The zero Dialer
// does for ws, wss and wss+h2 URLs. Each Link has a connection of its own; proxies
// in the environment do not count, and redirects are not followed. It must not be
// modified after use, and can be used from any goroutine.
type Dialer struct {
	// Transport is the QUIC engine, for wss+h3 and mqtt+wt URLs.
	Transport transport.Transport

	// DialQUIC, if not nil, makes QUIC connections instead, as
	// [http3.Transport]'s Dial does.
	DialQUIC func(ctx context.Context, addr string, cfg *transport.Config) (transport.Conn, error)

	// QUIC configures QUIC connections, but for TLS. Nil, and fields that are
	// zero: the timeouts and windows of a [mqttquic.Dialer]. Its Sessions let
	// them resume; the ClientSessionCache of a tls.Config is for TCP.
	QUIC *transport.Config

	// NetDial, if not nil, opens the network connections for ws, wss and wss+h2
	// URLs, for proxies and Unix sockets. It returns a connection without TLS,
	// which the Dialer adds.
	NetDial func(ctx context.Context, u *url.URL) (net.Conn, error)

	// Header is sent with the request: a cookie, a token, an Origin.
	Header http.Header
}

// Scheme says how the URLs look that the Dialer connects to.
func (d *Dialer) Scheme(name string) (mqtt.Scheme, bool) {
	s, ok := schemes[strings.ToLower(name)]
	return s, ok
}

// DialLink connects to the server of a URL. A nil tlsConf is the zero Config; its
// NextProtos do not count. Errors do not repeat the URL, whose query may be a
// credential.
func (d *Dialer) DialLink(ctx context.Context, u *url.URL, tlsConf *tls.Config) (mqtt.Link, error) {
	s, ok := d.Scheme(u.Scheme)
	if !ok {
		return nil, fmt.Errorf("mqttweb: URL scheme %q", u.Scheme)
	}
	if s.Carrier == mqtt.WSSH3 || s.Carrier == mqtt.WebTransport {
		if d.Transport == nil && d.DialQUIC == nil {
			return nil, fmt.Errorf("mqttweb: neither Transport nor DialQUIC of the Dialer is set, which %s URLs need", u.Scheme)
		}
	}
	target := *u
	if target.Path == "" {
		target.Path = s.Path
	}
	target.Scheme = "https"
	if s.Carrier == mqtt.WebSocket {
		target.Scheme = "http"
	}
	if tlsConf == nil {
		tlsConf = new(tls.Config)
	}
	tlsConf = tlsConf.Clone()
	if tlsConf.ServerName == "" {
		tlsConf.ServerName = u.Hostname()
	}
	switch s.Carrier {
	case mqtt.WebTransport:
		return d.dialSession(ctx, &target, tlsConf)
	case mqtt.WSSH3:
		return d.dialSocketH3(ctx, &target, tlsConf)
	}
	return d.dialSocket(ctx, u, &target, tlsConf, s)
}

// http3Transport returns what makes a connection over QUIC.
func (d *Dialer) http3Transport(tlsConf *tls.Config) *http3.Transport {
	cfg := withDefaults(d.QUIC)
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = clientKeepAlive
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = -1 // a server opens no streams
	}
	tlsConf.ClientSessionCache = nil // cfg.Sessions is in its place; tlsConf is a copy
	return &http3.Transport{Engine: d.Transport, Dial: d.DialQUIC, TLS: tlsConf, Config: cfg}
}

func (d *Dialer) dialSession(ctx context.Context, target *url.URL, tlsConf *tls.Config) (mqtt.Link, error) {
	s, err := webtransport.Dial(ctx, d.http3Transport(tlsConf), target.String(), &webtransport.DialOptions{
		Header: d.Header, Protocols: []string{mqttquic.ALPN},
	})
	if err != nil {
		return nil, fmt.Errorf("mqttweb: %w", err)
	}
	return newSessionLink(s, false), nil
}

func (d *Dialer) dialSocketH3(ctx context.Context, target *url.URL, tlsConf *tls.Config) (mqtt.Link, error) {
	t := d.http3Transport(tlsConf)
	ws, err := d.handshake(ctx, target, t)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	state := ws.HTTP3().Transport().State().TLS
	return newSocketLink(ws, &state, nil, func() { _ = t.Close() }), nil // which does not fail
}

// dialSocket connects over TCP.
func (d *Dialer) dialSocket(ctx context.Context, u, target *url.URL, tlsConf *tls.Config, s mqtt.Scheme) (mqtt.Link, error) {
	var raw net.Conn // set by dial, before the handshake goes on
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		if d.NetDial != nil {
			original := *u
			conn, err = d.NetDial(ctx, &original)
		} else {
			var nd net.Dialer
			conn, err = nd.DialContext(ctx, network, addr)
		}
		return conn, err
	}
	var state *tls.ConnectionState
	dialTLS := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tc := tls.Client(conn, tlsConf)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		cs := tc.ConnectionState()
		if s.Carrier == mqtt.WSSH2 && cs.NegotiatedProtocol != http2.NextProtoTLS {
			return nil, errors.Join(errors.New("mqttweb: the server does not speak HTTP/2"), conn.Close())
		}
		state, raw = &cs, tc
		return tc, nil
	}
	var rt interface {
		http.RoundTripper
		CloseIdleConnections()
	}
	if s.Carrier == mqtt.WSSH2 {
		tlsConf.NextProtos = []string{http2.NextProtoTLS}
		rt = &http2.Transport{ //nolint:staticcheck // the one of net/http refuses extended CONNECT
			DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // see above
				return dialTLS(ctx, network, addr)
			},
		}
	} else {
		tlsConf.NextProtos = []string{"http/1.1"}
		rt = &http.Transport{
			// No proxy from the environment, no HTTP/2, and a connection that
			// nobody shares.
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err == nil {
					raw = conn
				}
				return conn, err
			},
			DialTLSContext: dialTLS,
		}
	}
	ws, err := d.handshake(ctx, target, rt)
	if err != nil {
		rt.CloseIdleConnections()
		return nil, err
	}
	return newSocketLink(ws, state, raw, rt.CloseIdleConnections), nil
}

// handshake asks for a WebSocket.
func (d *Dialer) handshake(ctx context.Context, target *url.URL, rt http.RoundTripper) (*websocket.Conn, error) {
	ws, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		Transport: rt, Header: d.Header, Subprotocols: subprotocols,
	})
	if err != nil {
		return nil, fmt.Errorf("mqttweb: %w", err)
	}
	if ws.Subprotocol() == "" {
		return nil, errors.Join(errors.New("mqttweb: the server does not speak the subprotocol mqtt"), ws.CloseNow())
	}
	return ws, nil
}
