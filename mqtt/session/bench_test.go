package session_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

func attached(tb testing.TB, p *packet.Properties) *session.Session {
	s := session.New("client", session.Limits{})
	s.Attach(start, &packet.Connect{Version: packet.V5, KeepAlive: 60, Properties: p}, session.Attach{})
	o, ok := s.Next(start, mqtt.ControlStream)
	require.True(tb, ok)
	require.IsType(tb, (*packet.Connack)(nil), o.Packet)
	return s
}

// A PUBLISH of 64 bytes comes in and is to be routed.
func BenchmarkReceiveQoS0(b *testing.B) {
	s := attached(b, nil)
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64)}
	fx := make([]session.Effect, 0, 1)
	b.ReportAllocs()
	for b.Loop() {
		fx = s.Receive(fx[:0], start, mqtt.ControlStream, p)
	}
	require.Len(b, fx, 1)
}

func BenchmarkReceiveQoS1(b *testing.B) {
	s := attached(b, nil)
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64), QoS: 1, PacketID: 1}
	fx := make([]session.Effect, 0, 1)
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		fx = s.Receive(fx[:0], start, mqtt.ControlStream, p)
		s.Routed(start, mqtt.ControlStream, 1, 0)
		o, _ := s.Next(start, mqtt.ControlStream)
		buf, _ = o.Append(buf[:0], packet.V5, start)
	}
	require.Len(b, buf, 4)
}

// A message is delivered to a subscriber, taken and encoded.
func benchmarkDeliver(b *testing.B, qos packet.QoS, p *packet.Properties) {
	s := attached(b, p)
	m := session.NewMessage(start, &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64)}, "other")
	ack := &packet.Puback{}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		s.Deliver(start, m, session.Delivery{QoS: qos})
		o, ok := s.Next(start, mqtt.ControlStream)
		if !ok {
			b.Fatal("nothing to send")
		}
		buf, _ = o.Append(buf[:0], packet.V5, start)
		if qos > 0 {
			ack.PacketID = o.ID
			s.Receive(nil, start, mqtt.ControlStream, ack)
		}
	}
	require.Greater(b, len(buf), 64)
}

func BenchmarkDeliverQoS0(b *testing.B) { benchmarkDeliver(b, 0, nil) }
func BenchmarkDeliverQoS1(b *testing.B) { benchmarkDeliver(b, 1, nil) }
func BenchmarkDeliverQoS0Alias(b *testing.B) {
	benchmarkDeliver(b, 0, &packet.Properties{TopicAliasMaximum: packet.Some[uint16](8)})
}

func TestNextDoesNotAllocate(t *testing.T) {
	s := attached(t, nil)
	m := session.NewMessage(start, &packet.Publish{Topic: "topic", Payload: make([]byte, 64)}, "other")
	buf := make([]byte, 0, 256)
	ack := &packet.Puback{}
	for qos := range packet.QoS(2) {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			s.Deliver(start, m, session.Delivery{QoS: qos, SubscriptionIDs: []uint32{1}})
			o, _ := s.Next(start, mqtt.ControlStream)
			buf, _ = o.Append(buf[:0], packet.V5, start)
			ack.PacketID = o.ID
			s.Receive(nil, start, mqtt.ControlStream, ack)
		}), "QoS %d", qos)
	}
}

func TestAnIdleSessionIsSmall(t *testing.T) {
	const n = 10000
	all := make([]*session.Session, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range all {
		all[i] = attached(t, &packet.Properties{SessionExpiry: packet.Some[uint32](60)})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("an idle connected session: %d bytes", each)
	require.Less(t, each, 600)
	require.Equal(t, start.Add(90*time.Second), all[n-1].Deadline())
}

// A message comes for each of 100 subscribers that take nothing: their queues
// are full, and the oldest messages make room.
func BenchmarkDeliverToStalled(b *testing.B) {
	const subscribers = 100
	var all [subscribers]*session.Session
	for i := range all {
		all[i] = attached(b, nil)
	}
	p := &packet.Publish{Topic: "bench/topic", Payload: make([]byte, 64)}
	deliver := func() {
		m := session.NewMessage(start, p, "other")
		for _, s := range all {
			for s.Deliver(start, m, session.Delivery{}) == session.Full {
				s.Overflow(start)
			}
		}
	}
	for range 3000 {
		deliver()
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%subscribers == 0 {
			deliver()
		}
	}
}

// A message comes for a client that is offline, whose queue is full of messages
// of QoS 1: each that expires makes room for one.
func BenchmarkDeliverToOffline(b *testing.B) {
	s := attached(b, &packet.Properties{SessionExpiry: packet.Some[uint32](3600)})
	s.Detach(nil, start)
	p := &packet.Publish{
		Topic: "bench/topic", Payload: make([]byte, 64), QoS: 1,
		Properties: &packet.Properties{MessageExpiry: packet.Some[uint32](1)},
	}
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond / 4)
		m := session.NewMessage(now, p, "other")
		if s.Deliver(now, m, session.Delivery{QoS: 1}) == session.Full {
			s.Overflow(now)
			s.Deliver(now, m, session.Delivery{QoS: 1})
		}
	}
}
