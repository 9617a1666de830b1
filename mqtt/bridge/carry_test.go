package bridge_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestMessagesCrossInBothDirectionsAsTheRulesSay(t *testing.T) {
	t.Attr("mqtt3.1.1", "both: MQTT-7.0.0-1") // broker and client, each of which has its own proofs
	rule := bridge.Rule{Filter: "in/#", To: "x/$1"}
	capped := bridge.Rule{Filter: "capped/+", MaxQoS: packet.Some(packet.AtLeastOnce)}
	zero := bridge.Rule{Filter: "zero", MaxQoS: packet.Some(packet.AtMostOnce)}
	rules := []bridge.Rule{rule, capped, zero}
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		for _, forward := range []bool{true, false} {
			t.Run(fmt.Sprintf("MQTT %v, forward %v", v, forward), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := newSite(t, "a").listen(), newSite(t, "b").listen()
					cfg := bridge.Config{Remote: client.Config{Version: v, ClientID: "id"}}
					from, to := a, b
					if forward {
						cfg.Forward = rules
					} else {
						cfg.Subscribe = rules
						from, to = b, a
					}
					br := a.bridge(b, cfg)
					box := to.subscribe("#")
					connected(t, br)
					pub := from.client("publisher")
					for _, m := range []struct {
						topic, want  string
						qos, wantQoS packet.QoS
						retain       bool
					}{
						{"in/a", "x/a", 0, 0, false},
						{"in/a", "x/a", 1, 1, false},
						{"in", "x", 2, 2, true},
						{"in/a/b", "x/a/b", 1, 1, true},
						{"capped/q", "capped/q", 2, 1, false},
						{"zero", "zero", 2, 0, true},
						{"other", "", 1, 0, false},
					} {
						sent := &packet.Publish{Topic: m.topic, Payload: []byte("p"), QoS: m.qos, Retain: m.retain, Properties: &packet.Properties{
							ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte{1},
							MessageExpiry: packet.Some(uint32(60)), PayloadFormat: packet.Some(uint8(1)),
							User: []packet.UserProperty{{Key: "k", Value: "v"}},
						}}
						_, err := pub.Publish(t.Context(), sent)
						require.NoError(t, err)
						synctest.Wait()
						got := box.take()
						if m.want == "" {
							require.Empty(t, got)
							continue
						}
						require.Len(t, got, 1, m.topic)
						p := got[0]
						require.Equal(t, m.want, p.Topic)
						require.Equal(t, m.wantQoS, p.QoS)
						require.Equal(t, m.retain, p.Retain)
						require.Equal(t, "p", string(p.Payload))
						if v == packet.V5 {
							want := []string{"a"}
							if !forward {
								want = []string{"b", "a"}
							}
							require.Equal(t, want, via(p))
							p.Properties.User = p.Properties.User[:1]
							p.Properties.SubscriptionIDs = nil
							require.Equal(t, sent.Properties, p.Properties)
						}
					}
					s := br.Status()
					require.EqualValues(t, 6, s.Forwarded+s.Received)
					require.Zero(t, s.Queued)
					require.Zero(t, s.QueueBytes)
				})
			})
		}
	}
}

func TestRetainedMessagesAreCarriedWhenTheBridgeStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b").listen()
		retain := func(s *site, topic string) {
			_, err := s.client("p-"+topic).Publish(t.Context(), &packet.Publish{Topic: topic, Payload: []byte(topic), QoS: 1, Retain: true})
			require.NoError(t, err)
		}
		retain(a, "of/a")
		retain(b, "of/b")
		connected(t, a.bridge(b, bridge.Config{Forward: everything, Subscribe: everything}))
		require.ElementsMatch(t, []string{"of/a", "of/b"}, a.subscribe("#").payloads())
		require.ElementsMatch(t, []string{"of/a", "of/b"}, b.subscribe("#").payloads())
	})
}

func TestWhatTheRemoteBrokerRefusesIsDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b").listen()
		br := a.bridge(b, bridge.Config{Forward: everything})
		connected(t, br)
		pub := a.client("publisher")
		a.publish(pub, "$not/for/wildcards", "", 1)
		a.publish(pub, "x", string(make([]byte, 1<<20-20)), 1) // with what the bridge adds, more than b takes
		synctest.Wait()
		s := br.Status()
		require.EqualValues(t, 1, s.Dropped[bridge.Refused])
		require.Zero(t, s.Forwarded)
		require.Zero(t, s.Queued)
	})
}

func TestMessagesExpireInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t, "a"), newSite(t, "b")
		br := a.bridge(b, bridge.Config{Forward: everything})
		box := b.subscribe("#")
		pub := a.client("publisher")
		for _, seconds := range []uint32{5, 100} {
			_, err := pub.Publish(t.Context(), &packet.Publish{Topic: "x", QoS: 1, Properties: &packet.Properties{MessageExpiry: packet.Some(seconds)}})
			require.NoError(t, err)
		}
		time.Sleep(10 * time.Second)
		b.listen()
		connected(t, br)
		synctest.Wait()
		got := box.take()
		require.Len(t, got, 1)
		require.Less(t, got[0].Properties.MessageExpiry.Value, uint32(91))
		require.EqualValues(t, 1, br.Status().Dropped[bridge.Expired])
	})
}
