//go:build ngtcp2 && cgo

package ngtcp2

import (
	"sync"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A sendBuffer is what one system call sends, with segmentation by the kernel.
type sendBuffer struct {
	packets [64 << 10]byte
	out     capi.Output
}

var sendBuffers = sync.Pool{New: func() any { return new(sendBuffer) }}

// flush sends what congestion control, pacing and the peer allow now. The
// caller holds mu.
func (c *conn) flush(now uint64) {
	if c.cc == nil || c.reason() != nil {
		return
	}
	c.owing = false
	if !c.blocked {
		c.gathering = true
		buf := sendBuffers.Get().(*sendBuffer)
		for c.reason() == nil {
			var err error
			buf.out, err = c.cc.WritePackets(buf.packets[:], now)
			c.events()
			if err != nil {
				c.fail(err)
				break
			}
			if buf.out.N == 0 {
				break
			}
			s := c.socketFor(buf.out.Path)
			if s != nil && s.send(c, &buf.out, buf.packets[:buf.out.N]) {
				c.blocked = true
				break
			}
		}
		sendBuffers.Put(buf)
		c.gathering = false
		c.wakeNow()
	}
	if c.qlog != nil {
		c.flushQLog()
	}
	if c.ep.opts.ConnIDs != nil && c.reason() == nil {
		c.supplyIDs()
	}
	c.arm(now)
}

// arm tells the loop when the connection has something to do. The caller holds
// mu.
func (c *conn) arm(now uint64) {
	at := c.cc.Expiry()
	if at == c.armed || c.blocked && at <= now {
		return // what is due waits for the socket
	}
	c.armed = at
	c.expiry.Store(at)
	c.sock.wake(c)
}

// socketFor returns the socket that packets on p leave by, or nil if there is
// none any more.
func (c *conn) socketFor(p capi.Path) socket {
	if m := c.extra; m != nil && p.Local == m.path.Local {
		return m.sock
	}
	if c.abandoned.IsValid() && p.Local == c.abandoned {
		return nil
	}
	return c.sock
}
