package http3

import "slices"

// Frame types.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2
// https://www.rfc-editor.org/rfc/rfc9218#section-7.2
const (
	frameData               = 0x0
	frameHeaders            = 0x1
	frameCancelPush         = 0x3
	frameSettings           = 0x4
	framePushPromise        = 0x5
	frameGoAway             = 0x7
	frameMaxPushID          = 0xd
	framePriorityUpdate     = 0xf0700
	framePriorityUpdatePush = 0xf0701
)

// maxControlFrame bounds the frames of a control stream, in bytes. What is
// usual has less than a hundred.
const maxControlFrame = 16 << 10

// Types of unidirectional streams.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-6.2
// https://www.rfc-editor.org/rfc/rfc9204#section-4.2
const (
	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// reservedFrame reports whether t is a frame type of HTTP/2 that HTTP/3 does
// not have.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-7.2.8
func reservedFrame(t uint64) bool { return t == 0x2 || t == 0x6 || t == 0x8 || t == 0x9 }

// A frameReader cuts a stream into frames.
type frameReader struct {
	num    varintReader
	typ    uint64
	length uint64 // of the payload
	left   uint64 // of the payload, to come
	state  frameState
	body   []byte // of a frame that is collected
}

type frameState uint8

const (
	frameType frameState = iota
	frameLength
	framePayload
)

// header reads up to the start of the payload.
func (r *frameReader) header(p []byte) (rest []byte, ok bool) {
	if r.state == frameType {
		if r.typ, p, ok = r.num.read(p); !ok {
			return nil, false
		}
		r.state = frameLength
	}
	if r.length, p, ok = r.num.read(p); !ok {
		return nil, false
	}
	r.left = r.length
	r.state = framePayload
	r.body = nil
	return p, true
}

// take returns what of the payload is in p. last: it is the end of the frame.
func (r *frameReader) take(p []byte) (payload, rest []byte, last bool) {
	n := len(p)
	if uint64(n) >= r.left {
		n = int(r.left)
		last = true
		r.state = frameType
	}
	r.left -= uint64(n)
	return p[:n], p[n:], last
}

// collect returns the payload as a whole when it is complete. It may point
// into p, and is valid until the next call. Memory grows with what arrives, not
// with what the frame announces.
func (r *frameReader) collect(p []byte) (payload, rest []byte, ok bool) {
	part, rest, last := r.take(p)
	if last && len(r.body) == 0 {
		return part, rest, true
	}
	r.body = append(r.body, part...)
	if !last {
		return nil, rest, false
	}
	payload, r.body = r.body, nil
	return payload, rest, true
}

// between reports whether the stream is between two frames.
func (r *frameReader) between() bool { return r.state == frameType && !r.num.partial() }

func appendFrame(dst []byte, typ uint64, payload []byte) []byte {
	dst = slices.Grow(dst, 16+len(payload))
	dst = appendVarint(dst, typ)
	dst = appendVarint(dst, uint64(len(payload)))
	return append(dst, payload...)
}

// oneVarint parses a payload that is one integer and nothing else.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-7.1
func oneVarint(name string, payload []byte) (uint64, error) {
	v, n := parseVarint(payload)
	if n == 0 || n != len(payload) {
		return 0, connError(ErrFrame, "%s frame of %d bytes", name, len(payload))
	}
	return v, nil
}
