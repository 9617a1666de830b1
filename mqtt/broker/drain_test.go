package broker_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

const elsewhere = "b.example:8883 c.example"

func TestDrainSendsClientsElsewhereOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		b := newBroker(t, &broker.Config{Logger: log.logger()})
		const n = 10
		began := time.Now()
		gone := make(chan time.Duration, n)
		for i := range n {
			c := connect(t, b, fmt.Sprint(i))
			go func() {
				d := receive[*packet.Disconnect](c)
				if d.Code == packet.UseAnotherServer && d.Properties != nil && d.Properties.ServerReference == elsewhere {
					gone <- time.Since(began)
				}
				c.close()
			}()
		}
		require.NoError(t, b.Drain(t.Context(), broker.Drain{Reference: elsewhere, Spread: 10 * time.Second}))
		synctest.Wait() // until the last is counted
		require.Len(t, gone, n)
		for i := range n {
			require.InDelta(t, time.Duration(i)*time.Second, <-gone, float64(100*time.Millisecond), "client %d of %d", i, n)
		}
		require.Zero(t, b.Stats().Connections["tcp"].Now)
		require.EqualValues(t, n, b.Stats().Disconnects[packet.UseAnotherServer])
		require.Contains(t, log.String(), "mqtt: draining", "how far it has come")
		require.NotContains(t, log.String(), "mqtt: disconnected", "it is what the operator wants")
	})
}

func TestClientsThatConnectWhileTheBrokerDrainsAreSentElsewhere(t *testing.T) {
	for _, c := range []struct {
		drain broker.Drain
		want  packet.ReasonCode
		ref   string
	}{
		{broker.Drain{Reference: elsewhere}, packet.UseAnotherServer, elsewhere},
		{broker.Drain{Reference: elsewhere, Permanent: true}, packet.ServerMoved, elsewhere},
		{broker.Drain{Permanent: true}, packet.ServerUnavailable, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBroker(t, nil)
			stays := connect(t, b, "stays") // until it is told
			drained := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			go func() { drained <- b.Drain(ctx, c.drain) }()
			d := receive[*packet.Disconnect](stays)
			late := dial(t, b)
			ack := late.connect("late")
			require.Equal(t, c.want, ack.Code)
			old := dial(t, b)
			require.Equal(t, packet.ServerUnavailable, old.connect("old", v311).Code, "3.1.1 has no more to say")
			if c.ref == "" {
				require.Equal(t, packet.ServerShuttingDown, d.Code)
				require.Nil(t, ack.Properties)
			} else {
				require.Equal(t, c.want, d.Code)
				require.Equal(t, c.ref, d.Properties.ServerReference)
				require.Equal(t, c.ref, ack.Properties.ServerReference)
			}
			late.close()
			old.close()
			stays.close()
			require.NoError(t, <-drained)
		})
	}
}

func TestDrainDeliversWhatIsQueuedAndClosesOldClientsWithoutAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		sub, old, pub := connect(t, b, "sub"), connect(t, b, "old", v311), connect(t, b, "pub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		for range 3 {
			pub.publish("t", "x", 0)
		}
		pub.ping()
		drained := make(chan error, 1)
		go func() { drained <- b.Drain(t.Context(), broker.Drain{Reference: elsewhere}) }()
		for range 3 {
			sub.message("t", "x")
		}
		require.Equal(t, packet.UseAnotherServer, receive[*packet.Disconnect](sub).Code)
		require.Equal(t, packet.UseAnotherServer, receive[*packet.Disconnect](pub).Code)
		old.closed()
		sub.close()
		pub.close()
		require.NoError(t, <-drained)
	})
}

func TestADrainPublishesWillsAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{DrainTimeout: time.Hour})
		watcher := connect(t, b, "watcher", keep(100))
		watcher.subscribe(packet.Subscription{Filter: "wills", QoS: 1})
		watcher.close()
		mortal := connect(t, b, "mortal", will("wills", "dead", 0))
		go mortal.read() // the DISCONNECT
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.Drain(ctx, broker.Drain{}), context.DeadlineExceeded, "the client does not close")
		require.Equal(t, time.Second, time.Since(began))
		require.EqualValues(t, 1, b.Stats().Wills)
		ended, now := context.WithCancel(t.Context())
		now()
		require.ErrorIs(t, b.Shutdown(ended), context.Canceled)
	})
}
