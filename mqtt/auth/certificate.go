package auth

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A NameFrom says which part of a certificate names the user.
type NameFrom string

// The parts of a certificate that can name a user.
const (
	CommonName NameFrom = "cn"    // of the subject
	DNSName    NameFrom = "dns"   // the first of the subject's alternative names
	URIName    NameFrom = "uri"   // likewise
	EmailName  NameFrom = "email" // likewise
)

// ParseNameFrom returns the part that s names.
func ParseNameFrom(s string) (NameFrom, error) {
	switch n := NameFrom(s); n {
	case CommonName, DNSName, URIName, EmailName:
		return n, nil
	}
	return "", fmt.Errorf("auth: %q names no part of a certificate: use cn, dns, uri or email", s)
}

// Certificate takes the user's name from the certificate of the handshake, on
// every carrier with TLS. The listener's tls.Config must have verified it:
// ClientAuth is at least VerifyClientCertIfGiven. The connection ends when the
// certificate does. The zero value takes the common name.
type Certificate struct{ From NameFrom }

// Authenticate implements [broker.Authenticator].
func (a Certificate) Authenticate(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
	state := c.Client.TLS
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return broker.Identity{}, ErrNotMine
	}
	leaf := state.VerifiedChains[0][0]
	name := a.name(leaf)
	if name == "" {
		return broker.Identity{}, &broker.Denied{Code: packet.NotAuthorized, Reason: fmt.Sprintf("the client's certificate has no name of the kind %q", a.From)}
	}
	return broker.Identity{Username: name, Expires: leaf.NotAfter}, nil
}

func (a Certificate) name(leaf *x509.Certificate) string {
	switch a.From {
	case DNSName:
		if len(leaf.DNSNames) > 0 {
			return leaf.DNSNames[0]
		}
	case URIName:
		if len(leaf.URIs) > 0 {
			return leaf.URIs[0].String()
		}
	case EmailName:
		if len(leaf.EmailAddresses) > 0 {
			return leaf.EmailAddresses[0]
		}
	case CommonName, "":
		return leaf.Subject.CommonName
	}
	return ""
}
