// Package quicmeter counts what the QUIC connections of a listener do, for
// metrics. A [Meter] is a [transport.Transport] around another: what listens on it
// is counted, and works as it would without.
package quicmeter

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/internal/durations"
	"github.com/anyquic/anyquic/transport"
)

// A Meter counts for one listener. Make one with [New].
type Meter struct {
	transport.Transport
	listener string

	hellos, offered atomic.Uint64 // ClientHellos; those that offer early data
	took            durations.Counter
	failed          [len(Reasons)]atomic.Uint64

	mu        sync.Mutex
	endpoints []transport.Endpoint     // guarded by mu
	open      map[transport.Conn]*conn // guarded by mu
	past      Sums                     // guarded by mu: of connections that have ended
	ends      [len(EndReasons)]uint64  // guarded by mu
}

// A conn is what a Meter remembers of a connection.
type conn struct {
	remote     string // guarded by Meter.mu: where the peer was found last
	migrations uint64 // guarded by Meter.mu
}

// New returns a Meter around t. Listener is the name that Stats shows.
func New(t transport.Transport, listener string) *Meter {
	return &Meter{Transport: t, listener: listener, open: make(map[transport.Conn]*conn)}
}

// Reasons are why handshakes fail: the label's values.
var Reasons = [...]string{"timeout", "closed", "no_protocol", "certificate", "tls", "other"}

// Alerts of TLS (RFC 8446, Section 6) as QUIC's error codes (RFC 9001, Section 4.8).
const (
	firstAlert   = 0x100
	lastAlert    = 0x1ff
	noProtocol   = firstAlert + 120
	badCert      = firstAlert + 42 // and those up to unknown_ca, but for illegal_parameter
	lastBadCert  = firstAlert + 48
	illegalParam = firstAlert + 47
	certRequired = firstAlert + 116
)

// handshakeReason returns the index in Reasons for an error.
func handshakeReason(err error) int {
	if errors.Is(err, transport.ErrHandshakeTimeout) || errors.Is(err, transport.ErrIdleTimeout) {
		return 0
	}
	if _, ok := errors.AsType[*transport.ApplicationError](err); ok {
		return 1
	}
	p, ok := errors.AsType[*transport.ProtocolError](err)
	switch {
	case !ok || p.Code > lastAlert:
		return 5
	case p.Code == 0: // NO_ERROR (RFC 9000, Section 20.1)
		return 1
	case p.Code == noProtocol:
		return 2
	case p.Code >= badCert && p.Code <= lastBadCert && p.Code != illegalParam, p.Code == certRequired:
		return 3
	case p.Code >= firstAlert:
		return 4
	}
	return 5
}

// EndReasons are how connections end: the label's values.
var EndReasons = [...]string{"closed", "peer_closed", "idle_timeout", "stateless_reset", "error"}

func endReason(err error) int {
	if app, ok := errors.AsType[*transport.ApplicationError](err); ok {
		if app.Remote {
			return 1
		}
		return 0
	}
	switch {
	case errors.Is(err, transport.ErrIdleTimeout):
		return 2
	case errors.Is(err, transport.ErrStatelessReset):
		return 3
	}
	return 4
}

// Open opens a socket whose listeners are counted.
func (m *Meter) Open(pc net.PacketConn, opts *transport.Options) (transport.Endpoint, error) {
	var o transport.Options
	if opts != nil {
		o = *opts
	}
	also := o.HandshakeDone
	o.HandshakeDone = func(took time.Duration, reason error) {
		if reason == nil {
			m.took.Add(took)
		} else {
			m.failed[handshakeReason(reason)].Add(1)
		}
		if also != nil {
			also(took, reason)
		}
	}
	ep, err := m.Transport.Open(pc, &o)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endpoints = append(m.endpoints, ep)
	return &endpoint{Endpoint: ep, meter: m}, nil
}

type endpoint struct {
	transport.Endpoint
	meter *Meter
}

func (e *endpoint) Listen(cfg *transport.Config) (transport.Listener, error) {
	if cfg != nil && cfg.TLS != nil {
		c := *cfg
		c.TLS = e.meter.hear(cfg.TLS)
		cfg = &c
	}
	l, err := e.Endpoint.Listen(cfg)
	if err != nil {
		return nil, err
	}
	return &listener{l, e.meter}, nil
}

// extensionEarlyData is early_data (RFC 8446, Section 4.2.10).
const extensionEarlyData = 42

// hear returns a copy of cfg that counts ClientHellos, and answers them as cfg does.
func (m *Meter) hear(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	choose := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		m.hellos.Add(1)
		if slices.Contains(h.Extensions, extensionEarlyData) {
			m.offered.Add(1)
		}
		if choose == nil {
			return nil, nil
		}
		return choose(h)
	}
	return cfg
}

type listener struct {
	transport.Listener
	meter *Meter
}

func (l *listener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err == nil {
		l.meter.add(c)
	}
	return c, err
}

func (m *Meter) add(c transport.Conn) {
	m.mu.Lock()
	m.open[c] = &conn{remote: c.RemoteAddr().String()}
	m.mu.Unlock()
	context.AfterFunc(c.Context(), func() { m.ended(c) })
}

// ended adds what c has done to the past.
func (m *Meter) ended(c transport.Conn) {
	s, early := c.Stats(), c.State().EarlyData
	remote := c.RemoteAddr().String()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.open[c]
	delete(m.open, c)
	t.look(remote)
	m.past.add(&s, early, t.migrations)
	m.ends[endReason(context.Cause(c.Context()))]++
}

// look notes where the peer is.
func (t *conn) look(remote string) {
	if remote != t.remote {
		t.remote = remote
		t.migrations++
	}
}

// Sums are of all connections that were accepted. What a connection that has not
// ended has done so far is in them.
type Sums struct {
	PacketsSent, PacketsReceived, PacketsLost          uint64
	BytesSent, BytesReceived, BytesLost                uint64 // of UDP payload
	DatagramsSent, DatagramsReceived, DatagramsDropped uint64
	StreamsOpened, StreamsAccepted                     uint64
	EarlyData                                          uint64 // connections with accepted 0-RTT
	Migrations                                         uint64 // changes of a peer's address that Stats, or the end, found
}

func (t *Sums) add(s *transport.Stats, early bool, migrations uint64) {
	t.PacketsSent += s.PacketsSent
	t.PacketsReceived += s.PacketsReceived
	t.PacketsLost += s.PacketsLost
	t.BytesSent += s.BytesSent
	t.BytesReceived += s.BytesReceived
	t.BytesLost += s.BytesLost
	t.DatagramsSent += s.DatagramsSent
	t.DatagramsReceived += s.DatagramsReceived
	t.DatagramsDropped += s.DatagramsDropped
	t.StreamsOpened += s.StreamsOpened
	t.StreamsAccepted += s.StreamsAccepted
	t.Migrations += migrations
	if early {
		t.EarlyData++
	}
}

// Stats are the figures of a listener. Counters never go back.
type Stats struct {
	Listener string
	Endpoint transport.EndpointStats
	Sums

	Hellos      uint64              // handshakes that began with a ClientHello
	EarlyOffers uint64              // of them, with early data
	Took        durations.Histogram // handshakes that were completed
	Failed      map[string]uint64   // handshakes, by one of Reasons
	Ends        map[string]uint64   // connections, by one of EndReasons

	StreamsOpen      uint64          // now
	CongestionWindow uint64          // bytes, of all connections
	RTT              []time.Duration // smoothed, of each connection that is open, in order
}

// Stats returns the figures of this moment.
func (m *Meter) Stats() Stats {
	s := Stats{
		Listener: m.listener, Hellos: m.hellos.Load(), EarlyOffers: m.offered.Load(), Took: m.took.Histogram(),
		Failed: make(map[string]uint64, len(Reasons)), Ends: make(map[string]uint64, len(EndReasons)),
	}
	for i, r := range Reasons {
		s.Failed[r] = m.failed[i].Load()
	}
	m.mu.Lock()
	s.Sums = m.past
	for i, r := range EndReasons {
		s.Ends[r] = m.ends[i]
	}
	open := maps.Clone(m.open)
	endpoints := slices.Clone(m.endpoints)
	m.mu.Unlock()

	// A connection that ends from here on is in the sums once, with what it has
	// done by now.
	for c, t := range open {
		cs, early, remote := c.Stats(), c.State().EarlyData, c.RemoteAddr().String()
		m.mu.Lock()
		t.look(remote)
		migrations := t.migrations
		m.mu.Unlock()
		s.add(&cs, early, migrations)
		s.StreamsOpen += cs.StreamsOpen
		s.CongestionWindow += cs.CongestionWindow
		s.RTT = append(s.RTT, cs.SmoothedRTT)
	}
	slices.Sort(s.RTT)
	for _, ep := range endpoints {
		e := ep.Stats()
		s.Endpoint.ConnsOpen += e.ConnsOpen
		s.Endpoint.ConnsAccepted += e.ConnsAccepted
		s.Endpoint.ConnsRefused += e.ConnsRefused
		s.Endpoint.Retries += e.Retries
		s.Endpoint.PacketsDropped += e.PacketsDropped
	}
	return s
}
