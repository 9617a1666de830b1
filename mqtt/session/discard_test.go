package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func TestWhatWaitsIsDiscardedByTopicAndWhatIsInFlightGoesOn(t *testing.T) {
	now := time.Unix(1, 0)
	s := session.New("c", session.Limits{})
	s.Attach(now, &packet.Connect{Version: packet.V5, ClientID: "c", Properties: &packet.Properties{ReceiveMaximum: packet.Some[uint16](1)}}, session.Attach{})
	deliver := func(topic string, q packet.QoS) {
		m := session.NewMessage(now, &packet.Publish{Topic: topic, QoS: q}, "p")
		require.Equal(t, session.Queued, s.Deliver(now, m, session.Delivery{QoS: q}))
	}
	next := func() string {
		for {
			o, ok := s.Next(now, mqtt.ControlStream)
			switch {
			case !ok:
				return ""
			case o.Message != nil:
				return o.Message.Publish.Topic
			}
		}
	}
	deliver("no", 1)
	require.Equal(t, "no", next())
	for _, q := range []packet.QoS{0, 1, 2} {
		deliver("no", q)
		deliver("yes", q)
	}
	before := s.QueueBytes()
	require.Equal(t, 3, s.Discard(func(topic string) bool { return topic == "no" }))
	require.Less(t, s.QueueBytes(), before)
	require.Equal(t, 1, s.Inflight())
	require.Equal(t, "yes", next())
	require.Empty(t, next(), "the window is full")
	s.Receive(nil, now, mqtt.ControlStream, &packet.Puback{Ack: packet.Ack{PacketID: 1}})
	require.Equal(t, "yes", next())
	s.Receive(nil, now, mqtt.ControlStream, &packet.Puback{Ack: packet.Ack{PacketID: 2}})
	require.Equal(t, "yes", next())
	s.Receive(nil, now, mqtt.ControlStream, &packet.Pubrec{Ack: packet.Ack{PacketID: 3}})
	require.Zero(t, s.QueueBytes())
}
