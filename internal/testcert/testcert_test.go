package testcert

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCertificatesAreValidFrom1999To2099(t *testing.T) {
	ca := NewCA()
	for name, c := range map[string]tls.Certificate{
		"server": ca.Certificate("localhost"),
		"client": ca.ClientCertificate("alice"),
	} {
		for _, now := range []time.Time{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Now(), time.Date(2098, 12, 31, 0, 0, 0, 0, time.UTC)} {
			_, err := c.Leaf.Verify(x509.VerifyOptions{
				Roots: ca.Pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			require.NoError(t, err, "%s in %d", name, now.Year())
		}
	}
}

func TestACertificateIsForItsNamesAndUse(t *testing.T) {
	ca := NewCA()
	server := ca.Certificate("one.example", "two.example")
	for name, ok := range map[string]bool{"one.example": true, "two.example": true, "three.example": false, "127.0.0.1": false} {
		_, err := server.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: name})
		require.Equal(t, ok, err == nil, "%s: %v", name, err)
	}
	local := ca.Certificate("localhost")
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		require.NoError(t, local.Leaf.VerifyHostname(name))
	}
	client := ca.ClientCertificate("alice")
	_, err := client.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)
	_, err = client.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool()}) // as a server's
	require.Error(t, err)
	_, err = server.Leaf.Verify(x509.VerifyOptions{Roots: NewCA().Pool(), DNSName: "one.example"})
	require.Error(t, err, "another authority")
}

func TestNewReturnsConfigurationsThatFit(t *testing.T) {
	server, client := New("a", "b")
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	accepted := tls.Server(s, server)
	done := make(chan error, 1)
	go func() { done <- accepted.Handshake() }()
	conn := tls.Client(c, client)
	require.NoError(t, conn.Handshake())
	require.NoError(t, <-done)
	require.Equal(t, "a", conn.ConnectionState().NegotiatedProtocol)
	require.Equal(t, "localhost", accepted.ConnectionState().ServerName)
}
