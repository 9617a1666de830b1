//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
import "C"

import "unsafe"

// An EventType says what an [Event] is about.
type EventType uint32

const (
	HandshakeCompleted = EventType(C.AQ_EVENT_HANDSHAKE_COMPLETED)
	HandshakeConfirmed = EventType(C.AQ_EVENT_HANDSHAKE_CONFIRMED)
	ClientHello        = EventType(C.AQ_EVENT_CLIENT_HELLO) // now StartServerTLS or FailHandshake
	StreamOpened       = EventType(C.AQ_EVENT_STREAM_OPENED)
	Readable           = EventType(C.AQ_EVENT_READABLE)        // once, until RecvChunks
	Writable           = EventType(C.AQ_EVENT_WRITABLE)        // after a Write that took less than it was given
	StreamReset        = EventType(C.AQ_EVENT_STREAM_RESET)    // Code; what was unread is gone
	StopSending        = EventType(C.AQ_EVENT_STOP_SENDING)    // Code; the stream is reset already
	StreamFinished     = EventType(C.AQ_EVENT_STREAM_FINISHED) // all that was sent and FIN are acknowledged
	StreamClosed       = EventType(C.AQ_EVENT_STREAM_CLOSED)   // both directions have ended
	StreamsBidi        = EventType(C.AQ_EVENT_STREAMS_BIDI)    // Code: how many may be opened in all
	StreamsUni         = EventType(C.AQ_EVENT_STREAMS_UNI)
	Datagram           = EventType(C.AQ_EVENT_DATAGRAM) // once, until RecvDatagram has nothing
	ConnIDAdded        = EventType(C.AQ_EVENT_CONN_ID_ADDED)
	ConnIDRemoved      = EventType(C.AQ_EVENT_CONN_ID_REMOVED)
	ResetTokenAdded    = EventType(C.AQ_EVENT_RESET_TOKEN_ADDED)
	ResetTokenRemoved  = EventType(C.AQ_EVENT_RESET_TOKEN_REMOVED)
	NewToken           = EventType(C.AQ_EVENT_NEW_TOKEN)
	Session            = EventType(C.AQ_EVENT_SESSION)
	EarlyDataRejected  = EventType(C.AQ_EVENT_EARLY_DATA_REJECTED) // all streams are dead, their IDs free again
	PathValidated      = EventType(C.AQ_EVENT_PATH_VALIDATED)      // Code: 1 it works, 0 it does not; see RemotePath
	StatelessReset     = EventType(C.AQ_EVENT_STATELESS_RESET)
)

// An Event is something that happened to a connection. Its fields mean
// something where the type says so.
type Event struct {
	Stream int64
	Code   uint64
	Type   EventType
	CIDLen uint8
	CID    [C.AQ_MAX_CID]byte
	Token  [C.AQ_TOKEN]byte
	_      [7]byte
}

// Go reads C's events in place: an array of negative length does not compile.
var (
	_ [unsafe.Sizeof(Event{}) - C.sizeof_aq_event]byte
	_ [C.sizeof_aq_event - unsafe.Sizeof(Event{})]byte
	_ [unsafe.Offsetof(Event{}.CID) - unsafe.Offsetof(C.aq_event{}.cid)]byte
	_ [unsafe.Offsetof(C.aq_event{}.token) - unsafe.Offsetof(Event{}.Token)]byte
	_ [unsafe.Offsetof(Event{}.Token) - unsafe.Offsetof(C.aq_event{}.token)]byte
)

// Events are what has happened since ClearEvents, a view that is valid until
// the next call on c.
func (c *Conn) Events() []Event {
	if c.c == nil || c.c.nevents == 0 {
		return nil
	}
	return unsafe.Slice((*Event)(unsafe.Pointer(c.c.events)), int(c.c.nevents))
}

// ClearEvents forgets the events; the caller has handled them all.
func (c *Conn) ClearEvents() {
	if c.c != nil {
		c.c.nevents = 0
	}
}
