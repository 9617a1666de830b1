//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"container/list"
	"crypto"
	"crypto/tls"
	"errors"
	"hash/maphash"
	"reflect"
	"slices"
	"sync"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// maxCertificates limits a certificateCache. One that serves more names than
// this at once parses some of their certificates again.
const maxCertificates = 256

// A certificateCache keeps certificates in the TLS library's form, so that a
// GetCertificate that returns a new tls.Certificate for each connection costs
// no parsing when it is the same one again. The least recently used is
// forgotten first.
type certificateCache struct {
	seed maphash.Seed

	mu     sync.Mutex
	byLeaf map[uint64]*list.Element // guarded by mu; key: hash of the leaf
	recent list.List                // guarded by mu; of *cachedCertificate, the latest first
	closed bool                     // guarded by mu
}

type cachedCertificate struct {
	hash uint64
	from *tls.Certificate // a copy of the struct; what it refers to must not be modified
	cert *capi.Certificate
}

func newCertificateCache() *certificateCache {
	return &certificateCache{seed: maphash.MakeSeed(), byLeaf: make(map[uint64]*list.Element)}
}

// get returns c in the TLS library's form.
func (cc *certificateCache) get(c *tls.Certificate) (*capi.Certificate, error) {
	if err := checkCertificate(c); err != nil {
		return nil, err
	}
	hash := maphash.Bytes(cc.seed, c.Certificate[0])
	if cert := cc.lookup(hash, c); cert != nil {
		return cert, nil
	}
	cert, err := capi.NewCertificate(c.Certificate, c.OCSPStaple, c.SignedCertificateTimestamps, c.PrivateKey)
	if err != nil {
		return nil, err
	}
	cc.add(&cachedCertificate{hash, &tls.Certificate{
		Certificate: slices.Clone(c.Certificate), OCSPStaple: c.OCSPStaple,
		SignedCertificateTimestamps: slices.Clone(c.SignedCertificateTimestamps), PrivateKey: c.PrivateKey,
	}, cert})
	return cert, nil
}

func (cc *certificateCache) lookup(hash uint64, c *tls.Certificate) *capi.Certificate {
	cc.mu.Lock()
	e := cc.byLeaf[hash]
	if e == nil {
		cc.mu.Unlock()
		return nil
	}
	cc.recent.MoveToFront(e)
	cached := e.Value.(*cachedCertificate)
	cc.mu.Unlock()
	if !sameCertificate(cached.from, c) {
		return nil
	}
	return cached.cert
}

// add keeps c and drops what it replaces. Nothing is closed here: another
// handshake may be about to use it.
func (cc *certificateCache) add(c *cachedCertificate) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.closed {
		return
	}
	if old := cc.byLeaf[c.hash]; old != nil {
		cc.recent.Remove(old)
	}
	cc.byLeaf[c.hash] = cc.recent.PushFront(c)
	for cc.recent.Len() > maxCertificates {
		oldest := cc.recent.Remove(cc.recent.Back()).(*cachedCertificate)
		delete(cc.byLeaf, oldest.hash)
	}
}

// close frees what the cache keeps. A get that comes later parses again and
// leaves what it made to the garbage collector.
func (cc *certificateCache) close() {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	for e := cc.recent.Front(); e != nil; e = e.Next() {
		e.Value.(*cachedCertificate).cert.Close()
	}
	cc.recent.Init()
	clear(cc.byLeaf)
	cc.closed = true
}

// checkCertificates is checkCertificate for all of them.
func checkCertificates(all []tls.Certificate) error {
	for i := range all {
		if err := checkCertificate(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkCertificate refuses what this engine cannot send.
func checkCertificate(c *tls.Certificate) error {
	switch {
	case len(c.Certificate) == 0 || len(c.Certificate[0]) == 0:
		return errors.New("ngtcp2: tls.Certificate is empty")
	case c.PrivateKey == nil:
		return errors.New("ngtcp2: tls.Certificate has no private key")
	case c.SupportedSignatureAlgorithms != nil:
		return unsupported("tls.Certificate.SupportedSignatureAlgorithms")
	case len(c.SignedCertificateTimestamps) > 0 && capi.TLSLibrary() != "openssl":
		return unsupported("tls.Certificate.SignedCertificateTimestamps with " + capi.TLSLibrary())
	}
	return nil
}

// checkClientCertificate refuses what a client cannot send beside what neither
// can.
func checkClientCertificate(c *tls.Certificate) error {
	if len(c.SignedCertificateTimestamps) > 0 {
		return unsupported("tls.Certificate.SignedCertificateTimestamps on a client")
	}
	return checkCertificate(c)
}

func sameCertificate(a, b *tls.Certificate) bool {
	return slices.EqualFunc(a.Certificate, b.Certificate, bytes.Equal) &&
		bytes.Equal(a.OCSPStaple, b.OCSPStaple) &&
		slices.EqualFunc(a.SignedCertificateTimestamps, b.SignedCertificateTimestamps, bytes.Equal) &&
		sameKey(a.PrivateKey, b.PrivateKey)
}

// sameKey reports whether a and b, which are not nil, are one holder of a key,
// or two of the same key that can tell.
func sameKey(a, b crypto.PrivateKey) bool {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	if va.Type() == vb.Type() && va.Comparable() && vb.Comparable() && va.Equal(vb) {
		return true
	}
	k, ok := a.(interface{ Equal(crypto.PrivateKey) bool })
	return ok && k.Equal(b)
}
