package broker_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
)

// A slowStore takes its time after everything has been read.
type slowStore struct {
	*store.Memory
	pause time.Duration
	err   error
}

func (s *slowStore) Load(f func(key, value []byte) error) error {
	if err := s.Memory.Load(f); err != nil {
		return err
	}
	time.Sleep(s.pause)
	return s.err
}

// putRetained stores n messages, expiring at a time unless that is zero.
func putRetained(t testing.TB, s store.Store, n int, expires time.Time) {
	t.Helper()
	var b store.Batch
	for i := range n {
		m := session.NewMessage(time.Time{}, &packet.Publish{
			Topic: fmt.Sprintf("r/%d/%d", i%50, i), Payload: fmt.Append(nil, i), Retain: true,
		}, fmt.Sprint("publisher", i%3))
		m.Expires = expires
		r := store.Record{Kind: store.Retained, Message: m}
		key := r.AppendKey(nil)
		value, err := r.AppendValue(nil, key)
		require.NoError(t, err)
		b.Put(key, value)
	}
	require.NoError(t, s.Apply(&b, true))
}

func TestARetainedMessageThatExpiresWhileTheStoreIsReadLeavesTheStoreAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages = 1000 // more than are decoded at once
		m := store.NewMemory(nil)
		putRetained(t, m, messages, time.Now().Add(5*time.Second))
		b, err := broker.New(&broker.Config{Store: &slowStore{Memory: m, pause: time.Minute}})
		require.NoError(t, err)
		time.Sleep(time.Second) // the last ones were not yet decoded when they expired
		require.Zero(t, b.Stats().Retained)
		require.NoError(t, b.Close())
		require.Equal(t, 1, m.Len(), "the epoch")
	})
}

func TestEveryRecordOfAStoreLargerThanWhatIsReadAheadIsLoaded(t *testing.T) {
	const messages = 20_000
	m := store.NewMemory(nil)
	putRetained(t, m, messages, time.Time{})
	b := stoppable(t, m)
	require.Equal(t, messages, b.Stats().Retained)
	sub := connect(t, b, "sub")
	sub.subscribe(packet.Subscription{Filter: "r/+/19999", QoS: 0})
	sub.message("r/49/19999", "19999")
	require.NoError(t, b.Close())
}

func TestAMessageThatFoundNoRoomIsClearedInTheStoreAsWell(t *testing.T) {
	const messages = 10
	m := store.NewMemory(nil)
	putRetained(t, m, messages, time.Time{})
	b, err := broker.New(&broker.Config{Store: m, MaxRetained: 1})
	require.NoError(t, err)
	require.Equal(t, 1, b.Stats().Retained)
	pub := connect(t, b, "pub")
	for i := range messages - 1 { // but for the last topic
		pub.send(&packet.Publish{Topic: fmt.Sprintf("r/%d/%d", i, i), Retain: true, QoS: 1, PacketID: 1})
		require.Equal(t, packet.Success, receive[*packet.Puback](pub).Code&0x80)
	}
	require.NoError(t, b.Close())

	b = stoppable(t, m)
	require.Equal(t, 1, b.Stats().Retained)
	sub := connect(t, b, "sub")
	sub.subscribe(packet.Subscription{Filter: "#"})
	sub.message("r/9/9", "9")
	require.NoError(t, b.Close())
}

func TestAStoreThatCannotBeReadEndsTheStart(t *testing.T) {
	m := store.NewMemory(nil)
	putRetained(t, m, 1000, time.Time{})
	_, err := broker.New(&broker.Config{Store: &slowStore{Memory: m, err: errors.New("a block is damaged")}})
	require.ErrorContains(t, err, "a block is damaged")
}
