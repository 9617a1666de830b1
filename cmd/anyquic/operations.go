package main

import (
	"crypto/tls"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/quicmeter"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/transport"
)

// operations are what an operator of `anyquic serve` sees and changes while it
// runs.
type operations struct {
	broker  *broker.Broker
	engine  transport.Transport
	version versionInfo
	started time.Time
	log     *slog.Logger
	lines   *lineCounter
	level   *slog.LevelVar

	// reloaders are what reload reads again besides the configuration. It is set
	// before anything is served.
	reloaders []reloader

	access  *access // nil: nobody has to prove anything; set before anything is served
	bridges bridges // set before anything is served

	draining atomic.Bool
	cert     atomic.Pointer[tls.Certificate]
	cfg      atomic.Pointer[serveConfig] // in force

	mu       sync.Mutex
	meters   []*quicmeter.Meter // guarded by mu
	reloads  [2]uint64          // guarded by mu; failed, done
	reloaded time.Time          // guarded by mu
}

// newOperations returns operations with a log to w, for a broker that start makes.
func newOperations(cfg *serveConfig, quic transport.Transport, cert *tls.Certificate, w io.Writer, start func(*slog.Logger) (*broker.Broker, error)) (*operations, error) {
	now := time.Now()
	o := &operations{engine: quic, version: buildVersion(), started: now, reloaded: now, level: cfg.Log.leveler()}
	o.lines = newLineCounter(cfg.Log.handler(w, o.level))
	o.log = slog.New(o.lines)
	var err error
	if o.broker, err = start(o.log); err != nil {
		return nil, err
	}
	c := *cfg
	o.cfg.Store(&c)
	o.version.Versions = quic.Features().Versions
	o.cert.Store(cert)
	return o, nil
}

// config returns the configuration in force. It is not to be modified.
func (o *operations) config() *serveConfig { return o.cfg.Load() }

// tls returns what listeners are configured with that negotiate protos by ALPN, if
// any. The certificate is the one that is in use when a handshake begins.
func (o *operations) tls(protos ...string) *tls.Config {
	c := &tls.Config{
		NextProtos:     protos,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.cert.Load(), nil },
		MinVersion:     tls.VersionTLS13,
	}
	if o.access != nil {
		o.access.verify(c)
	}
	return c
}

// meter returns the engine for a listener, whose connections are counted.
func (o *operations) meter(listener string) transport.Transport {
	m := quicmeter.New(o.engine, listener)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.meters = append(o.meters, m)
	return m
}

// figures returns what metrics are made from.
func (o *operations) figures() *figures {
	f := &figures{Stats: o.broker.Stats()}
	o.mu.Lock()
	meters := o.meters[:len(o.meters):len(o.meters)]
	f.program = programFigures{
		version: o.version, engine: o.engine.Name(), started: o.started, notAfter: o.cert.Load().Leaf.NotAfter,
		draining: o.draining.Load(), reloads: o.reloads, reloaded: o.reloaded, logged: o.lines.counts(),
	}
	o.mu.Unlock()
	if o.access != nil && o.access.users != nil {
		f.users = o.access.users.Stats()
	}
	for _, m := range meters {
		f.quic = append(f.quic, m.Stats())
	}
	return f
}
