package session

import (
	"cmp"
	"slices"

	"github.com/anyquic/anyquic/mqtt"
)

// A flight is a QoS 1 or 2 message that was sent and whose exchange is not
// complete (MQTT 5, Section 4.3). It outlives connections.
type flight struct {
	entry                // msg is nil once PUBREC was received
	stream mqtt.StreamID // where the exchange goes on: PUBLISH, or then PUBREL, was sent there last
	rel    uint32        // order of the PUBRECs, in state released
	state  flightState
	again  bool // to be sent again on this connection, and not yet
	cut    bool // its data stream has ended: the control stream sends it again
	held   bool // sent on this connection: holds a place in the client's Receive Maximum
}

type flightState uint8

const (
	completed flightState = iota // a gap in the list
	sent                         // PUBLISH was sent; waits for PUBACK or PUBREC
	released                     // PUBREL was sent; waits for PUBCOMP
)

// A window holds the flights in the order of their first sending.
//
// Packet identifiers come from a counter, seq, that never wraps; the identifier
// is its remainder. So the list is ordered by seq, an identifier is found by
// binary search, and no other index is needed.
type window struct {
	list []flight
	gaps int    // completed flights in list
	next int    // no flight before it in list is to be sent again
	seq  uint64 // of the flight added last
	rels uint32 // PUBRECs received
}

// packetIDs is how many packet identifiers there are: 1 to 65535.
const packetIDs = 65535

func packetID(seq uint64) uint16 { return uint16((seq-1)%packetIDs) + 1 } // seq begins with 1

func (w *window) len() int { return len(w.list) - w.gaps }

// add puts e in flight under a packet identifier that is not in use
// [MQTT-2.2.1-4]. There must be fewer than 65535 flights.
func (w *window) add(e entry, stream mqtt.StreamID) *flight {
	for w.seq++; w.inUse(packetID(w.seq)); w.seq++ {
	}
	if len(w.list) == cap(w.list) && w.gaps > len(w.list)/4 {
		w.compact() // rarely enough to cost a constant per message
	}
	e.seq = w.seq
	w.list = append(w.list, flight{entry: e, stream: stream, state: sent, held: true})
	return &w.list[len(w.list)-1]
}

func (w *window) inUse(id uint16) bool {
	// The identifiers of one turn of the counter are all different.
	if len(w.list) == 0 || w.seq-w.list[0].seq < packetIDs {
		return false
	}
	return w.find(id) != nil
}

// find returns the flight with the packet identifier, or nil. It is valid until
// the next call of add or remove.
func (w *window) find(id uint16) *flight {
	if len(w.list) == 0 || id == 0 {
		return nil
	}
	oldest := w.list[0].seq
	// The newest number with this identifier, then a turn earlier each time.
	seq := w.seq - ((w.seq-1)%packetIDs+1+packetIDs-uint64(id))%packetIDs
	for ; seq >= oldest && seq <= w.seq; seq -= packetIDs {
		if f := w.at(seq); f != nil {
			return f
		}
	}
	return nil
}

// at returns the flight with the number, or nil, as find does.
func (w *window) at(seq uint64) *flight {
	i, ok := slices.BinarySearchFunc(w.list, seq, func(f flight, seq uint64) int {
		return cmp.Compare(f.seq, seq)
	})
	if !ok || w.list[i].state == completed {
		return nil
	}
	return &w.list[i]
}

// remove ends the exchange of f, which is in w.
func (w *window) remove(f *flight) {
	*f = flight{entry: entry{seq: f.seq}}
	if w.gaps++; w.gaps == len(w.list) {
		w.gaps, w.next = 0, 0
		if w.list = w.list[:0]; cap(w.list) > 2*keepRing {
			w.list = nil
		}
	}
}

// compact closes the gaps.
func (w *window) compact() {
	if w.gaps == 0 {
		return
	}
	w.list = slices.DeleteFunc(w.list, func(f flight) bool { return f.state == completed })
	w.gaps, w.next = 0, 0
}

// release marks that PUBREC was received: the message is no longer needed, the
// identifier is.
func (w *window) release(f *flight) {
	w.rels++
	f.rel = w.rels
	f.state, f.again, f.cut = released, false, false
	f.msg, f.ids = nil, nil
}

// restart prepares the list for a new connection and returns the released
// flights in the order of their PUBRECs.
func (w *window) restart() (rels []uint16) {
	w.compact()
	w.next = 0
	var order []*flight
	for i := range w.list {
		f := &w.list[i]
		f.stream, f.held, f.again, f.cut = mqtt.ControlStream, false, f.state == sent, false
		if f.state == released {
			order = append(order, f)
		}
	}
	return inOrder(order)
}
