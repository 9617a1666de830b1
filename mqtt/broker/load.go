package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A loader makes of a store what the broker was.
type loader struct {
	b   *Broker
	d   *durable
	now time.Time

	epoch    uint64
	messages map[uint64]*session.Message
	clean    store.Batch // what is of no use any more

	// The session whose records are being read; they follow one another.
	saved   *session.Saved
	partial map[uint16]map[string]uint64
	owner   string
	who     *ClientInfo // nil: no State was read
	asked   asked

	sessions, delayed, retained, noRoom int
}

// epochBits is where the number of the start is in the numbers of messages.
const epochBits = 40

// load fills the broker, which nobody uses yet. A record that cannot be read is
// reported, counted and removed; what it held is lost and nothing else.
func (b *Broker) load(now time.Time) error {
	began := time.Now()
	l := &loader{b: b, d: b.durable, now: now, messages: make(map[uint64]*session.Message)}
	if err := loadAhead(b.cfg.Store, l.record); err != nil {
		return fmt.Errorf("broker: load: %w", err)
	}
	l.session("")
	for id, m := range l.messages {
		if l.d.kept[m] == nil {
			l.remove(&store.Record{Kind: store.Message, Number: id})
		}
	}
	l.d.group.Update(func(batch *store.Batch) {
		l.d.nextID = (l.epoch + 1) << epochBits
		l.d.put(batch, &store.Record{Kind: store.Epoch, Number: l.epoch + 1})
		l.clean.Each(func(op store.Op, key, _ []byte) {
			if op == store.DeletePrefix {
				batch.DeletePrefix(key)
			} else {
				batch.Delete(key)
			}
		})
	})
	level := slog.LevelInfo
	if l.noRoom > 0 {
		level = slog.LevelWarn
	}
	b.log.LogAttrs(context.Background(), level, "mqtt: store loaded",
		slog.Int("sessions", l.sessions),
		slog.Int("messages", len(l.d.kept)),
		slog.Int("delayed", l.delayed),
		slog.Int("retained", l.retained),
		slog.Int("retained_without_room", l.noRoom),
		slog.Uint64("damaged", l.d.damaged.Load()),
		slog.Duration("took", time.Since(began)))
	// From here on the broker changes by itself.
	for _, c := range b.clients() {
		c.mu.Lock()
		c.rearm()
		c.mu.Unlock()
	}
	b.delayed.start()
	return nil
}

var errNoMessage = errors.New("its message is missing")

// record takes one record, or what is known of it if err is not nil.
func (l *loader) record(key []byte, r *store.Record, err error) {
	if r.ClientID != "" {
		l.session(r.ClientID)
	}
	if err != nil {
		l.damaged(r, key, err)
		return
	}
	s := l.saved
	switch r.Kind {
	case store.Epoch:
		l.epoch = r.Number
	case store.Message:
		l.messages[r.Number] = r.Message
		l.epoch = max(l.epoch, r.Number>>epochBits)
	case store.State:
		s.State, l.owner, l.who = r.State, r.Owner, restoreInfo(r)
	case store.Subscription:
		s.Subscriptions = append(s.Subscriptions, r.Subscription)
		l.asked.set(r.Subscription.Filter, r.Asked)
	case store.Waiting, store.Inflight:
		m := l.messages[r.MessageID]
		if m == nil {
			l.damaged(r, key, errNoMessage)
			return
		}
		r.Entry.Message = m
		k := l.d.kept[m]
		if k == nil {
			k = &keptMessage{id: r.MessageID}
			l.d.kept[m] = k
		}
		k.refs++
		if r.Kind == store.Waiting {
			s.Waiting = append(s.Waiting, r.Entry)
		} else {
			s.Inflight = append(s.Inflight, session.Flight{Entry: r.Entry})
		}
	case store.Released:
		s.Inflight = append(s.Inflight, session.Flight{Entry: r.Entry, Released: true, Order: r.Order})
	case store.Received:
		s.Received = append(s.Received, r.ID)
	case store.Partial:
		if l.partial == nil {
			l.partial = make(map[uint16]map[string]uint64)
		}
		if l.partial[r.ID] == nil {
			l.partial[r.ID] = make(map[string]uint64)
		}
		l.partial[r.ID][r.Recipient] = r.Hash
	case store.Delayed:
		l.b.delayed.restore(r)
		l.epoch = max(l.epoch, r.Number>>epochBits)
		l.delayed++
	case store.Retained:
		switch {
		case r.Message.Expired(l.now):
			l.clean.Delete(key)
		case l.b.retained.restore(l.b, r.Message):
			l.retained++
		default:
			l.noRoom++ // it stays in the store, for limits that are raised again
		}
	}
}

// damaged reports a record that cannot be used. Topics and payloads are not for
// logs.
func (l *loader) damaged(r *store.Record, key []byte, err error) {
	l.d.damaged.Add(1)
	l.b.log.Error("mqtt: record of the store lost", "kind", r.Kind.String(), "client", r.ClientID, "err", err)
	l.clean.Delete(key)
}

func (l *loader) remove(r *store.Record) { l.clean.Delete(r.AppendKey(nil)) }

// session ends the session whose records were read, if that is not next's.
func (l *loader) session(next string) {
	if s := l.saved; s != nil && s.ClientID != next {
		if l.who != nil {
			l.restore(s)
		} else {
			l.letGo(s)
		}
		l.saved, l.partial, l.owner, l.who, l.asked = nil, nil, "", nil, asked{}
	}
	if l.saved == nil && next != "" {
		l.saved = &session.Saved{ClientID: next}
	}
}

// letGo forgets a session without a State: it does not say whose it is, and nobody must
// get another's messages.
func (l *loader) letGo(s *session.Saved) {
	l.b.log.Error("mqtt: session of the store let go: the record that says whose it is is missing",
		"client", s.ClientID, "subscriptions", len(s.Subscriptions), "messages", len(s.Waiting)+len(s.Inflight))
	forget := func(m *session.Message) {
		if k := l.d.kept[m]; k != nil {
			if k.refs--; k.refs == 0 {
				delete(l.d.kept, m)
			}
		}
	}
	for i := range s.Waiting {
		forget(s.Waiting[i].Message)
	}
	for i := range s.Inflight {
		forget(s.Inflight[i].Message)
	}
	l.clean.DeletePrefix(store.AppendSessionKey(nil, s.ClientID))
}

func (l *loader) restore(s *session.Saved) {
	b := l.b
	lim := b.limits.Load()
	c := b.newClient(s.ClientID, lim)
	c.s = session.Restore(l.now, s, lim.session, c.journal)
	c.partial = l.partial
	c.owner, c.who, c.asked = l.owner, l.who, l.asked
	c.journal.own(l.owner)
	b.sessions[c.id] = c
	l.sessions++
	for i := range s.Subscriptions {
		sub := &s.Subscriptions[i]
		b.subs.tree.Subscribe(sub.Filter, c, subscription{
			id: sub.ID, qos: sub.QoS, noLocal: sub.NoLocal, asPublished: sub.RetainAsPublished,
		})
	}
}
