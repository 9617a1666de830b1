package client

import (
	"encoding/binary"
	"fmt"

	"github.com/anyquic/anyquic/internal/journal"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A sessionLog notes what a machine must know after a restart of the process: the
// state of the session on the client's side (MQTT 5, Section 4.1) and the messages
// that are not sent. It is without I/O: records go into a buffer, which the store
// writes to a file before anything that depends on them goes to the network. A nil
// sessionLog notes nothing.
type sessionLog struct {
	salt     journal.Salt
	version  packet.Version
	clientID string // whose session it is
	known    bool   // clientID is in the log: there has been a connection

	buf     []byte // records that the store has not taken
	whole   bool   // buf takes the place of everything in the file
	noted   uint64 // counts records
	lastSeq uint64
	frozen  bool // the Client ends: what it gives up stays in the file
}

// The first byte of a record. What follows are varints, and bytes up to the end.
const (
	logHead     = 1 // logFormat, MQTT version
	logSession  = 2 // client identifier: a new session, in which no identifier is in use
	logPut      = 3 // seq, PUBLISH without a packet identifier
	logSent     = 4 // seq, packet identifier
	logReleased = 5 // seq: PUBREC has come
	logDone     = 6 // seq
	logReceived = 7 // stream, packet identifier of a QoS 2 message that was delivered
	logForgot   = 8 // stream, packet identifier
)

// logFormat is the version of what the records mean.
const logFormat = 1

func (l *sessionLog) note(kind byte, body []byte, values ...uint64) {
	start := len(l.buf)
	b := append(journal.Begin(l.buf), kind)
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	l.buf = l.salt.End(append(b, body...), start)
	l.noted++
}

func (l *sessionLog) off() bool { return l == nil || l.frozen }

// put notes a message that was accepted, and numbers it.
func (l *sessionLog) put(f *flight) {
	if l.off() {
		return
	}
	l.lastSeq++
	f.seq = l.lastSeq
	l.note(logPut, f.wire, f.seq)
}

func (l *sessionLog) sent(f *flight) {
	if !l.off() {
		l.note(logSent, nil, f.seq, uint64(f.id))
	}
}

func (l *sessionLog) released(f *flight) {
	if !l.off() {
		l.note(logReleased, nil, f.seq)
	}
}

func (l *sessionLog) done(f *flight) {
	if !l.off() {
		l.note(logDone, nil, f.seq)
	}
}

// received notes a message with QoS 2 that was delivered.
func (l *sessionLog) received(key inboundID, r reception) {
	if !l.off() {
		l.note(logReceived, nil, r.arrived(key), uint64(key.id))
	}
}

// forgot notes the end of a reception, if received noted it.
func (l *sessionLog) forgot(key inboundID, r reception) {
	if !l.off() && r.delivered && r.qos == packet.ExactlyOnce {
		l.note(logForgot, nil, r.arrived(key), uint64(key.id))
	}
}

// arrived returns the stream on which a message came first, which names its reception
// in the log also after that stream has ended.
func (r reception) arrived(key inboundID) uint64 {
	if r.from != mqtt.ControlStream {
		return uint64(r.from)
	}
	return uint64(key.stream)
}

// session notes a session that the server has just begun.
func (l *sessionLog) session() {
	if !l.off() {
		l.known = true
		l.note(logSession, []byte(l.clientID))
	}
}

// snapshot replaces the buffer by records that make m from nothing.
func (l *sessionLog) snapshot(m *machine) {
	l.buf, l.whole = l.buf[:0], true
	l.note(logHead, nil, logFormat, uint64(l.version))
	if l.known {
		l.note(logSession, []byte(l.clientID))
	}
	for f := m.outbound.first; f != nil; f = f.next {
		l.note(logPut, f.wire, f.seq)
		if f.id != 0 {
			l.note(logSent, nil, f.seq, uint64(f.id))
		}
		if f.released {
			l.note(logReleased, nil, f.seq)
		}
	}
	for key, r := range m.received {
		if r.qos == packet.ExactlyOnce && r.delivered {
			l.note(logReceived, nil, r.arrived(key), uint64(key.id))
		}
	}
}

// A restorer makes a machine from the records of an earlier process.
type restorer struct {
	m     *machine
	log   *sessionLog
	bySeq map[uint64]*flight
	err   error // the log is of another version, or of another client
	bad   int   // records that make no sense
}

func newRestorer(m *machine, l *sessionLog) *restorer {
	return &restorer{m: m, log: l, bySeq: make(map[uint64]*flight)}
}

// add takes the next record. A record that does not fit what was before it, because
// that was damaged, is counted and has no effect.
func (r *restorer) add(body []byte) {
	if !r.apply(body) {
		r.bad++
	}
}

func (r *restorer) apply(body []byte) bool {
	kind, body := body[0], body[1:]
	switch kind {
	case logSession:
		r.startSession(string(body))
		return true
	case logPut:
		seq, n := binary.Uvarint(body)
		return n > 0 && r.put(seq, body[n:])
	}
	a, n := binary.Uvarint(body)
	if n <= 0 {
		return false
	}
	switch kind {
	case logReleased:
		return r.release(r.bySeq[a])
	case logDone:
		return r.done(r.bySeq[a])
	}
	b, k := binary.Uvarint(body[n:])
	if k <= 0 {
		return false
	}
	if kind == logHead {
		r.checkHead(a, b)
		return true
	}
	if b == 0 || b > 0xffff {
		return false
	}
	key := inboundID{mqtt.StreamID(a), uint16(b)}
	switch kind {
	case logSent:
		return r.sent(r.bySeq[a], uint16(b))
	case logReceived:
		// Streams get other numbers than those of the earlier process.
		r.m.slots.last = max(r.m.slots.last, key.stream)
		r.m.received[key] = reception{qos: packet.ExactlyOnce, delivered: true}
		return true
	case logForgot:
		delete(r.m.received, key)
		return true
	}
	return false
}

func (r *restorer) checkHead(format, version uint64) {
	switch {
	case format != logFormat:
		r.err = fmt.Errorf("client: the queue's file has format %d, of another release of this program", format)
	case version != uint64(r.m.version):
		r.err = fmt.Errorf("client: the queue's file was written with MQTT version %d, not %d: let a client of that version send what is in it",
			version, uint8(r.m.version))
	}
}

func (r *restorer) startSession(clientID string) {
	r.log.clientID, r.log.known = clientID, true
	for f := r.m.outbound.first; f != nil; {
		next := f.next
		if f.released {
			r.done(f) // it ended with its session, and the word of it is missing
		} else if f.id != 0 {
			delete(r.m.outbound.byID, f.id)
			f.id, f.ever = 0, false
		}
		f = next
	}
	clear(r.m.received)
}

func (r *restorer) put(seq uint64, wire []byte) bool {
	f, ok := flightOf(wire, r.m.version)
	if !ok || seq == 0 || r.bySeq[seq] != nil {
		return false
	}
	f.seq = seq
	r.bySeq[seq] = f
	r.log.lastSeq = max(r.log.lastSeq, seq)
	r.m.enqueue(f)
	return true
}

func (r *restorer) sent(f *flight, id uint16) bool {
	if f == nil || f.qos == packet.AtMostOnce || f.released || r.m.outbound.byID[id] != nil {
		return false
	}
	if f.id != 0 {
		delete(r.m.outbound.byID, f.id)
	}
	f.id, f.ever, f.seen = id, true, true
	r.m.outbound.byID[id] = f
	return true
}

func (r *restorer) release(f *flight) bool {
	if f == nil || f.qos != packet.ExactlyOnce || f.released || f.id == 0 {
		return false
	}
	r.m.outbound.release(f)
	return true
}

func (r *restorer) done(f *flight) bool {
	if f == nil {
		return false
	}
	delete(r.bySeq, f.seq)
	f.abandoned = true // no completion
	r.m.finish(f, Result{}, nil)
	return true
}

// flightOf makes a flight of a PUBLISH as newFlight has encoded it. It keeps a copy
// of wire.
func flightOf(wire []byte, v packet.Version) (*flight, bool) {
	h, n, err := packet.ParseHeader(wire)
	if err != nil || n == 0 || n+h.Length != len(wire) || h.Type != packet.PUBLISH || h.Flags&flagDup != 0 {
		return nil, false
	}
	var p packet.Publish
	if p.Decode(h, wire[n:], v) != nil || p.Topic == "" {
		return nil, false
	}
	return &flight{wire: append([]byte(nil), wire...), idAt: n + 2 + len(p.Topic), topicLen: len(p.Topic), qos: p.QoS}, true
}
