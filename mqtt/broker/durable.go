package broker

import (
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A durable keeps sessions and retained messages in a store.
//
// Each session tells its journal what changes; that is put at once, under the
// lock of the client and in the order of the changes, into the batch that piles up
// (see [store.Group]). Nobody who changes something waits for the disk. The one
// who waits is the writer of a stream, and only with packets that promise
// something: before PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, a PUBLISH of
// QoS 2 and the CONNACK of a durable session leave, everything that was put
// into the batch before they were made is durable. That is more than each of
// them promises, and needs no books on who promised what.
//
// A message of QoS 2 must reach its subscribers' queues and its packet identifier
// the publisher's list together, or it would be lost or delivered twice: they are
// put between Begin and End of the group. Where a queue is full, and the rest
// comes later, it is written down who has the message; see partial.go.
type durable struct {
	log   *slog.Logger
	group *store.Group
	store store.Store

	// Guarded by the group, within Update.
	kept       map[*session.Message]*keptMessage
	nextID     uint64
	key, value []byte // scratch

	damaged atomic.Uint64 // records that could not be read at start
	refused atomic.Uint64 // messages refused because the store fails
}

// A keptMessage is what is in the store of a message that sessions hold.
type keptMessage struct {
	id   uint64
	refs int // entries of sessions
}

// openDurable returns nil without a store.
func (b *Broker) openDurable() *durable {
	if b.cfg.Store == nil {
		return nil
	}
	d := &durable{log: b.log, store: b.cfg.Store, kept: make(map[*session.Message]*keptMessage)}
	d.group = store.NewGroup(b.cfg.Store, store.GroupConfig{Interval: b.cfg.SyncInterval, Failed: d.failed})
	return d
}

func (d *durable) failed(err error) {
	if err != nil {
		d.log.Error("mqtt: the store cannot be written: messages of QoS 1 and 2 are refused until it can", "err", err)
		return
	}
	d.log.Info("mqtt: the store can be written again")
}

// put puts a record into the batch. It is called within Update.
func (d *durable) put(b *store.Batch, r *store.Record) {
	d.key = r.AppendKey(d.key[:0])
	value, err := r.AppendValue(d.value[:0], d.key)
	if err != nil {
		d.log.Error("mqtt: not stored", "err", err)
		return
	}
	b.Put(d.key, value)
	if d.value = value; cap(value) > 64<<10 {
		d.value = nil
	}
}

// once deletes a record that was put once. It is called within Update.
func (d *durable) once(b *store.Batch, r *store.Record) {
	d.key = r.AppendKey(d.key[:0])
	b.DeleteOnce(d.key)
}

func (d *durable) delete(b *store.Batch, r *store.Record) {
	d.key = r.AppendKey(d.key[:0])
	b.Delete(d.key)
}

// hold counts one more entry of m and returns its number in the store, where it
// puts m if nobody held it. It is called within Update.
func (d *durable) hold(b *store.Batch, m *session.Message) uint64 {
	k := d.kept[m]
	if k == nil {
		d.nextID++
		k = &keptMessage{id: d.nextID}
		d.kept[m] = k
		d.put(b, &store.Record{Kind: store.Message, Number: k.id, Message: m})
	}
	k.refs++
	return k.id
}

// letGo counts one entry of m less.
func (d *durable) letGo(b *store.Batch, m *session.Message) {
	k := d.kept[m]
	if k == nil {
		return
	}
	if k.refs--; k.refs == 0 {
		delete(d.kept, m)
		d.once(b, &store.Record{Kind: store.Message, Number: k.id})
	}
}

// retain keeps m as what its topic has; unretain forgets it.
func (d *durable) retain(m *session.Message) {
	if d != nil {
		d.group.Update(func(b *store.Batch) { d.put(b, &store.Record{Kind: store.Retained, Message: m}) })
	}
}

func (d *durable) unretain(m *session.Message) {
	if d != nil {
		d.group.Update(func(b *store.Batch) { d.delete(b, &store.Record{Kind: store.Retained, Message: m}) })
	}
}

// failing reports whether the store takes nothing at this moment.
func (d *durable) failing() bool { return d != nil && d.group.Err() != nil }

// refuses reports whether a message must be refused for want of a store: what
// would be acknowledged, and what would be retained.
func (d *durable) refuses(e *session.Effect) bool {
	if !d.failing() || e.PacketID == 0 && !e.Message.Publish.Retain {
		return false
	}
	d.refused.Add(1)
	return true
}

// admits reports whether a CONNECT can be served while the store fails: an
// existing session can go on; a new one could not be promised to last.
func (d *durable) admits(p *packet.Connect, exists bool) bool {
	if !d.failing() {
		return true
	}
	lasts := !p.CleanStart
	if p.Version >= packet.V5 {
		lasts = p.Properties != nil && p.Properties.SessionExpiry.Or(0) != 0
	}
	return !lasts || exists && !p.CleanStart && !d.group.Overfull()
}

// throttle waits while more piles up than the disk takes.
func (d *durable) throttle(src *source) {
	if d != nil && d.group.Full() {
		src.flush()
		d.group.Throttle()
	}
}

// storeCloseTimeout is how long Close waits for a store that does not answer.
const storeCloseTimeout = 30 * time.Second

// bound ends what waits for the store when it has not answered for that long; stop
// is called when nothing waits any more.
func (d *durable) bound() (stop func() bool) {
	if d == nil {
		return func() bool { return false }
	}
	return time.AfterFunc(storeCloseTimeout, d.group.GiveUp).Stop
}

// close writes what has piled up.
func (d *durable) close() {
	if d == nil {
		return
	}
	if err := d.group.Close(); err != nil {
		d.log.Error("mqtt: "+err.Error(), "hint", "nothing of it was acknowledged")
	}
}

// A promise says what must be durable before a packet leaves.
type promise uint8

const (
	promisesNothing promise = iota
	promisesSession         // CONNACK: the session, which may come later when the store fails
	promisesAll             // everything so far
)

// promiseOf returns what o promises to the client of s.
func promiseOf(o *session.Outgoing, s *session.Session) promise {
	if o.Message != nil {
		if o.QoS == packet.ExactlyOnce && s.Durable() {
			return promisesAll
		}
		return promisesNothing
	}
	switch p := o.Packet.(type) {
	case *packet.Puback:
		if p.Code.Failed() {
			return promisesNothing
		}
		return promisesAll // what others keep, too
	case *packet.Pubrec:
		if p.Code.Failed() {
			return promisesNothing
		}
		return promisesAll
	case *packet.Suback:
		for _, c := range p.Codes {
			if !c.Failed() && s.Durable() {
				return promisesAll
			}
		}
	case *packet.Pubrel, *packet.Pubcomp, *packet.Unsuback:
		if s.Durable() {
			return promisesAll
		}
	case *packet.Connack:
		if s.Durable() {
			return promisesSession
		}
	}
	return promisesNothing
}

// keepPromise waits until what a writer is about to write may leave. It reports
// false if that must not be written: the connection is then on its way out.
// No lock is held.
func (o *outlet) keepPromise(p promise) bool {
	d := o.cn.b.durable
	if d == nil || p == promisesNothing {
		return true
	}
	if err := d.group.Wait(d.group.Mark()); err != nil && p == promisesAll {
		o.cn.abandon("the store cannot be written: " + err.Error())
		return false
	}
	return true
}

// abandon ends a connection with what waits for its client unsent.
func (cn *conn) abandon(reason string) {
	var src source
	src.init(cn.b, nil)
	src.now = time.Now()
	c := cn.client
	c.mu.Lock()
	if c.conn == cn && !cn.closing {
		if cn.version >= packet.V5 {
			cn.farewell, _ = (&packet.Disconnect{Code: packet.QuotaExceeded}).Append(nil, cn.version)
		}
		cn.end(src.now, packet.QuotaExceeded, reason, 0)
	}
	c.mu.Unlock()
	cn.detach(&src)
}

// refuse answers a message that refuses refused: a client of MQTT 5 is told, one of
// 3.x can only be left without an acknowledgement.
func (d *durable) refuse(src *source, c *client, e *session.Effect) {
	if e.PacketID == 0 {
		src.b.count.dropRetained.Add(1)
		return
	}
	c.mu.Lock()
	told := c.s.Version() >= packet.V5
	if told {
		c.s.Routed(src.now, e.Stream, e.PacketID, packet.QuotaExceeded)
		src.touch(c)
	} else {
		c.s.Unrouted(e.Stream, e.PacketID)
	}
	cn := c.conn
	c.mu.Unlock()
	if !told && cn != nil {
		cn.abandon("the store cannot be written")
	}
}

// A journal is a client's [session.Journal].
type journal struct {
	d  *durable
	of *client
	id string // client ID
	// owner is whom the session belongs to; see client. It is guarded by client.mu.
	owner string

	// also is put beside the next entry that is queued; nil: nothing. It is
	// guarded by client.mu.
	also func(*store.Batch)
	// split says that the message of QoS 2 that is routed next left records of
	// kind Partial. It is guarded by client.mu.
	split bool
	// ended says that there must be no more records. It is guarded by the group.
	ended bool
}

func (j *journal) record(k store.Kind) store.Record { return store.Record{Kind: k, ClientID: j.id} }

func (j *journal) entry(k store.Kind, e session.Entry, message uint64) store.Record {
	return store.Record{Kind: k, ClientID: j.id, Number: e.Seq, Entry: e, MessageID: message}
}

// State implements [session.Journal], as do the others.
func (j *journal) State(s session.State) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.State)
		r.State, r.Owner, r.Client = s, j.owner, j.of.who.saved()
		j.d.put(b, &r)
	})
}

// own notes whose the session is, before its first State.
func (j *journal) own(owner string) {
	if j != nil {
		j.owner = owner
	}
}

func (j *journal) Subscribed(s session.Subscription) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.Subscription)
		r.Subscription, r.Asked = s, j.of.asked.filters[s.Filter]
		j.d.put(b, &r)
	})
}

func (j *journal) Unsubscribed(filter string) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.Subscription)
		r.Subscription.Filter = filter
		j.d.delete(b, &r)
	})
}

func (j *journal) Queued(e session.Entry) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.entry(store.Waiting, e, j.d.hold(b, e.Message))
		j.d.put(b, &r)
		if j.also != nil {
			j.also(b)
			j.also = nil
		}
	})
}

func (j *journal) Dropped(e session.Entry) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.entry(store.Waiting, e, 0)
		j.d.once(b, &r)
		j.d.letGo(b, e.Message)
	})
}

func (j *journal) Sent(waited uint64, e session.Entry) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.Waiting)
		r.Number = waited
		j.d.once(b, &r)
		if k := j.d.kept[e.Message]; k != nil {
			r = j.entry(store.Inflight, e, k.id)
			j.d.put(b, &r)
		}
	})
}

func (j *journal) Released(e session.Entry, order uint32) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.entry(store.Inflight, e, 0)
		j.d.once(b, &r)
		r.Kind, r.Order = store.Released, order
		j.d.put(b, &r)
		j.d.letGo(b, e.Message)
	})
}

func (j *journal) Completed(e session.Entry) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.entry(store.Released, e, 0)
		if e.Message != nil {
			r.Kind = store.Inflight
			j.d.letGo(b, e.Message)
		}
		j.d.once(b, &r)
	})
}

func (j *journal) Received(id uint16) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.Received)
		r.ID = id
		j.d.put(b, &r)
		if j.split {
			j.split = false
			j.dropPartial(b, id)
		}
	})
}

func (j *journal) Forgotten(id uint16) {
	j.d.group.Update(func(b *store.Batch) {
		r := j.record(store.Received)
		r.ID = id
		j.d.delete(b, &r)
	})
}

func (j *journal) Ended(messages iter.Seq[*session.Message]) {
	j.d.group.Update(func(b *store.Batch) {
		for m := range messages {
			j.d.letGo(b, m)
		}
		b.DeletePrefix(store.AppendSessionKey(nil, j.id))
		j.ended = true
	})
}

// refuseSubscribe answers a SUBSCRIBE that cannot be kept. It reports false if it
// need not be.
func (b *Broker) refuseSubscribe(src *source, c *client, e *session.Effect) bool {
	codes := quotaExceeded(len(e.Subscribe.Subscriptions))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.s.Durable() {
		return false
	}
	c.s.Subscribed(src.now, e.Stream, e.Subscribe.PacketID, codes)
	src.touch(c)
	return true
}

func quotaExceeded(n int) []packet.ReasonCode {
	codes := make([]packet.ReasonCode, n)
	for i := range codes {
		codes[i] = packet.QuotaExceeded
	}
	return codes
}

// StoreStats are the figures of the store and of how it is written.
type StoreStats struct {
	Group    store.GroupStats `json:"group"`
	Store    store.Stats      `json:"store"`
	Messages int              `json:"messages"` // that sessions hold; each is stored once
	Damaged  uint64           `json:"damaged"`  // records that could not be read at start
	Refused  uint64           `json:"refused"`  // messages refused because the store could not be written
}

func (d *durable) stats() *StoreStats {
	if d == nil {
		return nil
	}
	s := &StoreStats{Group: d.group.Stats(), Store: d.store.Stats(), Damaged: d.damaged.Load(), Refused: d.refused.Load()}
	d.group.Update(func(*store.Batch) { s.Messages = len(d.kept) })
	return s
}
