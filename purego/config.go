package purego

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

const (
	// congestionControl is the only algorithm of quic-go.
	congestionControl = "reno"

	defaultHandshakeTimeout = 10 * time.Second
	defaultIdleTimeout      = 30 * time.Second
	defaultStreams          = 100
	defaultStreamWindow     = 6 << 20
	defaultConnWindow       = 15 << 20
	defaultDatagramQueue    = 128
	maxDatagramQueue        = 65536

	// Receive windows start here and grow with the bandwidth-delay product.
	initialStreamWindow = 512 << 10
	initialConnWindow   = 768 << 10

	// initialPacketSize is the smallest that QUIC allows. quic-go checks the
	// limit of three times what an unverified client has sent before it sends
	// a packet, not after (RFC 9000, Section 8.1): packets of the size that
	// clients start with keep it exact.
	initialPacketSize = 1200

	// noTimeout stands for none where quic-go needs a number. Twice this is
	// still a time.Duration.
	noTimeout = 100 * 365 * 24 * time.Hour
)

// clientConfig checks cfg for Dial and translates it.
func clientConfig(cfg *transport.Config, tokens quic.TokenStore) (*tls.Config, *quic.Config, error) {
	qconf, err := quicConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	t := cfg.TLS
	switch {
	case t.ServerName == "" && !t.InsecureSkipVerify:
		return nil, nil, errors.New("purego: tls.Config names no server to verify: set ServerName")
	case t.ClientSessionCache != nil:
		return nil, nil, unsupported("tls.Config.ClientSessionCache (use Config.Sessions)")
	case cfg.Sessions != nil && t.SessionTicketsDisabled:
		return nil, nil, errors.New("purego: Config.Sessions is set, but tls.Config.SessionTicketsDisabled too")
	}
	t = t.Clone()
	if cfg.Sessions != nil {
		t.ClientSessionCache = &sessions{cfg.Sessions}
	}
	qconf.TokenStore = tokens
	return t, qconf, nil
}

// serverConfig checks cfg for Listen and translates it. It returns the
// caller's tls.Config itself, which quic-go clones for each connection, so
// that SetSessionTicketKeys works while the server runs.
func serverConfig(cfg *transport.Config) (*tls.Config, *quic.Config, error) {
	qconf, err := quicConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	t := cfg.TLS
	switch {
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return nil, nil, errors.New("purego: tls.Config has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case cfg.EarlyData && t.SessionTicketsDisabled:
		return nil, nil, errors.New("purego: Config.EarlyData needs session tickets, but tls.Config.SessionTicketsDisabled is set")
	}
	return t, qconf, nil
}

// quicConfig checks and translates what client and server have in common.
func quicConfig(cfg *transport.Config) (*quic.Config, error) {
	if cfg == nil || cfg.TLS == nil {
		return nil, errors.New("purego: Config.TLS is not set")
	}
	if err := checkTLS(cfg.TLS); err != nil {
		return nil, err
	}
	switch cc := cfg.CongestionControl; {
	case cc != "" && cc != congestionControl:
		return nil, unsupported(fmt.Sprintf("congestion control %q", cc))
	case cfg.StreamWindow < 0:
		return nil, unsupported("an unlimited Config.StreamWindow")
	case cfg.ConnWindow < 0:
		return nil, unsupported("an unlimited Config.ConnWindow")
	case cfg.DatagramQueue < 0 || cfg.DatagramQueue > maxDatagramQueue:
		return nil, fmt.Errorf("purego: Config.DatagramQueue is %d, not between 0 and %d", cfg.DatagramQueue, maxDatagramQueue)
	}
	streamWindow := uint64(orDefault(cfg.StreamWindow, defaultStreamWindow))
	connWindow := uint64(orDefault(cfg.ConnWindow, defaultConnWindow))
	return &quic.Config{
		// Here: how long the peer may be silent. Dial and Listen bound the
		// whole handshake.
		HandshakeIdleTimeout: handshakeTimeout(cfg),

		InitialPacketSize:                initialPacketSize,
		MaxIdleTimeout:                   orNone(cfg.IdleTimeout, defaultIdleTimeout, noTimeout),
		KeepAlivePeriod:                  max(0, cfg.KeepAlive),
		MaxIncomingStreams:               orDefault(cfg.MaxStreams, defaultStreams),
		MaxIncomingUniStreams:            orDefault(cfg.MaxUniStreams, defaultStreams),
		InitialStreamReceiveWindow:       min(streamWindow, initialStreamWindow),
		MaxStreamReceiveWindow:           streamWindow,
		InitialConnectionReceiveWindow:   min(connWindow, initialConnWindow),
		MaxConnectionReceiveWindow:       connWindow,
		EnableDatagrams:                  cfg.Datagrams,
		EnableStreamResetPartialDelivery: true,
		Allow0RTT:                        cfg.EarlyData,
		Versions:                         []quic.Version{quic.Version1},
	}, nil
}

// checkTLS refuses what QUIC or this engine cannot honour.
func checkTLS(t *tls.Config) error {
	if len(t.NextProtos) == 0 {
		// RFC 9001, Section 8.1: endpoints MUST use ALPN or another mechanism
		// to agree on an application protocol.
		return errors.New("purego: tls.Config.NextProtos is empty")
	}
	for _, p := range t.NextProtos {
		if p == "" || len(p) > 255 {
			return fmt.Errorf("purego: tls.Config.NextProtos has %q, not 1 to 255 bytes long", p)
		}
	}
	switch {
	case t.MaxVersion != 0 && t.MaxVersion < tls.VersionTLS13:
		return fmt.Errorf("purego: tls.Config.MaxVersion is %s, but QUIC needs TLS 1.3", tls.VersionName(t.MaxVersion))
	case t.MinVersion > tls.VersionTLS13:
		return fmt.Errorf("purego: tls.Config.MinVersion is %s, but QUIC is TLS 1.3 only", tls.VersionName(t.MinVersion))
	case t.Renegotiation != tls.RenegotiateNever:
		return unsupported("tls.Config.Renegotiation")
	case restrictsTLS13(t.CipherSuites):
		return unsupported("tls.Config.CipherSuites for TLS 1.3")
	}
	return nil
}

// restrictsTLS13 reports whether suites names some of the cipher suites of TLS
// 1.3 and not all. crypto/tls always offers all; the list is for older versions.
func restrictsTLS13(suites []uint16) bool {
	n := 0
	for _, s := range []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256} {
		if slices.Contains(suites, s) {
			n++
		}
	}
	return n != 0 && n != 3
}

// handshakeTimeout returns the bound on the whole handshake.
func handshakeTimeout(cfg *transport.Config) time.Duration {
	return orNone(cfg.HandshakeTimeout, defaultHandshakeTimeout, noTimeout)
}

// orDefault returns v, or def if v is zero.
func orDefault(v, def int64) int64 {
	if v == 0 {
		return def
	}
	return v
}

// orNone returns d, def if d is zero, or none if d is negative.
func orNone(d, def, none time.Duration) time.Duration {
	switch {
	case d == 0:
		return def
	case d < 0:
		return none
	}
	return min(d, none)
}
