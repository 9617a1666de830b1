package session

import (
	"maps"

	"github.com/anyquic/anyquic/mqtt"
)

// A receivedKey names a QoS 2 message whose exchange is not complete on the
// receiving side (MQTT 5, Section 4.3.3). Clients may use one identifier on two
// streams at once, so the stream is part of the name.
type receivedKey struct {
	stream mqtt.StreamID
	id     uint16
}

// carried stands for the stream of an exchange that began on an earlier
// connection: the client may go on with it on any stream of the new one.
const carried = ^mqtt.StreamID(0)

type receivedState uint8

const (
	routing receivedState = 1 << iota // EffectRoute was given, Routed not yet called
	counted                           // counts against Receive Maximum on this connection
	resumed                           // began on an earlier connection
)

// A receivedSet holds the identifiers of received QoS 2 messages from PUBLISH
// to PUBREL. It takes no memory until it is used.
type receivedSet map[receivedKey]receivedState

// find looks for an exchange on a stream. One that was carried over from an
// earlier connection becomes that stream's.
func (r receivedSet) find(stream mqtt.StreamID, id uint16) (receivedState, bool) {
	k := receivedKey{stream, id}
	if st, ok := r[k]; ok || len(r) == 0 {
		return st, ok
	}
	st, ok := r[receivedKey{carried, id}]
	if ok {
		delete(r, receivedKey{carried, id})
		r[k] = st
	}
	return st, ok
}

func (r *receivedSet) put(stream mqtt.StreamID, id uint16, st receivedState) {
	if *r == nil {
		*r = make(receivedSet)
	}
	(*r)[receivedKey{stream, id}] = st
}

func (r *receivedSet) remove(stream mqtt.StreamID, id uint16) {
	delete(*r, receivedKey{stream, id})
	if len(*r) == 0 {
		*r = nil
	}
}

// carry unties the exchanges from the streams of a connection that has ended.
func (r *receivedSet) carry() {
	old := maps.Clone(*r)
	clear(*r)
	for k, st := range old {
		(*r)[receivedKey{carried, k.id}] |= st&routing | resumed
	}
}
