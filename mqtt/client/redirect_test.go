package client

import (
	"context"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// follower returns a configuration that follows references, and where it dials.
func follower(l *listener) (*Config, chan string) {
	cfg := l.config()
	cfg.FollowServerReference = true
	hosts := make(chan string, 100)
	cfg.Dial = func(ctx context.Context, u *url.URL) (net.Conn, error) {
		hosts <- u.Host
		return l.dial(ctx, u)
	}
	return cfg, hosts
}

func refer(to string) *packet.Properties { return &packet.Properties{ServerReference: to} }

func TestAServerThatNamesAnotherIsFollowedForOneConnectionOrForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg, hosts := follower(l)
		start := time.Now()
		c, err := New(cfg)
		require.NoError(t, err)
		p, _ := l.accepted(&packet.Connack{Code: packet.UseAnotherServer, Properties: refer("b:2000")})
		require.Equal(t, "broker.test", <-hosts)
		p.expectEnd()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, "b:2000", <-hosts)
		after(t, 0, start)

		// For one connection: the next is to the first server again.
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, "broker.test", <-hosts)

		start = time.Now()
		p.send(&packet.Disconnect{Code: packet.ServerMoved, Properties: refer("fe80::1 c:3000")})
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, "[fe80::1]", <-hosts)
		after(t, 0, start)
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, "[fe80::1]", <-hosts, "for good")
		disconnect(t, c, p)
	})
}

func TestServersThatNameEachOtherAreFollowedOnlySoFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg, hosts := follower(l)
		result := make(chan error, 1)
		go func() {
			_, err := Dial(t.Context(), cfg)
			result <- err
		}()
		for range 1 + maxHops {
			p, _ := l.accepted(&packet.Connack{Code: packet.UseAnotherServer, Properties: refer("next")})
			p.expectEnd()
		}
		var e *ConnectError
		require.ErrorAs(t, <-result, &e)
		require.Equal(t, "next", e.ServerReference)
		require.Len(t, hosts, 1+maxHops)
	})
}

func TestAReferenceThatIsNoHostIsNotFollowed(t *testing.T) {
	c, err := newClient(&Config{URL: "mqtts://a:1?x=1"})
	require.Error(t, err)
	require.Nil(t, c)
	c, err = newClient(&Config{URL: "mqtts://a:1"})
	require.NoError(t, err)
	for reference, want := range map[string][]string{
		"b":                 {"mqtts://b/"},
		"b:1 c":             {"mqtts://b:1/", "mqtts://c/"},
		"[::1]:5 ::2":       {"mqtts://[::1]:5/", "mqtts://[::2]/"},
		"user@b":            nil,
		"b/path":            nil,
		"mqtt://b":          nil,
		"b?q b#f b\\c":      nil,
		"":                  nil,
		"%41 b:port":        nil,
		"1 2 3 4 5 6 7 8 9": {"mqtts://1/", "mqtts://2/", "mqtts://3/", "mqtts://4/", "mqtts://5/", "mqtts://6/", "mqtts://7/", "mqtts://8/"},
	} {
		var got []string
		for _, target := range c.refer(c.route.targets[0], reference) {
			got = append(got, target.String())
		}
		require.Equal(t, want, got, "%q", reference)
	}
}

func FuzzServerReference(f *testing.F) {
	f.Add("b:1 [::1]:2 c")
	f.Add("user@b/%41?#\\")
	c, err := newClient(&Config{URL: "mqtts://a:1"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, reference string) {
		targets := c.refer(c.route.targets[0], reference)
		require.LessOrEqual(t, len(targets), maxReferences)
		for _, target := range targets {
			require.Equal(t, "mqtts", target.url.Scheme)
			require.Nil(t, target.url.User)
			require.Equal(t, "/", target.url.Path)
			require.NotEmpty(t, target.host)
		}
	})
}

func TestAServerThatIsBusyIsLeftAloneForLonger(t *testing.T) {
	for _, code := range []packet.ReasonCode{packet.ServerBusy, packet.QuotaExceeded, packet.ConnectionRateExceeded} {
		synctest.Test(t, func(t *testing.T) {
			l := newListener(t, packet.V5)
			c, p := dialed(t, l, l.config(), &packet.Connack{})
			start := time.Now()
			p.send(&packet.Disconnect{Code: code})
			p.close()
			p, _ = l.accepted(&packet.Connack{})
			require.GreaterOrEqual(t, time.Since(start), 4*time.Second)
			require.LessOrEqual(t, time.Since(start), 8*time.Second)
			disconnect(t, c, p)
		})
	}
}

func TestSubscriptionsAreMadeAgainInTheirOrderBeforeThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		handler := func(*packet.Publish) {}
		for _, filter := range []string{"c", "a", "b"} {
			done := make(chan error, 1)
			go func() {
				_, err := c.Subscribe(t.Context(), handler, packet.Subscription{Filter: filter, QoS: 1})
				done <- err
			}()
			s := expect[*packet.Subscribe](p)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
			require.NoError(t, <-done)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := c.Subscribe(t.Context(), handler, packet.Subscription{Filter: "0", QoS: 1})
			waiting <- err
		}()
		expect[*packet.Subscribe](p)
		p.close()
		for range 2 { // the second time some of it is unanswered once more
			p, _ = l.accepted(&packet.Connack{})
			for i, filter := range []string{"c", "a", "b", "0"} {
				s := expect[*packet.Subscribe](p)
				require.Equal(t, filter, s.Subscriptions[0].Filter)
				if i == 0 {
					p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
				}
			}
			p.close()
		}
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		for _, filter := range []string{"a", "b", "0"} {
			s := expect[*packet.Subscribe](p)
			require.Equal(t, filter, s.Subscriptions[0].Filter)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
		}
		require.NoError(t, <-waiting)
		disconnect(t, c, p)
	})
}
