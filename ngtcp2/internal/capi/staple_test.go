//go:build ngtcp2 && cgo

package capi

import (
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ocspResponse says that the leaf of chain is good (RFC 6960, Section 4.2.1). Its
// signature is for others to judge.
func ocspResponse(t testing.TB, chain [][]byte) []byte {
	leaf, err := x509.ParseCertificate(chain[0])
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(chain[1])
	require.NoError(t, err)
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	_, err = asn1.Unmarshal(ca.RawSubjectPublicKeyInfo, &spki)
	require.NoError(t, err)
	name, key := sha1.Sum(ca.RawSubject), sha1.Sum(spki.Key.Bytes) // RFC 6960 names a certificate by them
	type certID struct {
		Hash      pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}
	type single struct {
		ID   certID
		Good asn1.Flag `asn1:"tag:0,optional"`
		At   time.Time `asn1:"generalized"`
	}
	type data struct {
		Responder []byte    `asn1:"explicit,tag:2"`
		At        time.Time `asn1:"generalized"`
		Responses []single
	}
	type basic struct {
		Data      data
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	type typed struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	now := time.Now().UTC().Truncate(time.Second)
	hash := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, Parameters: asn1.NullRawValue}
	body, err := asn1.Marshal(basic{
		Data:      data{key[:], now, []single{{certID{hash, name[:], key[:], leaf.SerialNumber}, true, now}}},
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
		Signature: asn1.BitString{Bytes: payload(70), BitLength: 8 * 70},
	})
	require.NoError(t, err)
	b, err := asn1.Marshal(struct {
		Status asn1.Enumerated
		Bytes  typed `asn1:"explicit,tag:0"`
	}{Bytes: typed{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, body}})
	require.NoError(t, err)
	return b
}

func TestAStapledResponseArrives(t *testing.T) {
	key := newKey(t, "P-256")
	chain := newChain(t, key.Public())
	ocsp := ocspResponse(t, chain)
	cert, err := NewCertificate(chain, ocsp, nil, key)
	if !isOpenSSL() {
		require.ErrorContains(t, err, "wolfSSL staples no OCSP response")
		return
	}
	require.NoError(t, err)
	defer cert.Close()
	w := connected(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = cert }))
	require.Equal(t, ocsp, w.client.state.OCSP)

	alone, err := NewCertificate(chain[:1], ocsp, nil, key)
	require.NoError(t, err)
	defer alone.Close()
	w = connected(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = alone }))
	require.Equal(t, ocsp, w.client.state.OCSP, "without the issuer's certificate")
}

// From 3.6 on OpenSSL staples only what it can read, and what is about the
// certificate.
func TestAStapledResponseThatIsNoneEndsNoHandshake(t *testing.T) {
	if !isOpenSSL() {
		return // which staples nothing: see above
	}
	key := newKey(t, "P-256")
	cert, err := NewCertificate(newChain(t, key.Public()), payload(700), nil, key)
	require.NoError(t, err)
	defer cert.Close()
	w := connected(t, tlsOption(func(s, c *TLSConfig) { s.Certificate = cert }))
	if got := w.client.state.OCSP; got != nil {
		require.Equal(t, payload(700), got)
	}
}

func TestTimestampsArrive(t *testing.T) {
	key := newKey(t, "P-256")
	timestamps := [][]byte{payload(100), {1}, payload(120)}
	cert, err := NewCertificate(newChain(t, key.Public()), nil, timestamps, key)
	if !isOpenSSL() {
		require.ErrorContains(t, err, "wolfSSL sends no signed certificate timestamps")
		return
	}
	require.NoError(t, err)
	defer cert.Close()
	conf := func(s, c *TLSConfig) {
		s.Certificate, s.ClientAuth = cert, ClientAuthRequire
		c.Callbacks = &certificateChooser{cert: cert}
	}
	w := connected(t, tlsOption(conf))
	require.Equal(t, timestamps, w.client.state.Timestamps)
	require.Empty(t, w.server.state.Timestamps, "a client's certificate goes without")

	// There is no certificate that they could come with: RFC 7250, Section 3.
	w = connected(t, tlsOption(func(s, c *TLSConfig) {
		conf(s, c)
		s.RawPublicKey, c.RawPublicKey = true, true
	}))
	require.Empty(t, w.client.state.Timestamps)
}

func TestTimestampsThatCannotBeSentAreRefused(t *testing.T) {
	key := newKey(t, "P-256")
	chain := newChain(t, key.Public())
	for _, bad := range [][][]byte{{{}}, {{1}, nil}, {make([]byte, 65536)}, {make([]byte, 65535-4-2-2+1)}} {
		_, err := NewCertificate(chain, nil, bad, key)
		require.ErrorContains(t, err, "signed certificate timestamp")
		require.NotContains(t, err.Error(), "wolfSSL")
	}
}
