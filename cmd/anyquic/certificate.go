package main

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/anyquic/anyquic/internal/selfcert"
)

// certificate loads the configured certificate or makes a self-signed one for
// hosts. It refuses one that clients would refuse.
func (c certificateConfig) certificate(now time.Time, hosts ...string) (cert tls.Certificate, selfSigned bool, err error) {
	if c.Cert == "" {
		cert, err = selfcert.New(now, hosts...)
		return cert, true, err
	}
	cert, err = tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return cert, false, fmt.Errorf("--cert %s --key %s: %w", c.Cert, c.Key, err)
	}
	if now.After(cert.Leaf.NotAfter) {
		return cert, false, fmt.Errorf("--cert %s: the certificate expired on %s", c.Cert, cert.Leaf.NotAfter.Format(time.DateTime))
	}
	if now.Before(cert.Leaf.NotBefore) {
		return cert, false, fmt.Errorf("--cert %s: the certificate is not valid before %s", c.Cert, cert.Leaf.NotBefore.Format(time.DateTime))
	}
	return cert, false, nil
}
