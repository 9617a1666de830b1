package broker_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/store"
)

// stoppable returns a broker on m whose machine may stop.
func stoppable(t testing.TB, m *store.Memory) *broker.Broker {
	t.Helper()
	b, err := broker.New(&broker.Config{Store: m})
	require.NoError(t, err)
	return b
}

// restart ends b as a machine that stops and returns what comes up after it.
func restart(t testing.TB, b *broker.Broker, m *store.Memory) (*broker.Broker, *store.Memory) {
	t.Helper()
	next := m.Restart(nil)
	require.NoError(t, m.Close())
	b.Close()
	return stoppable(t, next), next
}

func TestSessionsAndRetainedMessagesOutliveTheMachine(t *testing.T) {
	m := store.NewMemory(nil)
	b := stoppable(t, m)
	sub := connect(t, b, "sub", keep(3600))
	sub.subscribe(packet.Subscription{Filter: "a/#", QoS: 2}, packet.Subscription{Filter: "$share/g/b", QoS: 1})
	sub.close()
	pub := connect(t, b, "pub", keep(3600))
	for i, q := range []packet.QoS{1, 2, 1, 2} {
		pub.publish(fmt.Sprintf("a/%d", i), fmt.Sprint("payload ", i), q)
	}
	pub.publish("b", "shared", 1)
	pub.send(&packet.Publish{Topic: "r/1", Payload: []byte("kept"), QoS: 1, PacketID: 9, Retain: true})
	receive[*packet.Puback](pub)
	pub.send(&packet.Publish{Topic: "r/2", Payload: []byte("gone"), QoS: 1, PacketID: 9, Retain: true})
	receive[*packet.Puback](pub)
	pub.send(&packet.Publish{Topic: "r/2", QoS: 1, PacketID: 9, Retain: true})
	receive[*packet.Puback](pub)
	// Received, PUBREL still to come.
	pub.send(&packet.Publish{Topic: "a/4", Payload: []byte("payload 4"), QoS: 2, PacketID: 11})
	receive[*packet.Pubrec](pub)

	b, m = restart(t, b, m)
	pub = dial(t, b)
	require.True(t, pub.connect("pub", keep(3600), resume).SessionPresent)
	pub.send(&packet.Publish{Topic: "a/4", Payload: []byte("payload 4"), QoS: 2, PacketID: 11, Dup: true})
	receive[*packet.Pubrec](pub)
	pub.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 11}})
	require.Equal(t, packet.Success, receive[*packet.Pubcomp](pub).Code)

	sub = dial(t, b)
	require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
	var ids []uint16
	for i, q := range []packet.QoS{1, 2, 1, 2} {
		p := sub.message(fmt.Sprintf("a/%d", i), fmt.Sprint("payload ", i))
		require.Equal(t, q, p.QoS)
		ids = append(ids, p.PacketID)
	}
	sub.message("b", "shared")
	sub.message("a/4", "payload 4")
	sub.send(&packet.Puback{Ack: packet.Ack{PacketID: ids[0]}}, &packet.Pubrec{Ack: packet.Ack{PacketID: ids[1]}})
	receive[*packet.Pubrel](sub)
	st := b.Stats().Store
	require.NotNil(t, st)
	require.Positive(t, st.Group.Commits)

	b, m = restart(t, b, m)
	sub = dial(t, b)
	require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
	require.Equal(t, ids[1], receive[*packet.Pubrel](sub).PacketID)
	p := receive[*packet.Publish](sub)
	require.Contains(t, []string{"a/0", "a/2"}, p.Topic, "its PUBACK promised nothing to anybody")
	if p.Topic == "a/0" {
		p = receive[*packet.Publish](sub)
	}
	require.True(t, p.Dup)
	require.Equal(t, ids[2], p.PacketID)
	p = sub.message("a/3", "payload 3")
	require.True(t, p.Dup)
	require.Equal(t, ids[3], p.PacketID)
	sub.message("b", "shared")
	sub.message("a/4", "payload 4")

	// A live subscriber gets what was retained.
	sub.send(&packet.Subscribe{PacketID: 3, Subscriptions: []packet.Subscription{{Filter: "r/+", QoS: 0}}})
	receive[*packet.Suback](sub)
	require.True(t, sub.message("r/1", "kept").Retain)
	sub.ping()
	require.Equal(t, 1, b.Stats().Retained)
	require.Equal(t, 2, b.Stats().Sessions)

	// A clean start takes everything away.
	sub.close()
	connect(t, b, "sub").close()
	connect(t, b, "pub").close()
	b.Close()
	require.Equal(t, 2, m.Len(), "the epoch and a retained message")
	require.NoError(t, m.Close())
}

func TestCloseDoesNotWaitForAStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stop atomic.Bool
		m := store.NewMemory(func(int) store.Fault { return store.Fault{Stop: stop.Load()} })
		var log logged
		b, err := broker.New(&broker.Config{Store: m, Logger: log.logger()})
		require.NoError(t, err)
		connect(t, b, "sub", keep(3600)).subscribed("x")
		pub := connect(t, b, "pub")
		stop.Store(true)
		pub.send(&packet.Publish{Topic: "x", QoS: 1, PacketID: 1}) // its PUBACK waits for the store
		synctest.Wait()
		began := time.Now()
		require.NoError(t, b.Close())
		require.Less(t, time.Since(began), time.Minute)
		require.Contains(t, log.String(), "does not return")
		pub.closed()
		require.NoError(t, m.Close())
	})
}
