package broker_test

import (
	"context"
	"net"
	"strings"
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

// Abandoned implements mqtt.Stream.
func (s *manyStream) Abandoned() error {
	if code, ok := s.link.reset(s.id); ok {
		return &mqtt.StreamError{Code: code}
	}
	return nil
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

// abandon is the peer's reset of a stream.
func (l *manyLink) abandon(id mqtt.StreamID, p *peer) {
	l.mu.Lock()
	l.resets[id] = 0
	l.mu.Unlock()
	p.conn.Close()
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

// What a client has sent on a stream that it has reset since, it may have sent again
// on another: the broker must not come to the former when it is done with the latter.
func TestWhatWasReadAheadOnAStreamThatIsResetIsNotObeyed(t *testing.T) {
	for _, dup := range []packet.Packet{
		&packet.Publish{Topic: "t", Payload: []byte("twice"), QoS: packet.ExactlyOnce, PacketID: 7},
		&packet.Publish{Topic: "t", Payload: []byte("twice")},
		&packet.Subscribe{PacketID: 7, Subscriptions: []packet.Subscription{{Filter: "late"}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			b := newBroker(t, &broker.Config{ACL: &aclFunc{
				f: func(_ context.Context, _ *broker.ClientInfo, _ broker.Action, topic string) (bool, error) {
					if topic == "slow" {
						<-release
					}
					return true, nil
				},
			}})
			sub := connect(t, b, "sub")
			sub.subscribe(packet.Subscription{Filter: "t", QoS: packet.ExactlyOnce})
			l, end := newManyLink(t, b)
			control := l.open(t, 0)
			require.Equal(t, packet.Success, control.connect("a").Code)
			first := l.open(t, 4)
			first.send(&packet.Publish{Topic: "slow"}, dup) // the broker reads them together
			synctest.Wait()
			l.abandon(4, first)

			next := l.open(t, 8)
			next.send(&packet.Publish{Topic: "t", Payload: []byte("once"), QoS: packet.ExactlyOnce, PacketID: 7, Dup: true})
			receive[*packet.Pubrec](next)
			m := sub.message("t", "once")
			sub.send(&packet.Pubrec{Ack: packet.Ack{PacketID: m.PacketID}})
			receive[*packet.Pubrel](sub)
			sub.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: m.PacketID}})
			next.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 7}})
			receive[*packet.Pubcomp](next)

			close(release)
			synctest.Wait()
			sub.silent(time.Second)
			require.EqualValues(t, 1, b.Stats().Subscriptions, "the subscriber's alone")
			control.ping()
			control.conn.Close()
			<-end
		})
	}
}

// After the first packet that breaks the protocol the others on its stream count for
// nothing, and the log has one line.
func TestADataStreamThatBrokeTheProtocolIsHeardNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		b := newBroker(t, &broker.Config{Logger: log.logger()})
		sub := connect(t, b, "sub")
		sub.subscribe(packet.Subscription{Filter: "t"})
		l, end := newManyLink(t, b)
		control := l.open(t, 0)
		require.Equal(t, packet.Success, control.connect("a").Code)
		data := l.open(t, 4)
		var out []byte
		for range 30 { // less than the broker reads at once
			out = append(out, encode(t, packet.V5, &packet.Publish{Properties: &packet.Properties{TopicAlias: packet.Some[uint16](1)}})...)
			out = append(out, encode(t, packet.V5, &packet.Publish{Topic: "t"})...)
		}
		data.sendBytes(out...)
		_, err := data.read()
		require.Error(t, err)
		code, ok := l.reset(4)
		require.True(t, ok)
		require.EqualValues(t, packet.ProtocolError, code)
		control.ping()
		sub.silent(time.Second)
		require.Equal(t, 1, strings.Count(log.String(), "stream reset"), log.String())
		require.EqualValues(t, 1, b.Stats().DataStreams.Reset)
		control.conn.Close()
		<-end
	})
}
