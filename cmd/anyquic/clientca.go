package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
)

// A clientCA is the file of the authorities that sign clients' certificates.
type clientCA struct {
	file string
	pool atomic.Pointer[x509.CertPool]
}

func openClientCA(file string) (*clientCA, error) {
	ca := &clientCA{file: file}
	commit, err := ca.PrepareReload()
	if err != nil {
		return nil, err
	}
	commit()
	return ca, nil
}

// PrepareReload implements preparer.
func (ca *clientCA) PrepareReload() (commit func(), err error) {
	pool, err := readPool(ca.file)
	if err != nil {
		return nil, fmt.Errorf("--client-ca: %w", err)
	}
	return func() { ca.pool.Store(pool) }, nil
}

// verify has a server ask clients for their certificates, and hold them against the
// authorities of that moment: in a full handshake and when a session is resumed.
func (ca *clientCA) verify(cfg *tls.Config) {
	cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, ca.pool.Load()
	base := cfg.Clone()
	// The last copy serves until there are other authorities: engines of QUIC keep
	// what belongs to a configuration by its pointer.
	var last atomic.Pointer[tls.Config]
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, c := ca.pool.Load(), last.Load()
		if c == nil || c.ClientCAs != pool {
			c = base.Clone()
			c.ClientCAs = pool
			last.Store(c)
		}
		return c, nil
	}
}
