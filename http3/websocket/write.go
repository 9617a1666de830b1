package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
)

// frameBuffer is how much of a frame is collected, in bytes, before it is
// written; what a server sends after that is not copied.
const frameBuffer = 16 << 10

// maxIdleBuffer is the largest buffer that is kept for another message.
const maxIdleBuffer = 1 << 20

var (
	errNotText      = errors.New("websocket: text message with invalid UTF-8")
	errWriterClosed = errors.New("websocket: message was closed")
)

// An outBuffer collects what is written at once.
type outBuffer struct {
	b    []byte
	head [ws.MaxHeaderSize]byte
}

// Write appends p.
func (o *outBuffer) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}

var outBuffers = sync.Pool{New: func() any { return &outBuffer{b: make([]byte, 0, frameBuffer)} }}

// Write sends p as one message. It waits until the other messages are sent, and
// for room; p is not used after it has returned. A text must be valid UTF-8.
func (c *Conn) Write(ctx context.Context, typ MessageType, p []byte) error {
	if err := checkType(typ); err != nil {
		return err
	}
	if typ == Text && !utf8.Valid(p) {
		return errNotText
	}
	if err := c.lockWrite(ctx, c.messageMu); err != nil {
		return err
	}
	defer c.messageMu.unlock()
	h := ws.Header{Fin: true, OpCode: ws.OpCode(typ)}
	if !c.compress || len(p) < deflateFrom {
		return c.writeFrame(ctx, h, p)
	}
	buf := compressed.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= maxIdleBuffer {
			compressed.Put(buf)
		}
	}()
	buf.Reset()
	d := deflaters.Get().(*wsflate.Writer)
	defer deflaters.Put(d)
	d.Reset(buf)
	if _, err := d.Write(p); err != nil {
		return err
	}
	if err := d.Flush(); err != nil {
		return err
	}
	h.Rsv = rsv1
	return c.writeFrame(ctx, h, buf.Bytes())
}

var compressed = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func checkType(typ MessageType) error {
	if typ != Text && typ != Binary {
		return fmt.Errorf("websocket: %v", typ)
	}
	return nil
}

// Writer starts a message, whose length need not be known. Each Write sends a part
// of it. Other messages wait until Close, which ends it. ctx bounds all of
// them; a message whose Write failed cannot be continued.
func (c *Conn) Writer(ctx context.Context, typ MessageType) (io.WriteCloser, error) {
	if err := checkType(typ); err != nil {
		return nil, err
	}
	if err := c.lockWrite(ctx, c.messageMu); err != nil {
		return nil, err
	}
	w := &messageWriter{c: c, ctx: ctx, h: ws.Header{OpCode: ws.OpCode(typ)}}
	if typ == Text {
		w.text = new(textCheck)
	}
	if c.compress {
		w.h.Rsv = rsv1
		w.buf = bufio.NewWriterSize(partWriter{w}, frameBuffer)
		w.deflater = deflaters.Get().(*wsflate.Writer)
		w.deflater.Reset(w.buf)
	}
	return w, nil
}

// A messageWriter writes a message in parts.
type messageWriter struct {
	c    *Conn
	ctx  context.Context // of Writer: it bounds what follows from it
	text *textCheck      // nil: binary

	mu       sync.Mutex
	h        ws.Header // of the next frame; guarded by mu
	closed   bool      // guarded by mu
	deflater *wsflate.Writer
	buf      *bufio.Writer // takes what is compressed
}

// A partWriter sends parts of a message.
type partWriter struct{ w *messageWriter }

func (p partWriter) Write(b []byte) (int, error) {
	if err := p.w.part(false, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// part sends a frame. mu is held, here and below.
func (w *messageWriter) part(final bool, p []byte) error {
	w.h.Fin = final
	err := w.c.writeFrame(w.ctx, w.h, p)
	w.h.OpCode, w.h.Rsv = ws.OpContinuation, 0
	return err
}

func (w *messageWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, errWriterClosed
	}
	if w.text != nil && !w.text.add(p) {
		return 0, w.giveUp(errNotText)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if w.deflater != nil {
		n, err := w.deflater.Write(p)
		if err != nil {
			return n, w.giveUp(err)
		}
		return n, nil
	}
	if err := w.part(false, p); err != nil {
		return 0, w.giveUp(err)
	}
	return len(p), nil
}

// Close ends the message.
func (w *messageWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errWriterClosed
	}
	if w.text != nil && !w.text.complete() {
		return w.giveUp(errNotText)
	}
	if err := w.finish(); err != nil {
		return w.giveUp(err)
	}
	w.release()
	return nil
}

func (w *messageWriter) finish() error {
	if w.deflater == nil {
		return w.part(true, nil)
	}
	if err := w.deflater.Flush(); err != nil {
		return err
	}
	if err := w.buf.Flush(); err != nil {
		return err
	}
	return w.part(true, nil)
}

// giveUp ends the connection, since the peer waits for the rest of a message that
// does not come.
func (w *messageWriter) giveUp(err error) error {
	_, _ = w.c.end(&CloseError{Code: StatusInternalError, Reason: "message cannot be completed", Err: err}, true)
	w.release()
	return err
}

// release lets the next message begin.
func (w *messageWriter) release() {
	w.closed = true
	if w.deflater != nil {
		deflaters.Put(w.deflater)
		w.deflater = nil
	}
	w.c.messageMu.unlock()
}

// lockWrite waits for m.
func (c *Conn) lockWrite(ctx context.Context, m chanMutex) error {
	if ctx.Err() != nil {
		return fmt.Errorf("websocket: write: %w", context.Cause(ctx))
	}
	if m.lock(ctx, c.ended) != nil {
		if err := c.final(); err != nil {
			return err
		}
		return fmt.Errorf("websocket: write: %w", context.Cause(ctx))
	}
	if c.reason() != nil {
		m.unlock()
		return c.final()
	}
	return nil
}

// writeFrame sends a frame, after the control frames that wait.
func (c *Conn) writeFrame(ctx context.Context, h ws.Header, p []byte) error {
	if err := c.lockWrite(ctx, c.writeMu); err != nil {
		return err
	}
	err := c.send(ctx, h, p)
	c.writeMu.unlock()
	if err == nil {
		return nil
	}
	_ = c.lost(err) // unless it was interrupted
	return c.final()
}

// startOutput returns a buffer with the control frames that wait. writeMu is
// held.
func (c *Conn) startOutput() *outBuffer {
	out := outBuffers.Get().(*outBuffer)
	out.b = out.b[:0]
	c.mu.Lock()
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, f := range queue {
		c.appendControl(out, f)
	}
	return out
}

// appendHead appends the head of a frame, with a mask if need be.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.3
func (c *Conn) appendHead(out *outBuffer, h *ws.Header, length int) {
	h.Length = int64(length)
	if c.client {
		h.Masked = true
		_, _ = rand.Read(h.Mask[:]) // which does not fail
	}
	_ = ws.WriteHeaderBuffer(out, *h, out.head[:]) // which does not fail
}

// appendControl appends a control frame.
func (c *Conn) appendControl(out *outBuffer, f control) {
	h := ws.Header{Fin: true, OpCode: f.op}
	c.appendHead(out, &h, len(f.content))
	n := len(out.b)
	out.b = append(out.b, f.content...)
	if h.Masked {
		ws.Cipher(out.b[n:], h.Mask, 0)
	}
}

// send writes a frame. writeMu is held.
func (c *Conn) send(ctx context.Context, h ws.Header, p []byte) error {
	out := c.startOutput()
	defer outBuffers.Put(out)
	c.appendHead(out, &h, len(p))
	release := c.interruptWrite(ctx)
	err := c.sendContent(out, h, p)
	if release() && err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Conn) sendContent(out *outBuffer, h ws.Header, p []byte) error {
	pos := 0
	for {
		start := len(out.b)
		n := min(cap(out.b)-start, len(p))
		out.b = append(out.b, p[:n]...)
		p = p[n:]
		if h.Masked {
			ws.Cipher(out.b[start:], h.Mask, pos&3)
			pos += n
		}
		if _, err := c.s.Write(out.b); err != nil {
			return err
		}
		out.b = out.b[:0]
		switch {
		case len(p) == 0:
			return nil
		case !h.Masked:
			_, err := c.s.Write(p)
			return err
		}
	}
}

// sendClose sends the Close frame, or returns why it could not. If it could,
// writeMu stays locked.
func (c *Conn) sendClose(e *CloseError) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := c.writeMu.lock(ctx, nil); err != nil {
		return fmt.Errorf("websocket: no room for a Close frame: %w", err)
	}
	out := c.startOutput()
	defer outBuffers.Put(out)
	c.appendControl(out, control{ws.OpClose, appendClose(nil, e)})
	release := c.interruptWrite(ctx)
	_, err := c.s.Write(out.b)
	if release() || err != nil {
		c.writeMu.unlock()
		return fmt.Errorf("websocket: no room for a Close frame: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}
