package mqttquic_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
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

// A mqttPeer is a stream on which a test speaks MQTT 5 packet by packet.
type mqttPeer struct {
	w *world
	mqtt.Stream
	in *mqtt.Reader
}

func (w *world) mqttPeer(s mqtt.Stream) *mqttPeer { return &mqttPeer{w, s, mqtt.NewReader(s, 0)} }

func (w *world) open(l mqtt.Link) *mqttPeer {
	w.Helper()
	s, err := l.OpenStream(w.Context())
	require.NoError(w, err)
	return w.mqttPeer(s)
}

func (p *mqttPeer) send(pks ...packet.Packet) {
	p.w.Helper()
	var b []byte
	for _, pk := range pks {
		var err error
		b, err = pk.Append(b, packet.V5)
		require.NoError(p.w, err)
	}
	_, err := p.Write(b)
	require.NoError(p.w, err)
}

// receive returns the next packet, or what ended the stream.
func (p *mqttPeer) receive() (packet.Packet, error) {
	h, body, err := p.in.Next()
	if err != nil {
		return nil, err
	}
	return packet.Decode(h, bytes.Clone(body), packet.V5)
}

func expect[T packet.Packet](p *mqttPeer) T {
	p.w.Helper()
	pk, err := p.receive()
	require.NoError(p.w, err)
	require.IsType(p.w, *new(T), pk)
	return pk.(T)
}

func (p *mqttPeer) ping() {
	p.w.Helper()
	p.send(&packet.Pingreq{})
	expect[*packet.Pingresp](p)
}

func connectPacket(id string) *packet.Connect {
	return &packet.Connect{Version: packet.V5, ClientID: id, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](3600)}}
}

// client connects in full and returns the control stream.
func (w *world) client(d *mqttquic.Dialer, id string) (mqtt.Link, *mqttPeer) {
	w.Helper()
	l, err := d.DialLink(w.Context(), serverURL, w.clientTLS)
	require.NoError(w, err)
	p := w.open(l)
	p.send(connectPacket(id))
	require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
	return l, p
}

// withEarly is withBroker with a listener for early data, and a dialer that has a
// session for the server.
func withEarly(t *testing.T, policy mqtt.EarlyPolicy, f func(w *world, b *broker.Broker, d *mqttquic.Dialer)) {
	t.Helper()
	simulate(t, &mqttquic.ListenConfig{EarlyData: policy}, func(w *world, e transport.Transport) {
		require.True(w, e.Features().EarlyData)
		b, err := broker.New(nil)
		require.NoError(w, err)
		served := make(chan error, 1)
		go func() { served <- b.ServeLinks(w.listener) }() // ends with b.Close
		defer func() {
			require.NoError(w, b.Close())
			require.NoError(w, <-served)
		}()
		d := &mqttquic.Dialer{Endpoint: w.endpoint, Sessions: new(sessionCache), EarlyData: true}
		l, p := w.client(d, "first")
		time.Sleep(time.Second) // virtual: the ticket has come
		p.send(&packet.Disconnect{})
		require.NoError(w, p.CloseWrite())
		<-l.Context().Done()
		time.Sleep(time.Minute)
		f(w, b, d)
	})
}

var policies = []mqtt.EarlyPolicy{mqtt.EarlyConnect, mqtt.EarlyIdempotent, mqtt.EarlyAll}

// firstFlight dials and writes CONNECT and more before the handshake is complete.
func (w *world) firstFlight(d *mqttquic.Dialer, pks ...packet.Packet) (mqtt.Link, *mqttPeer) {
	w.Helper()
	l, err := d.DialLink(w.Context(), serverURL, w.clientTLS)
	require.NoError(w, err)
	require.Nil(w, l.TLS(), "the handshake is not complete")
	p := w.open(l)
	p.send(pks...)
	return l, p
}

func TestEarlyDataTakesEffectWhenThePolicySays(t *testing.T) {
	const rtt = 2 * latency
	for _, policy := range policies {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			withEarly(t, policy, func(w *world, b *broker.Broker, d *mqttquic.Dialer) {
				start := time.Now()
				l, p := w.firstFlight(d, connectPacket("c"), &packet.Publish{Topic: "t", QoS: 1, PacketID: 1})
				took := func() float64 { return float64(time.Since(start)) / float64(rtt) }
				connack, puback := 2.0, 2.0
				if policy >= mqtt.EarlyIdempotent {
					connack = 1
				}
				if policy == mqtt.EarlyAll {
					puback = 1
				}
				require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
				require.InDelta(w, connack, took(), 0.4, "round trips to CONNACK")
				expect[*packet.Puback](p)
				require.InDelta(w, puback, took(), 0.4, "round trips to PUBACK")
				require.NoError(w, l.Handshake(w.Context()))
				require.True(w, l.(*mqttquic.Link).Conn().State().EarlyData)
				require.EqualValues(w, 1, b.Stats().MessagesIn[1])
				p.ping()
			})
		})
	}
}

func TestAReplayedFirstFlightHasNoSecondEffect(t *testing.T) {
	for _, policy := range policies {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			withEarly(t, policy, func(w *world, b *broker.Broker, d *mqttquic.Dialer) {
				var flight [][]byte
				attacker := w.socket(secondAddr)
				answered := false
				replay := func() {
					for _, data := range flight {
						_, err := attacker.WriteTo(data, serverAddr)
						require.NoError(w, err)
					}
					time.Sleep(30 * time.Second) // virtual
					require.NoError(w, attacker.SetReadDeadline(time.Now().Add(time.Millisecond)))
					_, _, err := attacker.ReadFrom(make([]byte, 2000))
					answered = answered || err == nil
				}
				stop := w.router.record()
				l, p := w.firstFlight(d, connectPacket("c"),
					&packet.Subscribe{PacketID: 9, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}},
					&packet.Publish{Topic: "t", Retain: true, Payload: []byte("once")})
				synctest.Wait()
				flight = stop()
				require.NotEmpty(w, flight)
				require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
				expect[*packet.Suback](p)
				require.Equal(w, "once", string(expect[*packet.Publish](p).Payload))
				// Things have moved on since.
				p.send(&packet.Unsubscribe{PacketID: 10, Filters: []string{"t"}})
				expect[*packet.Unsuback](p)
				p.send(&packet.Publish{Topic: "t", Retain: true, Payload: []byte("newer")})
				p.ping()
				before := b.Stats()

				for range 3 {
					replay()
					p.ping() // nobody has its session
				}
				after := b.Stats()
				require.Equal(w, before.PacketsIn["publish"], after.PacketsIn["publish"])
				require.Equal(w, before.PacketsIn["subscribe"], after.PacketsIn["subscribe"])
				require.Equal(w, before.Sessions, after.Sessions)
				require.Zero(w, after.Subscriptions)
				require.Zero(w, after.Disconnects[packet.SessionTakenOver])
				p.send(&packet.Subscribe{PacketID: 11, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
				expect[*packet.Suback](p)
				require.Equal(w, "newer", string(expect[*packet.Publish](p).Payload))

				// Nor when the client has gone.
				require.NoError(w, l.CloseWithCode(mqtt.LinkControlDown))
				time.Sleep(time.Minute)
				before = b.Stats()
				replay()
				require.True(w, answered, "the server takes it for a client")
				require.Equal(w, after.PacketsIn["publish"], b.Stats().PacketsIn["publish"])
				require.Equal(w, before.PacketsOut["connack"], b.Stats().PacketsOut["connack"])
			})
		})
	}
}

func TestRefusedEarlyDataIsSentAgainAfterTheHandshake(t *testing.T) {
	withEarly(t, mqtt.EarlyConnect, func(w *world, _ *broker.Broker, d *mqttquic.Dialer) {
		// A server with EarlyOff, and one that does not know the ticket.
		for i, policy := range []mqtt.EarlyPolicy{mqtt.EarlyOff, mqtt.EarlyConnect} {
			session := d.Sessions.Take("")
			require.NotEmpty(w, session)
			server := w.serverTLS.Clone()
			server.SetSessionTicketKeys([][32]byte{{byte(i + 1)}})
			addr := &net.UDPAddr{IP: net.IPv4(10, 0, 1, byte(i)).To4(), Port: mqttquic.Port}
			listener, err := mqttquic.Listen(w.engine, w.socket(addr), &mqttquic.ListenConfig{TLS: server, EarlyData: policy})
			require.NoError(w, err)
			b, err := broker.New(nil)
			require.NoError(w, err)
			served := make(chan error, 1)
			go func() { served <- b.ServeLinks(listener) }() // ends with b.Close

			cache := new(sessionCache)
			cache.Put("", session)
			other := &mqttquic.Dialer{Endpoint: w.endpoint, Sessions: cache, EarlyData: true}
			l, err := other.DialLink(w.Context(), &url.URL{Host: addr.String()}, w.clientTLS)
			require.NoError(w, err)
			require.Nil(w, l.TLS())
			p := w.open(l)
			p.send(connectPacket("c"))
			require.ErrorIs(w, l.Handshake(w.Context()), mqtt.ErrEarlyDataRejected)
			_, err = p.receive()
			require.Error(w, err, "its streams are dead")
			p = w.open(l) // and it is as good as new
			require.Equal(w, mqtt.ControlStream, p.ID())
			p.send(connectPacket("c"))
			require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
			require.EqualValues(w, 1, b.Stats().PacketsIn["connect"], "it took effect once")
			d.Sessions.Put("", session)
			require.NoError(w, b.Close())
			require.NoError(w, <-served)
			require.NoError(w, listener.CloseNow())
		}
	})
}

// With EarlyIdempotent, what disturbs others waits.
func TestAnEarlyConnectThatDisturbsWaitsForTheHandshake(t *testing.T) {
	withEarly(t, mqtt.EarlyIdempotent, func(w *world, b *broker.Broker, d *mqttquic.Dialer) {
		second := &mqttquic.Dialer{Endpoint: w.endpoint}
		live, control := w.client(second, "c")
		start := time.Now()
		_, p := w.firstFlight(d, connectPacket("c"))
		require.Equal(w, packet.SessionTakenOver, expect[*packet.Disconnect](control).Code)
		require.GreaterOrEqual(w, time.Since(start), 3*latency)
		require.True(w, expect[*packet.Connack](p).SessionPresent)
		<-live.Context().Done()
	})
}

func TestDataStreamsMayBeginInEarlyData(t *testing.T) {
	for _, policy := range policies {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			withEarly(t, policy, func(w *world, _ *broker.Broker, d *mqttquic.Dialer) {
				l, p := w.firstFlight(d, connectPacket("c"))
				data := w.open(l)
				data.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
				// A payload that begins in early data and ends long after the handshake.
				large := w.open(l)
				payload := bytes.Repeat([]byte("payload "), 40_000)
				wrote := make(chan struct{})
				go func() { // ends with the write
					defer close(wrote)
					large.send(&packet.Publish{Topic: "t", QoS: 1, PacketID: 2, Payload: payload})
				}()
				require.Equal(w, packet.Success, expect[*packet.Connack](p).Code)
				expect[*packet.Suback](data)
				require.True(w, bytes.Equal(payload, expect[*packet.Publish](data).Payload))
				require.EqualValues(w, 2, expect[*packet.Puback](large).PacketID)
				<-wrote
				data.send(&packet.Publish{Topic: "t", Payload: []byte("more")})
				require.Equal(w, "more", string(expect[*packet.Publish](data).Payload))
				p.ping()
			})
		})
	}
}

// Handshakes that never end are nobody's business but the listener's.
func TestCloseDoesNotWaitForHandshakes(t *testing.T) {
	simulate(t, nil, func(w *world, e transport.Transport) {
		stop := w.router.record()
		_, err := w.dialer().DialLink(w.within(time.Millisecond), serverURL, w.clientTLS)
		require.ErrorIs(w, err, context.DeadlineExceeded)
		for _, data := range stop() {
			_, err := w.socket(secondAddr).WriteTo(data, serverAddr)
			require.NoError(w, err)
		}
		time.Sleep(time.Second)
		start := time.Now()
		require.NoError(w, w.listener.Close())
		require.Less(w, time.Since(start), time.Second)
	})
}
