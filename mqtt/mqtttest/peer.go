package mqtttest

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A peer is a client that does nothing by itself, no acknowledgement and no ping,
// but to end its side after a DISCONNECT of the broker.
// Its methods end the test if what they say does not happen.
type peer struct {
	r        *run
	link     mqtt.Link
	stream   mqtt.Stream
	arrivals chan arrival
	version  packet.Version
	nextID   uint16
}

// An arrival is a packet, or the error that ended the stream.
type arrival struct {
	header packet.Header
	body   []byte
	err    error
}

// newPeer returns a peer on a stream. It reads ahead by few packets: the end of
// a connection must be seen when it happens, and a peer that nobody asks for
// packets must still not be one that takes them all.
func newPeer(r *run, link mqtt.Link, s mqtt.Stream) *peer {
	p := &peer{r: r, link: link, stream: s, arrivals: make(chan arrival, 2), version: packet.V5}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with the stream, or the test
		defer close(done)
		rd := mqtt.NewReader(s, 0)
		for {
			h, body, err := rd.Next()
			select {
			case p.arrivals <- arrival{h, bytes.Clone(body), err}:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
			if h.Type == packet.DISCONNECT {
				_ = s.CloseWrite()
			}
		}
	}()
	r.Cleanup(func() {
		close(quit)
		p.close()
		<-done
	})
	return p
}

// connect dials and connects with c, and expects success.
func (r *run) connect(c *packet.Connect) (*peer, *packet.Connack) {
	r.Helper()
	p := r.dial()
	ack := p.connect(c)
	require.Equal(r, packet.Success, ack.Code)
	return p, ack
}

// client connects with MQTT 5, a clean start, and no session expiry.
func (r *run) client(id string) *peer {
	r.Helper()
	p, _ := r.connect(&packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true})
	return p
}

// clientOf is client with a version.
func (r *run) clientOf(v packet.Version, id string) *peer {
	r.Helper()
	p, _ := r.connect(&packet.Connect{Version: v, ClientID: id, CleanStart: true})
	return p
}

// session connects with MQTT 5 to a session that outlives its connections.
func (r *run) session(id string, clean bool) (*peer, *packet.Connack) {
	r.Helper()
	return r.connect(&packet.Connect{Version: packet.V5, ClientID: id, CleanStart: clean, Properties: &packet.Properties{
		SessionExpiry: packet.Some[uint32](3600),
	}})
}

// connect sends c and returns the answer.
func (p *peer) connect(c *packet.Connect) *packet.Connack {
	p.r.Helper()
	p.version = c.Version
	p.send(c)
	return expect[*packet.Connack](p)
}

func (p *peer) encode(pk packet.Packet) []byte {
	p.r.Helper()
	b, err := pk.Append(nil, p.version)
	require.NoError(p.r, err)
	return b
}

func (p *peer) send(pks ...packet.Packet) {
	p.r.Helper()
	var b []byte
	for _, pk := range pks {
		b = append(b, p.encode(pk)...)
	}
	p.sendRaw(b)
}

func (p *peer) sendRaw(b []byte) {
	p.r.Helper()
	require.NoError(p.r, p.stream.SetWriteDeadline(time.Now().Add(patience)))
	_, err := p.stream.Write(b)
	require.NoError(p.r, err)
}

// receive returns the next packet, or the error that ended the stream.
func (p *peer) receive() (packet.Packet, error) {
	p.r.Helper()
	select {
	case a := <-p.arrivals:
		if a.err != nil {
			return nil, a.err
		}
		pk, err := packet.Decode(a.header, a.body, p.version)
		require.NoError(p.r, err, "the broker's own packet is wrong")
		return pk, nil
	case <-time.After(patience):
		require.Fail(p.r, "nothing arrived")
		return nil, nil
	}
}

// expect returns the next packet, which must be a T.
func expect[T packet.Packet](p *peer) T {
	p.r.Helper()
	pk, err := p.receive()
	require.NoError(p.r, err)
	require.IsType(p.r, *new(T), pk)
	return pk.(T)
}

// expectEnd expects the end of the stream and no packet before it.
func (p *peer) expectEnd() {
	p.r.Helper()
	pk, err := p.receive()
	require.Nil(p.r, pk, "a packet before the end")
	require.Error(p.r, err)
	require.False(p.r, errors.Is(err, io.ErrUnexpectedEOF), "the end is in a packet")
}

// expectDisconnect expects the broker to end the connection, for one of the
// reasons given: on MQTT 5 it says so, on 3.x it just closes.
func (p *peer) expectDisconnect(codes ...packet.ReasonCode) {
	p.r.Helper()
	if p.version == packet.V5 {
		d := expect[*packet.Disconnect](p)
		require.Contains(p.r, codes, d.Code)
	}
	p.expectEnd()
}

// expectRefused expects a CONNACK with one of the codes, and the end.
func (p *peer) expectRefused(codes ...packet.ReasonCode) {
	p.r.Helper()
	ack := expect[*packet.Connack](p)
	require.Contains(p.r, codes, ack.Code)
	require.False(p.r, ack.SessionPresent, "[MQTT-3.2.2-6]")
	p.expectEnd()
}

// ping shows that the broker has dealt with everything that was sent, and had
// nothing to send but what was received.
func (p *peer) ping() {
	p.r.Helper()
	require.Empty(p.r, p.drain(), "a message that must not be there")
}

// drain returns the messages that are on their way, and acknowledges those of
// QoS 1. A PINGRESP may overtake messages that wait, but these then follow it, so
// that they are here before the answer to another PINGREQ.
func (p *peer) drain() []*packet.Publish {
	p.r.Helper()
	var got []*packet.Publish
	for pongs := 0; pongs < 2; {
		p.send(&packet.Pingreq{})
		for {
			pk, err := p.receive()
			require.NoError(p.r, err)
			if m, ok := pk.(*packet.Publish); ok {
				got = append(got, m)
				if m.QoS == packet.AtLeastOnce {
					p.ack(m)
				}
				continue
			}
			require.IsType(p.r, &packet.Pingresp{}, pk)
			pongs++
			break
		}
	}
	return got
}

// id returns a new packet identifier.
func (p *peer) id() uint16 {
	p.nextID++
	return p.nextID
}

// subscribe subscribes and expects that q is granted.
func (p *peer) subscribe(filter string, q packet.QoS) {
	p.r.Helper()
	p.subscribeTo(packet.Subscription{Filter: filter, QoS: q})
}

// subscribeTo expects that every subscription gets the QoS it asks for.
func (p *peer) subscribeTo(subs ...packet.Subscription) {
	p.r.Helper()
	ack := p.suback(&packet.Subscribe{Subscriptions: subs})
	for i, s := range subs {
		require.Equal(p.r, packet.ReasonCode(s.QoS), ack.Codes[i], s.Filter)
	}
}

// suback sends s and returns its answer.
func (p *peer) suback(s *packet.Subscribe) *packet.Suback {
	p.r.Helper()
	s.PacketID = p.id()
	p.send(s)
	ack := expect[*packet.Suback](p)
	require.Equal(p.r, s.PacketID, ack.PacketID, "[MQTT-3.8.4-2]")
	require.Len(p.r, ack.Codes, len(s.Subscriptions), "[MQTT-3.8.4-6]")
	return ack
}

// unsubscribe sends UNSUBSCRIBE and returns the reason codes.
func (p *peer) unsubscribe(filters ...string) []packet.ReasonCode {
	p.r.Helper()
	id := p.id()
	p.send(&packet.Unsubscribe{PacketID: id, Filters: filters})
	ack := expect[*packet.Unsuback](p)
	require.Equal(p.r, id, ack.PacketID, "[MQTT-3.10.4-4]")
	return ack.Codes
}

// publish publishes and waits until the broker has taken responsibility for the
// message; with QoS 0, until it has read it.
func (p *peer) publish(topic, payload string, q packet.QoS) {
	p.r.Helper()
	p.publishPacket(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: q})
}

// retain is publish with RETAIN.
func (p *peer) retain(topic, payload string, q packet.QoS) {
	p.r.Helper()
	p.publishPacket(&packet.Publish{Topic: topic, Payload: []byte(payload), QoS: q, Retain: true})
}

// publishPacket completes the exchange that m's QoS demands and returns the
// reason code of its first answer.
func (p *peer) publishPacket(m *packet.Publish) packet.ReasonCode {
	p.r.Helper()
	if m.QoS > 0 {
		m.PacketID = p.id()
	}
	p.send(m)
	switch m.QoS {
	case packet.AtLeastOnce:
		ack := expect[*packet.Puback](p)
		require.Equal(p.r, m.PacketID, ack.PacketID, "[MQTT-4.3.2-4]")
		return ack.Code
	case packet.ExactlyOnce:
		rec := expect[*packet.Pubrec](p)
		require.Equal(p.r, m.PacketID, rec.PacketID, "[MQTT-4.3.3-8]")
		if rec.Code.Failed() {
			return rec.Code
		}
		p.send(&packet.Pubrel{Ack: packet.Ack{PacketID: m.PacketID}})
		comp := expect[*packet.Pubcomp](p)
		require.Equal(p.r, m.PacketID, comp.PacketID, "[MQTT-4.3.3-11]")
		require.Equal(p.r, packet.Success, comp.Code)
		return rec.Code
	}
	p.ping()
	return packet.Success
}

// message expects a PUBLISH with this payload and completes its exchange.
func (p *peer) message(topic, payload string) *packet.Publish {
	p.r.Helper()
	m := p.unacked(topic, payload)
	p.ack(m)
	return m
}

// unacked expects a PUBLISH and does not acknowledge it.
func (p *peer) unacked(topic, payload string) *packet.Publish {
	p.r.Helper()
	m := expect[*packet.Publish](p)
	require.Equal(p.r, topic, m.Topic)
	require.Equal(p.r, payload, string(m.Payload))
	if m.QoS > 0 {
		require.NotZero(p.r, m.PacketID, "[MQTT-2.2.1-4]")
	}
	return m
}

func (p *peer) ack(m *packet.Publish) {
	p.r.Helper()
	switch m.QoS {
	case packet.AtLeastOnce:
		p.send(&packet.Puback{Ack: packet.Ack{PacketID: m.PacketID}})
	case packet.ExactlyOnce:
		p.send(&packet.Pubrec{Ack: packet.Ack{PacketID: m.PacketID}})
		p.expectPubrel(m.PacketID)
		p.send(&packet.Pubcomp{Ack: packet.Ack{PacketID: m.PacketID}})
	}
}

func (p *peer) expectPubrel(id uint16) {
	p.r.Helper()
	rel := expect[*packet.Pubrel](p)
	require.Equal(p.r, id, rel.PacketID, "[MQTT-4.3.3-4]")
	require.Equal(p.r, packet.Success, rel.Code)
}

// disconnect sends DISCONNECT, ends its side, and waits until the broker has
// closed as well.
func (p *peer) disconnect(code packet.ReasonCode) {
	p.r.Helper()
	p.send(&packet.Disconnect{Code: code})
	require.NoError(p.r, p.stream.CloseWrite())
	p.expectEnd()
	p.close()
}

// kill ends the connection without a word of MQTT.
func (p *peer) kill() {
	p.r.Helper()
	p.close()
}

func (p *peer) close() { _ = p.link.CloseWithCode(mqtt.LinkNormal) }

// expectEndAfterAtMost is expectRefused for a broker that may as well say
// nothing.
func (p *peer) expectEndAfterAtMost(code packet.ReasonCode) {
	p.r.Helper()
	pk, err := p.receive()
	if err != nil {
		return
	}
	require.Equal(p.r, code, pk.(*packet.Connack).Code)
	p.expectEnd()
}

// wait returns when something that lasts for so many of MQTT's seconds is over.
func (r *run) wait(seconds int) {
	<-time.After(time.Duration(seconds)*time.Second + 100*time.Millisecond)
}
