package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// A LocalConfig says how a [Local] behaves. Zero values are defaults; a nil
// pointer is the zero LocalConfig.
type LocalConfig struct {
	// ClientID is who its messages are from: "local". It need not be unique; a
	// subscription with No Local does not get messages of the same name.
	ClientID string

	// QueueBytes bounds the messages that wait or are worked on, by their
	// encoded size plus a fixed overhead: 4 MiB. An empty queue takes any one
	// message.
	QueueBytes int
}

// A Local is a subscriber and publisher inside the program: messages go to it
// and come from it without a network, and are not encoded. The router treats it as
// it treats clients, in the same subscription tree, so that shared
// subscriptions may have members of both kinds.
//
// # Back-pressure
//
// A publisher whose message finds the queue full waits, as it does for a
// client. A Local that finishes no message for Config.StallTimeout is stalled:
// messages of QoS 0 are then dropped, oldest first. A message of QoS 1 or 2
// waits for Config.HoldTimeout and is then refused with Quota exceeded (0x97).
// What is published by a Local whose own queue is full does not wait for that
// queue; beyond twice the limit it is dropped or refused at once.
//
// # Acknowledgement
//
// A message of QoS 1 or 2 is acknowledged to the client that published it when
// every Local that got it has called [LocalMessage.Done], with the first reason
// code of 0x80 and above that was given, if there is one. The other
// subscribers get the message all the same.
//
// All methods may be called from any goroutine at any time.
type Local struct {
	b    *Broker
	c    *client // has neither session nor connection; its mutex guards what is below
	max  int     // bytes
	wake chan struct{}

	queue  []*LocalMessage
	next   int // queue[next:] waits
	bytes  int // cost of what waits and of what is worked on
	qos0   int // messages of QoS 0 that wait
	holds  int // calls of Publish that are held back
	subs   map[string]subscription
	replay replay // retained messages that wait for room
}

const defaultLocalQueue = 4 << 20

// NewLocal returns a Local without subscriptions. It ends with the broker, or
// with Close.
func (b *Broker) NewLocal(cfg *LocalConfig) (*Local, error) {
	var c LocalConfig
	if cfg != nil {
		c = *cfg
	}
	switch {
	case c.QueueBytes < 0:
		return nil, fmt.Errorf("broker: QueueBytes %d of a Local: a limit cannot be negative", c.QueueBytes)
	case c.QueueBytes == 0:
		c.QueueBytes = defaultLocalQueue
	}
	if c.ClientID == "" {
		c.ClientID = "local"
	}
	l := &Local{
		b: b, c: &client{b: b, id: c.ClientID}, max: c.QueueBytes,
		wake: make(chan struct{}, 1), subs: make(map[string]subscription),
	}
	l.c.local = l
	l.c.progress = time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return nil, ErrClosed
	}
	b.locals[l] = struct{}{}
	return l, nil
}

// Subscribe makes or replaces subscriptions, all with the subscription identifier
// id unless it is 0, and gives the retained messages that match them as their
// Retain Handling says. They may be shared ones. It does not wait.
func (l *Local) Subscribe(id uint32, subs ...packet.Subscription) error {
	for _, s := range subs {
		_, _, shared, err := topic.ParseShare(s.Filter)
		if err == nil && !shared {
			err = topic.ValidFilter(s.Filter)
		}
		switch {
		case err != nil:
			return fmt.Errorf("broker: subscribe %q: %w", s.Filter, err)
		case s.QoS > packet.ExactlyOnce:
			return fmt.Errorf("broker: subscribe %q: QoS is %d", s.Filter, s.QoS)
		case shared && s.NoLocal: // [MQTT-3.8.3-4]
			return fmt.Errorf("broker: subscribe %q: No Local on a shared subscription", s.Filter)
		}
	}
	for _, s := range subs {
		if err := l.subscribe(id, s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Local) subscribe(id uint32, s packet.Subscription) error {
	sub := subscription{id: id, qos: s.QoS, noLocal: s.NoLocal, asPublished: s.RetainAsPublished}
	l.c.subscribing.Lock()
	defer l.c.subscribing.Unlock()
	l.c.mu.Lock()
	if l.c.gone {
		l.c.mu.Unlock()
		return ErrClosed
	}
	_, old := l.subs[s.Filter]
	l.subs[s.Filter] = sub
	l.c.mu.Unlock()
	l.b.subs.tree.Subscribe(s.Filter, l.c, sub)
	if _, _, shared, _ := topic.ParseShare(s.Filter); shared || s.RetainHandling == 2 || s.RetainHandling == 1 && old {
		return nil
	}
	part := l.b.retained.match(l.c.id, s, id)
	l.c.mu.Lock()
	l.replay.add(part)
	l.refill(time.Now())
	l.c.mu.Unlock()
	return nil
}

// Unsubscribe ends subscriptions. Messages that wait are still given.
func (l *Local) Unsubscribe(filters ...string) {
	l.c.subscribing.Lock()
	defer l.c.subscribing.Unlock()
	l.c.mu.Lock()
	for _, f := range filters {
		delete(l.subs, f)
	}
	l.c.mu.Unlock()
	for _, f := range filters {
		l.b.subs.tree.Unsubscribe(f, l.c)
	}
}

// Next returns the next message and waits until there is one. Each must be
// ended with [LocalMessage.Done]. The error is ctx's, or ErrClosed after Close and
// when the broker has been closed.
func (l *Local) Next(ctx context.Context) (*LocalMessage, error) {
	for {
		now := time.Now()
		l.c.mu.Lock()
		m, expired := l.pop(now)
		gone := l.c.gone
		l.c.mu.Unlock()
		for _, e := range expired {
			l.b.count.dropIgnored.Add(1)
			e.Done(packet.Success)
		}
		if m != nil {
			return m, nil
		}
		if gone {
			return nil, ErrClosed
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.b.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// pop takes the next message that has not expired, and those before it that
// have. The caller holds c.mu.
func (l *Local) pop(now time.Time) (m *LocalMessage, expired []*LocalMessage) {
	for m == nil && l.next < len(l.queue) {
		e := l.queue[l.next]
		l.queue[l.next] = nil
		l.next++
		if e.QoS == packet.AtMostOnce {
			l.qos0--
		}
		if e.msg.Expired(now) {
			expired = append(expired, e)
		} else {
			m = e
		}
	}
	switch {
	case l.next == len(l.queue):
		l.queue, l.next = l.queue[:0], 0
		if cap(l.queue) > 1024 {
			l.queue = nil
		}
	case l.next > 64 && l.next > len(l.queue)/2:
		l.queue = slices.Delete(l.queue, 0, l.next)
		l.next = 0
	}
	if l.next < len(l.queue) {
		l.signal() // for another Next
	}
	return m, expired
}

func (l *Local) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Close ends the subscriptions. Messages that wait are dropped, and refused to
// their publishers with Implementation specific error (0x83); those that Next
// has given may still be ended. It does not wait for them.
func (l *Local) Close() error {
	l.b.mu.Lock()
	delete(l.b.locals, l)
	l.b.mu.Unlock()
	l.c.subscribing.Lock()
	defer l.c.subscribing.Unlock()
	l.c.mu.Lock()
	l.c.gone = true
	dropped := slices.Clone(l.queue[l.next:])
	l.queue, l.next, l.qos0, l.replay = nil, 0, 0, replay{}
	filters := slices.Collect(maps.Keys(l.subs))
	clear(l.subs)
	l.c.wakeWaiting()
	l.c.mu.Unlock()
	l.signal()
	for _, f := range filters {
		l.b.subs.tree.Unsubscribe(f, l.c)
	}
	l.b.count.dropIgnored.Add(uint64(len(dropped)))
	for _, m := range dropped {
		m.Done(packet.ImplementationSpecificError)
	}
	return nil
}

// refill moves waiting retained messages to the queue while it is less than half
// full. The caller holds c.mu.
func (l *Local) refill(now time.Time) {
	for l.replay.waits > 0 && l.bytes < l.max/2 {
		k, d := l.replay.front()
		l.replay.pop()
		if l.b.retained.current(k) && !k.m.Expired(now) {
			l.push(now, &LocalMessage{l: l, msg: k.m, QoS: d.QoS, Retain: true, SubscriptionIDs: slices.Clone(d.SubscriptionIDs)})
		}
	}
}

// push appends m to the queue. The caller holds c.mu.
func (l *Local) push(now time.Time, m *LocalMessage) {
	if l.bytes == 0 {
		l.c.progressed(now) // it had nothing to take
	}
	l.bytes += m.cost()
	if m.QoS == packet.AtMostOnce {
		l.qos0++
	}
	l.queue = append(l.queue, m)
	l.signal()
}

// dropQoS0 drops the oldest waiting messages of QoS 0 until the queue is at three
// quarters of its limit. It returns how many those were. The caller holds c.mu.
func (l *Local) dropQoS0() int {
	goal := l.max - l.max/4
	kept := l.queue[:l.next]
	dropped := 0
	for _, m := range l.queue[l.next:] {
		if m.QoS == packet.AtMostOnce && l.bytes > goal {
			l.bytes -= m.cost()
			dropped++
		} else {
			kept = append(kept, m)
		}
	}
	clear(l.queue[len(kept):])
	l.queue = kept
	l.qos0 -= dropped
	return dropped
}

// hold marks that a call of Publish by the Local is held back, for its publishers
// to look again: see deliverLocal. No lock is held.
func (l *Local) hold(n int) {
	l.c.mu.Lock()
	l.holds += n
	l.c.wakeWaiting()
	l.c.mu.Unlock()
}

// A LocalMessage is a message that a [Local] got. It shares its memory with the
// other subscribers and must not be modified.
type LocalMessage struct {
	QoS             packet.QoS // of the delivery: not above that of the subscription
	Retain          bool       // as a client would get it
	SubscriptionIDs []uint32   // of all subscriptions that matched

	l    *Local
	msg  *session.Message
	conn *conn // that it came from; nil: none, or not known any more
	own  bool  // published inside, by a Local or not
	owed *owed // the acknowledgement; nil: nobody waits for it
	done atomic.Bool
}

// Publish is the message as it was published, without what belongs to one
// connection: its packet identifier is 0, and it has neither topic alias nor
// subscription identifier.
func (m *LocalMessage) Publish() *packet.Publish { return &m.msg.Publish }

// Expires is when the message must not be used any more; zero: never.
func (m *LocalMessage) Expires() time.Time { return m.msg.Expires }

// Client says who published the message. Of wills, retained messages and others
// that do not come directly from a connection, it has the ClientID only.
func (m *LocalMessage) Client() ClientInfo {
	if m.conn != nil {
		return m.conn.info()
	}
	return ClientInfo{ClientID: m.msg.From, Local: m.own}
}

// Done says that the message has been dealt with. A code of 0x80 or above
// refuses it, as far as MQTT can say so: to clients of MQTT 5, with QoS 1 and 2.
// It must be one that PUBACK can have. Only the first call counts.
func (m *LocalMessage) Done(code packet.ReasonCode) {
	if m.done.Swap(true) {
		return
	}
	now := time.Now()
	l := m.l
	l.c.mu.Lock()
	l.bytes -= m.cost()
	l.c.progressed(now)
	if !l.c.gone {
		l.refill(now)
	}
	l.c.wakeWaiting()
	l.c.mu.Unlock()
	if m.owed != nil {
		m.owed.refuse(code)
		m.owed.pay(now)
	}
}

// localOverhead is about what a LocalMessage costs besides the message.
const localOverhead = 256

func (m *LocalMessage) cost() int { return m.msg.Publish.Size(packet.V5) + localOverhead }

// localBytes returns the cost of what all Locals hold.
func (b *Broker) localBytes() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.locals {
		l.c.mu.Lock() // the registry's mutex comes first
		n += int64(l.bytes)
		l.c.mu.Unlock()
	}
	return n
}
