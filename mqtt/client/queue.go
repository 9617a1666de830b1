package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Queue says what happens to messages that cannot be sent at once, because there
// is no connection or the server is slow. The zero Queue holds messages with QoS 1
// and 2 in memory, and those who publish wait when it is full.
// Config.QueueBytes bounds it.
type Queue struct {
	// File, if not empty, names a file that keeps the messages, and with them the
	// client's side of the session, so that a later Client goes on with them
	// after the process has ended in whatever way: packet identifiers, messages
	// whose exchange is under way, and those that were received exactly once.
	// It is made if it does not exist, with a file of the same name and ".lock";
	// one Client at a time has it, for one client identifier. A message is in
	// the file before PublishAsync returns, and what the protocol depends on
	// before it is sent.
	//
	// The server must keep the session as well: SessionExpiry (on MQTT 3.x no
	// CleanStart). If it does not, what is in the file arrives at least once.
	// All that is in the file is also in memory.
	File string

	// Sync makes every write to the file wait until the device has it, so that
	// a loss of power loses nothing either. Otherwise it is the operating
	// system that must not fail.
	Sync bool

	// QoS0 puts messages with QoS 0 into the queue as well while there is no
	// connection. Otherwise publishing them waits for one.
	QoS0 bool

	// Full says what a call does that finds the queue full.
	Full FullPolicy

	// Restored, if not nil, is called once for each message that was in the file
	// when the Client was made, with what a Publish of it would return. It is
	// called by the client's goroutines, on data streams by several at once, and
	// must not block.
	Restored func(p *packet.Publish, err error)
}

// A FullPolicy says what publishing does when the queue is full.
type FullPolicy uint8

const (
	// WaitWhenFull waits for room, until the context is done.
	WaitWhenFull FullPolicy = iota
	// DropQoS0WhenFull drops the oldest messages with QoS 0, which end with
	// [ErrQueueFull], to make room; if there are none it is as FailWhenFull.
	DropQoS0WhenFull
	// FailWhenFull refuses the message with [ErrQueueFull].
	FailWhenFull
)

// ErrQueueFull is why a message was not sent that the queue had no room for.
var ErrQueueFull = errors.New("client: the queue is full: raise Config.QueueBytes or publish less")

// enqueue puts f at the end of the queue.
func (m *machine) enqueue(f *flight) {
	f.prev = m.outbound.last
	if f.prev == nil {
		m.outbound.first = f
	} else {
		f.prev.next = f
	}
	m.outbound.last = f
	if m.cursor == nil {
		m.cursor = f
	}
	if f.qos == packet.AtMostOnce {
		m.zeros = append(m.zeros, f)
	}
	m.flights++
	m.queued += f.cost()
}

// finishZero is for a flight with QoS 0 that is finished: the oldest, but for one that
// is taken back.
func (o *outbound) finishZero(f *flight) {
	i := slices.Index(o.zeros, f)
	if i < 0 {
		return
	}
	copy(o.zeros[1:i+1], o.zeros[:i])
	o.zeros[0] = nil
	if o.zeros = o.zeros[1:]; len(o.zeros) == 0 {
		o.zeros = nil
	}
}

// dropZero drops the oldest message with QoS 0 and reports whether there was one.
func (m *machine) dropZero() bool {
	if len(m.zeros) == 0 {
		return false
	}
	m.finish(m.zeros[0], Result{}, &PublishError{State: NotSent, Err: ErrQueueFull})
	return true
}

// queuesZero reports whether a message with QoS 0 goes into the queue: there is no
// connection, or others are before it.
func (c *Client) queuesZero() bool {
	return c.cfg.Queue.QoS0 && (c.conn == nil || len(c.m.zeros) > 0)
}

// submit hands f to the machine when the queue has room for it.
func (c *Client) submit(ctx context.Context, f *flight) error {
	c.mu.Lock()
	return c.submitLocked(ctx, f)
}

// submitLocked is submit with mu, which it releases.
func (c *Client) submitLocked(ctx context.Context, f *flight) error {
	for {
		if err := c.unusable(); err != nil {
			c.unlock()
			return &PublishError{State: NotSent, Err: err}
		}
		// One that is larger than the whole queue goes alone.
		room := c.m.queued == 0 || c.m.queued+f.cost() <= c.cfg.QueueBytes
		if room && c.unwritten() <= c.cfg.QueueBytes {
			break
		}
		if !room && c.cfg.Queue.Full == DropQoS0WhenFull && c.m.dropZero() {
			c.stats.MessagesLost++
			continue
		}
		if c.cfg.Queue.Full != WaitWhenFull {
			c.unlock()
			return &PublishError{State: NotSent, Err: ErrQueueFull}
		}
		if err := c.waitRoom(ctx); err != nil {
			return &PublishError{State: NotSent, Err: err}
		}
	}
	err := c.m.submit(f)
	if err == nil {
		c.flush()
	}
	noted := c.noted()
	c.unlock()
	if err != nil {
		return err
	}
	if err := c.commit(noted); err != nil {
		if state, ended := c.takeBack(f); !ended {
			return &PublishError{State: state, Err: err}
		}
	}
	return nil
}

// noted counts what the file must have of all that has happened. mu is held.
func (c *Client) noted() uint64 {
	if c.store == nil {
		return 0
	}
	return c.m.log.noted
}

// commit returns when the file, if there is one, has what is noted.
func (c *Client) commit(noted uint64) error {
	if c.store == nil {
		return nil
	}
	return c.store.commit(noted)
}

// takeBack gives f up, which nobody waits for any more, and returns what may have
// become of it; or that it has ended, which is reported as always.
func (c *Client) takeBack(f *flight) (state PublishState, ended bool) {
	c.mu.Lock()
	if f.finished {
		c.mu.Unlock()
		return 0, true
	}
	state = c.m.giveUp(f)
	noted := c.noted()
	c.freed()
	c.mu.Unlock()
	if state == NotSent && c.commit(noted) != nil {
		// The file may have it, and no word of its end.
		return MaybeSent, false
	}
	return state, false
}

// restoredDone returns what to call when f has ended.
func (c *Client) restoredDone(f *flight) func(error) {
	return func(err error) {
		var p packet.Publish
		h, n, perr := packet.ParseHeader(f.wire)
		if perr == nil {
			perr = p.Decode(h, f.wire[n:], c.cfg.Version)
		}
		if perr != nil {
			c.log.Error("message in the queue's file cannot be decoded", "error", perr) // it was, when it was read
			return
		}
		p.PacketID = 0
		c.cfg.Queue.Restored(&p, err)
	}
}

// keepQueue closes the file, if there is one, with what it has to send.
func (c *Client) keepQueue() {
	if c.store == nil {
		return
	}
	if err := c.store.close(); err != nil {
		c.log.Error("the queue's file does not have what was last", "error", err)
		c.mu.Lock()
		c.m.kept = MaybeSent
		c.mu.Unlock()
	}
}

func (q *Queue) check() error {
	if q.Full > FailWhenFull {
		return fmt.Errorf("client: Config.Queue.Full is %d, which is no FullPolicy", q.Full)
	}
	return nil
}
