//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"

	"github.com/anyquic/anyquic/transport"
)

// SendDatagram implements transport.Conn.
func (c *conn) SendDatagram(p []byte) error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.unlock()
	limit := c.maxDatagram()
	switch {
	case limit == 0:
		return errNoDatagrams
	case len(p) > limit:
		return &transport.DatagramTooLargeError{Max: limit}
	}
	c.cc.SendDatagram(p) // out of memory is a message lost
	c.flush(c.ep.now())
	return c.reason()
}

// maxDatagram is how large a message may be now, 0 if either side has them
// disabled. The caller holds mu.
func (c *conn) maxDatagram() int {
	if c.cc == nil || !c.cfg.cfg.Datagrams {
		return 0
	}
	return c.cc.MaxDatagram()
}

// ReceiveDatagram implements transport.Conn.
func (c *conn) ReceiveDatagram(ctx context.Context) ([]byte, error) {
	for {
		arrived := c.datagram.wait()
		if err := c.lockFor(ctx); err != nil {
			c.datagram.wake() // the others too
			return nil, err
		}
		if c.maxDatagram() == 0 {
			c.unlock()
			return nil, errNoDatagrams
		}
		p, ok := c.cc.RecvDatagram()
		c.unlock()
		if ok {
			c.datagram.wake() // there may be more, for another
			return p, nil
		}
		select {
		case <-arrived:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return nil, c.reasonOr(ctx.Err())
		}
	}
}
