//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/fips140"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

const (
	// defaultCongestionControl is cubic (RFC 9438): what most of the Internet
	// runs, and fair to it. bbr gets more through a path that loses packets
	// without being full, but libngtcp2's is version 2 of a draft that is still
	// being changed for taking more than its share in shallow buffers.
	defaultCongestionControl = "cubic"

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

	maxStreams = 1 << 60   // RFC 9000, Section 4.6
	maxWindow  = 1<<62 - 1 // RFC 9000, Section 16: the largest varint

	// maxDatagramFrame is the recommended max_datagram_frame_size: whatever
	// fits into a packet (RFC 9221, Section 3).
	maxDatagramFrame = 65535

	// activeConnIDs is how many of the peer's connection IDs are kept, for
	// paths that the connection may move to (RFC 9000, Section 5.1.1).
	activeConnIDs = 4
)

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
	raw := k.rawPublicKeys()
	switch {
	case t.ServerName == "" && !t.InsecureSkipVerify && raw == nil:
		return nil, errors.New("ngtcp2: tls.Config names no server to verify: set ServerName")
	case raw != nil && raw.Verify == nil:
		return nil, errNoRawKeyVerifier
	case t.ClientSessionCache != nil:
		return nil, unsupported("tls.Config.ClientSessionCache (use Config.Sessions)")
	case t.EncryptedClientHelloConfigList != nil:
		return nil, unsupported("tls.Config.EncryptedClientHelloConfigList")
	case t.EncryptedClientHelloRejectionVerify != nil:
		return nil, unsupported("tls.Config.EncryptedClientHelloRejectionVerify")
	case cfg.Sessions != nil && t.SessionTicketsDisabled:
		return nil, errors.New("ngtcp2: Config.Sessions is set, but tls.Config.SessionTicketsDisabled too")
	case t.GetClientCertificate != nil && !contextSettable:
		return nil, unsupported("tls.Config.GetClientCertificate with this release of Go")
	}
	if t.GetClientCertificate == nil {
		if err := checkCertificates(t.Certificates); err != nil {
			return nil, err
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
	switch {
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return nil, errors.New("ngtcp2: tls.Config has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case cfg.EarlyData && t.SessionTicketsDisabled:
		return nil, errors.New("ngtcp2: Config.EarlyData needs session tickets, but tls.Config.SessionTicketsDisabled is set")
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
	name := cfg.CongestionControl
	if name == "" {
		name = defaultCongestionControl
	}
	algorithm, ok := algorithms[name]
	switch {
	case !ok:
		return nil, unsupported(fmt.Sprintf("congestion control %q", name))
	case cfg.StreamWindow < 0:
		return nil, unsupported("an unlimited Config.StreamWindow")
	case cfg.ConnWindow < 0:
		return nil, unsupported("an unlimited Config.ConnWindow")
	case cfg.DatagramQueue < 0 || cfg.DatagramQueue > maxDatagramQueue:
		return nil, fmt.Errorf("ngtcp2: Config.DatagramQueue is %d, not between 0 and %d", cfg.DatagramQueue, maxDatagramQueue)
	}
	streamWindow := min(orDefault(cfg.StreamWindow, defaultStreamWindow), maxWindow)
	connWindow := min(orDefault(cfg.ConnWindow, defaultConnWindow), maxWindow)
	s := capi.Settings{
		CongestionControl: algorithm,
		HandshakeTimeout:  orNone(cfg.HandshakeTimeout, defaultHandshakeTimeout, capi.NoExpiry),
		IdleTimeout:       orNone(cfg.IdleTimeout, defaultIdleTimeout, 0),
		KeepAlive:         orNone(cfg.KeepAlive, -1, capi.NoExpiry),
		MaxStreams:        orZero(cfg.MaxStreams, defaultStreams),
		MaxUniStreams:     orZero(cfg.MaxUniStreams, defaultStreams),
		StreamWindow:      uint64(min(streamWindow, initialStreamWindow)),
		ConnWindow:        uint64(min(connWindow, initialConnWindow)),
		MaxStreamWindow:   uint64(streamWindow),
		MaxConnWindow:     uint64(connWindow),
		SendBuffer:        defaultSendBuffer,
		DatagramQueue:     uint32(orDefault(int64(cfg.DatagramQueue), defaultDatagramQueue)),
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
	if len(t.NextProtos) == 0 {
		// RFC 9001, Section 8.1: endpoints MUST use ALPN or another mechanism
		// to agree on an application protocol.
		return errors.New("ngtcp2: tls.Config.NextProtos is empty")
	}
	total := 0
	for _, p := range t.NextProtos {
		if p == "" || len(p) > 255 {
			return fmt.Errorf("ngtcp2: tls.Config.NextProtos has %q, not 1 to 255 bytes long", p)
		}
		total += 1 + len(p)
	}
	switch {
	case total > 1<<16-3:
		return errors.New("ngtcp2: tls.Config.NextProtos is too long to be sent")
	case t.MaxVersion != 0 && t.MaxVersion < tls.VersionTLS13:
		return fmt.Errorf("ngtcp2: tls.Config.MaxVersion is %s, but QUIC needs TLS 1.3", tls.VersionName(t.MaxVersion))
	case t.MinVersion > tls.VersionTLS13:
		return fmt.Errorf("ngtcp2: tls.Config.MinVersion is %s, but QUIC is TLS 1.3 only", tls.VersionName(t.MinVersion))
	case t.Renegotiation != tls.RenegotiateNever:
		return unsupported("tls.Config.Renegotiation")
	case t.Rand != nil:
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

// orDefault returns v, or def if v is zero.
func orDefault(v, def int64) int64 {
	if v == 0 {
		return def
	}
	return v
}

// orZero returns v, def if v is zero, or 0 if v is negative.
func orZero(v, def int64) uint64 {
	return uint64(min(max(0, orDefault(v, def)), maxStreams))
}

// orNone returns d in nanoseconds, def if d is zero, or none if d is negative.
func orNone(d, def time.Duration, none uint64) uint64 {
	if d == 0 {
		d = def
	}
	if d < 0 {
		return none
	}
	return uint64(d)
}
