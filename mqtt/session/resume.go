package session

import (
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// An exchange of QoS 1 or 2 outlives the stream that it is on.
//
// When the connection ends, the next one goes on with it: [MQTT-4.4.0-1].
//
// When a data stream ends, and the connection does not, the control stream goes
// on with it at once. [MQTT-4.4.0-1] forbids to send again at any other time than
// on a new network connection, because on one that lives everything arrives. But
// what the specification calls so (Section 1.2) is ordered and lossless in both
// directions, and a data stream that was cut
// is one no more: what was written on it may never have been read. So the
// exchanges of a stream that has ended resume on the control stream by the rules
// for a new connection: PUBREL in the order of the PUBRECs, then PUBLISH with
// DUP and the same identifier. They keep their places in the client's Receive
// Maximum, for the client may have got them.
//
// In the other direction the client may go on with its exchange of QoS 2 on any
// stream. PUBREL does so by the identifier alone; PUBLISH needs DUP, because some
// clients count identifiers for each stream: one without DUP is another message,
// and says that the client has given the old exchange up.

// resume queues what was in flight when the last connection ended
// [MQTT-4.4.0-1]. PUBREL needs no place in the client's Receive Maximum and goes
// first, in the order of the PUBRECs [MQTT-4.6.0-4]; PUBLISH follows as Receive
// Maximum allows, in the original order [MQTT-4.6.0-1].
func (s *Session) resume() {
	rels := s.out.restart()
	for _, id := range rels {
		s.main.control.push(answer{id: id, kind: packet.PUBREL})
	}
	s.answers += int32(len(rels))
	s.again = int32(s.out.len() - len(rels))
	s.held = 0
}

// sendAgain returns the next PUBLISH that was sent on an earlier connection and
// not acknowledged.
func (s *Session) sendAgain(now time.Time) (Outgoing, bool) {
	for s.again > 0 && s.held < int32(s.quota) {
		f := &s.out.list[s.out.next]
		s.out.next++
		if !f.again {
			continue
		}
		f.again = false
		s.again--
		if s.tooBig(now, &f.entry) {
			// This connection's maximum is smaller. It counts as sent and
			// acknowledged [MQTT-3.1.2-25].
			s.tooLarge++
			s.complete(f)
			continue
		}
		f.held, f.stream = true, mqtt.ControlStream
		s.held++
		o := newOutgoing(&f.entry, &s.sentID)
		o.ID, o.Dup = packetID(f.seq), true // [MQTT-3.3.1-1]
		s.useAlias(&o, now)
		return o, true
	}
	return Outgoing{}, false
}

// findReceived looks for an exchange of QoS 2 that the client goes on with on a
// stream: of that stream, carried over, or, if the client sends again, of another
// stream that is open as far as we know, for the news of its end may come later.
func (s *Session) findReceived(stream mqtt.StreamID, id uint16, again bool) (receivedState, bool) {
	_, was := s.received[receivedKey{carried, id}]
	st, ok := s.received.find(stream, id, again)
	if was && !ok {
		s.tellForgotten(id) // given up
	}
	if ok || !again || len(s.received) == 0 || len(s.data) == 0 {
		return st, ok
	}
	from, ok := mqtt.ControlStream, false
	if stream != mqtt.ControlStream {
		_, ok = s.received[receivedKey{mqtt.ControlStream, id}]
	}
	for other := range s.data {
		if _, there := s.received[receivedKey{other, id}]; there && other != stream {
			if ok {
				return 0, false // the identifier alone does not tell which
			}
			from, ok = other, true
		}
	}
	if !ok {
		return 0, false
	}
	st = s.received[receivedKey{from, id}] | resumed
	s.received.remove(from, id)
	s.received.put(stream, id, st)
	return st, true
}

// reclaim takes the place of our Receive Maximum back that an answer on another stream
// holds: the client sends again what it answers, so that stream has ended, though the
// news of it may come later. The client counts the message once.
func (s *Session) reclaim(stream mqtt.StreamID, id uint16) {
	for other, l := range s.data {
		if other == stream {
			continue
		}
		for _, r := range [...]*ring[answer]{&l.answers, &l.control} {
			for i := range r.n {
				if a := r.at(i); a.id == id && a.frees {
					a.frees = false
					s.inbound--
				}
			}
		}
	}
}

// StreamClosed tells that a data stream has ended, whoever ended it. The
// connection lives on. Nothing more must be received on the stream, and nothing
// that Next has given for it must be written after what Next gives for the
// control stream from now on.
func (s *Session) StreamClosed(fx []Effect, _ time.Time, stream mqtt.StreamID) []Effect {
	l := s.data[stream]
	if l == nil {
		return fx
	}
	delete(s.data, stream)
	s.closeLane(l)
	if l.owes {
		s.inbound -= s.received.cut(stream)
		s.takeOver(stream)
	}
	s.moveToControl(func(id mqtt.StreamID) bool { return id == stream })
	return fx
}

// Unsettled reports whether a message of QoS 1 or 2 was sent on a data stream and
// the client has not said that it has it. StreamClosed has it sent again, and of
// QoS 2 the client must not get both: what was written on the stream must be
// taken back, by a reset, before StreamClosed is called.
func (s *Session) Unsettled(stream mqtt.StreamID) bool {
	if l := s.data[stream]; l == nil || !l.owes {
		return false
	}
	for i := range s.out.list {
		if f := &s.out.list[i]; f.stream == stream && f.state == sent {
			return true
		}
	}
	return false
}

// A cutList holds the numbers of flights that the control stream sends again,
// because their data stream has ended. Some may be complete.
type cutList struct{ seqs []uint64 }

// takeOver lets the control stream go on with the exchanges of a data stream.
func (s *Session) takeOver(stream mqtt.StreamID) {
	var rels []*flight
	for i := range s.out.list {
		f := &s.out.list[i]
		if f.stream != stream {
			continue
		}
		switch f.state {
		case sent:
			f.cut = true
			if s.cut == nil {
				s.cut = new(cutList)
			}
			s.cut.seqs = append(s.cut.seqs, f.seq)
		case released:
			rels = append(rels, f)
		}
		f.stream = mqtt.ControlStream
	}
	for _, id := range inOrder(rels) {
		s.queueAnswer(&s.main, answer{id: id, kind: packet.PUBREL})
	}
}

// sendCut returns the next PUBLISH that was sent on a data stream that has ended.
func (s *Session) sendCut(now time.Time) (Outgoing, bool) {
	for s.cut != nil {
		f := s.out.at(s.cut.seqs[0])
		if s.cut.seqs = s.cut.seqs[1:]; len(s.cut.seqs) == 0 {
			s.cut = nil
		}
		if f == nil || !f.cut {
			continue // acknowledged meanwhile, on another stream
		}
		f.cut = false
		o := newOutgoing(&f.entry, &s.sentID)
		o.ID, o.Dup = packetID(f.seq), true // [MQTT-3.3.1-1]
		s.useAlias(&o, now)
		return o, true
	}
	return Outgoing{}, false
}

// inOrder returns the identifiers of released flights in the order of their
// PUBRECs.
func inOrder(fs []*flight) (ids []uint16) {
	// The distance is meaningful when the counter has wrapped.
	slices.SortFunc(fs, func(a, b *flight) int { return int(int32(a.rel - b.rel)) })
	for _, f := range fs {
		ids = append(ids, packetID(f.seq))
	}
	return ids
}
