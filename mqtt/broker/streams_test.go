package broker_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A manyLink is a Link with data streams, each a pipe.
type manyLink struct {
	mqtt.Link // the control stream's
	streams   chan mqtt.Stream
	mu        sync.Mutex
	resets    map[mqtt.StreamID]uint64
}

func (l *manyLink) Carrier() mqtt.Carrier { return mqtt.QUIC }

func (l *manyLink) AcceptStream(ctx context.Context) (mqtt.Stream, error) {
	select {
	case s := <-l.streams:
		return s, nil
	case <-l.Context().Done():
		return nil, net.ErrClosed
	}
}

type manyStream struct {
	mqtt.Stream
	link *manyLink
	id   mqtt.StreamID
}

func (s *manyStream) ID() mqtt.StreamID { return s.id }

func (s *manyStream) Reset(code uint64) {
	s.link.mu.Lock()
	s.link.resets[s.id] = code
	s.link.mu.Unlock()
	s.Stream.Reset(code)
}

func (l *manyLink) reset(id mqtt.StreamID) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	code, ok := l.resets[id]
	return code, ok
}

// open opens the peer's next stream.
func (l *manyLink) open(t *testing.T, id mqtt.StreamID) *peer {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	inner := mqtt.NewConnLink(theirs, mqtt.QUIC)
	s, err := inner.AcceptStream(t.Context())
	require.NoError(t, err)
	context.AfterFunc(l.Context(), func() { theirs.Close() })
	l.streams <- &manyStream{s, l, id}
	return &peer{t: t, conn: ours, r: mqtt.NewReader(ours, 0), v: packet.V5}
}

func newManyLink(t *testing.T, b *broker.Broker) (*manyLink, chan struct{}) {
	x, y := net.Pipe()
	t.Cleanup(func() { x.Close(); y.Close() })
	l := &manyLink{Link: mqtt.NewConnLink(y, mqtt.QUIC), streams: make(chan mqtt.Stream, 100), resets: map[mqtt.StreamID]uint64{}}
	end := make(chan struct{})
	go func() {
		defer close(end)
		b.ServeLink(context.Background(), l)
	}()
	return l, end
}

func TestDataStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l, end := newManyLink(t, b)
		control := l.open(t, 0)
		early := l.open(t, 4) // before CONNECT: waits
		require.Equal(t, packet.Success, control.connect("a").Code)
		early.subscribe(packet.Subscription{Filter: "t", QoS: 1})

		data := l.open(t, 8)
		data.publish("t", "one", 1)    // acknowledged where it arrived
		m := early.message("t", "one") // delivered where it was subscribed
		early.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})

		// A broken rule ends the stream and nothing else.
		data.send(&packet.Pingreq{})
		_, err := data.read()
		require.Error(t, err)
		code, ok := l.reset(8)
		require.True(t, ok)
		require.EqualValues(t, packet.ProtocolError, code)
		bad := l.open(t, 12)
		bad.sendBytes(0x00, 0x00)
		_, err = bad.read()
		require.Error(t, err)
		code, _ = l.reset(12)
		require.EqualValues(t, packet.MalformedPacket, code)
		control.ping()

		// The subscription moves when its stream ends.
		early.conn.Close()
		synctest.Wait()
		control.publish("t", "two", 0)
		control.message("t", "two")

		control.conn.Close()
		<-end
		require.Zero(t, b.Stats().Connections[mqtt.QUIC].Now)
	})
}

func TestALinkWithoutAControlStreamIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		began := time.Now()
		_, end := newManyLink(t, b)
		<-end
		require.InDelta(t, 10*time.Second, time.Since(began), float64(50*time.Millisecond))
	})
}

func TestTakeoverResetsTheControlStreamWithItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		l, end := newManyLink(t, b)
		old := l.open(t, 0)
		require.Equal(t, packet.Success, old.connect("a").Code)
		connect(t, b, "a")
		require.Equal(t, packet.SessionTakenOver, receive[*packet.Disconnect](old).Code)
		<-end
		code, _ := l.reset(0)
		require.EqualValues(t, packet.SessionTakenOver, code)
	})
}
