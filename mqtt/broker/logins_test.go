package broker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A passwords admits users with the password "right", and clients that show
// nothing. It counts how often it was asked.
type passwords struct{ asked chan string }

func (a passwords) Authenticate(_ context.Context, c *broker.Credentials) (broker.Identity, error) {
	a.asked <- c.Client.Username
	switch {
	case c.Client.Username == "busy":
		return broker.Identity{}, &broker.Denied{Code: packet.ServerBusy, Reason: "busy"}
	case !c.HasUsername || string(c.Password) == "right":
		return broker.Identity{Username: c.Client.Username}, nil
	}
	return broker.Identity{}, &broker.Denied{Code: packet.BadUserNameOrPassword, Reason: "wrong"}
}

func shows(name, password string) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Username, p.Password = packet.Some(name), []byte(password)
	}
}

func TestAnAddressHasFewFailedLoginsAndThenTheAuthenticatorIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan string, 1000)
		b := newBroker(t, &broker.Config{Auth: passwords{asked}, Quotas: broker.Quotas{FailedLogins: 0.01}}) // 3 at once
		try := func(addr string, change ...func(*packet.Connect)) packet.ReasonCode {
			c := dialFrom(t, b, addr)
			code := c.connect("", change...).Code
			c.close()
			return code
		}
		for range 5 {
			require.Equal(t, packet.Success, try("192.0.2.1:1", shows("alice", "right")), "what succeeds costs nothing")
			require.Equal(t, packet.ServerBusy, try("192.0.2.1:1", shows("busy", "x")), "nor what is not the client's doing")
		}
		for range 3 {
			require.Equal(t, packet.BadUserNameOrPassword, try("192.0.2.1:1", shows("alice", "wrong")))
		}
		before := len(asked)
		require.Equal(t, packet.QuotaExceeded, try("192.0.2.1:1", shows("alice", "right")), "who guesses learns nothing more")
		require.Equal(t, packet.QuotaExceeded, try("[::ffff:192.0.2.1]:1", shows("mallory", "wrong")))
		require.Len(t, asked, before)
		require.Equal(t, packet.Success, try("192.0.2.1:1"), "who shows nothing does not guess")
		require.Equal(t, packet.Success, try("192.0.2.2:1", shows("alice", "right")))
		for range 5 {
			require.Equal(t, packet.BadUserNameOrPassword, try("127.0.0.1:1", shows("alice", "wrong")), "a proxy may be there")
		}
		time.Sleep(100 * time.Second)
		require.Equal(t, packet.BadUserNameOrPassword, try("192.0.2.1:1", shows("alice", "wrong")))
		require.Equal(t, packet.QuotaExceeded, try("192.0.2.1:1", shows("alice", "wrong")))
		s := b.Stats()
		require.EqualValues(t, 3, s.AboveQuota[broker.RefusedLogins])
		require.EqualValues(t, 9, s.FailedLogins)
		require.Zero(t, s.Pending)

		require.NoError(t, b.Reconfigure(&broker.Config{Quotas: broker.Quotas{FailedLogins: -1}}))
		require.Equal(t, packet.Success, try("192.0.2.1:1", shows("alice", "right")))
		b.Close()
	})
}

func TestThePrefixOfAnIPv6CustomerCanBeSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{Quotas: broker.Quotas{ConnsPerAddr: 1, IPv6Prefix: 48}})
		require.Equal(t, packet.Success, dialFrom(t, b, "[2001:db8:0:1::1]:1").connect("").Code)
		require.Equal(t, packet.QuotaExceeded, dialFrom(t, b, "[2001:db8:0:2::1]:1").connect("").Code)
		require.Equal(t, packet.Success, dialFrom(t, b, "[2001:db8:1:1::1]:1").connect("").Code)
		_, err := broker.New(&broker.Config{Quotas: broker.Quotas{IPv6Prefix: 129}})
		require.ErrorContains(t, err, "IPv6Prefix 129")
	})
}

// Above its limit of an address, of guesses that wait together for the authenticator
// only those fail that it has been asked about.
func TestGuessesAtTheSameTimeDoNotGetAroundTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan string) // each is answered when the test says so
		b := newBroker(t, &broker.Config{
			Auth: passwords{asked}, MaxHooks: 1, HookTimeout: time.Minute, ConnectTimeout: 2 * time.Minute,
			Quotas: broker.Quotas{FailedLogins: 0.01},
		})
		codes := make(chan packet.ReasonCode, 10)
		for range 10 {
			c := dialFrom(t, b, "192.0.2.1:1")
			go func() { codes <- c.connect("", shows("alice", "wrong")).Code }()
		}
		synctest.Wait()
		for range 3 {
			<-asked
		}
		got := map[packet.ReasonCode]int{}
		for range 10 {
			got[<-codes]++ // in any order
		}
		require.Equal(t, map[packet.ReasonCode]int{packet.BadUserNameOrPassword: 3, packet.QuotaExceeded: 7}, got)
		b.Close()
	})
}
