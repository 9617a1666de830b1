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

// A pipe is one direction of a stream: what was written and has not arrived, of which
// Read gets as much as was let through. It ends when that is read.
type pipe struct{ sent, arrived []byte }

func (p *pipe) Read(b []byte) (int, error) {
	if len(p.arrived) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.arrived)
	p.arrived = p.arrived[n:]
	return n, nil
}

// let has n bytes arrive.
func (p *pipe) let(n int) {
	n = min(n, len(p.sent))
	p.arrived, p.sent = append(p.arrived, p.sent[:n]...), p.sent[n:]
}

// A streamOf is a stream with what is under way on it, in both directions.
type streamOf struct {
	up, down pipe
	reader   *mqtt.Reader // the server's
	answers  *mqtt.Reader // the client's
	bad      bool         // what the client sent there is wrong
}

// A sentUp is a message of the client's whose exchange is not complete.
type sentUp struct {
	n        int
	qos      packet.QoS
	stream   mqtt.StreamID
	released bool
}

// A weaver is a session, its router, who is quick, and a client that sends on several
// streams, loses them and goes on with what was there on others. Its moves are op-codes.
type weaver struct {
	t       *testing.T
	d       dice
	s       *session.Session
	now     time.Time
	streams map[mqtt.StreamID]*streamOf
	dead    map[mqtt.StreamID]bool
	unheard []mqtt.StreamID // ended by the client, and the session does not know
	last    mqtt.StreamID

	sending map[uint16]*sentUp
	nextID  uint16
	count   int         // messages that the client has sent
	routed  map[int]int // by number
	qosOf   map[int]packet.QoS

	delivered int
	receiving map[uint16]bool
	got       map[int]int
}

var weaverLimits = session.Limits{ReceiveMaximum: 8, MaxInflight: 8, QueueBytes: 8 << 10, TopicAliasMaximum: 2}

func newWeaver(t *testing.T, d dice) *weaver {
	w := &weaver{
		t: t, d: d, s: session.New("client", weaverLimits), now: start,
		streams: map[mqtt.StreamID]*streamOf{}, dead: map[mqtt.StreamID]bool{}, sending: map[uint16]*sentUp{}, routed: map[int]int{},
		qosOf: map[int]packet.QoS{}, receiving: map[uint16]bool{}, got: map[int]int{},
	}
	w.s.Attach(w.now, &packet.Connect{Version: packet.V5, Properties: &packet.Properties{SessionExpiry: packet.Some[uint32](100)}}, session.Attach{})
	w.add(mqtt.ControlStream)
	return w
}

func (w *weaver) add(id mqtt.StreamID) {
	s := new(streamOf)
	s.reader, s.answers = mqtt.NewReader(&s.up, 1000), mqtt.NewReader(&s.down, 1000)
	w.streams[id] = s
}

// The op-codes. Each takes what it needs from the dice.
func (w *weaver) step() {
	w.now = w.now.Add(time.Millisecond)
	switch op := w.d(32); {
	case op < 2:
		if len(w.streams) < 5 {
			w.last += 4
			w.add(w.last)
		}
	case op < 8:
		w.publish()
	case op < 14:
		w.receive(w.some())
	case op < 19:
		w.send(w.some())
	case op < 24:
		w.answer(w.some())
	case op < 26:
		id := w.some()
		w.write(id, &packet.Subscribe{PacketID: uint16(100 + w.d(50)), Subscriptions: []packet.Subscription{{Filter: string('a' + rune(w.d(4))), QoS: 2}}})
	case op < 28:
		w.deliver()
	case op < 30:
		w.reset(w.some())
	case op == 30:
		w.spoil(w.some())
	default:
		w.hear()
	}
	st := w.s.Stats()
	require.True(w.t, w.s.Connected() && st.QueueBytes >= 0 && st.QueueBytes <= weaverLimits.QueueBytes && st.Inflight <= 8, "%+v", st)
	for id := range w.dead {
		_, ok := w.s.Next(w.now, id)
		require.False(w.t, ok, "output for a stream that has ended")
	}
}

// some chooses a stream.
func (w *weaver) some() mqtt.StreamID {
	n := w.d(len(w.streams))
	for id := mqtt.StreamID(0); ; id += 4 {
		if w.streams[id] != nil {
			if n--; n < 0 {
				return id
			}
		}
	}
}

// write puts a packet of the client's on its way.
func (w *weaver) write(id mqtt.StreamID, p packet.Packet) {
	s := w.streams[id]
	var err error
	s.up.sent, err = p.Append(s.up.sent, packet.V5)
	require.NoError(w.t, err)
}

// publish has the client send a message, if it may.
func (w *weaver) publish() {
	w.nextID = w.nextID%12 + 1
	qos := packet.QoS(w.d(3))
	if len(w.sending) >= int(weaverLimits.ReceiveMaximum) || w.sending[w.nextID] != nil {
		qos = 0
	}
	w.count++
	w.qosOf[w.count] = qos
	m := &sentUp{n: w.count, qos: qos, stream: w.some()}
	if qos > 0 {
		w.sending[w.nextID] = m
	}
	w.transmit(w.nextID, m, false)
}

func (w *weaver) transmit(id uint16, m *sentUp, dup bool) {
	switch {
	case m.released:
		w.write(m.stream, pubrel(id, 0))
	case m.qos == 0:
		w.write(m.stream, &packet.Publish{Topic: "up", Payload: payload(m.n)})
	default:
		w.write(m.stream, &packet.Publish{Topic: "up", Payload: payload(m.n), QoS: m.qos, PacketID: id, Dup: dup})
	}
}

// receive has some bytes arrive at the server, cut anywhere, and gives the session what
// is complete, or the first of it: the rest is read ahead.
func (w *weaver) receive(id mqtt.StreamID) {
	s := w.streams[id]
	s.up.let(1 + w.d(64))
	for range 1 + w.d(4) {
		h, body, err := s.reader.Next()
		if err == nil {
			var p packet.Packet
			if p, err = packet.Decode(h, bytes.Clone(body), packet.V5); err == nil {
				w.apply(id, w.s.Receive(nil, w.now, id, p))
				if w.dead[id] || w.streams[id] == nil {
					return
				}
				continue
			}
		}
		if _, malformed := err.(*packet.Error); malformed {
			require.True(w.t, s.bad, "%v", err)
			w.lose(id)
			w.end(id)
		}
		return // there is not more
	}
}

func (w *weaver) apply(stream mqtt.StreamID, fx []session.Effect) {
	for _, e := range fx {
		switch e.Kind {
		case session.EffectRoute:
			if n := number(e.Message.Publish.Payload); n > 0 {
				if w.routed[n]++; w.qosOf[n] != packet.AtLeastOnce {
					require.Equal(w.t, 1, w.routed[n], "message %d with QoS %d again", n, w.qosOf[n])
				}
			}
			if e.PacketID != 0 {
				w.s.Routed(w.now, e.Stream, e.PacketID, 0)
			}
		case session.EffectSubscribe:
			w.s.Subscribed(w.now, e.Stream, e.PacketID, nil)
		case session.EffectReset:
			require.Equal(w.t, stream, e.Stream)
			require.True(w.t, w.streams[stream].bad)
			require.Empty(w.t, w.s.Receive(nil, w.now, stream, publish(99, 2)), "nothing more is taken")
			w.lose(stream)
			w.end(stream)
		default:
			require.Failf(w.t, "effect", "%+v", e)
		}
	}
}

// send has the server write on a stream.
func (w *weaver) send(id mqtt.StreamID) {
	for range 1 + w.d(4) {
		o, ok := w.s.Next(w.now, id)
		if !ok {
			return
		}
		s := w.streams[id]
		var err error
		s.down.sent, err = o.Append(s.down.sent, packet.V5, w.now)
		require.NoError(w.t, err)
	}
}

// answer has some bytes arrive at the client, who does what they ask.
func (w *weaver) answer(id mqtt.StreamID) {
	s := w.streams[id]
	s.down.let(1 + w.d(64))
	for {
		h, body, err := s.answers.Next()
		if err != nil {
			return
		}
		p, err := packet.Decode(h, bytes.Clone(body), packet.V5)
		require.NoError(w.t, err)
		switch p := p.(type) {
		case *packet.Publish:
			w.take(id, p)
		case *packet.Puback:
			require.NotNil(w.t, w.sending[p.PacketID])
			require.Equal(w.t, packet.AtLeastOnce, w.sending[p.PacketID].qos)
			require.Zero(w.t, p.Code)
			delete(w.sending, p.PacketID)
		case *packet.Pubrec:
			m := w.sending[p.PacketID]
			require.NotNil(w.t, m)
			require.Equal(w.t, packet.ExactlyOnce, m.qos)
			require.Zero(w.t, p.Code)
			m.released, m.stream = true, id
			w.transmit(p.PacketID, m, false)
		case *packet.Pubcomp:
			// That of an earlier PUBREL, on a stream that has ended since, says that
			// it did not find the exchange: it is complete all the same.
			if m := w.sending[p.PacketID]; m != nil && m.released {
				delete(w.sending, p.PacketID)
			}
		case *packet.Pubrel:
			delete(w.receiving, p.PacketID)
			w.write(id, pubcomp(p.PacketID, 0))
		}
	}
}

// take is the client's part in a message from the server.
func (w *weaver) take(id mqtt.StreamID, p *packet.Publish) {
	n := number(p.Payload)
	switch p.QoS {
	case packet.AtLeastOnce:
		w.got[n]++
		w.write(id, puback(p.PacketID, 0))
		return
	case packet.ExactlyOnce:
		w.write(id, pubrec(p.PacketID, 0))
		if w.receiving[p.PacketID] {
			return
		}
		w.receiving[p.PacketID] = true
	}
	w.got[n]++
	require.Equal(w.t, 1, w.got[n], "message %d again", n)
}

func (w *weaver) deliver() {
	w.delivered++
	m := session.NewMessage(w.now, &packet.Publish{Topic: "a", Payload: payload(w.delivered), QoS: 2}, "other")
	w.s.Deliver(w.now, m, session.Delivery{QoS: packet.QoS(w.d(3)), Stream: w.s.StreamOf(string('a' + rune(w.d(4))))})
}

// reset abandons a data stream, with all that is under way on it and what the server
// has read ahead; the client goes on elsewhere. The session hears of it now or later.
func (w *weaver) reset(id mqtt.StreamID) {
	if id == mqtt.ControlStream {
		return
	}
	w.lose(id)
	if w.d(2) == 0 {
		w.end(id)
	} else {
		w.unheard = append(w.unheard, id)
	}
}

// lose takes a stream from the client, who sends again on others what it has no answer to.
func (w *weaver) lose(id mqtt.StreamID) {
	delete(w.streams, id)
	for n := range uint16(13) {
		if m := w.sending[n]; m != nil && m.stream == id {
			m.stream = w.some()
			w.transmit(n, m, true)
		}
	}
}

// end tells the session that a stream has ended.
func (w *weaver) end(id mqtt.StreamID) {
	require.Empty(w.t, w.s.StreamClosed(nil, w.now, id))
	require.False(w.t, w.s.Unsettled(id))
	w.dead[id] = true
}

// hear tells the session of the end of a stream that it has not heard of yet.
func (w *weaver) hear() {
	if len(w.unheard) > 0 {
		i := w.d(len(w.unheard))
		id := w.unheard[i]
		w.unheard = append(w.unheard[:i], w.unheard[i+1:]...)
		w.end(id)
	}
}

// malformed is what no packet begins with, or is: the type 0, QoS 3, a length of five
// bytes, wrong flags, one above the maximum, the identifier 0.
var malformed = []string{"\x00\x00", "\x36\x05\x00\x01a\x00\x01", "\x30\xff\xff\xff\xff\x01", "\x60\x02\x00\x01", "\x30\xff\x7f", "\x62\x02\x00\x00"}

// spoil has the client send something wrong on a data stream, after what it sent before.
func (w *weaver) spoil(id mqtt.StreamID) {
	if id == mqtt.ControlStream {
		return
	}
	s := w.streams[id]
	s.bad = true
	switch w.d(4) {
	case 0:
		s.up.sent = append(s.up.sent, malformed[w.d(len(malformed))]...)
	case 1:
		w.write(id, &packet.Pingreq{})
	case 2:
		w.write(id, &packet.Publish{Properties: &packet.Properties{TopicAlias: packet.Some[uint16](2)}})
	default:
		w.write(id, &packet.Connect{Version: packet.V5, ClientID: "again"})
	}
}

// settle has everything arrive, and checks that nothing is lost.
func (w *weaver) settle() {
	for len(w.unheard) > 0 {
		w.hear()
	}
	for id := mqtt.StreamID(4); id <= w.last; id += 4 {
		if w.streams[id] != nil {
			w.lose(id)
			w.end(id)
		}
	}
	control := w.streams[mqtt.ControlStream]
	for range 10_000 { // each has one packet or more pass, if there are any
		control.up.let(len(control.up.sent))
		w.receive(mqtt.ControlStream)
		w.send(mqtt.ControlStream)
		control.down.let(len(control.down.sent))
		w.answer(mqtt.ControlStream)
	}
	require.Empty(w.t, w.sending)
	require.Zero(w.t, w.s.QueueBytes())
	require.Zero(w.t, w.s.Inflight())
	for n, qos := range w.qosOf {
		if qos > 0 {
			require.Positive(w.t, w.routed[n], "message %d with QoS %d was lost", n, qos)
		}
	}
	for sub := range w.s.Subscriptions() {
		require.Equal(w.t, mqtt.ControlStream, sub.Stream)
	}
	w.s.Detach(nil, w.now)
	w.s.End(nil, w.now)
	require.Zero(w.t, w.s.QueueBytes())
}

// FuzzStreams plays a program of op-codes: a client opens streams, sends on them in
// pieces of any size, loses them, goes on with its exchanges on others before or after
// the session hears of it, and breaks the protocol on some. Whatever the order, no
// message of QoS 2 passes twice in either direction and none of QoS 1 and 2 is lost.
func FuzzStreams(f *testing.F) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 8 {
		seed := make([]byte, 800)
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
		w := newWeaver(t, d)
		for left() {
			w.step()
		}
		w.settle()
	})
}
