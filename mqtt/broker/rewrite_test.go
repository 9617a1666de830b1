package broker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/rewrite"
)

func rewriting(t *testing.T, rules ...rewrite.Rule) *broker.Broker {
	t.Helper()
	compiled, err := rewrite.NewRules(rules)
	require.NoError(t, err)
	return newBroker(t, &broker.Config{
		Rewrite: broker.Rewrite{Publish: compiled, Subscribe: compiled},
		Delayed: broker.Delayed{Enabled: true},
	})
}

func TestRulesMapWhatIsPublishedAndSubscribedTo(t *testing.T) {
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		version := func(p *packet.Connect) { p.Version = v }
		b := rewriting(t, rewrite.Rule{Filter: "old/+/#", To: "new/$1/$2"})
		mapped, plain := connect(t, b, "mapped", version), connect(t, b, "plain", version)
		mapped.subscribe(packet.Subscription{Filter: "old/+/x", QoS: 1})
		plain.subscribe(packet.Subscription{Filter: "new/#", QoS: 1})
		pub := connect(t, b, "pub", version, will("old/1/x", "will", 0))
		pub.publish("old/1/x", "mapped", 1)
		pub.publish("new/1/x", "plain", 1)
		pub.close()
		for _, payload := range []string{"mapped", "plain", "will"} {
			mapped.message("new/1/x", payload)
			plain.message("new/1/x", payload)
		}

		// UNSUBSCRIBE is mapped alike.
		mapped.send(&packet.Unsubscribe{PacketID: 2, Filters: []string{"old/+/x"}})
		ack := receive[*packet.Unsuback](mapped)
		if v == packet.V5 {
			require.Equal(t, []packet.ReasonCode{packet.Success}, ack.Codes)
		}
		require.Equal(t, 1, b.Stats().Subscriptions)
	}
}

func TestAFilterThatBecomesNoneIsRefusedAndTheOthersOfItsPacketAreNot(t *testing.T) {
	b := rewriting(t, rewrite.Rule{Filter: "bad/+", To: "x$1"})
	c := connect(t, b, "c")
	require.Equal(t, []packet.ReasonCode{1, packet.TopicFilterInvalid, 0, packet.TopicFilterInvalid, 2}, c.subscribe(
		packet.Subscription{Filter: "a", QoS: 1}, packet.Subscription{Filter: "bad/+", QoS: 1, NoLocal: true},
		packet.Subscription{Filter: "bad/y"}, packet.Subscription{Filter: "$share/g/bad/+"}, packet.Subscription{Filter: "c", QoS: 2},
	).Codes)
	require.Equal(t, 3, b.Stats().Subscriptions)
	c.publish("bad/y", "p", 0)
	c.message("xy", "p")

	c.send(&packet.Unsubscribe{PacketID: 2, Filters: []string{"bad/+", "a", "bad/y", "bad/z"}})
	require.Equal(t, []packet.ReasonCode{packet.NoSubscriptionExisted, 0, 0, packet.NoSubscriptionExisted}, receive[*packet.Unsuback](c).Codes)
}

func TestATopicThatBecomesNoneIsRefused(t *testing.T) {
	b := rewriting(t, rewrite.Rule{Filter: "a/#", To: "$1"})
	c := connect(t, b, "c")
	require.Equal(t, packet.TopicNameInvalid, c.puback(&packet.Publish{Topic: "a"}))
	require.Equal(t, packet.NoMatchingSubscribers, c.puback(&packet.Publish{Topic: "a/b"}))
	c.send(&packet.Publish{Topic: "a/", QoS: 2, PacketID: 3})
	require.Equal(t, packet.TopicNameInvalid, receive[*packet.Pubrec](c).Code)
	require.EqualValues(t, 2, b.Stats().Dropped[broker.DropRewrite])
}

func TestRetainedAndDelayedMessagesHaveTheTopicThatTheRulesMake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rewriting(t, rewrite.Rule{Filter: "a/#", To: "b/$1"})
		c := connect(t, b, "c")
		require.Equal(t, packet.Success, c.puback(&packet.Publish{Topic: "$delayed/10/a/x", Payload: []byte("p"), Retain: true}))
		time.Sleep(11 * time.Second)
		c.subscribe(packet.Subscription{Filter: "a/x"})
		c.message("b/x", "p")
	})
}
