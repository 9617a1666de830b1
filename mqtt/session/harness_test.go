package session_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// start is the beginning of virtual time.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// A bench is a session with its two neighbours played by the test: the client,
// whose packets pass through the codec both ways, and the caller.
type bench struct {
	t       *testing.T
	s       *session.Session
	now     time.Time
	version packet.Version
}

func newBench(t *testing.T, limits session.Limits) *bench {
	return &bench{t: t, s: session.New("client", limits), now: start, version: packet.V5}
}

// connect attaches with a CONNECT of MQTT 5 and returns the CONNACK.
func (b *bench) connect(p *packet.Properties) *packet.Connack {
	b.t.Helper()
	return b.attach(&packet.Connect{Version: packet.V5, Properties: p}, session.Attach{})
}

// connected returns a bench with a connection of MQTT 5 that lives for an hour
// after its end.
func connected(t *testing.T, limits session.Limits, p packet.Properties) *bench {
	t.Helper()
	b := newBench(t, limits)
	p.SessionExpiry = packet.Some[uint32](3600)
	b.connect(&p)
	return b
}

// reconnect loses the connection and begins another.
func (b *bench) reconnect(p packet.Properties) {
	b.t.Helper()
	b.s.Detach(nil, b.now)
	p.SessionExpiry = packet.Some[uint32](3600)
	b.connect(&p)
}

func (b *bench) attach(c *packet.Connect, a session.Attach) *packet.Connack {
	b.t.Helper()
	b.version = c.Version
	b.s.Attach(b.now, c, a)
	ack, ok := b.next(mqtt.ControlStream).(*packet.Connack)
	require.True(b.t, ok, "the first packet is CONNACK")
	return ack
}

func (b *bench) receive(p packet.Packet) []session.Effect {
	return b.receiveOn(mqtt.ControlStream, p)
}

// receiveOn passes p as the client would have sent it.
func (b *bench) receiveOn(stream mqtt.StreamID, p packet.Packet) []session.Effect {
	b.t.Helper()
	return b.s.Receive(nil, b.now, stream, recode(b.t, p, b.version))
}

func recode(t testing.TB, p packet.Packet, v packet.Version) packet.Packet {
	t.Helper()
	wire, err := p.Append(nil, v)
	if err != nil {
		require.NoError(t, err)
	}
	return decode(t, wire, v)
}

func decode(t testing.TB, wire []byte, v packet.Version) packet.Packet {
	t.Helper()
	h, n, err := packet.ParseHeader(wire)
	if err != nil || h.Length != len(wire)-n {
		require.Failf(t, "header", "%v: % x", err, wire)
	}
	p, err := packet.Decode(h, wire[n:], v)
	if err != nil {
		require.NoError(t, err)
	}
	return p
}

// next returns the next packet on a stream as the client sees it, or nil.
func (b *bench) next(stream mqtt.StreamID) packet.Packet {
	b.t.Helper()
	o, ok := b.s.Next(b.now, stream)
	if !ok {
		return nil
	}
	wire, err := o.Append(nil, b.version, b.now)
	require.NoError(b.t, err)
	return decode(b.t, wire, b.version)
}

// sent returns all that is sent now on the control stream.
func (b *bench) sent() []packet.Packet {
	b.t.Helper()
	return b.sentOn(mqtt.ControlStream)
}

func (b *bench) sentOn(stream mqtt.StreamID) []packet.Packet {
	b.t.Helper()
	var all []packet.Packet
	for b.s.HasOutput(stream) {
		p := b.next(stream)
		if p == nil {
			break
		}
		all = append(all, p)
	}
	require.Nil(b.t, b.next(stream))
	return all
}

// publishes returns the PUBLISH packets that are sent now; there must be no others.
func (b *bench) publishes() []*packet.Publish {
	b.t.Helper()
	var all []*packet.Publish
	for _, p := range b.sent() {
		require.IsType(b.t, (*packet.Publish)(nil), p)
		all = append(all, p.(*packet.Publish))
	}
	return all
}

func (b *bench) message(topic, payload string, qos packet.QoS) *session.Message {
	return session.NewMessage(b.now, &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos}, "other")
}

func (b *bench) deliver(topic, payload string, qos packet.QoS) session.DeliverResult {
	return b.s.Deliver(b.now, b.message(topic, payload, qos), session.Delivery{QoS: qos})
}

func (b *bench) pass(d time.Duration) { b.now = b.now.Add(d) }

func publish(id uint16, qos packet.QoS) *packet.Publish {
	return &packet.Publish{Topic: "a/b", Payload: []byte("x"), PacketID: id, QoS: qos}
}

func puback(id uint16, code packet.ReasonCode) packet.Packet {
	return &packet.Puback{Ack: packet.Ack{PacketID: id, Code: code}}
}

func pubrec(id uint16, code packet.ReasonCode) packet.Packet {
	return &packet.Pubrec{Ack: packet.Ack{PacketID: id, Code: code}}
}

func pubrel(id uint16, code packet.ReasonCode) packet.Packet {
	return &packet.Pubrel{Ack: packet.Ack{PacketID: id, Code: code}}
}

func pubcomp(id uint16, code packet.ReasonCode) packet.Packet {
	return &packet.Pubcomp{Ack: packet.Ack{PacketID: id, Code: code}}
}

// closed checks that fx is one EffectClose with the code, and that DISCONNECT
// says the same to a client of MQTT 5.
func (b *bench) closed(fx []session.Effect, code packet.ReasonCode) {
	b.t.Helper()
	require.Len(b.t, fx, 1)
	require.Equal(b.t, session.EffectClose, fx[0].Kind)
	require.Equal(b.t, code, fx[0].Code)
	all := b.sent()
	if b.version < packet.V5 {
		require.Empty(b.t, all, "a server of 3.x sends no DISCONNECT")
		return
	}
	require.NotEmpty(b.t, all)
	require.Equal(b.t, code, all[len(all)-1].(*packet.Disconnect).Code)
}

func kinds(fx []session.Effect) []session.EffectKind {
	var k []session.EffectKind
	for _, f := range fx {
		k = append(k, f.Kind)
	}
	return k
}
