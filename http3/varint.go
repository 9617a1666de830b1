package http3

import "encoding/binary"

// maxVarint is the largest integer that QUIC's variable-length encoding holds.
//
// https://www.rfc-editor.org/rfc/rfc9000#section-16
const maxVarint = 1<<62 - 1

// appendVarint appends v, which is at most maxVarint.
func appendVarint(dst []byte, v uint64) []byte {
	switch {
	case v < 1<<6:
		return append(dst, byte(v))
	case v < 1<<14:
		return binary.BigEndian.AppendUint16(dst, uint16(v)|1<<14)
	case v < 1<<30:
		return binary.BigEndian.AppendUint32(dst, uint32(v)|2<<30)
	case v <= maxVarint:
		return binary.BigEndian.AppendUint64(dst, v|3<<62)
	}
	panic("http3: integer over 62 bits")
}

// parseVarint returns the integer at the start of p and its length, which is 0
// if p is too short.
func parseVarint(p []byte) (v uint64, n int) {
	if len(p) == 0 {
		return 0, 0
	}
	n = 1 << (p[0] >> 6)
	if len(p) < n {
		return 0, 0
	}
	v = uint64(p[0] & 0x3f)
	for _, b := range p[1:n] {
		v = v<<8 | uint64(b)
	}
	return v, n
}

// A varintReader collects an integer that arrives in pieces.
type varintReader struct {
	buf [8]byte
	n   int
}

// read takes bytes from p until the integer is complete, and returns the rest.
func (r *varintReader) read(p []byte) (v uint64, rest []byte, ok bool) {
	if r.n == 0 { // the usual case: it is in one piece
		if v, n := parseVarint(p); n > 0 {
			return v, p[n:], true
		}
	}
	for len(p) > 0 {
		r.buf[r.n] = p[0]
		r.n++
		p = p[1:]
		if v, n := parseVarint(r.buf[:r.n]); n > 0 {
			r.n = 0
			return v, p, true
		}
	}
	return 0, nil, false
}

// partial reports whether a part of an integer was read.
func (r *varintReader) partial() bool { return r.n > 0 }
