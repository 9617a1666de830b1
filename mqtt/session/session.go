// Package session is the broker's side of an MQTT session as a machine without
// I/O: packets and the time go in; packets, a deadline and effects come out.
//
//	             Receive(now, stream, packet)                 Next(stream) -> packet, encoded by the caller
//	network  ->                                   Session ->                                   -> network
//	router   ->  Deliver(now, message, how)                   []Effect: Route, Subscribe, Unsubscribe, Close, End
//	timer    ->  Tick(now)                                    Deadline() -> when to call Tick
//
// A Session outlives its network connections: Attach and Detach mark their
// beginning and end. It reads no clock, starts no goroutine and takes no lock;
// the caller serialises calls.
//
// # Streams
//
// The control stream is always open while there is a connection; a data stream
// is from the first packet that is received on it until StreamClosed. Packet
// identifiers, the inflight window, Receive Maximum and subscriptions belong to
// the session. An acknowledgement goes to the stream that the PUBLISH arrived
// on, a message to the stream that its subscription was made on. Topic aliases
// belong to a stream; the session itself uses them on the control stream only.
// When a data stream ends, its subscriptions and what waits to be sent on it
// move to the control stream, which also goes on with its exchanges: resume.go
// says how.
//
// # Order
//
// Next gives CONNACK first, then answers, then what is sent again on resumption
// (PUBREL in the order of the PUBRECs [MQTT-4.6.0-4], PUBLISH in the original
// order [MQTT-4.6.0-1]), then messages in the order in which they were
// delivered. When the client's Receive Maximum is reached, messages of QoS 1
// and 2 wait and those of QoS 0 pass them: messages of one topic and QoS stay
// in order [MQTT-4.6.0-5], and one slow acknowledgement stops no sensor.
//
// # Offline
//
// Without a connection, messages of QoS 1 and 2 are queued and those of QoS 0
// ignored; those of QoS 0 that wait when a connection ends are dropped.
package session

import (
	"iter"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// A Session is the server's side of an MQTT session (MQTT 5, Section 4.1).
type Session struct {
	// What Deliver looks at is together in memory, with the queues that main
	// begins with: one message may go to very many sessions.
	state      state
	version    packet.Version
	silent     bool      // the client gets no packets: it has gone, takes no CONNACK, or has its DISCONNECT
	zeroExpiry bool      // CONNECT asked for Session Expiry Interval 0
	maxPacket  uint32    // the client's Maximum Packet Size; 0: none
	bytes      int       // cost of all messages that wait or are in flight
	seq        uint64    // of the message queued last
	expires    time.Time // no message that waits expires before it; zero: none does
	limits     Limits
	journal    *journal // nil: what changes need not survive the server

	main lane                    // the control stream's
	data map[mqtt.StreamID]*lane // of the connection

	clientID   string
	quota      uint16 // the client's Receive Maximum, capped
	keepAlive  uint16 // seconds; 0: none
	sentID     [1]uint32
	expiry     uint32 // seconds from the end of the connection to that of the session
	connection uint32 // counts Attach
	aliasIn    int32  // bytes of the topics behind the client's aliases, on all streams
	bridge     bool   // CONNECT says that the client is a bridge of MQTT 3.x
	answers    int32  // of the connection: packets other than PUBLISH that wait in lanes, by weight

	// since is when the last packet was received, or when the connection ended.
	// Timers are computed from it, so that a packet sets no timer.
	since time.Time

	// Of the connection.
	connack *packet.Connack
	bye     *packet.Disconnect
	aliases aliasesOut
	held    int32    // flights that hold a place of quota
	inbound int32    // PUBLISH packets that hold a place of our Receive Maximum
	cut     *cutList // nil: empty
	scratch *scratch
	auth    *authState // nil: CONNECT named no method

	// Of the session.
	will     *will
	out      window
	received receivedSet
	subs     map[string]subscription
	again    int32 // flights to be sent again; of the connection
	onData   int32 // subscriptions that deliver on data streams
	filters  int   // bytes of the filters in subs
	ops      []*operation
	expired  uint32
	tooLarge uint32
}

type state uint8

const (
	detached  state = iota // no connection
	connected              // from Attach
	closing                // EffectClose was given; nothing more is received
	ended                  // EffectEnd was given
)

// A will is the Will Message and when it is published (MQTT 5, Section 3.1.2.5).
type will struct {
	packet.Publish
	delay uint32 // seconds
}

// New returns a session without a connection.
func New(clientID string, limits Limits) *Session {
	return &Session{clientID: clientID, limits: limits.withDefaults()}
}

// ClientID returns the client identifier.
func (s *Session) ClientID() string { return s.clientID }

// Version returns the version of the present or the last connection.
func (s *Session) Version() packet.Version { return s.version }

// Connected reports whether packets are received: from Attach until EffectClose
// or Detach.
func (s *Session) Connected() bool { return s.state == connected }

// Connection returns the number of the present or the last connection.
func (s *Session) Connection() uint32 { return s.connection }

// Ended reports whether EffectEnd was given.
func (s *Session) Ended() bool { return s.state == ended }

// QueueBytes returns the cost of the messages that the session holds.
func (s *Session) QueueBytes() int { return s.bytes }

// Inflight returns how many messages were sent and not completely acknowledged.
func (s *Session) Inflight() int { return s.out.len() }

// Stats are the figures of a session. The counters count from its beginning.
type Stats struct {
	Waiting       int // messages to be sent for the first time
	QueueBytes    int // cost of all messages held
	Inflight      int // messages sent and not completely acknowledged
	Subscriptions int
	Expired       uint32 // messages that expired here
	TooLarge      uint32 // messages larger than the client's Maximum Packet Size
}

// Stats returns the session's figures.
func (s *Session) Stats() Stats {
	return Stats{
		Waiting: s.waiting(), QueueBytes: s.bytes, Inflight: s.out.len(),
		Subscriptions: len(s.subs), Expired: s.expired, TooLarge: s.tooLarge,
	}
}

// Paused reports that answers pile up because the client sends faster than they
// are taken by Next. The caller should read nothing more of this client
// until it is false; a client that goes on all the same is disconnected in the
// end with 0x97.
func (s *Session) Paused() bool { return s.answers >= pauseAnswers }

// Subscriptions returns the session's subscriptions in no particular order.
func (s *Session) Subscriptions() iter.Seq[Subscription] {
	return func(yield func(Subscription) bool) {
		for filter, sub := range s.subs {
			if sub.granted && !yield(sub.export(filter)) {
				return
			}
		}
	}
}
