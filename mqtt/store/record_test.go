package store_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/store"
)

func message(topic, payload string) *session.Message {
	return session.NewMessage(time.Unix(1, 0), &packet.Publish{
		Topic: topic, Payload: []byte(payload), QoS: 1, Retain: true,
		Properties: &packet.Properties{
			MessageExpiry: packet.Some[uint32](60), ContentType: "text", CorrelationData: []byte{1},
			User: []packet.UserProperty{{Key: "k", Value: "v"}},
		},
	}, "someone")
}

// every returns one record of each kind at least.
func every() []store.Record {
	will := message("will", "gone").Publish
	return []store.Record{
		{Kind: store.Epoch, Number: 7},
		{Kind: store.Message, Number: 1 << 50, Message: message("a/b", "payload")},
		{Kind: store.Message, Number: 1, Message: session.NewMessage(time.Time{}, &packet.Publish{Topic: "t", Payload: []byte{}, QoS: 2}, "")},
		{Kind: store.Delayed, Number: 1<<50 + 1, Message: message("a/b", "later"), Due: time.Unix(7, 8)},
		{Kind: store.Delayed, Number: 2, Message: message("new/b", "later"), Due: time.Unix(7, 8), Asked: "old/b",
			Client: &store.Client{Username: "u", Carrier: "tcp"}, State: session.State{Version: packet.V311}},
		{Kind: store.State, ClientID: "c", State: session.State{Version: packet.V311, Expiry: 1<<32 - 1, Since: time.Unix(5, 6)}},
		{Kind: store.State, ClientID: "c", State: session.State{Version: packet.V5, Will: &will, WillDelay: 9}},
		{Kind: store.State, ClientID: "c", Owner: "o", Client: &store.Client{}, State: session.State{Version: packet.V31}},
		{Kind: store.State, ClientID: "c", Client: &store.Client{Username: "u", Carrier: "quic", Network: "udp", Address: "192.0.2.1:4"},
			State: session.State{Version: packet.V5, Will: &will, WillDelay: 9}},
		{Kind: store.Subscription, ClientID: "c", Asked: "old/+", Subscription: session.Subscription{Subscription: packet.Subscription{Filter: "new/+"}, ID: 300}},
		{Kind: store.Subscription, ClientID: "c", Subscription: session.Subscription{
			Subscription: packet.Subscription{Filter: "$share/g/+", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, ID: 1<<28 - 1,
		}},
		{Kind: store.Waiting, ClientID: "c", Number: 3, MessageID: 8, Entry: session.Entry{Seq: 3, QoS: 1, Retain: true, SubscriptionIDs: []uint32{1, 1 << 27}}},
		{Kind: store.Inflight, ClientID: "c", Number: 4, MessageID: 9, Entry: session.Entry{Seq: 4, QoS: 2}},
		{Kind: store.Released, ClientID: "c", Number: 5, Order: 1<<32 - 1, Entry: session.Entry{Seq: 5}},
		{Kind: store.Received, ClientID: "c", ID: 65535},
		{Kind: store.Partial, ClientID: "c", ID: 1, Recipient: "d", Hash: 1 << 63},
		{Kind: store.Retained, Message: message("topic", "kept")},
	}
}

func encode(t testing.TB, r *store.Record) (key, value []byte) {
	t.Helper()
	key = r.AppendKey(nil)
	value, err := r.AppendValue(nil, key)
	require.NoError(t, err)
	return key, value
}

func TestEveryRecordIsReadAsItWasWritten(t *testing.T) {
	for _, r := range every() {
		t.Run(r.Kind.String(), func(t *testing.T) {
			key, value := encode(t, &r)
			got, err := store.Decode(key, value)
			require.NoError(t, err)
			require.Equal(t, r, got)
		})
	}
}

func TestEveryDamageToARecordIsFoundOut(t *testing.T) {
	for _, r := range every() {
		key, value := encode(t, &r)
		for i := range value {
			for bit := range 8 {
				bad := bytes.Clone(value)
				bad[i] ^= 1 << bit
				_, err := store.Decode(key, bad)
				require.Error(t, err, "%v, byte %d", r.Kind, i)
			}
			_, err := store.Decode(key, value[:i])
			require.Error(t, err, "%v, cut at %d", r.Kind, i)
		}
		for i := range key {
			bad := bytes.Clone(key)
			bad[i] ^= 1
			_, err := store.Decode(bad, value)
			require.Error(t, err, "%v, byte %d of the key", r.Kind, i)
		}
	}
}

func TestARecordOfANewerVersionIsNotGuessedAt(t *testing.T) {
	r := store.Record{Kind: store.Epoch, Number: 7}
	key, value := encode(t, &r)
	value = reseal(key, append([]byte{2}, value[1:len(value)-4]...))
	_, err := store.Decode(key, value)
	require.ErrorContains(t, err, "newer version")
}

// reseal completes a version and a body with their checksum.
func reseal(key, body []byte) []byte {
	sum := crc32.Checksum(append(bytes.Clone(key), body...), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), sum)
}

// Whatever lies in the store, decoding neither panics nor makes of it something that
// would be written otherwise.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range every() {
		key, value := encode(f, &r)
		f.Add(key, value[1:len(value)-4])
	}
	f.Fuzz(func(t *testing.T, key, body []byte) {
		if _, err := store.Decode(key, body); err == nil {
			require.GreaterOrEqual(t, len(body), 5)
		}
		r, err := store.Decode(key, reseal(key, append([]byte{1}, body...)))
		if err != nil {
			return
		}
		k := r.AppendKey(nil)
		if r.Kind != store.Retained {
			require.Equal(t, key, k)
		}
		v, err := r.AppendValue(nil, k)
		require.NoError(t, err)
		again, err := store.Decode(k, v)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
