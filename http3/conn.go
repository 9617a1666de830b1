package http3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/transport"
)

var (
	errClosed         = fmt.Errorf("http3: write after close: %w", net.ErrClosed)
	errPeerFieldLimit = errors.New("http3: header larger than the peer accepts")
)

// Extensions are what a protocol above HTTP/3, such as WebTransport, adds to
// every connection. The zero Extensions add nothing. They must not be modified
// after use. Their functions are called in goroutines of their own, and keep the
// stream as long as they need; until it returns, one for a client's bidirectional
// stream counts as a handler.
type Extensions struct {
	// Settings are announced besides those of this package.
	Settings map[uint64]uint64

	// UniStreams take over the peer's unidirectional streams, by stream type;
	// what remains to be read is what follows the type.
	UniStreams map[uint64]func(*Conn, transport.ReceiveStream)

	// BidiStreams take over the bidirectional streams that the peer opened and
	// that do not start with a HEADERS frame, by what they start with. That
	// anywhere else is an error of the connection (H3_FRAME_ERROR).
	BidiStreams map[uint64]func(*Conn, transport.Stream)

	// NewConn is called once for each connection, before anything is read from
	// it, and may call SetValue. It must not block.
	NewConn func(*Conn)

	// ExtendedConnect is called in a client before an extended CONNECT is sent,
	// when the connection is chosen and the server's settings are known. It may
	// set the ":protocol" in the request's Header. An error is that of RoundTrip.
	// If the request is sent once more, it is called once more.
	ExtendedConnect func(*Conn, *http.Request) error
}

// A Conn is an HTTP/3 connection.
type Conn struct {
	qc     transport.Conn
	client bool
	codec  codec
	ext    *Extensions

	codecName string // of codecs
	decoding  decoding

	settled chan struct{} // closed when peer is set
	peer    Settings      // of the peer

	uniReads sync.WaitGroup // of uniReaders, but for what extensions take over
	heard    chan struct{}  // closed when the connection has ended and what it left is read

	ownLock chan struct{} // has a value while the own streams are written
	own     [ownStreams]transport.SendStream
	late    late

	onGoAway   func(id uint64)               // client
	onPriority func(id uint64, value string) // server

	tlsState  atomic.Pointer[tls.ConnectionState] // nil before the handshake is complete
	datagrams datagrams
	wg        sync.WaitGroup // of the goroutines that the connection's end ends

	values    sync.Map      // of extensions
	draining  chan struct{} // closed when one side has announced the end
	drainOnce sync.Once
}

// newConn takes over qc. start must be called next.
func newConn(qc transport.Conn, client bool, maxFieldSection uint64, ext *Extensions) *Conn {
	c := &Conn{
		qc: qc, client: client, ext: ext, ownLock: make(chan struct{}, 1),
		settled: make(chan struct{}), draining: make(chan struct{}), heard: make(chan struct{}),
	}
	c.datagrams.on = qc.State().MaxDatagram > 0
	c.codec, c.codecName = newCodec(codecConfig{
		client: client,
		settings: Settings{
			MaxFieldSection: maxFieldSection,
			ExtendedConnect: !client,
			Datagrams:       c.datagrams.on,
			Other:           ext.Settings,
		},
		takeUni:  func(t uint64) bool { return ext.UniStreams[t] != nil },
		takeBidi: func(t uint64) bool { return ext.BidiStreams[t] != nil },
	})
	if ext.NewConn != nil {
		ext.NewConn(c)
	}
	return c
}

// start sends the settings and reads the peer's streams, in goroutines that end
// with the connection.
func (c *Conn) start() {
	c.wg.Go(func() {
		if err := c.flush(); err != nil {
			c.lost(err)
		}
	})
	c.wg.Go(c.acceptUni)
	if c.datagrams.on {
		c.wg.Go(c.receiveDatagrams)
	}
}

// Transport returns the QUIC connection. Its streams that carry HTTP/3 must be
// left alone.
func (c *Conn) Transport() transport.Conn { return c.qc }

// SetValue keeps a value with the connection, for an extension; Value returns it,
// or nil. Keys are compared as in [context.WithValue].
func (c *Conn) SetValue(key, value any) { c.values.Store(key, value) }

// Value returns what SetValue was called with.
func (c *Conn) Value(key any) any {
	v, _ := c.values.Load(key)
	return v
}

// Draining returns a channel that is closed when either side has sent a GOAWAY:
// what the connection carries should come to its end.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-5.2
func (c *Conn) Draining() <-chan struct{} { return c.draining }

func (c *Conn) drain() { c.drainOnce.Do(func() { close(c.draining) }) }

// tls returns what the handshake negotiated. Nobody may modify it.
func (c *Conn) tls() *tls.ConnectionState {
	if st := c.tlsState.Load(); st != nil {
		return st
	}
	st := c.qc.State()
	if st.HandshakeComplete {
		c.tlsState.Store(&st.TLS)
	}
	return &st.TLS
}

// Settings returns what the peer has announced. It waits until that has
// arrived.
func (c *Conn) Settings(ctx context.Context) (Settings, error) {
	select {
	case <-c.settled:
		return c.peer, nil
	case <-c.qc.Context().Done():
		return Settings{}, wrap(context.Cause(c.qc.Context()))
	case <-ctx.Done():
		return Settings{}, ctx.Err()
	}
}

// peerMaxFieldSection is the limit as far as it is known.
func (c *Conn) peerMaxFieldSection() uint64 {
	select {
	case <-c.settled:
		return c.peer.maxFieldSection()
	default:
		return unlimitedFieldSection
	}
}

// fail ends the connection for what the peer did.
func (c *Conn) fail(e *Error) { c.qc.CloseWithError(e.Code, e.Reason) }

// lost ends the connection for an error of an own stream, which the peer must
// not cancel.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
func (c *Conn) lost(err error) {
	if c.qc.Context().Err() != nil {
		return
	}
	if _, ok := errors.AsType[*transport.StreamError](err); ok {
		c.fail(connError(ErrClosedCriticalStream, "%v", err))
		return
	}
	c.fail(connError(ErrInternal, "%v", err))
}

const (
	// criticalWrite bounds the time that the peer may leave this side without a
	// control stream, or a few bytes on that unread.
	criticalWrite = 30 * time.Second

	// compressionWrite bounds the time that is waited for flow control on an
	// encoder or decoder stream. Nothing depends on what these say, so that the
	// rest can go with what comes later; waiting could be for ever, while
	// messages have used up the connection's credit.
	//
	// https://www.rfc-editor.org/rfc/rfc9204#section-2.1.3
	compressionWrite = time.Millisecond
)

// send calls f, which gives the codec something to say on an own stream, and
// writes that.
func (c *Conn) send(f func(codec)) error {
	f(c.codec)
	err := c.flush()
	if err != nil {
		c.lost(err)
	}
	return err
}

// flush writes what the codec has for the own streams.
func (c *Conn) flush() error {
	if !c.codec.isPending() {
		return nil
	}
	c.ownLock <- struct{}{}
	defer func() { <-c.ownLock }()
	var buf [256]byte
	for own := range ownStreams {
		p := c.codec.pending(own, buf[:0])
		if len(p) == 0 {
			continue
		}
		s := c.own[own]
		if s == nil {
			var err error
			if s, err = c.openOwn(); err != nil {
				return err
			}
			s.SetPriority(transport.PriorityCritical)
			c.own[own] = s
		}
		patience := criticalWrite
		if own != ownControl {
			patience = compressionWrite
		}
		if err := s.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		n, err := s.Write(p)
		if own != ownControl && errors.Is(err, os.ErrDeadlineExceeded) {
			c.codec.unsent(own, p[n:])
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openOwn opens an own stream. The peer must allow it at once.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-6.2
func (c *Conn) openOwn() (transport.SendStream, error) {
	ctx, cancel := context.WithTimeout(c.qc.Context(), criticalWrite)
	defer cancel()
	return c.qc.OpenUniStream(ctx)
}

// acceptUni waits for a unidirectional stream of the peer and reads it. Another
// goroutine waits for the next one, so that there are as many as the transport's
// limit allows, and one more, which ends with the connection.
//
// Who waits for long is always a new goroutine, since the stack of one that has
// worked has grown: most connections are idle.
func (c *Conn) acceptUni() {
	rs, err := c.qc.AcceptUniStream(c.qc.Context())
	if err != nil { // the connection has ended, and nobody calls uniReads.Add
		c.uniReads.Wait()
		close(c.heard)
		c.endLate()
		c.endCodec()
		return
	}
	c.uniReads.Add(1)
	c.wg.Go(c.acceptUni)
	r := &uniReader{c: c, rs: rs}
	if r.read() {
		c.wg.Go(r.readOn) // ends with the stream or the connection
	}
}

// A uniReader reads a unidirectional stream to its end, or until it belongs to an
// extension.
type uniReader struct {
	c     *Conn
	rs    transport.ReceiveStream
	buf   [256]byte
	ev    []event
	taken func() // calls the extension; nil: it has none
}

// readOn reads what follows the first bytes.
func (r *uniReader) readOn() {
	for r.read() {
	}
}

// read reads once. It reports false if there is no more to be read.
func (r *uniReader) read() bool {
	n, err := r.rs.Read(r.buf[:])
	if r.act(n, err) {
		return true
	}
	r.c.uniReads.Done()
	if r.taken != nil {
		r.taken()
	}
	return false
}

// act acts on what was read. It reports false if that was all.
func (r *uniReader) act(n int, err error) bool {
	c := r.c
	if err != nil && c.qc.Context().Err() != nil {
		return false
	}
	end := err != nil // EOF, or cancelled by the peer
	var codecErr error
	r.ev, codecErr = c.codec.receiveUni(r.rs.StreamID(), r.buf[:n], end, r.ev[:0])
	if e, ok := errors.AsType[*Error](codecErr); ok {
		c.fail(e)
		return false
	}
	for _, e := range r.ev {
		switch e.kind {
		case eventIgnored:
			// https://www.rfc-editor.org/rfc/rfc9114#section-6.2
			r.rs.CancelRead(ErrStreamCreation)
			return false
		case eventTaken:
			r.taken = func() { c.ext.UniStreams[e.id](c, &restReceiveStream{r.rs, e.data}) }
			return false
		default:
			c.handle(e)
		}
	}
	clear(r.ev)
	return !end
}

// handle acts on what the peer said on its control stream.
func (c *Conn) handle(e event) {
	switch e.kind {
	case eventSettings:
		c.peer = e.peer
		close(c.settled)
	case eventGoAway:
		c.drain()
		if c.onGoAway != nil {
			c.onGoAway(e.id)
		}
	case eventPriority:
		if c.onPriority != nil {
			c.onPriority(e.id, e.value)
		}
	}
}

// A restReceiveStream returns first what was read already.
type restReceiveStream struct {
	transport.ReceiveStream
	rest []byte
}

func (s *restReceiveStream) Read(p []byte) (int, error) { return readRest(p, &s.rest, s.ReceiveStream) }

// A restStream returns first what was read already.
type restStream struct {
	transport.Stream
	rest []byte
}

func (s *restStream) Read(p []byte) (int, error) { return readRest(p, &s.rest, s.Stream) }

func readRest(p []byte, rest *[]byte, r io.Reader) (int, error) {
	if len(*rest) > 0 {
		n := copy(p, *rest)
		*rest = (*rest)[n:]
		return n, nil
	}
	return r.Read(p)
}
