// Package mochi lets a mochi-mqtt broker serve MQTT over anyquic's carriers: QUIC,
// WebSocket on every version of HTTP, and WebTransport.
//
//	l, err := mqttquic.ListenAddr(engine.Default(), ":14567", &mqttquic.ListenConfig{TLS: cfg})
//	server := mqtt.New(nil) // github.com/mochi-mqtt/server/v2
//	err = server.AddListener(mochi.NewListener("quic", l))
//
// Each connection has the one stream that such a broker knows, the control
// stream. Data streams that a client opens beside it are reset.
//
// It is a module of its own, so that nobody else gets mochi-mqtt with anyquic.
package mochi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Listener is a [listeners.Listener] on an [mqtt.LinkListener], which it closes
// when it is closed.
type Listener struct {
	id    string
	links mqtt.LinkListener
	ctx   context.Context // done when Close is called
	stop  context.CancelFunc
	told  context.Context // done when Close has told the clients; ends those that were none yet
	end   context.CancelFunc

	mu     sync.Mutex
	closed bool           // guarded by mu
	wg     sync.WaitGroup // of connections and Serve; Add only under mu while not closed
	log    *slog.Logger   // set by Init, before Serve
}

var _ listeners.Listener = (*Listener)(nil)

const (
	// handshakeTimeout bounds the time from a connection to its control stream. What
	// comes then is the broker's to limit.
	handshakeTimeout = 10 * time.Second

	// linger bounds the wait for the peer to take what was written last.
	linger = time.Second
)

// NewListener returns a Listener with an id, which names it in mochi-mqtt's
// hooks and must be unique there.
func NewListener(id string, l mqtt.LinkListener) *Listener {
	ctx, stop := context.WithCancel(context.Background())
	told, end := context.WithCancel(context.Background())
	return &Listener{id: id, links: l, ctx: ctx, stop: stop, told: told, end: end, log: slog.New(slog.DiscardHandler)}
}

// ID returns the id.
func (l *Listener) ID() string { return l.id }

// Address returns the address of the socket.
func (l *Listener) Address() string { return l.links.Addr().String() }

// Protocol returns the network of the socket: "udp" for QUIC.
func (l *Listener) Protocol() string { return l.links.Addr().Network() }

// Init takes the broker's log.
func (l *Listener) Init(log *slog.Logger) error {
	if log != nil {
		l.log = log
	}
	return nil
}

// begin counts a connection, unless the Listener is closed.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Add(1)
	return true
}

// Serve gives the broker every connection, until Close.
func (l *Listener) Serve(establish listeners.EstablishFn) {
	if !l.begin() {
		return
	}
	defer l.wg.Done()
	var delay time.Duration
	for {
		link, err := l.links.Accept(l.ctx)
		if err != nil {
			if l.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Others must still get in.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.log.Warn("accept failed", "listener", l.id, "error", err, "retry", delay)
			select {
			case <-time.After(delay):
			case <-l.ctx.Done():
			}
			continue
		}
		delay = 0
		if !l.begin() {
			_ = link.CloseWithCode(mqtt.LinkNormal)
			return
		}
		go func() { // ends with the connection; Close waits for it
			defer l.wg.Done()
			l.serve(link, establish)
		}()
	}
}

// serve gives the broker one connection and returns when it is over.
func (l *Listener) serve(link mqtt.Link, establish listeners.EstablishFn) {
	defer link.CloseWithCode(mqtt.LinkNormal)
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	// What comes before the handshake is complete may be a replay, and a replayed
	// CONNECT would take over the live session.
	if link.Handshake(ctx) != nil {
		return
	}
	stream, err := link.AcceptStream(ctx)
	if err != nil || stream.ID() != mqtt.ControlStream {
		return
	}
	if link.Carrier().Streams() {
		go l.resetOthers(link) // ends with the link
	}
	c := &Conn{link: link, stream: stream}
	defer context.AfterFunc(l.told, func() { _ = c.Close() })()
	if err := establish(l.id, c); err != nil {
		l.log.Warn("", "listener", l.id, "error", err)
	}
	_ = c.Close()
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-link.Context().Done():
	case <-t.C:
	}
}

// resetOthers resets data streams.
func (l *Listener) resetOthers(link mqtt.Link) {
	for {
		s, err := link.AcceptStream(link.Context())
		if err != nil {
			return
		}
		s.Reset(uint64(packet.ImplementationSpecificError))
	}
}

// Close ends the Listener and its connections and waits for them.
func (l *Listener) Close(closeClients listeners.CloseFn) {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		l.stop()
		closeClients(l.id)
		l.end()
		if err := l.links.Close(); err != nil {
			l.log.Warn("close", "listener", l.id, "error", err)
		}
	}
	l.wg.Wait()
}

// A Conn is what mochi-mqtt gets: the control stream of a connection. A hook finds
// it as Client.Net.Conn, and so who is at the other end:
//
//	if c, ok := cl.Net.Conn.(*mochi.Conn); ok { c.Link().Carrier() }
type Conn struct {
	link   mqtt.Link
	stream mqtt.Stream

	mu     sync.Mutex
	closed bool // guarded by mu
}

// Link returns the connection.
func (c *Conn) Link() mqtt.Link { return c.link }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.link.LocalAddr() }

// RemoteAddr returns the address of the client, which may change on QUIC.
func (c *Conn) RemoteAddr() net.Addr { return c.link.RemoteAddr() }

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *Conn) Write(p []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.stream.Write(p)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Close ends the stream: reading at once, writing after what was written. The
// connection ends when the client has closed it, or a second later.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	past := time.Unix(1, 0)
	_ = c.stream.SetReadDeadline(past)
	_ = c.stream.SetWriteDeadline(past)
	return c.stream.CloseWrite()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the time after which Read fails.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.stream.SetReadDeadline(t)
}

// SetWriteDeadline sets the time after which Write fails.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.stream.SetWriteDeadline(t)
}
