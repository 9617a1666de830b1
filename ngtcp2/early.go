//go:build ngtcp2 && cgo

package ngtcp2

import (
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// Early data may arrive before what it takes to read it: packets overtake each
// other. It waits here, in place of being sent again a round trip or more later
// (RFC 9000, Section 5.2.2; RFC 9001, Section 5.7).
const (
	// maxOvertaking is how many 0-RTT packets an endpoint keeps whose
	// connection it does not know yet, and overtakingSize the largest of them.
	maxOvertaking  = 32
	overtakingSize = 1500
	// overtakingTime is how long it keeps them.
	overtakingTime = uint64(500 * time.Millisecond)
)

// overtaking are 0-RTT packets that arrived before their Initial. They belong
// to the goroutine that reads from the endpoint's own socket.
type overtaking struct {
	packets [maxOvertaking]struct {
		id   cidKey
		path capi.Path
		ecn  uint8
		data []byte // nil: none
		at   uint64
	}
	next, n int
}

// keep keeps a packet in place of the oldest.
func (o *overtaking) keep(k cidKey, b *batch) {
	if len(b.data) == 0 || len(b.data) > overtakingSize {
		return
	}
	p := &o.packets[o.next]
	o.next = (o.next + 1) % maxOvertaking
	if p.data == nil {
		o.n++
	}
	p.id, p.path, p.ecn, p.data, p.at = k, b.path, b.ecn, clone(b.data), b.now
}

// take hands over the packets to a connection ID, in the order of their
// arrival, and forgets those that are too old.
func (o *overtaking) take(k cidKey, now uint64, f func(b *batch)) {
	if o.n == 0 {
		return
	}
	for i := range maxOvertaking {
		p := &o.packets[(o.next+i)%maxOvertaking]
		old := p.at+overtakingTime < now
		if p.data == nil || p.id != k && !old {
			continue
		}
		data := p.data
		p.data = nil
		o.n--
		if !old {
			f(&batch{path: p.path, ecn: p.ecn, data: data, now: now})
		}
	}
}

// Types of long headers in version 1 (RFC 9000, Section 17.2).
const (
	typeInitial = iota
	type0RTT
)
