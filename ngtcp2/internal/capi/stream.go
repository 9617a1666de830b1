//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
//
// #cgo noescape aq_stream_open
// #cgo nocallback aq_stream_open
// #cgo noescape aq_stream_remote
// #cgo nocallback aq_stream_remote
// #cgo noescape aq_stream_write
// #cgo nocallback aq_stream_write
// #cgo noescape aq_stream_finish
// #cgo nocallback aq_stream_finish
// #cgo noescape aq_stream_reset
// #cgo nocallback aq_stream_reset
// #cgo noescape aq_stream_stop_sending
// #cgo nocallback aq_stream_stop_sending
// #cgo noescape aq_stream_set_priority
// #cgo nocallback aq_stream_set_priority
// #cgo noescape aq_stream_release
// #cgo nocallback aq_stream_release
// #cgo noescape aq_chunks_free
// #cgo nocallback aq_chunks_free
import "C"

import "unsafe"

// A Stream is a stream of a Conn. After FreeStream, and after Free of the Conn,
// its methods do nothing.
type Stream struct {
	conn *Conn
	s    *C.aq_stream
	id   int64
}

// OpenStream opens a stream, or returns nil, nil if the peer allows no more for
// now: event StreamsBidi or StreamsUni.
func (c *Conn) OpenStream(uni bool) (*Stream, error) {
	if c.c == nil {
		return nil, errFreed
	}
	var s *C.aq_stream
	rv := C.aq_stream_open(c.c, C.int(cBool(uni)), &s)
	if rv == C.int(ErrStreamIDBlocked) {
		return nil, nil
	}
	if rv != 0 {
		return nil, c.result(rv)
	}
	return &Stream{conn: c, s: s, id: int64(s.id)}, nil
}

// AddRemoteStream returns the handle of a peer's stream, either of the event
// StreamOpened or of one with a lower ID, which is then open too (RFC 9000,
// Section 2.1). It is nil if there is no memory or the ID is not the peer's.
func (c *Conn) AddRemoteStream(id int64) *Stream {
	if c.c == nil {
		return nil
	}
	s := C.aq_stream_remote(c.c, C.int64_t(id))
	if s == nil {
		return nil
	}
	return &Stream{conn: c, s: s, id: id}
}

func (s *Stream) live() bool { return s.s != nil && s.conn.c != nil }

// ID is the stream's number.
func (s *Stream) ID() int64 { return s.id }

// Write copies as much of p as the stream's buffer takes. If that is not all,
// the event Writable follows. Nothing is taken after Finish and Reset.
func (s *Stream) Write(p []byte) int {
	if !s.live() || len(p) == 0 {
		return 0
	}
	return int(C.aq_stream_write(s.s, bytesPtr(p), C.size_t(len(p))))
}

// Finish sends FIN behind what was written.
func (s *Stream) Finish() {
	if s.live() {
		C.aq_stream_finish(s.s)
	}
}

// Reset gives up sending, and what was not sent.
func (s *Stream) Reset(code uint64) {
	if s.live() {
		C.aq_stream_reset(s.s, C.uint64_t(code))
	}
}

// StopSending gives up receiving, and what was not read.
func (s *Stream) StopSending(code uint64) {
	if s.live() {
		C.aq_stream_stop_sending(s.s, C.uint64_t(code))
	}
}

// SetPriority is RFC 9218: urgency 0 is sent first, 7 last; incremental
// streams of one urgency share what there is.
func (s *Stream) SetPriority(urgency uint8, incremental bool) {
	if s.live() {
		C.aq_stream_set_priority(s.s, C.uint32_t(urgency), C.int(cBool(incremental)))
	}
}

// SendDone says that the peer has acknowledged all data and FIN.
func (s *Stream) SendDone() bool { return s.live() && s.s.send_done != 0 }

// A Chunk is stream data in C memory.
type Chunk C.aq_chunk

// Bytes is the data, valid until the chunk is given back.
func (ch *Chunk) Bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(ch), C.sizeof_aq_chunk)), int(ch.len))
}

// Next is the following chunk, or nil.
func (ch *Chunk) Next() *Chunk { return (*Chunk)(ch.next) }

// RecvChunks detaches all that has come: a list of chunks that now belongs to
// the caller, nil if there is nothing. They go back by Recycle or FreeChunks.
func (s *Stream) RecvChunks() *Chunk {
	if !s.live() {
		return nil
	}
	head := s.s.rx_head
	s.s.rx_head, s.s.rx_tail = nil, nil
	s.s.readable = 0
	return (*Chunk)(head)
}

// Recycle takes back a list of chunks, for reuse.
func (c *Conn) Recycle(ch *Chunk) {
	if ch == nil {
		return
	}
	if c.c == nil {
		FreeChunks(ch)
		return
	}
	last := ch
	for last.next != nil {
		last = (*Chunk)(last.next)
	}
	last.next = c.c.recycled
	c.c.recycled = (*C.aq_chunk)(ch)
}

// FreeChunks takes back a list of chunks. It may be called at any time from any
// goroutine.
func FreeChunks(ch *Chunk) {
	if ch != nil {
		C.aq_chunks_free((*C.aq_chunk)(ch))
	}
}

// Consumed says that n more bytes of what came were used, which lets the peer
// send as many. C tells it at the next WritePackets; due says that enough has
// gathered for the peer to wait for that.
func (s *Stream) Consumed(n int) (due bool) {
	if n <= 0 || !s.live() {
		return false
	}
	st, c := s.s, s.conn.c
	st.consumed += C.uint64_t(n)
	c.consumed += C.uint64_t(n)
	if st.credit_linked == 0 {
		st.credit_linked = 1
		st.credit_next = c.credit
		c.credit = st
	}
	return st.consumed >= st.credit_step || c.consumed >= c.credit_step
}

// RecvFinished says that FIN has come and everything before it is detached.
func (s *Stream) RecvFinished() bool {
	return s.live() && s.s.rx_fin != 0 && s.s.rx_head == nil
}

// FreeStream says that s will not be used again. It comes after the event
// StreamClosed, and gives its place to another stream of the peer. raised says that
// the next WritePackets has to tell the peer how many it may open: for every so many
// places, or when few are left.
func (s *Stream) FreeStream() (raised bool) {
	if s.live() {
		C.aq_stream_release(s.s)
		raised = s.conn.c.raised != 0
	}
	s.s = nil
	return raised
}
