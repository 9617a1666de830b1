package client

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// publishing is a call of Publish that is under way.
type publishing struct {
	result Result
	err    error
}

func publish(ctx context.Context, c *Client, p *packet.Publish) chan publishing {
	done := make(chan publishing, 1)
	go func() {
		r, err := c.Publish(ctx, p)
		done <- publishing{r, err}
	}()
	return done
}

func pending(t *testing.T, done chan publishing) {
	t.Helper()
	synctest.Wait()
	select {
	case d := <-done:
		require.Failf(t, "Publish returned", "%+v", d)
	default:
	}
}

func TestPublishReturnsWhenTheServerHasAcknowledged(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.3.1-1 MQTT-4.3.2-2 MQTT-4.3.2-3 MQTT-4.3.3-2 MQTT-4.3.3-3 MQTT-4.3.3-4 MQTT-4.3.3-5")
	t.Attr("mqtt3.1.1", "MQTT-4.3.1-1 MQTT-4.3.2-1 MQTT-4.3.3-1")
	for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, v)
				c, p := dialed(t, l, l.config(), &packet.Connack{})

				_, err := c.Publish(t.Context(), msg("a", 0))
				require.NoError(t, err)
				require.Equal(t, msg("a", 0), expect[*packet.Publish](p))

				done := publish(t.Context(), c, msg("a/b", 1))
				got := expect[*packet.Publish](p)
				require.NotZero(t, got.PacketID)
				require.False(t, got.Dup)
				require.Equal(t, "payload of a/b", string(got.Payload))
				pending(t, done)
				p.send(&packet.Puback{Ack: ack(got.PacketID)})
				require.Equal(t, publishing{}, <-done)

				done = publish(t.Context(), c, msg("a/b/c", 2))
				got = expect[*packet.Publish](p)
				p.send(&packet.Pubrec{Ack: ack(got.PacketID)})
				require.Equal(t, got.PacketID, expect[*packet.Pubrel](p).PacketID)
				pending(t, done)
				p.send(&packet.Pubcomp{Ack: ack(got.PacketID)})
				require.Equal(t, publishing{}, <-done)

				require.Equal(t, Stats{MessagesSent: 3, Connections: 1, BytesSent: c.Stats().BytesSent, BytesReceived: c.Stats().BytesReceived}, c.Stats())
				disconnect(t, c, p)
			})
		})
	}
}

func TestPublishReturnsTheServersReasonCode(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.4.0-2")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})

		done := publish(t.Context(), c, msg("a", 1))
		id := expect[*packet.Publish](p).PacketID
		p.send(&packet.Puback{Ack: packet.Ack{PacketID: id, Code: packet.NoMatchingSubscribers}})
		require.Equal(t, publishing{result: Result{Code: packet.NoMatchingSubscribers}}, <-done)

		done = publish(t.Context(), c, msg("a", 1))
		id = expect[*packet.Publish](p).PacketID
		p.send(&packet.Puback{Ack: packet.Ack{PacketID: id, Code: packet.NotAuthorized, Properties: &packet.Properties{ReasonString: "no"}}})
		var e *PublishError
		require.ErrorAs(t, (<-done).err, &e)
		require.Equal(t, PublishError{State: Refused, Code: packet.NotAuthorized, Reason: "no"}, *e)

		done = publish(t.Context(), c, msg("a", 2))
		id = expect[*packet.Publish](p).PacketID
		p.send(&packet.Pubrec{Ack: packet.Ack{PacketID: id, Code: packet.QuotaExceeded}})
		require.ErrorAs(t, (<-done).err, &e)
		require.Equal(t, PublishError{State: Refused, Code: packet.QuotaExceeded}, *e)

		// [MQTT-4.3.3-4]: no PUBREL follows; the next packet is another message.
		_, err := c.Publish(t.Context(), msg("next", 0))
		require.NoError(t, err)
		require.Equal(t, "next", expect[*packet.Publish](p).Topic)
		disconnect(t, c, p)
	})
}

func TestWhatTheServerCannotTakeIsNotSent(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-11 MQTT-3.2.2-14 MQTT-3.2.2-15 MQTT-3.3.2-2")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{Properties: &packet.Properties{
			MaximumQoS: packet.Some[byte](1), RetainAvailable: packet.Some[byte](0), MaximumPacketSize: packet.Some[uint32](100),
		}})
		large := msg("a", 0)
		large.Payload = make([]byte, 200)
		larger := *large
		larger.QoS = 1
		retained := msg("a", 1)
		retained.Retain = true
		for _, tc := range []struct {
			p    *packet.Publish
			code packet.ReasonCode
		}{
			{msg("a", 2), packet.QoSNotSupported},
			{retained, packet.RetainNotSupported},
			{large, packet.PacketTooLarge},
			{&larger, packet.PacketTooLarge},
		} {
			_, err := c.Publish(t.Context(), tc.p)
			var e *PublishError
			require.ErrorAs(t, err, &e)
			require.Equal(t, PublishError{State: NotSent, Code: tc.code}, *e)
		}
		for _, bad := range []*packet.Publish{{Topic: "a/#"}, {Topic: ""}, {Topic: "a", QoS: 3}, {Topic: "\xff", QoS: 1}} {
			_, err := c.Publish(t.Context(), bad)
			var e *packet.Error
			require.ErrorAs(t, err, &e)
		}
		require.Zero(t, c.Stats().MessagesSent)
		require.Zero(t, c.Stats().Inflight)
		disconnect(t, c, p)
	})
}

// [MQTT-3.3.4-7]
func TestTheReceiveMaximumBoundsWhatIsInFlight(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.4-7 MQTT-4.9.0-1 MQTT-4.9.0-2")
	for _, tc := range []struct {
		name   string
		server packet.Opt[uint16]
		own    int
		want   int
	}{
		{"the server's", packet.Some[uint16](3), 10, 3},
		{"our own", packet.Some[uint16](10), 2, 2},
		{"our own, the server names none", packet.Opt[uint16]{}, 4, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				cfg.InflightMax = tc.own
				c, p := dialed(t, l, cfg, &packet.Connack{Properties: &packet.Properties{ReceiveMaximum: tc.server}})
				const n = 20
				acked := 0
				for i := range n {
					require.NoError(t, c.PublishAsync(t.Context(), msg(fmt.Sprint(i), packet.QoS(1+i%2)), func(err error) {
						require.NoError(t, err)
						acked++
					}))
				}
				unacked, seen := []*packet.Publish{}, 0
				for acked < n {
					for seen < n && len(unacked) < tc.want {
						got := expect[*packet.Publish](p)
						require.Equal(t, fmt.Sprint(seen), got.Topic, "in order")
						unacked = append(unacked, got)
						seen++
					}
					first := unacked[0]
					unacked = unacked[1:]
					if first.QoS == 1 {
						p.send(&packet.Puback{Ack: ack(first.PacketID)})
					} else {
						p.send(&packet.Pubrec{Ack: ack(first.PacketID)})
						// Were the window larger, this would be a PUBLISH.
						expect[*packet.Pubrel](p)
						p.send(&packet.Pubcomp{Ack: ack(first.PacketID)})
					}
					synctest.Wait()
				}
				require.Equal(t, n, seen)
				disconnect(t, c, p)
			})
		})
	}
}

// A connection is lost in each state of an exchange. What is sent on the next one
// depends on whether the server has kept the session (MQTT 5, Section 4.4).
func TestALostConnectionInEachState(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.1-1 MQTT-3.1.2-23 MQTT-4.3.2-3 MQTT-4.3.3-3 MQTT-4.3.3-5 MQTT-4.3.3-6 MQTT-4.3.3-7 MQTT-4.4.0-1")
	for _, tc := range []struct {
		name     string
		qos      packet.QoS
		pubrec   bool // the server has sent it
		present  bool
		dup, rel bool // what comes first on the new connection
		err      bool
	}{
		{name: "QoS 1 published, session kept", qos: 1, present: true, dup: true},
		{name: "QoS 1 published, session lost", qos: 1},
		{name: "QoS 2 published, session kept", qos: 2, present: true, dup: true},
		{name: "QoS 2 published, session lost", qos: 2},
		{name: "QoS 2 released, session kept", qos: 2, pubrec: true, present: true, rel: true},
		{name: "QoS 2 released, session lost", qos: 2, pubrec: true, err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				c, p := dialed(t, l, l.config(), &packet.Connack{})
				done := publish(t.Context(), c, msg("a", tc.qos))
				first := expect[*packet.Publish](p)
				if tc.pubrec {
					p.send(&packet.Pubrec{Ack: ack(first.PacketID)})
					expect[*packet.Pubrel](p)
				}
				p.close()
				pending(t, done)
				p, _ = l.accepted(&packet.Connack{SessionPresent: tc.present})
				if tc.err {
					var e *PublishError
					require.ErrorAs(t, (<-done).err, &e)
					require.Equal(t, MaybeSent, e.State)
					disconnect(t, c, p)
					return
				}
				id := first.PacketID
				if tc.rel {
					require.Equal(t, id, expect[*packet.Pubrel](p).PacketID)
				} else {
					again := expect[*packet.Publish](p)
					require.Equal(t, tc.dup, again.Dup)
					if tc.present {
						require.Equal(t, id, again.PacketID)
					}
					id = again.PacketID
					again.Dup, again.PacketID = first.Dup, first.PacketID
					require.Equal(t, first, again)
					if tc.qos == 2 {
						p.send(&packet.Pubrec{Ack: ack(id)})
						expect[*packet.Pubrel](p)
					}
				}
				pending(t, done)
				if tc.qos == 1 {
					p.send(&packet.Puback{Ack: ack(id)})
				} else {
					p.send(&packet.Pubcomp{Ack: ack(id)})
				}
				require.Equal(t, publishing{}, <-done)
				require.Zero(t, c.Stats().QueueBytes)
				disconnect(t, c, p)
			})
		})
	}
}

// [MQTT-4.6.0-1]
func TestMessagesAreSentAgainInOrder(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.6.0-1")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		var sent []*packet.Publish
		for i := range 6 {
			require.NoError(t, c.PublishAsync(t.Context(), msg(fmt.Sprint(i), packet.QoS(1+i%2)), nil))
			sent = append(sent, expect[*packet.Publish](p))
		}
		p.send(&packet.Puback{Ack: ack(sent[2].PacketID)})
		p.send(&packet.Pubrec{Ack: ack(sent[3].PacketID)})
		expect[*packet.Pubrel](p)
		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true, Properties: &packet.Properties{ReceiveMaximum: packet.Some[uint16](4)}})
		require.Equal(t, sent[3].PacketID, expect[*packet.Pubrel](p).PacketID)
		for _, i := range []int{0, 1} {
			require.Equal(t, sent[i].Topic, expect[*packet.Publish](p).Topic)
		}
		require.Equal(t, "4", expect[*packet.Publish](p).Topic)
		p.send(&packet.Puback{Ack: ack(sent[0].PacketID)}) // makes room for the last
		last := expect[*packet.Publish](p)
		require.Equal(t, "5", last.Topic)
		require.True(t, last.Dup)
		c.Close()
		p.close()
	})
}

func TestAContextThatEndsSaysWhatBecameOfTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.InflightMax = 1
		c, p := dialed(t, l, cfg, &packet.Connack{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sent := publish(ctx, c, msg("sent", 1))
		got := expect[*packet.Publish](p)
		waiting := publish(ctx, c, msg("waiting", 1))
		for want, done := range map[PublishState]chan publishing{MaybeSent: sent, NotSent: waiting} {
			d := <-done
			require.ErrorIs(t, d.err, context.DeadlineExceeded)
			var e *PublishError
			require.ErrorAs(t, d.err, &e)
			require.Equal(t, want, e.State)
		}
		// The one in flight keeps its identifier until it is acknowledged,
		// the other is gone.
		require.Equal(t, 1, c.Stats().Inflight)
		third := publish(t.Context(), c, msg("third", 1))
		pending(t, third)
		p.send(&packet.Puback{Ack: ack(got.PacketID)})
		got = expect[*packet.Publish](p)
		require.Equal(t, "third", got.Topic)
		p.send(&packet.Puback{Ack: ack(got.PacketID)})
		require.NoError(t, (<-third).err)
		disconnect(t, c, p)
	})
}

func TestAnAbandonedMessageIsNotPublishedAgainInANewSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		ctx, cancel := context.WithCancel(t.Context())
		done := publish(ctx, c, msg("a", 1))
		expect[*packet.Publish](p)
		cancel()
		<-done
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		disconnect(t, c, p) // finds DISCONNECT, not PUBLISH
	})
}

func TestAFullQueueMakesPublishersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.QueueBytes = 4096
		c, p := dialed(t, l, cfg, &packet.Connack{})
		big := msg("a", 1)
		big.Payload = make([]byte, 1500)
		var ids []uint16
		for range 2 {
			require.NoError(t, c.PublishAsync(t.Context(), big, nil))
			ids = append(ids, expect[*packet.Publish](p).PacketID)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.PublishAsync(ctx, big, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var e *PublishError
		require.ErrorAs(t, err, &e)
		require.Equal(t, NotSent, e.State)

		third := publish(t.Context(), c, big)
		pending(t, third)
		for _, id := range ids {
			p.send(&packet.Puback{Ack: ack(id)})
		}
		p.send(&packet.Puback{Ack: ack(expect[*packet.Publish](p).PacketID)})
		require.NoError(t, (<-third).err)
		disconnect(t, c, p)
	})
}

func TestAServerThatDoesNotReadMakesQoS0PublishersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.KeepAlive = -1
		c, p := dialed(t, l, cfg, &packet.Connack{})
		big := msg("a", 0)
		big.Payload = make([]byte, 10_000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		sent := 0
		for err == nil {
			err = c.PublishAsync(ctx, big, nil)
			sent++
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, sent*10_000, 4*outMax, "bounded")
		next := publish(t.Context(), c, big)
		pending(t, next)
		for range sent {
			require.Len(t, expect[*packet.Publish](p).Payload, 10_000)
		}
		require.NoError(t, (<-next).err)
		disconnect(t, c, p)
	})
}

func TestPublishingWaitsForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		p.close()
		synctest.Wait()
		require.False(t, c.Connected())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.Publish(ctx, msg("a", 0))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		zero := publish(t.Context(), c, msg("0", 0))
		one := publish(t.Context(), c, msg("1", 1))
		pending(t, zero)
		pending(t, one)
		p, _ = l.accepted(&packet.Connack{})
		topics := map[string]bool{}
		for range 2 {
			got := expect[*packet.Publish](p)
			topics[got.Topic] = true
			require.False(t, got.Dup)
			if got.QoS == 1 {
				p.send(&packet.Puback{Ack: ack(got.PacketID)})
			}
		}
		require.Len(t, topics, 2)
		require.NoError(t, (<-zero).err)
		require.NoError(t, (<-one).err)
		disconnect(t, c, p)
	})
}

func TestTopicAliasesReplaceTopicsOfOneConnection(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.3.2-7 MQTT-3.2.2-17")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.TopicAliases = 10
		server := &packet.Connack{Properties: &packet.Properties{TopicAliasMaximum: packet.Some[uint16](2)}}
		c, p := dialed(t, l, cfg, server)
		type sent struct {
			topic string
			alias uint16
		}
		send := func(topic string) sent {
			_, err := c.Publish(t.Context(), msg(topic, 0))
			require.NoError(t, err)
			got := expect[*packet.Publish](p)
			s := sent{topic: got.Topic}
			if got.Properties != nil {
				s.alias = got.Properties.TopicAlias.Value
			}
			return s
		}
		require.Equal(t, sent{"a", 1}, send("a"))
		require.Equal(t, sent{"", 1}, send("a"))
		require.Equal(t, sent{"b", 2}, send("b"))
		require.Equal(t, sent{"c", 0}, send("c"), "there is no third one")
		require.Equal(t, sent{"", 2}, send("b"))
		p.close()
		p, _ = l.accepted(server)
		require.Equal(t, sent{"b", 1}, send("b"))
		disconnect(t, c, p)
	})
}

// A message that the writer finds too large is reported at once, though nothing
// is written or read then.
func TestAMessageThatAnotherServerRefusesEndsWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		p.close()
		synctest.Wait()
		large := func(n int) *packet.Publish {
			return &packet.Publish{Topic: "a", Payload: make([]byte, n), QoS: 1}
		}
		for range 2 { // more than goes out at once
			publish(t.Context(), c, large(40<<10))
			synctest.Wait()
		}
		tooLarge := publish(t.Context(), c, large(60<<10))
		synctest.Wait()
		p, _ = l.accepted(&packet.Connack{Properties: &packet.Properties{MaximumPacketSize: packet.Some[uint32](50 << 10)}})
		start := time.Now()
		for range 2 {
			expect[*packet.Publish](p)
		}
		var pe *PublishError
		require.ErrorAs(t, (<-tooLarge).err, &pe)
		require.Equal(t, PublishError{State: NotSent, Code: packet.PacketTooLarge}, *pe)
		after(t, 0, start)
		c.Close()
		p.close()
	})
}
