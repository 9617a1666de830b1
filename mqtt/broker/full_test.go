package broker_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/store"
)

func TestAFullDiskRefusesPublishersAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		m := store.NewMemory(func(int) store.Fault {
			if full.Load() {
				return store.Fault{Err: syscall.ENOSPC}
			}
			return store.Fault{}
		})
		var log logged
		b, err := broker.New(&broker.Config{Store: m, Logger: log.logger()})
		require.NoError(t, err)
		sub := connect(t, b, "sub", keep(3600))
		sub.subscribe(packet.Subscription{Filter: "t/#", QoS: 2})
		plain := connect(t, b, "plain") // nothing of it is kept
		plain.subscribe(packet.Subscription{Filter: "t/#", QoS: 0})
		pub := connect(t, b, "pub", keep(3600))
		pub.publish("t/1", "before", 1)
		sub.message("t/1", "before")
		plain.message("t/1", "before")

		// What is under way when the disk is found full is not acknowledged: its
		// publisher is told at the end of the connection.
		synctest.Wait() // until what was delivered is written down: that is to find no full disk
		full.Store(true)
		pub.send(&packet.Publish{Topic: "t/2", Payload: []byte("on the way"), QoS: 1, PacketID: 8})
		require.Equal(t, packet.QuotaExceeded, receive[*packet.Disconnect](pub).Code)
		pub.closed()
		sub.message("t/2", "on the way")
		plain.message("t/2", "on the way")

		// Everything after it is refused, and nobody else sees it.
		pub = dial(t, b)
		require.Equal(t, packet.Success, pub.connect("pub", keep(3600), resume).Code, "an existing session goes on")
		for _, p := range []*packet.Publish{
			{Topic: "t/3", Payload: []byte("x"), QoS: 1, PacketID: 8, Dup: true},
			{Topic: "t/3", Payload: []byte("x"), QoS: 2, PacketID: 9},
			{Topic: "t/3", Payload: []byte("x"), QoS: 1, PacketID: 10, Retain: true},
		} {
			pub.send(p)
			if p.QoS == 1 {
				require.Equal(t, packet.QuotaExceeded, receive[*packet.Puback](pub).Code)
			} else {
				require.Equal(t, packet.QuotaExceeded, receive[*packet.Pubrec](pub).Code)
			}
		}
		pub.send(&packet.Subscribe{PacketID: 4, Subscriptions: []packet.Subscription{{Filter: "x", QoS: 1}}})
		require.Equal(t, []packet.ReasonCode{packet.QuotaExceeded}, receive[*packet.Suback](pub).Codes)
		pub.send(&packet.Publish{Topic: "t/4", Payload: []byte("nothing promised")})
		plain.message("t/4", "nothing promised")
		sub.message("t/4", "nothing promised")
		require.Equal(t, packet.QuotaExceeded, dial(t, b).connect("new", keep(3600)).Code)
		connect(t, b, "new, for now").close()

		// A client of 3.1.1 cannot be told: it is not acknowledged and loses the connection.
		old := connect(t, b, "old", v311)
		old.send(&packet.Publish{Topic: "t/5", Payload: []byte("x"), QoS: 2, PacketID: 8})
		old.closed()
		require.Contains(t, log.String(), "no space left on device")
		require.Equal(t, uint64(4), b.Stats().Store.Refused)
		require.True(t, b.Stats().Store.Group.Failing)

		// There is room again, and nobody has to be told.
		full.Store(false)
		time.Sleep(2 * time.Second) // it is tried once a second at least
		require.False(t, b.Stats().Store.Group.Failing)
		pub.publish("t/6", "after", 2)
		p := sub.message("t/6", "after")
		sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: p.PacketID}})
		receive[*packet.Pubrel](sub)

		// Nothing acknowledged, by either side, is lost.
		b, m = restart(t, b, m)
		sub = dial(t, b)
		require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
		require.Equal(t, p.PacketID, receive[*packet.Pubrel](sub).PacketID)
		require.True(t, sub.message("t/1", "before").Dup)
		require.True(t, sub.message("t/2", "on the way").Dup)
		sub.silent(time.Minute)
		b.Close()
		require.NoError(t, m.Close())
	})
}

func TestADamagedRecordIsLostAloneAndReported(t *testing.T) {
	m := store.NewMemory(nil)
	b := stoppable(t, m)
	sub := connect(t, b, "sub", keep(3600))
	sub.subscribe(packet.Subscription{Filter: "a", QoS: 2}, packet.Subscription{Filter: "b", QoS: 1})
	sub.close()
	pub := connect(t, b, "pub", keep(3600))
	for _, payload := range []string{"one", "two", "three"} {
		pub.publish("a", payload, 1)
	}
	for _, topic := range []string{"r/1", "r/2", "r/3"} {
		pub.send(&packet.Publish{Topic: topic, Payload: []byte("kept"), QoS: 1, PacketID: 9, Retain: true})
		receive[*packet.Puback](pub)
	}
	m2 := m.Restart(nil)
	require.NoError(t, m.Close())
	b.Close()

	// One record of every kind that there is.
	seen := map[store.Kind]bool{}
	m2.Change(func(key, value []byte) []byte {
		r, err := store.Decode(key, value)
		require.NoError(t, err)
		if seen[r.Kind] || r.Kind == store.Waiting || r.Kind == store.State && r.ClientID == "sub" {
			return nil // without its State a session loses everything
		}
		seen[r.Kind] = true
		value[len(value)/2] ^= 0x40
		return value
	})
	require.Len(t, seen, 5, "%v", seen)

	var log logged
	b, err := broker.New(&broker.Config{Store: m2, Logger: log.logger()})
	require.NoError(t, err)
	st := b.Stats()
	// The entry of the message that is lost goes with it.
	require.Equal(t, uint64(6), st.Store.Damaged, log.String())
	require.Contains(t, log.String(), "checksum does not match")
	require.Contains(t, log.String(), "retained message")
	require.NotContains(t, log.String(), "r/1")
	require.Equal(t, 1, st.Sessions, "nobody knows whose the other is")
	require.Contains(t, log.String(), "let go")
	require.Equal(t, 2, st.Retained)
	require.Equal(t, 1, st.Subscriptions)
	require.Equal(t, 2, st.Store.Messages)
	sub = dial(t, b)
	require.True(t, sub.connect("sub", keep(3600), resume).SessionPresent)
	for range 2 {
		require.Contains(t, []string{"one", "two", "three"}, string(receive[*packet.Publish](sub).Payload))
	}
	sub.ping()
	require.NoError(t, b.Close())

	// It is reported once.
	b, err = broker.New(&broker.Config{Store: m2})
	require.NoError(t, err)
	require.Zero(t, b.Stats().Store.Damaged)
	require.NoError(t, b.Close())
	require.NoError(t, m2.Close())
}

func TestAStoreThatCannotBeReadIsAnErrorOfNew(t *testing.T) {
	_, err := broker.New(&broker.Config{Store: unreadable{store.NewMemory(nil)}})
	require.ErrorContains(t, err, "cannot be read")
}

type unreadable struct{ *store.Memory }

func (unreadable) Load(func(key, value []byte) error) error { return errors.New("cannot be read") }
