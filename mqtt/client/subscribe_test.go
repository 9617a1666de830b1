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

type answer struct {
	codes []packet.ReasonCode
	err   error
}

func subscribe(ctx context.Context, c *Client, h func(*packet.Publish), subs ...packet.Subscription) chan answer {
	done := make(chan answer, 1)
	go func() {
		codes, err := c.Subscribe(ctx, h, subs...)
		done <- answer{codes, err}
	}()
	return done
}

// granted subscribes with p as the server.
func granted(c *Client, p *peer, h func(*packet.Publish), filters ...string) *packet.Subscribe {
	subs := make([]packet.Subscription, len(filters))
	for i, f := range filters {
		subs[i].Filter = f
	}
	done := subscribe(p.t.Context(), c, h, subs...)
	s := expect[*packet.Subscribe](p)
	p.send(&packet.Suback{PacketID: s.PacketID, Codes: make([]packet.ReasonCode, len(subs))})
	require.NoError(p.t, (<-done).err)
	return s
}

func TestSubscribeReturnsTheServersCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		subs := []packet.Subscription{
			{Filter: "a/#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2},
			{Filter: "secret", QoS: 1},
		}
		done := subscribe(t.Context(), c, nil, subs...)
		s := expect[*packet.Subscribe](p)
		require.Equal(t, subs, s.Subscriptions)
		codes := []packet.ReasonCode{packet.GrantedQoS1, packet.NotAuthorized}
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: codes, Properties: &packet.Properties{ReasonString: "no"}})
		got := <-done
		require.Equal(t, codes, got.codes)
		var e *SubscribeError
		require.ErrorAs(t, got.err, &e)
		require.Equal(t, SubscribeError{"secret", packet.NotAuthorized, "no"}, *e)

		unsub := make(chan answer, 1)
		go func() {
			codes, err := c.Unsubscribe(t.Context(), "a/#", "b")
			unsub <- answer{codes, err}
		}()
		u := expect[*packet.Unsubscribe](p)
		require.Equal(t, []string{"a/#", "b"}, u.Filters)
		codes = []packet.ReasonCode{packet.Success, packet.NoSubscriptionExisted}
		p.send(&packet.Unsuback{PacketID: u.PacketID, Codes: codes})
		require.Equal(t, answer{codes, nil}, <-unsub)

		// The first is gone, the second was never there: nothing to make again.
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		disconnect(t, c, p)
	})
}

func TestUNSUBACKHasNoCodesBeforeMQTT5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		done := make(chan error, 1)
		go func() {
			_, err := c.Unsubscribe(t.Context(), "a")
			done <- err
		}()
		p.send(&packet.Unsuback{PacketID: expect[*packet.Unsubscribe](p).PacketID})
		require.NoError(t, <-done)
		disconnect(t, c, p)
	})
}

func TestASubscriptionThatIsNotValidIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		no := packet.Some[byte](0)
		c, p := dialed(t, l, l.config(), &packet.Connack{Properties: &packet.Properties{
			SharedSubAvailable: no, WildcardSubAvailable: no, SubIDsAvailable: no, MaximumPacketSize: packet.Some[uint32](60),
		}})
		for filter, code := range map[string]packet.ReasonCode{
			"$share/g/a": packet.SharedSubscriptionsNotSupported,
			"a/+":        packet.WildcardSubscriptionsNotSupported,
			"a/#":        packet.WildcardSubscriptionsNotSupported,
			"long/long/long/long/long/long/long/long/long/long/long/long/": packet.PacketTooLarge,
		} {
			_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: filter})
			var e *SubscribeError
			require.ErrorAs(t, err, &e)
			require.Equal(t, SubscribeError{Filter: filter, Code: code}, *e)
		}
		var e *packet.Error
		_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "a/#/b"})
		require.ErrorAs(t, err, &e)
		_, err = c.Subscribe(t.Context(), nil)
		require.ErrorAs(t, err, &e)
		_, err = c.Unsubscribe(t.Context())
		require.ErrorAs(t, err, &e)

		got := make(chan string, 1)
		s := granted(c, p, func(p *packet.Publish) { got <- p.Topic }, "a")
		require.Nil(t, s.Properties, "no subscription identifier")
		p.send(msg("a", 0))
		require.Equal(t, "a", <-got)
		disconnect(t, c, p)
	})
}

func TestMessagesGoToTheHandlersOfTheirSubscriptions(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, v)
				cfg := l.config()
				var got []string
				record := func(name string) func(*packet.Publish) {
					return func(p *packet.Publish) { got = append(got, name+" "+p.Topic) }
				}
				cfg.OnMessage = record("default")
				c, p := dialed(t, l, cfg, &packet.Connack{})
				var ids []uint32
				for _, s := range []*packet.Subscribe{
					granted(c, p, record("x"), "x/#", "x/y"),
					granted(c, p, record("y"), "+/y"),
				} {
					if v == packet.V5 {
						require.Len(t, s.Properties.SubscriptionIDs, 1)
						ids = append(ids, s.Properties.SubscriptionIDs[0])
					}
				}
				s := granted(c, p, nil, "z")
				require.True(t, s.Properties == nil || s.Properties.SubscriptionIDs == nil)
				granted(c, p, record("share"), "$share/g/s/+")

				send := func(topic string, ids ...uint32) {
					m := msg(topic, 0)
					if len(ids) > 0 {
						m.Properties = &packet.Properties{SubscriptionIDs: ids}
					}
					p.send(m)
				}
				if v == packet.V5 {
					// As the server names them, whatever else would match.
					send("x/y", ids...)
					send("x/y", ids[1])
					// An earlier client's in the same session: it does not
					// match, or there is none.
					send("z/y", ids[0])
					send("z", 999)
					send("x/z", 999)
				}
				send("x/y")
				send("x/z")
				send("z")
				send("other")
				send("s/1")
				synctest.Wait()
				want := []string{"x x/y", "y x/y", "x x/z", "default z", "default other", "share s/1"}
				if v == packet.V5 {
					want = append([]string{"x x/y", "y x/y", "y x/y", "y z/y", "default z", "x x/z"}, want...)
				}
				require.Equal(t, want, got)
				disconnect(t, c, p)
			})
		})
	}
}

func TestSubscriptionsThatTheServerLostAreMadeAgain(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-5")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		got := make(chan string, 10)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		first := granted(c, p, func(p *packet.Publish) { got <- "first" }, "a", "b")
		second := granted(c, p, func(p *packet.Publish) { got <- "second" }, "c")

		p.close()
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		id := second.Properties.SubscriptionIDs
		p.send(&packet.Publish{Topic: "c", Properties: &packet.Properties{SubscriptionIDs: id}})
		require.Equal(t, "second", <-got)

		p.close()
		p, _ = l.accepted(&packet.Connack{})
		for _, want := range []*packet.Subscribe{first, second} {
			s := expect[*packet.Subscribe](p) // after nothing else: the resumed session needed none
			require.Equal(t, want.Subscriptions, s.Subscriptions)
			require.Equal(t, want.Properties, s.Properties)
			codes := make([]packet.ReasonCode, len(s.Subscriptions))
			codes[0] = packet.ReasonCode(0x87 * (len(codes) - 1)) // "a" is refused now
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: codes})
		}
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, first.Subscriptions[1:], expect[*packet.Subscribe](p).Subscriptions)
		require.Equal(t, second.Subscriptions, expect[*packet.Subscribe](p).Subscriptions)
		c.Close()
		p.close()
	})
}

func TestASUBSCRIBEWithoutAnswerIsSentAgain(t *testing.T) {
	for _, present := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newListener(t, packet.V5)
			c, p := dialed(t, l, l.config(), &packet.Connack{})
			done := subscribe(t.Context(), c, nil, packet.Subscription{Filter: "a"})
			expect[*packet.Subscribe](p)
			p.close()
			p, _ = l.accepted(&packet.Connack{SessionPresent: present})
			s := expect[*packet.Subscribe](p)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
			require.Equal(t, answer{[]packet.ReasonCode{1}, nil}, <-done)
			disconnect(t, c, p) // once
		})
	}
}

func TestAnAnswerThatDoesNotFitIsAViolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		done := subscribe(ctx, c, nil, packet.Subscription{Filter: "a"})
		p.send(&packet.Suback{PacketID: expect[*packet.Subscribe](p).PacketID, Codes: []packet.ReasonCode{0, 0}})
		require.Equal(t, packet.ProtocolError, expect[*packet.Disconnect](p).Code)
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		p.send(&packet.Unsuback{PacketID: expect[*packet.Subscribe](p).PacketID, Codes: []packet.ReasonCode{0}})
		require.Equal(t, packet.ProtocolError, expect[*packet.Disconnect](p).Code)
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		expect[*packet.Subscribe](p)
		require.ErrorIs(t, (<-done).err, context.DeadlineExceeded)
		disconnect(t, c, p)
	})
}

func TestRequestReturnsTheResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		type response struct {
			p   *packet.Publish
			err error
		}
		request := func(ctx context.Context) chan response {
			done := make(chan response, 1)
			go func() {
				r, err := c.Request(ctx, "service", []byte("question"))
				done <- response{r, err}
			}()
			return done
		}
		first := request(t.Context())
		s := expect[*packet.Subscribe](p)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
		a := expect[*packet.Publish](p)
		require.Equal(t, s.Subscriptions[0].Filter, a.Properties.ResponseTopic)
		p.send(&packet.Puback{Ack: ack(a.PacketID)})
		second := request(t.Context())
		b := expect[*packet.Publish](p) // no second SUBSCRIBE
		require.NotEqual(t, a.Properties.CorrelationData, b.Properties.CorrelationData)
		reply := func(q *packet.Publish, payload string) {
			p.send(&packet.Publish{Topic: q.Properties.ResponseTopic, Payload: []byte(payload), Properties: &packet.Properties{
				CorrelationData: q.Properties.CorrelationData,
			}})
		}
		reply(b, "to b") // before its PUBACK
		p.send(&packet.Puback{Ack: ack(b.PacketID)})
		require.Equal(t, "to b", string((<-second).p.Payload))
		reply(b, "again, to nobody")
		reply(a, "to a")
		require.Equal(t, "to a", string((<-first).p.Payload))

		third := request(t.Context())
		q := expect[*packet.Publish](p)
		p.send(&packet.Puback{Ack: packet.Ack{PacketID: q.PacketID, Code: packet.NoMatchingSubscribers}})
		require.ErrorIs(t, (<-third).err, ErrNoSubscribers)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fourth := request(ctx)
		p.send(&packet.Puback{Ack: ack(expect[*packet.Publish](p).PacketID)})
		require.ErrorIs(t, (<-fourth).err, context.DeadlineExceeded)

		fifth := request(t.Context())
		p.send(&packet.Puback{Ack: ack(expect[*packet.Publish](p).PacketID)})
		synctest.Wait()
		c.Close()
		require.ErrorIs(t, (<-fifth).err, ErrClosed)
		p.close()
	})
}

func TestAHandlerMayRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		var c *Client
		got := make(chan string, 1)
		cfg.OnMessage = func(p *packet.Publish) {
			r, err := c.Request(t.Context(), "service", p.Payload)
			require.NoError(t, err)
			got <- string(r.Payload)
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.send(msg("in", 0))
		s := expect[*packet.Subscribe](p)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{1}})
		q := expect[*packet.Publish](p)
		p.send(&packet.Puback{Ack: ack(q.PacketID)})
		p.send(&packet.Publish{Topic: q.Properties.ResponseTopic, Payload: []byte("answer"), QoS: 1, PacketID: 4,
			Properties: &packet.Properties{CorrelationData: q.Properties.CorrelationData}})
		require.Equal(t, "answer", <-got)
		require.Equal(t, ack(4), expect[*packet.Puback](p).Ack)
		disconnect(t, c, p)
	})
}

// The connection may be lost again before the server has got what it lost.
func TestResubscriptionsWithoutAnswerAreSentAgain(t *testing.T) {
	for _, present := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newListener(t, packet.V5)
			c, p := dialed(t, l, l.config(), &packet.Connack{})
			first := granted(c, p, func(*packet.Publish) {}, "a", "b")
			p.close()
			p, _ = l.accepted(&packet.Connack{})
			expect[*packet.Subscribe](p)
			p.close()
			p, _ = l.accepted(&packet.Connack{SessionPresent: present})
			s := expect[*packet.Subscribe](p)
			require.Equal(t, first.Subscriptions, s.Subscriptions)
			require.Equal(t, first.Properties, s.Properties)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{0, 0}})
			disconnect(t, c, p) // once
		})
	}
}

func TestResubscriptionsKeepToWhatTheServerTakes(t *testing.T) {
	t.Attr("mqtt5", "MQTT-3.2.2-15")
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		const n = 20
		for i := range n {
			granted(c, p, nil, fmt.Sprintf("a/filter/of/some/length/%d", i))
		}
		granted(c, p, nil, "wild/#")
		p.close()
		const most = 100
		p, _ = l.accepted(&packet.Connack{Properties: &packet.Properties{
			MaximumPacketSize: packet.Some[uint32](most), WildcardSubAvailable: packet.Some[byte](0),
		}})
		for got := 0; got < n; {
			s := expect[*packet.Subscribe](p)
			wire, err := s.Append(nil, packet.V5)
			require.NoError(t, err)
			require.LessOrEqual(t, len(wire), most) // [MQTT-3.2.2-15]
			require.NotEqual(t, "wild/#", s.Subscriptions[0].Filter)
			got += len(s.Subscriptions)
			p.send(&packet.Suback{PacketID: s.PacketID, Codes: make([]packet.ReasonCode, len(s.Subscriptions))})
		}
		disconnect(t, c, p)
	})
}

// A subscription stays in force until another takes its place.
func TestAFailedSubscribeLeavesTheSubscriptionItWouldHaveReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		got := make(chan string, 10)
		cfg.OnMessage = func(*packet.Publish) { got <- "default" }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		record := func(name string) func(*packet.Publish) { return func(*packet.Publish) { got <- name } }
		first := granted(c, p, record("first"), "a")
		deliver := func(want string) {
			m := msg("a", 0)
			m.Properties = &packet.Properties{SubscriptionIDs: first.Properties.SubscriptionIDs}
			p.send(m)
			require.Equal(t, want, <-got)
		}

		// The server refuses it.
		done := subscribe(t.Context(), c, record("second"), packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "b"})
		s := expect[*packet.Subscribe](p)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{packet.NotAuthorized, 0}})
		require.Error(t, (<-done).err)
		deliver("first")

		// It is given up before it was sent.
		p.close()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		done = subscribe(ctx, c, record("third"), packet.Subscription{Filter: "a"}, packet.Subscription{Filter: "c"})
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-done).err, context.Canceled)
		p, _ = l.accepted(&packet.Connack{SessionPresent: true})
		deliver("first")

		// So the server that loses the session gets what it had.
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.Equal(t, first.Subscriptions, expect[*packet.Subscribe](p).Subscriptions)
		require.Equal(t, s.Subscriptions[1:], expect[*packet.Subscribe](p).Subscriptions)
		c.Close()
		p.close()
	})
}
