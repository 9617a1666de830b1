package client

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// A script is a connection on which the server says what it says, whatever the
// client does.
type script struct{ bytes.Reader }

type scriptAddr struct{}

func (scriptAddr) Network() string { return "script" }
func (scriptAddr) String() string  { return "script" }

func (*script) Write(p []byte) (int, error)      { return len(p), nil }
func (*script) Close() error                     { return nil }
func (*script) LocalAddr() net.Addr              { return scriptAddr{} }
func (*script) RemoteAddr() net.Addr             { return scriptAddr{} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer lets a server send any bytes. The client must end, with a reason.
func FuzzServer(f *testing.F) {
	for _, packets := range [][]packet.Packet{
		{&packet.Connack{}},
		{&packet.Connack{Code: packet.NotAuthorized}},
		{&packet.Connack{Properties: &packet.Properties{ReceiveMaximum: packet.Some[uint16](1), TopicAliasMaximum: packet.Some[uint16](2)}},
			inMsg("a", 1, 1), inMsg("b", 2, 2), &packet.Pubrel{Ack: ack(2)}, msg("c", 0), &packet.Pingresp{}},
		{&packet.Connack{}, &packet.Puback{Ack: ack(1)}, &packet.Pubrec{Ack: ack(2)}, &packet.Pubcomp{Ack: ack(2)},
			&packet.Suback{PacketID: 3, Codes: []packet.ReasonCode{0}}, &packet.Disconnect{Code: packet.ServerBusy}},
	} {
		var b []byte
		for _, p := range packets {
			b, _ = p.Append(b, packet.V5)
		}
		f.Add(byte(packet.V5), b)
	}
	f.Add(byte(packet.V311), []byte{0x20, 2, 0, 0, 0x30, 3, 0, 1, 'a', 0x90, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, version byte, server []byte) {
		received := 0
		c, err := Dial(context.Background(), &Config{
			URL: "mqtt://fuzz", Version: packet.V31 + packet.Version(version%3), ClientID: "c",
			Dial: func(context.Context, *url.URL) (net.Conn, error) {
				return &script{*bytes.NewReader(server)}, nil
			},
			OnMessage: func(p *packet.Publish) { received += len(p.Topic) + len(p.Payload) },
			Reconnect: Backoff{Disabled: true},
		})
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		<-c.Done()
		require.Error(t, c.Err())
		require.LessOrEqual(t, received, 70_000*len(server), "a topic alias may repeat a topic")
	})
}
