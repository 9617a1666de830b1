package session_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// FuzzSession feeds a session. The first byte chooses between a client that
// keeps to the specification, to whom nothing may be lost, and one that sends
// anything, who must get no more than the limits.
func FuzzSession(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 8 {
		seed := make([]byte, 600)
		for j := range seed {
			seed[j] = byte(rng.Uint32())
		}
		seed[0] = byte(i)
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 4096 {
			return
		}
		d, left := bytesDice(data[1:])
		if data[0]%2 == 1 {
			hostile(t, d, left)
			return
		}
		m := newModel(t, d)
		m.connect()
		for left() {
			switch d(48) {
			case 0:
				m.openStream()
			case 1:
				m.closeStream()
			default:
				m.step()
			}
		}
		m.settle()
	})
}

// hostile plays a client that sends any valid packet at any time on any stream.
func hostile(t *testing.T, d dice, left func() bool) {
	limits := session.Limits{ReceiveMaximum: 4, MaxInflight: 4, QueueBytes: 8 << 10, MaxSubscriptions: 5, TopicAliasMaximum: 2}
	s := session.New("client", limits)
	now := start
	versions := []packet.Version{packet.V31, packet.V311, packet.V5, packet.V5}
	var open []session.Effect
	for left() && !s.Ended() {
		stream := mqtt.StreamID(4 * d(3))
		now = now.Add(time.Duration(d(8)) * 100 * time.Millisecond)
		var fx []session.Effect
		switch d(12) {
		case 0:
			if !s.Connected() {
				fx = s.Detach(fx, now)
				if s.Ended() {
					break
				}
				s.Attach(now, &packet.Connect{
					Version: versions[d(4)], KeepAlive: uint16(d(3)), CleanStart: d(5) == 1,
					Will: &packet.Will{Topic: "will", QoS: 1, Properties: &packet.Properties{WillDelay: packet.Some(uint32(d(9)))}},
					Properties: &packet.Properties{
						SessionExpiry: packet.Some(uint32(d(9))), ReceiveMaximum: packet.Some(uint16(1 + d(9))),
						MaximumPacketSize: packet.Some(uint32(1 + d(100))), TopicAliasMaximum: packet.Some(uint16(d(3))),
					},
				}, session.Attach{AuthMethod: "m"})
			}
		case 1:
			fx = s.Detach(fx, now)
		case 2:
			fx = s.StreamClosed(fx, now, stream)
		case 3:
			fx = s.Tick(fx, now)
			if at := s.Deadline(); !at.IsZero() && len(fx) == 0 {
				require.True(t, at.After(now), "Tick did what is due")
			}
		case 4:
			if len(open) > 0 {
				i := d(len(open))
				e := open[i]
				// Equal identifiers are answered in order.
				for j := range i {
					if o := open[j]; o.Stream == e.Stream && o.PacketID == e.PacketID {
						i, e = j, o
						break
					}
				}
				open = append(open[:i:i], open[i+1:]...)
				switch e.Kind {
				case session.EffectRoute:
					s.Routed(now, e.Stream, e.PacketID, []packet.ReasonCode{0, 0x10, 0x87}[d(3)])
				case session.EffectSubscribe:
					codes := make([]packet.ReasonCode, len(e.Subscribe.Subscriptions))
					codes[0] = []packet.ReasonCode{0, 2, 0x87}[d(3)]
					s.Subscribed(now, e.Stream, e.PacketID, codes)
				case session.EffectUnsubscribe:
					s.Unsubscribed(now, e.Stream, e.PacketID, nil)
				case session.EffectAuth:
					fx = s.Authenticated(fx, []packet.ReasonCode{packet.ContinueAuthentication, 0, 0x87}[d(3)], make([]byte, d(90)), "")
				}
			}
		case 5, 6:
			m := session.NewMessage(now, &packet.Publish{
				Topic: "topic", Payload: make([]byte, d(90)), QoS: 2,
				Properties: &packet.Properties{MessageExpiry: packet.Some(uint32(d(5)))},
			}, "other")
			if s.Deliver(now, m, session.Delivery{QoS: packet.QoS(d(3)), Stream: stream}) == session.Full && d(2) == 0 {
				s.Overflow(now)
			}
		case 7, 8:
			for range d(4) {
				o, ok := s.Next(now, stream)
				if !ok {
					break
				}
				_, err := o.Append(nil, s.Version(), now)
				require.NoError(t, err)
			}
		default:
			fx = s.Receive(fx, now, stream, anyPacket(d))
		}
		for _, e := range fx {
			switch e.Kind {
			case session.EffectRoute:
				require.NotEmpty(t, e.Message.Publish.Topic)
				if e.PacketID != 0 {
					open = append(open, e)
				}
			case session.EffectSubscribe, session.EffectUnsubscribe, session.EffectAuth:
				open = append(open, e)
			case session.EffectClose:
				require.False(t, s.Connected())
			case session.EffectReset:
				require.NotEqual(t, mqtt.ControlStream, e.Stream)
				_, ok := s.Next(now, e.Stream)
				require.False(t, ok, "it is dead")
				require.Empty(t, s.Receive(nil, now, e.Stream, anyPacket(d)))
				if d(2) == 0 { // else later
					require.Empty(t, s.StreamClosed(nil, now, e.Stream))
				}
			}
		}
		st := s.Stats()
		require.True(t, st.QueueBytes >= 0 && st.QueueBytes <= limits.QueueBytes && st.Inflight <= 4, "%+v", st)
		// Exactly: a filter has its place from the SUBSCRIBE on, until no SUBSCRIBE
		// of it is carried out and it is not subscribed to.
		require.LessOrEqual(t, st.Subscriptions, limits.MaxSubscriptions)
		n := 0
		for sub := range s.Subscriptions() {
			n++
			require.Equal(t, sub.Stream, s.StreamOf(sub.Filter))
		}
		require.LessOrEqual(t, n, st.Subscriptions)
	}
	s.End(nil, now)
	require.Zero(t, s.QueueBytes())
	require.Zero(t, s.Inflight())
}

func anyPacket(d dice) packet.Packet {
	id := uint16(1 + d(6))
	ack := packet.Ack{PacketID: id, Code: []packet.ReasonCode{0, 0, 0x10, 0x80}[d(4)]}
	switch d(14) {
	case 0, 1, 2, 3:
		p := &packet.Publish{Topic: []string{"a", "b", ""}[d(3)], PacketID: id, QoS: packet.QoS(d(3)), Dup: d(2) == 0}
		if p.Topic == "" || d(2) == 0 {
			p.Properties = &packet.Properties{TopicAlias: packet.Some(uint16(1 + d(3)))}
		}
		return p
	case 4:
		return &packet.Puback{Ack: ack}
	case 5:
		return &packet.Pubrec{Ack: ack}
	case 6, 7:
		return &packet.Pubrel{Ack: ack}
	case 8:
		return &packet.Pubcomp{Ack: ack}
	case 9, 10:
		p := &packet.Subscribe{PacketID: id}
		for range 1 + d(4) {
			p.Subscriptions = append(p.Subscriptions, packet.Subscription{Filter: string('a' + rune(d(8))), QoS: packet.QoS(d(3))})
		}
		return p
	case 11:
		return &packet.Unsubscribe{PacketID: id, Filters: []string{string('a' + rune(d(8)))}}
	case 12:
		return &packet.Pingreq{}
	default:
		switch d(4) {
		case 0:
		case 1:
			code := []packet.ReasonCode{packet.ReAuthenticate, packet.ReAuthenticate, packet.ContinueAuthentication, packet.Success}[d(4)]
			return &packet.Auth{Code: code, Properties: &packet.Properties{AuthMethod: []string{"m", "m", "n"}[d(3)]}}
		default:
			return &packet.Pingreq{}
		}
		return &packet.Disconnect{Code: packet.ReasonCode(4 * d(2)), Properties: &packet.Properties{SessionExpiry: packet.Some(uint32(d(3)))}}
	}
}
