package client

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

var testMachine = machineConfig{
	version: packet.V5, inflightMax: 4, receiveMaximum: 3, topicAliasMaximum: 2, keepAlive: 10 * time.Second,
}

// A modelServer is what a server can know of a client's session: it checks that
// what the machine sends follows from what it was told.
type modelServer struct {
	t       testing.TB
	m       *machine
	window  int
	session map[uint16]byte // by identifier: 1 PUBLISH seen, 2 PUBREC sent
	now     map[uint16]bool // in flight on this connection
	order   uint64          // submission number of the last PUBLISH that was new on this connection
	asked   map[uint16]bool // SUBSCRIBE and UNSUBSCRIBE without answer
}

// sent checks one packet of the machine.
func (s *modelServer) sent(o outgoing) {
	require := require.New(s.t)
	require.Equal(mqtt.ControlStream, o.stream)
	b, err := o.append(nil, packet.V5)
	require.NoError(err)
	h, n, err := packet.ParseHeader(b)
	require.NoError(err)
	p, err := packet.Decode(h, b[n:], packet.V5)
	require.NoError(err)
	switch p := p.(type) {
	case *packet.Publish:
		require.Len(p.Payload, 8)
		require.False(s.asked[p.PacketID], "an identifier in use")
		state, known := s.session[p.PacketID]
		// [MQTT-3.3.1-1], [MQTT-2.2.1-3]
		require.Equal(known, p.Dup, "DUP marks what was sent before, and only that")
		require.NotEqual(byte(2), state, "PUBLISH after PUBREC")
		require.False(s.now[p.PacketID], "twice on a connection")
		s.session[p.PacketID], s.now[p.PacketID] = 1, true
		require.LessOrEqual(len(s.now)-s.released(), s.window, "[MQTT-3.3.4-7]")
		number := uint64(0)
		for _, c := range p.Payload {
			number = number<<8 | uint64(c)
		}
		require.Greater(number, s.order, "in the order of submission")
		s.order = number
	case *packet.Pubrel:
		if p.Code == 0 {
			require.Equal(byte(2), s.session[p.PacketID], "PUBREL without PUBREC")
			s.now[p.PacketID] = true
		}
	case *packet.Subscribe:
		require.False(s.asked[p.PacketID])
		require.NotContains(s.session, p.PacketID)
		s.asked[p.PacketID] = true
	case *packet.Unsubscribe:
		require.False(s.asked[p.PacketID])
		require.NotContains(s.session, p.PacketID)
		s.asked[p.PacketID] = true
	}
}

// released counts the exchanges whose PUBLISH is not on this connection: PUBREL
// needs no room.
func (s *modelServer) released() int {
	n := 0
	for id := range s.now {
		if s.session[id] == 2 {
			n++
		}
	}
	return n
}

// consistent checks the machine's own bookkeeping.
func consistent(t testing.TB, m *machine) {
	require := require.New(t)
	n, queued, sent, identified := 0, 0, 0, 0
	beforeCursor := true
	var prev *flight
	for f := m.outbound.first; f != nil; f = f.next {
		require.Same(prev, f.prev)
		prev = f
		n++
		queued += f.cost()
		if f.sent {
			sent++
		}
		if f.id != 0 {
			identified++
			require.Same(f, m.outbound.byID[f.id])
		}
		if f == m.cursor {
			beforeCursor = false
		}
		if m.connected {
			require.Equal(beforeCursor, f.sent, "the cursor is at the first that was not sent")
		}
	}
	require.Same(prev, m.outbound.last)
	require.Equal(n, m.flights)
	require.Equal(queued, m.queued)
	require.Equal(sent, m.inFlight)
	require.Len(m.outbound.byID, identified)
	for id, r := range m.requests.byID {
		require.True(slices.Contains(m.pending, r))
		require.Equal(id, r.id)
	}
}

// FuzzMachine lets a server do anything at any time, and the application as well.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 5, 5, 6, 1, 7, 2, 5, 8, 2, 3, 1, 5})
	f.Add([]byte{0, 2, 0, 2, 0, 1, 5, 7, 1, 4, 3, 1, 5, 8, 1, 4, 3, 0, 5})
	f.Add([]byte{1, 0, 5, 10, 1, 4, 3, 0, 5, 2, 0, 5, 11, 2})
	f.Add([]byte{9, 2, 12, 9, 3, 12, 13, 1, 4, 3, 1, 9, 2, 13, 1})
	f.Add([]byte{14, 20, 5, 14, 9, 14, 9, 15, 0, 1, 16, 0, 4, 3, 1, 5})
	f.Fuzz(func(t *testing.T, ops []byte) {
		// Every step looks at everything that is in flight: a long script takes
		// minutes and tells nothing that a short one does not.
		runMachine(t, ops[:min(len(ops), 1000)])
	})
}

func TestTheMachineAgainstARandomServer(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		ops := make([]byte, 300)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		runMachine(t, ops)
	}
}

func runMachine(t testing.TB, ops []byte) {
	m := newMachine(testMachine)
	now := time.Unix(1e9, 0)
	s := &modelServer{t: t, m: m, session: map[uint16]byte{}, now: map[uint16]bool{}, asked: map[uint16]bool{}}
	open := map[*flight]bool{}
	requested := map[*request]bool{}
	type delivery struct {
		epoch, session uint64
		id             uint16
		qos            packet.QoS
	}
	var deliveries []delivery
	running := map[[2]uint64]bool{} // QoS 2: {session, id} delivered and not released
	submitted := uint64(0)
	attach := func(present bool) {
		s.window = 3
		s.now, s.asked, s.order = map[uint16]bool{}, map[uint16]bool{}, 0
		if !present {
			s.session = map[uint16]byte{}
			clear(running)
		}
		require.NoError(t, m.attach(now, &packet.Connack{
			SessionPresent: present,
			Properties:     &packet.Properties{ReceiveMaximum: packet.Some[uint16](3), MaximumQoS: packet.Some[byte](2)},
		}, false))
	}
	detach := func() {
		if m.connected {
			m.detach()
		}
	}
	take := func() {
		for _, c := range m.takeCompletions(nil) {
			if c.flight != nil {
				require.True(t, open[c.flight], "a message ends once")
				delete(open, c.flight)
			} else {
				require.True(t, requested[c.request], "a request ends once")
				delete(requested, c.request)
			}
		}
	}
	// receive lets the machine have a packet; an error ends the connection.
	receive := func(p packet.Packet) {
		if err := m.receive(mqtt.ControlStream, p); err != nil {
			detach()
		}
	}
	attach(false)
	for len(ops) > 0 {
		op := ops[0]
		arg := byte(0)
		if ops = ops[1:]; len(ops) > 0 && op != 5 && op != 4 {
			arg, ops = ops[0], ops[1:]
		}
		id := uint16(arg%8) + 1
		switch op % 17 {
		case 0: // publish
			submitted++
			payload := make([]byte, 8)
			for i := range payload {
				payload[i] = byte(submitted >> (56 - 8*i))
			}
			fl, err := newFlight(&packet.Publish{Topic: "t", Payload: payload, QoS: packet.QoS(1 + arg%2)}, packet.V5)
			require.NoError(t, err)
			fl.done = func(error) {}
			require.NoError(t, m.submit(fl))
			open[fl] = true
		case 1, 2: // subscribe, unsubscribe
			r := &request{wait: make(chan requestOutcome, 1)}
			filter := string('a' + rune(arg%4))
			if op%17 == 1 {
				r.subscribe = &packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: filter}}}
				r.handler = func(*packet.Publish) {}
			} else {
				r.unsubscribe = &packet.Unsubscribe{Filters: []string{filter}}
			}
			require.NoError(t, m.request(r))
			requested[r] = true
		case 3:
			detach()
			attach(arg%2 == 1)
		case 4:
			detach()
		case 5: // write
			for {
				o, ok := m.next()
				if !ok {
					break
				}
				s.sent(o)
			}
		case 6, 7, 8: // the server acknowledges, rightly or wrongly
			if !m.connected {
				continue
			}
			a := packet.Ack{PacketID: id}
			if arg >= 128 {
				a.Code = packet.QuotaExceeded
			}
			fl := m.outbound.byID[id]
			switch op % 17 {
			case 6:
				receive(&packet.Puback{Ack: a})
			case 7:
				receive(&packet.Pubrec{Ack: a})
			default:
				receive(&packet.Pubcomp{Ack: a})
			}
			switch {
			case fl == nil:
			case fl.finished:
				delete(s.session, id)
				delete(s.now, id)
			case fl.released:
				s.session[id] = 2
			}
		case 9: // a message arrives
			if !m.connected {
				continue
			}
			p := &packet.Publish{Topic: "in", QoS: packet.QoS(arg % 3)}
			if p.QoS > 0 {
				p.PacketID = id
			}
			if arg >= 128 {
				p.Properties = &packet.Properties{TopicAlias: packet.Some(uint16(arg % 4))}
				if arg >= 192 {
					p.Topic = ""
				}
			}
			ok, err := m.receivePublish(mqtt.ControlStream, p)
			switch {
			case err != nil:
				detach()
			case ok:
				require.NotEmpty(t, p.Topic)
				if p.QoS == 2 {
					key := [2]uint64{m.session, uint64(p.PacketID)}
					require.False(t, running[key], "QoS 2 is delivered once")
					running[key] = true
				}
				if p.QoS > 0 {
					deliveries = append(deliveries, delivery{m.epoch, m.session, p.PacketID, p.QoS})
				}
			}
		case 10, 11: // the server answers a request
			if !m.connected {
				continue
			}
			codes := make([]packet.ReasonCode, arg%3)
			if arg >= 128 && len(codes) > 0 {
				codes[0] = packet.NotAuthorized
			}
			delete(s.asked, id)
			if op%17 == 10 {
				receive(&packet.Suback{PacketID: id, Codes: codes})
			} else {
				receive(&packet.Unsuback{PacketID: id, Codes: codes})
			}
			if r := m.requests.byID[id]; r != nil {
				s.asked[id] = true
			}
		case 12: // the application has had a message
			if len(deliveries) > 0 {
				i := int(arg) % len(deliveries)
				d := deliveries[i]
				deliveries = append(deliveries[:i], deliveries[i+1:]...)
				m.delivered(d.epoch, d.session, mqtt.ControlStream, d.qos, d.id)
			}
		case 13:
			if m.connected {
				_, known := m.received[inboundID{0, id}]
				receive(&packet.Pubrel{Ack: ack(id)})
				if _, still := m.received[inboundID{0, id}]; known && !still {
					delete(running, [2]uint64{m.session, uint64(id)})
				}
			}
		case 14: // time passes
			now = now.Add(time.Duration(arg) * time.Second)
			if m.tick(now) != nil {
				detach()
			}
		case 15: // a caller gives up
			for fl := m.outbound.first; fl != nil; fl = fl.next {
				if !fl.abandoned {
					m.giveUp(fl)
					delete(open, fl)
					break
				}
			}
		case 16:
			for _, r := range m.pending {
				if !r.abandoned && !r.again {
					m.giveUpRequest(r)
					delete(requested, r)
					break
				}
			}
		}
		take()
		consistent(t, m)
	}
	m.abandonAll(ErrClosed)
	take()
	require.Empty(t, open, "every message ends")
	require.Empty(t, requested, "every request ends")
	require.Zero(t, m.queued)
	require.Zero(t, m.flights)
	require.Zero(t, m.inFlight)
}

func publishIn(t *testing.T, m *machine, qos packet.QoS, id uint16) {
	ok, err := m.receivePublish(mqtt.ControlStream, &packet.Publish{Topic: "t", QoS: qos, PacketID: id})
	require.NoError(t, err)
	require.True(t, ok)
}

// A handler returns after its message's connection, or session, was replaced by one
// on which another message has the same identifier. That one is not acknowledged.
func TestALateHandlerAcknowledgesNothingElse(t *testing.T) {
	for _, tc := range []struct {
		name    string
		qos     packet.QoS
		present bool
		answer  packet.Type
	}{
		{"QoS 1, next connection", 1, true, packet.PUBACK},
		{"QoS 1, next session", 1, false, packet.PUBACK},
		{"QoS 2, next session", 2, false, packet.PUBREC},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(testMachine)
			require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
			publishIn(t, m, tc.qos, 1)
			epoch, session := m.epoch, m.session
			m.detach()
			require.NoError(t, m.attach(time.Time{}, &packet.Connack{SessionPresent: tc.present}, false))
			publishIn(t, m, tc.qos, 1)
			m.delivered(epoch, session, mqtt.ControlStream, tc.qos, 1)
			_, ok := m.next()
			require.False(t, ok)
			m.delivered(m.epoch, m.session, mqtt.ControlStream, tc.qos, 1)
			o, ok := m.next()
			require.True(t, ok)
			require.Equal(t, tc.answer, o.kind)
		})
	}
}

// Servers exist that count packet identifiers per stream.
func TestTheSameIdentifierOnTwoStreamsIsTwoMessages(t *testing.T) {
	m := newMachine(testMachine)
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
	for _, stream := range []mqtt.StreamID{0, 4} {
		ok, err := m.receivePublish(stream, &packet.Publish{Topic: "t", QoS: 2, PacketID: 1})
		require.NoError(t, err)
		require.True(t, ok)
	}
	for _, stream := range []mqtt.StreamID{4, 0} {
		m.delivered(m.epoch, m.session, stream, 2, 1)
		o, ok := m.next()
		require.True(t, ok)
		require.Equal(t, stream, o.stream, "acknowledged where it arrived")
		require.NoError(t, m.receive(stream, &packet.Pubrel{Ack: ack(1)}))
		o, _ = m.next()
		require.Equal(t, stream, o.stream)
		require.Equal(t, packet.PUBCOMP, o.kind)
	}
}

func TestIdentifiersWrapPastThoseInUse(t *testing.T) {
	t.Attr("mqtt5", "MQTT-2.2.1-3")
	cfg := testMachine
	cfg.inflightMax = 60_000
	m := newMachine(cfg)
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
	send := func() *flight {
		f, err := newFlight(&packet.Publish{Topic: "t", QoS: 1}, packet.V5)
		require.NoError(t, err)
		require.NoError(t, m.submit(f))
		_, ok := m.next()
		require.True(t, ok)
		return f
	}
	first := send()
	for range 70_000 {
		f := send()
		require.NotZero(t, f.id)
		require.NotEqual(t, first.id, f.id)
		require.NoError(t, m.receive(mqtt.ControlStream, &packet.Puback{Ack: ack(f.id)}))
	}
	consistent(t, m)
}

// MQTT 3.1 has no Session Present: the client sends again, and subscribes again.
func TestMQTT31AssumesThatTheSessionWasKept(t *testing.T) {
	cfg := testMachine
	cfg.version = packet.V31
	m := newMachine(cfg)
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
	require.NoError(t, m.request(&request{subscribe: &packet.Subscribe{Subscriptions: []packet.Subscription{{Filter: "a"}}}}))
	o, _ := m.next()
	require.NoError(t, m.receive(0, &packet.Suback{PacketID: o.packet.(*packet.Subscribe).PacketID, Codes: []packet.ReasonCode{0}}))
	f, err := newFlight(&packet.Publish{Topic: "t", QoS: 1}, packet.V31)
	require.NoError(t, err)
	require.NoError(t, m.submit(f))
	m.next()
	for id := range uint16(2) {
		publishIn(t, m, 2, 1+id)
		m.delivered(m.epoch, m.session, 0, 2, 1+id)
		m.next()
	}
	m.detach()
	require.NoError(t, m.attach(time.Time{}, &packet.Connack{}, false))
	o, _ = m.next()
	require.Equal(t, "a", o.packet.(*packet.Subscribe).Subscriptions[0].Filter)
	o, _ = m.next()
	require.Same(t, f, o.flight)
	require.True(t, o.dup)
	publishIn(t, m, 2, 1) // without DUP: another message
	again, err := m.receivePublish(0, &packet.Publish{Topic: "t", QoS: 2, PacketID: 2, Dup: true})
	require.NoError(t, err)
	require.False(t, again)
}
