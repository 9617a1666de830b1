package allhttp

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/anyquic/anyquic/internal/selfcert"
)

// certCheck is how often files are looked at for a change, at most.
const certCheck = time.Second

// SelfSigned returns a TLS configuration with a certificate that was made on the
// spot for localhost, 127.0.0.1, ::1 and the given host names and IP addresses.
// It is valid for a year. A client trusts it only if it is told to; the
// certificate is its own authority.
func SelfSigned(hosts ...string) (*tls.Config, error) {
	cert, err := selfcert.New(time.Now(), hosts...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
}

// CertFiles is a certificate in PEM files. It is read anew when they have
// changed, which is looked for when a handshake needs it, at most once a second:
// later handshakes use the new one, and connections are unaffected. As long as
// the new files are of no use, such as a certificate whose key has not been
// written yet, the old certificate stays in use.
type CertFiles struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	cert    *tls.Certificate // guarded by mu
	seen    fileState        // of the files when they were last read; guarded by mu
	checked time.Time        // guarded by mu
}

// LoadCertFiles reads the files, of which the first has the certificate and its
// chain and the second the key. The logger is told what becomes of changes; nil
// discards.
func LoadCertFiles(certFile, keyFile string, logger *slog.Logger) (*CertFiles, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	c := &CertFiles{certFile: certFile, keyFile: keyFile, logger: logger}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// GetCertificate is for the field of [tls.Config].
func (c *CertFiles) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certCheck {
		c.checked = now
		if !c.state().same(c.seen) {
			_ = c.reload() // it is logged
		}
	}
	return c.cert, nil
}

// Reload reads the files at once. If it fails, the old certificate stays in use.
func (c *CertFiles) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = time.Now()
	return c.reload()
}

// reload reads the files. mu is held.
func (c *CertFiles) reload() error {
	// The state first: what changes while the files are read is another change.
	c.seen = c.state()
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err == nil {
		err = valid(cert.Leaf, time.Now())
	}
	if err != nil {
		err = fmt.Errorf("allhttp: certificate %s with key %s: %w", c.certFile, c.keyFile, err)
		if c.cert != nil {
			c.logger.Error("the new certificate is of no use, the old one stays", "error", err)
		}
		return err
	}
	if c.cert != nil {
		c.logger.Info("new certificate", "file", c.certFile, "fingerprint", selfcert.Fingerprint(cert.Certificate[0]), "until", cert.Leaf.NotAfter)
	}
	c.cert = &cert
	return nil
}

// valid reports why clients would refuse a certificate now.
func valid(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it expired on %s", leaf.NotAfter.Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it is not valid before %s", leaf.NotBefore.Format(time.DateTime))
	}
	return nil
}

// A fileState tells whether files have changed. A file that is not there is nil.
type fileState struct{ cert, key os.FileInfo }

func (c *CertFiles) state() (s fileState) {
	s.cert, _ = os.Stat(c.certFile)
	s.key, _ = os.Stat(c.keyFile)
	return s
}

func (s fileState) same(o fileState) bool { return sameFile(s.cert, o.cert) && sameFile(s.key, o.key) }

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
