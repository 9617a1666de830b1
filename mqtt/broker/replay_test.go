package broker_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// keepMany has the broker keep n messages under t/, and a queue that holds a few.
func keepMany(t *testing.T, n int) *broker.Broker {
	t.Helper()
	b := newBroker(t, &broker.Config{Limits: session.Limits{QueueBytes: 16 << 10}})
	pub := connect(t, b, "pub")
	for i := range n {
		pub.send(&packet.Publish{Topic: fmt.Sprint("t/", i), Payload: make([]byte, 1<<10), Retain: true, QoS: 1, PacketID: 1})
		receive[*packet.Puback](pub)
	}
	return b
}

func TestRetainedMessagesThatWaitGoOutAsEachSubscriptionAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		b := keepMany(t, n)
		sub := connect(t, b, "sub")
		asked := []packet.QoS{0, 1, 0}
		for i, qos := range asked {
			sub.send(&packet.Subscribe{
				PacketID: uint16(i + 1), Subscriptions: []packet.Subscription{{Filter: []string{"t/#", "+/#", "#"}[i], QoS: qos}},
				Properties: &packet.Properties{SubscriptionIDs: []uint32{uint32(i + 1)}},
			})
		}
		var subacks int
		seen := make([]map[string]bool, len(asked))
		for i := 0; i < n*len(asked); {
			p, err := sub.read()
			require.NoError(t, err)
			if _, ok := p.(*packet.Suback); ok {
				subacks++
				continue
			}
			m := p.(*packet.Publish)
			require.True(t, m.Retain)
			at := i / n // one subscription's messages after the other's
			require.Equal(t, []uint32{uint32(at + 1)}, m.Properties.SubscriptionIDs)
			require.Equal(t, asked[at], m.QoS)
			if m.QoS == 1 {
				sub.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})
			}
			if seen[at] == nil {
				seen[at] = map[string]bool{}
			}
			seen[at][m.Topic] = true
			i++
		}
		require.Equal(t, len(asked), subacks)
		for _, topics := range seen {
			require.Len(t, topics, n)
		}
		sub.ping()
	})
}

func TestWhoSubscribesFasterThanItTakesRetainedMessagesIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		b := keepMany(t, n)
		sub := connect(t, b, "sub")
		again, err := (&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "#"}}}).Append(nil, packet.V5)
		require.NoError(t, err)
		go func() { // ends when the broker has taken them, or with the connection
			for i := 0; i < 10 && err == nil; i++ {
				_, err = sub.conn.Write(again)
			}
		}()
		synctest.Wait()
		for {
			p, err := sub.read()
			require.NoError(t, err)
			if d, ok := p.(*packet.Disconnect); ok {
				require.Equal(t, packet.QuotaExceeded, d.Code)
				break
			}
		}
		sub.closed()
		require.Zero(t, b.Stats().QueuedBytes)
	})
}
