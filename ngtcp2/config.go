//go:build ngtcp2 && cgo

package ngtcp2

import (
	"cmp"
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anyquic/anyquic/internal/quicconf"
	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

const (
	// defaultCongestionControl is cubic (RFC 9438): what most of the Internet
	// runs, and fair to it. bbr gets more through a path that loses packets
	// without being full, but libngtcp2's is version 2 of a draft that is still
	// being changed for taking more than its share in shallow buffers.
	defaultCongestionControl = "cubic"

	maxStreams = 1 << 60   // RFC 9000, Section 4.6
	maxWindow  = 1<<62 - 1 // RFC 9000, Section 16: the largest varint

	// maxDatagramFrame is the recommended max_datagram_frame_size: whatever
	// fits into a packet (RFC 9221, Section 3).
	maxDatagramFrame = 65535

	// activeConnIDs is how many of the peer's connection IDs are kept, for
	// paths that the connection may move to (RFC 9000, Section 5.1.1).
	activeConnIDs = 4
)

// checks are those that every engine makes.
var checks = quicconf.Engine{Name: "ngtcp2", Unsupported: unsupported}

// algorithms are the numbers that capi knows the algorithms by.
var algorithms = map[string]int{"reno": 0, "cubic": 1, "bbr": 2}

// A connConfig is a transport.Config that was checked, with its defaults, in
// the form in which connections use it. It is made once per Dial or Listen and
// safe for concurrent use.
type connConfig struct {
	cfg   *transport.Config
	knobs *Knobs // nil: the defaults

	// tls is the caller's own, not a clone of it, so that SetSessionTicketKeys
	// works while a server runs. It is not modified.
	tls *tls.Config

	// settings lack what differs between connections: Now, and the fields that
	// come from transport.Options.
	settings capi.Settings

	congestionControl string // the algorithm's name

	certificates *certificateCache
	tickets      *ticketKeys // server only
}

// clientConfig checks cfg for Dial, without knobs.
func clientConfig(cfg *transport.Config) (*connConfig, error) {
	return (*Knobs)(nil).clientConfig(cfg)
}

// serverConfig checks cfg for Listen, without knobs.
func serverConfig(cfg *transport.Config) (*connConfig, error) {
	return (*Knobs)(nil).serverConfig(cfg)
}

// clientConfig checks cfg for Dial. k may be nil.
func (k *Knobs) clientConfig(cfg *transport.Config) (*connConfig, error) {
	cc, err := newConnConfig(cfg, k)
	if err != nil {
		return nil, err
	}
	t := cfg.TLS
	if raw := k.rawPublicKeys(); raw != nil && raw.Verify == nil {
		return nil, errNoRawKeyVerifier
	} else if raw == nil {
		if err := checks.CheckServerName(t); err != nil {
			return nil, err
		}
	}
	if err := checks.CheckResumption(t, cfg.Sessions != nil); err != nil {
		return nil, err
	}
	switch {
	case t.EncryptedClientHelloConfigList != nil:
		return nil, unsupported("tls.Config.EncryptedClientHelloConfigList")
	case t.EncryptedClientHelloRejectionVerify != nil:
		return nil, unsupported("tls.Config.EncryptedClientHelloRejectionVerify")
	case t.GetClientCertificate != nil && !contextSettable:
		return nil, unsupported("tls.Config.GetClientCertificate with this release of Go")
	}
	if t.GetClientCertificate == nil {
		for i := range t.Certificates {
			if err := checkClientCertificate(&t.Certificates[i]); err != nil {
				return nil, err
			}
		}
	}
	return cc, nil
}

// serverConfig checks cfg for Listen. k may be nil.
func (k *Knobs) serverConfig(cfg *transport.Config) (*connConfig, error) {
	cc, err := newConnConfig(cfg, k)
	if err != nil {
		return nil, err
	}
	t := cfg.TLS
	if err := checks.CheckServer(t, cfg.EarlyData); err != nil {
		return nil, err
	}
	if err := checkServerTLS(t, k); err != nil {
		return nil, err
	}
	cc.tickets = newTicketKeys(cc)
	// A certificate that cannot be used is reported here, not to clients.
	for i := range t.Certificates {
		if _, err := cc.certificates.get(&t.Certificates[i]); err != nil {
			return nil, err
		}
	}
	return cc, nil
}

// newConnConfig checks and translates what client and server have in common.
func newConnConfig(cfg *transport.Config, k *Knobs) (*connConfig, error) {
	if cfg == nil || cfg.TLS == nil {
		return nil, errors.New("ngtcp2: Config.TLS is not set")
	}
	if fips140.Enabled() {
		return nil, unsupported("the FIPS 140-3 mode of Go")
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	if err := checkTLS(cfg.TLS); err != nil {
		return nil, err
	}
	name := cmp.Or(cfg.CongestionControl, defaultCongestionControl)
	algorithm, ok := algorithms[name]
	if !ok {
		return nil, unsupported(fmt.Sprintf("congestion control %q", name))
	}
	if err := checks.CheckLimits(cfg.StreamWindow, cfg.ConnWindow, cfg.DatagramQueue); err != nil {
		return nil, err
	}
	streamWindow := min(cmp.Or(cfg.StreamWindow, quicconf.StreamWindow), maxWindow)
	connWindow := min(cmp.Or(cfg.ConnWindow, quicconf.ConnWindow), maxWindow)
	s := capi.Settings{
		CongestionControl: algorithm,
		HandshakeTimeout:  orNone(cfg.HandshakeTimeout, quicconf.HandshakeTimeout, capi.NoExpiry),
		IdleTimeout:       orNone(cfg.IdleTimeout, quicconf.IdleTimeout, 0),
		KeepAlive:         orNone(cfg.KeepAlive, -1, capi.NoExpiry),
		MaxStreams:        streams(cfg.MaxStreams),
		MaxUniStreams:     streams(cfg.MaxUniStreams),
		StreamWindow:      uint64(min(streamWindow, quicconf.InitialStreamWindow)),
		ConnWindow:        uint64(min(connWindow, quicconf.InitialConnWindow)),
		MaxStreamWindow:   uint64(streamWindow),
		MaxConnWindow:     uint64(connWindow),
		SendBuffer:        defaultSendBuffer,
		DatagramQueue:     uint32(cmp.Or(cfg.DatagramQueue, quicconf.DatagramQueue)),
		MaxUDPPayload:     defaultMaxUDPPayload,
		ActiveConnIDs:     activeConnIDs,
		QLog:              cfg.QLog != nil,
	}
	if cfg.Datagrams {
		s.MaxDatagramFrame = maxDatagramFrame
	}
	if k != nil && k.SendBuffer != 0 {
		s.SendBuffer = uint64(k.SendBuffer)
	}
	if k != nil && k.MaxUDPPayload != 0 {
		s.MaxUDPPayload = uint32(k.MaxUDPPayload)
	}
	own := *cfg // the caller may set its fields for other connections
	return &connConfig{
		cfg: &own, knobs: k, tls: cfg.TLS,
		settings: s, congestionControl: name,
		certificates: newCertificateCache(),
	}, nil
}

// close frees C memory that the garbage collector would free later. No
// handshake may begin afterwards; connections that exist are not affected.
func (cc *connConfig) close() { cc.certificates.close() }

// checkTLS refuses what QUIC or this engine cannot honour, on either side.
func checkTLS(t *tls.Config) error {
	if err := checks.CheckTLS(t); err != nil {
		return err
	}
	if t.Rand != nil {
		return unsupported("tls.Config.Rand")
	}
	for _, c := range t.CurvePreferences {
		if !slices.Contains(curves, c) {
			return unsupported(fmt.Sprintf("tls.Config.CurvePreferences with %v", c))
		}
	}
	if err := capi.CheckTLS(&capi.TLSConfig{CipherSuites: cipherSuites(t), Curves: curvePreferences(t)}); err != nil {
		return unsupported("tls.Config with " + capi.TLSLibrary() + ": " + err.Error())
	}
	return nil
}

// checkServerTLS refuses what a server cannot honour, also in what
// GetConfigForClient returns.
func checkServerTLS(t *tls.Config, k *Knobs) error {
	switch {
	case t.WrapSession != nil:
		return unsupported("tls.Config.WrapSession")
	case t.UnwrapSession != nil:
		return unsupported("tls.Config.UnwrapSession")
	case t.EncryptedClientHelloKeys != nil:
		return unsupported("tls.Config.EncryptedClientHelloKeys")
	case t.GetEncryptedClientHelloKeys != nil:
		return unsupported("tls.Config.GetEncryptedClientHelloKeys")
	case t.ClientAuth < tls.NoClientCert || t.ClientAuth > tls.RequireAndVerifyClientCert:
		return fmt.Errorf("ngtcp2: tls.Config.ClientAuth is %d, which crypto/tls does not know", t.ClientAuth)
	}
	if raw := k.rawPublicKeys(); raw != nil && raw.Verify == nil && t.ClientAuth != tls.NoClientCert {
		return errNoRawKeyVerifier
	}
	return checkCertificates(t.Certificates)
}

// curves are the key exchanges in the order in which crypto/tls prefers them,
// whatever the order of CurvePreferences is.
var curves = []tls.CurveID{
	tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024,
	tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521,
}

// curvePreferences are t's for capi: nil for the default.
func curvePreferences(t *tls.Config) []uint16 {
	var ids []uint16
	for _, c := range curves {
		if slices.Contains(t.CurvePreferences, c) {
			ids = append(ids, uint16(c))
		}
	}
	return ids
}

// cipherSuites are those of TLS 1.3 in t's list, in its order, and nil for the
// default. The list is one for all versions of TLS: without any of TLS 1.3 it
// is about older ones only.
func cipherSuites(t *tls.Config) []uint16 {
	var ids []uint16
	for _, id := range t.CipherSuites {
		switch id {
		case tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256:
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// streams returns the limit on streams that n means.
func streams(n int64) uint64 {
	return uint64(min(max(0, cmp.Or(n, quicconf.Streams)), maxStreams))
}

// orNone returns d in nanoseconds, def if d is zero, or none if d is negative.
func orNone(d, def time.Duration, none uint64) uint64 {
	d = cmp.Or(d, def)
	if d < 0 {
		return none
	}
	return uint64(d)
}
