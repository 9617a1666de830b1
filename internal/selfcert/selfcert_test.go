package selfcert

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCertificateIsValidForLocalhostAndTheHostsGiven(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	cert, err := New(now, "broker.example", "192.0.2.7", "0.0.0.0", "localhost")
	require.NoError(t, err)
	require.Equal(t, []string{"localhost", "broker.example"}, cert.Leaf.DNSNames)
	require.Len(t, cert.Leaf.IPAddresses, 3, "an unspecified address names nobody")

	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "broker.example", "192.0.2.7"} {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now})
		require.NoError(t, err, host)
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: roots, CurrentTime: now})
	require.Error(t, err)
	_, err = cert.Leaf.Verify(x509.VerifyOptions{DNSName: "localhost", Roots: roots, CurrentTime: now.Add(Lifetime + time.Second)})
	require.Error(t, err)
}

func TestEveryCertificateIsNew(t *testing.T) {
	fingerprint := func(c tls.Certificate) string { return Fingerprint(c.Certificate[0]) }
	a, err := New(time.Now())
	require.NoError(t, err)
	b, err := New(time.Now())
	require.NoError(t, err)
	require.NotEqual(t, fingerprint(a), fingerprint(b))
	require.Regexp(t, `^([0-9A-F]{2}:){31}[0-9A-F]{2}$`, fingerprint(a))
}
