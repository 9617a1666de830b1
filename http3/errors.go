package http3

import (
	"errors"
	"fmt"
	"net"

	"github.com/anyquic/anyquic/transport"
)

// Error codes of HTTP/3, QPACK and HTTP datagrams.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-8.1
// https://www.rfc-editor.org/rfc/rfc9204#section-6
// https://www.rfc-editor.org/rfc/rfc9297#section-5.2
const (
	ErrDatagram             transport.ErrorCode = 0x33
	ErrNoError              transport.ErrorCode = 0x100
	ErrGeneralProtocol      transport.ErrorCode = 0x101
	ErrInternal             transport.ErrorCode = 0x102
	ErrStreamCreation       transport.ErrorCode = 0x103
	ErrClosedCriticalStream transport.ErrorCode = 0x104
	ErrFrameUnexpected      transport.ErrorCode = 0x105
	ErrFrame                transport.ErrorCode = 0x106
	ErrExcessiveLoad        transport.ErrorCode = 0x107
	ErrID                   transport.ErrorCode = 0x108
	ErrSettings             transport.ErrorCode = 0x109
	ErrMissingSettings      transport.ErrorCode = 0x10a
	ErrRequestRejected      transport.ErrorCode = 0x10b
	ErrRequestCancelled     transport.ErrorCode = 0x10c
	ErrRequestIncomplete    transport.ErrorCode = 0x10d
	ErrMessage              transport.ErrorCode = 0x10e
	ErrConnect              transport.ErrorCode = 0x10f
	ErrVersionFallback      transport.ErrorCode = 0x110
	ErrQPACKDecompression   transport.ErrorCode = 0x200
	ErrQPACKEncoderStream   transport.ErrorCode = 0x201
	ErrQPACKDecoderStream   transport.ErrorCode = 0x202
)

var codeNames = map[transport.ErrorCode]string{
	ErrDatagram:             "H3_DATAGRAM_ERROR",
	ErrNoError:              "H3_NO_ERROR",
	ErrGeneralProtocol:      "H3_GENERAL_PROTOCOL_ERROR",
	ErrInternal:             "H3_INTERNAL_ERROR",
	ErrStreamCreation:       "H3_STREAM_CREATION_ERROR",
	ErrClosedCriticalStream: "H3_CLOSED_CRITICAL_STREAM",
	ErrFrameUnexpected:      "H3_FRAME_UNEXPECTED",
	ErrFrame:                "H3_FRAME_ERROR",
	ErrExcessiveLoad:        "H3_EXCESSIVE_LOAD",
	ErrID:                   "H3_ID_ERROR",
	ErrSettings:             "H3_SETTINGS_ERROR",
	ErrMissingSettings:      "H3_MISSING_SETTINGS",
	ErrRequestRejected:      "H3_REQUEST_REJECTED",
	ErrRequestCancelled:     "H3_REQUEST_CANCELLED",
	ErrRequestIncomplete:    "H3_REQUEST_INCOMPLETE",
	ErrMessage:              "H3_MESSAGE_ERROR",
	ErrConnect:              "H3_CONNECT_ERROR",
	ErrVersionFallback:      "H3_VERSION_FALLBACK",
	ErrQPACKDecompression:   "QPACK_DECOMPRESSION_FAILED",
	ErrQPACKEncoderStream:   "QPACK_ENCODER_STREAM_ERROR",
	ErrQPACKDecoderStream:   "QPACK_DECODER_STREAM_ERROR",
}

func codeName(c transport.ErrorCode) string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("error %#x", uint64(c))
}

// An Error ends a request, or a connection with all its requests: one side
// broke a rule of the protocol, or gave up. It matches [net.ErrClosed] and, by
// errors.As, the error of package transport that brought it.
type Error struct {
	Code   transport.ErrorCode
	Conn   bool // the connection ended, not just the request
	Remote bool // the peer said so
	Reason string
	Err    error // of package transport; nil if this side found the error
}

func (e *Error) Error() string {
	scope, by := "request", "local"
	if e.Conn {
		scope = "connection"
	}
	if e.Remote {
		by = "remote"
	}
	s := fmt.Sprintf("http3: %s ended by %s: %s", scope, by, codeName(e.Code))
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{net.ErrClosed}
	}
	return []error{net.ErrClosed, e.Err}
}

// connError is an error that ends the connection.
func connError(code transport.ErrorCode, format string, args ...any) *Error {
	return &Error{Code: code, Conn: true, Reason: fmt.Sprintf(format, args...)}
}

// streamError is an error that ends one stream.
func streamError(code transport.ErrorCode, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// wrap names the code in an error of package transport. Other errors, such as
// timeouts, are returned as they are.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if se, ok := errors.AsType[*transport.StreamError](err); ok {
		return &Error{Code: se.Code, Remote: se.Remote, Err: err}
	}
	if ae, ok := errors.AsType[*transport.ApplicationError](err); ok {
		return &Error{Code: ae.Code, Conn: true, Remote: ae.Remote, Reason: ae.Reason, Err: err}
	}
	return err
}
