package webtransport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// A ReceiveStream is a unidirectional stream of the peer, or the readable
// direction of a [Stream]. It is a [transport.ReceiveStream]. One goroutine may
// read at a time.
type ReceiveStream struct {
	sess  *Session
	qs    transport.ReceiveStream
	owner owner
	ended atomic.Bool
}

// A SendStream is a unidirectional stream of this side, or the writable
// direction of a [Stream]. It is a [transport.SendStream].
type SendStream struct {
	sess  *Session
	qs    transport.SendStream
	owner owner
	ended atomic.Bool
}

// A Stream is a bidirectional stream. It is a [transport.Stream] with a
// [net.Conn]'s methods; its Close ends only what this side sends. [Stream.NetConn]
// closes as a whole.
type Stream struct {
	ReceiveStream
	SendStream
	halves atomic.Int32 // ended
	set    func(time.Time) error
}

// An owner is what a session keeps of a stream while one direction is open.
type owner interface {
	halfEnded()
	abort(transport.ErrorCode) // cancels what is open
	interrupt()                // makes what blocks return; the peer sees nothing
}

var (
	_ transport.ReceiveStream = (*ReceiveStream)(nil)
	_ transport.SendStream    = (*SendStream)(nil)
	_ transport.Stream        = (*Stream)(nil)
	_ net.Conn                = (*Stream)(nil)
)

// newReceiveStream makes a stream that the session does not know yet.
func newReceiveStream(s *Session, qs transport.ReceiveStream) *ReceiveStream {
	r := &ReceiveStream{sess: s, qs: qs}
	r.owner = r
	return r
}

func newSendStream(s *Session, qs transport.SendStream) *SendStream {
	w := &SendStream{sess: s, qs: qs}
	w.owner = w
	return w
}

func newStream(s *Session, qs transport.Stream) *Stream {
	b := &Stream{
		ReceiveStream: ReceiveStream{sess: s, qs: qs},
		SendStream:    SendStream{sess: s, qs: qs},
		set:           qs.SetDeadline,
	}
	b.ReceiveStream.owner, b.SendStream.owner = b, b
	return b
}

// halfEnded implements owner.
func (r *ReceiveStream) halfEnded() { r.sess.forget(r) }

// halfEnded implements owner.
func (w *SendStream) halfEnded() { w.sess.forget(w) }

// halfEnded implements owner.
func (b *Stream) halfEnded() {
	if b.halves.Add(1) == 2 {
		b.ReceiveStream.sess.forget(b)
	}
}

func (r *ReceiveStream) abort(code transport.ErrorCode) { r.qs.CancelRead(code) }
func (w *SendStream) abort(code transport.ErrorCode)    { w.qs.CancelWrite(code) }

func (b *Stream) abort(code transport.ErrorCode) {
	if !b.ReceiveStream.ended.Load() {
		b.ReceiveStream.abort(code)
	}
	if !b.SendStream.ended.Load() {
		b.SendStream.abort(code)
	}
}

func (r *ReceiveStream) interrupt() { _ = r.qs.SetReadDeadline(past) }  // Read says so
func (w *SendStream) interrupt()    { _ = w.qs.SetWriteDeadline(past) } // Write says so

func (b *Stream) interrupt() {
	b.ReceiveStream.interrupt()
	b.SendStream.interrupt()
}

var past = time.Unix(1, 0)

func (r *ReceiveStream) end() {
	if !r.ended.Swap(true) {
		r.owner.halfEnded()
	}
}

func (w *SendStream) end() {
	if !w.ended.Swap(true) {
		w.owner.halfEnded()
	}
}

// Session returns the session that the stream belongs to.
func (r *ReceiveStream) Session() *Session { return r.sess }

// StreamID returns the stream's number within the connection.
func (r *ReceiveStream) StreamID() transport.StreamID { return r.qs.StreamID() }

// Stats returns what was read.
func (r *ReceiveStream) Stats() transport.StreamStats { return r.qs.Stats() }

// Read reads what the peer has sent. It returns io.EOF after the peer's Close, a
// [*StreamError] after either side has cancelled the stream, and the
// [*SessionError] when the session has ended.
func (r *ReceiveStream) Read(p []byte) (int, error) {
	if cause := r.sess.cause(); cause != nil {
		return 0, cause
	}
	n, err := r.qs.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		r.end()
	}
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, r.sess.streamError(err)
}

// CancelRead asks the peer to stop sending and makes Read fail. Codes over 32
// bits, which WebTransport does not have, count as the largest.
func (r *ReceiveStream) CancelRead(code transport.ErrorCode) {
	r.qs.CancelRead(toHTTP(clampCode(code)))
	r.end()
}

// SetReadDeadline bounds pending and future Reads. Zero removes the bound.
func (r *ReceiveStream) SetReadDeadline(t time.Time) error {
	return r.sess.setDeadline(r.qs.SetReadDeadline, t)
}

// Session returns the session that the stream belongs to.
func (w *SendStream) Session() *Session { return w.sess }

// StreamID returns the stream's number within the connection.
func (w *SendStream) StreamID() transport.StreamID { return w.qs.StreamID() }

// Stats returns what was written, with the few bytes that name the session.
func (w *SendStream) Stats() transport.StreamStats { return w.qs.Stats() }

// Write sends p. It blocks while flow control or congestion control allows no
// more to be buffered. It returns a [*StreamError] after either side has
// cancelled the stream, the [*SessionError] when the session has ended, and an
// error matching [net.ErrClosed] after Close.
func (w *SendStream) Write(p []byte) (int, error) {
	if cause := w.sess.cause(); cause != nil {
		return 0, cause
	}
	n, err := w.qs.Write(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		w.end()
	}
	return n, w.sess.streamError(err)
}

// WriteLast is Write and Close in one: p and the end of the data share packets.
func (w *SendStream) WriteLast(p []byte) (int, error) {
	if cause := w.sess.cause(); cause != nil {
		return 0, cause
	}
	n, err := w.qs.WriteLast(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		w.end()
	}
	return n, w.sess.streamError(err)
}

// Close marks the end of the data. What was written is still delivered, in the
// background, as long as the session lasts: the peer discards what it has not
// read when it learns that the session has ended. The other direction is
// unaffected.
func (w *SendStream) Close() error {
	if cause := w.sess.cause(); cause != nil {
		return cause
	}
	err := w.qs.Close()
	w.end()
	return w.sess.streamError(err)
}

// CancelWrite abandons the stream: unsent data is dropped. The peer may not
// learn to which session the stream belonged, or that there was one. Codes over
// 32 bits, which WebTransport does not have, count as the largest.
func (w *SendStream) CancelWrite(code transport.ErrorCode) {
	w.qs.CancelWrite(toHTTP(clampCode(code)))
	w.end()
}

// SetWriteDeadline bounds pending and future Writes. Zero removes the bound.
func (w *SendStream) SetWriteDeadline(t time.Time) error {
	return w.sess.setDeadline(w.qs.SetWriteDeadline, t)
}

// SetPriority orders what this side sends on the stream among all that it sends
// on the connection, from now on. See [transport.Priority].
func (w *SendStream) SetPriority(p transport.Priority) { w.qs.SetPriority(p) }

// Priority returns the priority in force.
func (w *SendStream) Priority() transport.Priority { return w.qs.Priority() }

// Context is done when this direction ends: closed, cancelled by either side, or
// lost with the session.
func (w *SendStream) Context() context.Context { return w.qs.Context() }

// Session returns the session that the stream belongs to.
func (b *Stream) Session() *Session { return b.ReceiveStream.sess }

// StreamID returns the stream's number within the connection.
func (b *Stream) StreamID() transport.StreamID { return b.ReceiveStream.StreamID() }

// Stats returns what was read and written, with the few bytes that name the
// session.
func (b *Stream) Stats() transport.StreamStats { return b.ReceiveStream.Stats() }

// SetDeadline sets both deadlines.
func (b *Stream) SetDeadline(t time.Time) error { return b.Session().setDeadline(b.set, t) }

// LocalAddr returns the address of the connection's socket.
func (b *Stream) LocalAddr() net.Addr { return b.Session().LocalAddr() }

// RemoteAddr returns the peer's address, which changes when the peer migrates.
func (b *Stream) RemoteAddr() net.Addr { return b.Session().RemoteAddr() }

// NetConn returns a net.Conn that reads and writes the stream, and whose Close
// ends both directions.
func (b *Stream) NetConn() net.Conn { return transport.NetConn(b.Session().TransportConn(), b) }
