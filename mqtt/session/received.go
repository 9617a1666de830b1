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

// carried stands for the stream of an exchange whose stream has ended, with its
// connection or without: the client may go on with it on any other.
const carried = ^mqtt.StreamID(0)

type receivedState uint8

const (
	routing receivedState = 1 << iota // EffectRoute was given, Routed not yet called
	counted                           // counts against Receive Maximum on this connection
	resumed                           // began on an earlier connection, or on a stream that has ended
	cutOff                            // the latter, and nothing was heard of it since
)

// A receivedSet holds the identifiers of received QoS 2 messages from PUBLISH
// to PUBREL. It takes no memory until it is used.
type receivedSet map[receivedKey]receivedState

// find looks for an exchange on a stream. One that was carried over becomes that
// stream's, if dup says that the client sends again.
func (r *receivedSet) find(stream mqtt.StreamID, id uint16, dup bool) (receivedState, bool) {
	k := receivedKey{stream, id}
	if st, ok := (*r)[k]; ok || len(*r) == 0 {
		return st, ok
	}
	st, ok := (*r)[receivedKey{carried, id}]
	if !ok {
		return 0, false
	}
	r.remove(carried, id)
	if st&cutOff != 0 && !dup {
		return 0, false // the client has given it up
	}
	st &^= cutOff
	r.put(stream, id, st)
	return st, true
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
		(*r)[receivedKey{carried, k.id}] |= st&(routing|cutOff) | resumed
	}
}

// cut unties the exchanges from a stream that has ended, and returns how many of
// them counted against Receive Maximum: they do not until the client goes on.
func (r *receivedSet) cut(stream mqtt.StreamID) (places int32) {
	for k, st := range *r {
		if k.stream != stream {
			continue
		}
		if st&counted != 0 {
			places++
		}
		delete(*r, k)
		(*r)[receivedKey{carried, k.id}] |= st&routing | resumed | cutOff
	}
	return places
}
