package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// NetConn returns c as a stream of bytes, for protocols that want one: each Write
// is a message of the type, a Read takes from the messages one after the other.
// A message of another type ends the connection with StatusUnsupportedData.
//
// There is no read limit, since a Read holds no more than its slice. Read returns
// io.EOF after a Close frame with StatusNormal or StatusGoingAway. Close closes c
// with StatusNormal. When ctx ends, so does the connection.
//
// A read deadline interrupts, as usual. After a write deadline that has cut off a
// message the connection is at its end, as one of crypto/tls is.
func NetConn(ctx context.Context, c *Conn, typ MessageType) net.Conn {
	c.SetReadLimit(-1)
	nc := &netConn{c: c, typ: typ, parent: ctx}
	nc.read.init(ctx)
	nc.write.init(ctx)
	nc.stop = context.AfterFunc(ctx, func() { _ = c.CloseNow() })
	return nc
}

type netConn struct {
	c      *Conn
	typ    MessageType
	parent context.Context // of NetConn
	stop   func() bool

	read, write deadline

	readMu sync.Mutex
	reader io.Reader // of the message at hand; guarded by readMu
	eof    bool      // guarded by readMu
}

// Read reads content of messages.
func (nc *netConn) Read(p []byte) (int, error) {
	nc.readMu.Lock()
	defer nc.readMu.Unlock()
	if nc.eof {
		return 0, io.EOF
	}
	for {
		if nc.reader == nil {
			typ, r, err := nc.c.Reader(nc.read.context())
			if err != nil {
				return 0, nc.readError(err)
			}
			if typ != nc.typ {
				reason := fmt.Sprintf("%v message, not %v", typ, nc.typ)
				_ = nc.c.Close(StatusUnsupportedData, reason) // the caller learns it from us
				return 0, nc.c.reason()
			}
			nc.reader = r
		}
		nc.reader.(*messageReader).ctx = nc.read.context()
		n, err := nc.reader.Read(p)
		switch {
		case errors.Is(err, io.EOF):
			nc.reader = nil
			if n == 0 && len(p) > 0 {
				continue
			}
			return n, nil
		case err != nil:
			return n, nc.readError(err)
		}
		return n, nil
	}
}

// readError returns what a net.Conn says. readMu is held.
func (nc *netConn) readError(err error) error {
	if e, ok := errors.AsType[*CloseError](err); ok {
		if e.Remote && (e.Code == StatusNormal || e.Code == StatusGoingAway) {
			nc.eof = true
			return io.EOF
		}
		return final(err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// final returns err without what would make it look like a timeout, after which
// it makes sense to go on.
func final(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %v", net.ErrClosed, err) //nolint:errorlint // see above
	}
	return err
}

// Write sends p as a message.
func (nc *netConn) Write(p []byte) (int, error) {
	ctx := nc.write.context()
	err := nc.c.Write(ctx, nc.typ, p)
	switch {
	case err == nil:
		return len(p), nil
	case errors.Is(context.Cause(ctx), os.ErrDeadlineExceeded):
		return 0, os.ErrDeadlineExceeded
	}
	return 0, final(err)
}

// Close closes the Conn.
func (nc *netConn) Close() error {
	nc.stop()
	err := nc.c.Close(StatusNormal, "")
	nc.read.end()
	nc.write.end()
	return err
}

func (nc *netConn) LocalAddr() net.Addr  { return nc.c.LocalAddr() }
func (nc *netConn) RemoteAddr() net.Addr { return nc.c.RemoteAddr() }

func (nc *netConn) SetDeadline(t time.Time) error {
	nc.read.set(t)
	nc.write.set(t)
	return nil
}

func (nc *netConn) SetReadDeadline(t time.Time) error {
	nc.read.set(t)
	return nil
}

func (nc *netConn) SetWriteDeadline(t time.Time) error {
	nc.write.set(t)
	return nil
}

// A deadline is a context that ends at a time which can be changed.
type deadline struct {
	mu     sync.Mutex
	parent context.Context
	ctx    context.Context // guarded by mu
	cancel context.CancelCauseFunc
	timer  *time.Timer // guarded by mu; nil: none
	ended  bool        // by end; guarded by mu
}

func (d *deadline) init(parent context.Context) {
	d.parent = parent
	d.ctx, d.cancel = context.WithCancelCause(parent)
}

func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return
	}
	passed := d.ctx.Err() != nil
	if d.timer != nil {
		// If it cannot be stopped, it is about to end the context.
		passed = !d.timer.Stop() || passed
		d.timer = nil
	}
	if passed { // what follows has another
		d.ctx, d.cancel = context.WithCancelCause(d.parent)
	}
	if t.IsZero() {
		return
	}
	cancel := d.cancel
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { cancel(os.ErrDeadlineExceeded) })
		return
	}
	cancel(os.ErrDeadlineExceeded)
}

// end releases what the deadline holds.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.cancel(net.ErrClosed)
}
