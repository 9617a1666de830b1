package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestTheBackOffDoublesUpToItsMaximum(t *testing.T) {
	b := Backoff{Min: time.Second, Max: 2 * time.Minute}
	for attempt, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 7: 64 * time.Second,
		8: 2 * time.Minute, 9: 2 * time.Minute, 63: 2 * time.Minute, 64: 2 * time.Minute, 1000: 2 * time.Minute,
	} {
		shortest, longest := time.Duration(1<<62), time.Duration(0)
		for range 1000 {
			d := b.delay(attempt)
			shortest, longest = min(shortest, d), max(longest, d)
		}
		require.GreaterOrEqual(t, shortest, want/2)
		require.LessOrEqual(t, longest, want)
		require.Greater(t, longest-shortest, want/3, "there is jitter")
	}
}

func TestAttemptsGoOnUntilOneSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		connects := 0
		cfg := l.config()
		cfg.OnConnect = func(*packet.Connack) { connects++ }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for range 3 {
			l.fail <- errors.New("no route")
		}
		start := time.Now()
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		took := time.Since(start) // delays of 1, 2, 4 and 8 s, each at least half
		require.GreaterOrEqual(t, took, 7500*time.Millisecond)
		require.LessOrEqual(t, took, 15*time.Second)
		require.Equal(t, 2, connects)

		// It breaks at once: the count goes on.
		start = time.Now()
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.GreaterOrEqual(t, time.Since(start), 8*time.Second)

		// It lasts: the count starts again.
		ticker := time.NewTicker(stableAfter)
		<-ticker.C
		ticker.Stop()
		start = time.Now()
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		require.LessOrEqual(t, time.Since(start), time.Second)
		disconnect(t, c, p)
	})
}

func TestTheClientGivesUpAfterMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.Reconnect.MaxAttempts = 2
		c, p := dialed(t, l, cfg, &packet.Connack{})
		done := publish(t.Context(), c, msg("a", 1))
		expect[*packet.Publish](p)
		last := errors.New("last")
		l.fail <- errors.New("first")
		l.fail <- last
		p.close()
		<-c.Done()
		require.ErrorIs(t, c.Err(), last)
		d := <-done
		require.ErrorIs(t, d.err, last)
		var e *PublishError
		require.ErrorAs(t, d.err, &e)
		require.Equal(t, MaybeSent, e.State)
		_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "a"})
		require.ErrorIs(t, err, last)
		require.NoError(t, c.Close())
		require.NoError(t, c.Disconnect(t.Context()))
	})
}

func TestReconnectDisabledEndsTheClientWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		cfg.Reconnect.Disabled = true
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.close()
		<-c.Done()
		require.ErrorIs(t, c.Err(), io.EOF)
		var e *ConnectionError
		require.ErrorAs(t, c.Err(), &e)
	})
}

func TestTheServersDISCONNECTDecidesWhetherToConnectAgain(t *testing.T) {
	t.Attr("mqtt5", "MQTT-4.13.2-1")
	for _, tc := range []struct {
		code  packet.ReasonCode
		again bool
	}{
		{packet.ServerShuttingDown, true},
		{packet.ServerBusy, true},
		{packet.KeepAliveTimeout, true},
		{packet.QuotaExceeded, true},
		{packet.AdministrativeAction, true},
		{packet.UseAnotherServer, true},
		{packet.UnspecifiedError, true},
		{packet.NormalDisconnection, true},
		{packet.SessionTakenOver, false},
		{packet.ServerMoved, false},
	} {
		t.Run(fmt.Sprintf("0x%02x", uint8(tc.code)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				cfg := l.config()
				lost := make(chan error, 2)
				cfg.OnDisconnect = func(err error) { lost <- err }
				c, p := dialed(t, l, cfg, &packet.Connack{})
				p.send(&packet.Disconnect{Code: tc.code, Properties: &packet.Properties{ReasonString: "why"}})
				p.expectEnd()
				var e *DisconnectError
				require.ErrorAs(t, <-lost, &e)
				require.Equal(t, DisconnectError{Code: tc.code, Reason: "why"}, *e)
				require.ErrorIs(t, e, net.ErrClosed)
				if !tc.again {
					<-c.Done()
					require.ErrorAs(t, c.Err(), &e)
					return
				}
				p, _ = l.accepted(&packet.Connack{})
				disconnect(t, c, p)
				require.NoError(t, c.Err())
				_, err := c.Publish(t.Context(), msg("a", 0))
				require.ErrorIs(t, err, ErrClosed)
				require.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

func TestARefusalWhileReconnectingDecidesAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		p.close()
		for _, code := range []packet.ReasonCode{packet.ServerUnavailable, packet.NotAuthorized, packet.ConnectionRateExceeded} {
			p, _ = l.accepted(&packet.Connack{Code: code})
			p.expectEnd()
		}
		p, _ = l.accepted(&packet.Connack{Code: packet.Banned})
		p.expectEnd()
		<-c.Done()
		var e *ConnectError
		require.ErrorAs(t, c.Err(), &e)
		require.Equal(t, packet.Banned, e.Code)
	})
}

func TestDISCONNECTBeforeMQTT5IsAViolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V311)
		cfg := l.config()
		cfg.Reconnect.Disabled = true
		c, p := dialed(t, l, cfg, &packet.Connack{})
		p.send(&packet.Disconnect{})
		p.expectEnd()
		<-c.Done()
		var e *ProtocolError
		require.ErrorAs(t, c.Err(), &e)
	})
}

func TestDisconnectWaitsForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		published := publish(t.Context(), c, msg("a", 2))
		id := expect[*packet.Publish](p).PacketID
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(t.Context()) }()
		synctest.Wait()
		_, err := c.Publish(t.Context(), msg("late", 0))
		require.ErrorIs(t, err, ErrClosed)
		p.send(&packet.Pubrec{Ack: ack(id)})
		expect[*packet.Pubrel](p)
		p.send(&packet.Pubcomp{Ack: ack(id)})
		require.Equal(t, packet.NormalDisconnection, expect[*packet.Disconnect](p).Code)
		require.NoError(t, (<-published).err)
		p.close()
		require.NoError(t, <-done)
		require.NoError(t, c.Err())
	})
}

func TestDisconnectWaitsASecondForTheServerToClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		expect[*packet.Disconnect](p)
		p.send(msg("late", 0)) // read and dropped, so that no reset meets the DISCONNECT
		p.expectEnd()
		require.NoError(t, <-done)
		after(t, lingerTimeout, start)
	})
}

func TestDisconnectWaitsUntilEverythingIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		for range 10 {
			_, err := c.Publish(t.Context(), msg("a", 0))
			require.NoError(t, err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		slow := time.NewTimer(10 * time.Second) // longer than the server is given to close
		<-slow.C
		for range 10 {
			expect[*packet.Publish](p)
		}
		expect[*packet.Disconnect](p)
		p.close()
		require.NoError(t, <-done)
	})
}

func TestDisconnectWhoseContextEndsStillSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		published := publish(t.Context(), c, msg("a", 1))
		expect[*packet.Publish](p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute/2)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(ctx) }()
		expect[*packet.Disconnect](p)
		p.close()
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		var e *PublishError
		require.ErrorAs(t, (<-published).err, &e)
		require.Equal(t, MaybeSent, e.State)
		require.ErrorIs(t, e, ErrClosed)
	})
}

func TestCloseEndsEverythingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		lost := io.EOF
		cfg.OnDisconnect = func(err error) { lost = err }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		published := publish(t.Context(), c, msg("a", 1))
		expect[*packet.Publish](p)
		start := time.Now()
		require.NoError(t, c.Close())
		after(t, 0, start)
		p.expectEnd() // no DISCONNECT
		require.ErrorIs(t, (<-published).err, ErrClosed)
		require.NoError(t, lost)
		require.NoError(t, c.Close())
	})
}

func TestCloseWhileConnectingAgain(t *testing.T) {
	for _, tc := range []struct {
		name string
		play func(*listener)
	}{
		{"in the delay", func(*listener) {}},
		{"in the attempt", func(l *listener) { expect[*packet.Connect](l.accept()) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListener(t, packet.V5)
				c, p := dialed(t, l, l.config(), &packet.Connack{})
				p.close()
				tc.play(l)
				synctest.Wait()
				start := time.Now()
				require.NoError(t, c.Close())
				after(t, 0, start)
				require.NoError(t, c.Err())
			})
		})
	}
}

func TestHandlersMayUseTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		var c *Client
		ready := make(chan struct{})
		connected := make(chan error, 4)
		cfg.OnConnect = func(*packet.Connack) {
			<-ready
			_, err := c.Subscribe(t.Context(), nil, packet.Subscription{Filter: "in"})
			connected <- err
		}
		cfg.OnMessage = func(p *packet.Publish) {
			_, err := c.Publish(t.Context(), &packet.Publish{Topic: "out", Payload: p.Payload, QoS: 1})
			require.NoError(t, err)
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		close(ready)
		// The answer to the SUBSCRIBE is lost with the connection; the next
		// one brings it, though the handler has been waiting all the time.
		expect[*packet.Subscribe](p)
		p.close()
		p, _ = l.accepted(&packet.Connack{})
		s := expect[*packet.Subscribe](p)
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{0}})
		require.NoError(t, <-connected)
		s = expect[*packet.Subscribe](p) // OnConnect of the second connection
		p.send(&packet.Suback{PacketID: s.PacketID, Codes: []packet.ReasonCode{0}})
		require.NoError(t, <-connected)
		p.send(inMsg("in", 1, 1))
		out := expect[*packet.Publish](p)
		require.Equal(t, "out", out.Topic)
		p.send(&packet.Puback{Ack: ack(out.PacketID)})
		require.Equal(t, ack(1), expect[*packet.Puback](p).Ack)
		disconnect(t, c, p)
	})
}

func TestAnotherServerMayBeAbleToDoLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		c, p := dialed(t, l, l.config(), &packet.Connack{})
		sub := subscribe(t.Context(), c, nil, packet.Subscription{Filter: "a/#"})
		expect[*packet.Subscribe](p)
		sent := publish(t.Context(), c, msg("a", 2))
		expect[*packet.Publish](p)
		p.close()
		synctest.Wait()
		waiting := publish(t.Context(), c, msg("b", 2))
		p, _ = l.accepted(&packet.Connack{Properties: &packet.Properties{
			MaximumQoS: packet.Some[byte](1), WildcardSubAvailable: packet.Some[byte](0),
		}})
		var se *SubscribeError
		require.ErrorAs(t, (<-sub).err, &se)
		require.Equal(t, packet.WildcardSubscriptionsNotSupported, se.Code)
		for state, done := range map[PublishState]chan publishing{MaybeSent: sent, NotSent: waiting} {
			var pe *PublishError
			require.ErrorAs(t, (<-done).err, &pe)
			require.Equal(t, PublishError{State: state, Code: packet.QoSNotSupported}, *pe)
		}
		disconnect(t, c, p)
	})
}

// A handler that hangs while connections come and go does not collect all their
// stories.
func TestCallsThatWaitForAHandlerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		block := make(chan struct{})
		connects, disconnects := 0, 0
		cfg.OnConnect = func(*packet.Connack) { <-block; connects++ }
		cfg.OnDisconnect = func(error) { disconnects++ }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		for range 100 {
			p.close()
			p, _ = l.accepted(&packet.Connack{})
		}
		close(block)
		synctest.Wait()
		require.Equal(t, 1+maxCalls/2, connects)
		require.Equal(t, maxCalls/2, disconnects)
		disconnect(t, c, p)
	})
}

func TestNoHandlerIsCalledAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		calls, proceed := 0, make(chan struct{})
		cfg.OnMessage = func(*packet.Publish) {
			calls++
			<-proceed
		}
		c, p := dialed(t, l, cfg, &packet.Connack{})
		var three []byte
		for range 3 {
			three, _ = msg("a", 0).Append(three, packet.V5)
		}
		p.raw(three)
		p.raw(three)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- c.Close() }()
		synctest.Wait()
		require.Empty(t, done, "it waits for the handler")
		close(proceed)
		require.NoError(t, <-done)
		require.Equal(t, 1, calls)
		p.close()
	})
}

// A handler that is slow has stopped the reader, whose end must not be taken for
// the connection's: the server would publish the will.
func TestDisconnectSaysGoodbyeWhileAHandlerIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(t, packet.V5)
		cfg := l.config()
		block := make(chan struct{})
		cfg.OnMessage = func(*packet.Publish) { <-block }
		lost := make(chan error, 1)
		cfg.OnDisconnect = func(err error) { lost <- err }
		c, p := dialed(t, l, cfg, &packet.Connack{})
		m, err := msg("a", 0).Append(nil, p.v)
		require.NoError(t, err)
		go func() {
			for {
				if _, err := p.conn.Write(m); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- c.Disconnect(context.Background()) }()
		expect[*packet.Disconnect](p)
		p.close()
		close(block)
		require.NoError(t, <-done)
		require.NoError(t, <-lost)
	})
}
