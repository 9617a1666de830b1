//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
//
// #cgo noescape aq_datagram_send
// #cgo nocallback aq_datagram_send
// #cgo noescape aq_datagram_max
// #cgo nocallback aq_datagram_max
// #cgo noescape aq_datagram_peek
// #cgo nocallback aq_datagram_peek
// #cgo noescape aq_datagram_pop
// #cgo nocallback aq_datagram_pop
import "C"

// SendDatagram queues a message. It is false if the message is larger than
// MaxDatagram or there is no memory; if the queue is full its oldest message is
// dropped and counted.
func (c *Conn) SendDatagram(p []byte) (ok bool) {
	return c.c != nil && C.aq_datagram_send(c.c, bytesPtr(p), C.size_t(len(p))) == 0
}

// MaxDatagram is how large a message may be to fit into a packet of now; 0 if
// the peer takes none, or has not said so yet.
func (c *Conn) MaxDatagram() int {
	if c.c == nil {
		return 0
	}
	return int(C.aq_datagram_max(c.c))
}

// RecvDatagram returns a copy of the oldest message that has come. The empty
// message is a message: look at ok.
func (c *Conn) RecvDatagram() (p []byte, ok bool) {
	if c.c == nil {
		return nil, false
	}
	var n C.size_t
	data := C.aq_datagram_peek(c.c, &n)
	if data == nil {
		return nil, false
	}
	p = make([]byte, int(n))
	copy(p, cBytes(data, n))
	C.aq_datagram_pop(c.c)
	return p, true
}

// DatagramCounters are messages that were put into packets, that came and were
// kept, and that a full queue or a path that became narrower dropped.
func (c *Conn) DatagramCounters() (sent, received, dropped uint64) {
	if c.c == nil {
		return c.last.datagramsSent, c.last.datagramsReceived, c.last.datagramsDropped
	}
	return uint64(c.c.datagrams_sent), uint64(c.c.datagrams_received), uint64(c.c.datagrams_dropped)
}
