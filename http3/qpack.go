package http3

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/quic-go/qpack"
)

// errFieldsTooLarge means that a field section is larger than announced.
var errFieldsTooLarge = errors.New("field section over the limit")

// fieldOverhead is what a field counts beyond its text, in bytes.
const fieldOverhead = 32

// fieldSize is what a field counts against a limit.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
func fieldSize(f field) uint64 { return uint64(len(f.name) + len(f.value) + fieldOverhead) }

// decodeFields decodes a field section that does not use the dynamic table,
// which no peer may do: this side announces none. It stops at the field that
// exceeds limit, so that a small section cannot become large.
func decodeFields(dst []field, p []byte, limit uint64) ([]field, error) {
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
