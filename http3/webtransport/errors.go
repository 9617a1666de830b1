package webtransport

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/anyquic/anyquic/transport"
)

// Error codes that HTTP/3 sees.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-9.5
const (
	codeBufferedStreamRejected transport.ErrorCode = 0x3994bd84
	codeSessionGone            transport.ErrorCode = 0x170d7b68
	codeRequirementsNotMet     transport.ErrorCode = 0x212c0d48
	codeALPN                   transport.ErrorCode = 0x0817b3dd

	// firstCode to lastCode carry the codes of applications.
	firstCode transport.ErrorCode = 0x52e4a40fa8db
	lastCode  transport.ErrorCode = 0x52e5ac983162
)

// toHTTP maps a code of the application into HTTP/3's space. What it leaves
// out are the code points that HTTP/3 reserves for greasing.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-4.4
func toHTTP(code uint32) transport.ErrorCode {
	n := transport.ErrorCode(code)
	return firstCode + n + n/0x1e
}

// fromHTTP is the opposite of toHTTP. It reports false for a code that is not an
// application's.
func fromHTTP(code transport.ErrorCode) (uint32, bool) {
	if code < firstCode || code > lastCode || (code-0x21)%0x1f == 0 {
		return 0, false
	}
	n := code - firstCode
	return uint32(n - n/0x1f), true
}

// clampCode is the application's code of a call that takes 62 bits.
func clampCode(code transport.ErrorCode) uint32 { return uint32(min(code, 1<<32-1)) }

// ErrSessionLimit means that the connection carries as many sessions as the
// server, or Config.MaxSessions, allows.
var ErrSessionLimit = errors.New("webtransport: no further session on this connection")

// A SessionError says why a session ended. It is the cause of [Session.Context],
// and what all calls on the session and its streams return from then on. It
// matches [net.ErrClosed], and by errors.As Err, or if that is nil a
// [*transport.ApplicationError] with the same Code, Reason and Remote.
type SessionError struct {
	Code   uint32 // of the application
	Reason string
	Remote bool  // the peer ended it
	Err    error // not nil if it was not closed but lost: with the connection, its CONNECT stream, or for a broken rule
}

func (e *SessionError) Error() string {
	if e.Err != nil {
		return "webtransport: session lost: " + e.Err.Error()
	}
	by := "local"
	if e.Remote {
		by = "remote"
	}
	s := fmt.Sprintf("webtransport: session closed by %s: code %d", by, e.Code)
	if e.Reason != "" {
		s += fmt.Sprintf(": %q", e.Reason)
	}
	return s
}

// Is reports whether target is a SessionError with the same code and kind of end.
func (e *SessionError) Is(target error) bool {
	t, ok := target.(*SessionError)
	return ok && t.Code == e.Code && (t.Err == nil) == (e.Err == nil)
}

func (e *SessionError) Unwrap() []error {
	if e.Err != nil {
		return []error{net.ErrClosed, e.Err}
	}
	return []error{&transport.ApplicationError{Code: transport.ErrorCode(e.Code), Reason: e.Reason, Remote: e.Remote}}
}

// A StreamError ends one direction of a stream: one side cancelled it. By
// errors.As and errors.Is it matches a [*transport.StreamError] with the
// application's code.
type StreamError struct {
	StreamID transport.StreamID
	Code     uint32 // of the application; 0 if HTTP3 is not one of an application
	Remote   bool
	HTTP3    transport.ErrorCode // what was on the wire
}

func (e *StreamError) Error() string {
	by := "local"
	if e.Remote {
		by = "remote"
	}
	s := fmt.Sprintf("webtransport: stream %d cancelled by %s: ", e.StreamID, by)
	switch _, app := fromHTTP(e.HTTP3); {
	case app:
		return s + fmt.Sprintf("code %d", e.Code)
	case e.HTTP3 == codeSessionGone:
		return s + "the session is gone"
	case e.HTTP3 == codeBufferedStreamRejected:
		return s + "no session, or too many streams wait"
	default:
		return s + fmt.Sprintf("HTTP/3 error %#x", uint64(e.HTTP3))
	}
}

func (e *StreamError) Unwrap() error {
	return &transport.StreamError{StreamID: e.StreamID, Code: transport.ErrorCode(e.Code), Remote: e.Remote}
}

// A StatusError is the server's refusal of a session.
type StatusError struct {
	StatusCode int
	Header     http.Header
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("webtransport: the server answered %d %s", e.StatusCode, http.StatusText(e.StatusCode))
}

// A RequirementsError means that the peer, or the connection, cannot carry
// sessions. It matches [errors.ErrUnsupported].
type RequirementsError struct{ Missing string }

func (e *RequirementsError) Error() string { return "webtransport: no " + e.Missing }
func (e *RequirementsError) Unwrap() error { return errors.ErrUnsupported }
