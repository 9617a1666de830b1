package mqtttest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// openStream opens a data stream of p's connection. Its packets are sent and
// expected like those of the control stream.
func (p *peer) openStream() *peer {
	p.r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := p.link.OpenStream(ctx)
	require.NoError(p.r, err)
	require.NotEqual(p.r, mqtt.ControlStream, s.ID())
	return newPeer(p.r, p.link, s)
}

// expectReset expects the end of a data stream, and that the connection lives.
func (p *peer) expectReset(control *peer) {
	p.r.Helper()
	p.expectEnd()
	control.ping()
}

// streamCases are about data streams beside the control stream, as clients of
// EMQX's multi-stream mode use them.
var streamCases = []testCase{
	{"DataStreamSubscribesAndReceives", func(r *run) { // acknowledged and delivered where SUBSCRIBE was sent
		c, pub := r.client("c"), r.client("pub")
		d := c.openStream()
		d.subscribe("t", 1)
		pub.publish("t", "m", 1)
		d.message("t", "m")
		c.ping()
	}},
	{"DataStreamPublishesWithEveryQoS", func(r *run) { // acknowledged where PUBLISH arrived
		sub, c := r.client("sub"), r.client("c")
		sub.subscribe("t", 2)
		d := c.openStream()
		d.send(&packet.Publish{Topic: "t", Payload: []byte("0")})
		sub.message("t", "0")
		d.nextID = 100
		d.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("1"), QoS: 1})
		sub.message("t", "1")
		d.publishPacket(&packet.Publish{Topic: "t", Payload: []byte("2"), QoS: 2})
		sub.message("t", "2")
		c.ping()
	}},
	{"DataStreamsCountForTheKeepAlive", func(r *run) { // EMQX since 5.8.2
		p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true, KeepAlive: 6})
		d := p.openStream()
		silent, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: "silent", CleanStart: true, KeepAlive: 7})
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.send(&packet.Publish{Topic: "t"})
			case <-silent.arrivals:
				p.ping()
				return
			}
		}
	}},
	{"DataStreamMayBeFasterThanTheControlStream", func(r *run) { // what arrives before CONNECT waits for it
		p := r.dial()
		d := p.openStream()
		d.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		require.Equal(r, packet.Success, p.connect(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}).Code)
		require.EqualValues(r, 1, expect[*packet.Suback](d).PacketID)
	}},
	{"DataStreamOfARefusedClientEnds", func(r *run) {
		r.start(&broker.Config{DrainTimeout: 5 * time.Second}) // the client does not close
		p := r.dial()
		d := p.openStream()
		d.send(&packet.Subscribe{PacketID: 1, Subscriptions: []packet.Subscription{{Filter: "t", QoS: 1}}})
		p.sendRaw(connect5(0x03, str("c")))
		p.expectRefused(packet.MalformedPacket)
		d.expectEnd()
	}},
	{"DataStreamMayEndWithoutTheConnection", func(r *run) {
		c, pub := r.client("c"), r.client("pub")
		d := c.openStream()
		d.subscribe("t", 0)
		require.NoError(r, d.stream.CloseWrite())
		d.expectEnd() // the broker closes its half
		c.ping()
		pub.ping()
		next := c.openStream()
		next.subscribe("u", 0)
		pub.publish("u", "m", 1)
		next.message("u", "m")
	}},
	{"DataStreamThatIsResetLeavesTheConnection", func(r *run) {
		c := r.client("c")
		d := c.openStream()
		d.subscribe("t", 1)
		d.stream.Reset(0)
		c.ping()
		next := c.openStream()
		next.nextID = 50
		next.subscribe("u", 1)
		c.ping()
	}},
	{"ControlPacketOnADataStreamEndsThatStream", func(r *run) { // PINGREQ, DISCONNECT, CONNECT, AUTH
		c := r.client("c")
		for _, pk := range []packet.Packet{
			&packet.Pingreq{},
			&packet.Disconnect{},
			&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true},
		} {
			d := c.openStream()
			d.send(pk)
			d.expectReset(c)
		}
	}},
	{"MalformedPacketOnADataStreamEndsThatStream", func(r *run) {
		c := r.client("c")
		for _, b := range [][]byte{{0x00, 0x00}, {0x30, 0xFF, 0xFF, 0xFF, 0x7F}, frame(0x36, str("t"), []byte{0, 1, 0})} {
			d := c.openStream()
			d.sendRaw(b)
			d.expectReset(c)
		}
	}},
	{"UnsubscribeWorksFromAnyStream", func(r *run) { // NanoSDK sends it on the control stream
		c, pub := r.client("c"), r.client("pub")
		d := c.openStream()
		d.nextID = 100
		d.subscribe("t", 1)
		require.Equal(r, []packet.ReasonCode{packet.Success}, c.unsubscribe("t"))
		pub.publish("t", "m", 1)
		c.ping()
		d.subscribe("marker", 1)
		pub.publish("marker", "m", 1)
		d.message("marker", "m")
	}},
	{"TenStreamsWorkAtOnce", func(r *run) {
		c, pub := r.client("c"), r.client("pub")
		var streams []*peer
		for i := range 9 {
			d := c.openStream()
			d.nextID = uint16(1000 * (i + 1))
			d.subscribe(d.topic(), 1)
			streams = append(streams, d)
		}
		for _, d := range streams {
			pub.publish(d.topic(), "m", 1)
		}
		for _, d := range streams {
			d.message(d.topic(), "m")
		}
		c.ping()
	}},
	{"TakeoverEndsTheDataStreamsToo", func(r *run) { // reason code 0x8E on the control stream
		c := r.client("c")
		d := c.openStream()
		d.subscribe("t", 1)
		r.client("c")
		c.expectDisconnect(packet.SessionTakenOver)
		d.expectEnd()
	}},
	{"EndOfTheControlStreamEndsTheConnection", func(r *run) {
		c := r.client("c")
		d := c.openStream()
		d.subscribe("t", 1)
		require.NoError(r, c.stream.CloseWrite())
		d.expectEnd()
		select {
		case <-c.link.Context().Done():
		case <-time.After(patience):
			require.Fail(r, "the connection lives on without its control stream")
		}
	}},
}

// topic is one for each stream.
func (p *peer) topic() string { return "stream/" + string(rune('a'+p.stream.ID())) }
