package benchproc

import "crypto/tls"

// ServerTLS is the TLS configuration of a server to measure.
func ServerTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13}
}

// ClientTLS is that of a client. It does not verify the server, whose certificate
// is its own, and never resumes.
func ClientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13} //nolint:gosec // the benchmark's own server
}
