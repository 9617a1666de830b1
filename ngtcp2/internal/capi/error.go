//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
// #include <ngtcp2/ngtcp2.h>
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// The error codes that decide what becomes of a connection.
const (
	ErrInvalidArgument    = int(C.NGTCP2_ERR_INVALID_ARGUMENT)
	ErrNoBuf              = int(C.NGTCP2_ERR_NOBUF)
	ErrProto              = int(C.NGTCP2_ERR_PROTO)
	ErrInvalidState       = int(C.NGTCP2_ERR_INVALID_STATE)
	ErrStreamIDBlocked    = int(C.NGTCP2_ERR_STREAM_ID_BLOCKED)
	ErrStreamDataBlocked  = int(C.NGTCP2_ERR_STREAM_DATA_BLOCKED)
	ErrFlowControl        = int(C.NGTCP2_ERR_FLOW_CONTROL)
	ErrConnIDBlocked      = int(C.NGTCP2_ERR_CONN_ID_BLOCKED)
	ErrCrypto             = int(C.NGTCP2_ERR_CRYPTO)
	ErrPktNumExhausted    = int(C.NGTCP2_ERR_PKT_NUM_EXHAUSTED)
	ErrNoMem              = int(C.NGTCP2_ERR_NOMEM)
	ErrCallbackFailure    = int(C.NGTCP2_ERR_CALLBACK_FAILURE)
	ErrInternal           = int(C.NGTCP2_ERR_INTERNAL)
	ErrRetry              = int(C.NGTCP2_ERR_RETRY)
	ErrDropConn           = int(C.NGTCP2_ERR_DROP_CONN)
	ErrVersionNegotiation = int(C.NGTCP2_ERR_RECV_VERSION_NEGOTIATION)
	ErrHandshakeTimeout   = int(C.NGTCP2_ERR_HANDSHAKE_TIMEOUT)
	ErrIdleClose          = int(C.NGTCP2_ERR_IDLE_CLOSE)
	ErrClosing            = int(C.NGTCP2_ERR_CLOSING)
	ErrDraining           = int(C.NGTCP2_ERR_DRAINING)
)

// An Error is a negative return of ngtcp2, with what was known when it came.
type Error struct {
	Code      int    // ngtcp2's number
	Text      string // ngtcp2's, or the TLS library's
	Transport uint64 // the error code of RFC 9000, Section 20.1, that tells the peer
	Alert     int    // of TLS, or -1
	Fatal     bool   // the Conn must not be used, except to write a close and be freed
}

func (e *Error) Error() string {
	if e.Alert >= 0 {
		return fmt.Sprintf("ngtcp2: %s (alert %d)", e.Text, e.Alert)
	}
	return "ngtcp2: " + e.Text
}

// Is matches any *Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// ErrNotRetryToken is what [VerifyRetryToken] says of a token that was not made
// by [WriteRetry]; it may be one of [NewRegularToken].
var ErrNotRetryToken = errors.New("ngtcp2: not a Retry token")

func goError(e *C.aq_error) *Error {
	if e.code == 0 {
		return nil
	}
	return &Error{
		Code:      int(e.code),
		Text:      C.GoString((*C.char)(unsafe.Pointer(&e.text[0]))),
		Transport: uint64(e.transport),
		Alert:     int(e.alert),
		Fatal:     e.fatal != 0,
	}
}

// codeError is for calls that know no more than a number.
func codeError(code C.int) *Error {
	return &Error{Code: int(code), Text: C.GoString(C.aq_strerror(code)), Alert: -1}
}
