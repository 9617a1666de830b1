package packet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

func benchPublish() *packet.Publish {
	return &packet.Publish{Topic: "sensors/kitchen/temperature", Payload: make([]byte, 64)}
}

func BenchmarkPublishDecode(b *testing.B) {
	raw, err := benchPublish().Append(nil, packet.V5)
	require.NoError(b, err)
	var p packet.Publish
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		h, n, err := packet.ParseHeader(raw)
		if err != nil || n == 0 {
			b.Fatal(err)
		}
		if err := p.Decode(h, raw[n:], packet.V5); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishAppend(b *testing.B) {
	p := benchPublish()
	buf, err := p.Append(nil, packet.V5)
	require.NoError(b, err)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if buf, err = p.Append(buf[:0], packet.V5); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPublishPerSubscriber(b *testing.B) {
	p := benchPublish()
	p.Properties = &packet.Properties{ContentType: "text/plain", MessageExpiry: packet.Some[uint32](60)}
	h := packet.PublishHeader{
		PacketID: 7, QoS: packet.AtLeastOnce, SubscriptionIDs: []uint32{1, 2}, Alias: 3, OmitTopic: true,
		Expiry: packet.Some[uint32](59),
	}
	buf, err := packet.AppendPublish(nil, packet.V5, p, h)
	require.NoError(b, err)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if buf, err = packet.AppendPublish(buf[:0], packet.V5, p, h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishDecodeWithProperties(b *testing.B) {
	p := benchPublish()
	p.Properties = &packet.Properties{ContentType: "text/plain", MessageExpiry: packet.Some[uint32](60)}
	raw, err := p.Append(nil, packet.V5)
	require.NoError(b, err)
	h, n, err := packet.ParseHeader(raw)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Decode(h, raw[n:], packet.V5); err != nil {
			b.Fatal(err)
		}
	}
}
