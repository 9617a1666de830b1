package client

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// openTimeout is how long a server may take to grant a data stream.
const openTimeout = 5 * time.Second

// A dataStream is a stream beside the control stream, with its own buffer and
// goroutines.
type dataStream struct {
	cn   *conn
	id   mqtt.StreamID // the machine's number
	wake chan struct{} // capacity 1; for the writer

	// guarded by Client.mu:
	stream   mqtt.Stream // nil until it is open
	out      []byte      // encoded packets that the writer has not taken
	answers  int         // bytes in out that are no messages
	flights  int         // bytes in out of messages with QoS 1 and 2
	qos0     int         // messages with QoS 0 in out
	fin      bool        // what is in out is the last
	finished bool        // that is written, and the end
	over     bool        // it is lost, or its place is taken back
	repaired bool        // it is lost, and the log does not have it yet
}

// maxAnswers is how many bytes that are no messages may wait to be written on a data
// stream before its reader stops: the same as maxBacklog on the control stream.
const maxAnswers = 64 << 10

// dataStream returns a stream, which it opens if need be; nil if id is the control
// stream, or a stream that has ended. mu is held.
func (cn *conn) dataStream(id mqtt.StreamID) *dataStream {
	if d := cn.data[id]; d != nil || id == mqtt.ControlStream || !cn.c.m.slots.isOpen(id) {
		return d
	}
	d := &dataStream{cn: cn, id: id, wake: make(chan struct{}, 1)}
	if cn.data == nil {
		cn.data = make(map[mqtt.StreamID]*dataStream)
	}
	cn.data[id] = d
	cn.wg.Go(d.run) // ends with the stream or the link
	return d
}

// onStream encodes o for its data stream, or drops it if that has ended: what must
// not be lost has been sent on another by then. mu is held. What bounds the buffer is
// Config.QueueBytes for messages, see unwritten, and maxAnswers for what answers the
// server, see behind.
func (cn *conn) onStream(o *outgoing) {
	d := cn.dataStream(o.stream)
	if d == nil || o.stale() {
		return
	}
	out, err := o.append(d.out, cn.c.cfg.Version)
	if err != nil {
		cn.c.log.Error("packet dropped", "error", err)
		return
	}
	if o.flight != nil {
		cn.c.stats.MessagesSent++
		if o.flight.qos == packet.AtMostOnce {
			d.qos0++
		} else {
			d.flights += len(out) - len(d.out)
		}
	} else {
		d.answers += len(out) - len(d.out)
	}
	d.out = out
	d.wakeWriter()
}

// unwritten returns how many bytes of messages with QoS 1 and 2 wait for the writers of
// data streams. They are more than what is in the queue if the server has acknowledged
// messages that it cannot have read. mu is held.
func (c *Client) unwritten() (n int) {
	if c.conn != nil {
		for _, d := range c.conn.data {
			n += d.flights
		}
	}
	return n
}

// publishQoS0 encodes p. There is no topic alias: servers disagree about them on data
// streams. mu is held.
func (d *dataStream) publishQoS0(p *packet.Publish) error {
	c := d.cn.c
	start := len(d.out)
	out, err := packet.AppendPublish(d.out, c.cfg.Version, p, packet.PublishHeader{Retain: p.Retain})
	if err != nil {
		return err
	}
	if code := c.m.refusal(packet.AtMostOnce, p.Retain, len(out)-start); code != 0 {
		return &PublishError{State: NotSent, Code: code}
	}
	d.out = out
	d.qos0++
	c.stats.MessagesSent++
	d.wakeWriter()
	return nil
}

func (d *dataStream) wakeWriter() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run opens the stream, and writes to it until it or the connection ends.
func (d *dataStream) run() {
	ctx, cancel := context.WithTimeout(d.cn.link.Context(), openTimeout)
	s, err := d.cn.link.OpenStream(ctx)
	cancel()
	if err != nil {
		d.lost(err)
		return
	}
	c := d.cn.c
	c.mu.Lock()
	d.stream = s
	c.mu.Unlock()
	d.cn.wg.Go(func() { d.read(s) }) // ends with the stream
	var taken []byte
	for {
		c.mu.Lock()
		taken, d.out = d.out, taken[:0]
		qos0, fin, over := d.qos0, d.fin, d.over
		d.qos0, d.answers, d.flights = 0, 0, 0
		noted := c.noted()
		c.changed() // there is room
		c.mu.Unlock()
		switch {
		case over:
			s.Reset(0)
			return
		case len(taken) > 0:
			if err := c.commit(noted); err != nil { // as on the control stream
				s.Reset(0)
				d.cn.fail(&ConnectionError{"write", err})
				return
			}
			n, err := s.Write(taken)
			c.mu.Lock()
			c.stats.BytesSent += uint64(n)
			if err == nil {
				c.m.wrote(time.Now())
			} else {
				c.stats.MessagesLost += uint64(qos0)
			}
			c.mu.Unlock()
			if err != nil {
				s.Reset(0)
				d.lost(err)
				return
			}
			if cap(taken) > keepOutBuffer {
				taken = nil
			}
		case fin:
			_ = s.CloseWrite()
			c.mu.Lock()
			d.finished = true
			c.changed()
			c.mu.Unlock()
			return
		default:
			select {
			case <-d.wake:
			case <-d.cn.over:
				return
			}
		}
	}
}

// read reads the stream until it ends.
func (d *dataStream) read(s mqtt.Stream) {
	cn := d.cn
	r := &reader{conn: cn, in: mqtt.NewReader(s, cn.c.cfg.MaximumPacketSize), id: d.id, data: d}
	err := r.run()
	r.rest()
	r.in.Release()
	var violation *ProtocolError
	switch {
	case errors.As(err, &violation):
		cn.fail(err)
	case errors.Is(err, errOver):
	default:
		cn.c.mu.Lock()
		fin := d.fin
		cn.c.mu.Unlock()
		if !fin || !errors.Is(err, io.EOF) {
			s.Reset(0)
		}
		d.lost(err)
	}
}

// lost takes the stream out of use, unless that is done, and has the machine repair
// what was on it.
func (d *dataStream) lost(err error) {
	c := d.cn.c
	c.mu.Lock()
	d.drop()
	repaired := d.repaired
	d.repaired = false
	c.unlock()
	if repaired && d.cn.link.Context().Err() == nil {
		c.log.Info("data stream lost", "error", err)
	}
}

// drop is lost, but for the log. mu is held.
func (d *dataStream) drop() {
	if d.over {
		return
	}
	c := d.cn.c
	d.over = true
	delete(d.cn.data, d.id)
	c.stats.MessagesLost += uint64(d.qos0)
	d.out, d.qos0, d.answers, d.flights = nil, 0, 0, 0
	d.wakeWriter()
	if c.conn == d.cn && !d.fin {
		d.repaired = true
		c.m.streamLost(d.id)
		c.newRoutes()
		c.flush()
	}
	c.changed()
}

// abandoned reports whether nothing that came on the stream is to be obeyed any more:
// its place is taken by another stream, or the server has reset it. mu is held.
func (d *dataStream) abandoned() bool {
	return d.over || d.stream != nil && d.stream.Abandoned() != nil
}

// dropAbandoned drops the data streams that the server has reset, before something that
// may be a consequence of it. mu is held.
func (cn *conn) dropAbandoned() {
	for _, d := range cn.data {
		if d.abandoned() {
			d.drop()
		}
	}
}

// finishStreams ends the data streams, and waits until all is written to them, and then,
// for a moment, until the server has read them: DISCONNECT, on another stream, could
// overtake what is on them.
func (cn *conn) finishStreams(ctx context.Context) {
	c := cn.c
	c.mu.Lock()
	for _, d := range cn.data {
		d.fin = true
		d.wakeWriter()
	}
	written := func() bool {
		for _, d := range cn.data {
			if !d.finished {
				return false
			}
		}
		return true
	}
	read := func() bool { return len(cn.data) == 0 }
	if cn.awaitStreams(ctx, written) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lingerTimeout)
	defer cancel()
	if cn.awaitStreams(ctx, read) == nil {
		c.mu.Unlock()
	}
}

// awaitStreams waits until done says so, or the connection has ended. It is called with
// mu and returns with it, unless it fails.
func (cn *conn) awaitStreams(ctx context.Context, done func() bool) error {
	for cn.c.conn == cn && !done() {
		if err := cn.c.waitRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sendConnect opens the control stream and writes CONNECT.
func (c *Client) sendConnect(ctx context.Context, link mqtt.Link, b []byte) (mqtt.Stream, error) {
	send := func() (mqtt.Stream, error) {
		s, err := link.OpenStream(ctx)
		if err != nil {
			return nil, err
		}
		_, err = s.Write(b)
		return s, err
	}
	if c.cfg.EarlyData {
		s, early := send()
		err := link.Handshake(ctx)
		if !errors.Is(err, mqtt.ErrEarlyDataRejected) {
			return s, errors.Join(early, err)
		}
		return send() // on a Link that is as good as new
	}
	// CONNECT has credentials: it waits until the server is known and is never
	// part of early data, which could be replayed.
	if err := link.Handshake(ctx); err != nil && !errors.Is(err, mqtt.ErrEarlyDataRejected) {
		return nil, err
	}
	return send()
}
