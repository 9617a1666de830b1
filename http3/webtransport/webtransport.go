// Package webtransport carries sessions of streams and datagrams between a
// client, often a browser, and a server over HTTP/3.
//
//	server: ConfigureServer once; Accept in a handler ─┐
//	                                                   ├─> Session -> streams, datagrams
//	client: Dial ──────────────────────────────────────┘
//
// A [Session] is started by an HTTP request, so that paths, headers, cookies and
// the Origin decide about it as about any other, and shares the connection with
// requests and other sessions. [Session.TransportConn] makes it a
// [transport.Conn]: what runs on QUIC runs on WebTransport as well.
//
// # Versions
//
// The protocol is an Internet-Draft whose versions differ in what is announced
// and asked for, but hardly in what follows. Both sides speak all that are in
// use, from draft-02, which browsers send, to draft-15, without being told to:
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15. Of the
// newer ones, flow control by session is not offered, and so not used; a
// session's streams are limited with the connection's. RESET_STREAM_AT is not
// asked for: a stream that is cancelled soon after it was opened may leave no
// trace at the peer.
//
// # Limits
//
// A session holds no more of the peer's data than the windows and stream limits
// of [transport.Config] allow. Streams that come before their session, which
// the network can bring about, wait for it for a short time; see [Config].
package webtransport

import (
	"maps"
	"time"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// A Config limits what the sessions of a connection hold. The zero value of a
// field means its default. It must not be modified after use.
type Config struct {
	// MaxSessions limits the sessions that one connection carries at once.
	// Default 16.
	MaxSessions int

	// MaxWaitingStreams limits, for each session and each kind, the peer's
	// streams that wait for AcceptStream or AcceptUniStream; more are rejected.
	// Default: as many as the peer may have open, by the limits in
	// transport.Config.
	MaxWaitingStreams int

	// MaxEarlyStreams limits the streams of a connection whose session is not
	// there yet, and EarlyTimeout how long one waits for it; then it is
	// rejected. What they hold is limited by the connection's window, of which
	// they give nothing back. Default 64 and 5s.
	MaxEarlyStreams int
	EarlyTimeout    time.Duration
}

const (
	defaultMaxSessions     = 16
	defaultMaxEarlyStreams = 64
	defaultEarlyTimeout    = 5 * time.Second
	defaultWaitingStreams  = 100 // of transport.Config
)

// withDefaults returns cfg, which may be nil, with every field set. qc is what
// connections are made with, or nil.
func (cfg *Config) withDefaults(qc *transport.Config) *Config {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if c.MaxSessions <= 0 {
		c.MaxSessions = defaultMaxSessions
	}
	if c.MaxEarlyStreams <= 0 {
		c.MaxEarlyStreams = defaultMaxEarlyStreams
	}
	if c.EarlyTimeout <= 0 {
		c.EarlyTimeout = defaultEarlyTimeout
	}
	if c.MaxWaitingStreams <= 0 {
		c.MaxWaitingStreams = defaultWaitingStreams
		if qc != nil {
			c.MaxWaitingStreams = int(max(defaultWaitingStreams, qc.MaxStreams, qc.MaxUniStreams))
		}
	}
	return &c
}

// ConfigureServer makes s announce and carry sessions; handlers get them with
// [Accept]. It must be called once, before the first method of s. A nil cfg is
// the zero Config. The other Extensions of s stay.
func ConfigureServer(s *http3.Server, cfg *Config) {
	s.Transport = withDatagrams(s.Transport)
	extend(&s.Extensions, cfg.withDefaults(s.Transport))
}

// ConfigureTransport makes the connections of t fit for sessions that share
// them: see [DialOptions]. It must be called once, before the first request. A
// nil cfg is the zero Config. The other Extensions of t stay.
func ConfigureTransport(t *http3.Transport, cfg *Config) {
	t.Config = withDatagrams(t.Config)
	extend(&t.Extensions, cfg.withDefaults(t.Config))
}

func withDatagrams(cfg *transport.Config) *transport.Config {
	var c transport.Config
	if cfg != nil {
		c = *cfg
	}
	c.Datagrams = true
	return &c
}

// extend adds this protocol to what is in ext.
func extend(ext *http3.Extensions, cfg *Config) {
	ext.Settings = with(ext.Settings, announced(cfg))
	ext.UniStreams = with(ext.UniStreams, map[uint64]func(*http3.Conn, transport.ReceiveStream){streamUni: acceptUni})
	ext.BidiStreams = with(ext.BidiStreams, map[uint64]func(*http3.Conn, transport.Stream){streamBidi: acceptBidi})
	newConn, connect := ext.NewConn, ext.ExtendedConnect
	ext.NewConn = func(c *http3.Conn) {
		if newConn != nil {
			newConn(c)
		}
		c.SetValue(registryKey{}, newRegistry(c, cfg))
	}
	ext.ExtendedConnect = chainConnect(connect)
}

func with[V any](m, more map[uint64]V) map[uint64]V {
	all := make(map[uint64]V, len(m)+len(more))
	maps.Copy(all, m)
	maps.Copy(all, more)
	return all
}
