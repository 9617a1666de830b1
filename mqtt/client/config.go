package client

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A LinkDialer connects to servers over carriers that this package does not have
// itself: it has TCP and TLS. mqttquic.Dialer is one for QUIC, mqttweb.Dialer one
// for WebSocket and WebTransport.
type LinkDialer interface {
	// Scheme says how the URLs look that start with a name, in lower case. It
	// reports false for a name that is not the dialer's.
	Scheme(name string) (s mqtt.Scheme, ok bool)

	// DialLink connects to the server of a URL that is as Scheme says, but for
	// the port, which may be missing, and returns after the carrier's handshake.
	// The dialer may change u and tlsConfig, which has a ServerName.
	DialLink(ctx context.Context, u *url.URL, tlsConfig *tls.Config) (mqtt.Link, error)
}

// A Config says how to connect, and what to do with what arrives. Only URL or URLs
// must be set: zero values are defaults, negative ones mean none. Dial copies it;
// what it points to must not be modified while the Client lives.
type Config struct {
	// URL names carrier and server:
	//
	//	mqtt://host:1883         TCP                    (also tcp://)
	//	mqtts://host:8883        TLS                    (also ssl://, tls://)
	//	mqtt+quic://host:14567   QUIC                   (also mqtt-quic://)
	//	ws://host:80/mqtt        WebSocket
	//	wss://host:443/mqtt      WebSocket on TLS
	//	wss+h2://host:443/mqtt   WebSocket on HTTP/2
	//	wss+h3://host:443/mqtt   WebSocket on HTTP/3
	//	mqtt+wt://host:443/mqtt  WebTransport
	//
	// All but the first two need Dialers. Ports and the path shown are those
	// used if it names none. Credentials have fields of their own; a URL that
	// contains some is refused, because URLs end up in logs.
	URL string

	// URLs are other ways to the server, or to others that are as good: QUIC,
	// and TLS and WebSocket for networks that let no UDP through. URL, if it is
	// not empty, is the first of them. An attempt to connect starts with the
	// first; when that has not completed the handshake of its carrier within
	// RaceDelay, or has failed, the next one starts as well, and so on. The
	// first to complete it is used, alone sends CONNECT, and ends the others.
	URLs []string

	// RaceDelay is the head start of each URL. Default 300ms; negative: none.
	RaceDelay time.Duration

	// RaceMemory is how long those that were too slow, while another URL
	// worked, come last in later attempts. Default 5m; negative: never.
	RaceMemory time.Duration

	// FollowServerReference connects to the server that a CONNACK or DISCONNECT
	// names with "use another server", for one connection, or "server moved",
	// for good (MQTT 5, Section 4.11); with the scheme, path and query of the URL
	// in use, and so never without TLS in place of with it. User name and
	// password go there. Otherwise a server that has moved ends the Client, and
	// "use another server" is answered with a later attempt at the same.
	FollowServerReference bool

	// TLS is for all carriers that have it. If nil, the server is verified with
	// the system's roots. An empty ServerName is the URL's host. A
	// ClientSessionCache lets TLS on TCP resume; the Dialers of QUIC have a field
	// for theirs. Package tickets keeps both in a file.
	TLS *tls.Config

	// Dialers connect over carriers beyond TCP and TLS. The first that has the
	// scheme of the URL is used.
	Dialers []LinkDialer

	// Dial, if not nil, opens the network connections of TCP and TLS, for proxies
	// and Unix sockets. It returns a connection without TLS, which the client
	// adds as the URL demands.
	Dial func(ctx context.Context, u *url.URL) (net.Conn, error)

	// ConnectTimeout bounds one attempt to connect, from the name to the
	// CONNACK. Default 30s. The context of [Dial] bounds the first one as well.
	ConnectTimeout time.Duration

	Version packet.Version // default V5

	// ClientID names the session. If empty, the server assigns an id (MQTT 5
	// and 3.1.1 with CleanStart) or the client invents one (3.1). It then
	// keeps it when it reconnects.
	ClientID string

	// CleanStart discards a session that the server has for ClientID. On
	// MQTT 5 it counts for the first connection only; on 3.x it also means
	// that the session ends with each connection.
	CleanStart bool

	// KeepAlive is how long the connection may be silent, in whole seconds,
	// before a PINGREQ asks whether it still works. Default 60s. The server
	// may decide otherwise.
	KeepAlive time.Duration

	// SessionExpiry is how long the server keeps the session after the
	// connection is lost, in whole seconds (MQTT 5). Default 0: not at all.
	// NeverExpires and more is for ever.
	SessionExpiry time.Duration

	// ReceiveMaximum bounds the QoS 1 and 2 messages that the server may send
	// without having got their acknowledgement (MQTT 5). Default 1024.
	ReceiveMaximum uint16

	// MaximumPacketSize is the largest packet the client accepts, in bytes,
	// on all versions. Default 16 MiB.
	MaximumPacketSize uint32

	// TopicAliasMaximum is how many topic aliases the server may use. Default 64;
	// negative: none.
	TopicAliasMaximum int

	// TopicAliases is how many topic aliases the client may use, if the server
	// accepts that many: the first topics published with QoS 0 get one. Default
	// none.
	TopicAliases uint16

	Username string
	// Password is sent if it is not nil. MQTT 3.x demands a Username with it.
	Password []byte

	// Auth proves who the client is by AUTH, on each connection (MQTT 5). Username
	// and Password may be empty with it. See [Client.Reauthenticate].
	Auth Authenticator

	// Will is published by the server when the connection ends without
	// [Client.Disconnect].
	Will *packet.Will

	// Bridge says that the client is a bridge between brokers (MQTT 3.x). Its
	// subscriptions then have what MQTT 5 calls No Local and Retain As Published,
	// if the server knows bridges; if not it refuses the connection with
	// packet.UnsupportedProtocolVersion.
	Bridge bool

	// UserProperties go with CONNECT (MQTT 5).
	UserProperties []packet.UserProperty

	// OnMessage handles the messages of subscriptions without a handler, and
	// those that belong to none. If nil they are acknowledged and dropped.
	// Messages with QoS 1 and 2 are acknowledged when it returns.
	OnMessage func(*packet.Publish)

	// OnConnect is called after each successful connection, with the server's
	// answer.
	OnConnect func(*packet.Connack)

	// OnDisconnect is called after each lost connection, with the reason.
	// Nil means that Disconnect or Close ended it.
	OnDisconnect func(error)

	Reconnect Backoff

	// InflightMax bounds the QoS 1 and 2 messages that are sent and not
	// acknowledged, below what the server allows. Default 1024.
	InflightMax int

	// QueueBytes bounds the QoS 1 and 2 messages that are not acknowledged, and
	// those with QoS 0 in the queue, in bytes; a file is at most twice as large
	// and 1 MiB more. Default 4 MiB.
	QueueBytes int

	// Queue says what becomes of messages that cannot be sent at once, and where
	// they are kept.
	Queue Queue

	// Streams says which streams are used on carriers that have several. Default
	// Control.
	Streams StreamPolicy

	// EarlyData lets CONNECT travel with the first packets of a connection that
	// resumes a TLS session, on a carrier whose dialer has early data. Whoever
	// records them can send them again, and a server may let that take effect: it
	// must be one that does not, as ours.
	EarlyData bool

	// Logger gets connections, their loss and what the client tolerates. If
	// nil nothing is logged.
	Logger *slog.Logger
}

// NeverExpires is a SessionExpiry without end (MQTT 5, Section 3.1.2.11.2).
const NeverExpires = time.Duration(0xFFFFFFFF) * time.Second

// A Backoff says when a client connects again. The first delay is Min; each
// failure doubles it up to Max. The time that passes is between half of it and
// all of it, at random, so that the clients of a server that comes back do not
// arrive together. A connection that lasts ten seconds ends the count. A server that
// says it is busy, or that the client asks too much of it, gets eight times Min at
// least.
type Backoff struct {
	Min time.Duration // default 1s
	Max time.Duration // default 2m, or Min if that is more

	// MaxAttempts is how many attempts may fail in a row before the client
	// gives up. Default no limit.
	MaxAttempts int

	// Disabled means that the client ends with its first connection.
	Disabled bool

	// Retry decides from the reason, why a connection ended or an attempt
	// failed, whether to try again. Default [Retryable].
	Retry func(error) bool
}

const (
	defaultConnectTimeout    = 30 * time.Second
	defaultRaceDelay         = 300 * time.Millisecond
	defaultRaceMemory        = 5 * time.Minute
	defaultKeepAlive         = 60 * time.Second
	defaultReceiveMaximum    = 1024
	defaultMaximumPacketSize = 16 << 20
	defaultTopicAliasMaximum = 64
	defaultInflightMax       = 1024
	defaultQueueBytes        = 4 << 20
	defaultBackoffMin        = time.Second
	defaultBackoffMax        = 2 * time.Minute
)
