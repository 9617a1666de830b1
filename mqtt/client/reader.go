package client

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A reader reads one connection. What arrives together goes through the machine
// and to the dispatcher together.
type reader struct {
	*conn
	in     *mqtt.Reader
	id     mqtt.StreamID // the machine's number
	data   *dataStream   // nil: the control stream
	batch  *batch        // messages not handed to the dispatcher yet; nil: none
	bytes  uint64        // read since the machine was told
	topics [topicCache]string
	done   []completion
	acks   []shortAck // that the machine has not had; at most ackBatch

	stuck   bool   // the handler was found to wait for the reader,
	stuckAt uint64 // after that many messages

	puback  packet.Puback
	pubrec  packet.Pubrec
	pubrel  packet.Pubrel
	pubcomp packet.Pubcomp
}

// topicCache is how many topics a reader remembers, so that it allocates none that
// it has seen before.
const topicCache = 64

// A shortAck is an acknowledgement of one of our messages that says nothing but that
// it succeeded.
type shortAck struct {
	kind packet.Type // PUBACK, PUBREC or PUBCOMP
	id   uint16
}

// ackBatch is how many acknowledgements at most go through the machine together. They
// are about what was sent: messages that arrive between them may overtake them.
const ackBatch = 128

// maxBacklog is how many packets may wait to be sent before the reader stops: a
// server that demands acknowledgements and does not read them gets no more.
const maxBacklog = 8192

func (cn *conn) readLoop() {
	r := &reader{conn: cn, in: cn.in, id: mqtt.ControlStream}
	err := r.run()
	r.rest()
	cn.in.Release()
	if !errors.Is(err, errOver) {
		cn.fail(err)
	}
	var violation *ProtocolError
	if errors.Is(err, errOver) || errors.As(err, &violation) {
		// The server closes after DISCONNECT. Until then what it sends is
		// read, or the carrier would answer it with a reset, which may
		// overtake what was written last. The supervisor bounds the time.
		_, _ = io.Copy(io.Discard, cn.stream)
	}
}

// rest handles the messages and acknowledgements before what ended the stream.
func (r *reader) rest() {
	if r.batch != nil || len(r.acks) > 0 {
		if r.process(nil) != nil && r.batch != nil {
			r.batch.items = r.batch.items[:r.batch.processed]
		}
		r.handOver()
	}
}

func (r *reader) run() error {
	for {
		if !r.in.Ready() {
			// The next packet may take long.
			if err := r.endBurst(); err != nil {
				return err
			}
		}
		h, body, err := r.in.Next()
		if err != nil {
			var e *packet.Error
			if errors.As(err, &e) {
				return violationBy(err)
			}
			return &ConnectionError{"read", err}
		}
		r.bytes += uint64(2 + h.Length)
		if h.Type == packet.PUBLISH {
			err = r.publish(h, body)
		} else {
			err = r.other(h, body)
		}
		if err != nil {
			return err
		}
	}
}

// publish puts a message into the batch.
func (r *reader) publish(h packet.Header, body []byte) error {
	if r.batch != nil && !r.batch.fits(len(body)) {
		if err := r.endBurst(); err != nil {
			return err
		}
	}
	if r.batch == nil {
		if err := r.newBatch(); err != nil {
			return err
		}
	}
	b := r.batch
	body = b.keep(body)
	p := b.next()
	topic := r.topicOf(body)
	if topic != nil {
		p.Topic = *topic
	}
	if err := p.Decode(h, body, r.c.cfg.Version); err != nil {
		b.items = b.items[:len(b.items)-1]
		return violationBy(err)
	}
	if topic != nil {
		*topic = p.Topic
	}
	return nil
}

// topicOf returns where the topic of a PUBLISH may be remembered, nil if body is
// too short to have one.
func (r *reader) topicOf(body []byte) *string {
	if len(body) < 2 {
		return nil
	}
	n := int(body[0])<<8 | int(body[1])
	if n == 0 || len(body) < 2+n {
		return nil
	}
	t := body[2 : 2+n]
	h := uint(n)*31 + uint(t[n-1])*7 + uint(t[n/2])*13 + uint(t[n*3/4])*3
	return &r.topics[h%topicCache]
}

// other handles every packet but PUBLISH.
func (r *reader) other(h packet.Header, body []byte) error {
	p, err := r.decode(h, body)
	if err != nil {
		return violationBy(err)
	}
	switch p {
	case &r.puback:
		r.acks = append(r.acks, shortAck{packet.PUBACK, r.puback.PacketID})
	case &r.pubrec:
		r.acks = append(r.acks, shortAck{packet.PUBREC, r.pubrec.PacketID})
	case &r.pubcomp:
		r.acks = append(r.acks, shortAck{packet.PUBCOMP, r.pubcomp.PacketID})
	default:
		return r.process(p)
	}
	if len(r.acks) < ackBatch {
		return nil
	}
	return r.process(nil)
}

// Short acknowledgements are the rule, and are decoded without allocation.
func (r *reader) decode(h packet.Header, body []byte) (packet.Packet, error) {
	if flags := h.Flags; len(body) == 2 && (flags == 0 || h.Type == packet.PUBREL && flags == 2) {
		if id := uint16(body[0])<<8 | uint16(body[1]); id != 0 {
			ack := packet.Ack{PacketID: id}
			switch h.Type {
			case packet.PUBACK:
				r.puback.Ack = ack
				return &r.puback, nil
			case packet.PUBREC:
				r.pubrec.Ack = ack
				return &r.pubrec, nil
			case packet.PUBREL:
				r.pubrel.Ack = ack
				return &r.pubrel, nil
			case packet.PUBCOMP:
				r.pubcomp.Ack = ack
				return &r.pubcomp, nil
			}
		}
	}
	return packet.Decode(h, body, r.c.cfg.Version)
}

// endBurst hands over what has arrived.
func (r *reader) endBurst() error {
	if r.batch == nil && r.bytes == 0 {
		return nil
	}
	if err := r.process(nil); err != nil {
		return err
	}
	r.handOver()
	return nil
}

// process puts the acknowledgements, the messages of the batch and then p, if not
// nil, through the machine.
func (r *reader) process(p packet.Packet) error {
	c := r.c
	c.mu.Lock()
	if c.conn != r.conn {
		c.mu.Unlock()
		return errOver
	}
	if r.data != nil && r.data.abandoned() {
		// The server may have sent again on another stream what is at hand, and
		// what it acknowledges may have been sent again.
		c.mu.Unlock()
		return errAbandoned
	}
	c.m.read(time.Now())
	c.stats.BytesReceived += r.bytes
	r.bytes = 0
	err := r.processAcks()
	if err == nil {
		err = r.processBatch()
	}
	if rel, ok := p.(*packet.Pubrel); ok && err == nil {
		err = r.goOn(rel.PacketID)
	}
	if err == nil && p != nil {
		err = c.m.receive(r.id, p)
		c.newRoutes()
		c.freed()
	}
	c.flush()
	if err == nil && r.behind(1) {
		err = r.waitBacklog()
	}
	r.done = c.m.takeCompletions(r.done)
	refused := c.m.takeRefusedAgain()
	c.mu.Unlock()
	complete(r.done)
	for i := range refused {
		c.log.Warn("subscription lost", "filter", refused[i].Filter, "code", refused[i].Code, "reason", refused[i].Reason)
	}
	return err
}

func (r *reader) processAcks() error {
	if len(r.acks) == 0 {
		return nil
	}
	defer r.c.freed()
	acks := r.acks
	r.acks = r.acks[:0]
	for _, a := range acks {
		var p packet.Packet
		switch a.kind {
		case packet.PUBACK:
			r.puback.PacketID, p = a.id, &r.puback
		case packet.PUBREC:
			r.pubrec.PacketID, p = a.id, &r.pubrec
		default:
			r.pubcomp.PacketID, p = a.id, &r.pubcomp
		}
		if err := r.c.m.receive(r.id, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) processBatch() error {
	b := r.batch
	if b == nil {
		return nil
	}
	m := r.c.m
	for b.processed < len(b.items) {
		it := &b.items[b.processed]
		if it.publish.Dup && it.publish.QoS == packet.ExactlyOnce {
			if err := r.goOn(it.publish.PacketID); err != nil {
				b.items = b.items[:b.processed]
				return err
			}
		}
		ok, err := m.receivePublish(b.stream, &it.publish)
		if err != nil {
			b.items = b.items[:b.processed]
			return err
		}
		it.deliver = ok
		b.processed++
		r.c.stats.MessagesReceived++
		if ok && r.c.responseTo != "" && it.publish.Topic == r.c.responseTo {
			// A handler may be waiting for it in Request.
			it.deliver = false
			r.c.requester.response(&it.publish)
			if it.publish.QoS > packet.AtMostOnce {
				m.delivered(b.epoch, b.session, b.stream, it.publish.QoS, it.publish.PacketID)
			}
			continue
		}
		if ok && b.overdrawn && it.publish.QoS == packet.AtMostOnce {
			it.deliver = false
			r.c.stats.MessagesDropped++
		}
	}
	return nil
}

// goOn is called before the server goes on with an exchange of QoS 2. If it is not one
// of this stream, it was perhaps one of a stream that the server has reset, which
// that stream's reader has not come to yet. mu is held.
func (r *reader) goOn(id uint16) error {
	if _, ok := r.c.m.received[inboundID{r.id, id}]; !ok {
		r.dropAbandoned()
	}
	if r.data != nil && r.data.over {
		return errAbandoned
	}
	return nil
}

// behind reports whether more waits for the server to read than one part of what may:
// what it has made us answer. mu is held.
func (r *reader) behind(part int) bool {
	return r.c.m.backlog() > maxBacklog/part || r.data != nil && r.data.answers > maxAnswers/part
}

// waitBacklog waits until the server has read enough. mu is held.
func (r *reader) waitBacklog() error {
	c := r.c
	for c.conn == r.conn && r.behind(2) {
		room := c.room
		c.waiting++
		c.mu.Unlock()
		over := false
		select {
		case <-room:
		case <-r.failed:
			over = true
		}
		c.mu.Lock()
		c.waiting--
		if over {
			return errOver
		}
	}
	return nil
}

// newBatch waits until the dispatcher has room for one more batch, or is stuck.
func (r *reader) newBatch() error {
	c := r.c
	slot := true
	select {
	case c.dispatch.slots <- struct{}{}:
	default:
		var err error
		if slot, err = r.waitSlot(); err != nil {
			return err
		}
	}
	b := batches.Get().(*batch)
	c.mu.Lock()
	b.stream, b.epoch, b.session = r.id, c.m.epoch, c.m.session
	c.mu.Unlock()
	b.slot, b.overdrawn = slot, !slot
	r.batch = b
	return nil
}

// stuckAfter is how long a handler may run while the reader waits for it and calls
// wait for the server.
const stuckAfter = 5 * time.Second

// waitSlot waits for a slot of the dispatcher. It reports false if that would be
// for ever: the handler waits for an answer that only the reader can bring, for
// example in Publish. Then the reader goes on without one, at the expense of QoS 0
// messages, until the handler has returned, or until there is too much of QoS 1 and
// 2, which cannot be dropped.
func (r *reader) waitSlot() (bool, error) {
	d := r.c.dispatch
	r.setDeaf(true)
	defer r.setDeaf(false)
	for {
		progress := d.delivered.Load()
		if r.stuck && r.stuckAt == progress && d.overdraft.Load() < maxOverdraft {
			return false, nil
		}
		warned := r.stuck && r.stuckAt == progress
		r.stuck = false
		t := time.NewTimer(stuckAfter)
		select {
		case d.slots <- struct{}{}:
			t.Stop()
			return true, nil
		case <-r.failed:
			t.Stop()
			return false, errOver
		case <-r.c.ctx.Done():
			t.Stop()
			return false, errOver
		case <-t.C:
		}
		if d.delivered.Load() == progress && r.c.calls.Load() > 0 {
			r.stuck, r.stuckAt = true, progress
			if warned {
				continue
			}
			r.c.log.Warn("a handler waits for the server: messages with QoS 0 are dropped until it returns")
		}
	}
}

func (r *reader) setDeaf(deaf bool) {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == r.conn {
		c.m.setDeaf(time.Now(), deaf)
	}
}

func (r *reader) handOver() {
	b := r.batch
	r.batch = nil
	if b == nil {
		return
	}
	d := r.c.dispatch
	if b.overdrawn {
		d.overdraft.Add(int64(len(b.arena)))
	}
	if b.empty() {
		d.putBatch(b)
		return
	}
	d.add(event{batch: b})
}

// errOver ends a reader whose connection has ended, or is about to, for another
// reason, which it is not to hide.
var errOver = &ConnectionError{"read", io.EOF}

// errAbandoned ends the reader of a data stream that is not obeyed any more.
var errAbandoned = &ConnectionError{"read", net.ErrClosed}

// unlock releases mu and reports what has been completed.
func (c *Client) unlock() {
	if len(c.m.completed) == 0 {
		c.mu.Unlock()
		return
	}
	done := c.m.takeCompletions(nil)
	c.mu.Unlock()
	complete(done)
}

// complete reports completions. No lock is held.
func complete(done []completion) {
	for i := range done {
		d := &done[i]
		switch {
		case d.request != nil:
			d.request.wait <- requestOutcome{d.codes, d.err}
		case d.flight.wait != nil:
			d.flight.wait <- outcome{d.result, d.err}
		case d.flight.done != nil:
			d.flight.done(d.err)
		}
	}
}
