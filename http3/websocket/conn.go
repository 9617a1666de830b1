package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/anyquic/anyquic/http3"
)

// readBuffer is what a Conn reads at once, in bytes, for Reads that are smaller.
const readBuffer = 4 << 10

// A Conn is a WebSocket connection. All methods may be called from any goroutine
// at any time; messages are read and written one after the other.
//
// A context that ends while a Read waits leaves the connection as it is: the next
// one goes on in the same message, unless that is compressed. One that ends while a
// Write has sent a part of a frame ends the connection.
//
// Close or CloseNow must be called when the connection is not needed any more.
type Conn struct {
	s           duplex
	client      bool
	proto       string // "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"
	subprotocol string
	compress    bool // permessage-deflate was agreed on

	ctx    context.Context // done when the stream is released
	cancel context.CancelCauseFunc
	ended  chan struct{}  // closed when err is set
	quiet  chan struct{}  // closed when nothing more is written: writeMu is locked for good
	wg     sync.WaitGroup // of all goroutines of the Conn

	mu        sync.Mutex
	err       *CloseError          // why it ended; guarded by mu
	pings     map[string]chan bool // those without a pong; guarded by mu
	pingCount uint64               // guarded by mu
	queue     []control            // frames that are to be sent; guarded by mu
	flushing  bool                 // a goroutine sends them; guarded by mu

	// Reading. What follows is guarded by readMu.
	readMu     chanMutex
	br         *bufio.Reader
	readCtx    context.Context // of the Read under way; nil: none
	headBytes  bytes.Reader
	headBuf    [ws.MaxHeaderSize]byte
	message    message
	partial    []byte // what an interrupted Read left of the message
	peerClosed bool   // its Close frame was read
	broken     bool   // what follows cannot be understood

	readLimit atomic.Int64 // bytes of a message; negative: none
	waiting   atomic.Int64 // since when a Read waits for the peer, in ns of the Unix epoch; 0: none does
	heard     atomic.Int64 // when it last got something; likewise

	// Writing. messageMu is for the whole of a message, writeMu for a frame.
	messageMu chanMutex
	writeMu   chanMutex
}

// A config is what both handshakes find out.
type config struct {
	client      bool
	proto       string
	subprotocol string
	compress    bool
	readLimit   int64
	heartbeat   *Heartbeat // checked
	release     func()     // called when the stream is released; may be nil
}

func newConn(s duplex, cfg config) *Conn {
	c := &Conn{
		s: s, client: cfg.client, proto: cfg.proto, subprotocol: cfg.subprotocol, compress: cfg.compress,
		ended: make(chan struct{}), quiet: make(chan struct{}), readMu: newChanMutex(), messageMu: newChanMutex(), writeMu: newChanMutex(),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.br = bufio.NewReaderSize(streamReader{c}, readBuffer)
	c.SetReadLimit(cfg.readLimit)
	if cfg.release != nil {
		context.AfterFunc(c.ctx, cfg.release)
	}
	if d, ok := s.(*streamDuplex); ok {
		stop := d.watch(func(err error) { _ = c.lost(err) })
		context.AfterFunc(c.ctx, func() { stop() })
	}
	if cfg.heartbeat != nil {
		h := *cfg.heartbeat
		c.wg.Go(func() { c.heartbeat(h) }) // ends with the connection
	}
	return c
}

// Subprotocol returns what the handshake agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Proto returns the version of HTTP that carries the connection: "HTTP/1.1",
// "HTTP/2.0" or "HTTP/3.0".
func (c *Conn) Proto() string { return c.proto }

// HTTP3 returns the HTTP/3 connection, or nil if another version carries c.
func (c *Conn) HTTP3() *http3.Conn {
	if s, ok := c.s.(*streamDuplex); ok {
		return s.Conn()
	}
	return nil
}

// LocalAddr returns the local address, or nil if it is not known.
func (c *Conn) LocalAddr() net.Addr { return c.s.LocalAddr() }

// RemoteAddr returns the peer's address, or nil if it is not known.
func (c *Conn) RemoteAddr() net.Addr { return c.s.RemoteAddr() }

// Context is done when the connection has ended and its stream is released;
// context.Cause is the *CloseError.
func (c *Conn) Context() context.Context { return c.ctx }

// SetReadLimit sets the size of the largest message, in bytes, that is read;
// zero: 32 KiB, negative: no limit. A larger one ends the connection with
// StatusMessageTooBig. It applies from the next message on.
func (c *Conn) SetReadLimit(n int64) {
	if n == 0 {
		n = defaultReadLimit
	}
	c.readLimit.Store(n)
}

// reason returns why the connection ended, or nil.
func (c *Conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// Close ends the connection with a Close frame that carries code and reason;
// StatusNoStatus sends one without. It waits, at most 5s, for room to send it, not
// for the peer: the Context is done when that has answered, or after another 5s.
// Messages that were not read are discarded. What is too long of reason is cut
// off. An error means that the code must not be sent, so that StatusInternalError
// was; or that there was no room. Close does nothing if the connection has ended.
func (c *Conn) Close(code StatusCode, reason string) error {
	var invalid error
	if !code.onWire() && code != StatusNoStatus {
		invalid = &invalidCodeError{code}
		code, reason = StatusInternalError, ""
	}
	_, err := c.end(&CloseError{Code: code, Reason: cutReason(reason)}, true)
	<-c.quiet
	return errors.Join(invalid, err)
}

// CloseNow ends the connection without a Close frame, unless it has ended, and
// waits for its goroutines. After Close it does nothing, so that it can be
// deferred.
func (c *Conn) CloseNow() error {
	if first, _ := c.end(&CloseError{Code: StatusAbnormal}, false); first {
		c.wg.Wait()
	}
	<-c.quiet
	return nil
}

// setReason makes all calls return e. It reports false if another reason came
// first.
func (c *Conn) setReason(e *CloseError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = e
	close(c.ended)
	_ = c.s.SetReadDeadline(past) // an ended stream has no Reads to end
	return true
}

// end ends the connection, with a Close frame or without. The first call counts.
// An error is why the frame was not sent. The caller must not hold writeMu.
func (c *Conn) end(e *CloseError, frame bool) (first bool, err error) {
	if !c.setReason(e) {
		return false, nil
	}
	if !frame {
		c.s.abort()
		c.finish()
		return true, nil
	}
	sent := make(chan sentClose, 1)
	c.wg.Go(func() { // ends with the peer's direction, or after closeTimeout
		if c.linger(sent) {
			c.s.close()
			c.cancel(e)
		}
	})
	if err = c.sendClose(e); err != nil {
		c.s.abort()
		close(sent)
		c.finish()
		return true, err
	}
	close(c.quiet)
	sent <- sentClose{at: time.Now(), visible: c.s.CloseWrite()}
	return true, nil
}

// finish waits for the Write that was aborted and marks the end of everything.
func (c *Conn) finish() {
	c.writeMu <- struct{}{}
	close(c.quiet)
	c.cancel(c.reason())
}

// final returns why the connection ended, if it has, when nothing more is
// written: what is below may end as soon as a caller knows. The caller must not
// hold writeMu.
func (c *Conn) final() error {
	err := c.reason()
	if err != nil {
		<-c.quiet
	}
	return err
}

// A sentClose says when the Close frame was sent, and whether the peer can see that
// our direction has ended.
type sentClose struct {
	at      time.Time
	visible bool
}

// linger reads what the peer sends until it is done: it must be able to read our
// Close frame, and to send its own. Sent is closed if the frame could not be sent,
// and linger then returns false.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-7.1.1
func (c *Conn) linger(sent <-chan sentClose) bool {
	c.readMu <- struct{}{} // the Read that holds it was interrupted
	defer c.readMu.unlock()
	until := func(t time.Time) { _ = c.s.SetReadDeadline(t) } // fails for an ended stream
	drain := func() { _, _ = io.Copy(io.Discard, c.br) }      // its end is all that matters
	until(time.Now().Add(closeTimeout))
	for !c.peerClosed && !c.broken && c.skipFrame() == nil {
	}
	if c.broken {
		drain()
	}
	s, ok := <-sent
	if !ok {
		return false
	}
	if c.peerClosed && !c.client && !s.visible {
		return true // it is for the server to end the connection
	}
	until(s.at.Add(closeTimeout))
	drain()
	return true
}

// lost ends the connection for an error of the stream below it.
func (c *Conn) lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	_, _ = c.end(&CloseError{Code: StatusAbnormal, Err: err}, false) // sends nothing
	return c.reason()
}

// fail ends the connection for what the peer did.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-7.1.7
func (c *Conn) fail(code StatusCode, reason string) error {
	c.broken = true
	_, _ = c.end(&CloseError{Code: code, Reason: cutReason(reason)}, true) // the peer may not listen any more
	return c.reason()
}

// interruptReads makes the Read that is under way fail when ctx is done, until
// release is called.
func (c *Conn) interruptReads(ctx context.Context) (release func()) {
	if ctx == nil || ctx.Done() == nil {
		return func() {}
	}
	set := func(t time.Time) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil { // else it is past for good
			_ = c.s.SetReadDeadline(t) // Read says what is wrong with the stream
		}
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		set(past)
	})
	return func() {
		if !stop() {
			<-fired
			set(time.Time{})
		}
	}
}

// interruptWrite ends the connection when ctx is done: nothing that followed could
// make sense of what was cut off. What it returns must be called after the Write; it
// reports whether that happened.
func (c *Conn) interruptWrite(ctx context.Context) (release func() bool) {
	if ctx.Done() == nil {
		return func() bool { return false }
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		first := c.setReason(&CloseError{Code: StatusAbnormal, Err: fmt.Errorf("websocket: write: %w", context.Cause(ctx))})
		c.s.abort()
		close(fired)
		if first {
			c.finish()
		}
	})
	return func() bool {
		if stop() {
			return false
		}
		<-fired
		return true
	}
}

// A streamReader reads the stream for a Read that has a context. readMu is held.
type streamReader struct{ c *Conn }

func (r streamReader) Read(p []byte) (int, error) {
	defer r.c.interruptReads(r.c.readCtx)()
	r.c.waiting.Store(time.Now().UnixNano())
	defer r.c.waiting.Store(0)
	n, err := r.c.s.Read(p)
	if n > 0 {
		r.c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// A chanMutex is a mutex that a context and the end of a connection unlock for
// those who wait.
type chanMutex chan struct{}

func newChanMutex() chanMutex { return make(chanMutex, 1) }

var errGivenUp = errors.New("websocket: gave up waiting")

// lock returns the error of the context, or errGivenUp after done, which may be
// nil.
func (m chanMutex) lock(ctx context.Context, done <-chan struct{}) error {
	select {
	case m <- struct{}{}:
		return nil
	default:
	}
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return errGivenUp
	}
}

func (m chanMutex) unlock() { <-m }

// isTimeout reports whether a Read was ended by its deadline.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
