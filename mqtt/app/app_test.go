package app_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/app"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// inside makes a serve in a new broker until the bubble's test ends.
func inside(t *testing.T, a *app.App) *broker.Broker {
	t.Helper()
	b, err := broker.New(nil)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- a.ServeBroker(context.Background(), b) }() // ends with Close; the test's context ends before that
	t.Cleanup(func() {
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-served, app.ErrClosed)
		require.NoError(t, b.Close())
	})
	synctest.Wait()
	return b
}

func publish(t *testing.T, b *broker.Broker, topic, payload string) {
	t.Helper()
	code, err := b.Publish(t.Context(), &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: 1})
	require.NoError(t, err)
	require.Equal(t, packet.Success, code)
}

func TestAHandlerRunsAsOftenAtOnceAsItMay(t *testing.T) {
	for _, tc := range []struct {
		name   string
		o      app.Options
		topics int
		want   int32
	}{
		{"one topic", app.Options{Concurrency: 4}, 1, 1},
		{"fewer topics than places", app.Options{Concurrency: 4}, 3, 3},
		{"more topics than places", app.Options{Concurrency: 4}, 50, 4},
		{"unordered", app.Options{Concurrency: 4, Unordered: true}, 1, 4},
		{"one place", app.Options{Concurrency: 1, Unordered: true}, 50, 1},
		{"the default", app.Options{}, 50, int32(min(50, runtime.GOMAXPROCS(0)))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := app.New(nil)
				var mu sync.Mutex
				var running, most int32
				a.HandleWith("t/+", tc.o, func(context.Context, *app.Message) error {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					time.Sleep(time.Second)
					mu.Lock()
					running--
					mu.Unlock()
					return nil
				})
				b := inside(t, a)
				const n = 100
				began := time.Now()
				for i := range n {
					publish(t, b, fmt.Sprint("t/", i%tc.topics), "")
				}
				for a.Stats()[0].Messages < n {
					time.Sleep(time.Second)
				}
				mu.Lock()
				require.Equal(t, tc.want, most)
				mu.Unlock()
				if tc.topics%int(tc.want) == 0 || tc.o.Unordered {
					require.LessOrEqual(t, time.Since(began), (n/time.Duration(tc.want)+2)*time.Second)
				}
				synctest.Wait() // the last is counted before its place is free
				s := a.Stats()[0]
				require.Zero(t, s.Running+s.Waiting)
			})
		})
	}
}

func TestASlowTopicDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New(nil)
		got := make(chan string, 1)
		a.HandleWith("+", app.Options{Concurrency: 2}, func(ctx context.Context, m *app.Message) error {
			if m.Topic == "slow" {
				<-ctx.Done()
				return nil
			}
			got <- m.Topic
			return nil
		})
		b := inside(t, a)
		for range 10 {
			publish(t, b, "slow", "")
		}
		publish(t, b, "fast", "")
		require.Equal(t, "fast", <-got)
	})
}

func TestAHandlersTimeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New(&app.Config{Timeout: time.Second})
		over := make(chan error, 1)
		deaf := make(chan struct{})
		a.Handle("listens", func(ctx context.Context, _ *app.Message) error {
			<-ctx.Done()
			over <- ctx.Err()
			return nil
		})
		a.Handle("deaf", func(context.Context, *app.Message) error { <-deaf; return nil })
		b := inside(t, a)
		began := time.Now()
		publish(t, b, "listens", "")
		require.ErrorIs(t, <-over, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		publish(t, b, "deaf", "")
		synctest.Wait()
		require.NotZero(t, b.Stats().QueuedBytes)
		time.Sleep(2 * time.Second)
		require.Zero(t, b.Stats().QueuedBytes, "it was acknowledged")
		s := a.Stats()[1]
		require.EqualValues(t, 1, s.TimedOut)
		require.Equal(t, 1, s.Running)
		close(deaf)
	})
}

func TestPanicsAndErrorsAreLoggedWithoutPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log bytes.Buffer
		a := app.New(&app.Config{Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))})
		a.HandleWith("t/{what}", app.Options{Concurrency: 1}, func(_ context.Context, m *app.Message) error {
			switch m.Named("what") {
			case "panic":
				panic("out of cheese")
			case "exit":
				runtime.Goexit()
			case "error":
				return app.Reasonf(packet.QuotaExceeded, "out of tea")
			}
			return nil
		})
		b := inside(t, a)
		for _, what := range []string{"panic", "exit", "fine"} {
			publish(t, b, "t/"+what, "secret")
		}
		for range 1000 { // publishers do not fill the log
			publish(t, b, "t/error", "secret")
		}
		synctest.Wait()
		s := a.Stats()[0]
		require.EqualValues(t, 1003, s.Messages)
		require.EqualValues(t, 2, s.Panics)
		require.EqualValues(t, 1000, s.Errors)
		require.Zero(t, s.Running)
		mu.Lock()
		defer mu.Unlock()
		require.Contains(t, log.String(), "out of cheese")
		require.Contains(t, log.String(), "out of tea")
		require.Contains(t, log.String(), "app_test.go", "the stack")
		require.NotContains(t, log.String(), "secret")
		require.Equal(t, 3, strings.Count(log.String(), "\n"))
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestMiddlewareIsAroundTheHandlersAddedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New(nil)
		var seen []string
		around := func(name string) app.Middleware {
			return func(next app.Handler) app.Handler {
				return func(ctx context.Context, m *app.Message) error {
					seen = append(seen, name)
					defer func() { seen = append(seen, "/"+name) }()
					return next(ctx, m)
				}
			}
		}
		handler := func(_ context.Context, m *app.Message) error {
			seen = append(seen, m.Topic)
			return nil
		}
		a.Handle("before", handler)
		a.Use(around("1"), around("2"))
		a.Handle("after", handler)
		b := inside(t, a)
		publish(t, b, "before", "")
		synctest.Wait()
		publish(t, b, "after", "")
		synctest.Wait()
		require.Equal(t, []string{"before", "1", "2", "after", "/2", "/1"}, seen)
		require.Panics(t, func() { a.Use(around("3")) })
		require.Panics(t, func() { a.Handle("late", handler) })
	})
}

func TestARequestersTopicIsRepliedToIfItMayBe(t *testing.T) {
	for _, tc := range []struct {
		name, topic string
		may         func(*app.Message, string) bool
		replied     bool
	}{
		{"a topic", "response/1", nil, true},
		{"one of the broker's own", "$SYS/lies", nil, false},
		{"one that the program refuses", "response/1", func(*app.Message, string) bool { return false }, false},
		{"one that the program allows", "$own", func(_ *app.Message, topic string) bool { return topic == "$own" }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := app.New(&app.Config{MayReply: tc.may})
				var replied error
				a.Handle("q", func(_ context.Context, m *app.Message) error {
					replied = m.Reply([]byte("a"))
					return nil
				})
				b := inside(t, a)
				l, err := b.NewLocal(nil)
				require.NoError(t, err)
				require.NoError(t, l.Subscribe(0, packet.Subscription{Filter: tc.topic, QoS: 1}))
				_, err = b.Publish(t.Context(), &packet.Publish{Topic: "q", QoS: 1, Properties: &packet.Properties{
					ResponseTopic: tc.topic, CorrelationData: []byte{7},
				}})
				require.NoError(t, err)
				synctest.Wait()
				if !tc.replied {
					require.ErrorIs(t, replied, app.ErrNoReply)
					return
				}
				require.NoError(t, replied)
				m, err := l.Next(t.Context())
				require.NoError(t, err)
				require.Equal(t, []byte{7}, m.Publish().Properties.CorrelationData)
				require.Equal(t, packet.AtLeastOnce, m.QoS)
				require.Equal(t, broker.ClientInfo{ClientID: "app", Local: true}, m.Client())
			})
		})
	}
}

func TestWhatWaitsForHandlersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app.New(&app.Config{QueueBytes: 64 << 10})
		proceed := make(chan struct{})
		a.Handle("t", func(context.Context, *app.Message) error { <-proceed; return nil })
		b := inside(t, a)
		published := make(chan int)
		go func() {
			for i := range 500 {
				publish(t, b, "t", strings.Repeat("x", 1000))
				if i == 499 {
					published <- i
				}
			}
		}()
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			require.LessOrEqual(t, b.Stats().QueuedBytes, int64(64<<10))
			proceed <- struct{}{}
		}
		close(proceed)
		<-published
		synctest.Wait()
		require.EqualValues(t, 500, a.Stats()[0].Messages)
	})
}

func TestMistakesInPatternsPanic(t *testing.T) {
	fine := func(context.Context, *app.Message) error { return nil }
	a := app.New(nil)
	a.Handle("a/+/c", fine)
	for _, pattern := range []string{
		"", "a/#/b", "a/{rest...}/b", "{}", "{...}", "{a.b}", "{{a}}", "x/{a}/{a}", "a/{other}/c", "a+", "$share/g", "$share/+/t", "$share//t",
	} {
		require.Panics(t, func() { a.Handle(pattern, fine) }, pattern)
	}
	require.Panics(t, func() { a.Handle("t", nil) })
	require.Panics(t, func() { a.HandleWith("t", app.Options{Concurrency: -1}, fine) })
	for _, pattern := range []string{"/", "{a}", "#", "$share/g/a/+/c", "a{b}/c", "{a}b", "/{a}/"} {
		require.NotPanics(t, func() { a.Handle(pattern, fine) }, pattern)
	}
	require.Len(t, a.Stats(), 8)
}

func TestWildcardsMatchWhatTheTopicHasInTheirPlace(t *testing.T) {
	for _, tc := range []struct {
		pattern, topic string
		params         []string
	}{
		{"a", "a", nil},
		{"+", "a", []string{"a"}},
		{"+/+", "/", []string{"", ""}},
		{"#", "a/b", []string{"a/b"}},
		{"a/#", "a", []string{""}},
		{"a/#", "a/", []string{""}},
		{"a/#", "a//b", []string{"/b"}},
		{"a/+/#", "a/b", []string{"b", ""}},
		{"+/b/+", "a/b/c", []string{"a", "c"}},
		{"$share/g/x/{y}", "x/1", []string{"1"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := app.New(nil)
			var got []string
			a.Handle(tc.pattern, func(_ context.Context, m *app.Message) error {
				for i := range tc.params {
					got = append(got, m.Param(i))
				}
				require.Empty(t, m.Param(len(tc.params))+m.Param(-1))
				return nil
			})
			b := inside(t, a)
			publish(t, b, tc.topic, "")
			synctest.Wait()
			require.Equal(t, tc.params, got, "%s of %s", tc.pattern, tc.topic)
		})
	}
}

// BenchmarkInside publishes inside a broker and has a handler called.
func BenchmarkInside(b *testing.B) {
	br, err := broker.New(nil)
	require.NoError(b, err)
	a := app.New(nil)
	done := make(chan struct{}, 1024)
	a.Handle("t/{id}", func(context.Context, *app.Message) error { done <- struct{}{}; return nil })
	go a.ServeBroker(b.Context(), br)
	for br.Stats().Subscriptions == 0 {
		runtime.Gosched()
	}
	p := &packet.Publish{Topic: "t/1", Payload: make([]byte, 64)}
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := br.Publish(b.Context(), p); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	require.NoError(b, a.Close())
	require.NoError(b, br.Close())
}
