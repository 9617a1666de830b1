//go:build ngtcp2 && cgo

package ngtcp2

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// Knobs are what only this engine can be told. The zero Knobs are the defaults.
// They must not be modified after use.
type Knobs struct {
	// RawPublicKeys, if not nil, replaces certificates by bare public keys on
	// all connections.
	RawPublicKeys *RawPublicKeys

	// SendBuffer limits, in bytes, what Write keeps of one stream until the
	// peer has acknowledged it. Default 8 MiB, 64 KiB at least.
	SendBuffer int64

	// MaxUDPPayload limits the UDP payload of the packets that are sent, 1200
	// to 65527 bytes. More than 1200 are used only after path MTU discovery
	// (RFC 8899). Default 1452, which fits into Ethernet with IPv6.
	MaxUDPPayload int
}

// RawPublicKeys are raw public keys (RFC 7250): both sides prove that they hold
// a private key, and nobody vouches for it. The keys to prove are those of
// tls.Config's certificates; what else the certificates say is not sent.
//
// Only a build with OpenSSL has them; see transport.Features.RawPublicKeys.
type RawPublicKeys struct {
	// Verify judges the peer's key, a DER-encoded SubjectPublicKeyInfo, which
	// x509.ParsePKIXPublicKey reads. If it returns an error the handshake ends
	// with that error. A client must set it, and so must a server that asks for
	// a client's key: tls.Config.ClientAuth then says whether one must come,
	// and no more. VerifyPeerCertificate is called afterwards with the key as
	// the only element and no chain, and VerifyConnection as always.
	Verify func(spki []byte) error
}

const (
	defaultSendBuffer    = 8 << 20
	minSendBuffer        = 64 << 10
	maxSendBuffer        = 1 << 40
	defaultMaxUDPPayload = 1452
	minMaxUDPPayload     = 1200  // RFC 9000, Section 14
	maxMaxUDPPayload     = 65527 // RFC 9000, Section 18.2
)

// check refuses what cannot be done. k may be nil: the zero Knobs.
func (k *Knobs) check() error {
	if k == nil {
		return nil
	}
	switch {
	case k.SendBuffer != 0 && (k.SendBuffer < minSendBuffer || k.SendBuffer > maxSendBuffer):
		return fmt.Errorf("ngtcp2: Knobs.SendBuffer is %d, not between %d and %d", k.SendBuffer, minSendBuffer, int64(maxSendBuffer))
	case k.MaxUDPPayload != 0 && (k.MaxUDPPayload < minMaxUDPPayload || k.MaxUDPPayload > maxMaxUDPPayload):
		return fmt.Errorf("ngtcp2: Knobs.MaxUDPPayload is %d, not between %d and %d", k.MaxUDPPayload, minMaxUDPPayload, maxMaxUDPPayload)
	case k.RawPublicKeys != nil && capi.TLSLibrary() != "openssl":
		return unsupported("Knobs.RawPublicKeys (with " + capi.TLSLibrary() + ")")
	}
	return nil
}

// rawPublicKeys may be nil.
func (k *Knobs) rawPublicKeys() *RawPublicKeys {
	if k == nil {
		return nil
	}
	return k.RawPublicKeys
}

var errNoRawKeyVerifier = errors.New("ngtcp2: Knobs.RawPublicKeys.Verify is not set: nothing would authenticate the peer")

// verify judges the peer's key; chain is empty if it sent none.
func (r *RawPublicKeys) verify(t *tls.Config, chain [][]byte, client bool) (*peer, *alertError) {
	switch {
	case len(chain) > 1:
		return nil, &alertError{alertDecodeError, errors.New("ngtcp2: the peer sent several raw public keys")}
	case len(chain) == 0 && client:
		return nil, &alertError{alertDecodeError, errors.New("ngtcp2: the server sent no raw public key")}
	case len(chain) == 0 && requiresClientCert(t.ClientAuth):
		return nil, errNoClientCertificate
	case len(chain) == 1:
		if _, err := x509.ParsePKIXPublicKey(chain[0]); err != nil {
			return nil, &alertError{alertDecodeError, fmt.Errorf("ngtcp2: raw public key: %w", err)}
		}
		if r.Verify == nil {
			return nil, &alertError{alertInternalError, errNoRawKeyVerifier}
		}
		if err := r.Verify(chain[0]); err != nil {
			return nil, badCertificate(err)
		}
	}
	if t.VerifyPeerCertificate != nil {
		if err := t.VerifyPeerCertificate(chain, nil); err != nil {
			return nil, badCertificate(err)
		}
	}
	return &peer{raw: chain}, nil
}
