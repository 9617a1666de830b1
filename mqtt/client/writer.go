package client

import (
	"sync"
	"time"
)

// outBuffers are of outMax bytes or more. A connection borrows them while there is
// something to write.
var outBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, outMax+4<<10)
	return &b
}}

// keepOutBuffer is the largest buffer that goes back to the pool.
const keepOutBuffer = 4 * outMax

// buffer returns c.out to append to. mu is held.
func (c *Client) buffer() []byte {
	if c.out == nil {
		c.out = *outBuffers.Get().(*[]byte)
	}
	return c.out
}

func putOutBuffer(b []byte) {
	if b != nil && cap(b) <= keepOutBuffer {
		b = b[:0]
		outBuffers.Put(&b)
	}
}

// writeLoop writes what is in the outgoing buffer, all of it at once, until the
// connection ends. While it writes, the others fill another buffer.
func (cn *conn) writeLoop() {
	c := cn.c
	var taken []byte
	for {
		c.mu.Lock()
		c.flush()
		for len(c.out) == 0 {
			if cn.sealed || c.conn != cn {
				c.unlock()
				// FIN, where the carrier has one: nothing follows.
				if err := cn.stream.CloseWrite(); err != nil {
					cn.fail(&ConnectionError{"write", err})
				}
				return
			}
			cn.sleeping = true
			putOutBuffer(c.out)
			putOutBuffer(taken)
			c.out, taken = nil, nil
			c.unlock()
			select {
			case <-cn.wake:
			case <-cn.over:
				return
			}
			c.mu.Lock()
			c.flush()
		}
		qos0 := c.outQoS0
		taken, c.out, c.outQoS0 = c.out, taken, 0
		c.writing = true
		noted := c.noted()
		c.changed() // there is room
		c.unlock()

		n, err := 0, c.commit(noted) // what is sent now may be the consequence of it
		if err == nil {
			n, err = cn.stream.Write(taken)
		}

		c.mu.Lock()
		c.writing = false
		if c.closing {
			c.changed() // for Disconnect
		}
		c.stats.BytesSent += uint64(n)
		if err != nil {
			c.stats.MessagesLost += uint64(qos0)
		} else {
			c.m.wrote(time.Now())
		}
		c.mu.Unlock()
		if err != nil {
			cn.fail(&ConnectionError{"write", err})
			return
		}
		if cap(taken) > keepOutBuffer {
			taken = nil
		} else {
			taken = taken[:0]
		}
	}
}
