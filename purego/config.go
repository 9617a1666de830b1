package purego

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/internal/quicconf"
	"github.com/anyquic/anyquic/transport"
)

const (
	// congestionControl is the only algorithm of quic-go.
	congestionControl = "reno"

	// initialPacketSize is the smallest that QUIC allows. quic-go checks the
	// limit of three times what an unverified client has sent before it sends
	// a packet, not after (RFC 9000, Section 8.1): packets of the size that
	// clients start with keep it exact.
	initialPacketSize = 1200

	// noTimeout stands for none where quic-go needs a number. Twice this is
	// still a time.Duration.
	noTimeout = 100 * 365 * 24 * time.Hour
)

// checks are those that every engine makes.
var checks = quicconf.Engine{Name: "purego", Unsupported: unsupported}

// clientConfig checks cfg for Dial and translates it.
func clientConfig(cfg *transport.Config, tokens quic.TokenStore) (*tls.Config, *quic.Config, error) {
	qconf, err := quicConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := checks.CheckServerName(cfg.TLS); err != nil {
		return nil, nil, err
	}
	if err := checks.CheckResumption(cfg.TLS, cfg.Sessions != nil); err != nil {
		return nil, nil, err
	}
	t := cfg.TLS.Clone()
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
	if err := checks.CheckServer(cfg.TLS, cfg.EarlyData); err != nil {
		return nil, nil, err
	}
	return cfg.TLS, qconf, nil
}

// quicConfig checks and translates what client and server have in common.
func quicConfig(cfg *transport.Config) (*quic.Config, error) {
	if cfg == nil || cfg.TLS == nil {
		return nil, errors.New("purego: Config.TLS is not set")
	}
	if err := checks.CheckTLS(cfg.TLS); err != nil {
		return nil, err
	}
	if restrictsTLS13(cfg.TLS.CipherSuites) {
		return nil, unsupported("tls.Config.CipherSuites for TLS 1.3")
	}
	if cc := cfg.CongestionControl; cc != "" && cc != congestionControl {
		return nil, unsupported(fmt.Sprintf("congestion control %q", cc))
	}
	if err := checks.CheckLimits(cfg.StreamWindow, cfg.ConnWindow, cfg.DatagramQueue); err != nil {
		return nil, err
	}
	streamWindow := uint64(cmp.Or(cfg.StreamWindow, quicconf.StreamWindow))
	connWindow := uint64(cmp.Or(cfg.ConnWindow, quicconf.ConnWindow))
	return &quic.Config{
		// Here: how long the peer may be silent. Dial and Listen bound the
		// whole handshake.
		HandshakeIdleTimeout: handshakeTimeout(cfg),

		InitialPacketSize:                initialPacketSize,
		MaxIdleTimeout:                   bounded(cfg.IdleTimeout, quicconf.IdleTimeout),
		KeepAlivePeriod:                  max(0, cfg.KeepAlive),
		MaxIncomingStreams:               cmp.Or(cfg.MaxStreams, quicconf.Streams),
		MaxIncomingUniStreams:            cmp.Or(cfg.MaxUniStreams, quicconf.Streams),
		InitialStreamReceiveWindow:       min(streamWindow, quicconf.InitialStreamWindow),
		MaxStreamReceiveWindow:           streamWindow,
		InitialConnectionReceiveWindow:   min(connWindow, quicconf.InitialConnWindow),
		MaxConnectionReceiveWindow:       connWindow,
		EnableDatagrams:                  cfg.Datagrams,
		EnableStreamResetPartialDelivery: true,
		Allow0RTT:                        cfg.EarlyData,
		Versions:                         []quic.Version{quic.Version1},
	}, nil
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
	return bounded(cfg.HandshakeTimeout, quicconf.HandshakeTimeout)
}

// bounded returns d, def if d is zero, or noTimeout if d is negative.
func bounded(d, def time.Duration) time.Duration {
	if d < 0 {
		return noTimeout
	}
	return min(cmp.Or(d, def), noTimeout)
}
