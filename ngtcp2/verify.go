//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Alerts (RFC 8446, Section 6).
const (
	alertHandshakeFailure       = 40
	alertBadCertificate         = 42
	alertUnsupportedCertificate = 43
	alertCertificateExpired     = 45
	alertIllegalParameter       = 47
	alertUnknownCA              = 48
	alertDecodeError            = 50
	alertInternalError          = 80
	alertUnrecognizedName       = 112
	alertCertificateRequired    = 116
	alertNoApplicationProtocol  = 120
)

// maxRSABits is crypto/tls's limit: verifying with larger keys takes too long.
const maxRSABits = 8192

// An alertError is a reason to end the handshake, and what the peer is told.
type alertError struct {
	alert uint8
	err   error
}

func (e *alertError) Error() string { return e.err.Error() }
func (e *alertError) Unwrap() error { return e.err }

// badCertificate is for what an application's callback refuses.
func badCertificate(err error) *alertError { return &alertError{alertBadCertificate, err} }

// A peer is what the other side proved about itself. It is not modified once
// it is made.
type peer struct {
	certs  []*x509.Certificate
	chains [][]*x509.Certificate
	raw    [][]byte // a raw public key instead
	ocsp   []byte   // stapled when the session that is resumed began
	scts   [][]byte // that came then: signed certificate timestamps
}

// clock is the time by t.
func clock(t *tls.Config) time.Time {
	if t.Time != nil {
		return t.Time()
	}
	return time.Now()
}

// verifyServer judges a server's chain as crypto/tls does on the client, up to
// and with VerifyPeerCertificate.
func verifyServer(t *tls.Config, raw [][]byte) (*peer, *alertError) {
	if len(raw) == 0 {
		return nil, &alertError{alertDecodeError, errors.New("tls: received empty certificates message")}
	}
	certs, fail := parseCertificates(raw, "certificate from server", "server")
	if fail != nil {
		return nil, fail
	}
	p := &peer{certs: certs}
	if !t.InsecureSkipVerify {
		var err error
		if p.chains, err = certs[0].Verify(serverOptions(t, certs)); err != nil {
			return nil, badCertificate(&tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err})
		}
	}
	if !knownPublicKey(certs[0]) {
		return nil, &alertError{alertUnsupportedCertificate, fmt.Errorf("tls: server's certificate contains an unsupported type of public key: %T", certs[0].PublicKey)}
	}
	if t.VerifyPeerCertificate != nil {
		if err := t.VerifyPeerCertificate(raw, p.chains); err != nil {
			return nil, badCertificate(err)
		}
	}
	return p, nil
}

// verifyClient judges a client's chain, which may be empty, as crypto/tls does
// on the server, up to and with VerifyPeerCertificate.
func verifyClient(t *tls.Config, raw [][]byte) (*peer, *alertError) {
	certs, fail := parseCertificates(raw, "client certificate", "client")
	if fail != nil {
		return nil, fail
	}
	if len(certs) == 0 && requiresClientCert(t.ClientAuth) {
		return nil, errNoClientCertificate
	}
	p := &peer{certs: certs}
	if len(certs) > 0 {
		if t.ClientAuth >= tls.VerifyClientCertIfGiven {
			var err error
			if p.chains, err = certs[0].Verify(clientOptions(t, certs)); err != nil {
				return nil, &alertError{alertForClient(err), &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}}
			}
		}
		if !knownPublicKey(certs[0]) {
			return nil, &alertError{alertUnsupportedCertificate, fmt.Errorf("tls: client certificate contains an unsupported public key of type %T", certs[0].PublicKey)}
		}
	}
	if t.VerifyPeerCertificate != nil {
		if err := t.VerifyPeerCertificate(raw, p.chains); err != nil {
			return nil, badCertificate(err)
		}
	}
	return p, nil
}

var errNoClientCertificate = &alertError{alertCertificateRequired, errors.New("tls: client didn't provide a certificate")}

// serverOptions are for the chain of a server, at the time of the call.
func serverOptions(t *tls.Config, certs []*x509.Certificate) x509.VerifyOptions {
	return x509.VerifyOptions{
		Roots: t.RootCAs, CurrentTime: clock(t), DNSName: t.ServerName, Intermediates: intermediates(certs),
	}
}

// clientOptions are for the chain of a client, at the time of the call.
func clientOptions(t *tls.Config, certs []*x509.Certificate) x509.VerifyOptions {
	return x509.VerifyOptions{
		Roots: t.ClientCAs, CurrentTime: clock(t), Intermediates: intermediates(certs),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func intermediates(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs[1:] {
		pool.AddCert(c)
	}
	return pool
}

// alertForClient is the alert for a client whose chain did not verify. A
// client's own alert is always bad_certificate.
func alertForClient(err error) uint8 {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return alertUnknownCA
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return alertCertificateExpired
	}
	return alertBadCertificate
}

func parseCertificates(raw [][]byte, what, who string) ([]*x509.Certificate, *alertError) {
	if len(raw) == 0 {
		return nil, nil
	}
	certs := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &alertError{alertDecodeError, fmt.Errorf("tls: failed to parse %s: %w", what, err)}
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return nil, badCertificate(fmt.Errorf("tls: %s sent certificate containing RSA key larger than %d bits", who, maxRSABits))
		}
		certs[i] = c
	}
	return certs, nil
}

// knownPublicKey reports whether TLS 1.3 can use the key.
func knownPublicKey(c *x509.Certificate) bool {
	switch c.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// requiresClientCert reports whether a client must send a certificate.
func requiresClientCert(a tls.ClientAuthType) bool {
	return a == tls.RequireAnyClientCert || a == tls.RequireAndVerifyClientCert
}
