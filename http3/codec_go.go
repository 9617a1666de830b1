package http3

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anyquic/anyquic/transport"
)

// A framing is the framing of a connection, in Go. Every codec is one, with the
// compression that gives it its name.
type framing struct {
	cfg    codecConfig
	said   *atomic.Bool // something is in out, or pending in fields
	fields compression

	mu        sync.Mutex
	out       []byte                            // for the control stream; guarded by mu
	uni       map[transport.StreamID]*uniStream // guarded by mu; those that are read
	opened    [ownStreams]bool                  // by the peer; guarded by mu
	goneAway  uint64                            // the peer's last GOAWAY, or maxVarint; guarded by mu
	maxPushID uint64                            // the peer's last MAX_PUSH_ID; guarded by mu
}

// A compression is the field compression of a connection (RFC 9204).
//
// It locks for itself, but for what is said of setPeer and of the streams. It never
// refers to the dynamic table before the peer has acknowledged the entry.
type compression interface {
	// capacity is the dynamic table that the peer's encoder may fill, in bytes:
	// SETTINGS_QPACK_MAX_TABLE_CAPACITY.
	capacity() uint64

	// appendFields appends a HEADERS frame for a stream.
	appendFields(dst []byte, id transport.StreamID, fields []field) []byte

	// decodeFields appends the fields of a section that is complete. It stops at
	// the field that exceeds limit, so that a small section cannot become large.
	decodeFields(dst []field, id transport.StreamID, p []byte, limit uint64) ([]field, error)

	// cancel says that nothing more of the stream will be decoded.
	cancel(id transport.StreamID)

	// setPeer is told the capacity that the peer allows, with the peer's settings,
	// and encoderStream and decoderStream what arrives on these streams of the
	// peer. One of the three at a time.
	setPeer(capacity uint64) error
	encoderStream(p []byte) error
	decoderStream(p []byte) error

	// pending and unsent are as those of a codec.
	pending(own ownStream, dst []byte) []byte
	unsent(own ownStream, p []byte)

	// end frees what there is; afterwards there is no dynamic table.
	end()
}

// newFraming makes the codec whose compression is fields, which sets said when it
// has something pending.
func newFraming(cfg codecConfig, said *atomic.Bool, fields compression) *framing {
	c := &framing{cfg: cfg, said: said, fields: fields, uni: make(map[transport.StreamID]*uniStream), goneAway: maxVarint}
	var settings []byte
	if n := fields.capacity(); n > 0 {
		settings = appendVarint(appendVarint(settings, settingMaxTableCapacity), n)
	}
	// https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
	c.out = appendFrame(appendVarint(nil, streamControl), frameSettings, cfg.settings.append(settings))
	c.said.Store(true)
	return c
}

func (c *framing) request(id transport.StreamID) streamCodec {
	return &bidiStream{cfg: &c.cfg, compression: c.fields, id: id}
}

func (c *framing) goAway(id uint64) {
	c.say(frameGoAway, appendVarint(nil, id))
}

func (c *framing) priorityUpdate(id transport.StreamID, value string) {
	c.say(framePriorityUpdate, append(appendVarint(nil, uint64(id)), value...))
}

func (c *framing) pending(own ownStream, dst []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if own != ownControl {
		return c.fields.pending(own, dst)
	}
	c.said.Store(false) // the control stream is asked first
	dst = append(dst, c.out...)
	c.out = nil
	return dst
}

func (c *framing) unsent(own ownStream, p []byte) {
	c.fields.unsent(own, p)
	c.said.Store(true)
}

func (c *framing) end() { c.fields.end() }

func (c *framing) isPending() bool { return c.said.Load() }

// say puts a frame on the control stream.
func (c *framing) say(typ uint64, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendFrame(c.out, typ, payload)
	c.said.Store(true)
}

// A uniStream is a unidirectional stream of the peer.
type uniStream struct {
	known  bool // typ was read
	num    varintReader
	typ    uint64
	frames frameReader // streamControl
	begun  bool        // streamControl: a frame was seen
}

func (c *framing) receiveUni(id transport.StreamID, p []byte, fin bool, ev []event) ([]event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.uni[id]
	if s == nil {
		s = new(uniStream)
		c.uni[id] = s
	}
	if fin {
		defer delete(c.uni, id)
	}
	if !s.known {
		var ok bool
		if s.typ, p, ok = s.num.read(p); !ok {
			// https://www.rfc-editor.org/rfc/rfc9114#section-6.2: a stream that
			// ends before its type is no error.
			return ev, nil
		}
		s.known = true
		taken, err := c.open(s.typ)
		if err != nil {
			return ev, err
		}
		if taken {
			delete(c.uni, id)
			return append(ev, event{kind: eventTaken, id: s.typ, data: p}), nil
		}
	}
	var err error
	switch s.typ {
	case streamControl:
		ev, err = c.control(s, p, ev)
	case streamEncoder:
		err = c.fields.encoderStream(p)
	case streamDecoder:
		err = c.fields.decoderStream(p)
	default:
		delete(c.uni, id)
		return append(ev, event{kind: eventIgnored, id: s.typ}), nil
	}
	if err == nil && fin {
		// https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
		// https://www.rfc-editor.org/rfc/rfc9204#section-4.2
		err = connError(ErrClosedCriticalStream, "stream of type %#x closed", s.typ)
	}
	return ev, err
}

// open accounts for a stream whose type is known now.
func (c *framing) open(typ uint64) (taken bool, _ error) {
	var own ownStream
	switch typ {
	case streamControl:
		own = ownControl
	case streamEncoder:
		own = ownEncoder
	case streamDecoder:
		own = ownDecoder
	case streamPush:
		if c.cfg.client {
			// https://www.rfc-editor.org/rfc/rfc9114#section-4.6: this client
			// sends no MAX_PUSH_ID.
			return false, connError(ErrID, "push stream without MAX_PUSH_ID")
		}
		// https://www.rfc-editor.org/rfc/rfc9114#section-6.2.2
		return false, connError(ErrStreamCreation, "push stream from a client")
	default:
		return c.cfg.takeUni != nil && c.cfg.takeUni(typ), nil
	}
	if c.opened[own] {
		return false, connError(ErrStreamCreation, "second stream of type %#x", typ)
	}
	c.opened[own] = true
	return false, nil
}

// control reads the control stream.
func (c *framing) control(s *uniStream, p []byte, ev []event) ([]event, error) {
	for {
		r := &s.frames
		if r.state != framePayload {
			var ok bool
			if p, ok = r.header(p); !ok {
				return ev, nil
			}
			if err := c.checkControlFrame(s, r.typ, r.length); err != nil {
				return ev, err
			}
		}
		if !c.collected(r.typ) {
			var last bool
			if _, p, last = r.take(p); !last {
				return ev, nil
			}
			continue
		}
		payload, rest, ok := r.collect(p)
		if !ok {
			return ev, nil
		}
		p = rest
		e, found, err := c.controlFrame(r.typ, payload)
		if err != nil {
			return ev, err
		}
		if found {
			ev = append(ev, e)
		}
	}
}

// collected reports whether frames of the type mean anything on a control
// stream.
func (c *framing) collected(typ uint64) bool {
	switch typ {
	case frameSettings, frameGoAway, frameMaxPushID, frameCancelPush, framePriorityUpdate, framePriorityUpdatePush:
		return true
	}
	return false
}

// checkControlFrame checks what does not depend on the payload.
func (c *framing) checkControlFrame(s *uniStream, typ, length uint64) error {
	first := !s.begun
	s.begun = true
	switch {
	case first && typ != frameSettings:
		// https://www.rfc-editor.org/rfc/rfc9114#section-6.2.1
		return connError(ErrMissingSettings, "first frame has type %#x", typ)
	case !first && typ == frameSettings:
		// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.4
		return connError(ErrFrameUnexpected, "second SETTINGS")
	case c.cfg.takeBidi != nil && c.cfg.takeBidi(typ):
		return connError(ErrFrame, "start of a stream of type %#x on the control stream", typ)
	case typ == frameData, typ == frameHeaders, typ == framePushPromise, reservedFrame(typ):
		// https://www.rfc-editor.org/rfc/rfc9114#section-7.2
		return connError(ErrFrameUnexpected, "frame of type %#x on the control stream", typ)
	case c.cfg.client && (typ == frameMaxPushID || typ == framePriorityUpdate || typ == framePriorityUpdatePush):
		// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
		// https://www.rfc-editor.org/rfc/rfc9218#section-7.2
		return connError(ErrFrameUnexpected, "frame of type %#x from a server", typ)
	case c.collected(typ) && length > maxControlFrame:
		return connError(ErrExcessiveLoad, "frame of type %#x with %d bytes", typ, length)
	}
	return nil
}

func (c *framing) controlFrame(typ uint64, payload []byte) (e event, found bool, err error) {
	switch typ {
	case frameSettings:
		e.kind = eventSettings
		if e.peer, err = parseSettings(payload); err == nil {
			err = c.fields.setPeer(tableCapacity(payload))
		}
		return e, err == nil, err
	case frameGoAway:
		e.kind = eventGoAway
		e.id, err = c.receiveGoAway(payload)
		return e, err == nil, err
	case frameMaxPushID:
		id, err := oneVarint("MAX_PUSH_ID", payload)
		if err == nil && id < c.maxPushID {
			// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.7
			err = connError(ErrID, "MAX_PUSH_ID shrinks from %d to %d", c.maxPushID, id)
		}
		c.maxPushID = id
		return e, false, err
	case frameCancelPush:
		id, err := oneVarint("CANCEL_PUSH", payload)
		if err == nil {
			// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.3: nothing was
			// ever promised, and nothing allowed.
			err = connError(ErrID, "CANCEL_PUSH of push %d", id)
		}
		return e, false, err
	case framePriorityUpdate, framePriorityUpdatePush:
		id, n := parseVarint(payload)
		switch {
		case n == 0:
			return e, false, connError(ErrFrame, "PRIORITY_UPDATE frame of %d bytes", len(payload))
		case typ == framePriorityUpdatePush:
			// https://www.rfc-editor.org/rfc/rfc9218#section-7.2
			return e, false, connError(ErrID, "PRIORITY_UPDATE for push %d", id)
		case id&3 != 0:
			return e, false, connError(ErrID, "PRIORITY_UPDATE for stream %d", id)
		}
		return event{kind: eventPriority, id: id, value: string(payload[n:])}, true, nil
	}
	panic("http3: frame is not collected")
}

// https://www.rfc-editor.org/rfc/rfc9114#section-5.2
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.6
func (c *framing) receiveGoAway(payload []byte) (uint64, error) {
	id, err := oneVarint("GOAWAY", payload)
	switch {
	case err != nil:
		return 0, err
	case c.cfg.client && id&3 != 0:
		return 0, connError(ErrID, "GOAWAY with stream %d", id)
	case id > c.goneAway:
		return 0, connError(ErrID, "GOAWAY grows from %d to %d", c.goneAway, id)
	}
	c.goneAway = id
	return id, nil
}

// A bidiStream is the framing of a bidirectional stream.
type bidiStream struct {
	cfg         *codecConfig
	compression compression
	id          transport.StreamID
	frames      frameReader
	begun       bool // a frame type was read
	state       messageState
	connect     bool        // client: the request is CONNECT
	ended       atomic.Bool // there is nothing more to decode
	fields      []field     // of the events of the last receive
}

// messageState is how far the peer's message is.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.1
type messageState uint8

const (
	awaitHead messageState = iota // interim heads may have come
	inContent                     // DATA, or trailers
	inTunnel                      // DATA only, after CONNECT
	afterTrailers
)

func (s *bidiStream) close() {
	if !s.ended.Load() {
		s.compression.cancel(s.id)
	}
}

func (s *bidiStream) appendHeaders(dst []byte, fields []field) []byte {
	if s.cfg.client && len(fields) > 0 && fields[0] == (field{":method", "CONNECT"}) {
		s.connect = true
	}
	return s.compression.appendFields(dst, s.id, fields)
}

func (s *bidiStream) appendData(dst []byte, n int) []byte {
	dst = appendVarint(dst, frameData)
	return appendVarint(dst, uint64(n))
}

func (s *bidiStream) receive(p []byte, fin bool, ev []event) ([]event, error) {
	r := &s.frames
	s.fields = s.fields[:0]
	if !s.begun {
		var ok bool
		if r.typ, p, ok = r.num.read(p); ok {
			s.begun = true
			if s.cfg.takeBidi != nil && s.cfg.takeBidi(r.typ) {
				s.ended.Store(true)
				return append(ev, event{kind: eventTaken, id: r.typ, data: p}), nil
			}
			r.state = frameLength
		}
	}
	ev, err := s.receiveFrames(p, ev)
	if err != nil || !fin {
		return ev, err
	}
	s.ended.Store(true)
	switch {
	case !r.between():
		// https://www.rfc-editor.org/rfc/rfc9114#section-7.1
		return ev, connError(ErrFrame, "stream ends within a frame")
	case s.state == awaitHead && s.cfg.client:
		return ev, streamError(ErrMessage, "stream ends before the response")
	case s.state == awaitHead:
		// https://www.rfc-editor.org/rfc/rfc9114#section-4.1
		return ev, streamError(ErrRequestIncomplete, "stream ends before the request")
	}
	return append(ev, event{kind: eventEnd}), nil
}

func (s *bidiStream) receiveFrames(p []byte, ev []event) ([]event, error) {
	r := &s.frames
	for {
		if r.state != framePayload {
			var ok bool
			if p, ok = r.header(p); !ok {
				return ev, nil
			}
			if err := s.checkFrame(); err != nil {
				return ev, err
			}
		}
		if r.typ == frameHeaders {
			payload, rest, ok := r.collect(p)
			if !ok {
				return ev, nil
			}
			p = rest
			e, err := s.headers(payload)
			if err != nil {
				return ev, err
			}
			ev = append(ev, e)
			continue
		}
		payload, rest, last := r.take(p)
		p = rest
		if r.typ == frameData && len(payload) > 0 {
			ev = append(ev, event{kind: eventData, data: payload})
		}
		if !last {
			return ev, nil
		}
	}
}

// checkFrame checks the type of a frame, and its length if that is known to be
// too much.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.1
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2
func (s *bidiStream) checkFrame() error {
	r := &s.frames
	switch r.typ {
	case frameData:
		if s.state == awaitHead || s.state == afterTrailers {
			return connError(ErrFrameUnexpected, "DATA before HEADERS or after trailers")
		}
	case frameHeaders:
		if s.state == inTunnel || s.state == afterTrailers {
			return connError(ErrFrameUnexpected, "HEADERS after trailers or CONNECT")
		}
		if r.length > s.cfg.settings.maxFieldSection() {
			return &Error{Code: ErrExcessiveLoad, Reason: "field section over the limit", Err: errFieldsTooLarge}
		}
	case framePushPromise:
		if s.cfg.client {
			// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.5
			return connError(ErrID, "PUSH_PROMISE without MAX_PUSH_ID")
		}
		return connError(ErrFrameUnexpected, "PUSH_PROMISE from a client")
	case frameCancelPush, frameSettings, frameGoAway, frameMaxPushID, framePriorityUpdate, framePriorityUpdatePush:
		return connError(ErrFrameUnexpected, "frame of type %#x on a request stream", r.typ)
	default:
		if reservedFrame(r.typ) {
			return connError(ErrFrameUnexpected, "frame of type %#x", r.typ)
		}
		if s.cfg.takeBidi != nil && s.cfg.takeBidi(r.typ) {
			return connError(ErrFrame, "start of a stream of type %#x within another", r.typ)
		}
	}
	return nil
}

// headers decodes a field section and decides what it is.
func (s *bidiStream) headers(payload []byte) (event, error) {
	start := len(s.fields)
	all, err := s.compression.decodeFields(s.fields, s.id, payload, s.cfg.settings.maxFieldSection())
	if err != nil {
		return event{}, err
	}
	s.fields = all
	fields := all[start:len(all):len(all)]
	if s.state == inContent {
		s.state = afterTrailers
		return event{kind: eventTrailers, fields: fields}, nil
	}
	s.state = inContent
	for _, f := range fields {
		switch {
		case f.name == ":method" && !s.cfg.client && f.value == "CONNECT":
			s.state = inTunnel
		case f.name != ":status" || !s.cfg.client:
		case strings.HasPrefix(f.value, "1"):
			s.state = awaitHead
		case s.connect && strings.HasPrefix(f.value, "2"):
			s.state = inTunnel
		}
	}
	return event{kind: eventHeaders, fields: fields}, nil
}
