package mqttquic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/transport"
)

// A ListenConfig configures a [Listener]. It must not be modified after use.
// In durations zero means the default and negative means none.
type ListenConfig struct {
	// TLS must be set and have a certificate. NextProtos is replaced by "mqtt",
	// in a copy, and in what GetConfigForClient returns.
	TLS *tls.Config

	// Options are those of the socket: MaxConns, RequireRetry, the keys.
	Options transport.Options

	// HandshakeTimeout bounds the handshake. Default 10s. The time a client
	// has from there to its CONNECT is the broker's to limit.
	HandshakeTimeout time.Duration

	// IdleTimeout ends a connection whose peer cannot be reached any more.
	// Default 10m. See the package documentation.
	IdleTimeout time.Duration

	// KeepAlive is the time without a packet from the client after which a
	// PING asks for one. Default 4m, and never more than half the IdleTimeout.
	// Without it a client whose MQTT keep-alive is off or longer than
	// IdleTimeout is lost when it has nothing to say.
	KeepAlive time.Duration

	// MaxStreams limits the streams a client may have open at once. Default
	// 16; at least 10, which clients of this protocol count on.
	MaxStreams int64

	// StreamWindow and ConnWindow limit, in bytes, what may arrive unread.
	// Default 1 MiB and 2 MiB.
	StreamWindow, ConnWindow int64

	// CongestionControl and QLog are those of [transport.Config].
	CongestionControl string
	QLog              func(connID []byte, client bool) io.WriteCloser
}

// transport returns what the engine is told.
func (c *ListenConfig) transport() (*transport.Config, error) {
	if c == nil || c.TLS == nil {
		return nil, errors.New("mqttquic: ListenConfig.TLS is not set: QUIC needs a certificate")
	}
	if len(c.TLS.Certificates) == 0 && c.TLS.GetCertificate == nil && c.TLS.GetConfigForClient == nil {
		return nil, errors.New("mqttquic: ListenConfig.TLS has no certificate")
	}
	if c.MaxStreams != 0 && c.MaxStreams < minStreams {
		return nil, fmt.Errorf("mqttquic: ListenConfig.MaxStreams is %d: clients count on %d", c.MaxStreams, minStreams)
	}
	cfg := &transport.Config{
		TLS:               serverTLS(c.TLS),
		HandshakeTimeout:  c.HandshakeTimeout,
		IdleTimeout:       orDefault(c.IdleTimeout, defaultIdleTimeout),
		KeepAlive:         orDefault(c.KeepAlive, serverKeepAlive),
		MaxStreams:        orDefault(c.MaxStreams, 16),
		MaxUniStreams:     -1,
		StreamWindow:      orDefault(c.StreamWindow, defaultStreamWindow),
		ConnWindow:        orDefault(c.ConnWindow, defaultConnWindow),
		CongestionControl: c.CongestionControl,
		QLog:              c.QLog,
	}
	capKeepAlive(cfg)
	return cfg, nil
}

// A Listener accepts MQTT connections on one UDP socket.
// It is an [mqtt.LinkListener].
type Listener struct {
	ep transport.Endpoint
	ln transport.Listener

	mu     sync.Mutex
	links  int  // accepted and not ended; guarded by mu
	closed bool // guarded by mu
}

// Listen starts MQTT over QUIC with t on pc, which the Listener then owns.
// If it fails, pc is closed.
func Listen(t transport.Transport, pc net.PacketConn, cfg *ListenConfig) (*Listener, error) {
	tc, err := cfg.transport()
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	ep, err := t.Open(pc, &cfg.Options)
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	ln, err := ep.Listen(tc)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	return &Listener{ep: ep, ln: ln}, nil
}

// ListenAddr is [Listen] on a UDP address such as ":14567".
func ListenAddr(t transport.Transport, addr string, cfg *ListenConfig) (*Listener, error) {
	if _, err := cfg.transport(); err != nil {
		return nil, err // before the socket is opened
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("mqttquic: %w", err)
	}
	return Listen(t, pc, cfg)
}

// Accept returns the next connection whose handshake is complete, as a [*Link].
// It waits for nothing else of the client: its first stream may come late or never.
func (l *Listener) Accept(ctx context.Context) (mqtt.Link, error) {
	c, err := l.ln.Accept(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.links++
	l.mu.Unlock()
	context.AfterFunc(c.Context(), l.linkEnded)
	return Wrap(c, true), nil
}

// Addr returns the address of the socket.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Stats returns the counters of the socket.
func (l *Listener) Stats() transport.EndpointStats { return l.ep.Stats() }

// Close stops accepting; Accept returns an error matching [net.ErrClosed].
// Links live on, and the socket is closed when the last of them has ended.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	last := l.links == 0
	l.mu.Unlock()
	err := l.ln.Close()
	if last {
		err = errors.Join(err, l.ep.Close())
	}
	return err
}

// CloseNow ends every Link with [mqtt.LinkNormal], waits for the engine's
// goroutines and closes the socket.
func (l *Listener) CloseNow() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	return l.ep.Close() // the first call counts
}

func (l *Listener) linkEnded() {
	l.mu.Lock()
	l.links--
	last := l.closed && l.links == 0
	l.mu.Unlock()
	if last {
		// An error has nobody to go to: whoever called Close has gone on.
		_ = l.ep.Close()
	}
}

// serverTLS returns a copy of cfg that negotiates "mqtt" and nothing else.
func serverTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{ALPN}
	choose := cfg.GetConfigForClient
	if choose == nil {
		return cfg
	}
	// The last copy is kept, because session tickets are encrypted with keys
	// that belong to it: a new copy per handshake could never resume.
	type pair struct{ from, to *tls.Config }
	var last atomic.Pointer[pair]
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen, err := choose(hello)
		if err != nil || chosen == nil || slices.Equal(chosen.NextProtos, cfg.NextProtos) {
			return chosen, err
		}
		p := last.Load()
		if p == nil || p.from != chosen {
			p = &pair{chosen, chosen.Clone()}
			p.to.NextProtos = cfg.NextProtos
			last.Store(p)
		}
		return p.to, nil
	}
	return cfg
}

// capKeepAlive leaves room for a PING to be repeated before the idle timeout.
func capKeepAlive(cfg *transport.Config) {
	if cfg.KeepAlive > 0 && cfg.IdleTimeout > 0 {
		cfg.KeepAlive = min(cfg.KeepAlive, cfg.IdleTimeout/2)
	}
}

func orDefault[T ~int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
