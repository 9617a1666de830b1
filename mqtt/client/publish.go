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
// outgoing buffer; for QoS 1 and 2, when the server has acknowledged it. It waits
// while there is no connection or too much waits to be sent, and survives the
// loss of connections.
//
// The packet identifier, DUP, topic alias and subscription identifiers of p are
// ignored. A failure is a [*PublishError], which says whether the server may have
// got the message; a p that is not valid is a [*packet.Error] and was not sent.
func (c *Client) Publish(ctx context.Context, p *packet.Publish) (Result, error) {
	if p.QoS == packet.AtMostOnce {
		return Result{}, c.publishQoS0(ctx, p)
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
	c.mu.Lock()
	if f.finished {
		c.mu.Unlock()
		o := <-f.wait
		return o.result, o.err
	}
	state := c.m.giveUp(f)
	c.freed()
	c.mu.Unlock()
	return Result{}, &PublishError{State: state, Err: ctx.Err()}
}

// PublishAsync sends a message and does not wait for its acknowledgement. It
// returns when the message is in the outgoing buffer or queue; it waits while they
// are full, and, with QoS 0, while there is no connection. The context is for that
// wait only.
//
// If it returns nil then done, if not nil, is called once: for QoS 0 with nil,
// before PublishAsync returns; for QoS 1 and 2 with what Publish would return,
// from one of the client's goroutines. It must not block.
func (c *Client) PublishAsync(ctx context.Context, p *packet.Publish, done func(error)) error {
	if p.QoS == packet.AtMostOnce {
		err := c.publishQoS0(ctx, p)
		if err == nil && done != nil {
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

// publishQoS0 encodes p into the outgoing buffer.
func (c *Client) publishQoS0(ctx context.Context, p *packet.Publish) error {
	c.mu.Lock()
	for {
		if err := c.unusable(); err != nil {
			c.mu.Unlock()
			return &PublishError{State: NotSent, Err: err}
		}
		if c.conn != nil && len(c.out) < outMax {
			break
		}
		if err := c.waitRoom(ctx); err != nil {
			return &PublishError{State: NotSent, Err: err}
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
		return err
	}
	if code := c.m.refusal(packet.AtMostOnce, p.Retain, len(out)-start); code != 0 {
		return &PublishError{State: NotSent, Code: code}
	}
	if newAlias {
		c.m.setAlias(p.Topic, h.Alias)
	}
	c.out = out
	c.outQoS0++
	c.stats.MessagesSent++
	c.conn.wakeWriter()
	return nil
}

// submit hands f to the machine when the queue has room for it.
func (c *Client) submit(ctx context.Context, f *flight) error {
	c.mu.Lock()
	for {
		if err := c.unusable(); err != nil {
			c.mu.Unlock()
			return &PublishError{State: NotSent, Err: err}
		}
		// One that is larger than the whole queue goes alone.
		if c.m.queued == 0 || c.m.queued+f.cost() <= c.cfg.QueueBytes {
			break
		}
		if err := c.waitRoom(ctx); err != nil {
			return &PublishError{State: NotSent, Err: err}
		}
	}
	defer c.unlock()
	if err := c.m.submit(f); err != nil {
		return err
	}
	c.flush()
	return nil
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
