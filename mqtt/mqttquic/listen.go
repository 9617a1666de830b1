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
	// TLS must be set and have a certificate. NextProtos is replaced by "mqtt"
	// and the names of Others, in a copy, and in what GetConfigForClient returns.
	TLS *tls.Config

	// Others are further protocols on the same socket.
	Others []Protocol

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

	// EarlyData says what becomes of early data. Replays are known by the
	// first connection ID that the client chose, as long as the listener lives:
	// with EarlyIdempotent and EarlyAll, session ticket keys must not outlive
	// it. Early data is refused if the engine cannot have it.
	EarlyData mqtt.EarlyPolicy

	// CongestionControl and QLog are those of [transport.Config].
	CongestionControl string
	QLog              func(connID []byte, client bool) io.WriteCloser
}

// A Protocol shares the socket of a [Listener] with MQTT, for clients that
// negotiate its name.
type Protocol struct {
	ALPN string

	// Serve is called, in a goroutine of its own, with each connection that has
	// negotiated the protocol, and owns it. It returns soon after the
	// connection has ended.
	Serve func(transport.Conn)

	// MaxUniStreams and Datagrams are as in [transport.Config]: what it needs. A
	// client that speaks MQTT gets them too, and no use of them.
	MaxUniStreams int64
	Datagrams     bool
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
	protos := []string{ALPN}
	for _, o := range c.Others {
		if o.ALPN == "" || o.Serve == nil || slices.Contains(protos, o.ALPN) {
			return nil, fmt.Errorf("mqttquic: ListenConfig.Others: protocol %q has no name of its own or no Serve", o.ALPN)
		}
		protos = append(protos, o.ALPN)
	}
	cfg := &transport.Config{
		TLS:               serverTLS(c.TLS, protos),
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
	for _, o := range c.Others {
		cfg.MaxUniStreams = max(cfg.MaxUniStreams, o.MaxUniStreams)
		cfg.Datagrams = cfg.Datagrams || o.Datagrams
	}
	capKeepAlive(cfg)
	return cfg, nil
}

// A Listener accepts MQTT connections on one UDP socket.
// It is an [mqtt.LinkListener].
type Listener struct {
	ep     transport.Endpoint
	ln     transport.Listener
	others map[string]func(transport.Conn) // by ALPN
	early  mqtt.EarlyPolicy
	seen   firstFlights
	queue  *earlyQueue    // nil: the engine's own, of completed handshakes
	wg     sync.WaitGroup // of connections with another protocol; Add only under mu while not closed

	mu     sync.Mutex
	conns  int  // accepted and not ended; guarded by mu
	closed bool // guarded by mu
}

// Listen starts MQTT over QUIC with t on pc, which the Listener then owns.
// If it fails, pc is closed.
func Listen(t transport.Transport, pc net.PacketConn, cfg *ListenConfig) (*Listener, error) {
	tc, err := cfg.transport()
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	tc.EarlyData = cfg.EarlyData != mqtt.EarlyOff && t.Features().EarlyData
	ep, err := t.Open(pc, &cfg.Options)
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	ln, err := ep.Listen(tc)
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	l := &Listener{ep: ep, ln: ln, early: cfg.EarlyData, others: make(map[string]func(transport.Conn), len(cfg.Others))}
	for _, o := range cfg.Others {
		l.others[o.ALPN] = o.Serve
	}
	if tc.EarlyData {
		l.queue = newEarlyQueue(ln)
	}
	return l, nil
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

// Accept returns the next connection, as a [*Link]. The handshake is complete, but
// for a client that has sent early data: see [Link.Handshake] and [Link.Early].
// It waits for nothing else of the client: its first stream may come late or never.
// Meanwhile it hands connections with one of [ListenConfig.Others] to that.
func (l *Listener) Accept(ctx context.Context) (mqtt.Link, error) {
	for {
		c, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		serve := l.others[c.State().TLS.NegotiatedProtocol]
		l.mu.Lock()
		l.conns++
		serving := serve != nil && !l.closed
		if serving {
			l.wg.Add(1)
		}
		l.mu.Unlock()
		context.AfterFunc(c.Context(), l.connEnded)
		switch {
		case serve == nil:
			link := Wrap(c, true)
			link.early = l.policy(c)
			return link, nil
		case !serving:
			_ = c.CloseWithError(0, "") // it came too late
		default:
			go func() { // ends with the connection
				defer l.wg.Done()
				// Others know nothing of this listener's early data.
				if c.Handshake(c.Context()) == nil {
					serve(c)
				}
			}()
		}
	}
}

// Addr returns the address of the socket.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Stats returns the counters of the socket.
func (l *Listener) Stats() transport.EndpointStats { return l.ep.Stats() }

// Close stops accepting; Accept returns an error matching [net.ErrClosed].
// Links and connections of other protocols live on, and the socket is closed when
// the last of them has ended.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	last := l.conns == 0
	l.mu.Unlock()
	err := l.ln.Close()
	if l.queue != nil {
		l.queue.close()
	}
	if last {
		err = errors.Join(err, l.ep.Close())
	}
	return err
}

// CloseNow ends every Link with [mqtt.LinkNormal], and every other connection,
// waits for their goroutines and the engine's, and closes the socket.
func (l *Listener) CloseNow() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.ep.Close() // the first call counts
	if l.queue != nil {
		l.queue.close()
	}
	l.wg.Wait()
	return err
}

func (l *Listener) connEnded() {
	l.mu.Lock()
	l.conns--
	last := l.closed && l.conns == 0
	l.mu.Unlock()
	if last {
		// An error has nobody to go to: whoever called Close has gone on.
		_ = l.ep.Close()
	}
}

// serverTLS returns a copy of cfg that negotiates protos and nothing else.
func serverTLS(cfg *tls.Config, protos []string) *tls.Config {
	cfg = cfg.Clone()
	cfg.NextProtos = protos
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
