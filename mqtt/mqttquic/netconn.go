package mqttquic

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// linger bounds the wait for the peer's end of the stream in Close.
const linger = time.Second

// A conn is a client's control stream as a net.Conn.
//
// Close takes the stream away from whoever reads: it sets closed under mu, after
// which no deadline can be set by others, makes a Read that is blocked return,
// and leaves reading to the goroutine that waits for the peer. Reads hold
// reading, so that this goroutine starts when the last of them is over.
type conn struct {
	quic    transport.Conn
	stream  transport.Stream
	linger  time.Duration
	reading sync.Mutex

	mu     sync.Mutex
	closed bool // guarded by mu
}

func newConn(c transport.Conn, s transport.Stream) *conn {
	return &conn{quic: c, stream: s, linger: linger}
}

// Transport returns the QUIC connection, for its statistics.
func (c *conn) Transport() transport.Conn { return c.quic }

func (c *conn) LocalAddr() net.Addr  { return c.quic.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.quic.RemoteAddr() }

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *conn) Read(p []byte) (int, error) {
	if c.isClosed() {
		return 0, c.errClosed("read")
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.isClosed() {
		return 0, c.errClosed("read")
	}
	n, err := c.stream.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && c.isClosed() {
		err = c.errClosed("read")
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.isClosed() {
		return 0, c.errClosed("write")
	}
	n, err := c.stream.Write(p)
	if err != nil && c.isClosed() {
		err = c.errClosed("write")
	}
	return n, err
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.errClosed("set deadline")
	}
	return c.stream.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.errClosed("set deadline")
	}
	return c.stream.SetWriteDeadline(t)
}

// Close ends the stream now and the connection in the background.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.errClosed("close")
	}
	c.closed = true
	past := time.Unix(1, 0)
	_ = c.stream.SetReadDeadline(past)
	_ = c.stream.SetWriteDeadline(past)
	c.mu.Unlock()

	err := c.stream.Close()
	if err != nil {
		// The peer cancelled the stream, or the connection is gone: there is
		// nothing left to deliver.
		_ = c.quic.CloseWithError(0, "")
		if _, cancelled := errors.AsType[*transport.StreamError](err); cancelled || errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	}
	go c.drain() // ends after linger at the latest
	return nil
}

// drain waits until the peer has read everything, which its own end of the
// stream or of the connection shows, and closes the connection.
func (c *conn) drain() {
	c.reading.Lock()
	defer c.reading.Unlock()
	_ = c.stream.SetReadDeadline(time.Now().Add(c.linger))
	_, _ = io.Copy(io.Discard, c.stream)
	_ = c.quic.CloseWithError(0, "")
}

func (c *conn) errClosed(op string) error {
	return fmt.Errorf("mqttquic: %s: %w", op, net.ErrClosed)
}
