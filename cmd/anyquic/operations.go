package main

import (
	"crypto/tls"
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

	draining atomic.Bool
	cert     atomic.Pointer[tls.Certificate]

	mu       sync.Mutex
	meters   []*quicmeter.Meter // guarded by mu
	reloads  [2]uint64          // guarded by mu; failed, done
	reloaded time.Time          // guarded by mu
}

func newOperations(b *broker.Broker, quic transport.Transport, cert *tls.Certificate, log *slog.Logger, lines *lineCounter) *operations {
	now := time.Now()
	o := &operations{broker: b, engine: quic, version: buildVersion(), started: now, reloaded: now, log: log, lines: lines}
	o.version.Versions = quic.Features().Versions
	o.cert.Store(cert)
	return o
}

// tls returns what listeners are configured with. The certificate is the one that
// is in use when a handshake begins.
func (o *operations) tls() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return o.cert.Load(), nil },
		MinVersion:     tls.VersionTLS13,
	}
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
	for _, m := range meters {
		if s, ok := m.Stats(); ok {
			f.quic = append(f.quic, s)
		}
	}
	return f
}
