package client

import (
	"errors"
	"fmt"
	"net"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// ErrClosed is returned by calls on a Client that ended by Disconnect or Close.
// It matches net.ErrClosed.
var ErrClosed error = &closedError{"client: closed"}

// ErrNoSubscribers is what [Client.Request] returns if the server says that
// nobody has subscribed to the topic.
var ErrNoSubscribers = errors.New("client: request: no matching subscribers")

// ErrKeepAlive is why a connection ended whose server did not answer a PINGREQ.
// It is a net.Error whose Timeout is true.
var ErrKeepAlive error = &timeoutError{"client: connection lost: no answer within the keep-alive"}

type closedError struct{ s string }

func (e *closedError) Error() string        { return e.s }
func (e *closedError) Is(target error) bool { return target == net.ErrClosed }

type timeoutError struct{ s string }

func (e *timeoutError) Error() string   { return e.s }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// A ConnectError is a server's refusal of a connection (CONNACK). The return
// codes of MQTT 3.x are translated to the reason codes of MQTT 5.
type ConnectError struct {
	Code            packet.ReasonCode
	Reason          string // what the server says about it, may be empty
	ServerReference string // another server to use, with ServerMoved and UseAnotherServer
}

func (e *ConnectError) Error() string {
	return "client: connection refused: " + describe(e.Code, e.Reason, e.ServerReference)
}

// A DisconnectError is a DISCONNECT packet of the server. It matches
// net.ErrClosed.
type DisconnectError struct {
	Code            packet.ReasonCode
	Reason          string // what the server says about it, may be empty
	ServerReference string // another server to use, with ServerMoved and UseAnotherServer
}

func (e *DisconnectError) Error() string {
	return "client: disconnected by the server: " + describe(e.Code, e.Reason, e.ServerReference)
}

// Is reports whether target is net.ErrClosed.
func (e *DisconnectError) Is(target error) bool { return target == net.ErrClosed }

// A ProtocolError is a violation of MQTT by the server. The client has ended the
// connection with Code.
type ProtocolError struct {
	Code   packet.ReasonCode
	Reason string
}

func (e *ProtocolError) Error() string {
	return "client: protocol violation by the server: " + describe(e.Code, e.Reason, "")
}

// A ConnectionError is the loss of a network connection, or an attempt that
// failed before the server answered. Err is the network's reason; io.EOF if the
// server closed without a word.
type ConnectionError struct {
	Op  string // "dial", "connect", "read", "write"
	Err error
}

func (e *ConnectionError) Error() string { return "client: " + e.Op + ": " + e.Err.Error() }
func (e *ConnectionError) Unwrap() error { return e.Err }

// A PublishState says what became of a message that was not acknowledged.
type PublishState uint8

const (
	// NotSent means that the server cannot have seen the message.
	NotSent PublishState = iota
	// MaybeSent means that the server may have got the message. It may still
	// be sent: a context that ends does not take back a message in flight.
	MaybeSent
	// Refused means that the server refused the message, with Code.
	Refused
	// Kept means that the message is in the queue's file, sent before or not. A
	// Client that is made with that file sends it.
	Kept
	// Acknowledged means that the server has the message. No error says so.
	Acknowledged
)

func (s PublishState) String() string {
	switch s {
	case NotSent:
		return "not sent"
	case MaybeSent:
		return "maybe sent"
	case Refused:
		return "refused by the server"
	case Kept:
		return "kept in the queue's file"
	case Acknowledged:
		return "acknowledged"
	}
	return fmt.Sprintf("PublishState(%d)", uint8(s))
}

// A PublishError says what became of a message. If the server announced that it
// would not take such a message, then State is NotSent and Code is what it would
// have answered, for example packet.QoSNotSupported.
type PublishError struct {
	State  PublishState
	Code   packet.ReasonCode // 0: none
	Reason string            // may be empty
	Err    error             // why: a context's error, ErrClosed, the connection's; may be nil
}

func (e *PublishError) Error() string {
	s := "client: publish: " + e.State.String()
	if e.Code != 0 || e.Reason != "" {
		s += ": " + describe(e.Code, e.Reason, "")
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *PublishError) Unwrap() error { return e.Err }

// Is reports whether target is the error of e's State.
func (e *PublishError) Is(target error) bool {
	switch target {
	case ErrNotSent:
		return e.State == NotSent
	case ErrMaybeSent:
		return e.State == MaybeSent
	case ErrRefused:
		return e.State == Refused
	case ErrKept:
		return e.State == Kept
	}
	return false
}

// What a [*PublishError] matches, by its State. A message that is not valid matches
// none of them; [StateOf] knows it too.
var (
	ErrNotSent   = errors.New("client: not sent")
	ErrMaybeSent = errors.New("client: maybe sent")
	ErrRefused   = errors.New("client: refused by the server")
	ErrKept      = errors.New("client: kept in the queue's file")
)

// A SubscribeError is a subscription, or the end of one, that was refused: by the
// server or, before anything was sent, because the server announced that it
// would.
type SubscribeError struct {
	Filter string // the first one that was refused
	Code   packet.ReasonCode
	Reason string // may be empty
}

func (e *SubscribeError) Error() string {
	return fmt.Sprintf("client: subscription refused: %q: %s", e.Filter, describe(e.Code, e.Reason, ""))
}

// Retryable is the default of [Backoff].Retry. It is false for what waiting cannot
// cure: another client took over the session, the server moved for good, banned
// this client, or does not speak its version of MQTT; and for a CONNECT that the
// server will never accept.
func Retryable(err error) bool {
	var code packet.ReasonCode
	var refused *ConnectError
	var disconnected *DisconnectError
	switch {
	case errors.As(err, &refused):
		switch refused.Code {
		case packet.MalformedPacket, packet.ProtocolError, packet.TopicNameInvalid,
			packet.PacketTooLarge, packet.PayloadFormatInvalid, packet.RetainNotSupported,
			packet.QoSNotSupported, packet.ClientIDNotValid, packet.BadAuthenticationMethod:
			return false
		}
		code = refused.Code
	case errors.As(err, &disconnected):
		code = disconnected.Code
	}
	switch code {
	case packet.SessionTakenOver, packet.ServerMoved, packet.Banned, packet.UnsupportedProtocolVersion:
		return false
	}
	return true
}

func describe(code packet.ReasonCode, reason, server string) string {
	s := fmt.Sprintf("%v (0x%02x)", code, uint8(code))
	if reason != "" {
		s += ": " + reason
	}
	if server != "" {
		s += ": use " + server
	}
	return s
}

// StateOf says what became of a message from the error of its Publish, PublishAsync
// or done function. Nil is [Acknowledged]; for a message with QoS 0 that means that
// it was handed over. An error that is no [*PublishError] is about a message that is
// not valid, which was not sent.
func StateOf(err error) PublishState {
	var e *PublishError
	switch {
	case err == nil:
		return Acknowledged
	case errors.As(err, &e):
		return e.State
	}
	return NotSent
}
