package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/gobwas/ws"
)

const (
	// firstRead is how much Read makes room for, in bytes, because a peer has
	// announced it. For more than that, as much must have come.
	firstRead = 4 << 10

	// rsv1 marks a compressed message.
	//
	// https://www.rfc-editor.org/rfc/rfc7692#section-6
	rsv1 = 0b100
)

// errStale is what a Reader says whose message is not the current one.
var errStale = errors.New("websocket: Read of a message after the next was asked for")

// A message is the one that is being read.
type message struct {
	open       bool // it has not ended
	whole      bool // Read reads it, no Reader
	serial     uint64
	typ        MessageType
	compressed bool
	limit      int64 // bytes; negative: none
	size       int64 // bytes read, after decompression
	text       textCheck
	inflater   *inflater // if compressed and touched

	// The frame at hand.
	final bool
	left  int64 // bytes of its content
	mask  [4]byte
	pos   int // in mask
}

// Read reads a message. It waits until there is one, or ctx is done. The caller
// owns the slice. The error of a connection that has ended is a *CloseError.
func (c *Conn) Read(ctx context.Context) (_ MessageType, _ []byte, err error) {
	if err := c.lockRead(ctx); err != nil {
		return 0, nil, err
	}
	defer c.unlockRead(&err)
	if !c.message.open || !c.message.whole {
		if err := c.nextMessage(); err != nil {
			return 0, nil, c.readError(err)
		}
		c.message.whole = true
	}
	buf := c.partial
	c.partial = nil
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, c.message.room(len(buf)))
		}
		n, err := c.readMessage(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return c.message.typ, buf, nil
		case err != nil:
			c.partial = buf
			return 0, nil, c.readError(err)
		}
	}
}

// room returns how many bytes it makes sense to have room for when n were read.
func (m *message) room(n int) int {
	most := max(n, firstRead)
	if m.compressed {
		return most
	}
	return int(min(m.left, int64(most)))
}

// Reader waits for a message, or until ctx is done, and returns a reader for it,
// that ctx bounds too. A message that was not read to its end is skipped.
func (c *Conn) Reader(ctx context.Context) (_ MessageType, _ io.Reader, err error) {
	if err := c.lockRead(ctx); err != nil {
		return 0, nil, err
	}
	defer c.unlockRead(&err)
	if !c.message.open || !c.message.whole {
		if err := c.nextMessage(); err != nil {
			return 0, nil, c.readError(err)
		}
	}
	c.message.whole = false
	return c.message.typ, &messageReader{c: c, ctx: ctx, serial: c.message.serial}, nil
}

// A messageReader reads a message.
type messageReader struct {
	c      *Conn
	ctx    context.Context // of Reader: it bounds what follows from it
	serial uint64
	done   bool
}

func (r *messageReader) Read(p []byte) (_ int, err error) {
	c := r.c
	if err := c.lockRead(r.ctx); err != nil {
		return 0, err
	}
	defer c.unlockRead(&err)
	if r.done {
		return 0, io.EOF
	}
	if r.serial != c.message.serial || c.message.whole {
		return 0, errStale
	}
	if len(c.partial) > 0 {
		n := copy(p, c.partial)
		c.partial = c.partial[n:]
		return n, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := c.readMessage(p)
		switch {
		case n > 0 && (err == nil || errors.Is(err, io.EOF)):
			r.done = err != nil
			return n, nil
		case errors.Is(err, io.EOF):
			r.done = true
			return 0, io.EOF
		case err != nil:
			return 0, c.readError(err)
		}
	}
}

func (c *Conn) lockRead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("websocket: read: %w", context.Cause(ctx))
	}
	if c.readMu.lock(ctx, c.ended) != nil {
		if err := c.final(); err != nil {
			return err
		}
		return fmt.Errorf("websocket: read: %w", context.Cause(ctx))
	}
	if c.reason() != nil {
		c.readMu.unlock()
		return c.final()
	}
	c.readCtx = ctx
	return nil
}

// unlockRead is called before a Read returns err. If that is the end of the
// connection, it waits until nothing more is written, for which others may have to
// read.
func (c *Conn) unlockRead(err *error) {
	c.readCtx = nil
	c.readMu.unlock()
	if *err != nil {
		_ = c.final() // it is err
	}
}

// readError returns what to tell the caller of a Read that failed.
func (c *Conn) readError(err error) error {
	if reason := c.reason(); reason != nil {
		return reason
	}
	if isTimeout(err) {
		return fmt.Errorf("websocket: read: %w", context.Cause(c.readCtx))
	}
	return err
}

// nextMessage skips what is left of a message and reads the head of the next.
// readMu is held, here and below.
func (c *Conn) nextMessage() error {
	var skipped []byte
	for c.message.open {
		if skipped == nil {
			skipped = make([]byte, 512)
		}
		if _, err := c.readMessage(skipped); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	c.partial = nil
	return c.nextFrame()
}

// readMessage reads content of the message. It returns io.EOF at its end, also
// together with content.
func (c *Conn) readMessage(p []byte) (n int, err error) {
	m := &c.message
	if m.compressed {
		n, err = c.inflate(p)
	} else {
		n, err = c.readContent(p)
	}
	m.size += int64(n)
	if m.limit >= 0 && m.size > m.limit {
		return 0, c.fail(StatusMessageTooBig, fmt.Sprintf("message of more than %d bytes", m.limit))
	}
	if m.typ == Text && !m.text.add(p[:n]) {
		return 0, c.fail(StatusInvalidPayload, "invalid UTF-8")
	}
	if errors.Is(err, io.EOF) {
		m.open = false
		c.dropInflater()
		if m.typ == Text && !m.text.complete() {
			return 0, c.fail(StatusInvalidPayload, "text ends within a character")
		}
	}
	return n, err
}

// readContent reads what the message's frames carry.
func (c *Conn) readContent(p []byte) (int, error) {
	m := &c.message
	for m.left == 0 {
		if m.final {
			return 0, io.EOF
		}
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	n, err := c.br.Read(p[:min(int64(len(p)), m.left)])
	m.consume(p[:n])
	if err != nil && n == 0 {
		return 0, c.streamError(err)
	}
	return n, nil
}

// consume unmasks content and accounts for it.
func (m *message) consume(p []byte) {
	if m.mask != [4]byte{} {
		ws.Cipher(p, m.mask, m.pos)
		m.pos = (m.pos + len(p)) & 3
	}
	m.left -= int64(len(p))
}

// streamError ends the connection, unless a Read was only interrupted.
func (c *Conn) streamError(err error) error {
	if isTimeout(err) && c.readCtx != nil && c.readCtx.Err() != nil {
		return err
	}
	return c.lost(err)
}

// nextFrame reads up to the content of the next data frame, and acts on the
// control frames before it. When it is interrupted, nothing is lost.
func (c *Conn) nextFrame() error {
	for {
		h, size, err := c.peekHead()
		if err != nil {
			return err
		}
		if h.OpCode.IsControl() {
			if err := c.control(h, size); err != nil {
				return err
			}
			continue
		}
		_, _ = c.br.Discard(size) // of what was peeked
		c.begin(h)
		if m := &c.message; !m.compressed && m.limit >= 0 && h.Length > m.limit-m.size {
			return c.fail(StatusMessageTooBig, fmt.Sprintf("message of more than %d bytes", m.limit))
		}
		return nil
	}
}

// begin makes a data frame the one at hand.
func (c *Conn) begin(h ws.Header) {
	m := &c.message
	if h.OpCode != ws.OpContinuation {
		*m = message{
			open: true, serial: m.serial + 1, typ: MessageType(h.OpCode),
			compressed: h.Rsv == rsv1, limit: c.readLimit.Load(),
		}
	}
	m.final, m.left, m.mask, m.pos = h.Fin, h.Length, h.Mask, 0
}

// peekHead returns the head of the next frame and its size in bytes, if it is
// right. It stays in the buffer.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.2
func (c *Conn) peekHead() (h ws.Header, size int, err error) {
	size = ws.MinHeaderSize
	b, err := c.br.Peek(size)
	if err != nil {
		return h, 0, c.streamError(err)
	}
	switch b[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b[1]&0x80 != 0 {
		size += len(h.Mask)
	}
	if b, err = c.br.Peek(size); err != nil {
		return h, 0, c.streamError(err)
	}
	c.headBytes.Reset(b)
	if h, err = ws.ReadHeaderBuffer(&c.headBytes, c.headBuf[:]); err == nil {
		err = c.checkHead(h, size)
	}
	if err != nil {
		return h, 0, c.fail(StatusProtocolError, err.Error())
	}
	return h, size, nil
}

var (
	errLengthNotMinimal = errors.New("length in more bytes than it takes")
	errReservedBits     = errors.New("reserved bits")
)

func (c *Conn) checkHead(h ws.Header, size int) error {
	state := ws.StateServerSide
	if c.client {
		state = ws.StateClientSide
	}
	if c.message.open {
		state = state.Set(ws.StateFragmented)
	}
	if c.compress {
		state = state.Set(ws.StateExtended)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return err
	}
	switch {
	case h.Rsv != 0 && (h.Rsv != rsv1 || h.OpCode == ws.OpContinuation || h.OpCode.IsControl()):
		return errReservedBits
	case ws.HeaderSize(h) != size:
		return errLengthNotMinimal
	}
	return nil
}

// control acts on a control frame, when it has arrived as a whole.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-5.5
func (c *Conn) control(h ws.Header, size int) error {
	b, err := c.br.Peek(size + int(h.Length))
	if err != nil {
		return c.streamError(err)
	}
	content := append([]byte(nil), b[size:]...)
	_, _ = c.br.Discard(len(b)) // of what was peeked
	if h.Masked {
		ws.Cipher(content, h.Mask, 0)
	}
	switch h.OpCode {
	case ws.OpPing:
		c.answerPing(content)
		return nil
	case ws.OpPong:
		c.takePong(content)
		return nil
	}
	c.peerClosed = true
	code, reason, ok := parseClose(content)
	if !ok {
		return c.fail(code, reason)
	}
	_, _ = c.end(&CloseError{Code: code, Reason: reason, Remote: true}, true) // the answer may come too late
	if err := c.reason(); err != nil {
		return err
	}
	return nil
}

// skipFrame discards a frame, while the connection ends.
func (c *Conn) skipFrame() error {
	for c.message.left > 0 {
		n, err := c.br.Discard(int(min(c.message.left, readBuffer)))
		c.message.left -= int64(n)
		if err != nil {
			return err
		}
	}
	if c.message.final {
		c.message.open = false
	}
	h, size, err := c.peekHead()
	if err != nil {
		return err
	}
	if h.OpCode.IsControl() {
		return c.control(h, size)
	}
	_, _ = c.br.Discard(size) // of what was peeked
	c.message.open, c.message.final, c.message.left = true, h.Fin, h.Length
	return nil
}
