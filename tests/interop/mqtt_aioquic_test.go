//go:build interop

package interop

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// An aioquicMQTT is a connection by aioquic to our broker, on whose streams the test
// speaks MQTT.
type aioquicMQTT struct {
	t *testing.T
	*jsonProcess
	server string // the engine
}

type streamAnswer struct {
	Error  string `json:"error"`
	Data   string `json:"data"`
	Fin    bool   `json:"fin"`
	Reset  *int   `json:"reset"`
	Closed *int   `json:"closed"`
	Opened []int  `json:"opened"`
}

func (c *aioquicMQTT) must(req map[string]any) (a streamAnswer) {
	c.t.Helper()
	require.NoError(c.t, c.call(req, &a))
	require.Empty(c.t, a.Error, "server %s, ALPN mqtt, %v", c.server, req)
	return a
}

func (c *aioquicMQTT) send(stream int, pks ...packet.Packet) {
	c.t.Helper()
	var b []byte
	for _, p := range pks {
		var err error
		b, err = p.Append(b, packet.V5)
		require.NoError(c.t, err)
	}
	c.must(map[string]any{"do": "send", "stream": stream, "data": hex.EncodeToString(b)})
}

func (c *aioquicMQTT) bytes(stream, n int) []byte {
	c.t.Helper()
	b, err := hex.DecodeString(c.must(map[string]any{"do": "receive", "stream": stream, "n": n}).Data)
	require.NoError(c.t, err)
	require.Len(c.t, b, n, "server %s: stream %d has ended", c.server, stream)
	return b
}

// receive returns the next packet on a stream.
func (c *aioquicMQTT) receive(stream int) packet.Packet {
	c.t.Helper()
	b := c.bytes(stream, 2)
	for b[len(b)-1]&0x80 != 0 {
		b = append(b, c.bytes(stream, 1)...)
	}
	h, n, err := packet.ParseHeader(b)
	require.NoError(c.t, err)
	require.Equal(c.t, len(b), n)
	var body []byte
	if h.Length > 0 {
		body = c.bytes(stream, h.Length)
	}
	p, err := packet.Decode(h, body, packet.V5)
	require.NoError(c.t, err)
	return p
}

func expectOn[T packet.Packet](c *aioquicMQTT, stream int) T {
	c.t.Helper()
	p := c.receive(stream)
	require.IsType(c.t, *new(T), p, "server %s, stream %d", c.server, stream)
	return p.(T)
}

// eachMQTT runs test for every engine, with a broker on it and a connected client.
func eachMQTT(t *testing.T, test func(t *testing.T, b *broker.Broker, c *aioquicMQTT)) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		id := newIdentity(t)
		l, err := mqttquic.ListenAddr(e, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: id.serverTLS()})
		require.NoError(t, err)
		b, err := broker.New(nil)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- b.ServeLinks(l) }() // ends with b.Close
		t.Cleanup(func() {
			require.NoError(t, b.Close())
			require.NoError(t, <-served)
			require.NoError(t, l.CloseNow())
		})
		c := &aioquicMQTT{t, startJSON(t, foreignProgram(t, "aioquic-python"), "testdata/aioquic_streams.py", l.Addr().String(), id.certFile), e.Name()}
		c.send(0, &packet.Connect{Version: packet.V5, ClientID: "aioquic", CleanStart: true})
		require.Equal(t, packet.Success, expectOn[*packet.Connack](c, 0).Code)
		require.EqualValues(t, 1, b.Stats().Connections[mqtt.QUIC].Total)
		test(t, b, c)
	})
}

func subscribeTo(id uint16, filter string) *packet.Subscribe {
	return &packet.Subscribe{PacketID: id, Subscriptions: []packet.Subscription{{Filter: filter, QoS: 2}}}
}

func ackOf(id uint16) packet.Ack { return packet.Ack{PacketID: id} }

func TestAioquicPublishesAndSubscribesOnManyStreams(t *testing.T) {
	eachMQTT(t, func(t *testing.T, b *broker.Broker, c *aioquicMQTT) {
		var streams []int
		for i := 1; i < 10; i++ {
			streams = append(streams, 4*i)
		}
		for _, s := range streams {
			c.send(s, subscribeTo(1, fmt.Sprint("t/", s))) // the same identifier on each
		}
		for _, s := range streams {
			require.Equal(t, []packet.ReasonCode{2}, expectOn[*packet.Suback](c, s).Codes)
		}
		// Each publishes to the next one, with QoS 2 and a payload of many packets.
		payload := bytes.Repeat([]byte("payload "), 5000)
		for i, s := range streams {
			c.send(s, &packet.Publish{Topic: fmt.Sprint("t/", streams[(i+1)%len(streams)]), QoS: 2, PacketID: 2, Payload: payload})
		}
		for _, s := range streams {
			got, received, completed := false, false, false
			for !got || !received || !completed {
				switch p := c.receive(s).(type) {
				case *packet.Publish:
					require.Equal(t, fmt.Sprint("t/", s), p.Topic, "server %s", c.server)
					require.True(t, bytes.Equal(payload, p.Payload))
					c.send(s, &packet.Pubrec{Ack: ackOf(p.PacketID)})
				case *packet.Pubrel:
					c.send(s, &packet.Pubcomp{Ack: ackOf(p.PacketID)})
					got = true
				case *packet.Pubrec:
					require.EqualValues(t, 2, p.PacketID)
					c.send(s, &packet.Pubrel{Ack: ackOf(2)})
					received = true
				case *packet.Pubcomp:
					completed = true
				}
			}
		}
		require.EqualValues(t, len(streams), b.Stats().MessagesIn[2])
		c.send(0, &packet.Pingreq{})
		expectOn[*packet.Pingresp](c, 0)
		opened := c.must(map[string]any{"do": "streams"}).Opened
		require.Equal(t, append([]int{0}, streams...), opened, "the server opens none")
	})
}

func TestAioquicsStreamsEndInEveryWay(t *testing.T) {
	eachMQTT(t, func(t *testing.T, _ *broker.Broker, c *aioquicMQTT) {
		stream := 0
		for _, end := range []map[string]any{
			{"do": "send", "data": "", "fin": true},
			{"do": "reset", "code": 0x42},
			{"do": "stop", "code": 0x42},
		} {
			stream += 4
			c.send(stream, subscribeTo(1, "t"))
			expectOn[*packet.Suback](c, stream)
			c.send(0, &packet.Publish{Topic: "t", QoS: 1, PacketID: 7, Payload: []byte("in flight")})
			expectOn[*packet.Puback](c, 0)
			first := expectOn[*packet.Publish](c, stream)
			end["stream"] = stream
			c.must(end)
			again := expectOn[*packet.Publish](c, 0)
			require.Equal(t, "in flight", string(again.Payload), "server %s, %v", c.server, end)
			require.Equal(t, first.PacketID, again.PacketID)
			require.True(t, again.Dup)
			c.send(0, &packet.Puback{Ack: ackOf(again.PacketID)})
			c.send(0, &packet.Publish{Topic: "t", Payload: []byte("moved")})
			require.Equal(t, "moved", string(expectOn[*packet.Publish](c, 0).Payload))
		}
		// What breaks the protocol ends its stream only.
		stream += 4
		c.must(map[string]any{"do": "send", "stream": stream, "data": "c000"})
		a := c.must(map[string]any{"do": "end", "stream": stream})
		require.NotNil(t, a.Reset, "server %s", c.server)
		require.EqualValues(t, packet.ProtocolError, *a.Reset)
		require.Nil(t, a.Closed)
		// The end of the control stream is the end.
		c.send(0, &packet.Disconnect{})
		require.Zero(t, *c.must(map[string]any{"do": "closed"}).Closed, "server %s", c.server)
	})
}
