package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// offline returns a client that has no connection until the listener lets it.
func offline(t *testing.T, cfg *Config) *Client {
	t.Helper()
	cfg.Reconnect = Backoff{Min: time.Second, Max: time.Second}
	c, err := New(cfg)
	require.NoError(t, err)
	return c
}

// refuseDials makes the next n attempts fail.
func (l *listener) refuseDials(n int) {
	for range n {
		l.fail <- errors.New("no route")
	}
}

func TestANewClientTakesMessagesOfEveryQoSBeforeItsFirstConnectionAndKeepsTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		l.refuseDials(3)
		cfg := l.config()
		cfg.Queue.QoS0 = true
		c := offline(t, cfg)
		var ended []string
		for i := range 6 {
			p := msg(fmt.Sprint(i), packet.QoS(i%3))
			require.NoError(t, c.PublishAsync(t.Context(), p, func(err error) { ended = append(ended, fmt.Sprint(p.Topic, err)) }))
		}
		require.Empty(t, ended)
		require.Equal(t, 6, c.Stats().Inflight)
		subscribed := make(chan error, 1)
		go func() {
			_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "f"})
			subscribed <- err
		}()
		synctest.Wait()

		p, connect := l.accepted(&packet.Connack{Properties: &packet.Properties{ReceiveMaximum: packet.Some[uint16](2)}})
		require.False(t, connect.CleanStart)
		s := expect[*packet.Subscribe](p)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{0}})
		require.NoError(t, <-subscribed)
		for i := range 4 {
			pub := expect[*packet.Publish](p)
			require.Equal(t, fmt.Sprint(i), pub.Topic)
			require.Equal(t, packet.QoS(i%3), pub.QoS)
		}
		synctest.Wait()                     // the window is full, which holds up those with QoS 1 and 2 only
		p.send(&packet.Puback{Ack: ack(2)}) // of "1": 1 was the SUBSCRIBE's
		require.Equal(t, "4", expect[*packet.Publish](p).Topic)
		p.send(&packet.Pubrec{Ack: ack(3)})
		expect[*packet.Pubrel](p)
		p.send(&packet.Pubcomp{Ack: ack(3)})
		require.Equal(t, "5", expect[*packet.Publish](p).Topic)
		p.send(&packet.Puback{Ack: ack(4)})
		p.send(&packet.Pubrec{Ack: ack(5)})
		expect[*packet.Pubrel](p)
		p.send(&packet.Pubcomp{Ack: ack(5)})
		synctest.Wait()
		require.Equal(t, []string{"0<nil>", "3<nil>", "1<nil>", "2<nil>", "4<nil>", "5<nil>"}, ended)
		require.Zero(t, c.Stats().QueueBytes)

		// With a connection and nothing before them they go at once.
		_, err := c.Publish(t.Context(), msg("now", 0))
		require.NoError(t, err)
		require.Equal(t, "now", expect[*packet.Publish](p).Topic)
		disconnect(t, c, p)
	})
}

func TestWithoutAQueueForItAMessageWithQoS0WaitsForTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		l.refuseDials(1)
		c := offline(t, l.config())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.Publish(ctx, msg("a", 0))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, c.Close())
	})
}

func TestAFullQueueWaitsDropsOrFails(t *testing.T) {
	cost := func(qos packet.QoS) int {
		f, err := newFlight(msg("0", qos), packet.V5)
		require.NoError(t, err)
		return f.cost()
	}
	fill := func(t *testing.T, policy FullPolicy) (*Client, map[string]error) {
		l := newListener(t, packet.V5)
		l.refuseDials(10)
		cfg := l.config()
		cfg.Queue = Queue{QoS0: true, Full: policy}
		cfg.QueueBytes = 2*cost(0) + 2*cost(1) + 2
		c := offline(t, cfg)
		ended := map[string]error{}
		for i, qos := range []packet.QoS{0, 1, 0, 1} {
			topic := fmt.Sprint(i)
			require.NoError(t, c.PublishAsync(t.Context(), msg(topic, qos), func(err error) { ended[topic] = err }))
		}
		return c, ended
	}
	t.Run("wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, ended := fill(t, WaitWhenFull)
			for _, qos := range []packet.QoS{0, 1} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				err := c.PublishAsync(ctx, msg("x", qos), nil)
				cancel()
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, NotSent, StateOf(err))
			}
			require.Empty(t, ended)
			require.NoError(t, c.Close())
		})
	})
	t.Run("fail", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, ended := fill(t, FailWhenFull)
			for _, qos := range []packet.QoS{0, 1} {
				err := c.PublishAsync(t.Context(), msg("x", qos), nil)
				require.ErrorIs(t, err, ErrQueueFull)
				require.Equal(t, NotSent, StateOf(err))
			}
			require.Empty(t, ended)
			require.NoError(t, c.Close())
			require.Len(t, ended, 4)
		})
	})
	t.Run("drop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, ended := fill(t, DropQoS0WhenFull)
			require.NoError(t, c.PublishAsync(t.Context(), msg("x", 1), nil))
			require.Len(t, ended, 1)
			require.ErrorIs(t, ended["0"], ErrQueueFull, "the oldest makes room")
			require.Equal(t, NotSent, StateOf(ended["0"]))
			require.NoError(t, c.PublishAsync(t.Context(), msg("y", 0), nil))
			require.ErrorIs(t, ended["2"], ErrQueueFull)
			require.Equal(t, uint64(2), c.Stats().MessagesLost)
			require.NoError(t, c.PublishAsync(t.Context(), msg("z", 0), nil))
			require.ErrorIs(t, c.PublishAsync(t.Context(), msg("2 of them", 2), nil), ErrQueueFull, "nothing is left to drop")
			require.Equal(t, uint64(4), c.Stats().MessagesLost)
			require.NoError(t, c.Close())
		})
	})
}

func TestANewClientThatMustNotTryAgainEndsWithTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, err := New(l.config())
		require.NoError(t, err)
		done := publish(t.Context(), c, msg("a", 1))
		p := l.accept()
		expect[*packet.Connect](p)
		p.send(&packet.Connack{Code: packet.Banned})
		<-c.Done()
		var refused *ConnectError
		require.ErrorAs(t, c.Err(), &refused)
		require.ErrorAs(t, (<-done).err, &refused)
		require.NoError(t, c.Close())
	})
}

func TestANewClientCanBeClosedWhileItConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, err := New(l.config())
		require.NoError(t, err)
		p := l.accept() // and nothing more
		go func() { _, _, _ = p.in.Next() }()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.NoError(t, c.Err())
		_, err = c.Publish(t.Context(), msg("a", 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestAMessageThatIsTakenBackIsNotTheOldestWithQoS0(t *testing.T) {
	flightOf := func(topic string, q packet.QoS) *flight {
		f, err := newFlight(&packet.Publish{Topic: topic, QoS: q}, packet.V5)
		require.NoError(t, err)
		return f
	}
	m := newMachine(machineConfig{version: packet.V5, inflightMax: 10, receiveMaximum: 10})
	oldest, kept, newest := flightOf("oldest", 0), flightOf("kept", 1), flightOf("newest", 0)
	for _, f := range []*flight{oldest, kept, newest} {
		require.NoError(t, m.submit(f))
	}
	m.giveUp(newest) // its file could not be written
	require.True(t, m.dropZero())
	require.False(t, m.dropZero())
	require.Same(t, kept, m.outbound.first)
	require.Equal(t, 1, m.flights)
	require.Equal(t, kept.cost(), m.queued)
}
