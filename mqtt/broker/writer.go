package broker

import (
	"fmt"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

const (
	// fullQuantum is how much is encoded under one hold of the lock and
	// written at once.
	fullQuantum = 32 << 10
	// slowQuantum is the same for a peer that takes its time, so that it is
	// seen to take something.
	slowQuantum = 4 << 10
)

var writeBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, fullQuantum+4<<10)
	return &b
}}

// startWriter starts o's writing goroutine. The caller holds c.mu and knows
// that there is none.
func (c *client) startWriter(o *outlet, now time.Time) {
	o.writing = true
	// What it did while there was nothing to take says nothing.
	c.progressed(now)
	o.cn.goroutines.Add(1)
	go o.write() // until there is no output, or the link ends
}

// write writes what the machine has for the stream until it has no more.
func (o *outlet) write() {
	cn := o.cn
	defer cn.goroutines.Done()
	c := cn.client
	held := writeBuffers.Get().(*[]byte)
	buf := *held
	var out flow
	defer func() {
		if cap(buf) <= 2*fullQuantum { // one grown for a large packet is not kept
			*held = buf[:0]
		}
		writeBuffers.Put(held)
	}()
	o.quantum = fullQuantum
	now, wrote := time.Now(), false
	for {
		c.mu.Lock()
		if wrote {
			c.progressed(now)
		}
		var bad error
		o.promise = promisesNothing
		if c.conn == cn {
			buf, bad = o.encode(c, buf[:0], &out, now)
		} else {
			buf = buf[:0]
		}
		if len(buf) == 0 {
			defer c.settle(now)
			last := cn.closing && o == &cn.out
			o.writing = last // after the last there is no other
			farewell, ended := cn.farewell, o.ended
			cn.farewell = nil
			c.mu.Unlock()
			if ended {
				o.stream.CloseWrite()
			}
			if last {
				o.last(farewell)
			}
			return
		}
		// The queue has room for what is about to be written.
		c.wakeWaiting()
		if cn.data != nil && o == &cn.out {
			c.kick(now) // what waited on the data streams for the CONNACK
		}
		c.mu.Unlock()
		c.settle(now)
		if bad != nil {
			cn.b.log.Error("mqtt: packet left out", "client", c.id, "err", bad)
		}

		if !o.keepPromise(o.promise) {
			continue
		}
		began := now
		err := o.writeAll(c, buf)
		now = time.Now()
		if err != nil {
			o.failed(err)
			return
		}
		if took := now.Sub(began); took > 10*time.Millisecond {
			o.quantum = slowQuantum
		} else {
			o.quantum = min(2*o.quantum, fullQuantum)
		}
		out.bytes += uint64(len(buf))
		out.tell(&cn.b.count.out)
		wrote = true
	}
}

// writeAll writes buf; a large packet in pieces, so that a peer that takes one
// slowly is seen to.
func (o *outlet) writeAll(c *client, buf []byte) error {
	for len(buf) > 2*fullQuantum {
		if _, err := o.stream.Write(buf[:fullQuantum/2]); err != nil {
			return err
		}
		buf = buf[fullQuantum/2:]
		c.mu.Lock()
		c.progressed(time.Now())
		c.mu.Unlock()
	}
	_, err := o.stream.Write(buf)
	return err
}

// encode appends packets to buf until it holds a quantum. The caller holds c.mu.
func (o *outlet) encode(c *client, buf []byte, out *flow, now time.Time) ([]byte, error) {
	var bad error
	c.refill(now)
	for refilled := false; len(buf) < o.quantum; {
		p, ok := c.s.Next(now, o.id)
		if !ok {
			if refilled || !c.refill(now) {
				break
			}
			refilled = true
			continue
		}
		refilled = false
		if o.cn.b.durable != nil {
			o.promise = max(o.promise, promiseOf(&p, c.s))
		}
		var err error
		before := len(buf)
		buf, err = p.Append(buf, o.cn.version, now)
		switch {
		case err != nil:
			bad = fmt.Errorf("broker: encode: %w", err)
		case p.Message != nil:
			out.message(p.QoS, p.Dup)
			out.sizes[packet.PUBLISH] += uint64(len(buf) - before)
			c.b.count.delivered(&p, o.cn, now)
		default:
			out.packets[p.Packet.Type()]++
			out.sizes[p.Packet.Type()] += uint64(len(buf) - before)
		}
	}
	return buf, bad
}

// last ends the control stream's output: the session lets go of the connection
// and the peer may close.
func (o *outlet) last(farewell []byte) {
	cn := o.cn
	if farewell != nil {
		if _, err := o.stream.Write(farewell); err != nil {
			cn.link.CloseWithCode(mqtt.LinkCode(cn.linkCode.Load()))
		}
	}
	var src source
	src.init(cn.b, nil)
	src.now = time.Now()
	cn.detach(&src)
	cn.closeWrite()
}

// failed ends what cannot be written to.
func (o *outlet) failed(err error) {
	cn, c := o.cn, o.cn.client
	c.mu.Lock()
	o.writing = false
	c.wakeWaiting()
	if o != &cn.out {
		c.mu.Unlock()
		o.stream.Reset(uint64(packet.UnspecifiedError))
		return
	}
	if !cn.closing {
		cn.closing = true
		cn.code, cn.abnormal = packet.UnspecifiedError, true
		cn.reason = "connection lost: " + err.Error()
	}
	c.mu.Unlock()
	cn.link.CloseWithCode(mqtt.LinkCode(cn.linkCode.Load()))
}
