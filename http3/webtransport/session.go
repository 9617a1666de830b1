package webtransport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

const (
	// maxReason limits the reason of CloseWithError, in bytes.
	maxReason = 1024

	// lingerTimeout bounds what follows the end of a session: that the peer
	// hears of it, and says so.
	lingerTimeout = 5 * time.Second

	// lastWords is how long a peer that does not listen any more may take to say
	// why.
	lastWords = time.Second

	// maxHeadStart bounds the two round trips that the reason of CloseWithError
	// has before the resets of the streams.
	maxHeadStart = 500 * time.Millisecond
)

// A Session is a set of streams, and datagrams, of a connection. All methods may
// be called from any goroutine at any time. The caller must close it.
//
// When a session ends, its streams in both directions are reset, and blocked
// and later calls on it and on them return the [*SessionError] that says why.
// What had arrived before and was not yet read may be lost.
type Session struct {
	id       transport.StreamID // of the CONNECT stream
	conn     *http3.Conn
	connect  *http3.Stream
	reg      *registry
	header   http.Header // of the peer's message
	protocol string
	closer   func() // releases what carried the session; called once, last

	ctx      context.Context
	cancel   context.CancelCauseFunc
	finished chan struct{} // closed by run at its end
	bidi     chan *Stream
	uni      chan *ReceiveStream

	drainOnce sync.Once
	draining  chan struct{}

	over atomic.Pointer[SessionError] // set once, with mu held

	mu      sync.Mutex
	streams map[owner]struct{} // open in some direction; nil after the end; guarded by mu
}

// newSession makes a session of a CONNECT stream that was accepted. ctx has
// values only. start must be called next.
func newSession(ctx context.Context, r *registry, connect *http3.Stream, header http.Header, proto string, closer func()) *Session {
	s := &Session{
		id: connect.StreamID(), conn: connect.Conn(), connect: connect, reg: r,
		header: header, protocol: proto, closer: closer,
		finished: make(chan struct{}), draining: make(chan struct{}),
		bidi:    make(chan *Stream, r.cfg.MaxWaitingStreams),
		uni:     make(chan *ReceiveStream, r.cfg.MaxWaitingStreams),
		streams: make(map[owner]struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// start makes the session live. What it starts ends with the session, and
// lingerTimeout later at most.
func (s *Session) start() {
	s.connect.SetPriority(transport.PriorityHigh) // that it ends comes before what it carries
	stop := context.AfterFunc(s.connect.Context(), func() {
		// The peer does not listen any more: it has ended the session. Why, it
		// may have said on the other direction.
		if s.cause() == nil {
			_ = s.connect.SetReadDeadline(time.Now().Add(lastWords)) // Read says so
		}
	})
	s.reg.add(s)
	go func() { // ends with the session
		select {
		case <-s.conn.Draining():
			s.drained()
		case <-s.ctx.Done():
		}
	}()
	go func() { // ends lingerTimeout after the session
		defer stop()
		s.run()
	}()
}

// ID returns the session's number within its connection, which is that of the
// CONNECT stream.
func (s *Session) ID() transport.StreamID { return s.id }

// Header returns the header of the peer's message that started the session: for
// a server the request's, for a client the response's. It must not be modified.
func (s *Session) Header() http.Header { return s.header }

// Protocol returns the application protocol that both sides agreed on, or "".
// See [AcceptOptions].
func (s *Session) Protocol() string { return s.protocol }

// Conn returns the connection.
func (s *Session) Conn() *http3.Conn { return s.conn }

// LocalAddr returns the address of the connection's socket.
func (s *Session) LocalAddr() net.Addr { return s.conn.Transport().LocalAddr() }

// RemoteAddr returns the peer's address, which changes when the peer migrates.
func (s *Session) RemoteAddr() net.Addr { return s.conn.Transport().RemoteAddr() }

// Context is done when the session has ended; [context.Cause] is the
// [*SessionError]. A server's has the values of the request's context.
func (s *Session) Context() context.Context { return s.ctx }

// Draining returns a channel that is closed when the peer asks to bring the
// session to its end, or one side the connection (GOAWAY). The session goes on;
// the application is expected to close it soon.
func (s *Session) Draining() <-chan struct{} { return s.draining }

func (s *Session) drained() { s.drainOnce.Do(func() { close(s.draining) }) }

// Finished returns a channel that is closed when nothing is left of the session:
// the peer has heard of its end, or did not within 5s, and a connection that was
// its own is closed. A program that exits waits for it.
func (s *Session) Finished() <-chan struct{} { return s.finished }

// cause returns why the session has ended, or nil.
func (s *Session) cause() error {
	if e := s.over.Load(); e != nil {
		return e
	}
	return nil
}

// streamError is what to tell the caller when the transport said err.
func (s *Session) streamError(err error) error {
	if err == nil {
		return nil
	}
	if cause := s.cause(); cause != nil {
		return cause
	}
	if se, ok := errors.AsType[*transport.StreamError](err); ok {
		code, _ := fromHTTP(se.Code)
		return &StreamError{StreamID: se.StreamID, Code: code, Remote: se.Remote, HTTP3: se.Code}
	}
	if cause := context.Cause(s.conn.Transport().Context()); cause != nil {
		s.end(&SessionError{Remote: remote(cause), Err: cause})
		return s.cause()
	}
	return err
}

// setDeadline calls set, unless the session is over: then interrupt did.
func (s *Session) setDeadline(set func(time.Time) error, t time.Time) error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	return s.streamError(set(t))
}

// remote reports whether the peer caused an error.
func remote(err error) bool {
	if e, ok := errors.AsType[*http3.Error](err); ok {
		return e.Remote
	}
	if e, ok := errors.AsType[*transport.ApplicationError](err); ok {
		return e.Remote
	}
	e, ok := errors.AsType[*transport.ProtocolError](err)
	return ok && e.Remote || errors.Is(err, errNotHeard)
}

// track makes o end with the session. It reports false if that is over.
func (s *Session) track(o owner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return false
	}
	s.streams[o] = struct{}{}
	return true
}

func (s *Session) forget(o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, o)
}

// offer queues a stream of the peer for AcceptStream. It never blocks, and
// reports false if too many wait.
func (s *Session) offer(in incoming) bool {
	// Only the registry sends, one stream at a time, so that there is room
	// afterwards if there was before.
	if in.bidi != nil {
		if len(s.bidi) == cap(s.bidi) {
			return false
		}
		b := newStream(s, in.bidi)
		if !s.track(b) {
			return false
		}
		s.bidi <- b
		return true
	}
	if len(s.uni) == cap(s.uni) {
		return false
	}
	r := newReceiveStream(s, in.uni)
	if !s.track(r) {
		return false
	}
	s.uni <- r
	return true
}

// AcceptStream returns the next bidirectional stream of the peer, in the order
// in which their beginnings arrived.
func (s *Session) AcceptStream(ctx context.Context) (*Stream, error) {
	return next(ctx, s, s.bidi)
}

// AcceptUniStream returns the next unidirectional stream of the peer, in the
// order in which their beginnings arrived.
func (s *Session) AcceptUniStream(ctx context.Context) (*ReceiveStream, error) {
	return next(ctx, s, s.uni)
}

func next[S any](ctx context.Context, s *Session, queue <-chan *S) (*S, error) {
	if cause := s.cause(); cause != nil {
		return nil, cause
	}
	select {
	case st := <-queue:
		return st, nil
	case <-s.ctx.Done():
		return nil, s.cause()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// OpenStream opens a bidirectional stream. It waits until the peer allows the
// connection one more. The peer learns of the stream at once.
func (s *Session) OpenStream(ctx context.Context) (*Stream, error) {
	qs, err := open(ctx, s, s.conn.Transport().OpenStream, streamBidi)
	if err != nil {
		return nil, err
	}
	b := newStream(s, qs)
	if !s.track(b) {
		b.abort(codeSessionGone)
		return nil, s.cause()
	}
	return b, nil
}

// OpenUniStream opens a stream that only this side writes to. It waits as
// OpenStream does.
func (s *Session) OpenUniStream(ctx context.Context) (*SendStream, error) {
	qs, err := open(ctx, s, s.conn.Transport().OpenUniStream, streamUni)
	if err != nil {
		return nil, err
	}
	w := newSendStream(s, qs)
	if !s.track(w) {
		w.abort(codeSessionGone)
		return nil, s.cause()
	}
	return w, nil
}

// open opens a stream and says on it what it is.
func open[S transport.SendStream](ctx context.Context, s *Session, f func(context.Context) (S, error), typ uint64) (qs S, err error) {
	if cause := s.cause(); cause != nil {
		return qs, cause
	}
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if qs, err = f(wait); err != nil {
		if ctx.Err() != nil {
			return qs, ctx.Err()
		}
		return qs, s.streamError(err)
	}
	stop := context.AfterFunc(wait, func() { qs.CancelWrite(codeSessionGone) })
	_, err = qs.Write(http3.AppendVarint(http3.AppendVarint(nil, typ), uint64(s.id)))
	if !stop() || err != nil {
		if in, ok := any(qs).(transport.Stream); ok {
			in.CancelRead(codeSessionGone)
		}
		qs.CancelWrite(codeSessionGone)
		if ctx.Err() != nil {
			return qs, ctx.Err()
		}
		if err == nil {
			err = context.Canceled // by the session's end, which streamError knows
		}
		return qs, s.streamError(err)
	}
	return qs, nil
}

// SendDatagram sends p as one unreliable message. It never blocks; see
// [transport.Conn], whose errors it returns.
func (s *Session) SendDatagram(p []byte) error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	err := s.connect.SendDatagram(p)
	if e, ok := errors.AsType[*transport.DatagramTooLargeError](err); ok {
		return &transport.DatagramTooLargeError{Max: max(0, e.Max-s.datagramHead())}
	}
	if err != nil {
		if cause := s.cause(); cause != nil {
			return cause
		}
	}
	return err
}

// datagramHead is what a datagram starts with, in bytes.
func (s *Session) datagramHead() int { return len(http3.AppendVarint(nil, uint64(s.id)/4)) }

// MaxDatagram returns the size, in bytes, of the largest message for
// SendDatagram now. It is 0 if datagrams are disabled.
func (s *Session) MaxDatagram() int {
	return max(0, s.conn.Transport().State().MaxDatagram-s.datagramHead())
}

// ReceiveDatagram returns the next message. The caller owns the slice. Messages
// that arrive while 64 of them wait push out the oldest.
func (s *Session) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	if cause := s.cause(); cause != nil {
		return nil, cause
	}
	// What has arrived costs no waiting, and no context for that.
	if p, err := s.connect.ReceiveDatagram(ended); err == nil {
		return p, nil
	}
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	p, err := s.connect.ReceiveDatagram(wait)
	switch {
	case err == nil:
		return p, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	// The session has ended, or its CONNECT stream has, and the session's end
	// follows and says why.
	select {
	case <-s.ctx.Done():
		return nil, s.cause()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Drain asks the peer to bring the session to its end.
func (s *Session) Drain() error {
	if cause := s.cause(); cause != nil {
		return cause
	}
	_ = s.connect.SetWriteDeadline(time.Now().Add(lingerTimeout)) // Write says so
	_, err := s.connect.Write(http3.AppendCapsule(nil, capsuleDrain, nil))
	return s.streamError(err)
}

// Close is CloseWithError(0, "").
func (s *Session) Close() error { return s.CloseWithError(0, "") }

// CloseWithError ends the session, and tells the peer why in the background. Of
// the reason the first 1024 bytes count. Streams that are still open are reset,
// what they have not yet delivered is lost. Only the first call counts; later
// ones return nil.
func (s *Session) CloseWithError(code uint32, reason string) error {
	reason = truncate(reason)
	streams, first := s.terminate(&SessionError{Code: code, Reason: reason})
	if !first {
		return nil
	}
	for o := range streams {
		o.interrupt()
	}
	now := time.Now()
	// Read and Write say what is wrong with the stream.
	_ = s.connect.SetReadDeadline(now.Add(lingerTimeout))
	_ = s.connect.SetWriteDeadline(now.Add(lingerTimeout))
	go func() { // ends with its deadline, and maxHeadStart
		var capsule []byte
		if code != 0 || reason != "" {
			capsule = http3.AppendCapsule(nil, capsuleClose, append(binary.BigEndian.AppendUint32(nil, code), reason...))
		}
		if _, err := s.connect.Write(capsule); err == nil {
			_ = s.connect.Close() // run sees what is wrong
		}
		// The peer hears why before it sees streams reset for it.
		timer := time.NewTimer(min(2*s.conn.Transport().Stats().SmoothedRTT, maxHeadStart))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.finished:
		}
		for o := range streams {
			o.abort(codeSessionGone)
		}
	}()
	return nil
}

// truncate returns the start of a reason, valid and not too long.
func truncate(reason string) string {
	if len(reason) > maxReason {
		n := maxReason
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	if !utf8.ValidString(reason) {
		reason = string([]rune(reason))
		return truncate(reason)
	}
	return reason
}

// end makes everything end for a reason that the peer knows. It reports false if
// that was known before.
func (s *Session) end(why *SessionError) bool {
	streams, first := s.terminate(why)
	// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-6
	for o := range streams {
		o.abort(codeSessionGone)
	}
	return first
}

// terminate makes all later calls fail for a reason, and returns the streams that
// are to be reset. It reports false if the session was over before.
func (s *Session) terminate(why *SessionError) (streams map[owner]struct{}, first bool) {
	s.mu.Lock()
	if s.streams == nil {
		s.mu.Unlock()
		return nil, false
	}
	s.over.Store(why)
	streams = s.streams
	s.streams = nil
	s.mu.Unlock()
	s.reg.remove(s)
	s.cancel(why)
	return streams, true
}

// run reads the CONNECT stream to its end, which is the session's.
func (s *Session) run() {
	defer close(s.finished)
	err := s.readCapsules()
	s.end(s.reason(err))
	var e *http3.Error
	switch {
	case errors.As(err, &e) && e.Err == nil && !e.Remote: // found here
		s.connect.CancelRead(e.Code)
		s.connect.CancelWrite(e.Code)
	case errors.Is(err, io.EOF):
		_ = s.connect.SetWriteDeadline(time.Now().Add(lingerTimeout)) // Close says so
		if s.connect.Close() != nil {
			s.connect.CancelWrite(codeSessionGone)
		}
	default:
		s.connect.CancelRead(codeSessionGone)
		s.connect.CancelWrite(codeSessionGone)
	}
	s.closer()
}

// reason is why the session ends if reading its CONNECT stream ended with err.
func (s *Session) reason(err error) *SessionError {
	if e, ok := errors.AsType[*SessionError](err); ok {
		return e
	}
	if errors.Is(err, io.EOF) {
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-6
		return &SessionError{Remote: true}
	}
	if e, ok := errors.AsType[*http3.Error](err); !ok || !e.Conn {
		// If the connection has ended, that is what happened.
		if cause := context.Cause(s.conn.Transport().Context()); cause != nil {
			err = cause
		}
	}
	return &SessionError{Remote: remote(err), Err: err}
}

var errNotHeard = fmt.Errorf("webtransport: the peer has stopped the CONNECT stream: %w", net.ErrClosed)
