package websocket

import (
	"errors"
	"fmt"
	"net"
	"net/http"
)

// ErrHeartbeat is why a connection ended whose peer did not answer; see
// [Heartbeat]. It is a net.Error, a timeout.
var ErrHeartbeat error = &heartbeatError{}

type heartbeatError struct{}

func (*heartbeatError) Error() string   { return "websocket: no answer to a ping" }
func (*heartbeatError) Timeout() bool   { return true }
func (*heartbeatError) Temporary() bool { return false }

// A CloseError is why a connection ended. It matches net.ErrClosed.
//
// With Remote, Code and Reason are those of the peer's Close frame. Without, they
// are what this side said: by Close, or because the peer broke a rule. The code
// StatusAbnormal means that there was no Close frame; Err has what came instead, of
// package http3 if that carries the connection, io.ErrUnexpectedEOF if the peer
// has just stopped, or the error of a context that ended during a Write.
type CloseError struct {
	Code   StatusCode
	Reason string // UTF-8, at most 123 bytes
	Remote bool
	Err    error // or nil
}

func (e *CloseError) Error() string {
	who := "closed"
	if e.Remote {
		who = "closed by the peer"
	}
	s := fmt.Sprintf("websocket: %s: %d", who, uint16(e.Code))
	if e.Reason != "" {
		s += fmt.Sprintf(" (%q)", e.Reason)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes the error match net.ErrClosed and Err.
func (e *CloseError) Unwrap() []error {
	if e.Err == nil {
		return []error{net.ErrClosed}
	}
	return []error{net.ErrClosed, e.Err}
}

// A HandshakeError is why there is no connection: the other side's answer, or
// its request, is not what it should be.
type HandshakeError struct {
	// StatusCode and Header are of the response; Body is its start, at most
	// 1 KiB. StatusCode is zero if there was no response.
	StatusCode int
	Header     http.Header
	Body       []byte

	Reason string
	Err    error // or nil
}

func (e *HandshakeError) Error() string {
	s := "websocket: handshake: " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *HandshakeError) Unwrap() error { return e.Err }

// errVersion2 is what Dial says about clients that do not send a :protocol.
var errVersion2 = fmt.Errorf("http.Transport sends no extended CONNECT: %w", errors.ErrUnsupported)
