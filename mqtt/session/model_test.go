package session_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A dice makes a model's choices: n returns a number below k.
type dice func(k int) int

// bytesDice reads choices from data; when it is used up all choices are 0.
func bytesDice(data []byte) (d dice, left func() bool) {
	d = func(k int) int {
		if len(data) == 0 {
			return 0
		}
		v := int(data[0])
		data = data[1:]
		return v % k
	}
	return d, func() bool { return len(data) > 0 }
}

// A model is a session between a client that keeps to the specification, a
// network that loses everything in transit when a connection or a stream ends,
// and a router that answers in its own time.
type model struct {
	t       testing.TB
	d       dice
	s       *session.Session
	now     time.Time
	lim     session.Limits
	v       packet.Version
	up      bool
	rm      int // the client's Receive Maximum
	open    map[mqtt.StreamID]*wire
	last    mqtt.StreamID // data stream opened last on this connection
	streams bool          // there were data streams

	toRoute []session.Effect // EffectRoute that wait for Routed

	// The client as a sender.
	published int
	nextID    uint16
	sending   []*outgoing // not complete, in the order of sending
	routed    map[int]int // message number -> times routed

	// The client as a receiver.
	delivered int
	qosOf     map[int]packet.QoS
	got       map[int]int
	receiving map[uint16]bool // QoS 2 identifiers between PUBLISH and PUBREL
	lastNew   [3]int          // per QoS, the number received last for the first time

	held map[uint16]*sentTo // PUBLISH on this connection, not acknowledged
}

// A sentTo is where a message was sent to the client.
type sentTo struct {
	stream mqtt.StreamID
	cut    bool // its stream has ended: it may come again
}

// A wire is a stream with what is in transit.
type wire struct{ up, down []packet.Packet }

type outgoing struct {
	n        int
	id       uint16
	qos      packet.QoS
	released bool
	stream   mqtt.StreamID // of this connection
}

func newModel(t testing.TB, d dice) *model {
	lim := session.Limits{ReceiveMaximum: 8, MaxInflight: 12, QueueBytes: 64 << 10, SessionExpiryMax: -1, TopicAliasMaximum: 4}
	return &model{
		t: t, d: d, s: session.New("client", lim), now: start, lim: lim,
		routed: map[int]int{}, qosOf: map[int]packet.QoS{}, got: map[int]int{}, receiving: map[uint16]bool{},
	}
}

func number(payload []byte) int { return int(binary.BigEndian.Uint32(payload)) }

func payload(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// step does one thing.
func (m *model) step() {
	switch c := m.d(32); {
	case c < 6:
		m.clientSends()
	case c < 13:
		m.serverReceives()
	case c < 20:
		m.serverSends()
	case c < 26:
		m.clientReceives()
	case c < 28:
		m.deliver()
	case c < 30:
		m.route()
	case c < 31:
		m.now = m.now.Add(time.Duration(m.d(1000)) * time.Millisecond)
		m.apply(m.s.Tick(nil, m.now))
	default:
		if m.d(4) == 0 {
			m.disconnect()
		} else {
			m.connect()
		}
	}
	m.check()
}

func (m *model) connect() {
	if m.up {
		return
	}
	c := &packet.Connect{Version: packet.V311, ClientID: "client"}
	m.rm = int(m.lim.MaxInflight)
	if m.d(4) != 0 {
		c.Version = packet.V5
		m.rm = 1 + m.d(20)
		c.Properties = &packet.Properties{
			SessionExpiry:     packet.Some[uint32](0xFFFFFFFF),
			ReceiveMaximum:    packet.Some(uint16(m.rm)),
			TopicAliasMaximum: packet.Some(uint16(m.d(3))),
		}
		m.rm = min(m.rm, int(m.lim.MaxInflight))
	}
	m.v, m.up = c.Version, true
	m.open = map[mqtt.StreamID]*wire{mqtt.ControlStream: {}}
	m.last = 0
	m.held = map[uint16]*sentTo{}
	m.s.Attach(m.now, c, session.Attach{SessionPresent: true})
	// The client sends again what is not acknowledged, in order.
	for _, o := range m.sending {
		o.stream = mqtt.ControlStream
		m.transmit(o, true)
	}
}

func (m *model) disconnect() {
	if !m.up {
		return
	}
	if m.d(4) == 0 {
		m.apply(m.s.Disconnect(nil, m.now, packet.ServerShuttingDown, "test"))
	}
	m.up, m.open = false, nil
	m.apply(m.s.Detach(nil, m.now))
}

func (m *model) openStream() {
	if m.up && len(m.open) < 4 {
		m.last += 4
		m.streams = true
		m.open[m.last] = &wire{}
	}
}

// closeStream ends a data stream with all that is in transit on it. The client
// goes on with what it has sent there on some other stream.
func (m *model) closeStream() bool {
	if !m.up {
		return false
	}
	id := m.someStream()
	if id == mqtt.ControlStream {
		return false
	}
	delete(m.open, id)
	for _, h := range m.held {
		h.cut = h.cut || h.stream == id
	}
	m.apply(m.s.StreamClosed(nil, m.now, id))
	for _, o := range m.sending {
		if o.stream == id {
			o.stream = m.someStream()
			m.transmit(o, true)
		}
	}
	return true
}

// someStream chooses an open stream.
func (m *model) someStream() mqtt.StreamID {
	if len(m.open) == 1 {
		return mqtt.ControlStream
	}
	n := m.d(2 * len(m.open))
	for id := mqtt.StreamID(4); id <= m.last; id += 4 {
		if m.open[id] != nil {
			if n--; n < 0 {
				return id
			}
		}
	}
	return mqtt.ControlStream
}

func (m *model) transmit(o *outgoing, dup bool) {
	w := m.open[o.stream]
	if o.released {
		w.up = append(w.up, pubrel(o.id, 0))
		return
	}
	w.up = append(w.up, &packet.Publish{Topic: "up", Payload: payload(o.n), QoS: o.qos, PacketID: o.id, Dup: dup})
}

// clientSends publishes, if the client's window is open.
func (m *model) clientSends() {
	if !m.up || len(m.sending) >= int(m.lim.ReceiveMaximum) {
		return
	}
	m.nextID = m.nextID%20 + 1 // identifiers come again soon
	if m.find(m.nextID) != nil {
		return
	}
	m.published++
	o := &outgoing{n: m.published, id: m.nextID, qos: packet.QoS(1 + m.d(2)), stream: m.someStream()}
	m.routed[o.n] = 0
	m.sending = append(m.sending, o)
	m.transmit(o, false)
}

func (m *model) serverReceives() {
	if !m.up {
		return
	}
	stream := m.someStream()
	w := m.open[stream]
	if len(w.up) == 0 {
		return
	}
	p := recode(m.t, w.up[0], m.v)
	w.up = w.up[1:]
	if a, ok := p.(*packet.Puback); ok {
		delete(m.held, a.PacketID)
	}
	if a, ok := p.(*packet.Pubcomp); ok {
		delete(m.held, a.PacketID)
	}
	m.apply(m.s.Receive(nil, m.now, stream, p))
}

func (m *model) apply(fx []session.Effect) {
	for _, f := range fx {
		switch f.Kind {
		case session.EffectRoute:
			n := number(f.Message.Publish.Payload)
			if m.routed[n]++; f.Message.Publish.QoS == packet.ExactlyOnce {
				require.Equal(m.t, 1, m.routed[n], "QoS 2 message %d from the client again", n)
			}
			m.toRoute = append(m.toRoute, f)
			if m.d(2) == 0 {
				m.route()
			}
		case session.EffectClose:
			require.Equal(m.t, packet.ServerShuttingDown, f.Code, f.Reason)
		default:
			require.Failf(m.t, "effect", "%+v", f)
		}
	}
}

// route answers one of the messages that the router works on.
func (m *model) route() {
	if len(m.toRoute) == 0 {
		return
	}
	i := 0
	if m.d(3) == 0 {
		i = m.d(len(m.toRoute))
	}
	f := m.toRoute[i]
	m.toRoute = append(m.toRoute[:i:i], m.toRoute[i+1:]...)
	if f.PacketID != 0 {
		m.s.Routed(m.now, f.Stream, f.PacketID, packet.Success)
	}
}

func (m *model) deliver() {
	qos := packet.QoS(m.d(3))
	stream := mqtt.ControlStream
	if m.up {
		stream = m.someStream()
	}
	m.delivered++
	n := m.delivered
	msg := session.NewMessage(m.now, &packet.Publish{Topic: "down/" + string('a'+rune(n%3)), Payload: payload(n), QoS: qos}, "other")
	r := m.s.Deliver(m.now, msg, session.Delivery{QoS: qos, Stream: stream, SubscriptionIDs: []uint32{1, 2, 3}[:m.d(4)]})
	switch r {
	case session.Queued:
		m.qosOf[n] = qos
	case session.Ignored:
		require.True(m.t, qos == 0 && !m.up, "only QoS 0 is ignored, and only offline")
	case session.Full:
		require.Greater(m.t, m.s.QueueBytes(), m.lim.QueueBytes/2)
	}
}

func (m *model) serverSends() {
	if !m.up {
		return
	}
	stream := m.someStream()
	o, ok := m.s.Next(m.now, stream)
	if !ok {
		return
	}
	wire, err := o.Append(nil, m.v, m.now)
	require.NoError(m.t, err)
	if o.Message != nil && o.QoS > 0 {
		if h := m.held[o.ID]; h != nil && (!h.cut || !o.Dup || stream != mqtt.ControlStream) {
			require.Failf(m.t, "identifier", "%d is in use", o.ID)
		}
		if m.held[o.ID] = (&sentTo{stream: stream}); len(m.held) > m.rm {
			require.Failf(m.t, "Receive Maximum", "%d of %d", len(m.held), m.rm)
		}
	}
	m.open[stream].down = append(m.open[stream].down, decode(m.t, wire, m.v))
}

func (m *model) clientReceives() {
	if !m.up {
		return
	}
	stream := m.someStream()
	w := m.open[stream]
	if len(w.down) == 0 {
		return
	}
	p := w.down[0]
	w.down = w.down[1:]
	switch p := p.(type) {
	case *packet.Connack, *packet.Disconnect:
	case *packet.Publish:
		n := number(p.Payload)
		switch p.QoS {
		case packet.AtMostOnce:
			m.accept(n, p.QoS)
		case packet.AtLeastOnce:
			m.accept(n, p.QoS)
			w.up = append(w.up, puback(p.PacketID, 0))
		case packet.ExactlyOnce:
			if !m.receiving[p.PacketID] {
				m.receiving[p.PacketID] = true
				m.accept(n, p.QoS)
			}
			w.up = append(w.up, pubrec(p.PacketID, 0))
		}
	case *packet.Pubrel:
		require.Equal(m.t, packet.Success, p.Code)
		delete(m.receiving, p.PacketID)
		w.up = append(w.up, pubcomp(p.PacketID, 0))
	case *packet.Puback:
		m.acknowledged(p.PacketID, packet.AtLeastOnce, true)
	case *packet.Pubrec:
		o := m.acknowledged(p.PacketID, packet.ExactlyOnce, false)
		o.released = true
		m.transmit(o, false)
	case *packet.Pubcomp:
		if o := m.find(p.PacketID); o != nil && o.released {
			m.acknowledged(p.PacketID, packet.ExactlyOnce, true)
		}
	default:
		require.Failf(m.t, "packet", "%T", p)
	}
}

func (m *model) find(id uint16) *outgoing {
	for _, o := range m.sending {
		if o.id == id {
			return o
		}
	}
	return nil
}

func (m *model) acknowledged(id uint16, qos packet.QoS, done bool) *outgoing {
	o := m.find(id)
	if o == nil || o.qos != qos || m.routed[o.n] == 0 {
		require.Failf(m.t, "acknowledgement", "of %d: %+v, routed %v", id, o, m.routed)
	}
	if done {
		for i := range m.sending {
			if m.sending[i] == o {
				m.sending = append(m.sending[:i:i], m.sending[i+1:]...)
				break
			}
		}
	}
	return o
}

// accept notes that message n came to the client's application.
func (m *model) accept(n int, qos packet.QoS) {
	m.got[n]++
	if want, ok := m.qosOf[n]; !ok || want != qos {
		require.Failf(m.t, "message", "%d with QoS %d", n, qos)
	}
	if qos != packet.AtLeastOnce && m.got[n] != 1 {
		require.Failf(m.t, "again", "QoS %d message %d", qos, n)
	}
	if m.got[n] == 1 && !m.streams { // one stream only
		if n <= m.lastNew[qos] {
			require.Failf(m.t, "order", "QoS %d message %d after %d", qos, n, m.lastNew[qos])
		}
		m.lastNew[qos] = n
	}
}

func (m *model) check() {
	st := m.s.Stats()
	if st.QueueBytes < 0 || st.QueueBytes > m.lim.QueueBytes || st.Inflight > int(m.lim.MaxInflight) || m.up != m.s.Connected() {
		require.Failf(m.t, "state", "%+v, connected %v", st, m.s.Connected())
	}
}

// settle lets everything come to rest, and checks that nothing was lost.
func (m *model) settle() {
	m.disconnect()
	m.d = dice(rand.New(rand.NewPCG(1, 2)).IntN)
	for len(m.toRoute) > 0 {
		m.route()
	}
	m.connect()
	for range 100000 {
		m.serverReceives()
		m.serverSends()
		m.clientReceives()
		m.route()
		if len(m.sending) == 0 && m.s.Inflight() == 0 && m.s.QueueBytes() == 0 && !m.s.HasOutput(mqtt.ControlStream) &&
			len(m.open[0].up)+len(m.open[0].down) == 0 {
			break
		}
	}
	require.Empty(m.t, m.sending)
	require.Zero(m.t, m.s.QueueBytes())
	require.Zero(m.t, m.s.Inflight())
	require.Zero(m.t, m.s.Stats().Waiting)
	for n, qos := range m.qosOf {
		if qos > 0 {
			require.Positive(m.t, m.got[n], "QoS %d message %d was lost", qos, n)
		}
	}
	for n, times := range m.routed {
		require.Positive(m.t, times, "message %d from the client was lost", n)
	}
}

// Streams and connections are lost at any point of any exchange, with whatever is
// in transit on them, in both directions.
func TestTenThousandKillsOfStreamsAndConnectionsLoseAndDuplicateNothing(t *testing.T) {
	for _, streams := range []bool{false, true} {
		for seed := range uint64(4) {
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(7, seed))
			m := newModel(t, rng.IntN)
			connections, cut := 0, 0
			for connections+cut < 2500 {
				m.connect()
				for range rng.IntN(100) {
					if streams && rng.IntN(20) == 0 {
						m.openStream()
					}
					if streams && rng.IntN(30) == 0 && m.closeStream() {
						cut++
					}
					m.step()
				}
				if m.up {
					m.disconnect()
					connections++
				}
			}
			m.settle()
			require.Equal(t, streams, cut > 500)
			require.Greater(t, m.published, 1500)
			require.Greater(t, len(m.got), 800)
			t.Logf("%d connections and %d streams lost: %d messages from and %d to the client", connections, cut, m.published, len(m.got))
		}
	}
}
