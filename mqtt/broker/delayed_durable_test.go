package broker_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
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

// delaying returns a broker on m that delays messages.
func delaying(t testing.TB, m *store.Memory) *broker.Broker {
	t.Helper()
	b, err := broker.New(&broker.Config{Store: m, Delayed: broker.Delayed{Enabled: true}})
	require.NoError(t, err)
	return b
}

// delayingAgain ends b as a machine that stops, which comes up again after a while.
func delayingAgain(t testing.TB, b *broker.Broker, m *store.Memory, after time.Duration) (*broker.Broker, *store.Memory) {
	t.Helper()
	next := m.Restart(nil)
	require.NoError(t, m.Close())
	require.NoError(t, b.Close())
	time.Sleep(after)
	return delaying(t, next), next
}

func TestDelayedMessagesOutliveTheMachineAndComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(nil)
		b := delaying(t, m)
		connect(t, b, "sub", keep(86400)).subscribed("#")
		pub := connect(t, b, "pub")
		began := time.Now()
		for qos, topic := range []string{"$delayed/60/none", "$delayed/50/one", "$delayed/60/two"} {
			pub.publish(topic, fmt.Sprint(qos), packet.QoS(qos))
		}
		pub.send(&packet.Publish{Topic: "$delayed/60/kept", Payload: []byte("3"), QoS: 1, PacketID: 9, Retain: true,
			Properties: &packet.Properties{MessageExpiry: packet.Some(uint32(100))}})
		require.Equal(t, packet.Success, receive[*packet.Puback](pub).Code)
		before := b.Stats()
		require.Equal(t, 4, before.Delayed)

		b, m = delayingAgain(t, b, m, 10*time.Second)
		after := b.Stats()
		require.Equal(t, before.Delayed, after.Delayed)
		require.Equal(t, before.DelayedBytes, after.DelayedBytes)
		sub := dial(t, b)
		require.True(t, sub.connect("sub", keep(86400), resume).SessionPresent)
		sub.message("one", "1")
		require.GreaterOrEqual(t, time.Since(began), 50*time.Second)
		require.Less(t, time.Since(began), 51*time.Second)
		sub.message("none", "0")
		require.GreaterOrEqual(t, time.Since(began), time.Minute)
		require.Less(t, time.Since(began), 61*time.Second)
		require.Equal(t, packet.ExactlyOnce, sub.message("two", "2").QoS)
		require.InDelta(t, 100, sub.message("kept", "3").Properties.MessageExpiry.Value, 1)
		require.Zero(t, b.Stats().Delayed)
		require.Equal(t, 1, b.Stats().Retained)
		sub.close()
		connect(t, b, "sub").close()
		require.NoError(t, b.Close())
		require.Equal(t, 2, m.Len(), "the epoch and the retained message")
	})
}

func TestWhatBecameDueWhileTheBrokerWasDownIsPublishedAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(nil)
		b := delaying(t, m)
		connect(t, b, "sub", keep(86400)).subscribed("#")
		pub := connect(t, b, "pub")
		for i := range 5 {
			pub.publish(fmt.Sprintf("$delayed/%d/x", 60-i), fmt.Sprint(i), 1)
		}
		b, _ = delayingAgain(t, b, m, time.Hour)
		began := time.Now()
		sub := dial(t, b)
		require.True(t, sub.connect("sub", keep(86400), resume).SessionPresent)
		for i := 4; i >= 0; i-- {
			sub.message("x", fmt.Sprint(i))
		}
		require.Less(t, time.Since(began), time.Second)
		require.NoError(t, b.Close())
	})
}

func TestADelayedMessageOfTheStoreIsAuthorizedWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mappings, err := rewrite.NewRules([]rewrite.Rule{{Filter: "old/#", To: "new/$1"}})
		require.NoError(t, err)
		rules, m := newRuleBook(), store.NewMemory(nil)
		start := func() *broker.Broker {
			return guarded(t, rules, func(c *broker.Config) {
				c.Store, c.Delayed.Enabled, c.Rewrite.Publish = m, true, mappings
			})
		}
		b := start()
		connect(t, b, "sub", keep(86400)).subscribed("#")
		for i, name := range []string{"alice", "bob"} {
			pub := connect(t, b, fmt.Sprint(i), user(name))
			pub.publish("$delayed/60/old/a", "of "+name, 1)
			pub.close()
		}
		before := b.Stats()
		next := m.Restart(nil)
		require.NoError(t, m.Close())
		require.NoError(t, b.Close())
		m = next
		b = start()
		require.Equal(t, before.DelayedBytes, b.Stats().DelayedBytes)
		rules.deny(t, b, "alice old/a")
		sub := dial(t, b)
		require.True(t, sub.connect("sub", keep(86400), resume).SessionPresent)
		sub.message("new/a", "of bob")
		sub.ping()
		require.EqualValues(t, 1, b.Stats().Dropped[broker.DropDenied])
		sub.close()
		connect(t, b, "sub").close()
		require.NoError(t, b.Close())
		require.Equal(t, 1, m.Len(), "the epoch")
	})
}

// asking returns an Authorizer that allows everything but answers by hook when it is
// asked whether a client may publish to x.
func asking(hook func(context.Context) (bool, error)) *aclFunc {
	return &aclFunc{f: func(ctx context.Context, _ *broker.ClientInfo, a broker.Action, topic string) (bool, error) {
		if a == broker.ActionPublish && topic == "x" {
			return hook(ctx)
		}
		return true, nil
	}}
}

func TestADelayedMessageStaysIfTheBrokerClosesWhileItIsAskedAbout(t *testing.T) {
	for name, said := range map[string]func(context.Context) (bool, error){
		"error":  func(ctx context.Context) (bool, error) { return false, ctx.Err() },
		"denied": func(context.Context) (bool, error) { return false, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := store.NewMemory(nil)
				var slow, asked atomic.Bool
				acl := asking(func(ctx context.Context) (bool, error) {
					if slow.Load() {
						asked.Store(true)
						<-ctx.Done()
						return said(ctx)
					}
					return true, nil
				})
				start := func() *broker.Broker {
					return newBroker(t, &broker.Config{ACL: acl, Store: m, Delayed: broker.Delayed{Enabled: true}})
				}
				b := start()
				connect(t, b, "sub", keep(3600)).subscribed("#")
				require.Equal(t, packet.Success, connect(t, b, "pub").puback(&packet.Publish{Topic: "$delayed/1/x", Payload: []byte("kept")}))
				slow.Store(true)
				time.Sleep(2 * time.Second)
				require.True(t, asked.Load())
				require.NoError(t, b.Close())
				require.Zero(t, b.Stats().Dropped[broker.DropDenied])
				next := m.Restart(nil)
				require.NoError(t, m.Close())
				m = next
				slow.Store(false)
				b = start()
				sub := dial(t, b)
				require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
				sub.message("x", "kept")
				require.NoError(t, b.Close())
				require.NoError(t, m.Close())
			})
		})
	}
}

func TestDelayedMessagesWaitForAnAuthorizerThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		acl := asking(func(ctx context.Context) (bool, error) {
			if failing.Load() {
				<-ctx.Done()
				return false, ctx.Err()
			}
			return true, nil
		})
		m := store.NewMemory(nil)
		b := newBroker(t, &broker.Config{ACL: acl, Store: m, Delayed: broker.Delayed{Enabled: true}})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "#", QoS: 1})
		pub := connect(t, b, "pub")
		for i := range 5 {
			pub.publish(fmt.Sprintf("$delayed/%d/x", 1+i/2), fmt.Sprint(i), 1)
		}
		failing.Store(true)
		sub.silent(time.Hour)
		now := b.Stats()
		require.GreaterOrEqual(t, now.Delayed, 4, "one may be being asked about")
		require.Less(t, now.HooksFailed, uint64(3600/5), "there are pauses")
		failing.Store(false)
		for i := range 5 {
			sub.message("x", fmt.Sprint(i))
		}
		now = b.Stats()
		require.Zero(t, now.Delayed)
		require.Zero(t, now.DelayedBytes)
		require.Zero(t, now.Dropped[broker.DropDenied])
		require.NoError(t, b.Close())
	})
}

// subscribed subscribes with QoS 2 and goes.
func (c *peer) subscribed(filter string) {
	c.t.Helper()
	c.subscribe(packet.Subscription{Filter: filter, QoS: 2})
	c.close()
}

// The machine stops in the place of each commit that publishing makes, once
// before it and once after it was written.
func TestACrashWhileDelayedMessagesArePublishedLosesAndDuplicatesNone(t *testing.T) {
	const messages = 6
	for _, torn := range []bool{false, true} {
		stops := 0
		for n, stopped := 1, true; stopped; n++ {
			synctest.Test(t, func(t *testing.T) {
				stopped = crashAtRelease(t, n, torn, messages)
			})
			if stopped {
				stops++
			}
		}
		require.GreaterOrEqual(t, stops, messages, "torn %v", torn)
	}
}

func crashAtRelease(t *testing.T, n int, torn bool, messages int) bool {
	var from atomic.Int64 // 0: nothing stops yet
	var stopped atomic.Bool
	m := store.NewMemory(func(i int) store.Fault {
		if at := from.Load(); at == 0 || int64(i) < at {
			return store.Fault{}
		}
		stopped.Store(true)
		return store.Fault{Stop: true, Torn: torn}
	})
	b := delaying(t, m)
	for _, id := range []string{"first", "second"} {
		connect(t, b, id, keep(86400)).subscribed("t/#")
	}
	pub := connect(t, b, "pub")
	for i := range messages {
		pub.publish(fmt.Sprintf("$delayed/%d/t/x", 60+i), fmt.Sprint(i), 2)
	}
	pub.close()
	synctest.Wait()
	from.Store(int64(m.Applied() + n))
	time.Sleep(2 * time.Minute)
	b, m = delayingAgain(t, b, m, 0)
	time.Sleep(time.Second)
	for _, id := range []string{"first", "second"} {
		sub := dial(t, b)
		require.True(t, sub.connect(id, keep(86400), resume).SessionPresent)
		for i := range messages {
			sub.message("t/x", fmt.Sprint(i))
		}
		sub.silent(time.Minute)
		sub.close()
	}
	require.NoError(t, b.Close())
	require.NoError(t, m.Close())
	return stopped.Load()
}

func TestAFullDiskRefusesDelayedMessagesAndHoldsBackThoseThatAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		m := store.NewMemory(func(int) store.Fault {
			if full.Load() {
				return store.Fault{Err: syscall.ENOSPC}
			}
			return store.Fault{}
		})
		b := delaying(t, m)
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "x"})
		pub := connect(t, b, "pub")
		pub.publish("$delayed/60/x", "early", 1)
		full.Store(true)
		connect(t, b, "one that makes a change", keep(60))
		time.Sleep(time.Second) // the store is found full
		require.Equal(t, packet.QuotaExceeded, pub.puback(&packet.Publish{Topic: "$delayed/60/x", Payload: []byte("late")}))
		pub.publish("$delayed/60/x", "dropped", 0)
		pub.ping()
		require.Equal(t, 1, b.Stats().Delayed)
		sub.silent(2 * time.Minute)
		full.Store(false)
		sub.message("x", "early")
		sub.silent(2 * time.Minute)
		require.NoError(t, b.Close())
	})
}

func TestADelayedMessageOutlivesAProcessThatIsKilled(t *testing.T) {
	dir := t.TempDir()
	addr, kill := killable(t, dir)
	dialTCP := func(id string) *peer {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		p := &peer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
		require.Equal(t, packet.Success, p.connect(id, keep(3600), resume).Code)
		return p
	}
	sub := dialTCP("sub")
	sub.subscribe(packet.Subscription{Filter: "x", QoS: 1})
	require.Equal(t, packet.Success, dialTCP("pub").puback(&packet.Publish{Topic: "$delayed/2/x", Payload: []byte("later")}))
	kill()
	addr, kill = killable(t, dir)
	dialTCP("sub").message("x", "later")
	kill()
}
