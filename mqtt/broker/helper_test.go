package broker_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A peer is a client on the level of packets: it does what the test says and
// nothing else.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *mqtt.Reader
	v    packet.Version
	end  chan struct{} // closed when the broker's ServeLink has returned
}

func newBroker(t testing.TB, cfg *broker.Config) *broker.Broker {
	t.Helper()
	b, err := broker.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// dial connects a peer to b through a pipe, without CONNECT.
func dial(t testing.TB, b *broker.Broker) *peer {
	return dialCarrier(t, b, mqtt.TCP)
}

func dialCarrier(t testing.TB, b *broker.Broker, carrier mqtt.Carrier) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	p := &peer{t: t, conn: ours, r: mqtt.NewReader(ours, 0), v: packet.V5, end: make(chan struct{})}
	go func() {
		defer close(p.end)
		b.ServeLink(context.Background(), mqtt.NewConnLink(theirs, carrier))
	}()
	t.Cleanup(func() { ours.Close() })
	return p
}

// connect connects a peer with p, or with a plain MQTT 5 CONNECT of id.
func connect(t testing.TB, b *broker.Broker, id string, change ...func(*packet.Connect)) *peer {
	t.Helper()
	c := dial(t, b)
	ack := c.connect(id, change...)
	require.Equal(t, packet.Success, ack.Code)
	return c
}

func (c *peer) connect(id string, change ...func(*packet.Connect)) *packet.Connack {
	c.t.Helper()
	p := &packet.Connect{Version: packet.V5, ClientID: id, CleanStart: true}
	for _, f := range change {
		f(p)
	}
	c.v = p.Version
	c.send(p)
	return receive[*packet.Connack](c)
}

func (c *peer) send(packets ...packet.Packet) {
	c.t.Helper()
	var out []byte
	for _, p := range packets {
		var err error
		out, err = p.Append(out, c.v)
		require.NoError(c.t, err)
	}
	_, err := c.conn.Write(out)
	require.NoError(c.t, err)
}

func (c *peer) sendBytes(b ...byte) {
	c.t.Helper()
	_, err := c.conn.Write(b)
	require.NoError(c.t, err)
}

func (c *peer) read() (packet.Packet, error) {
	h, body, err := c.r.Next()
	if err != nil {
		return nil, err
	}
	return packet.Decode(h, bytes.Clone(body), c.v)
}

// receive returns the next packet, which must be a P.
func receive[P packet.Packet](c *peer) P {
	c.t.Helper()
	p, err := c.read()
	require.NoError(c.t, err)
	require.IsType(c.t, *new(P), p)
	return p.(P)
}

// silent requires that nothing arrives for a while.
func (c *peer) silent(d time.Duration) {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(d))
	p, err := c.read()
	require.Error(c.t, err, "received %#v", p)
	var timeout net.Error
	require.ErrorAs(c.t, err, &timeout)
	require.True(c.t, timeout.Timeout(), "%v", err)
	c.conn.SetReadDeadline(time.Time{})
}

// closed requires that the broker has nothing more to say and closes.
func (c *peer) closed() {
	c.t.Helper()
	p, err := c.read()
	require.ErrorIs(c.t, err, io.EOF, "received %#v", p)
	c.conn.Close()
	<-c.end
}

func (c *peer) close() {
	c.conn.Close()
	<-c.end
}

func (c *peer) subscribe(subs ...packet.Subscription) *packet.Suback {
	c.t.Helper()
	c.send(&packet.Subscribe{PacketID: 1, Subscriptions: subs})
	return receive[*packet.Suback](c)
}

func (c *peer) publish(topic, payload string, q packet.QoS) {
	c.t.Helper()
	p := &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: q}
	if q > 0 {
		p.PacketID = 7
	}
	c.send(p)
	switch q {
	case packet.AtLeastOnce:
		require.False(c.t, receive[*packet.Puback](c).Code.Failed())
	case packet.ExactlyOnce:
		receive[*packet.Pubrec](c)
		c.send(&packet.Pubrel{Ack: packet.Ack{PacketID: 7}})
		receive[*packet.Pubcomp](c)
	}
}

// ping requires that everything sent before has been dealt with.
func (c *peer) ping() {
	c.t.Helper()
	c.send(&packet.Pingreq{})
	receive[*packet.Pingresp](c)
}

func (c *peer) message(topic, payload string) *packet.Publish {
	c.t.Helper()
	p := receive[*packet.Publish](c)
	require.Equal(c.t, topic, p.Topic)
	require.Equal(c.t, payload, string(p.Payload))
	return p
}

func keep(seconds uint32) func(*packet.Connect) {
	return func(p *packet.Connect) {
		if p.Properties == nil {
			p.Properties = new(packet.Properties)
		}
		p.Properties.SessionExpiry = packet.Some(seconds)
	}
}

func resume(p *packet.Connect) { p.CleanStart = false }

func v311(p *packet.Connect) { p.Version = packet.V311 }

func will(topic, payload string, delay uint32) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Will = &packet.Will{Topic: topic, Payload: []byte(payload)}
		if delay > 0 {
			p.Will.Properties = &packet.Properties{WillDelay: packet.Some(delay)}
		}
	}
}

// A logged is a log to read in tests.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
