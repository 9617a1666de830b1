package session_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A pieces is a stream whose bytes arrive as the dice fall.
type pieces struct {
	d    dice
	data []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), 1+p.d(9))])
	p.data = p.data[n:]
	return n, nil
}

// split returns the packets of a stream, and whether it ends with a mistake.
func split(src io.Reader) (all []packet.Packet, bad bool) {
	r := mqtt.NewReader(src, 1000)
	defer r.Release()
	for {
		h, body, err := r.Next()
		if err != nil {
			return all, err != io.EOF
		}
		p, err := packet.Decode(h, bytes.Clone(body), packet.V5)
		if err != nil {
			return all, true
		}
		all = append(all, p)
	}
}

// FuzzStreams sends packets, right and wrong, on the control stream and three data
// streams, in pieces of any size. However they are cut, the packets are the same;
// what is wrong on a data stream ends that one; the machine keeps its limits,
// and gives nothing for a stream that has ended.
func FuzzStreams(f *testing.F) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 6 {
		seed := make([]byte, 500)
		for j := range seed {
			seed[j] = byte(rng.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		d, left := bytesDice(data)
		limits := session.Limits{ReceiveMaximum: 8, MaxInflight: 8, QueueBytes: 8 << 10, TopicAliasMaximum: 2}
		s := session.New("client", limits)
		now := start
		s.Attach(now, &packet.Connect{Version: packet.V5, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](100)}}, session.Attach{})
		var wires [4][]byte
		for left() {
			i := d(len(wires))
			b, err := anyPacket(d).Append(nil, packet.V5)
			if err != nil {
				continue // it is none of MQTT 5
			}
			if d(40) == 1 {
				b[d(len(b))] ^= byte(1 << d(8))
			}
			wires[i] = append(wires[i], b...)
		}
		var streams [len(wires)][]packet.Packet
		var bad [len(wires)]bool
		for i, wire := range wires {
			streams[i], bad[i] = split(bytes.NewReader(wire))
			cut, cutBad := split(&pieces{dice(rng.IntN), wire})
			require.Equal(t, streams[i], cut)
			require.Equal(t, bad[i], cutBad)
		}
		closed := map[mqtt.StreamID]bool{}
		end := func(id mqtt.StreamID) {
			require.Empty(t, s.StreamClosed(nil, now, id))
			closed[id] = true
		}
		for n := 0; s.Connected() && n < 10000; n++ {
			i := n % len(streams)
			id := mqtt.StreamID(4 * i)
			now = now.Add(time.Millisecond)
			switch {
			case closed[id]:
			case len(streams[i]) > 0:
				p := streams[i][0]
				streams[i] = streams[i][1:]
				for _, e := range s.Receive(nil, now, id, p) {
					switch e.Kind {
					case session.EffectRoute:
						if e.PacketID != 0 {
							s.Routed(now, e.Stream, e.PacketID, 0)
						}
						s.Deliver(now, e.Message, session.Delivery{QoS: e.Message.Publish.QoS, Stream: id})
					case session.EffectSubscribe:
						s.Subscribed(now, e.Stream, e.PacketID, nil)
					case session.EffectUnsubscribe:
						s.Unsubscribed(now, e.Stream, e.PacketID, nil)
					case session.EffectReset:
						require.Equal(t, id, e.Stream)
						require.NotEqual(t, mqtt.ControlStream, id)
						end(id)
					}
				}
			case id != mqtt.ControlStream:
				end(id) // by FIN, or for a mistake
			case len(closed) == len(streams)-1:
				s.Detach(nil, now)
			}
			for j := range streams {
				out := mqtt.StreamID(4 * j)
				o, ok := s.Next(now, out)
				require.False(t, ok && closed[out], "output for a stream that has ended")
				if ok {
					_, err := o.Append(nil, packet.V5, now)
					require.NoError(t, err)
				}
			}
			st := s.Stats()
			require.True(t, st.QueueBytes >= 0 && st.QueueBytes <= limits.QueueBytes && st.Inflight <= 8, "%+v", st)
		}
		s.Detach(nil, now)
		for sub := range s.Subscriptions() {
			require.Equal(t, mqtt.ControlStream, sub.Stream)
		}
		s.End(nil, now)
		require.Zero(t, s.QueueBytes())
	})
}
