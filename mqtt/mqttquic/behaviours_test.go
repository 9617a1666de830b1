package mqttquic_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// canceller is what a stream of this package can do beyond mqtt.Stream.
type canceller interface {
	CancelRead(code transport.ErrorCode)
	CancelWrite(code transport.ErrorCode)
}

// ends are the ways in which a client can end a stream.
var ends = map[string]func(s mqtt.Stream){
	"graceful":   func(s mqtt.Stream) { _ = s.CloseWrite() },
	"abort send": func(s mqtt.Stream) { s.(canceller).CancelWrite(0x42) },
	"abort recv": func(s mqtt.Stream) { s.(canceller).CancelRead(0x42) },
	"abort both": func(s mqtt.Stream) { s.Reset(0x42) },
}

func TestAControlStreamThatEndsInAnyWayEndsTheConnection(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			withBroker(t, nil, func(w *world) {
				l, control := w.client(w.dialer(), "c")
				data := w.open(l)
				data.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
				expect[*packet.Suback](data)
				end(control.Stream)
				require.Equal(w, mqtt.LinkControlDown, w.closedWith(l.(*mqttquic.Link)))
				_, err := data.receive()
				require.Error(w, err)

				// The session waits for the next connection.
				l, control = w.client(w.dialer(), "c")
				control.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: 1})
				for range 2 { // in either order
					pk, err := control.receive()
					require.NoError(w, err)
					if p, ok := pk.(*packet.Publish); ok {
						require.Equal(w, "t", p.Topic)
					} else {
						require.IsType(w, &packet.Puback{}, pk)
					}
				}
				require.NoError(w, l.CloseWithCode(mqtt.LinkNormal))
			})
		})
	}
}

func TestADataStreamThatEndsInAnyWayLeavesTheConnection(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			withBroker(t, nil, func(w *world) {
				l, control := w.client(w.dialer(), "c")

				// One that published.
				pub := w.open(l)
				pub.send(&packet.Publish{Topic: "x", QoS: 1, PacketID: 1})
				expect[*packet.Puback](pub)
				end(pub.Stream)
				if name == "graceful" || name == "abort send" {
					_, err := pub.receive()
					if name == "graceful" {
						require.Equal(w, io.EOF, err)
					} else {
						var reset *mqtt.StreamError
						require.ErrorAs(w, err, &reset)
						require.Equal(w, mqtt.StreamError{Code: 0x42, Remote: true}, mqtt.StreamError{Code: reset.Code, Remote: reset.Remote}, "the code comes back")
					}
				}
				control.ping()

				// One that subscribed, with a message that is not acknowledged.
				sub := w.open(l)
				sub.send(&packet.Subscribe{PacketID: 2, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 2}}})
				expect[*packet.Suback](sub)
				control.send(&packet.Publish{Topic: "t", QoS: 2, Payload: []byte("first"), PacketID: 3})
				require.Equal(w, "first", string(expect[*packet.Publish](sub).Payload))
				require.IsType(w, &packet.Pubrec{}, expect[*packet.Pubrec](control))
				end(sub.Stream)
				again := expect[*packet.Publish](control)
				require.Equal(w, "first", string(again.Payload))
				require.True(w, again.Dup)
				control.send(&packet.Publish{Topic: "t", Payload: []byte("second")})
				require.Equal(w, "second", string(expect[*packet.Publish](control).Payload))
				control.ping()
				require.NoError(w, l.Context().Err())

				// Its place is free again.
				for range 40 {
					s := w.open(l)
					s.send(&packet.Publish{Topic: "x", QoS: 1, PacketID: 9})
					expect[*packet.Puback](s)
					end(s.Stream)
				}
				control.ping()
			})
		})
	}
}

func TestTakeoverEndsDataStreamsWithItsCode(t *testing.T) {
	withBroker(t, nil, func(w *world) {
		l, control := w.client(w.dialer(), "c")
		data := w.open(l)
		data.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		expect[*packet.Suback](data)
		w.client(w.dialer(), "c")
		require.Equal(w, packet.SessionTakenOver, expect[*packet.Disconnect](control).Code)
		_, err := data.receive()
		var reset *mqtt.StreamError
		require.ErrorAs(w, err, &reset)
		require.EqualValues(w, packet.SessionTakenOver, reset.Code)
		require.True(w, reset.Remote)
		time.Sleep(latency) // STOP_SENDING may have a packet of its own
		_, err = data.Write([]byte{0xC0, 0})
		require.ErrorAs(w, err, &reset, "STOP_SENDING")
		start := time.Now()
		require.Equal(w, mqtt.LinkNormal, w.closedWith(l.(*mqttquic.Link)), "even if the old client is silent")
		require.LessOrEqual(w, time.Since(start), 1100*time.Millisecond)
	})
}

// overTLS connects a client over TLS, on a pipe.
func (w *world) overTLS(b *broker.Broker, id string) *mqttPeer {
	w.Helper()
	x, y := net.Pipe()
	w.Cleanup(func() { x.Close(); y.Close() })
	go b.ServeLink(w.Context(), mqtt.NewConnLink(tls.Server(y, w.serverTLS), mqtt.TLS)) // ends with the pipe
	s, err := mqtt.NewConnLink(tls.Client(x, w.clientTLS), mqtt.TLS).OpenStream(w.Context())
	require.NoError(w, err)
	p := w.mqttPeer(s)
	p.send(connectPacket(id))
	require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
	return p
}

func TestSessionsAreTakenOverBetweenTLSAndQUIC(t *testing.T) {
	withBrokerStats(t, nil, func(w *world, b *broker.Broker) {
		first := w.overTLS(b, "c")
		l, second := w.client(w.dialer(), "c")
		require.Equal(w, packet.SessionTakenOver, expect[*packet.Disconnect](first).Code)
		data := w.open(l)
		data.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		expect[*packet.Suback](data)
		second.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: 1, Payload: []byte("in flight")})
		expect[*packet.Publish](data)

		third := w.overTLS(b, "c")
		require.IsType(w, &packet.Puback{}, expect[*packet.Puback](second))
		require.Equal(w, packet.SessionTakenOver, expect[*packet.Disconnect](second).Code)
		again := expect[*packet.Publish](third)
		require.Equal(w, "in flight", string(again.Payload))
		require.True(w, again.Dup)
	})
	withEarly(t, mqtt.EarlyConnect, func(w *world, b *broker.Broker, d *mqttquic.Dialer) {
		first := w.overTLS(b, "c")
		_, second := w.firstFlight(d, connectPacket("c"))
		require.Equal(w, packet.SessionTakenOver, expect[*packet.Disconnect](first).Code)
		require.True(w, expect[*packet.Connack](second).SessionPresent)
		second.ping()
	})
}

func TestAClientThatVanishesIsDisconnectedByItsKeepAlive(t *testing.T) {
	withBrokerStats(t, nil, func(w *world, b *broker.Broker) {
		l, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
		require.NoError(w, err)
		p := w.open(l)
		connect := connectPacket("c")
		connect.KeepAlive = 10
		p.send(connect)
		expect[*packet.Connack](p)
		w.router.down.Store(true)
		start := time.Now()
		for b.Stats().Connections[mqtt.QUIC].Now > 0 {
			time.Sleep(time.Second)
			require.Less(w, time.Since(start), time.Minute)
		}
		require.InDelta(w, 16, time.Since(start).Seconds(), 2, "one and a half times the keep-alive, and a second to close")
		require.EqualValues(w, 1, b.Stats().Disconnects[packet.KeepAliveTimeout])
	})
}

func TestTheListenersSettingsAreWhatClientsGet(t *testing.T) {
	simulate(t, &mqttquic.ListenConfig{MaxStreams: 12, StreamWindow: 64 << 10, ConnWindow: 128 << 10, IdleTimeout: 20 * time.Second, KeepAlive: -1}, func(w *world, _ transport.Transport) {
		d := w.dialer()
		d.KeepAlive = -1
		c, err := d.DialLink(w.Context(), serverURL, w.clientTLS)
		require.NoError(w, err)
		s, err := w.listener.Accept(w.Context())
		require.NoError(w, err)
		var streams []mqtt.Stream
		for range 12 {
			s, err := c.OpenStream(w.Context())
			require.NoError(w, err)
			streams = append(streams, s)
		}
		_, err = c.OpenStream(w.within(time.Second))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		require.NoError(w, streams[0].SetWriteDeadline(time.Now().Add(5*time.Second)))
		n, err := streams[0].Write(make([]byte, 1<<20))
		require.ErrorIs(w, err, os.ErrDeadlineExceeded)
		require.Less(w, n, 512<<10)
		start := time.Now()
		<-s.Context().Done()
		require.InDelta(w, 20, time.Since(start).Seconds(), 6)
	})
}

// Nobody reads data streams before CONNECT: QUIC's flow control bounds what they
// cost.
func TestWhatAClientSendsBeforeItsConnectIsBounded(t *testing.T) {
	withBroker(t, nil, func(w *world) {
		l, err := w.dialer().DialLink(w.Context(), serverURL, w.clientTLS)
		require.NoError(w, err)
		w.open(l)
		start := time.Now()
		sent := make(chan int, 15)
		for range cap(sent) {
			s := w.open(l)
			require.NoError(w, s.SetWriteDeadline(start.Add(5*time.Second)))
			go func() { // ends with the deadline
				n, _ := s.Write(make([]byte, 1<<20))
				sent <- n
			}()
		}
		total := 0
		for range cap(sent) {
			total += <-sent
		}
		require.Less(w, l.(*mqttquic.Link).Conn().Stats().BytesSent, uint64(3<<20), "the connection's window, and packets")
		require.Less(w, total, 15<<20)
		w.closedWith(l.(*mqttquic.Link)) // in time
		require.InDelta(w, 10, time.Since(start).Seconds(), 1)
	})
}

func TestDialingWhereNobodyListensFailsInTime(t *testing.T) {
	simulate(t, nil, func(w *world, _ transport.Transport) {
		require.NoError(w, w.listener.CloseNow())
		d := w.dialer()
		d.HandshakeTimeout = 5 * time.Second
		start := time.Now()
		_, err := d.DialLink(w.Context(), serverURL, w.clientTLS)
		require.Error(w, err)
		require.LessOrEqual(w, time.Since(start), 6*time.Second)
		synctest.Wait()
	})
}
