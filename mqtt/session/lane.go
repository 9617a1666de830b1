package session

import (
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A lane is what belongs to one stream of a connection: its output, of which
// messages come last, and the topic aliases that the client set on it.
type lane struct {
	qos0    ring[entry]
	qos12   ring[entry]
	control ring[answer]        // PUBREL, PUBCOMP, PINGRESP
	answers ring[answer]        // PUBACK and PUBREC, in the order of the PUBLISH packets
	packets ring[packet.Packet] // SUBACK, UNSUBACK
	aliases aliasesIn
	ready   uint32 // how many answers at the front may be sent
	owes    bool   // there were exchanges of QoS 1 or 2 on it
	broken  bool   // EffectReset was given: nothing passes until StreamClosed
}

// An answer is a packet that is nothing but a packet identifier and a code.
type answer struct {
	id    uint16
	kind  packet.Type
	code  packet.ReasonCode
	ready bool // of PUBACK and PUBREC: the code is known
	frees bool // sending it gives a place of our Receive Maximum back
}

// pauseAnswers is how many packets other than PUBLISH, see weight, waiting
// because the client does not read them, make [Session.Paused] true.
const pauseAnswers = 2048

// maxAnswers is how many of them end the connection of a client whose caller
// does not pause.
const maxAnswers = 65536

// lane returns an open stream's lane, or nil.
func (s *Session) lane(stream mqtt.StreamID) *lane {
	if stream == mqtt.ControlStream {
		return &s.main
	}
	return s.data[stream]
}

// openLane returns the lane of a stream, which exists from its first packet.
func (s *Session) openLane(stream mqtt.StreamID) *lane {
	l := s.lane(stream)
	if l == nil {
		if s.data == nil {
			s.data = make(map[mqtt.StreamID]*lane)
		}
		l = new(lane)
		s.data[stream] = l
	}
	return l
}

func (s *Session) eachLane(f func(*lane)) {
	f(&s.main)
	for _, l := range s.data {
		f(l)
	}
}

// settle advances the part of the answers that may be sent.
func (l *lane) settle() {
	for l.ready < l.answers.n && l.answers.at(l.ready).ready {
		l.ready++
	}
}

// pending returns the first answer for id that still waits for its code.
func (l *lane) pending(id uint16) *answer {
	for i := l.ready; i < l.answers.n; i++ {
		if a := l.answers.at(i); a.id == id && !a.ready {
			return a
		}
	}
	return nil
}

// unsent reports whether a PUBREC for id is still to be sent.
func (l *lane) unsent(id uint16) bool {
	for i := range l.answers.n {
		if a := l.answers.at(i); a.id == id && a.kind == packet.PUBREC {
			return true
		}
	}
	return false
}

// waiting is what waits in the lane counts against maxAnswers.
func (l *lane) waiting() int {
	n := int(l.control.n + l.answers.n)
	for i := range l.packets.n {
		n += weight(*l.packets.at(i))
	}
	return n
}

// weight is what a packet counts against maxAnswers: one, and one more for each
// 64 reason codes, of which a SUBACK may have very many.
func weight(p packet.Packet) int {
	switch p := p.(type) {
	case *packet.Suback:
		return 1 + len(p.Codes)/64
	case *packet.Unsuback:
		return 1 + len(p.Codes)/64
	}
	return 1
}

// closeLane moves what waits for delivery on a data stream to the control
// stream, in the order of arrival, and forgets the rest.
func (s *Session) closeLane(l *lane) {
	s.main.qos0 = merge(&s.main.qos0, &l.qos0)
	s.main.qos12 = merge(&s.main.qos12, &l.qos12)
	s.answers -= int32(l.waiting())
	s.aliasIn -= int32(l.aliases.bytes())
	for i := range l.answers.n {
		if a := l.answers.at(i); a.frees {
			s.inbound--
		}
	}
	for i := range l.control.n {
		if a := l.control.at(i); a.frees {
			s.inbound--
		}
	}
}

func merge(a, b *ring[entry]) ring[entry] {
	if b.n == 0 {
		return *a
	}
	var m ring[entry]
	for a.n > 0 || b.n > 0 {
		if b.n == 0 || a.n > 0 && a.at(0).seq < b.at(0).seq {
			m.push(a.pop())
		} else {
			m.push(b.pop())
		}
	}
	return m
}
