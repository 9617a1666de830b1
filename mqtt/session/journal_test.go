package session_test

import (
	"cmp"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A twin is a Journal that knows nothing of its session but what it is told.
type twin struct {
	t        testing.TB
	state    session.State
	subs     map[string]session.Subscription
	waiting  map[uint64]session.Entry
	inflight map[uint64]session.Flight
	received map[uint16]bool
	ended    bool
	told     map[string]int
}

func newTwin(t testing.TB) *twin {
	return &twin{
		t: t, subs: map[string]session.Subscription{}, waiting: map[uint64]session.Entry{},
		inflight: map[uint64]session.Flight{}, received: map[uint16]bool{}, told: map[string]int{},
	}
}

func (w *twin) State(s session.State) { w.told["state"]++; w.state = s }

func (w *twin) Subscribed(s session.Subscription) { w.told["subscribed"]++; w.subs[s.Filter] = s }

func (w *twin) Unsubscribed(filter string) {
	w.told["unsubscribed"]++
	require.Contains(w.t, w.subs, filter)
	delete(w.subs, filter)
}

func (w *twin) Queued(e session.Entry) {
	w.told["queued"]++
	require.NotContains(w.t, w.waiting, e.Seq)
	e.SubscriptionIDs = slices.Clone(e.SubscriptionIDs)
	w.waiting[e.Seq] = e
}

func (w *twin) Dropped(e session.Entry) {
	w.told["dropped"]++
	require.Same(w.t, w.waiting[e.Seq].Message, e.Message)
	delete(w.waiting, e.Seq)
}

func (w *twin) Sent(waited uint64, e session.Entry) {
	w.told["sent"]++
	require.Same(w.t, w.waiting[waited].Message, e.Message)
	require.NotContains(w.t, w.inflight, e.Seq)
	delete(w.waiting, waited)
	e.SubscriptionIDs = slices.Clone(e.SubscriptionIDs)
	w.inflight[e.Seq] = session.Flight{Entry: e}
}

func (w *twin) Released(e session.Entry, order uint32) {
	w.told["released"]++
	require.Same(w.t, w.inflight[e.Seq].Message, e.Message)
	w.inflight[e.Seq] = session.Flight{Entry: session.Entry{Seq: e.Seq}, Released: true, Order: order}
}

func (w *twin) Completed(e session.Entry) {
	w.told["completed"]++
	f, ok := w.inflight[e.Seq]
	require.True(w.t, ok)
	require.Same(w.t, f.Message, e.Message)
	delete(w.inflight, e.Seq)
}

func (w *twin) Received(id uint16) { w.told["received"]++; w.received[id] = true }

func (w *twin) Forgotten(id uint16) {
	w.told["forgotten"]++
	require.True(w.t, w.received[id])
	delete(w.received, id)
}

func (w *twin) Ended(messages iter.Seq[*session.Message]) {
	var want, got []*session.Message
	for _, e := range w.waiting {
		want = append(want, e.Message)
	}
	for _, f := range w.inflight {
		if !f.Released {
			want = append(want, f.Message)
		}
	}
	for m := range messages {
		got = append(got, m)
	}
	require.ElementsMatch(w.t, want, got)
	told := w.told
	*w = *newTwin(w.t)
	w.told, w.ended = told, true
}

func (w *twin) saved() *session.Saved {
	s := &session.Saved{ClientID: "client", State: w.state}
	for _, sub := range w.subs {
		s.Subscriptions = append(s.Subscriptions, sub)
	}
	slices.SortFunc(s.Subscriptions, func(a, b session.Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
	for _, e := range w.waiting {
		s.Waiting = append(s.Waiting, e)
	}
	slices.SortFunc(s.Waiting, func(a, b session.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, f := range w.inflight {
		s.Inflight = append(s.Inflight, f)
	}
	slices.SortFunc(s.Inflight, func(a, b session.Flight) int { return cmp.Compare(a.Seq, b.Seq) })
	for id := range w.received {
		s.Received = append(s.Received, id)
	}
	slices.Sort(s.Received)
	return s
}

// same requires that two states are equal. A flight that was released has
// nothing but its number and its order.
func same(t testing.TB, want, got *session.Saved) {
	t.Helper()
	plain := func(s *session.Saved) *session.Saved {
		c := *s
		c.Inflight = slices.Clone(s.Inflight)
		for i := range c.Inflight {
			if f := &c.Inflight[i]; f.Released {
				f.Entry = session.Entry{Seq: f.Seq}
			} else {
				f.Order = 0
			}
		}
		return &c
	}
	require.Equal(t, plain(want), plain(got))
}

// crash ends the server without notice and starts it anew from what the journal
// was told. Messages that the router still worked on were not acknowledged and
// so are as if they had never come.
func (m *model) crash(w *twin) {
	for _, f := range m.toRoute {
		m.routed[number(f.Message.Publish.Payload)]--
	}
	m.toRoute = nil
	m.up, m.open = false, nil
	m.s = session.Restore(m.now, w.saved(), m.lim, w)
	after := m.s.Save()
	require.False(m.t, after.State.Since.IsZero())
	after.State.Since = w.state.Since
	if m.d(16) == 0 {
		same(m.t, w.saved(), after)
	}
}

// The server ends without notice at any point of any exchange, with whatever is
// in transit, and goes on with what its journal was told.
func TestTenThousandCrashesLoseAndDuplicateNothing(t *testing.T) {
	for _, streams := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(11, 13))
		m, w := newModel(t, rng.IntN), newTwin(t)
		m.s.SetJournal(w)
		for crashes := 0; crashes < 10000; {
			m.connect()
			for range rng.IntN(60) {
				if streams && rng.IntN(40) == 0 {
					m.openStream()
				}
				if streams && rng.IntN(80) == 0 {
					m.closeStream()
				}
				m.step()
				if rng.IntN(200) == 0 {
					same(t, w.saved(), m.s.Save())
				}
			}
			if rng.IntN(4) == 0 {
				m.disconnect()
				continue
			}
			m.crash(w)
			crashes++
		}
		m.settle()
		same(t, w.saved(), m.s.Save())
		require.Greater(t, m.published, 10000)
		require.Greater(t, len(m.got), 1500)
		for _, change := range []string{"state", "queued", "sent", "released", "completed", "received", "forgotten"} {
			require.Greater(t, w.told[change], 500, change)
		}
		t.Logf("streams %v: %d messages from and %d to the client; told %v", streams, m.published, len(m.got), w.told)
	}
}

func TestASessionTellsItsJournalOfSubscriptions(t *testing.T) {
	b, w := newBench(t, session.Limits{}), newTwin(t)
	b.s.SetJournal(w)
	b.connect(&packet.Properties{SessionExpiry: packet.Some[uint32](60)})
	b.receive(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{
		{Filter: "a", QoS: 1, NoLocal: true}, {Filter: "b/#", QoS: 2, RetainAsPublished: true, RetainHandling: 1}, {Filter: "c", QoS: 1},
	}, Properties: &packet.Properties{SubscriptionIDs: []uint32{7}}})
	require.Empty(t, w.subs, "not yet granted")
	b.s.Subscribed(b.now, mqtt.ControlStream, 1, []packet.ReasonCode{1, 1, packet.NotAuthorized})
	require.Len(t, w.subs, 2)
	b.receiveOn(4, &packet.Subscribe{PacketID: 2, Subscriptions: []packet.Subscription{{Filter: "a", QoS: 2}}})
	b.s.Subscribed(b.now, 4, 2, nil)
	require.Equal(t, packet.ExactlyOnce, w.subs["a"].QoS)
	b.receive(&packet.Unsubscribe{PacketID: 3, Filters: []string{"b/#", "none"}})
	b.s.Unsubscribed(b.now, mqtt.ControlStream, 3, nil)
	same(t, b.s.Save(), w.saved())

	again := session.Restore(b.now, w.saved(), session.Limits{}, newTwin(t))
	var filters []string
	for sub := range again.Subscriptions() {
		filters = append(filters, sub.Filter)
		require.Equal(t, mqtt.ControlStream, sub.Stream)
	}
	require.Equal(t, []string{"a"}, filters)
}

func TestASessionThatEndsWithItsConnectionHasNoJournal(t *testing.T) {
	b, w := newBench(t, session.Limits{}), newTwin(t)
	b.s.SetJournal(w)
	b.connect(nil)
	require.Equal(t, session.Queued, b.deliver("a", "x", 1))
	require.False(t, b.s.Durable())
	require.Empty(t, w.told)
}

func TestARestoredSessionExpiresWhenItWouldHave(t *testing.T) {
	b, w := newBench(t, session.Limits{}), newTwin(t)
	b.s.SetJournal(w)
	b.attach(&packet.Connect{
		Version: packet.V5, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](60)},
		Will: &packet.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Properties: &packet.Properties{WillDelay: packet.Some[uint32](20)}},
	}, session.Attach{})
	require.Equal(t, session.Queued, b.deliver("a", "x", 1))

	// Down while connected: the time counts from the restart.
	b.pass(5 * time.Second)
	up := session.Restore(b.now, w.saved(), session.Limits{}, newTwin(t))
	require.Equal(t, b.now.Add(20*time.Second), up.Deadline())

	b.s.Detach(nil, b.now)
	b.pass(30 * time.Second)
	w2 := newTwin(t)
	s := session.Restore(b.now, w.saved(), session.Limits{}, w2)
	require.Equal(t, b.now.Add(-10*time.Second), s.Deadline(), "the will's delay is over")
	fx := s.Tick(nil, b.now)
	require.Equal(t, []session.EffectKind{session.EffectWill}, kinds(fx))
	require.Equal(t, "gone", string(fx[0].Message.Publish.Payload))
	require.Nil(t, w2.state.Will)
	require.Equal(t, b.now.Add(30*time.Second), s.Deadline())

	*w2 = *w
	w2.told = map[string]int{}
	fx = s.Tick(nil, b.now.Add(30*time.Second))
	require.Equal(t, []session.EffectKind{session.EffectEnd}, kinds(fx))
	require.True(t, w2.ended)
}

func TestMessagesThatExpireOrDoNotFitLeaveTheJournal(t *testing.T) {
	b, w := newBench(t, session.Limits{QueueBytes: 2000}), newTwin(t)
	b.s.SetJournal(w)
	b.connect(&packet.Properties{SessionExpiry: packet.Some[uint32](60)})
	b.s.Detach(nil, b.now)
	short := session.NewMessage(b.now, &packet.Publish{Topic: "a", Payload: []byte("x"), QoS: 1,
		Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)}}, "other")
	for b.s.Deliver(b.now, short, session.Delivery{QoS: 1}) == session.Queued {
	}
	require.NotEmpty(t, w.waiting)
	b.pass(2 * time.Second)
	_, ok := b.s.Overflow(b.now)
	require.True(t, ok)
	require.Empty(t, w.waiting)

	require.Equal(t, session.Queued, b.deliver("a", string(make([]byte, 500)), 2))
	require.Equal(t, session.Queued, b.deliver("a", "small", 2))
	b.connect(&packet.Properties{SessionExpiry: packet.Some[uint32](60), MaximumPacketSize: packet.Some[uint32](100)})
	require.Len(t, b.publishes(), 1)
	require.Empty(t, w.waiting)
	require.Len(t, w.inflight, 1)
	same(t, b.s.Save(), w.saved())
}

func TestTheJournalIsToldOfARevokedSubscription(t *testing.T) {
	j := newTwin(t)
	s := session.New("c", session.Limits{})
	s.SetJournal(j)
	s.Attach(start, &packet.Connect{Version: packet.V5, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](60)}}, session.Attach{})
	s.Receive(nil, start, mqtt.ControlStream, &packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "secret/#"}}})
	s.Subscribed(start, mqtt.ControlStream, 1, nil)
	require.Contains(t, j.subs, "secret/#")
	require.True(t, s.Revoke("secret/#"))
	require.Empty(t, j.subs)
}
