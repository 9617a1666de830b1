package packet

import (
	"fmt"
	"strings"
)

// An Error is a packet that breaks the specification: one that was received and
// must be answered with Code, or one that Append refuses to send.
type Error struct {
	// Code is what the DISCONNECT, or the CONNACK, that answers the packet
	// carries: [MalformedPacket], [ProtocolError] or a more special one
	// (MQTT 5, Section 4.13).
	Code ReasonCode

	// Reason says what is wrong and in which field: "PUBLISH: packet identifier
	// is zero". It never quotes what the peer sent.
	Reason string
}

func (e *Error) Error() string {
	return "mqtt: " + strings.ToLower(e.Code.String()) + ": " + e.Reason
}

// malformed is the error for bytes that cannot be parsed as the specification
// says (MQTT 5, Section 4.13.1).
func malformed(format string, args ...any) *Error {
	return &Error{MalformedPacket, fmt.Sprintf(format, args...)}
}

// violation is the error for what the specification calls a Protocol Error.
func violation(format string, args ...any) *Error {
	return &Error{ProtocolError, fmt.Sprintf(format, args...)}
}

// A ConnectError is a CONNECT packet that was refused. It says, besides what an
// [Error] says, how to answer: a server that cannot decode the CONNECT does not
// otherwise know which version of MQTT the client would understand.
type ConnectError struct {
	Err *Error

	// Version is the version to answer in. It is the client's if we speak it; if
	// not, the nearest that we speak: 3.1.1 for levels below 5, and 5 for later
	// ones. It is zero if the packet does not say that it is MQTT.
	Version Version
}

func (e *ConnectError) Error() string { return e.Err.Error() }
func (e *ConnectError) Unwrap() error { return e.Err }

// Connack returns the CONNACK to send before closing, or nil if there is none
// to send: MQTT 3.1.1 has no return code for a packet that breaks the protocol,
// and who does not speak MQTT gets no answer in it. [MQTT-3.1.2-1],
// [MQTT-3.1.2-2], [MQTT-3.1.4-1]; MQTT 3.1.1, Section 3.1.4, [MQTT-3.2.2-6].
func (e *ConnectError) Connack() *Connack {
	switch e.Version {
	case V31, V311:
		if _, ok := e.Err.Code.ReturnCode(); !ok {
			return nil
		}
	case V5:
		if !e.Err.Code.AllowedIn(CONNACK) {
			return nil
		}
	default:
		return nil
	}
	return &Connack{Code: e.Err.Code}
}
