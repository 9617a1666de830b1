//go:build ngtcp2 && cgo

package capi

// #include "tls.h"
import "C"

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/cgo"
	"sync"
	"unsafe"
)

// A Certificate is a chain and its private key in the TLS library's form. Any
// number of connections may use it at once. It is freed when nothing refers to
// it, or earlier by Close; connections that use it keep what they need.
type Certificate struct {
	h *certHandle
}

// A certHandle is what Certificate's cleanup may refer to without keeping it.
type certHandle struct {
	mu sync.Mutex
	c  *C.aq_cert // guarded by mu; nil after close
}

func (h *certHandle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.c != nil {
		C.aq_cert_free(h.c)
		h.c = nil
	}
}

// ref returns a reference that the caller frees, or nil after close.
func (h *certHandle) ref() *C.aq_cert {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.c == nil {
		return nil
	}
	return C.aq_cert_up_ref(h.c)
}

// NewCertificate makes a Certificate of a chain (DER, leaf first), the stapled
// OCSP response (nil: none), the leaf's signed certificate timestamps (nil:
// none), which only a server sends, and the leaf's key. A key of crypto/ecdsa,
// crypto/rsa or crypto/ed25519 is given to the TLS library; any other
// crypto.Signer keeps its key, and is called during handshakes, perhaps by
// several at once.
func NewCertificate(chain [][]byte, ocsp []byte, timestamps [][]byte, key crypto.PrivateKey) (*Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("ngtcp2: certificate: the chain is empty")
	}
	packed, err := packChain(chain)
	if err != nil {
		return nil, err
	}
	list, err := packTimestamps(timestamps)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("ngtcp2: certificate: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("ngtcp2: certificate: %T is no private key that can sign", key)
	}
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(leaf.PublicKey) {
		return nil, errors.New("ngtcp2: certificate: the private key is not the certificate's")
	}
	if err := initTLS(); err != nil {
		return nil, err
	}
	der := leaf.RawSubjectPublicKeyInfo
	var handle cgo.Handle
	switch key := key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, fmt.Errorf("ngtcp2: certificate: %w", err)
		}
		defer clear(der)
	default:
		handle = cgo.NewHandle(&signerKey{signer: signer, public: signer.Public()})
	}
	text := newErrorText()
	c := C.aq_cert_new(bytesPtr(packed), C.size_t(len(packed)), bytesPtr(ocsp), C.size_t(len(ocsp)),
		bytesPtr(list), C.size_t(len(list)), bytesPtr(der), C.size_t(len(der)), C.uintptr_t(handle), text.ptr(), text.len())
	if c == nil {
		// C frees the handle with the key that holds it, also when it fails.
		return nil, fmt.Errorf("ngtcp2: certificate: %s", text)
	}
	cert := &Certificate{h: &certHandle{c: c}}
	runtime.AddCleanup(cert, (*certHandle).close, cert.h)
	return cert, nil
}

// Close frees the Certificate before the garbage collector does. A connection
// made with it afterwards fails; others are not affected.
func (c *Certificate) Close() { c.h.close() }

// packChain puts 3 bytes of length before each element.
func packChain(chain [][]byte) ([]byte, error) {
	n := 0
	for _, der := range chain {
		n += 3 + len(der)
	}
	if n >= 1<<24 { // RFC 8446, Section 4.4.2: the list's length has 24 bits
		return nil, errors.New("ngtcp2: certificate: the chain is too long")
	}
	b := make([]byte, 0, n)
	for _, der := range chain {
		b = append(b, byte(len(der)>>16), byte(len(der)>>8), byte(len(der)))
		b = append(b, der...)
	}
	return b, nil
}

// packTimestamps makes a SignedCertificateTimestampList (RFC 6962, Section 3.3),
// nil of none.
func packTimestamps(timestamps [][]byte) ([]byte, error) {
	if len(timestamps) == 0 {
		return nil, nil
	}
	b := make([]byte, 2)
	for _, s := range timestamps {
		if len(s) == 0 || len(s) > math.MaxUint16 {
			return nil, errors.New("ngtcp2: certificate: a signed certificate timestamp has a length that cannot be sent")
		}
		b = append(append(b, byte(len(s)>>8), byte(len(s))), s...)
	}
	// RFC 8446, Section 4.4.2: extensions<0..2^16-1>, this one with 4 bytes of head.
	if 4+len(b) > math.MaxUint16 {
		return nil, errors.New("ngtcp2: certificate: the signed certificate timestamps are too long")
	}
	n := len(b) - 2
	b[0], b[1] = byte(n>>8), byte(n)
	return b, nil
}

// unpackChain is packChain's inverse; the elements share no memory with b.
func unpackChain(b []byte) [][]byte {
	var chain [][]byte
	for len(b) >= 3 {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if b = b[3:]; n > len(b) {
			return nil
		}
		chain = append(chain, append([]byte(nil), b[:n]...))
		b = b[n:]
	}
	return chain
}

// bytesPtr is where b begins, for a C function that does not keep it.
func bytesPtr(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.SliceData(b)) }
