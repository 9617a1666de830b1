package purego

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/transport"
)

// A life counts a stream as open until all its directions have ended.
type life struct {
	count *streamCount
	left  atomic.Int32 // directions
}

func (l *life) begin(c *conn, directions int32) {
	l.count = c.streams.Load()
	l.count.open.Add(1)
	l.left.Store(directions)
}

func (l *life) endDirection() {
	if l.left.Add(-1) == 0 {
		l.count.open.Add(-1)
	}
}

// A quicReceiver is a *quic.ReceiveStream or a *quic.Stream.
type quicReceiver interface {
	io.Reader
	CancelRead(quic.StreamErrorCode)
	SetReadDeadline(time.Time) error
	StreamID() quic.StreamID
}

// A receiveStream is the receiving direction of a stream.
type receiveStream struct {
	c     *conn
	qs    quicReceiver
	life  *life
	ended atomic.Bool
	read  atomic.Uint64 // bytes
}

func (s *receiveStream) Read(p []byte) (int, error) {
	n, err := s.qs.Read(p)
	if n > 0 {
		s.read.Add(uint64(n))
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		s.end()
		if n > 0 {
			return n, nil // the next Read returns io.EOF
		}
		return 0, io.EOF
	}
	if _, cancelled := errors.AsType[*quic.StreamError](err); cancelled {
		s.end()
	}
	return n, s.c.err(err)
}

func (s *receiveStream) end() {
	if !s.ended.Swap(true) {
		s.life.endDirection()
	}
}

func (s *receiveStream) CancelRead(code transport.ErrorCode) {
	s.qs.CancelRead(quic.StreamErrorCode(wireCode(code)))
	s.end()
}

func (s *receiveStream) SetReadDeadline(t time.Time) error { return s.qs.SetReadDeadline(t) }

func (s *receiveStream) StreamID() transport.StreamID { return transport.StreamID(s.qs.StreamID()) }

func (s *receiveStream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesRead: s.read.Load()}
}

// A quicSender is a *quic.SendStream or a *quic.Stream.
type quicSender interface {
	io.WriteCloser
	CancelWrite(quic.StreamErrorCode)
	SetWriteDeadline(time.Time) error
	SetPriority(urgency int8, incremental bool)
	StreamID() quic.StreamID
	Context() context.Context
}

// A sendStream is the sending direction of a stream.
//
// quic-go forbids Close during Write. Here a Write in progress is ended first:
// what it has handed over is sent, the rest is not, as with a TCP connection.
type sendStream struct {
	c       *conn
	qs      quicSender
	life    *life
	ended   atomic.Bool
	written atomic.Uint64 // bytes
	prio    atomic.Uint32 // transport.Priority: urgency, and incremental as 0x100

	writing sync.Mutex // held by Write

	mu     sync.Mutex
	closed bool               // by Close; no deadline may be set any more
	ctx    context.Context    // nil until Context is called
	cancel context.CancelFunc // of ctx
}

func (s *sendStream) Write(p []byte) (int, error) {
	s.writing.Lock()
	n, err := s.qs.Write(p)
	s.writing.Unlock()
	if n > 0 {
		s.written.Add(uint64(n))
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && s.isClosed() {
		return n, s.c.orReason(net.ErrClosed)
	}
	if _, cancelled := errors.AsType[*quic.StreamError](err); cancelled {
		s.end()
	}
	return n, s.c.err(err)
}

// WriteLast implements transport.SendStream. quic-go sends the end of the stream in
// a packet of its own if it is quicker than Close.
func (s *sendStream) WriteLast(p []byte) (int, error) {
	if len(p) > 0 {
		if n, err := s.Write(p); err != nil {
			return n, err
		}
	}
	err := s.Close()
	// What was written has made quic-go's sender the goroutine that this processor
	// runs next. Another takes that place, so that those come first who are ready to
	// write to other streams: several answers then share packets and system calls.
	go func() {}() // ends at once
	return len(p), err
}

func (s *sendStream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *sendStream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	if s.c.ctx.Err() != nil {
		s.mu.Unlock()
		return context.Cause(s.c.ctx)
	}
	s.closed = true
	busy := !s.writing.TryLock()
	if busy {
		s.qs.SetWriteDeadline(time.Unix(1, 0)) // ends the Write in progress
	}
	s.mu.Unlock()
	if busy {
		s.writing.Lock()
	}
	err := s.qs.Close()
	if err != nil {
		// quic-go says only that the stream was cancelled. Write says by whom.
		_, err = s.qs.Write(nil)
	}
	s.writing.Unlock()
	s.end()
	return s.c.err(err)
}

// end is called when the direction has ended.
func (s *sendStream) end() {
	if !s.ended.Swap(true) {
		s.life.endDirection()
	}
	s.mu.Lock()
	cancel := s.cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// CancelWrite does nothing after Close. quic-go would reset the stream even when
// all has been acknowledged, and take from the peer what it has not yet read;
// and what there is to save is little: when Write returns, all but the last
// packet has been sent.
func (s *sendStream) CancelWrite(code transport.ErrorCode) {
	if s.isClosed() {
		return
	}
	s.qs.CancelWrite(quic.StreamErrorCode(wireCode(code)))
	s.end()
}

func (s *sendStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	return s.qs.SetWriteDeadline(t)
}

const incremental = 0x100

func (s *sendStream) SetPriority(p transport.Priority) {
	urgency := min(p.Urgency, 7)
	v := uint32(urgency)
	if p.Incremental {
		v |= incremental
	}
	s.prio.Store(v)
	s.qs.SetPriority(int8(urgency), p.Incremental)
}

func (s *sendStream) Priority() transport.Priority {
	v := s.prio.Load()
	return transport.Priority{Urgency: uint8(v), Incremental: v&incremental != 0}
}

func (s *sendStream) StreamID() transport.StreamID { return transport.StreamID(s.qs.StreamID()) }

// Context does not return quic-go's, whose cause is an error of quic-go.
func (s *sendStream) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		context.AfterFunc(s.qs.Context(), s.cancel)
	}
	if s.qs.Context().Err() != nil {
		s.cancel() // the function for that may not have begun
	}
	return s.ctx
}

func (s *sendStream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesWritten: s.written.Load()}
}

func (s *sendStream) init(c *conn, qs quicSender, l *life) {
	s.c, s.qs, s.life = c, qs, l
	s.prio.Store(uint32(transport.DefaultPriority.Urgency) | incremental)
}

// A stream is both directions.
type stream struct {
	receiveStream
	sendStream
	all life
}

func newStream(c *conn, qs *quic.Stream) *stream {
	s := new(stream)
	s.all.begin(c, 2)
	s.receiveStream.c, s.receiveStream.qs, s.receiveStream.life = c, qs, &s.all
	s.sendStream.init(c, qs, &s.all)
	return s
}

func (s *stream) StreamID() transport.StreamID { return s.sendStream.StreamID() }

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *stream) Stats() transport.StreamStats {
	return transport.StreamStats{BytesRead: s.read.Load(), BytesWritten: s.written.Load()}
}

// A uniSendStream is a stream that only this side writes to.
type uniSendStream struct {
	sendStream
	all life
}

func newSendStream(c *conn, qs *quic.SendStream) *uniSendStream {
	s := new(uniSendStream)
	s.all.begin(c, 1)
	s.init(c, qs, &s.all)
	return s
}

// A uniReceiveStream is a stream that only the peer writes to.
type uniReceiveStream struct {
	receiveStream
	all life
}

func newReceiveStream(c *conn, qs *quic.ReceiveStream) *uniReceiveStream {
	s := new(uniReceiveStream)
	s.all.begin(c, 1)
	s.c, s.qs, s.life = c, qs, &s.all
	return s
}
