package client

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A conn is one network connection of a Client, accepted by the server.
type conn struct {
	c      *Client
	link   mqtt.Link
	target *target
	stream mqtt.Stream // the control stream
	in     *mqtt.Reader
	began  time.Time

	wake     chan struct{} // capacity 1; for the writer
	sleeping bool          // guarded by c.mu; the writer waits for wake
	sealed   bool          // guarded by c.mu; the writer ends when out is empty

	failOnce sync.Once
	failed   chan struct{} // closed with the first error
	err      error         // valid after failed: why the connection ends
	over     chan struct{} // closed when the supervisor has ended the connection

	wg   sync.WaitGroup                // of everything that reads and writes
	data map[mqtt.StreamID]*dataStream // by the machine's numbers; guarded by c.mu
}

// lingerTimeout is how long the end of a connection may take: the last packets to
// be written, and the server to close. It is what the server does as well.
const lingerTimeout = time.Second

// connect makes one attempt to connect.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	link, t, err := c.openLink(ctx)
	if err != nil {
		return nil, &ConnectionError{"dial", orContext(ctx, err)}
	}
	c.route.last = t
	interrupt := context.AfterFunc(ctx, func() { _ = link.CloseWithCode(mqtt.LinkNormal) })
	cn, ack, err := c.handshake(ctx, link)
	if !interrupt() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		cn.target = t
		err = c.attach(cn, ack)
	}
	if err == nil {
		if keepAlive := c.keepAlive(); keepAlive > 0 {
			link.SetIdleTimeout(max(2*keepAlive, 30*time.Second))
		}
		return cn, nil
	}
	code := mqtt.LinkNormal
	var violation *ProtocolError
	if errors.As(err, &violation) {
		code = mqtt.LinkControlDown
	}
	_ = link.CloseWithCode(code)
	var refused *ConnectError
	var untrusted *AuthError
	if errors.As(err, &refused) || violation != nil || errors.As(err, &untrusted) {
		return nil, err
	}
	return nil, &ConnectionError{"connect", orContext(ctx, err)}
}

// orContext prefers the context's error to one that is its consequence.
func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// handshake sends CONNECT and waits for CONNACK.
func (c *Client) handshake(ctx context.Context, link mqtt.Link) (*conn, *packet.Connack, error) {
	c.mu.Lock()
	p := c.connectPacket(c.m.epoch == 0)
	c.mu.Unlock()
	x, err := c.startAuth(p.Properties)
	if err != nil {
		return nil, nil, err
	}
	b, err := p.Append(nil, c.cfg.Version)
	if err != nil {
		return nil, nil, err
	}
	stream, err := c.sendConnect(ctx, link, b)
	if err != nil {
		return nil, nil, err
	}
	in := mqtt.NewReader(stream, c.cfg.MaximumPacketSize)
	ack, err := c.authenticate(in, stream, x)
	if err != nil {
		in.Release()
		return nil, nil, err
	}
	return &conn{
		c: c, link: link, stream: stream, in: in, began: time.Now(),
		wake: make(chan struct{}, 1), failed: make(chan struct{}), over: make(chan struct{}),
	}, ack, nil
}

// readAnswer returns a CONNACK that accepts, or an AUTH, valid until the next
// read.
func (c *Client) readAnswer(in *mqtt.Reader) (packet.Packet, error) {
	h, body, err := in.Next()
	if err != nil {
		return nil, violationBy(err)
	}
	p, err := packet.Decode(h, body, c.cfg.Version)
	if err != nil {
		return nil, violationBy(err)
	}
	switch p := p.(type) {
	case *packet.Connack:
		if !p.Code.Failed() {
			if p.Properties != nil { // it is kept, the buffer is not
				p.Properties.AuthData = bytes.Clone(p.Properties.AuthData)
			}
			return p, nil
		}
		e := &ConnectError{Code: p.Code}
		if p.Properties != nil {
			e.Reason, e.ServerReference = p.Properties.ReasonString, p.Properties.ServerReference
		}
		return nil, e
	case *packet.Auth:
		return p, nil
	}
	return nil, &ProtocolError{packet.ProtocolError, "first packet is not CONNACK"} // [MQTT-3.2.0-1]
}

// violationBy translates what a decoder says about the server's bytes.
func violationBy(err error) error {
	var e *packet.Error
	if errors.As(err, &e) {
		return &ProtocolError{e.Code, e.Reason}
	}
	return err
}

// attach makes cn the connection of the Client.
func (c *Client) attach(cn *conn, ack *packet.Connack) error {
	c.mu.Lock()
	defer c.unlock()
	if ack.Properties != nil && ack.Properties.AssignedClientID != "" {
		c.clientID = ack.Properties.AssignedClientID
	}
	c.m.startStreams(cn.link.Carrier().Streams())
	if c.m.log != nil {
		c.m.log.clientID = c.clientID
	}
	if err := c.m.attach(time.Now(), ack, c.cleanStart(c.m.epoch == 0)); err != nil {
		return err
	}
	c.connack = ack
	c.conn, c.carrier = cn, cn.link.Carrier()
	c.stats.Connections++
	c.newRoutes()
	c.flush()
	c.changed()
	return nil
}

// keepAlive returns the keep-alive in force, 0 for none.
func (c *Client) keepAlive() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.interval
}

// fail ends the connection; the first reason counts.
func (cn *conn) fail(err error) {
	cn.failOnce.Do(func() {
		cn.err = err
		close(cn.failed)
	})
}

// start starts reader and writer. Wait on the result after over is closed and the
// link as well.
func (cn *conn) start() *sync.WaitGroup {
	cn.wg.Go(cn.readLoop)  // ends when the link does
	cn.wg.Go(cn.writeLoop) // ends when the link does, when sealed, or with over
	return &cn.wg
}

// flush encodes what the machine has to send, as long as there is room, and wakes
// the writer. mu is held.
func (c *Client) flush() {
	cn := c.conn
	if cn == nil {
		return
	}
	for len(c.out) < outMax {
		o, ok := c.m.next()
		if !ok {
			break
		}
		if o.stream != mqtt.ControlStream {
			cn.onStream(&o)
			continue
		}
		if o.stale() {
			continue
		}
		out, err := o.append(c.buffer(), c.cfg.Version)
		if err != nil {
			// Packets are validated when the application hands them over.
			c.log.Error("packet dropped", "error", err)
			continue
		}
		if o.flight != nil {
			c.stats.MessagesSent++
			if o.flight.qos == packet.AtMostOnce {
				c.outQoS0++
			}
		}
		c.out = out
	}
	if len(c.out) > 0 {
		cn.wakeWriter()
	}
}

// wakeWriter is called with mu.
func (cn *conn) wakeWriter() {
	if cn.sleeping {
		cn.sleeping = false
		select {
		case cn.wake <- struct{}{}:
		default:
		}
	}
}
