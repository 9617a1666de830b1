package http3

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/anyquic/anyquic/transport"
)

var errNoBytes = fmt.Errorf("http3: a QUIC connection is no stream of bytes: %w", errors.ErrUnsupported)

// A tracedConn is what the user of net/http/httptrace sees of a connection: its
// addresses, which are asked for without a look whether there are any.
type tracedConn struct{ qc transport.Conn }

func (c tracedConn) LocalAddr() net.Addr  { return c.qc.LocalAddr() }
func (c tracedConn) RemoteAddr() net.Addr { return c.qc.RemoteAddr() }

func (tracedConn) Read([]byte) (int, error)         { return 0, errNoBytes }
func (tracedConn) Write([]byte) (int, error)        { return 0, errNoBytes }
func (tracedConn) Close() error                     { return errNoBytes }
func (tracedConn) SetDeadline(time.Time) error      { return errNoBytes }
func (tracedConn) SetReadDeadline(time.Time) error  { return errNoBytes }
func (tracedConn) SetWriteDeadline(time.Time) error { return errNoBytes }
