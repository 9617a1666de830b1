package main

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A rawPeer is a client on the level of packets: it does what the test says and
// nothing else.
type rawPeer struct {
	t    *testing.T
	conn net.Conn
	r    *mqtt.Reader
	v    packet.Version
}

// newPeer returns a rawPeer on conn, which is closed at the end of the test.
func newPeer(t *testing.T, conn net.Conn) *rawPeer {
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(5*patience)))
	return &rawPeer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
}

// dialPeer connects over TCP, without CONNECT.
func (s *served) dialPeer(t *testing.T) *rawPeer {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr("tcp"))
	require.NoError(t, err)
	return newPeer(t, conn)
}

// connect connects over TCP with a CONNECT of id, after change.
func (s *served) connect(t *testing.T, id string, change ...func(*packet.Connect)) *rawPeer {
	t.Helper()
	p := s.dialPeer(t)
	require.Equal(t, packet.Success, p.hello(id, change...).Code)
	return p
}

func (p *rawPeer) hello(id string, change ...func(*packet.Connect)) *packet.Connack {
	p.t.Helper()
	c := &packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true, Properties: &packet.Properties{}}
	for _, f := range change {
		f(c)
	}
	p.v = c.Version
	p.send(c)
	return next[*packet.Connack](p)
}

func (p *rawPeer) send(packets ...packet.Packet) {
	p.t.Helper()
	var out []byte
	for _, q := range packets {
		var err error
		out, err = q.Append(out, p.v)
		require.NoError(p.t, err)
	}
	_, err := p.conn.Write(out)
	require.NoError(p.t, err)
}

func (p *rawPeer) read() (packet.Packet, error) {
	h, body, err := p.r.Next()
	if err != nil {
		return nil, err
	}
	return packet.Decode(h, bytes.Clone(body), p.v)
}

// next returns the next packet, which must be a P.
func next[P packet.Packet](p *rawPeer) P {
	p.t.Helper()
	q, err := p.read()
	require.NoError(p.t, err)
	require.IsType(p.t, *new(P), q)
	return q.(P)
}

// ping requires that everything sent before has been dealt with.
func (p *rawPeer) ping() {
	p.t.Helper()
	p.send(&packet.Pingreq{})
	next[*packet.Pingresp](p)
}

func (p *rawPeer) subscribe(q packet.QoS, filters ...string) {
	p.t.Helper()
	s := &packet.Subscribe{PacketID: 1}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, packet.Subscription{Filter: f, QoS: q})
	}
	p.send(s)
	next[*packet.Suback](p)
}

// publish publishes with QoS 1 and returns the answer's code.
func (p *rawPeer) publish(topic string, payload string, change ...func(*packet.Publish)) packet.ReasonCode {
	p.t.Helper()
	m := &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: packet.AtLeastOnce, PacketID: 7, Properties: &packet.Properties{}}
	for _, f := range change {
		f(m)
	}
	p.send(m)
	return next[*packet.Puback](p).Code
}

// end ends the connection as a client that has nothing more to say.
func (p *rawPeer) end() {
	p.send(&packet.Disconnect{})
	p.gone()
}

// gone waits until the broker has ended the connection.
func (p *rawPeer) gone() {
	p.t.Helper()
	for {
		if _, err := p.read(); err != nil {
			p.conn.Close()
			return
		}
	}
}

func keep(p *packet.Connect) { p.Properties.SessionExpiry = packet.Some[uint32](3600) }

func resume(p *packet.Connect) { p.CleanStart = false }
