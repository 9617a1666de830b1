package mqtttest

import (
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// pieceCases send the same packets in pieces of all sizes: where the network cuts
// the bytes means nothing (MQTT 5, Section 4.2).
var pieceCases = []testCase{
	{"PacketsInPiecesMeanTheSame", func(r *run) {
		for _, v := range versions {
			p := r.clientOf(v, "c")
			p.piecesMeanTheSame(v)
			p.disconnect(packet.NormalDisconnection)
		}
	}},
	{"ConnectInPiecesMeansTheSame", func(r *run) {
		wire := slices.Concat(connect5(0x02|0x04|0x40|0x80, str("c"), []byte{0}, str("w"), str("m"), str("u"), str("p")), []byte{0xC0, 0})
		whole := func(at ...int) {
			p := r.dial()
			p.sendPieces(wire, at...)
			require.Equal(r, packet.Success, expect[*packet.Connack](p).Code)
			expect[*packet.Pingresp](p)
			p.disconnect(packet.NormalDisconnection)
		}
		for at := range wire {
			whole(at)
		}
		whole(everyByte(wire)...)
	}},
}

// pieceStreamCases do it on a data stream.
var pieceStreamCases = []testCase{
	{"PacketsInPiecesOnADataStreamMeanTheSame", func(r *run) {
		c := r.client("c")
		d := c.openStream()
		d.piecesMeanTheSame(packet.V5)
		c.ping()
	}},
}

func everyByte(b []byte) []int {
	at := make([]int, len(b))
	for i := range at {
		at[i] = i
	}
	return at
}

// sendPieces sends b in pieces that begin at the given places.
func (p *peer) sendPieces(b []byte, at ...int) {
	p.r.Helper()
	for i, from := range append([]int{0}, at...) {
		to := len(b)
		if i < len(at) {
			to = at[i]
		}
		if from < to {
			p.sendRaw(b[from:to])
		}
	}
}

// dribble sends b in single bytes, until the broker has had enough.
func (p *peer) dribble(b []byte) {
	for i := range b {
		if _, err := p.stream.Write(b[i : i+1]); err != nil {
			return
		}
	}
}

// piecesMeanTheSame sends packets of every kind, cut in two at every byte, in
// single bytes, and several times over in one piece.
func (p *peer) piecesMeanTheSame(v packet.Version) {
	p.r.Helper()
	first := p.encodeAll(
		&packet.Subscribe{PacketID: 21, Subscriptions: []packet.Subscription{{Filter: "own/+"}}},
		&packet.Publish{Topic: "own/0", Payload: []byte("zero")},
		&packet.Publish{Topic: "own/1", Payload: []byte("one"), QoS: 1, PacketID: 22},
		&packet.Publish{Topic: "own/2", Payload: []byte("two"), QoS: 2, PacketID: 23},
	)
	second := p.encodeAll(
		&packet.Pubrel{Ack: packet.Ack{PacketID: 23}},
		&packet.Unsubscribe{PacketID: 24, Filters: []string{"own/+"}},
	)
	wantFirst := []string{"PUBACK", "PUBLISH zero", "PUBLISH one", "PUBLISH two", "PUBREC", "SUBACK"}
	wantSecond := []string{"PUBCOMP", "UNSUBACK"}
	for at := range first {
		p.sendPieces(first, at)
		p.answers(wantFirst)
		p.sendPieces(second, at%len(second))
		p.answers(wantSecond)
	}
	p.sendPieces(first, everyByte(first)...)
	p.answers(wantFirst)
	p.sendPieces(second, everyByte(second)...)
	p.answers(wantSecond)
}

func (p *peer) encodeAll(packets ...packet.Packet) (b []byte) {
	p.r.Helper()
	for _, pk := range packets {
		b = append(b, p.encode(pk)...)
	}
	return b
}

// answers expects these packets in any order.
func (p *peer) answers(want []string) {
	p.r.Helper()
	var got []string
	for range want {
		pk, err := p.receive()
		require.NoError(p.r, err)
		s := pk.Type().String()
		if m, ok := pk.(*packet.Publish); ok {
			s = fmt.Sprint(s, " ", string(m.Payload))
		}
		got = append(got, s)
	}
	require.ElementsMatch(p.r, want, got)
}
