// Package websocket is WebSocket (RFC 6455) on every version of HTTP.
//
//	server: http.Handler -> Accept -> Conn
//	client: Dial -> Conn
//
// The handshake is an Upgrade in HTTP/1.1, and an extended CONNECT in HTTP/2
// (RFC 8441) and HTTP/3 (RFC 9220). What follows it is the same: messages, and
// frames that control the connection.
//
// # Reading
//
// Pings are answered, pongs and the peer's Close are noticed, while a Read
// waits: an application must read, or call Close.
//
// # HTTP/2
//
// The server of net/http offers extended CONNECT if the environment has
// GODEBUG=http2xconnect=1 when the program starts, which package
// http3/websocket/http2connect does when it is imported; otherwise clients
// stay with HTTP/1.1. A server's Conn that came over HTTP/2 ends when the handler
// returns; handlers that give their Conn away wait for its Context. The client
// of net/http refuses extended CONNECT; Dial uses that of golang.org/x/net/http2.
package websocket

import (
	"fmt"
	"time"
)

// A MessageType says what a message is.
type MessageType uint8

// Types of messages (RFC 6455, Section 5.6).
const (
	Text   MessageType = 1 // UTF-8
	Binary MessageType = 2
)

func (t MessageType) String() string {
	switch t {
	case Text:
		return "text"
	case Binary:
		return "binary"
	}
	return fmt.Sprintf("MessageType(%d)", uint8(t))
}

// A StatusCode says why a connection ended.
type StatusCode uint16

// Status codes, from the IANA registry. Codes from 3000 to 4999 are for
// libraries and applications. NoStatus and Abnormal are never sent: a Close frame
// without a code, and an end without a Close frame.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
const (
	StatusNormal             StatusCode = 1000
	StatusGoingAway          StatusCode = 1001
	StatusProtocolError      StatusCode = 1002
	StatusUnsupportedData    StatusCode = 1003
	StatusNoStatus           StatusCode = 1005
	StatusAbnormal           StatusCode = 1006
	StatusInvalidPayload     StatusCode = 1007
	StatusPolicyViolation    StatusCode = 1008
	StatusMessageTooBig      StatusCode = 1009
	StatusMandatoryExtension StatusCode = 1010
	StatusInternalError      StatusCode = 1011
	StatusServiceRestart     StatusCode = 1012
	StatusTryAgainLater      StatusCode = 1013
	StatusBadGateway         StatusCode = 1014
)

// onWire reports whether a Close frame may carry the code.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-7.4.2
func (c StatusCode) onWire() bool {
	switch {
	case c == 1004, c == StatusNoStatus, c == StatusAbnormal:
		return false
	case c >= StatusNormal && c <= StatusBadGateway, c >= 3000 && c <= 4999:
		return true
	}
	return false
}

const (
	// defaultReadLimit is the size of the largest message, in bytes, unless
	// options say otherwise.
	defaultReadLimit = 32 << 10

	// closeTimeout bounds the wait for room to send a Close frame, and then
	// the wait for the peer's.
	closeTimeout = 5 * time.Second

	defaultHeartbeat = 20 * time.Second
)

// A Heartbeat finds out that a peer has gone without a word: it sends a Ping
// every Interval, and ends the connection, with [ErrHeartbeat], when nothing at all
// has come for Timeout after one, while a Read waits. In both zero means 20s;
// less is an error. Options without a Heartbeat send no Pings.
type Heartbeat struct {
	Interval, Timeout time.Duration
}

// check returns the Heartbeat with its defaults, or nil if there is none.
func (h *Heartbeat) check() (*Heartbeat, error) {
	if h == nil {
		return nil, nil
	}
	if h.Interval < 0 || h.Timeout < 0 {
		return nil, fmt.Errorf("websocket: negative Heartbeat: %v, %v", h.Interval, h.Timeout)
	}
	c := *h
	if c.Interval == 0 {
		c.Interval = defaultHeartbeat
	}
	if c.Timeout == 0 {
		c.Timeout = defaultHeartbeat
	}
	return &c, nil
}
