package client

import (
	"context"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Result is a server's answer to a message with QoS 1 or 2.
type Result struct {
	// Code is packet.Success, or packet.NoMatchingSubscribers if the server says
	// so. On MQTT 3.x it is always the former.
	Code   packet.ReasonCode
	Reason string // what the server says about it, may be empty
}

// Publish sends a message. It returns, for QoS 0, when the message is in the
// outgoing buffer or in the queue; for QoS 1 and 2, when the server has acknowledged
// it. It waits while there is no connection or too much waits to be sent, unless
// [Queue] says otherwise, and survives the loss of connections.
//
// The packet identifier, DUP, topic alias and subscription identifiers of p are
// ignored. A failure is a [*PublishError], which says whether the server may have
// got the message; a p that is not valid is a [*packet.Error] and was not sent.
func (c *Client) Publish(ctx context.Context, p *packet.Publish) (Result, error) {
	if p.QoS == packet.AtMostOnce {
		_, err := c.publishQoS0(ctx, p, nil)
		return Result{}, err
	}
	f, err := newFlight(p, c.cfg.Version)
	if err != nil {
		return Result{}, err
	}
	f.wait = make(chan outcome, 1)
	if err := c.submit(ctx, f); err != nil {
		return Result{}, err
	}
	c.calls.Add(1)
	defer c.calls.Add(-1)
	select {
	case o := <-f.wait:
		return o.result, o.err
	case <-ctx.Done():
	}
	state, ended := c.takeBack(f)
	if ended { // at the same moment
		o := <-f.wait
		return o.result, o.err
	}
	return Result{}, &PublishError{State: state, Err: ctx.Err()}
}

// PublishAsync sends a message and does not wait for its acknowledgement. It
// returns when the message is in the outgoing buffer or queue, and in its file, if
// it has one; it waits while they are full, and, with QoS 0, while there is no
// connection, unless [Queue] says otherwise. The context is for that wait only.
//
// If it returns nil then done, if not nil, is called once: for QoS 0 with nil,
// before PublishAsync returns, or when the message has left the queue; for QoS 1 and
// 2 with what Publish would return, from one of the client's goroutines. It must not
// block.
func (c *Client) PublishAsync(ctx context.Context, p *packet.Publish, done func(error)) error {
	if p.QoS == packet.AtMostOnce {
		queued, err := c.publishQoS0(ctx, p, done)
		if err == nil && !queued && done != nil {
			done(nil)
		}
		return err
	}
	f, err := newFlight(p, c.cfg.Version)
	if err != nil {
		return err
	}
	f.done = done
	return c.submit(ctx, f)
}

// publishQoS0 encodes p into the outgoing buffer, or puts it into the queue, which
// calls done in the end.
func (c *Client) publishQoS0(ctx context.Context, p *packet.Publish, done func(error)) (queued bool, err error) {
	c.mu.Lock()
	for {
		if err := c.unusable(); err != nil {
			c.mu.Unlock()
			return false, &PublishError{State: NotSent, Err: err}
		}
		if c.queuesZero() {
			c.mu.Unlock()
			f, err := newFlight(p, c.cfg.Version)
			if err != nil {
				return false, err
			}
			f.done = done
			return true, c.submit(ctx, f)
		}
		if c.conn != nil && c.m.slots.enabled {
			if d := c.conn.dataStream(c.m.streamOf(c.m.slots.of(p.Topic))); d != nil && len(d.out) < outMax {
				defer c.mu.Unlock()
				return false, d.publishQoS0(p)
			} else if d != nil {
				if err := c.waitRoom(ctx); err != nil {
					return false, &PublishError{State: NotSent, Err: err}
				}
				continue
			}
		}
		if c.conn != nil && len(c.out) < outMax {
			break
		}
		if err := c.waitRoom(ctx); err != nil {
			return false, &PublishError{State: NotSent, Err: err}
		}
	}
	defer c.mu.Unlock()
	h := packet.PublishHeader{Retain: p.Retain}
	newAlias := false
	if c.m.aliasMax > 0 {
		h.Alias, h.OmitTopic = c.m.outgoingAlias(p.Topic)
		newAlias = h.Alias != 0 && !h.OmitTopic
	}
	start := len(c.out)
	out, err := packet.AppendPublish(c.buffer(), c.cfg.Version, p, h)
	if err != nil {
		return false, err
	}
	if code := c.m.refusal(packet.AtMostOnce, p.Retain, len(out)-start); code != 0 {
		return false, &PublishError{State: NotSent, Code: code}
	}
	if newAlias {
		c.m.setAlias(p.Topic, h.Alias)
	}
	c.out = out
	c.outQoS0++
	c.stats.MessagesSent++
	c.conn.wakeWriter()
	return false, nil
}

// waitRoom waits until something has changed that those who publish wait for.
// It is called with mu and returns with it, unless it fails.
func (c *Client) waitRoom(ctx context.Context) error {
	room := c.room
	c.waiting++
	c.mu.Unlock()
	c.calls.Add(1)
	var err error
	select {
	case <-room:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.calls.Add(-1)
	c.mu.Lock()
	c.waiting--
	if err != nil {
		c.mu.Unlock()
	}
	return err
}

// changed wakes those in waitRoom. mu is held.
func (c *Client) changed() {
	if c.waiting > 0 {
		close(c.room)
		c.room = make(chan struct{})
	}
}

// freed wakes those in waitRoom if the queue has room again for more than one
// message; a wake-up for each acknowledgement would cost more than it brings.
func (c *Client) freed() {
	if c.m.queued <= c.cfg.QueueBytes/2 {
		c.changed()
	}
}
