package broker_test

import (
	"context"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestShutdownTellsClientsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		polite, deaf, old, early := connect(t, b, "polite"), connect(t, b, "deaf"), connect(t, b, "old", v311), dial(t, b)
		began := time.Now()
		done := make(chan error)
		go func() { done <- b.Shutdown(context.Background()) }()
		require.Equal(t, packet.ServerShuttingDown, receive[*packet.Disconnect](polite).Code)
		polite.close()
		early.closed()
		require.Zero(t, time.Since(began))
		require.NoError(t, <-done)
		require.InDelta(t, time.Second, time.Since(began), float64(50*time.Millisecond))
		<-deaf.end
		<-old.end
		require.ErrorIs(t, b.ServeLink(context.Background(), mqtt.NewConnLink(early.conn, mqtt.TCP)), net.ErrClosed)
	})
}

func TestShutdownEndsAtOnceWhenItsContextDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{DrainTimeout: time.Hour})
		deaf := connect(t, b, "deaf")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		<-deaf.end
	})
}

func TestShutdownDeliversWhatWasWrittenOverTCP(t *testing.T) {
	b := newBroker(t, &broker.Config{DrainTimeout: time.Minute}) // for a client that takes it on a busy machine
	addr := serveTCP(t, b)
	c := dialTCP(t, addr, "a")
	c.subscribe(packet.Subscription{Filter: "t"})
	go flood(c, "t", 0, 1000, 1000) // leaves data unread in the broker
	done := make(chan error)
	receive[*packet.Publish](c)
	go func() { done <- b.Shutdown(context.Background()) }()
	for {
		p, err := c.read()
		require.NoError(t, err)
		if d, ok := p.(*packet.Disconnect); ok {
			require.Equal(t, packet.ServerShuttingDown, d.Code)
			break
		}
	}
	c.conn.Close()
	require.NoError(t, <-done)
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	b, err := broker.New(nil)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error)
	go func() { served <- b.Serve(l, mqtt.TCP) }()
	var conns []net.Conn
	for i := range 20 {
		c := dialTCP(t, l.Addr().String(), string(rune('a'+i)))
		c.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#"}}})
		for suback := false; !suback; { // messages of the others may overtake it
			p, err := c.read()
			require.NoError(t, err)
			_, suback = p.(*packet.Suback)
		}
		conns = append(conns, c.conn)
		go flood(c, "t", 0, 1000, 1000)
	}
	require.NoError(t, b.Close())
	require.NoError(t, <-served)
	require.NoError(t, b.Serve(l, mqtt.TCP))
	for _, c := range conns {
		c.Close()
	}
	// One more is Eventually's own.
	if !assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 30*time.Second, 5*time.Millisecond) {
		stacks := make([]byte, 1<<20)
		t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
	}
}
