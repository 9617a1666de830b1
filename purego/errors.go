package purego

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

const (
	codeInternalError      = 0x1  // RFC 9000, Section 20.1
	codeVersionNegotiation = 0x11 // RFC 9368, Section 10.2

	maxCode = 1<<62 - 1 // RFC 9000, Section 16: what a variable-length integer holds

	// maxReason is how much of a reason fits into the smallest packet.
	maxReason = 1024
)

// errEndpointClosed is what Dial and Listen return after Endpoint.Close.
var errEndpointClosed = fmt.Errorf("purego: endpoint is closed: %w", net.ErrClosed)

// connError translates the reason for the end of a connection. It returns nil
// if err is not one. complete says whether the handshake was.
func connError(err error, complete bool) error {
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return &transport.ApplicationError{Code: transport.ErrorCode(app.ErrorCode), Reason: app.ErrorMessage, Remote: app.Remote}
	}
	if tra, ok := errors.AsType[*quic.TransportError](err); ok {
		return protocolError(tra)
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		if !complete {
			return transport.ErrHandshakeTimeout
		}
		return transport.ErrIdleTimeout
	}
	if _, ok := errors.AsType[*quic.HandshakeTimeoutError](err); ok {
		return transport.ErrHandshakeTimeout
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return transport.ErrStatelessReset
	}
	if ver, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
		return &transport.ProtocolError{Code: codeVersionNegotiation, Reason: ver.Error()}
	}
	return nil
}

func protocolError(e *quic.TransportError) *transport.ProtocolError {
	p := &transport.ProtocolError{Code: uint64(e.ErrorCode), Frame: e.FrameType, Reason: e.ErrorMessage, Remote: e.Remote}
	for _, err := range e.Unwrap() {
		// What crypto/tls said: in the chain is the error of package x509.
		if err != nil && !errors.Is(err, net.ErrClosed) {
			p.Err = err
			if p.Reason == "" {
				p.Reason = err.Error()
			}
		}
	}
	return p
}

// endReason translates the cause of a connection that has ended: it is never nil.
func endReason(err error, complete bool) error {
	if reason := connError(err, complete); reason != nil {
		return reason
	}
	if err == nil { // destroyed, as by a Dial that is given up
		return &transport.ApplicationError{}
	}
	// The socket failed.
	return &transport.ProtocolError{Code: codeInternalError, Reason: err.Error(), Err: err}
}

// dialError translates what quic-go's Dial returned, when ctx is still alive.
func dialError(err error) error {
	if reason := connError(err, false); reason != nil {
		return reason
	}
	if errors.Is(err, quic.ErrTransportClosed) {
		return errEndpointClosed
	}
	return fmt.Errorf("purego: dial: %w", err)
}

// err translates an error of a method of c or of its streams. If err says that
// the connection has ended, it has ended when err returns.
func (c *conn) err(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return c.orReason(err) // of the caller's context, which may be c's own
	case errors.Is(err, quic.Err0RTTRejected):
		return c.orReason(transport.ErrEarlyDataRejected)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, quic.ErrStreamClosed):
		return c.orReason(net.ErrClosed)
	}
	if s, ok := errors.AsType[*quic.StreamError](err); ok {
		return c.orReason(&transport.StreamError{StreamID: transport.StreamID(s.StreamID), Code: transport.ErrorCode(s.ErrorCode), Remote: s.Remote})
	}
	if big, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
		return &transport.DatagramTooLargeError{Max: int(big.MaxDatagramPayloadSize)}
	}
	return c.finish(err)
}

// isStreamLimit reports whether the peer allows no more streams at the moment.
func isStreamLimit(err error) bool {
	_, ok := errors.AsType[*quic.StreamLimitReachedError](err)
	return ok
}

// orReason returns why the connection has ended, or err if it is alive.
func (c *conn) orReason(err error) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return err
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
