// Package testcert makes certificates and TLS configurations for tests and
// examples.
//
// Everything is signed with P-256 keys made on the spot and valid from 1999 to
// 2099: a testing/synctest bubble starts on 2000-01-01.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"time"
)

// New returns TLS configurations of a server and of a client that trusts it,
// for localhost and the given application protocols.
func New(alpn ...string) (server, client *tls.Config) {
	ca := NewCA()
	return ca.Server("localhost", alpn...), ca.Client("localhost", alpn...)
}

// A CA issues certificates.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA returns a certificate authority that nobody trusts yet.
func NewCA() *CA {
	key := newKey()
	tmpl := template("anyquic test authority")
	tmpl.IsCA = true
	tmpl.BasicConstraintsValid = true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	return &CA{sign(tmpl, tmpl, key, key), key}
}

// Pool returns a pool that holds the authority and nothing else.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// Certificate returns a certificate for a server of the given DNS names.
// If localhost is one of them, it is also for 127.0.0.1 and ::1.
func (ca *CA) Certificate(names ...string) tls.Certificate {
	tmpl := template(names[0])
	tmpl.DNSNames = names
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if n == "localhost" {
			tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		}
	}
	return ca.issue(tmpl)
}

// ClientCertificate returns a certificate for a client.
func (ca *CA) ClientCertificate(name string) tls.Certificate {
	tmpl := template(name)
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return ca.issue(tmpl)
}

// Server returns the configuration of a server with a certificate for name.
func (ca *CA) Server(name string, alpn ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Certificate(name)}, NextProtos: alpn}
}

// Client returns the configuration of a client that trusts the authority and
// connects to the server called name.
func (ca *CA) Client(name string, alpn ...string) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: name, NextProtos: alpn}
}

func (ca *CA) issue(tmpl *x509.Certificate) tls.Certificate {
	key := newKey()
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	leaf := sign(tmpl, ca.cert, key, ca.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func sign(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}
