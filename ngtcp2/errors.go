//go:build ngtcp2 && cgo

package ngtcp2

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

const (
	codeInternalError      = 0x1   // RFC 9000, Section 20.1
	codeCryptoError        = 0x100 // RFC 9001, Section 4.8: plus the alert
	codeVersionNegotiation = 0x11  // RFC 9368, Section 10.2

	maxCode = 1<<62 - 1 // RFC 9000, Section 16: what a variable-length integer holds

	// maxReason is how much of a reason fits into the smallest packet.
	maxReason = 1024
)

// errNoMemory says that C has none.
var errNoMemory = errors.New("ngtcp2: out of memory")

// errNoDatagrams says that one of the sides has them disabled.
var errNoDatagrams = unsupported("a datagram on this connection")

// localError is the reason for the end of a connection that failed on its own.
func localError(err error) error {
	return &transport.ProtocolError{Code: codeInternalError, Reason: err.Error(), Err: err}
}

// fail ends the connection with what the library said. The caller holds mu.
func (c *conn) fail(err error) {
	c.end(c.failure(err))
}

// failure translates an error of the library.
func (c *conn) failure(err error) *ending {
	e, ok := errors.AsType[*capi.Error](err)
	if !ok {
		return &ending{reason: localError(err), kind: capi.CloseTransport, code: codeInternalError}
	}
	switch e.Code {
	case capi.ErrDraining:
		return &ending{reason: c.peerClosed(), silent: true, keeps: true}
	case capi.ErrIdleClose:
		if !c.complete.Load() {
			return &ending{reason: transport.ErrHandshakeTimeout, silent: true}
		}
		return &ending{reason: transport.ErrIdleTimeout, silent: true, keeps: true}
	case capi.ErrHandshakeTimeout:
		return &ending{reason: transport.ErrHandshakeTimeout, silent: true}
	case capi.ErrVersionNegotiation:
		return &ending{
			reason: &transport.ProtocolError{Code: codeVersionNegotiation, Reason: e.Text, Err: e},
			silent: true,
		}
	case capi.ErrRetry:
		// What came first is not the beginning of the client's first message,
		// which others must not make a server keep (RFC 9000, Section 8.1).
		c.askRetry()
		fallthrough
	case capi.ErrDropConn:
		return &ending{
			reason: &transport.ProtocolError{Code: e.Transport, Reason: e.Text, Err: e},
			silent: true, forget: true,
		}
	}
	p := &transport.ProtocolError{Code: e.Transport, Reason: e.Text, Err: e}
	if e.Alert >= 0 {
		p.Code = codeCryptoError + uint64(e.Alert)
	}
	if ts := c.tls.Load(); ts != nil {
		err := ts.err()
		if err == nil && c.cc != nil {
			err = c.cc.TLSError()
		}
		if err != nil {
			p.Err, p.Reason = err, err.Error()
		}
	}
	return &ending{reason: p, kind: capi.ClosePending}
}

// endTLS ends the connection for what Go found wrong with the handshake.
func (c *conn) endTLS(alert uint8, err error) {
	c.end(&ending{
		reason: &transport.ProtocolError{Code: codeCryptoError + uint64(alert), Reason: err.Error(), Err: err},
		kind:   capi.ClosePending,
	})
}

// peerClosed is the reason that the peer's CONNECTION_CLOSE gave.
func (c *conn) peerClosed() error {
	kind, code, frame, text := c.cc.CloseInfo()
	if kind == capi.CloseApplication {
		return &transport.ApplicationError{Code: transport.ErrorCode(code), Reason: text, Remote: true}
	}
	return &transport.ProtocolError{Code: code, Frame: frame, Reason: text, Remote: true}
}

// shorten cuts reason so that it fits into a packet.
func shorten(reason string) string {
	reason = strings.ToValidUTF8(reason, "\ufffd") // RFC 9000, Section 19.19: SHOULD be UTF-8
	if len(reason) <= maxReason {
		return reason
	}
	n := maxReason
	for !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}

// wireCode returns code, or the largest that can be sent.
func wireCode(code transport.ErrorCode) uint64 { return min(uint64(code), maxCode) }
