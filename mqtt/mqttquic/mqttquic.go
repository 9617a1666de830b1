// Package mqttquic carries MQTT over QUIC: it makes an [mqtt.Link] of a
// [transport.Conn].
//
// The protocol is the one that EMQX defined and that its clients and others
// speak. It has no standard: the ALPN token is "mqtt", the usual UDP port 14567,
// and a stream carries MQTT packets exactly as TCP does. The client's first
// bidirectional stream, stream 0, is the control stream; its life is the life of
// the MQTT connection. Only the client opens streams. Unidirectional streams and
// datagrams are not part of it: a [Listener] and a [Dialer] grant none.
//
//	server: Listen -> Listener.Accept -> Link.AcceptStream    for a broker
//	client: Dialer.DialLink           -> Link.OpenStream      for package mqtt/client
//	        Dialer.DialConn, DialURL  -> net.Conn             for any other MQTT library
//
// The QUIC engine is a [transport.Transport] that the caller chooses; nothing
// here depends on which it is. A UDP port can be shared with other protocols, which
// clients choose by ALPN: a Listener serves them with [ListenConfig.Others], and
// [Wrap] makes a Link of a connection that was accepted elsewhere.
//
// # How a connection ends
//
// A QUIC connection that is closed discards what the peer has not acknowledged.
// Whoever writes a last packet therefore closes the stream, waits for the peer to
// close it as well, for a second at most, and closes the connection after that.
// The net.Conn of a Dialer does so in the background.
//
// # When a peer is dead
//
// MQTT's keep-alive decides, as [MQTT-3.1.2-22] demands. QUIC's idle timeout is
// fixed by the handshake, before the keep-alive is known, so it is long, and PING
// frames keep a connection up whose MQTT keep-alive is longer still: as long as
// the peer's host answers, QUIC does not end the connection. What remains for
// the idle timeout is the peer that vanished without having asked for an MQTT
// keep-alive.
package mqttquic

import "time"

// ALPN is the application protocol that client and server negotiate
// (RFC 9000, Section 7; RFC 7301).
const ALPN = "mqtt"

// Port is the usual UDP port.
const Port = 14567

const (
	// defaultStreamWindow and defaultConnWindow are what a peer may have sent
	// that is not yet read, in bytes. 1 MiB a stream is 20 MB/s at 50 ms; a
	// broker that stops reading a publisher holds no more than that for it.
	defaultStreamWindow = 1 << 20
	defaultConnWindow   = 2 << 20

	// defaultIdleTimeout is above 1.5 times the keep-alive of all but unusual
	// clients; for those keepAlive keeps the connection up.
	defaultIdleTimeout = 10 * time.Minute

	// serverKeepAlive leaves two PINGs, with their retransmissions, within the
	// idle timeout, and sends none to clients whose own keep-alive is shorter.
	serverKeepAlive = 4 * time.Minute

	// clientKeepAlive keeps the state of most middleboxes alive, which is
	// what lets the server reach the client (RFC 9000, Section 10.1.2).
	clientKeepAlive = 25 * time.Second

	// minStreams is what clients of this protocol count on, the control stream
	// included.
	minStreams = 10
)
