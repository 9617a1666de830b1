//go:build ngtcp2 && cgo

package ngtcp2

import (
	"runtime"
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
	c.owing, c.soon = false, false
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

// busy reports whether the application may be about to write to other streams
// than s, which it is writing to: those that are open both ways, and those of the
// peer that it has not accepted yet. The caller holds mu.
func (c *conn) busy(s *stream) bool {
	others := c.exchanges
	if s.both != nil && s.counted {
		others--
	}
	a := &c.accepting[bidi]
	return others > 0 || a.accepted < a.opened
}

// flushSoon flushes when the goroutines have run that are ready to: answers that
// are written at about the same time go out in the same packets and the same system
// call. The caller holds mu, which is given back.
func (c *conn) flushSoon() {
	if c.soon { // somebody else does it
		c.unlock()
		return
	}
	c.soon = true
	c.unlock()
	runtime.Gosched()
	if c.lock() != nil {
		return
	}
	if c.soon {
		c.flush(c.ep.now())
	}
	c.unlock()
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
