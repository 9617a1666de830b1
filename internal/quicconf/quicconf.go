// Package quicconf is what every QUIC engine makes of a transport.Config in the
// same way: the defaults, and what is refused because it means nothing or QUIC
// cannot do it. What one engine alone cannot honour is for that engine to refuse.
package quicconf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Defaults, for fields that are zero.
const (
	HandshakeTimeout = 10 * time.Second
	IdleTimeout      = 30 * time.Second
	Streams          = 100      // for each kind
	StreamWindow     = 6 << 20  // bytes
	ConnWindow       = 15 << 20 // bytes
	DatagramQueue    = 128      // messages in each direction
)

// Receive windows start here, in bytes, or at their limit if that is less, and
// grow with the bandwidth-delay product.
const (
	InitialStreamWindow = 512 << 10
	InitialConnWindow   = 768 << 10
)

// MaxDatagramQueue is the largest Config.DatagramQueue.
const MaxDatagramQueue = 65536

// maxNextProtos is the room for the protocols' names, with a byte for the length of
// each: a list and the extension around it have lengths of 16 bits, the first of
// which counts against the second (RFC 7301, Section 3.1).
const maxNextProtos = 1<<16 - 1 - 2

// An Engine refuses configurations in the name of an engine.
type Engine struct {
	Name string // begins the text of every error
	// Unsupported makes the error for what QUIC or the engine could have, but does
	// not: a *transport.UnsupportedError.
	Unsupported func(what string) error
}

// CheckLimits checks the fields of these names, in bytes and messages.
func (e Engine) CheckLimits(streamWindow, connWindow int64, datagramQueue int) error {
	switch {
	case streamWindow < 0:
		return e.Unsupported("an unlimited Config.StreamWindow")
	case connWindow < 0:
		return e.Unsupported("an unlimited Config.ConnWindow")
	case datagramQueue < 0 || datagramQueue > MaxDatagramQueue:
		return e.errorf("Config.DatagramQueue is %d, not between 0 and %d", datagramQueue, MaxDatagramQueue)
	}
	return nil
}

// CheckTLS checks what client and server have in common.
func (e Engine) CheckTLS(t *tls.Config) error {
	if len(t.NextProtos) == 0 {
		// RFC 9001, Section 8.1: endpoints MUST use ALPN or another mechanism
		// to agree on an application protocol.
		return e.error("tls.Config.NextProtos is empty")
	}
	total := 0
	for _, p := range t.NextProtos {
		if p == "" || len(p) > 255 {
			return e.errorf("tls.Config.NextProtos has %q, not 1 to 255 bytes long", p)
		}
		total += 1 + len(p)
	}
	switch {
	case total > maxNextProtos:
		return e.error("tls.Config.NextProtos is too long to be sent")
	case t.MaxVersion != 0 && t.MaxVersion < tls.VersionTLS13:
		return e.errorf("tls.Config.MaxVersion is %s, but QUIC needs TLS 1.3", tls.VersionName(t.MaxVersion))
	case t.MinVersion > tls.VersionTLS13:
		return e.errorf("tls.Config.MinVersion is %s, but QUIC is TLS 1.3 only", tls.VersionName(t.MinVersion))
	case t.Renegotiation != tls.RenegotiateNever:
		return e.Unsupported("tls.Config.Renegotiation")
	}
	return nil
}

// CheckServerName makes sure that a client verifies someone, or says that it does
// not want to.
func (e Engine) CheckServerName(t *tls.Config) error {
	if t.ServerName == "" && !t.InsecureSkipVerify {
		return e.error("tls.Config names no server to verify: set ServerName")
	}
	return nil
}

// CheckResumption checks how a client keeps sessions. hasSessions says that
// Config.Sessions is set.
func (e Engine) CheckResumption(t *tls.Config, hasSessions bool) error {
	switch {
	case t.ClientSessionCache != nil:
		return e.Unsupported("tls.Config.ClientSessionCache (use Config.Sessions)")
	case hasSessions && t.SessionTicketsDisabled:
		return e.error("Config.Sessions is set, but tls.Config.SessionTicketsDisabled too")
	}
	return nil
}

// CheckServer checks what a server needs. earlyData is Config.EarlyData.
func (e Engine) CheckServer(t *tls.Config, earlyData bool) error {
	switch {
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return e.error("tls.Config has no certificate: set Certificates, GetCertificate or GetConfigForClient")
	case earlyData && t.SessionTicketsDisabled:
		return e.error("Config.EarlyData needs session tickets, but tls.Config.SessionTicketsDisabled is set")
	}
	return nil
}

func (e Engine) error(text string) error { return errors.New(e.Name + ": " + text) }

func (e Engine) errorf(format string, args ...any) error {
	return e.error(fmt.Sprintf(format, args...))
}
