package client

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// stableAfter is how long a connection must last for earlier failures to be
// forgotten. A server that accepts and throws out at once is not hammered.
const stableAfter = 10 * time.Second

// delay returns the delay before attempt, which counts from 1.
func (b *Backoff) delay(attempt int) time.Duration {
	d := b.Max
	if shift := attempt - 1; shift < 62 && b.Min <= b.Max>>shift {
		d = b.Min << shift
	}
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter is no secret
}

// supervise runs one connection after another until the Client ends. If cn, the
// first one, is nil then it makes that as well.
func (c *Client) supervise(cn *conn) {
	failures := 0
	var err error
	if cn == nil {
		if cn, err = c.connectFollowing(c.ctx); err != nil {
			c.log.Info("connecting failed", "error", err)
			if c.ctx.Err() != nil {
				err = nil
			} else {
				cn, err = c.reconnect(err, &failures)
			}
		}
	}
	for cn != nil {
		c.log.Info("connected", "url", cn.target.String(), "client", c.ClientID())
		c.call(c.onConnect())
		err = c.serve(cn)
		c.call(c.onDisconnect(err))
		if err == nil {
			break
		}
		c.log.Info("connection lost", "error", err)
		if time.Since(cn.began) >= stableAfter {
			failures, c.route.hops = 0, 0
		}
		cn, err = c.reconnect(err, &failures)
	}
	c.finish(err)
}

// reconnect makes attempts until one succeeds. If it does not, the Client ends
// with the error, which is nil if Disconnect or Close were called.
func (c *Client) reconnect(err error, failures *int) (*conn, error) {
	b := &c.cfg.Reconnect
	for {
		followed := c.follow(err)
		switch {
		case b.Disabled || !followed && !b.Retry(err):
			return nil, err
		case b.MaxAttempts > 0 && *failures >= b.MaxAttempts:
			return nil, err
		}
		*failures++
		delay := b.delay(*failures)
		switch {
		case followed:
			delay = 0
		case busy(err):
			delay = max(delay, b.delay(busyAttempt))
		}
		c.log.Info("connecting again", "after", delay, "attempt", *failures)
		if !c.sleep(delay) {
			return nil, nil
		}
		cn, connectErr := c.connectFollowing(c.ctx)
		if connectErr == nil {
			return cn, nil
		}
		if c.ctx.Err() != nil {
			return nil, nil //nolint:nilerr // ended by Close, which is no failure
		}
		c.log.Info("connecting failed", "error", connectErr)
		err = connectErr
	}
}

// sleep waits for d and reports whether the Client goes on.
func (c *Client) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// serve runs a connection until it has ended, and returns why: nil if Disconnect or
// Close ended it.
func (c *Client) serve(cn *conn) error {
	wg := cn.start()
	timer := time.NewTimer(c.untilDeadline())
	defer timer.Stop()
	var err error
	for wait := true; wait; {
		select {
		case <-timer.C:
			c.mu.Lock()
			err := c.m.tick(time.Now())
			c.flush()
			c.unlock()
			if err != nil {
				cn.fail(err)
			}
			timer.Reset(c.untilDeadline())
		case <-cn.failed:
			err, wait = cn.err, false
		case <-c.ctx.Done():
			wait = false
		}
	}
	c.end(cn, err, wg)
	return err
}

// untilDeadline returns when the machine wants a tick; never is a long time.
func (c *Client) untilDeadline() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.m.deadline(); !d.IsZero() {
		return max(time.Until(d), 0)
	}
	return 24 * time.Hour
}

// end ends a connection: in order, with a DISCONNECT, if the Client leaves or the
// server has violated the protocol; at once otherwise.
func (c *Client) end(cn *conn, err error, wg *sync.WaitGroup) {
	linkCode := mqtt.LinkNormal
	var violation *ProtocolError
	linger := false
	switch {
	case errors.As(err, &violation):
		linkCode = mqtt.LinkControlDown
		linger = c.cfg.Version >= packet.V5
		c.seal(cn, &packet.Disconnect{Code: violation.Code}, linger)
	case err == nil && !c.stopping():
		linger = true
		c.seal(cn, &packet.Disconnect{}, true)
	default:
		c.seal(cn, nil, false)
	}
	ended := make(chan struct{})
	go func() { // ends when reader and writer have, which the link's end brings about
		wg.Wait()
		close(ended)
	}()
	if linger {
		t := time.NewTimer(lingerTimeout)
		select {
		case <-ended: // everything is written and the server has closed
		case <-t.C:
		case <-c.stop:
		}
		t.Stop()
	}
	_ = cn.link.CloseWithCode(linkCode)
	close(cn.over)
	cn.fail(ErrClosed)
	<-ended
	c.mu.Lock()
	c.stats.MessagesLost += uint64(c.outQoS0)
	c.outQoS0 = 0
	putOutBuffer(c.out)
	c.out = nil
	c.mu.Unlock()
}

func (c *Client) stopping() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// seal takes the connection away from those who publish. What is in the outgoing
// buffer and then p are the last that is written.
func (c *Client) seal(cn *conn, p *packet.Disconnect, keep bool) {
	c.mu.Lock()
	defer c.unlock()
	if p != nil && keep {
		c.flush() // acknowledgements
		if !p.Code.AllowedIn(packet.DISCONNECT) {
			p.Code = packet.ProtocolError
		}
		if out, err := p.Append(c.buffer(), c.cfg.Version); err == nil {
			c.out = out
		}
	}
	if !keep {
		c.stats.MessagesLost += uint64(c.outQoS0)
		c.outQoS0 = 0
		c.out = c.out[:0]
	}
	cn.sealed = true
	cn.sleeping = true
	cn.wakeWriter()
	c.conn = nil
	c.m.detach()
	c.changed()
}

// finish ends the Client.
func (c *Client) finish(err error) {
	reason := err
	if reason == nil {
		reason = ErrClosed
	}
	c.mu.Lock()
	c.ended, c.err = true, err
	c.changed()
	c.mu.Unlock()
	c.keepQueue()
	c.mu.Lock()
	c.m.abandonAll(reason)
	c.unlock()
	c.leave()
	c.route.racers.Wait()
	c.dispatch.close()
	<-c.dispatch.done
	close(c.done)
}

// call lets the dispatcher call f, if there is one.
func (c *Client) call(f func()) {
	if f != nil {
		c.dispatch.add(event{call: f})
	}
}

func (c *Client) onConnect() func() {
	if c.cfg.OnConnect == nil {
		return nil
	}
	ack := c.Connack()
	return func() { c.cfg.OnConnect(ack) }
}

func (c *Client) onDisconnect(err error) func() {
	if c.cfg.OnDisconnect == nil {
		return nil
	}
	return func() { c.cfg.OnDisconnect(err) }
}
