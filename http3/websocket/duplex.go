package websocket

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/anyquic/anyquic/http3"
)

// A duplex is the stream of bytes below a Conn. One goroutine may read and one
// may write at a time; all other methods may be called from any goroutine.
type duplex interface {
	io.Reader
	io.Writer

	// SetReadDeadline bounds Reads. After a Read that it ended, reading goes on
	// where it was.
	SetReadDeadline(t time.Time) error

	// CloseWrite ends what this side sends, after what was written, and
	// reports whether the peer can see that before close.
	CloseWrite() bool

	// close releases the stream. Unless the peer has ended its direction too, it
	// is told to stop.
	close()

	// abort ends both directions, also for Reads and Writes that wait; what is
	// not sent yet may be lost.
	abort()

	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// A netDuplex is a connection that HTTP/1.1 has given away.
type netDuplex struct {
	net.Conn
	rest []byte // read by the server of HTTP; before what Conn has
}

func newNetDuplex(nc net.Conn, br *bufio.Reader) *netDuplex {
	rest, _ := br.Peek(br.Buffered()) // which cannot fail
	return &netDuplex{Conn: nc, rest: append([]byte(nil), rest...)}
}

func (d *netDuplex) Read(p []byte) (int, error) {
	if len(d.rest) > 0 {
		n := copy(p, d.rest)
		d.rest = d.rest[n:]
		return n, nil
	}
	return d.Conn.Read(p)
}

func (d *netDuplex) CloseWrite() bool {
	c, ok := d.Conn.(interface{ CloseWrite() error })
	return ok && c.CloseWrite() == nil
}

func (d *netDuplex) close() { _ = d.Close() } // it is not needed any more
func (d *netDuplex) abort() { _ = d.Close() } // likewise

// A streamDuplex is a stream of HTTP/3.
type streamDuplex struct {
	*http3.Stream
	resp *http.Response // of a client; else nil
}

func (d *streamDuplex) CloseWrite() bool { return d.Stream.Close() == nil }

// close makes what the peer still sends unwelcome, which is not an error.
func (d *streamDuplex) close() {
	d.CancelRead(http3.ErrNoError)
	d.release()
}

// abort is what RST is for TCP.
//
// https://www.rfc-editor.org/rfc/rfc9220#section-3
func (d *streamDuplex) abort() {
	d.CancelWrite(http3.ErrRequestCancelled)
	d.CancelRead(http3.ErrRequestCancelled)
	d.release()
}

func (d *streamDuplex) release() {
	if d.resp != nil {
		_ = d.resp.Body.Close() // which does not fail
	}
}

// watch calls lost when the connection has ended, which nobody may notice who
// does not read.
func (d *streamDuplex) watch(lost func(error)) (stop func() bool) {
	return context.AfterFunc(d.Conn().Transport().Context(), func() {
		_, err := d.Write([]byte{0}) // the only way to the reason; nothing is sent any more
		lost(err)
	})
}

func (d *streamDuplex) LocalAddr() net.Addr  { return d.Conn().Transport().LocalAddr() }
func (d *streamDuplex) RemoteAddr() net.Addr { return d.Conn().Transport().RemoteAddr() }

// pumpBuffer is how much a pumpDuplex reads ahead, in bytes.
const pumpBuffer = 8 << 10

// A pumpDuplex gives a stream without deadlines what it lacks: a goroutine
// reads ahead, as much as its buffer holds.
type pumpDuplex struct {
	w          io.Writer
	closeWrite func() bool
	stop       func() // makes Reads of the stream fail
	kill       func() // makes Reads and Writes fail, and the peer's
	local      net.Addr
	remote     net.Addr

	readMu  sync.Mutex // one Read at a time
	chunks  chan []byte
	free    chan []byte
	chunk   []byte // what is left of the last one; guarded by readMu
	whole   []byte // the last one; guarded by readMu
	readErr error  // set before chunks is closed
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup // of pump

	mu       sync.Mutex
	deadline time.Time     // guarded by mu
	changed  chan struct{} // closed when deadline changes; guarded by mu
}

// start starts to read r. The goroutine ends when r does, which stop and kill
// must bring about; close and abort wait for it.
func (d *pumpDuplex) start(r io.Reader) *pumpDuplex {
	d.chunks = make(chan []byte)
	d.free = make(chan []byte, 2)
	d.done = make(chan struct{})
	d.changed = make(chan struct{})
	for range cap(d.free) {
		d.free <- make([]byte, pumpBuffer/cap(d.free))
	}
	d.wg.Go(func() { d.pump(r) })
	return d
}

func (d *pumpDuplex) pump(r io.Reader) {
	defer close(d.chunks)
	for {
		buf := <-d.free // of which there is one more than Read can hold
		n, err := r.Read(buf)
		if n > 0 {
			select {
			case d.chunks <- buf[:n]:
			case <-d.done:
				err = net.ErrClosed
			}
		} else {
			d.free <- buf
		}
		if err != nil {
			d.readErr = err
			return
		}
	}
}

func (d *pumpDuplex) Read(p []byte) (int, error) {
	d.readMu.Lock()
	defer d.readMu.Unlock()
	for len(d.chunk) == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// next waits for a chunk. readMu is held.
func (d *pumpDuplex) next() error {
	if d.whole != nil {
		d.free <- d.whole[:cap(d.whole)]
		d.whole = nil
	}
	for {
		d.mu.Lock()
		deadline, changed := d.deadline, d.changed
		d.mu.Unlock()
		if deadline.IsZero() {
			select {
			case c, ok := <-d.chunks:
				return d.take(c, ok)
			case <-changed:
			}
			continue
		}
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case c, ok := <-d.chunks:
			timer.Stop()
			return d.take(c, ok)
		case <-timer.C:
			return os.ErrDeadlineExceeded
		case <-changed:
			timer.Stop()
		}
	}
}

// take makes c what Read takes from, unless there was none. readMu is held.
func (d *pumpDuplex) take(c []byte, ok bool) error {
	if !ok {
		return d.readErr
	}
	d.whole, d.chunk = c, c
	return nil
}

func (d *pumpDuplex) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deadline = t
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

func (d *pumpDuplex) Write(p []byte) (int, error) { return d.w.Write(p) }
func (d *pumpDuplex) CloseWrite() bool            { return d.closeWrite() }
func (d *pumpDuplex) close()                      { d.end(d.stop) }
func (d *pumpDuplex) abort()                      { d.end(d.kill) }

func (d *pumpDuplex) end(how func()) {
	d.once.Do(func() {
		close(d.done)
		how()
	})
	d.wg.Wait()
}

func (d *pumpDuplex) LocalAddr() net.Addr  { return d.local }
func (d *pumpDuplex) RemoteAddr() net.Addr { return d.remote }

// A responseWriter writes to a response of HTTP/2, until the handler returns.
// net/http panics when its writer is used after that, which is no reason for a
// program to end.
type responseWriter struct {
	ctx context.Context // of the request: it ends with the handler
	w   http.ResponseWriter
	rc  *http.ResponseController
}

// guard calls f unless the handler has returned.
func (w *responseWriter) guard(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = net.ErrClosed
		}
	}()
	if w.ctx.Err() != nil {
		return net.ErrClosed
	}
	return f()
}

// Write sends p at once.
func (w *responseWriter) Write(p []byte) (n int, err error) {
	err = w.guard(func() (err error) {
		if n, err = w.w.Write(p); err == nil {
			err = w.rc.Flush()
		}
		return err
	})
	return n, err
}

// reset makes Writes fail, and all that the client does.
func (w *responseWriter) reset() {
	_ = w.guard(func() error { return w.rc.SetWriteDeadline(past) }) // else the handler's return does
}
