package client

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A machine is the client's side of an MQTT session without I/O: calls, packets
// and the time go in; packets, completed operations and a deadline come out.
//
//	attach, detach             the network connection begins and ends
//	receive, receivePublish    a packet has arrived on a stream
//	delivered                  the application has had a message
//	submit, request            the application wants something
//	next                       the packet to send now
//	deadline, tick             when to call tick; what the time brings
//	completions                which calls of the application have ended, and how
//
// An error that receive, receivePublish or tick returns ends the connection.
// A machine outlives its connections, starts nothing, reads no clock and takes no
// lock: the caller serialises calls. Its parts are in outbound.go (what is
// published), inbound.go (what arrives), requests.go (SUBSCRIBE, UNSUBSCRIBE) and
// keepalive.go.
type machine struct {
	version packet.Version
	cfg     machineConfig

	connected bool
	epoch     uint64 // counts connections
	session   uint64 // counts sessions: what belongs to an older one is void
	server    serverLimits

	control []outgoing // sent before anything else, in order
	head    int        // control[:head] has been sent
	nextID  uint16     // the packet identifier to try next

	outbound
	inbound
	requests
	keepAlive
	slots slots

	completed []completion

	log    *sessionLog  // nil: nothing is kept
	kept   PublishState // what becomes of a message that the client's end leaves behind; 0: its fate
	reauth *reauth      // nil: none is going on
}

// machineConfig is what the machine needs of a Config.
type machineConfig struct {
	version           packet.Version
	inflightMax       int
	receiveMaximum    uint16
	topicAliasMaximum uint16 // that the server may use
	topicAliases      uint16 // that we may use
	keepAlive         time.Duration
	streams           StreamPolicy
}

// serverLimits is what a CONNACK says about the server (MQTT 5, Section 3.2.2.3).
type serverLimits struct {
	receiveMaximum uint16
	maximumQoS     packet.QoS
	retain         bool
	maxPacket      int // bytes
	topicAliases   uint16
	wildcards      bool
	subIDs         bool
	shared         bool
}

// A completion is the end of an operation, for the caller to report when it
// holds no lock.
type completion struct {
	flight  *flight
	request *request
	result  Result
	codes   []packet.ReasonCode
	err     error
}

// An outgoing packet is a packet, an acknowledgement or a flight's PUBLISH.
type outgoing struct {
	stream mqtt.StreamID
	packet packet.Packet // nil for the others
	kind   packet.Type   // PUBACK, PUBREC, PUBREL, PUBCOMP or, with flight, PUBLISH
	id     uint16
	code   packet.ReasonCode
	flight *flight
	dup    bool
}

// append encodes o.
func (o *outgoing) append(dst []byte, v packet.Version) ([]byte, error) {
	ack := packet.Ack{PacketID: o.id, Code: o.code}
	switch {
	case o.packet != nil:
		return o.packet.Append(dst, v)
	case o.flight != nil:
		return o.flight.append(dst, o.dup), nil
	case o.kind == packet.PUBACK:
		return (&packet.Puback{Ack: ack}).Append(dst, v)
	case o.kind == packet.PUBREC:
		return (&packet.Pubrec{Ack: ack}).Append(dst, v)
	case o.kind == packet.PUBREL:
		return (&packet.Pubrel{Ack: ack}).Append(dst, v)
	default:
		return (&packet.Pubcomp{Ack: ack}).Append(dst, v)
	}
}

func newMachine(cfg machineConfig) *machine {
	m := &machine{version: cfg.version, cfg: cfg, nextID: 1, slots: newSlots(cfg.streams)}
	m.outbound.byID = make(map[uint16]*flight)
	m.inbound.received = make(map[inboundID]reception)
	m.requests.byID = make(map[uint16]*request)
	return m
}

var pingreq = &packet.Pingreq{}

// attach begins a connection that c was the answer to. cleanStart is what the
// CONNECT asked for.
func (m *machine) attach(now time.Time, c *packet.Connack, cleanStart bool) error {
	if c.SessionPresent && cleanStart {
		// [MQTT-3.2.2-2]: a clean start is answered with Session Present 0.
		return &ProtocolError{packet.ProtocolError, "session present after a clean start"}
	}
	m.connected = true
	m.epoch++
	m.server = limitsOf(c)
	if !c.SessionPresent && !m.maybeKept(cleanStart) {
		m.session++
		m.loseInbound()
		m.loseOutbound()
		m.log.session()
	} else if m.log != nil && !m.log.known {
		m.log.session()
	}
	m.resumeRequests(!c.SessionPresent)
	m.resumeOutbound()
	m.resumeInbound(m.cfg.topicAliasMaximum)
	keepAlive := m.cfg.keepAlive
	if c.Properties != nil && c.Properties.ServerKeepAlive.Set {
		// [MQTT-3.2.2-21]: the client uses the server's value.
		keepAlive = time.Duration(c.Properties.ServerKeepAlive.Value) * time.Second
	}
	m.startKeepAlive(now, keepAlive)
	return nil
}

// maybeKept reports whether the server may have kept a session without saying so:
// MQTT 3.1 has no Session Present. Sending again what a server without the session
// does not know is right there: it answers to PUBREL all the same.
func (m *machine) maybeKept(cleanStart bool) bool {
	return m.version == packet.V31 && !cleanStart && m.epoch > 1
}

// detach ends the connection. What is not acknowledged waits for the next one.
func (m *machine) detach() {
	m.connected = false
	m.control, m.head = m.control[:0], 0
	m.endReauth()
	m.suspendOutbound()
	m.suspendInbound()
	m.slots.enabled = false
	m.stopKeepAlive()
}

func limitsOf(c *packet.Connack) serverLimits {
	l := serverLimits{
		receiveMaximum: 65535, maximumQoS: packet.ExactlyOnce, retain: true,
		maxPacket: packet.MaxRemainingLength + 5, wildcards: true, subIDs: true, shared: true,
	}
	p := c.Properties
	if p == nil {
		return l
	}
	l.receiveMaximum = p.ReceiveMaximum.Or(65535)
	l.maximumQoS = packet.QoS(p.MaximumQoS.Or(2))
	l.retain = p.RetainAvailable.Or(1) != 0
	l.maxPacket = int(min(p.MaximumPacketSize.Or(packet.MaxRemainingLength+5), packet.MaxRemainingLength+5))
	l.topicAliases = p.TopicAliasMaximum.Or(0)
	l.wildcards = p.WildcardSubAvailable.Or(1) != 0
	l.subIDs = p.SubIDsAvailable.Or(1) != 0
	l.shared = p.SharedSubAvailable.Or(1) != 0
	return l
}

// receive handles any packet but PUBLISH. p is not kept.
func (m *machine) receive(stream mqtt.StreamID, p packet.Packet) error {
	switch p := p.(type) {
	case *packet.Puback:
		return m.receivePuback(&p.Ack)
	case *packet.Pubrec:
		return m.receivePubrec(stream, &p.Ack)
	case *packet.Pubrel:
		return m.receivePubrel(stream, &p.Ack)
	case *packet.Pubcomp:
		return m.receivePubcomp(&p.Ack)
	case *packet.Suback:
		return m.receiveSuback(p)
	case *packet.Unsuback:
		return m.receiveUnsuback(p)
	case *packet.Pingresp:
		m.receivePingresp()
		return nil
	case *packet.Disconnect:
		if m.version < packet.V5 {
			return &ProtocolError{packet.ProtocolError, "DISCONNECT from the server before MQTT 5"}
		}
		e := &DisconnectError{Code: p.Code}
		if p.Properties != nil {
			e.Reason, e.ServerReference = p.Properties.ReasonString, p.Properties.ServerReference
		}
		return e
	case *packet.Auth:
		return m.receiveAuth(p)
	case *packet.Connack:
		return &ProtocolError{packet.ProtocolError, "second CONNACK"}
	}
	return &ProtocolError{packet.ProtocolError, "packet that only clients send"}
}

// next returns the packet to send now.
func (m *machine) next() (outgoing, bool) {
	if m.head < len(m.control) {
		o := m.control[m.head]
		m.control[m.head] = outgoing{}
		if m.head++; m.head == len(m.control) {
			m.control, m.head = m.control[:0], 0
		}
		return o, true
	}
	if !m.connected {
		return outgoing{}, false
	}
	return m.nextFlight()
}

func (m *machine) send(o outgoing) { m.control = append(m.control, o) }

func (m *machine) sendAck(stream mqtt.StreamID, kind packet.Type, id uint16, code packet.ReasonCode) {
	m.send(outgoing{stream: stream, kind: kind, id: id, code: code})
}

// newID returns a packet identifier that is not in use, 0 if all are.
func (m *machine) newID() uint16 {
	for range 1 << 16 {
		id := m.nextID
		m.nextID++
		if id == 0 || m.outbound.byID[id] != nil || m.requests.byID[id] != nil {
			continue
		}
		return id
	}
	return 0
}

// takeCompletions returns what has been completed since the last call. It takes a
// slice that the caller does not need any more in exchange.
func (m *machine) takeCompletions(old []completion) []completion {
	clear(old)
	done := m.completed
	m.completed = old[:0]
	return done
}

// backlog returns how many packets wait to be sent, messages not counted.
func (m *machine) backlog() int { return len(m.control) - m.head }

// idle reports whether nothing of the application's waits for the server.
func (m *machine) idle() bool { return m.outbound.first == nil && m.requests.none() }

// abandonAll completes everything with err, which says why the client ends.
func (m *machine) abandonAll(err error) {
	for f := m.outbound.first; f != nil; f = m.outbound.first {
		m.finish(f, Result{}, &PublishError{State: m.fateOf(f), Err: err})
	}
	m.failRequests(err)
}

// fateOf says what to report of f if the client ends or nobody waits any more.
func (m *machine) fateOf(f *flight) PublishState {
	if m.kept != 0 {
		return m.kept
	}
	return f.fate()
}
