// Package mqttweb carries MQTT over what a browser has: WebSocket, on every version
// of HTTP, and WebTransport. It makes a [mqtt.Link] of each.
//
//	server: Listener, which is a http.Handler -> Listener.Accept -> Link    for a broker
//	client: Dialer.DialLink                   -> Link.OpenStream            for package mqtt/client
//
// One handler, usually at [Path], answers both: what a request asks for decides.
//
// # WebSocket
//
// MQTT 5, Section 6, says how: messages are binary, packets may span them, and the
// subprotocol is "mqtt", or "mqttv3.1" for clients of 3.1. The handshake is an
// Upgrade in HTTP/1.1 and an extended CONNECT in HTTP/2 (RFC 8441) and HTTP/3
// (RFC 9220). The Close frame says why a Link ended: 1000 for a normal end, 1001
// when the server goes away, 1002 when the control stream ended without a
// DISCONNECT or broke the protocol, 1013 when there is no room.
//
// # WebTransport
//
// There is no standard: it is MQTT over QUIC, as package mqttquic has it, within a
// session. The client's first bidirectional stream is the control stream, further
// ones are data streams; the server opens none. The application protocol "mqtt" is
// offered and agreed on, but not required, as browsers cannot all offer one. The
// session is closed with the [mqtt.LinkCode]. Unidirectional streams and datagrams
// are not part of it: they are never read, and wait within the connection's limits
// until the session ends.
//
// # Limits
//
// [ServerConfig] has the limits for an HTTP/3 server that carries MQTT.
package mqttweb

import (
	"time"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport"
)

// Path is the usual path.
const Path = "/mqtt"

const (
	// The timeouts and windows are for a connection that may be silent as long as
	// MQTT's keep-alive allows, and are explained in package mqttquic.
	idleTimeout     = 10 * time.Minute
	serverKeepAlive = 4 * time.Minute
	clientKeepAlive = 25 * time.Second
	streamWindow    = 1 << 20 // bytes
	connWindow      = 2 << 20 // bytes

	// maxUniStreams is what HTTP/3 needs for its own streams, and some for those
	// that only serve to be ignored (RFC 9114, Section 6.2.3).
	maxUniStreams = 8

	// maxSessions is how many WebTransport sessions may share a connection.
	maxSessions = 16

	// lingerTimeout bounds what follows the end of a Link: that the peer hears
	// of it.
	lingerTimeout = time.Second
)

// ServerConfig returns what a http3.Server, or an allhttp.Server, needs in its
// fields Transport or QUIC, and Extensions, to carry MQTT: timeouts that leave it
// to MQTT when a client is dead, and WebTransport. Fields of cfg that are set stay
// as they are. A nil cfg is the zero Config.
func ServerConfig(cfg *transport.Config) (*transport.Config, http3.Extensions) {
	c := withDefaults(cfg)
	if c.KeepAlive == 0 {
		c.KeepAlive = serverKeepAlive
	}
	s := &http3.Server{Transport: c}
	webtransport.ConfigureServer(s, &webtransport.Config{MaxSessions: maxSessions})
	return s.Transport, s.Extensions
}

// withDefaults returns a copy of cfg, with what both sides set if it is not.
func withDefaults(cfg *transport.Config) *transport.Config {
	c := new(transport.Config)
	if cfg != nil {
		*c = *cfg
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = idleTimeout
	}
	if c.MaxUniStreams == 0 {
		c.MaxUniStreams = maxUniStreams
	}
	if c.StreamWindow == 0 {
		c.StreamWindow = streamWindow
	}
	if c.ConnWindow == 0 {
		c.ConnWindow = connWindow
	}
	return c
}

// SharedPort returns what makes a [mqttquic.Listener] serve HTTP/3, by s, on its
// UDP port, beside MQTT over QUIC. Of s the fields Transport and TLS are not used,
// and Extensions are those of [ServerConfig], or of no use to WebTransport.
func SharedPort(s *http3.Server) mqttquic.Protocol {
	return mqttquic.Protocol{
		ALPN:          http3.ALPN,
		Serve:         func(c transport.Conn) { _ = s.ServeConn(c) }, // it was logged, or is the client's affair
		MaxUniStreams: maxUniStreams,
		Datagrams:     true,
	}
}
