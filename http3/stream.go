package http3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/transport"
)

const (
	// readChunk is what is read at once when a head is awaited, and for
	// Reads that are smaller than directRead. Both in bytes.
	readChunk  = 4 << 10
	directRead = 1 << 10

	// maxIdleEvents bounds the memory for events that a stream keeps: a peer may
	// send frames of one byte.
	maxIdleEvents = 64

	// writeJoin is how much content is copied behind the head of its frame: two
	// Writes to the stream would be two packets, and a large one has much more to
	// do than to copy. In bytes.
	writeJoin = 64 << 10

	// smallOut and largeOut are what is encoded into before it is written, for
	// messages that are small and for those that are not. In bytes.
	smallOut = 4 << 10
	largeOut = writeJoin + 16
)

var (
	readChunks = sync.Pool{New: func() any { return new([readChunk]byte) }}
	smallOuts  = sync.Pool{New: func() any { return new([smallOut]byte) }}
	largeOuts  = sync.Pool{New: func() any { return new([largeOut]byte) }}
)

// A Stream is the content of a message in both directions: what is written is
// sent in DATA frames, what is read comes from them. Read returns io.EOF after
// the peer's last byte; trailers are read on the way.
//
// A server's handler gets it from [TakeStream], a client from
// [ResponseStream]. One goroutine may read and one may write at a time; all other
// methods may be called from any goroutine.
type Stream struct {
	conn  *Conn
	qs    transport.Stream
	codec streamCodec

	// Reading.
	readMu   sync.Mutex
	chunk    *[readChunk]byte // nil unless an event points into it
	events   []event          // decoded and not yet consumed: those from next on
	next     int
	fed      bool  // the end of the stream was passed to the codec
	headRead bool  // what fails now comes after the head
	readErr  error // every later Read returns it
	counter  contentCounter
	counted  bool              // the content ends where content-length says
	trailers func(http.Header) // called with what came after the content

	// Writing.
	writeMu  sync.Mutex
	out      []byte          // encoded and not yet written
	small    *[smallOut]byte // of smallOuts, or nil; out may be in it
	writeErr error           // every later Write returns it
	closed   bool

	// rejected is set before the stream is cancelled because the peer said
	// that it did not process the request.
	rejected atomic.Bool

	prioMu      sync.Mutex
	prioritised bool // by SetPriority; guarded by prioMu

	datagrams datagramQueue
	endOnce   sync.Once
	ended     func() // called once by end; nil: nothing to do
	holds     bool   // the codec, until end: see holdCodec
}

func (c *Conn) newStream(qs transport.Stream) *Stream {
	return &Stream{conn: c, qs: qs, codec: c.codec.request(qs.StreamID()), counter: contentCounter{declared: -1}}
}

// StreamID returns the stream's number within the connection.
func (s *Stream) StreamID() transport.StreamID { return s.qs.StreamID() }

// Conn returns the connection.
func (s *Stream) Conn() *Conn { return s.conn }

// Context is done when nothing can be written any more: after Close, or when
// the peer or the connection has ended the stream.
func (s *Stream) Context() context.Context { return s.qs.Context() }

// SetReadDeadline bounds pending and future Reads. Zero removes the bound.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.qs.SetReadDeadline(t) }

// SetWriteDeadline bounds pending and future Writes. A Write that it ends has
// broken the framing: the stream is reset. Zero removes the bound.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error { return s.qs.SetDeadline(t) }

// CancelRead asks the peer to stop sending and makes Read fail.
func (s *Stream) CancelRead(code transport.ErrorCode) { s.qs.CancelRead(code) }

// CancelWrite abandons what is not yet sent and makes Write fail.
func (s *Stream) CancelWrite(code transport.ErrorCode) { s.qs.CancelWrite(code) }

// cancelUnclosed is CancelWrite, but after Close it leaves alone what is still
// to be delivered.
func (s *Stream) cancelUnclosed(code transport.ErrorCode) {
	if s.writeMu.TryLock() { // otherwise a Write is under way
		defer s.writeMu.Unlock()
		if s.closed {
			return
		}
	}
	s.CancelWrite(code)
}

// SetPriority orders what this side sends on the stream.
func (s *Stream) SetPriority(p transport.Priority) {
	s.prioMu.Lock()
	defer s.prioMu.Unlock()
	s.prioritised = true
	s.qs.SetPriority(p)
}

// defaultPriority is SetPriority for a stream that nobody has said anything of. What
// is sent at once needs none.
func (s *Stream) defaultPriority() {
	s.prioMu.Lock()
	defer s.prioMu.Unlock()
	if !s.prioritised {
		s.prioritised = true
		s.qs.SetPriority(defaultPriority)
	}
}

// abort ends both directions.
func (s *Stream) abort(code transport.ErrorCode) {
	s.qs.CancelRead(code)
	s.qs.CancelWrite(code)
}

// end releases what the stream holds. Later calls do nothing.
func (s *Stream) end() {
	s.endOnce.Do(func() {
		s.conn.forgetDatagrams(s)
		s.codec.close()
		s.releaseCodec()
		if s.ended != nil {
			s.ended()
		}
	})
}

// feed reads once into p and decodes it. readMu is held.
func (s *Stream) feed(p []byte) error {
	if cap(s.events) > maxIdleEvents {
		s.events, s.next = nil, 0 // Read may wait for long
	}
	n, err := s.qs.Read(p)
	fin := errors.Is(err, io.EOF)
	if err != nil && !fin {
		if n == 0 && s.complete(err) {
			s.fed = true
			s.events, s.next = append(s.events[:0], event{kind: eventEnd}), 0
			return nil
		}
		err = wrap(err)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			s.readErr = err
		}
		if n == 0 {
			return err
		}
	}
	if fin && s.fed {
		return io.EOF
	}
	s.fed = fin
	clear(s.events)
	s.next = 0
	s.events, err = s.codec.receive(p[:n], fin, s.events[:0])
	s.conn.flushLater()
	if err != nil {
		return s.fail(err)
	}
	return nil
}

// complete reports whether a message whose last byte was read can do without the end
// of its stream, because the connection has ended instead. readMu is held.
func (s *Stream) complete(err error) bool {
	if !s.counted || s.fed || s.counter.declared < 0 || s.counter.end() != nil || s.conn.qc.Context().Err() == nil {
		return false
	}
	_, cancelled := errors.AsType[*transport.StreamError](err)
	return !cancelled && errors.Is(err, net.ErrClosed)
}

// fail ends the stream, or the connection, for what the peer did, or for what
// this side cannot do. readMu is held.
func (s *Stream) fail(err error) error {
	s.readErr = err
	if e, ok := errors.AsType[*Error](err); ok {
		switch {
		case e.Conn:
			s.conn.fail(e)
		case errors.Is(e.Err, errFieldsTooLarge) && !s.conn.client && !s.headRead && len(s.events) == 0:
			s.qs.CancelRead(e.Code) // the response says why
		default:
			s.abort(e.Code)
		}
	}
	return err
}

// nextEvent returns the next event, which it reads if need be. readMu is held.
func (s *Stream) nextEvent() (event, error) {
	for {
		if s.next < len(s.events) {
			e := s.events[s.next]
			s.next++
			return e, nil
		}
		if s.readErr != nil {
			return event{}, s.readErr
		}
		if s.chunk == nil {
			s.chunk = readChunks.Get().(*[readChunk]byte)
		}
		if err := s.feed(s.chunk[:]); err != nil {
			if s.next == len(s.events) {
				s.releaseChunk()
			}
			return event{}, err
		}
	}
}

func (s *Stream) releaseChunk() {
	if s.chunk != nil {
		readChunks.Put(s.chunk)
		s.chunk = nil
	}
}

// readHead returns the next event, which is a head, or a taken stream.
func (s *Stream) readHead() (event, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	e, err := s.nextEvent()
	s.headRead = s.headRead || err == nil
	return e, err
}

// malformed ends the stream for a message that breaks a rule.
func (s *Stream) malformed(err error) error {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	return s.fail(err)
}

// atEnd reports whether the stream is known to have ended, without waiting.
// The read deadline is removed.
func (s *Stream) atEnd() bool {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if s.next == len(s.events) && s.readErr == nil {
		_ = s.qs.SetReadDeadline(time.Unix(1, 0)) // an ended stream has none
		if s.chunk == nil {
			s.chunk = readChunks.Get().(*[readChunk]byte)
		}
		_ = s.feed(s.chunk[:]) // it is kept if it matters
		_ = s.qs.SetReadDeadline(time.Time{})
	}
	if s.next == len(s.events) {
		s.releaseChunk()
		return false
	}
	if s.events[s.next].kind != eventEnd || s.counter.end() != nil {
		return false
	}
	s.next++
	s.readErr = io.EOF
	s.releaseChunk()
	return true
}

// Read reads content. It returns io.EOF after the last byte.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for {
		n, err := s.consume(p)
		if n > 0 || err != nil {
			return n, err
		}
		if len(p) < directRead {
			if _, err := s.nextEvent(); err != nil {
				return 0, err
			}
			s.next-- // consume takes it
			continue
		}
		s.releaseChunk()
		if err := s.feed(p); err != nil && s.next == len(s.events) {
			return 0, err
		}
		// What came is content at the start of p, or can be moved there, since
		// the heads of frames are all that lies between.
		for s.next < len(s.events) && s.events[s.next].kind == eventData {
			n += copy(p[n:], s.events[s.next].data)
			s.next++
		}
		if n > 0 {
			return n, s.count(n)
		}
	}
}

// consume takes from the events that wait. It returns 0 and nil if there are
// none. readMu is held.
func (s *Stream) consume(p []byte) (n int, err error) {
	for s.next < len(s.events) {
		e := &s.events[s.next]
		if e.kind == eventData {
			m := copy(p[n:], e.data)
			n += m
			if m < len(e.data) {
				e.data = e.data[m:]
				return n, s.count(n)
			}
			s.next++
			continue
		}
		if n > 0 {
			return n, s.count(n)
		}
		s.next++
		switch e.kind {
		case eventTrailers:
			h, err := parseTrailers(e.fields)
			if err != nil {
				return 0, s.fail(err)
			}
			if s.trailers != nil {
				s.trailers(h)
			}
		case eventEnd:
			s.releaseChunk()
			if err := s.counter.end(); err != nil {
				return 0, s.fail(err)
			}
			s.readErr = io.EOF
			return 0, io.EOF
		default:
			return 0, s.fail(malformed("head within the content"))
		}
	}
	if n > 0 {
		return n, s.count(n)
	}
	return 0, s.readErr
}

// count compares what was read with content-length. readMu is held.
func (s *Stream) count(n int) error {
	if err := s.counter.add(n); err != nil {
		return s.fail(err)
	}
	return nil
}

// Write sends p as content. It blocks while flow control or congestion control
// allows no more to be buffered.
func (s *Stream) Write(p []byte) (int, error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, s.flushOut()
	}
	n := max(0, min(len(p), writeJoin-len(s.out)))
	if len(s.out)+n > smallOut-16 {
		large := largeOuts.Get().(*[largeOut]byte)
		defer largeOuts.Put(large) // flushOut has written it
		s.out = append(large[:0], s.out...)
	}
	s.out = append(s.codec.appendData(s.buffer(), len(p)), p[:n]...)
	if err := s.flushOut(); err != nil {
		return 0, err
	}
	if n < len(p) {
		m, err := s.qs.Write(p[n:])
		n += m
		if err != nil {
			return n, s.writeFailed(err)
		}
	}
	return n, nil
}

func (s *Stream) writable() error {
	if s.writeErr != nil {
		return s.writeErr
	}
	if s.closed {
		return errClosed
	}
	return nil
}

// bufferHeaders encodes a field section. It is written with what follows, or by
// flushHeaders. A section that the peer does not accept is an error.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
func (s *Stream) bufferHeaders(fields []field) error {
	if limit := s.conn.peerMaxFieldSection(); limit != unlimitedFieldSection {
		var size uint64
		for _, f := range fields {
			size += fieldSize(f)
		}
		if size > limit {
			return errPeerFieldLimit
		}
	}
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	s.out = s.codec.appendHeaders(s.buffer(), fields)
	return nil
}

// buffer returns out, with room for a small message. writeMu is held.
func (s *Stream) buffer() []byte {
	if s.out == nil {
		s.small = smallOuts.Get().(*[smallOut]byte)
		s.out = s.small[:0]
	}
	return s.out
}

// releaseOut is called when out is written, or will not be. writeMu is held.
func (s *Stream) releaseOut() {
	s.out = nil
	if s.small != nil {
		smallOuts.Put(s.small)
		s.small = nil
	}
}

// bufferContent is Write, but what it sends is written with what follows. It
// copies p.
func (s *Stream) bufferContent(p []byte) error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.writable(); err != nil || len(p) == 0 {
		return err
	}
	s.out = append(s.codec.appendData(s.buffer(), len(p)), p...)
	return nil
}

// flushHeaders writes what bufferHeaders left.
func (s *Stream) flushHeaders() error {
	_, err := s.Write(nil)
	return err
}

// flushOut writes what is encoded. writeMu is held.
func (s *Stream) flushOut() error {
	if len(s.out) == 0 {
		return nil
	}
	s.conn.flushLater()
	_, err := s.qs.Write(s.out)
	s.releaseOut()
	if err != nil {
		return s.writeFailed(err)
	}
	return nil
}

// writeFailed remembers the error. What was cut off in the middle of a frame
// cannot be continued. writeMu is held.
func (s *Stream) writeFailed(err error) error {
	s.writeErr = wrap(err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.qs.CancelWrite(ErrRequestCancelled)
	}
	return s.writeErr
}

// Close ends what this side sends; it does not wait until the peer has it. The
// other direction is unaffected.
func (s *Stream) Close() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if s.closed {
		return nil
	}
	if s.writeErr != nil {
		return s.writeErr
	}
	s.conn.flushLater()
	_, err := s.qs.WriteLast(s.out)
	s.releaseOut()
	if err != nil {
		return s.writeFailed(err)
	}
	s.closed = true
	return nil
}
