package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// authFunc is an Authenticator.
type authFunc func(context.Context, *broker.Credentials) (broker.Identity, error)

func (f authFunc) Authenticate(ctx context.Context, c *broker.Credentials) (broker.Identity, error) {
	return f(ctx, c)
}

// aclFunc is an Authorizer whose rules may change.
type aclFunc struct {
	f        func(context.Context, *broker.ClientInfo, broker.Action, string) (bool, error)
	revision atomic.Uint64
	calls    atomic.Int64
}

func (a *aclFunc) Authorize(ctx context.Context, c *broker.ClientInfo, what broker.Action, topic string) (bool, error) {
	a.calls.Add(1)
	return a.f(ctx, c, what, topic)
}

func (a *aclFunc) Revision() uint64 { return a.revision.Load() }

// asClaimed admits everyone as the user that CONNECT names.
var asClaimed = authFunc(func(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
	return broker.Identity{Username: c.Client.Username}, nil
})

func user(name string) func(*packet.Connect) {
	return func(p *packet.Connect) { p.Username = packet.Some(name) }
}

func TestAHookThatFailsPanicsOrHangsDeniesAndTheBrokerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var log logged
		b := newBroker(t, &broker.Config{
			Logger:      log.logger(),
			HookTimeout: 50 * time.Millisecond,
			Auth: authFunc(func(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
				switch c.Client.Username {
				case "fails":
					return broker.Identity{}, errors.New("no backend")
				case "panics":
					panic("at the hook")
				case "hangs":
					<-release // whatever the context says
				}
				return broker.Identity{Username: c.Client.Username}, nil
			}),
		})
		defer close(release)
		good := connect(t, b, "good", user("good"))
		for _, name := range []string{"fails", "panics", "hangs"} {
			for _, v := range []packet.Version{packet.V5, packet.V311} {
				c := dial(t, b)
				ack := c.connect(name, user(name), func(p *packet.Connect) { p.Version = v })
				require.Equal(t, packet.ServerUnavailable, ack.Code, name)
				c.closed()
			}
		}
		good.ping()
		require.EqualValues(t, 6, b.Stats().HooksFailed)
		require.Contains(t, log.String(), "no backend")
		require.Contains(t, log.String(), "at the hook")
	})
}

func TestHooksThatHangTakeUpTheirPlacesAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running, most atomic.Int64
		b := newBroker(t, &broker.Config{
			HookTimeout: 30 * time.Millisecond,
			MaxHooks:    2,
			Auth: authFunc(func(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer running.Add(-1)
				if c.Client.Username == "hangs" {
					<-release
				}
				return broker.Identity{}, nil
			}),
		})
		for i := range 5 {
			require.Equal(t, packet.ServerUnavailable, dial(t, b).connect(fmt.Sprint(i), user("hangs")).Code)
		}
		require.EqualValues(t, 2, most.Load())
		require.EqualValues(t, 2, running.Load())
		require.Equal(t, packet.ServerUnavailable, dial(t, b).connect("good").Code, "no place")
		close(release)
		synctest.Wait()
		require.Zero(t, running.Load())
		require.Equal(t, packet.Success, dial(t, b).connect("good").Code)
	})
}

func TestTheBrokerClosesThoughAHookNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var log logged
		b := newBroker(t, &broker.Config{
			Logger: log.logger(), HookTimeout: time.Millisecond, DrainTimeout: time.Millisecond,
			Auth: authFunc(func(context.Context, *broker.Credentials) (broker.Identity, error) {
				<-release
				return broker.Identity{}, nil
			}),
		})
		dial(t, b).connect("c")
		require.NoError(t, b.Close())
		require.Contains(t, log.String(), "left behind")
	})
}

func TestAnAuthorizerThatFailsPanicsOrHangsDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		acl := &aclFunc{f: func(_ context.Context, _ *broker.ClientInfo, _ broker.Action, topic string) (bool, error) {
			switch topic {
			case "fails":
				return true, errors.New("no backend")
			case "panics":
				panic("at the hook")
			case "hangs":
				<-release
			}
			return true, nil
		}}
		b := newBroker(t, &broker.Config{HookTimeout: 20 * time.Millisecond, ACL: acl})
		c := connect(t, b, "c")
		for i, topic := range []string{"fails", "panics", "hangs", "fine"} {
			want := packet.NotAuthorized
			if topic == "fine" {
				want = packet.NoMatchingSubscribers
			}
			c.send(&packet.Publish{Topic: topic, QoS: 1, PacketID: uint16(i + 1)})
			require.Equal(t, want, receive[*packet.Puback](c).Code, topic)
			if want == packet.NotAuthorized {
				require.Equal(t, []packet.ReasonCode{want}, c.subscribe(packet.Subscription{Filter: topic}).Codes)
			}
			refused := dial(t, b).connect("w", will(topic, "x", 0)).Code
			require.Equal(t, map[bool]packet.ReasonCode{true: packet.ServerUnavailable, false: packet.Success}[want.Failed()], refused)
		}
	})
}

func TestDecisionsOnPublishingAreRememberedUntilTheRulesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acl := &aclFunc{}
		acl.f = func(context.Context, *broker.ClientInfo, broker.Action, string) (bool, error) {
			return acl.revision.Load()%2 == 0, nil
		}
		b := newBroker(t, &broker.Config{ACL: acl})
		c := connect(t, b, "c")
		publish := func(topic string) packet.ReasonCode {
			c.send(&packet.Publish{Topic: topic, QoS: 1, PacketID: 1})
			return receive[*packet.Puback](c).Code
		}
		for range 10 {
			require.False(t, publish("a").Failed())
		}
		require.EqualValues(t, 1, acl.calls.Load())
		acl.revision.Add(1)
		for range 10 {
			require.Equal(t, packet.NotAuthorized, publish("a"))
		}
		require.EqualValues(t, 2, acl.calls.Load())
		require.EqualValues(t, 10, b.Stats().Dropped[broker.DropDenied])
		acl.revision.Add(1)
		for i := range 1000 { // more than are remembered
			require.False(t, publish(fmt.Sprint("t/", i)).Failed())
		}
		require.False(t, publish("t/0").Failed())
		require.EqualValues(t, 1003, acl.calls.Load())
	})
}

func TestASessionBelongsToItsUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Auth: asClaimed})
		alice := connect(t, b, "c", user("alice"), keep(60))
		for _, as := range []func(*packet.Connect){user("bob"), resume, func(p *packet.Connect) { user("bob")(p); resume(p) }} {
			c := dial(t, b)
			require.Equal(t, packet.NotAuthorized, c.connect("c", as).Code)
			c.closed()
		}
		alice.ping()
		alice.close()
		require.Equal(t, packet.NotAuthorized, dial(t, b).connect("c", user("bob")).Code, "it lives without a connection")
		c := dial(t, b)
		ack := c.connect("c", user("alice"), keep(60), resume)
		require.True(t, ack.SessionPresent)
		c.send(&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](0)}})
		c.close()
		connect(t, b, "c", user("bob"))
	})
}

func TestSubscriptionsThatAreNoLongerAllowedEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acl := &aclFunc{}
		acl.f = func(_ context.Context, _ *broker.ClientInfo, a broker.Action, topic string) (bool, error) {
			return acl.revision.Load() == 0 || a == broker.ActionPublish || topic == "b", nil
		}
		b := newBroker(t, &broker.Config{ACL: acl})
		filters := []packet.Subscription{{Filter: "a", QoS: 1}, {Filter: "b", QoS: 1}, {Filter: "$share/g/a", QoS: 1}}
		live, away := connect(t, b, "live"), connect(t, b, "away", keep(60))
		live.subscribe(filters...)
		away.subscribe(filters...)
		away.close()
		acl.revision.Add(1)
		n, err := b.Reauthorize(context.Background())
		require.NoError(t, err)
		require.Equal(t, 4, n)
		pub := connect(t, b, "pub")
		pub.publish("a", "no", 0)
		pub.publish("b", "yes", 0)
		live.message("b", "yes")

		away = dial(t, b)
		require.True(t, away.connect("away", keep(60), resume).SessionPresent)
		away.ping()
		pub.publish("a", "no", 0)
		pub.publish("b", "yes", 0)
		live.message("b", "yes")
		away.message("b", "yes")
		require.Equal(t, 2, b.Stats().Subscriptions)
		require.EqualValues(t, 4, b.Stats().DeniedFilters)
	})
}

func TestAnIdentityThatExpiresEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Auth: authFunc(func(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
			d := 100 * time.Millisecond
			if c.Client.Username == "late" {
				d = -time.Hour
			}
			return broker.Identity{Expires: time.Now().Add(d)}, nil
		})})
		c := connect(t, b, "c")
		require.Equal(t, packet.MaximumConnectTime, receive[*packet.Disconnect](c).Code)
		c.conn.Close()
		require.Equal(t, packet.NotAuthorized, dial(t, b).connect("c", user("late")).Code)
	})
}
