package http3

import "github.com/anyquic/anyquic/transport"

// A codec is the framing (RFC 9114, Section 7) and the field compression (RFC
// 9204) of one connection. It does no I/O: bytes of streams go in, events come
// out; heads and lengths go in, bytes come out.
//
//	peer's stream -> Stream.Read -> receive -> events -> message -> net/http
//	net/http -> appendHeaders, appendData -> Stream.Write
//	                 └─> pending -> control, encoder and decoder stream
//
// It knows the order of frames and streams and returns an [*Error] with the
// code and the scope that the RFCs name. What a list of fields means, and
// whether it is a valid message, is the same for every codec: see message.go.
//
// A codec locks for itself: its methods and those of its streamCodecs may be
// called from any goroutine, but for one streamCodec, one receive and one append
// at a time. It calls nobody. After it returned an Error for the connection it
// must not be used any more.
//
// No codec announces blocked streams (SETTINGS_QPACK_BLOCKED_STREAMS is 0), so
// what a request stream says is always complete when its bytes are; and no codec
// refers to what the peer has not acknowledged, so nothing waits for what is written
// to the encoder and the decoder stream: see unsent.
//
// What codecs differ in is the [compression] that a [framing] has.
type codec interface {
	// request starts a bidirectional stream.
	request(id transport.StreamID) streamCodec

	// receiveUni takes what has arrived on a unidirectional stream of the
	// peer, and appends to ev what it means. fin: the stream ends after p. A
	// stream that the peer reset is passed with fin as well, if it is a
	// critical one that is an error.
	receiveUni(id transport.StreamID, p []byte, fin bool, ev []event) ([]event, error)

	// goAway and priorityUpdate put a frame on the control stream.
	goAway(id uint64)
	priorityUpdate(id transport.StreamID, value string)

	// pending appends to dst what must be written now to a stream that this
	// side opens, its type first. Nothing is pending for a stream that the
	// codec does not need.
	pending(own ownStream, dst []byte) []byte

	// unsent takes back the end of what pending returned for an encoder or decoder
	// stream: it could not be written yet and is pending again.
	unsent(own ownStream, p []byte)

	// isPending reports whether anything is pending. It is asked after every
	// call of another method, before what that returned is used, and costs next
	// to nothing.
	isPending() bool

	// end frees what the codec has. It is called when the connection has ended,
	// whatever else is going on; other methods may still be called.
	end()
}

// A streamCodec is the framing of one bidirectional stream.
type streamCodec interface {
	// receive takes what has arrived and appends to ev what it means. Data
	// events point into p; the other events do not. fin: the stream ends
	// after p.
	receive(p []byte, fin bool, ev []event) ([]event, error)

	// appendHeaders appends a HEADERS frame: a head, an interim head, trailers.
	appendHeaders(dst []byte, fields []field) []byte

	// appendData appends what precedes n bytes of content, n > 0. The caller
	// sends them next.
	appendData(dst []byte, n int) []byte

	// close is called once when the stream is of no interest any more.
	close()
}

// An ownStream is a unidirectional stream that this side opens.
type ownStream uint8

const (
	ownControl ownStream = iota
	ownEncoder
	ownDecoder
	ownStreams // how many there are
)

// A field is a field line or a pseudo-header field.
type field struct{ name, value string }

// An event is what bytes of the peer mean.
type event struct {
	kind   eventKind
	fields []field  // eventHeaders; valid until the stream's next receive
	data   []byte   // eventData, eventTaken
	id     uint64   // eventGoAway, eventPriority: the stream; eventTaken: the type
	value  string   // eventPriority
	peer   Settings // eventSettings
}

type eventKind uint8

const (
	eventHeaders  eventKind = iota // a head, an interim head, or trailers
	eventTrailers                  // as eventHeaders, after content or a head
	eventData                      // content
	eventEnd                       // the end of the stream
	eventSettings                  // the peer's settings
	eventGoAway
	eventPriority // PRIORITY_UPDATE for a request
	eventIgnored  // a stream of an unknown type: nobody reads it
	eventTaken    // a stream of a type that someone wants: data is what follows
)

// A codecConfig says what a codec announces and accepts.
type codecConfig struct {
	client   bool     // this side is the client
	settings Settings // what it announces
	takeUni  func(streamType uint64) bool
	takeBidi func(frameType uint64) bool
}
