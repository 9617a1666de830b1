package http3

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/quic-go/qpack"

	"github.com/anyquic/anyquic/transport"
)

// errFieldsTooLarge means that a field section is larger than announced.
var errFieldsTooLarge = errors.New("field section over the limit")

// fieldOverhead is what a field counts beyond its text, in bytes.
const fieldOverhead = 32

// fieldSize is what a field counts against a limit.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
func fieldSize(f field) uint64 { return uint64(len(f.name) + len(f.value) + fieldOverhead) }

// staticTable is the compression in Go. It has no dynamic table: it announces
// none, so that the peer's encoder cannot use one, and needs none of its own.
type staticTable struct {
	encoder encoderStreamReader
	decoder decoderStreamReader
}

func (*staticTable) capacity() uint64 { return 0 }

func (*staticTable) appendFields(dst []byte, _ transport.StreamID, fields []field) []byte {
	return appendFields(dst, fields)
}

func (*staticTable) decodeFields(dst []field, _ transport.StreamID, p []byte, limit uint64) ([]field, error) {
	return decodeFields(dst, p, limit)
}

func (*staticTable) cancel(transport.StreamID)              {} // the peer's encoder keeps nothing
func (*staticTable) setPeer(uint64) error                   { return nil }
func (c *staticTable) encoderStream(p []byte) error         { return c.encoder.receive(p) }
func (c *staticTable) decoderStream(p []byte) error         { return c.decoder.receive(p) }
func (*staticTable) pending(_ ownStream, dst []byte) []byte { return dst }
func (*staticTable) unsent(ownStream, []byte)               {}
func (*staticTable) end()                                   {}

// sectionPrefix parses the prefix of a field section, encoded Required Insert Count
// and Base, and returns what follows. ok is false for what no section can start
// with.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-4.5.1
func sectionPrefix(p []byte) (insertCount uint64, rest []byte, ok bool) {
	insertCount, rest, ok = prefixInteger(p, 8)
	if !ok || len(rest) == 0 {
		return 0, nil, false
	}
	negative := rest[0]&0x80 != 0
	_, rest, ok = prefixInteger(rest, 7)
	if negative && insertCount == 0 {
		return 0, nil, false // Base would be below zero
	}
	return insertCount, rest, ok
}

// prefixInteger parses an integer that starts in the last n bits of the first byte.
//
// https://www.rfc-editor.org/rfc/rfc7541#section-5.1
func prefixInteger(p []byte, n int) (v uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	most := uint64(1)<<n - 1
	v = uint64(p[0]) & most
	if v < most {
		return v, p[1:], true
	}
	for i, b := range p[1:] {
		shift := 7 * i
		if shift > 62 || uint64(b&0x7f) > maxVarint>>shift || uint64(b&0x7f)<<shift > maxVarint-v {
			return 0, nil, false
		}
		if v += uint64(b&0x7f) << shift; b&0x80 == 0 {
			return v, p[i+2:], true
		}
	}
	return 0, nil, false
}

// tableCapacity returns SETTINGS_QPACK_MAX_TABLE_CAPACITY from the payload of a valid
// SETTINGS frame.
func tableCapacity(p []byte) uint64 {
	for len(p) > 0 {
		id, n := parseVarint(p)
		v, m := parseVarint(p[n:])
		if id == settingMaxTableCapacity {
			return v
		}
		p = p[n+m:]
	}
	return 0
}

var noReferences = []byte{0, 0} // the prefix of a section without the dynamic table

// decodeFields decodes a field section that does not use the dynamic table. It
// stops at the field that exceeds limit.
func decodeFields(dst []field, p []byte, limit uint64) ([]field, error) {
	insertCount, lines, ok := sectionPrefix(p)
	switch {
	case !ok || insertCount != 0:
		// https://www.rfc-editor.org/rfc/rfc9204#section-2.2.3
		return dst, connError(ErrQPACKDecompression, "prefix of a section for the dynamic table")
	case p[1] != 0:
		// https://www.rfc-editor.org/rfc/rfc9204#section-4.5.1.2: where nothing is
		// referred to, Base may be anything. The decoder wants 0.
		p = append(slices.Clip(noReferences), lines...)
	}
	var d qpack.Decoder
	next := d.Decode(p)
	var size uint64
	for {
		hf, err := next()
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			// https://www.rfc-editor.org/rfc/rfc9204#section-2.2.3
			return dst, connError(ErrQPACKDecompression, "%v", err)
		}
		f := field{hf.Name, hf.Value}
		if size += fieldSize(f); size > limit {
			return dst, &Error{Code: ErrExcessiveLoad, Reason: "field section over the limit", Err: errFieldsTooLarge}
		}
		dst = append(dst, f)
	}
}

// A fieldEncoder is a qpack.Encoder with the buffer that it writes to.
type fieldEncoder struct {
	buf bytes.Buffer
	enc *qpack.Encoder
}

var fieldEncoders = sync.Pool{New: func() any {
	e := new(fieldEncoder)
	e.enc = qpack.NewEncoder(&e.buf)
	return e
}}

// appendFields appends a HEADERS frame.
func appendFields(dst []byte, fields []field) []byte {
	e := fieldEncoders.Get().(*fieldEncoder)
	defer fieldEncoders.Put(e)
	e.buf.Reset()
	for _, f := range fields {
		// A bytes.Buffer does not fail.
		_ = e.enc.WriteField(qpack.HeaderField{Name: f.name, Value: f.value})
	}
	if len(fields) == 0 {
		e.buf.Write([]byte{0, 0}) // the prefix, which comes with the first field
	}
	_ = e.enc.Close()
	return appendFrame(dst, frameHeaders, e.buf.Bytes())
}

// An encoderStreamReader checks the peer's encoder stream. The table that it
// could fill has no room, so the one instruction that it may give is to make
// its capacity zero.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-4.3
type encoderStreamReader struct{}

func (encoderStreamReader) receive(p []byte) error {
	for _, b := range p {
		if b != 0x20 { // 001 and a 5-bit integer: Set Dynamic Table Capacity to 0
			return connError(ErrQPACKEncoderStream, "instruction %#x for a dynamic table of capacity 0", b)
		}
	}
	return nil
}

// A decoderStreamReader checks the peer's decoder stream. No field section of
// this side refers to the dynamic table, so that there is nothing to
// acknowledge; but the peer may say that it has lost interest in a stream.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-4.4
type decoderStreamReader struct {
	more  bool // within the integer of a Stream Cancellation
	shift int
}

func (r *decoderStreamReader) receive(p []byte) error {
	for _, b := range p {
		switch {
		case r.more:
			if r.shift += 7; r.shift > 62 {
				return connError(ErrQPACKDecoderStream, "integer too large")
			}
			r.more = b&0x80 != 0
		case b&0x80 != 0:
			return connError(ErrQPACKDecoderStream, "acknowledgement of a section that needs none")
		case b&0x40 != 0:
			r.more, r.shift = b&0x3f == 0x3f, 0
		default:
			return connError(ErrQPACKDecoderStream, "insert count increment without inserts")
		}
	}
	return nil
}
