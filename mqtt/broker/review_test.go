package broker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/rewrite"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A ruleBook is an Authorizer that allows everything but what users are denied.
type ruleBook struct {
	aclFunc
	mu      sync.Mutex
	denied  map[string]bool                      // guarded by mu; user, space, topic or filter
	asking  func(broker.Action, string)          // guarded by mu: called before the answer that is given
	clients map[string]map[broker.ClientInfo]int // guarded by mu; by topic or filter
}

func newRuleBook() *ruleBook {
	r := &ruleBook{denied: make(map[string]bool), clients: make(map[string]map[broker.ClientInfo]int)}
	r.f = func(_ context.Context, c *broker.ClientInfo, a broker.Action, name string) (bool, error) {
		r.mu.Lock()
		ok, asking := !r.denied[c.Username+" "+name], r.asking
		who := *c
		who.Remote = nil // a pipe's is no comparable one
		if r.clients[name] == nil {
			r.clients[name] = make(map[broker.ClientInfo]int)
		}
		r.clients[name][who]++
		r.mu.Unlock()
		if asking != nil {
			asking(a, name)
		}
		return ok, nil
	}
	return r
}

// deny changes the rules, and has b ask again.
func (r *ruleBook) deny(t testing.TB, b *broker.Broker, rules ...string) int {
	t.Helper()
	r.mu.Lock()
	for _, rule := range rules {
		r.denied[rule] = true
	}
	r.mu.Unlock()
	r.revision.Add(1)
	n, err := b.Reauthorize(context.Background())
	require.NoError(t, err)
	return n
}

func guarded(t testing.TB, rules *ruleBook, change ...func(*broker.Config)) *broker.Broker {
	t.Helper()
	cfg := &broker.Config{Auth: asClaimed, ACL: rules}
	for _, f := range change {
		f(cfg)
	}
	return newBroker(t, cfg)
}

func TestASessionWithoutAConnectionLosesWhatARuleRevokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules)
		away := connect(t, b, "away", user("alice"), keep(60))
		away.subscribe(packet.Subscription{Filter: "a/#", QoS: 1}, packet.Subscription{Filter: "b", QoS: 1}, packet.Subscription{Filter: "$share/g/c", QoS: 1})
		away.close()
		pub := connect(t, b, "pub")
		for _, topic := range []string{"a/1", "b", "c"} {
			pub.publish(topic, "before", 1)
		}
		require.Equal(t, 2, rules.deny(t, b, "alice a/#", "alice a/1", "alice c", "bob b"))
		require.EqualValues(t, 2, b.Stats().Dropped[broker.DropDenied])
		require.Equal(t, 1, b.Stats().Subscriptions)
		for _, topic := range []string{"a/1", "b", "c"} {
			pub.publish(topic, "after", 1)
		}
		away = dial(t, b)
		require.True(t, away.connect("away", user("alice"), keep(60), resume).SessionPresent)
		away.message("b", "before")
		away.message("b", "after")
		away.ping()
	})
}

func TestAMessageThatWaitsStaysIfItsTopicIsStillAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules)
		away := connect(t, b, "away", user("alice"), keep(60))
		away.subscribe(packet.Subscription{Filter: "a/+", QoS: 1}, packet.Subscription{Filter: "b/#", QoS: 1})
		away.close()
		pub := connect(t, b, "pub")
		for _, topic := range []string{"a/1", "a/2", "b/1"} {
			pub.publish(topic, "m", 1)
		}
		require.Equal(t, 1, rules.deny(t, b, "alice a/+", "alice a/2", "alice b/1"))
		away = dial(t, b)
		require.True(t, away.connect("away", user("alice"), keep(60), resume).SessionPresent)
		away.message("a/1", "m")
		away.message("b/1", "m")
		away.ping()
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropDenied], "what a subscription brings that is allowed is not asked for by topic")
	})
}

func TestWhatWaitsForALiveClientIsDroppedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules)
		live := connect(t, b, "live", user("alice"), func(p *packet.Connect) {
			p.Properties = &packet.Properties{ReceiveMaximum: packet.Some[uint16](1)}
		})
		live.subscribe(packet.Subscription{Filter: "a", QoS: 1}, packet.Subscription{Filter: "b", QoS: 1})
		pub := connect(t, b, "pub")
		pub.publish("a", "sent", 1)
		pub.publish("a", "waits", 1)
		pub.publish("b", "waits", 1)
		p := live.message("a", "sent")
		rules.deny(t, b, "alice a") // or its own SUBSCRIBE has met the new rules
		require.Equal(t, 1, b.Stats().Subscriptions)
		live.send(&packet.Puback{Ack: packet.Ack{PacketID: p.PacketID}})
		live.message("b", "waits")
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropDenied])
	})
}

func TestASessionFromTheStoreIsHeldAgainstTheRulesAsItsLastClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		m := store.NewMemory(nil)
		with := func(m *store.Memory) *broker.Broker {
			b, err := broker.New(&broker.Config{Auth: asClaimed, ACL: rules, Store: m})
			require.NoError(t, err)
			return b
		}
		b := with(m)
		away := connect(t, b, "away", user("alice"), keep(3600), v311, resume)
		away.subscribe(packet.Subscription{Filter: "a", QoS: 1}, packet.Subscription{Filter: "b", QoS: 1}, packet.Subscription{Filter: "c", QoS: 1})
		away.close()
		pub := connect(t, b, "pub")
		for _, topic := range []string{"a", "b", "c"} {
			pub.publish(topic, "m", 1)
		}
		next := m.Restart(nil)
		require.NoError(t, m.Close())
		b.Close()

		rules.mu.Lock()
		rules.denied["alice a"] = true // while the broker is down
		clear(rules.clients)
		rules.mu.Unlock()
		b = with(next)
		synctest.Wait() // until they are held against the rules
		require.Equal(t, 2, b.Stats().Subscriptions)
		require.Equal(t, 1, rules.deny(t, b, "alice b"))
		rules.mu.Lock()
		for who := range rules.clients["a"] {
			require.Equal(t, broker.ClientInfo{ClientID: "away", Username: "alice", Version: packet.V311, Carrier: mqtt.TCP, Offline: true}, who)
		}
		rules.mu.Unlock()
		away = dial(t, b)
		require.True(t, away.connect("away", user("alice"), v311, resume).SessionPresent)
		away.message("c", "m")
		away.ping()

		// What was taken away does not come back with the next start.
		last := next.Restart(nil)
		require.NoError(t, next.Close())
		b.Close()
		b = with(last)
		require.Equal(t, 1, b.Stats().Subscriptions)
		require.Equal(t, 1, b.Stats().Store.Messages)
		require.NoError(t, b.Close())
		require.NoError(t, last.Close())
	})
}

func TestASessionOfTheStoreThatDoesNotSayWhoseItIsIsLetGo(t *testing.T) {
	m := store.NewMemory(nil)
	b := stoppable(t, m)
	for _, id := range []string{"one", "two"} {
		c := connect(t, b, id, keep(3600))
		c.subscribe(packet.Subscription{Filter: "a", QoS: 1})
		c.close()
	}
	connect(t, b, "pub").publish("a", "m", 1)
	next := m.Restart(nil)
	require.NoError(t, m.Close())
	b.Close()
	next.Change(func(key, value []byte) []byte {
		if r, err := store.Decode(key, value); err == nil && r.Kind == store.State && r.ClientID == "one" {
			return value[:1]
		}
		return nil
	})
	var log logged
	b, err := broker.New(&broker.Config{Store: next, Logger: log.logger()})
	require.NoError(t, err)
	require.Equal(t, 1, b.Stats().Sessions)
	require.Equal(t, 1, b.Stats().Subscriptions)
	require.Equal(t, 1, b.Stats().Store.Messages)
	require.Contains(t, log.String(), "let go")
	require.False(t, dialed(t, b, "one", keep(3600), resume).SessionPresent)
	two := dial(t, b)
	require.True(t, two.connect("two", keep(3600), resume).SessionPresent)
	two.message("a", "m")
	two.close()
	connect(t, b, "one").close()
	connect(t, b, "two").close()
	require.NoError(t, b.Close())
	require.Equal(t, 1, next.Len(), "the epoch")
	require.NoError(t, next.Close())
}

func dialed(t testing.TB, b *broker.Broker, id string, change ...func(*packet.Connect)) *packet.Connack {
	t.Helper()
	c := dial(t, b)
	defer c.close()
	return c.connect(id, change...)
}

func TestRulesThatChangeWhileASubscribeIsDecidedOnHoldForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules)
		c := connect(t, b, "c", user("alice"))
		rules.asking = func(a broker.Action, name string) {
			if a != broker.ActionSubscribe || name != "a" || rules.revision.Load() > 0 {
				return
			}
			require.Zero(t, rules.deny(t, b, "alice a"), "it passes before there is anything to take away")
		}
		c.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"})
		c.ping()
		require.Equal(t, 1, b.Stats().Subscriptions)
		c.publish("a", "no", 0)
		c.publish("b", "yes", 0)
		c.message("b", "yes")
	})
}

func TestRulesThatChangeWhileASessionIsResumedHoldForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := newBroker(t, &broker.Config{ACL: rules}) // anybody may resume a session
		c := connect(t, b, "c", user("alice"), keep(60))
		c.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"})
		c.close()
		rules.mu.Lock()
		rules.asking = func(broker.Action, string) {
			if rules.revision.Load() == 0 {
				require.Zero(t, rules.deny(t, b, "bob a"), "the session is still alice's")
			}
		}
		rules.mu.Unlock()
		c = dial(t, b)
		require.True(t, c.connect("c", user("bob"), keep(60), resume).SessionPresent)
		c.ping()
		require.Equal(t, 1, b.Stats().Subscriptions)
	})
}

func TestAWillIsAuthorizedWhenItIsDue(t *testing.T) {
	for _, delay := range []uint32{0, 30} {
		synctest.Test(t, func(t *testing.T) {
			rules := newRuleBook()
			b := guarded(t, rules)
			sub := connect(t, b, "sub")
			sub.subscribe(packet.Subscription{Filter: "#"})
			alice := connect(t, b, "1", user("alice"), keep(60), will("w", "of alice", delay))
			bob := connect(t, b, "2", user("bob"), keep(60), will("w", "of bob", delay))
			rules.deny(t, b, "alice w")
			alice.close()
			bob.close()
			time.Sleep(31 * time.Second)
			sub.message("w", "of bob")
			sub.ping()
			s := b.Stats()
			require.EqualValues(t, 1, s.Dropped[broker.DropDenied])
			require.EqualValues(t, 1, s.Wills)
		})
	}
}

func TestWillsAreAskedAboutWhenTheBrokerClosesAtOnce(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		synctest.Test(t, func(t *testing.T) {
			acl := asking(func(ctx context.Context) (bool, error) {
				select {
				case <-time.After(time.Second):
					return true, nil
				case <-ctx.Done():
					return false, ctx.Err()
				}
			})
			m := store.NewMemory(nil)
			b := newBroker(t, &broker.Config{ACL: acl, Store: m})
			connect(t, b, "sub", keep(3600)).subscribed("#")
			for i := range 5 {
				connect(t, b, fmt.Sprint(i), keep(expiry), will("x", "will", 0), func(p *packet.Connect) { p.Will.QoS = 1 })
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, b.Shutdown(ctx), context.Canceled)
			require.Zero(t, b.Stats().Dropped[broker.DropDenied])
			next := m.Restart(nil)
			require.NoError(t, m.Close())
			b = newBroker(t, &broker.Config{Store: next})
			sub := dial(t, b)
			require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
			for range 5 {
				sub.message("x", "will")
			}
			sub.silent(time.Minute)
			require.NoError(t, b.Close())
			require.NoError(t, next.Close())
		})
	}
}

func TestAWillIsInTheStoreUntilItIsKnownWhetherItMayBePublished(t *testing.T) {
	for _, c := range []struct {
		name  string
		delay uint32
		crash bool
	}{{"crash", 0, true}, {"crash after a delay", 10, true}, {"close", 0, false}, {"close after a delay", 10, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				acl := &aclFunc{}
				acl.f = func(ctx context.Context, _ *broker.ClientInfo, a broker.Action, topic string) (bool, error) {
					if topic == "x" && acl.revision.Load() > 0 {
						<-ctx.Done()
						return false, ctx.Err()
					}
					return true, nil
				}
				m := store.NewMemory(nil)
				b := newBroker(t, &broker.Config{ACL: acl, Store: m, HookTimeout: time.Minute})
				connect(t, b, "sub", keep(3600)).subscribed("#")
				qos1 := func(p *packet.Connect) { p.Will.QoS = 1 }
				gone := connect(t, b, "gone", keep(3600), will("x", "will", c.delay), qos1)
				acl.revision.Add(1)
				calls := acl.calls.Load()
				gone.conn.Close()
				time.Sleep(20 * time.Second)
				require.Equal(t, calls+1, acl.calls.Load(), "asked once")
				next := m
				if c.crash {
					next = m.Restart(nil)
					require.NoError(t, m.Close())
				}
				require.NoError(t, b.Close())
				if !c.crash {
					next = m.Restart(nil)
					require.NoError(t, m.Close())
				}
				b = newBroker(t, &broker.Config{Store: next})
				sub := dial(t, b)
				require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
				sub.message("x", "will")
				sub.silent(time.Minute)
				require.NoError(t, b.Close())
				require.NoError(t, next.Close())
			})
		})
	}
}

func TestAClientThatIsBackBeforeItsWillIsDecidedOnGetsItPublishedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acl := asking(func(ctx context.Context) (bool, error) {
			time.Sleep(time.Second)
			return true, ctx.Err()
		})
		m := store.NewMemory(nil)
		b := newBroker(t, &broker.Config{ACL: acl, Store: m})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"})
		gone := connect(t, b, "c", keep(3600), will("x", "first", 0))
		gone.conn.Close()
		synctest.Wait()
		back := dial(t, b)
		require.True(t, back.connect("c", keep(3600), resume, will("x", "second", 0)).SessionPresent)
		sub.message("x", "first")
		back.ping()
		sub.silent(time.Minute)
		back.close()
		sub.message("x", "second")
		sub.silent(time.Minute)
		require.EqualValues(t, 2, b.Stats().Wills)
		require.NoError(t, b.Close())
		require.NoError(t, m.Close())
	})
}

func TestAHookThatHangsHoldsUpTheEndForItsTimeoutOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acl := &aclFunc{}
		acl.f = func(ctx context.Context, _ *broker.ClientInfo, _ broker.Action, topic string) (bool, error) {
			if acl.revision.Load() > 0 {
				<-ctx.Done()
			}
			return true, ctx.Err()
		}
		b := newBroker(t, &broker.Config{ACL: acl, MaxHooks: 2})
		for i := range 20 {
			connect(t, b, fmt.Sprint(i), will("x", "will", 0))
		}
		acl.revision.Add(1)
		began := time.Now()
		require.NoError(t, b.Close())
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		require.EqualValues(t, 20, b.Stats().Dropped[broker.DropDenied])
	})
}

func TestWillsOfManyWhoAreLostTogetherWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acl := asking(func(ctx context.Context) (bool, error) {
			time.Sleep(time.Second)
			return true, ctx.Err()
		})
		b := newBroker(t, &broker.Config{ACL: acl, MaxHooks: 4, StallTimeout: time.Hour, HoldTimeout: time.Hour})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"})
		const clients = 60 // half a minute's work; a call may take five seconds
		var links []*peer
		for i := range clients {
			links = append(links, connect(t, b, fmt.Sprint(i), will("x", "will", 0)))
		}
		for _, c := range links {
			c.conn.Close()
		}
		pub := connect(t, b, "pub")
		pub.publish("x", "of others", 1) // it finds a place
		for range clients + 1 {
			receive[*packet.Publish](sub)
		}
		s := b.Stats()
		require.EqualValues(t, clients, s.Wills)
		require.Zero(t, s.HooksFailed)
		require.Zero(t, s.Dropped[broker.DropDenied])
	})
}

func TestAWillFromTheStoreIsAuthorizedAsWhoSetIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		m := store.NewMemory(nil)
		b, err := broker.New(&broker.Config{Auth: asClaimed, ACL: rules, Store: m})
		require.NoError(t, err)
		connect(t, b, "sub", keep(3600)).subscribe(packet.Subscription{Filter: "#", QoS: 1})
		qos1 := func(p *packet.Connect) { p.Will.QoS = 1 }
		connect(t, b, "1", user("alice"), keep(3600), will("w", "of alice", 0), qos1)
		connect(t, b, "2", user("bob"), keep(3600), will("w", "of bob", 0), qos1)
		next := m.Restart(nil)
		require.NoError(t, m.Close())
		b.Close()
		rules.mu.Lock()
		rules.denied["alice w"] = true
		rules.mu.Unlock()
		b, err = broker.New(&broker.Config{Auth: asClaimed, ACL: rules, Store: next})
		require.NoError(t, err)
		time.Sleep(time.Second) // they are due at once
		s := b.Stats()
		require.EqualValues(t, 1, s.Wills)
		require.EqualValues(t, 1, s.Dropped[broker.DropDenied])
		sub := dial(t, b)
		require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
		sub.message("w", "of bob")
		sub.ping()
		require.NoError(t, b.Close())
		require.NoError(t, next.Close())
	})
}

func TestADelayedMessageIsAuthorizedWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules, func(c *broker.Config) { c.Delayed.Enabled = true })
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#"})
		alice, bob := connect(t, b, "1", user("alice")), connect(t, b, "2", user("bob"))
		alice.publish("$delayed/10/a", "of alice", 1)
		bob.publish("$delayed/10/a", "of bob", 1)
		alice.close()
		bob.close()
		rules.deny(t, b, "alice a")
		time.Sleep(11 * time.Second)
		sub.message("a", "of bob")
		sub.ping()
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropDenied])
	})
}

func TestRulesAreAboutTheTopicsThatClientsNameAndNotWhatTheyBecome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mappings, err := rewrite.NewRules([]rewrite.Rule{{Filter: "old/#", To: "new/$1"}})
		require.NoError(t, err)
		rules := newRuleBook()
		for _, name := range []string{"new/#", "new/x", "old/no"} {
			rules.denied["alice "+name] = true
		}
		m := store.NewMemory(nil)
		config := broker.Config{
			Auth: asClaimed, ACL: rules, Store: m,
			Rewrite: broker.Rewrite{Publish: mappings, Subscribe: mappings}, Delayed: broker.Delayed{Enabled: true},
		}
		b := newBroker(t, &config)
		alice := connect(t, b, "alice", user("alice"), keep(3600), will("old/x", "will", 60),
			func(p *packet.Connect) { p.Will.QoS = 1 })
		require.Equal(t, []packet.ReasonCode{packet.NotAuthorized, packet.NotAuthorized, packet.NotAuthorized}, alice.subscribe(
			packet.Subscription{Filter: "new/#", QoS: 1}, packet.Subscription{Filter: "old/no", QoS: 1}, packet.Subscription{Filter: "old/#", QoS: 1},
		).Codes, "of two that become the same, one is denied")
		require.Equal(t, []packet.ReasonCode{1, 1}, alice.subscribe(
			packet.Subscription{Filter: "old/#", QoS: 1}, packet.Subscription{Filter: "$share/g/old/x", QoS: 1},
		).Codes)
		require.Equal(t, packet.NotAuthorized, alice.puback(&packet.Publish{Topic: "new/x"}))
		require.Equal(t, packet.Success, alice.puback(&packet.Publish{Topic: "$delayed/30/old/x", Payload: []byte("delayed")}))
		another := connect(t, b, "another", user("alice")) // whose PUBACK no message overtakes
		require.Equal(t, packet.Success, another.puback(&packet.Publish{Topic: "old/x", Payload: []byte("now")}))
		another.close()
		for range 2 {
			alice.message("new/x", "now")
		}
		require.Zero(t, rules.deny(t, b), "they are allowed by what was asked for")
		alice.close()
		time.Sleep(100 * time.Second)
		require.Equal(t, 2, b.Stats().Subscriptions)

		next := m.Restart(nil)
		require.NoError(t, m.Close())
		b.Close()
		config.Store = next
		b = newBroker(t, &config)
		synctest.Wait()
		require.Equal(t, 2, b.Stats().Subscriptions, "after a start as well")
		alice = dial(t, b)
		require.True(t, alice.connect("alice", user("alice"), keep(3600), resume).SessionPresent)
		got := map[string]int{}
		for range 6 {
			p := receive[*packet.Publish](alice)
			require.Equal(t, "new/x", p.Topic)
			got[string(p.Payload)]++
		}
		require.Equal(t, map[string]int{"now": 2, "delayed": 2, "will": 2}, got)
		synctest.Wait() // its CONNECT is not to meet the new rules
		require.Equal(t, 2, rules.deny(t, b, "alice old/#", "alice old/x"))
		alice.close()
		b.Close()
		require.NoError(t, next.Close())
	})
}

// Whoever comes while the session of before waits for the Authorizer, with its will,
// does not make the broker forget which subscriptions end with it.
func TestASessionThatEndsWithAWillTakesItsSubscriptionsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := newRuleBook()
		b := guarded(t, rules)
		c := connect(t, b, "c", user("alice"), will("gone", "x", 0))
		c.subscribe(packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b/#"})
		require.Equal(t, 2, b.Stats().Subscriptions)
		asked, answer := make(chan struct{}), make(chan struct{})
		rules.mu.Lock()
		rules.asking = func(_ broker.Action, name string) {
			if name == "gone" {
				close(asked)
				<-answer
			}
		}
		rules.mu.Unlock()
		c.conn.Close()
		<-asked
		again := connect(t, b, "c", user("alice"))
		close(answer)
		synctest.Wait()
		require.Zero(t, b.Stats().Subscriptions)
		again.close()
		require.NoError(t, b.Close())
	})
}
