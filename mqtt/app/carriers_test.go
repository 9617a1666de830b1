package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/app"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqtttest"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

// patience is how long a case waits for what must happen.
const patience = time.Minute

// A bench is an App that serves, and a broker that it serves in or by.
type bench struct {
	*testing.T
	carrier mqtttest.Carrier
	target  mqtttest.Target
	broker  *broker.Broker
	inside  bool // the App is in the broker; otherwise it is a client of it
	app     *app.App
	ended   chan error // what Serve returned
	stop    context.CancelFunc
	peer    *client.Client // who publishes to the App
}

func (b *bench) dial(id string, change ...func(*client.Config)) *client.Client {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	cfg := &client.Config{ClientID: id, CleanStart: true, Username: "user of " + id}
	b.target.Client(cfg)
	for _, f := range change {
		f(cfg)
	}
	c, err := client.Dial(ctx, cfg)
	require.NoError(b, err)
	b.Cleanup(func() { c.Close() })
	return c
}

// serve makes the App serve, until the test ends, and returns when it has
// subscribed to everything.
func (b *bench) serve() {
	b.Helper()
	want := b.broker.Stats().Subscriptions + len(b.app.Stats())
	ctx, cancel := context.WithCancel(b.Context())
	b.stop = cancel
	b.ended = make(chan error, 1)
	if b.inside {
		go func() { b.ended <- b.app.ServeBroker(ctx, b.broker) }() // ends with Close
	} else {
		c := b.dial("app")
		go func() { b.ended <- b.app.ServeClient(ctx, c) }() // ends with Close
	}
	b.Cleanup(func() { require.NoError(b, b.app.Close()) })
	require.Eventually(b, func() bool { return b.broker.Stats().Subscriptions >= want }, patience, time.Millisecond)
}

func (b *bench) publish(topic, payload string, qos packet.QoS) error {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	_, err := b.peer.Publish(ctx, &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos})
	return err
}

// refusal requires err to say that a message was refused and returns how; over a client's
// connection nobody tells the publisher.
func (b *bench) refusal(err error) packet.ReasonCode {
	b.Helper()
	if !b.inside {
		require.NoError(b, err)
		return 0
	}
	var refused *client.PublishError
	require.ErrorAs(b, err, &refused)
	require.Equal(b, client.Refused, refused.State)
	return refused.Code
}

var cases = []struct {
	name string
	run  func(b *bench)
}{
	{"AHandlerKnowsWhatItWasAsked", func(b *bench) {
		got := make(chan *app.Message, 1)
		b.app.Handle("sensors/{room}/+/{rest...}", func(_ context.Context, m *app.Message) error {
			got <- m
			return nil
		})
		b.serve()
		for qos := range packet.ExactlyOnce + 1 {
			require.NoError(b, b.publish("sensors/kitchen/1/temp/now", "21.5", qos))
			m := <-got
			require.Equal(b, "sensors/kitchen/1/temp/now", m.Topic)
			require.Equal(b, "sensors/{room}/+/{rest...}", m.Pattern())
			require.Equal(b, qos, m.QoS)
			require.False(b, m.Retain)
			text, err := m.Text()
			require.NoError(b, err)
			require.Equal(b, "21.5", text)
			require.Equal(b, "kitchen", m.Named("room"))
			require.Equal(b, "temp/now", m.Named("rest"))
			require.Equal(b, []string{"kitchen", "1", "temp/now", ""}, []string{m.Param(0), m.Param(1), m.Param(2), m.Param(3)})
			require.Empty(b, m.Named("other"))

			c := m.Client()
			require.Equal(b, b.carrier.Kind, c.Carrier)
			if b.inside {
				require.Equal(b, "peer", c.ClientID)
				require.Equal(b, "user of peer", c.Username)
				require.Equal(b, packet.V5, c.Version)
				require.NotNil(b, c.Remote)
				require.Equal(b, b.carrier.Kind.Secure(), c.TLS != nil)
			} else {
				require.Empty(b, c.ClientID)
			}
		}
	}},
	{"ARequestGetsItsReply", func(b *bench) {
		type sum struct{ A, B, Sum int }
		b.app.Handle("add", func(_ context.Context, m *app.Message) error {
			var s sum
			if err := m.JSON(&s); err != nil {
				return err
			}
			s.Sum = s.A + s.B
			return m.ReplyJSON(s)
		})
		b.serve()
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		for i := range 10 {
			question, err := json.Marshal(sum{A: i, B: 2})
			require.NoError(b, err)
			// A client asks, and the App asks itself.
			for _, request := range []func(context.Context, string, []byte) (*packet.Publish, error){b.peer.Request, b.app.Request} {
				p, err := request(ctx, "add", question)
				require.NoError(b, err)
				require.JSONEq(b, fmt.Sprintf(`{"A":%d,"B":2,"Sum":%d}`, i, i+2), string(p.Payload))
				require.Equal(b, "application/json", p.Properties.ContentType)
			}
		}
		_, err := b.app.Request(ctx, "nobody", nil)
		require.ErrorIs(b, err, app.ErrNoSubscribers)
	}},
	{"AHandlerMayAskAnother", func(b *bench) {
		b.app.HandleWith("outer", app.Options{Concurrency: 1}, func(ctx context.Context, m *app.Message) error {
			p, err := m.Request(ctx, "inner", m.Payload)
			if err != nil {
				return err
			}
			return m.Reply(append(p.Payload, '!'))
		})
		b.app.HandleWith("inner", app.Options{Concurrency: 1}, func(_ context.Context, m *app.Message) error {
			return m.Reply(append([]byte("re: "), m.Payload...))
		})
		b.serve()
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		p, err := b.peer.Request(ctx, "outer", []byte("hello"))
		require.NoError(b, err)
		require.Equal(b, "re: hello!", string(p.Payload))
	}},
	{"AnErrorRefusesTheMessage", func(b *bench) {
		b.app.Handle("t/{what}", func(_ context.Context, m *app.Message) error {
			switch m.Named("what") {
			case "reason":
				return fmt.Errorf("wrapped: %w", app.Reason(packet.NotAuthorized))
			case "error":
				return errors.New("no")
			case "json":
				return m.JSON(new(int))
			case "text":
				_, err := m.Text()
				return err
			case "reply":
				return m.Reply(nil)
			case "panic":
				panic("at the disco")
			case "odd":
				return app.Reason(packet.Banned) // which no PUBACK can say
			}
			return nil
		})
		b.serve()
		for _, qos := range []packet.QoS{packet.AtLeastOnce, packet.ExactlyOnce} {
			for what, code := range map[string]packet.ReasonCode{
				"reason": packet.NotAuthorized, "error": packet.ImplementationSpecificError,
				"json": packet.PayloadFormatInvalid, "text": packet.PayloadFormatInvalid,
				"reply": packet.ImplementationSpecificError, "panic": packet.UnspecifiedError, "odd": packet.UnspecifiedError,
			} {
				got := b.refusal(b.publish("t/"+what, "\xff", qos))
				if b.inside {
					require.Equal(b, code, got, what)
				}
			}
			require.NoError(b, b.publish("t/fine", "", qos))
		}
		require.Eventually(b, func() bool { return b.app.Stats()[0].Messages == 16 }, patience, time.Millisecond)
		s := b.app.Stats()[0]
		require.EqualValues(b, 2, s.Panics)
		require.EqualValues(b, 12, s.Errors)
	}},
	{"EveryHandlerThatMatchesGetsTheMessageOnce", func(b *bench) {
		got := make(chan string, 10)
		for _, pattern := range []string{"a/b", "a/+", "{all...}", "$share/group/a/{x}", "c"} {
			b.app.Handle(pattern, func(_ context.Context, m *app.Message) error {
				got <- m.Pattern() + " " + m.Param(0)
				return nil
			})
		}
		b.serve()
		require.NoError(b, b.publish("a/b", "", 1))
		require.NoError(b, b.publish("c", "", 1))
		var all []string
		for range 6 {
			all = append(all, <-got)
		}
		require.ElementsMatch(b, []string{"a/b ", "a/+ b", "{all...} a/b", "$share/group/a/{x} b", "c ", "{all...} c"}, all)
	}},
	{"MessagesOfATopicStayInOrder", func(b *bench) {
		const topics, n = 8, 200
		next := make([]int, topics) // each is touched by one goroutine at a time: the race detector sees it
		done := make(chan struct{})
		var left atomic.Int32
		left.Store(topics * n)
		b.app.HandleWith("t/{i}", app.Options{Concurrency: 4}, func(_ context.Context, m *app.Message) error {
			var i, number int
			if _, err := fmt.Sscan(m.Named("i"), &i); err != nil {
				return err
			}
			if err := m.JSON(&number); err != nil {
				return err
			}
			if next[i] != number {
				return fmt.Errorf("%d came in place of %d", number, next[i])
			}
			next[i]++
			if left.Add(-1) == 0 {
				close(done)
			}
			return nil
		})
		b.serve()
		for number := range n {
			for i := range topics {
				err := b.peer.PublishAsync(b.Context(), &packet.Publish{
					Topic: fmt.Sprint("t/", i), Payload: fmt.Append(nil, number), QoS: packet.QoS(i % 3),
				}, nil)
				require.NoError(b, err)
			}
		}
		select {
		case <-done:
		case <-time.After(patience):
			require.Fail(b, "not everything has come", "%+v", b.app.Stats())
		}
		require.Zero(b, b.app.Stats()[0].Errors)
	}},
	{"RetainedMessagesComeFirstUnlessTheyAreNotWanted", func(b *bench) {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		_, err := b.peer.Publish(ctx, &packet.Publish{Topic: "state", Payload: []byte("on"), Retain: true, QoS: 1})
		require.NoError(b, err)
		got, news := make(chan bool, 1), make(chan bool, 1)
		b.app.Handle("state", func(_ context.Context, m *app.Message) error { got <- m.Retain; return nil })
		b.app.HandleWith("state/#", app.Options{NoRetained: true}, func(_ context.Context, m *app.Message) error { news <- m.Retain; return nil })
		b.serve()
		require.True(b, <-got)
		require.NoError(b, b.publish("state", "off", 1))
		require.False(b, <-got)
		require.False(b, <-news)
	}},
	{"TheAppPublishes", func(b *bench) {
		got := make(chan string, 2)
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		defer cancel()
		_, err := b.peer.Subscribe(ctx, func(p *packet.Publish) { got <- string(p.Payload) }, packet.Subscription{Filter: "out/#", QoS: 2})
		require.NoError(b, err)
		require.ErrorIs(b, b.app.Publish(ctx, &packet.Publish{Topic: "out"}), app.ErrClosed, "it does not serve yet")
		b.app.Handle("in", func(_ context.Context, m *app.Message) error { return m.Publish("out/2", m.Payload) })
		b.serve()
		require.NoError(b, b.app.Publish(ctx, &packet.Publish{Topic: "out/1", Payload: []byte("one"), QoS: 1}))
		require.Equal(b, "one", <-got)
		require.NoError(b, b.publish("in", "two", 2))
		require.Equal(b, "two", <-got)
	}},
	{"CloseWaitsForTheHandlersThatRun", func(b *bench) {
		running, proceed := make(chan struct{}), make(chan struct{})
		b.app.HandleWith("t", app.Options{Concurrency: 1}, func(ctx context.Context, m *app.Message) error {
			close(running)
			<-proceed
			return ctx.Err()
		})
		b.serve()
		published := make(chan error, 2)
		go func() { published <- b.publish("t", "1", 1) }()
		<-running
		b.stop()
		select {
		case err := <-b.ended:
			require.Fail(b, "it did not wait", "%v", err)
		case <-time.After(10 * time.Millisecond):
		}
		close(proceed)
		require.ErrorIs(b, <-b.ended, context.Canceled)
		require.NoError(b, <-published)
		require.Eventually(b, func() bool { return b.broker.Stats().Subscriptions == 0 }, patience, time.Millisecond)
		require.NoError(b, b.app.Close())
		require.ErrorIs(b, b.app.ServeBroker(b.Context(), b.broker), app.ErrClosed)
	}},
	{"TheEndOfTheBrokerOrTheClientEndsServing", func(b *bench) {
		b.app.Handle("t", func(context.Context, *app.Message) error { return nil })
		if b.inside {
			b.serve()
			require.NoError(b, b.broker.Close())
			require.ErrorIs(b, <-b.ended, broker.ErrClosed)
			return
		}
		c := b.dial("app")
		require.NoError(b, c.Close())
		require.ErrorIs(b, b.app.ServeClient(b.Context(), c), client.ErrClosed)
	}},
}

func TestHandlersInsideABrokerAndOverAConnection(t *testing.T) {
	carriers := []mqtttest.Carrier{mqtttest.TCP()}
	for _, e := range engine.All() {
		listen := func(addr string, cfg *mqttquic.ListenConfig) (*mqttquic.Listener, error) {
			cfg.HandshakeTimeout = patience
			return mqttquic.ListenAddr(e, addr, cfg)
		}
		carriers = append(carriers, mqtttest.QUIC("quic-"+e.Name(), listen, &mqttquic.Dialer{Transport: e, HandshakeTimeout: patience}))
	}
	for _, carrier := range carriers {
		for _, inside := range []bool{true, false} {
			where := map[bool]string{true: "inside", false: "client"}[inside]
			for _, tc := range cases {
				t.Run(carrier.Name+"/"+where+"/"+tc.name, func(t *testing.T) {
					t.Parallel()
					br, err := broker.New(nil)
					require.NoError(t, err)
					b := &bench{T: t, carrier: carrier, broker: br, inside: inside, app: app.New(nil)}
					b.target = carrier.Serve(t, br)
					t.Cleanup(func() { require.NoError(t, br.Close()) })
					b.peer = b.dial("peer")
					tc.run(b)
				})
			}
		}
	}
}
