package purego

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// socketBuffer is what the kernel should hold for a UDP socket.
const socketBuffer = 7 << 20

// A socket is a net.PacketConn for a quic.Transport that can be taken back.
//
// It exists for two reasons. quic-go prints a warning when the kernel does not
// give it the buffers it wants, which a library must not do: it gets a socket
// that sets its own. And a quic.Transport that has served a connection cannot
// be closed without ending it, so a path that was probed in vain gets its
// socket pulled out from under it.
type socket interface {
	net.PacketConn

	// release stops all use of the inner net.PacketConn, which becomes the
	// caller's again, and discards what is written from now on. Reads block
	// until end.
	release()

	// end makes reads of a released socket fail.
	end()
}

// newSocket wraps pc so that what quic-go can do with it stays possible.
func newSocket(pc net.PacketConn) socket {
	l := &lease{pc: pc, released: make(chan struct{}), parked: make(chan struct{}), ended: make(chan struct{})}
	if udp, ok := pc.(quic.OOBCapablePacketConn); ok {
		if s := newUDPSocket(udp, l); s != nil {
			return s
		}
	}
	if sys, ok := pc.(syscallConn); ok {
		s := &rawSocket{plainSocket: plainSocket{pc, l}}
		s.sys = sys
		return s
	}
	return &plainSocket{pc, l}
}

type syscallConn interface {
	SyscallConn() (syscall.RawConn, error)
}

// A lease says whether a net.PacketConn may be used.
type lease struct {
	pc       net.PacketConn
	taken    atomic.Bool   // released is closed
	released chan struct{} // closed by release
	parked   chan struct{} // closed when the reader has noticed
	ended    chan struct{} // closed by end
	parkOnce sync.Once
	endOnce  sync.Once
}

func (l *lease) release() {
	l.taken.Store(true)
	close(l.released)
	l.pc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	<-l.parked
	l.pc.SetReadDeadline(time.Time{})
}

func (l *lease) end() { l.endOnce.Do(func() { close(l.ended) }) }

// failed is called by the reader with an error, which it returns, or that of a
// released socket.
func (l *lease) failed(err error) error {
	if gone := l.park(); gone != nil {
		return gone
	}
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		l.parkOnce.Do(func() { close(l.parked) }) // quic-go stops reading
	}
	return err
}

// park blocks the reader of a released socket until the end. It returns nil if
// the socket is in use.
func (l *lease) park() error {
	if !l.taken.Load() {
		return nil
	}
	l.parkOnce.Do(func() { close(l.parked) })
	<-l.ended
	return net.ErrClosed
}

// A plainSocket wraps any net.PacketConn.
type plainSocket struct {
	net.PacketConn
	*lease
}

func (s *plainSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	if err := s.park(); err != nil {
		return 0, nil, err
	}
	n, addr, err := s.PacketConn.ReadFrom(p)
	if err != nil {
		err = s.failed(err)
	}
	return n, addr, err
}

func (s *plainSocket) WriteTo(p []byte, addr net.Addr) (int, error) {
	if s.taken.Load() {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, addr)
}

func (s *plainSocket) SetReadDeadline(t time.Time) error {
	if s.taken.Load() {
		return nil
	}
	return s.PacketConn.SetReadDeadline(t)
}

// SetReadBuffer leaves the buffers to whoever made the net.PacketConn.
func (*plainSocket) SetReadBuffer(int) error  { return nil }
func (*plainSocket) SetWriteBuffer(int) error { return nil }

// A rawSocket has a file descriptor on which quic-go can set options.
type rawSocket struct {
	plainSocket
	descriptor
}

func (s *rawSocket) SetWriteBuffer(int) error {
	s.buffered.Store(true)
	return nil
}

// A descriptor hides the file descriptor until quic-go has asked for buffers,
// so that it cannot inspect what it got.
type descriptor struct {
	sys      syscallConn
	buffered atomic.Bool
}

var errNoInspection = errors.New("purego: buffers are not inspected")

func (d *descriptor) SyscallConn() (syscall.RawConn, error) {
	if !d.buffered.Load() {
		return nil, errNoInspection
	}
	return d.sys.SyscallConn()
}

// A udpSocket wraps a *net.UDPConn, or what can do the same: batches, control
// messages, options.
type udpSocket struct {
	quic.OOBCapablePacketConn
	*lease
	descriptor
	batch *ipv4.PacketConn
}

// newUDPSocket returns nil if batches are not possible.
func newUDPSocket(c quic.OOBCapablePacketConn, l *lease) *udpSocket {
	nc, ok := c.(net.Conn)
	if !ok {
		return nil
	}
	s := &udpSocket{OOBCapablePacketConn: c, lease: l, batch: ipv4.NewPacketConn(packetConn{c, nc})}
	s.sys = c
	return s
}

// A packetConn is both a net.PacketConn and a net.Conn, as ipv4 wants it.
type packetConn struct {
	quic.OOBCapablePacketConn
	conn net.Conn
}

func (c packetConn) Read(p []byte) (int, error)  { return c.conn.Read(p) }
func (c packetConn) Write(p []byte) (int, error) { return c.conn.Write(p) }
func (c packetConn) RemoteAddr() net.Addr        { return c.conn.RemoteAddr() }

// SyscallConn settles which of the embedded methods counts.
func (s *udpSocket) SyscallConn() (syscall.RawConn, error) { return s.descriptor.SyscallConn() }

func (s *udpSocket) SetReadBuffer(int) error {
	setReadBuffer(s.OOBCapablePacketConn, socketBuffer)
	return nil
}

// SetWriteBuffer is the last thing that quic-go does about buffers.
func (s *udpSocket) SetWriteBuffer(int) error {
	setWriteBuffer(s.OOBCapablePacketConn, socketBuffer)
	s.buffered.Store(true)
	return nil
}

// ReadBatch is what quic-go reads with where batches exist.
func (s *udpSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if err := s.park(); err != nil {
		return 0, err
	}
	n, err := s.batch.ReadBatch(ms, flags)
	if err != nil {
		err = s.failed(err)
	}
	return n, err
}

// ReadFrom is what quic-go reads with elsewhere.
func (s *udpSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	if err := s.park(); err != nil {
		return 0, nil, err
	}
	n, addr, err := s.OOBCapablePacketConn.ReadFrom(p)
	if err != nil {
		err = s.failed(err)
	}
	return n, addr, err
}

func (s *udpSocket) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (int, int, error) {
	if s.taken.Load() {
		return len(p), len(oob), nil
	}
	return s.OOBCapablePacketConn.WriteMsgUDP(p, oob, addr)
}

func (s *udpSocket) WriteTo(p []byte, addr net.Addr) (int, error) {
	if s.taken.Load() {
		return len(p), nil
	}
	return s.OOBCapablePacketConn.WriteTo(p, addr)
}

func (s *udpSocket) SetReadDeadline(t time.Time) error {
	if s.taken.Load() {
		return nil
	}
	return s.OOBCapablePacketConn.SetReadDeadline(t)
}
