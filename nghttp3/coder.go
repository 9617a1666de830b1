//go:build ngtcp2 && cgo

package nghttp3

// #include "shim.h"
//
// #cgo noescape aq_h3_new
// #cgo nocallback aq_h3_new
// #cgo noescape aq_h3_free
// #cgo nocallback aq_h3_free
// #cgo noescape aq_h3_set_peer
// #cgo nocallback aq_h3_set_peer
// #cgo noescape aq_h3_encode
// #cgo nocallback aq_h3_encode
// #cgo noescape aq_h3_decode
// #cgo nocallback aq_h3_decode
// #cgo noescape aq_h3_cancel
// #cgo nocallback aq_h3_cancel
// #cgo noescape aq_h3_read_encoder
// #cgo nocallback aq_h3_read_encoder
// #cgo noescape aq_h3_read_decoder
// #cgo nocallback aq_h3_read_decoder
// #cgo noescape aq_h3_trim
// #cgo nocallback aq_h3_trim
// #cgo noescape aq_h3_memory
// #cgo nocallback aq_h3_memory
// #cgo noescape aq_h3_leaked
// #cgo nocallback aq_h3_leaked
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Longest literals, in bytes as encoded, that libnghttp3 reads in a field section.
const (
	MaxName  = C.AQ_H3_MAX_NAME
	MaxValue = C.AQ_H3_MAX_VALUE
)

var (
	// ErrMalformed is matched by the error of a call whose input breaks a rule of
	// QPACK. The Coder must not be used any more.
	ErrMalformed = errors.New("nghttp3: malformed input")

	// ErrLimit is returned for a field section that is over the limit. The Coder
	// goes on.
	ErrLimit = errors.New("nghttp3: field section over the limit")

	// ErrNoEncoder means that nothing was encoded: the peer allows no dynamic
	// table, or does not acknowledge, or memory ran out. What is sent instead
	// must not refer to the dynamic table.
	ErrNoEncoder = errors.New("nghttp3: no encoder")

	// ErrClosed is returned after Close. It matches net.ErrClosed.
	ErrClosed = fmt.Errorf("nghttp3: coder was closed: %w", net.ErrClosed)
)

// A Coder is the QPACK of one side of a connection. It should be closed: the garbage
// collector, which frees one that nobody has any more, does not know what is in C.
type Coder struct {
	c    *C.aq_h3_coder // nil after Close
	lost runtime.Cleanup
	text []byte   // of the fields that Add was given, and not yet encoded
	lens []uint32 // of their names and values, in turns
	big  bool     // a field does not fit
}

// New makes a Coder whose decoder allows the peer a dynamic table of that many
// bytes.
func New(table uint32) (*Coder, error) {
	c := C.aq_h3_new(C.size_t(table))
	if c == nil {
		return nil, errors.New("nghttp3: out of memory")
	}
	coder := &Coder{c: c}
	coder.lost = runtime.AddCleanup(coder, func(c *C.aq_h3_coder) { C.aq_h3_free(c) }, c)
	return coder, nil
}

// Close frees what c has in C. It may be called more than once.
func (c *Coder) Close() {
	if c.c != nil {
		c.lost.Stop()
		C.aq_h3_free(c.c)
		c.c = nil
	}
}

// result is the error of a call that returned code.
func (c *Coder) result(code C.int) error {
	switch code {
	case C.AQ_H3_OK:
		return nil
	case C.AQ_H3_LIMIT:
		return ErrLimit
	case C.AQ_H3_FULL:
		return ErrNoEncoder
	case C.AQ_H3_MALFORMED:
		return fmt.Errorf("%w: %s", ErrMalformed, C.GoString(&c.c.error[0]))
	}
	return fmt.Errorf("nghttp3: %s", C.GoString(&c.c.error[0]))
}

// SetPeer says which dynamic table the peer's decoder allows (its
// SETTINGS_QPACK_MAX_TABLE_CAPACITY), in bytes. Before, and without a table, there
// is no encoder. Later calls do nothing.
func (c *Coder) SetPeer(table uint64) error {
	if c.c == nil {
		return ErrClosed
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // does not fail
	return c.result(C.aq_h3_set_peer(c.c, C.uint64_t(table), C.uint64_t(binary.NativeEndian.Uint64(seed[:]))))
}

// Add gives the next call of Encode a field. It is copied.
func (c *Coder) Add(name, value string) {
	if len(name) > math.MaxInt32 || len(value) > math.MaxInt32 {
		c.big = true
		return
	}
	c.text = append(append(c.text, name...), value...)
	c.lens = append(c.lens, uint32(len(name)), uint32(len(value)))
}

// keep is how much of a buffer stays for the next section, in bytes.
const keep = 16 << 10

// Encode encodes the fields that were added, as a section on a stream: prefix and
// then section. They are views.
func (c *Coder) Encode(stream int64) (prefix, section []byte, err error) {
	text, lens, big := c.text, c.lens, c.big
	if cap(c.text) > keep {
		c.text, c.lens = nil, nil
	}
	c.text, c.lens, c.big = c.text[:0], c.lens[:0], false
	if c.c == nil {
		return nil, nil, ErrClosed
	}
	if big {
		return nil, nil, ErrNoEncoder
	}
	err = c.result(C.aq_h3_encode(c.c, C.int64_t(stream),
		(*C.uint8_t)(unsafe.SliceData(text)), C.size_t(len(text)),
		(*C.uint32_t)(unsafe.SliceData(lens)), C.size_t(len(lens)/2)))
	if err != nil {
		return nil, nil, err
	}
	prefix = view(c.c.prefix, c.c.prefix_len)
	if len(prefix) > 0 && prefix[0] == 0 {
		prefix = noReferences
	}
	return prefix, view(c.c.section, c.c.section_len), nil
}

// noReferences is the prefix of a section that refers to nothing. Its Base means
// nothing; libnghttp3 writes the insert count, and some peers refuse what is not 0.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-4.5.1.2
var noReferences = []byte{0, 0}

// view is n bytes of C memory.
func view(p *C.uint8_t, n C.size_t) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), int(n))
}

// Decode decodes a section of a stream, which must be complete. It stops with
// ErrLimit at the field with which all are larger than limit, each counted with
// 32 bytes above its text; without an error [Coder.Fields] has them.
func (c *Coder) Decode(stream int64, p []byte, limit uint64) error {
	if c.c == nil {
		return ErrClosed
	}
	return c.result(C.aq_h3_decode(c.c, C.int64_t(stream), (*C.uint8_t)(unsafe.SliceData(p)), C.size_t(len(p)), C.uint64_t(limit)))
}

// Cancel tells the peer that no more sections of the stream will be decoded.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-2.2.2.2
func (c *Coder) Cancel(stream int64) error {
	if c.c == nil {
		return ErrClosed
	}
	return c.result(C.aq_h3_cancel(c.c, C.int64_t(stream)))
}

// ReadEncoder takes what has arrived on the peer's encoder stream.
func (c *Coder) ReadEncoder(p []byte) error {
	if c.c == nil {
		return ErrClosed
	}
	return c.result(C.aq_h3_read_encoder(c.c, (*C.uint8_t)(unsafe.SliceData(p)), C.size_t(len(p))))
}

// ReadDecoder takes what has arrived on the peer's decoder stream. It takes
// anything while there is no encoder.
func (c *Coder) ReadDecoder(p []byte) error {
	if c.c == nil {
		return ErrClosed
	}
	return c.result(C.aq_h3_read_decoder(c.c, (*C.uint8_t)(unsafe.SliceData(p)), C.size_t(len(p))))
}

// EncoderStream is what the last call has to say on this side's encoder stream: a
// view.
func (c *Coder) EncoderStream() []byte {
	if c.c == nil {
		return nil
	}
	return view(c.c.encoder_stream, c.c.encoder_stream_len)
}

// DecoderStream is what the last call has to say on this side's decoder stream: a
// view.
func (c *Coder) DecoderStream() []byte {
	if c.c == nil {
		return nil
	}
	return view(c.c.decoder_stream, c.c.decoder_stream_len)
}

// Inserts is how many entries the peer has put into the decoder's table, as far as
// it was read.
func (c *Coder) Inserts() uint64 {
	if c.c == nil {
		return 0
	}
	return uint64(c.c.inserts)
}

// Trim frees what a large section has left. It invalidates the views.
func (c *Coder) Trim() {
	if c.c != nil && c.c.large != 0 {
		C.aq_h3_trim(c.c)
	}
}

// Len is the number of fields that Decode has decoded.
func (c *Coder) Len() int {
	if c.c == nil {
		return 0
	}
	return int(c.c.nfields)
}

// names are the field names that have a token, by that token. A token and its name
// belong together for the life of the process.
var names [128]atomic.Pointer[string]

// firstOther is the first token of a name that is not in the static table.
const firstOther = 1000

func knownName(token int32, text []byte) (string, bool) {
	i := int(token)
	if i >= firstOther {
		i = 99 + i - firstOther // behind those of the static table
	}
	if i < 0 || i >= len(names) {
		return "", false
	}
	s := names[i].Load()
	if s == nil {
		made := string(text)
		s = &made
		names[i].Store(s)
	}
	return *s, true
}

// shared is the size in bytes up to which the text of a section is one string. Of
// a larger one each part is a string of its own, so that who keeps one does not
// keep all.
const shared = 4 << 10

// Fields are what Decode has decoded, as strings that stay valid.
func (c *Coder) Fields() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if c.c == nil || c.c.nfields == 0 {
			return
		}
		text := view(c.c.text, c.c.text_len)
		var all string
		if len(text) <= shared {
			all = string(text)
		}
		part := func(from, n int) string {
			if len(text) <= shared {
				return all[from : from+n]
			}
			return string(text[from : from+n])
		}
		at := 0
		for _, f := range unsafe.Slice(c.c.fields, int(c.c.nfields)) {
			n, v := int(f.name_len), int(f.value_len)
			name, ok := knownName(int32(f.token), text[at:at+n])
			if !ok {
				name = part(at, n)
			}
			if !yield(name, part(at+n, v)) {
				return
			}
			at += n + v
		}
	}
}

// Memory returns the bytes of C memory that all Coders have.
func Memory() int64 { return int64(C.aq_h3_memory()) }

// Leaked counts the Coders whose memory cannot be freed, because an assertion of
// libnghttp3 failed: [Memory] has it for ever.
func Leaked() int64 { return int64(C.aq_h3_leaked()) }

// Version returns the version of libnghttp3 that runs.
func Version() string { return C.GoString(C.aq_h3_version()) }

// failAllocation makes the n-th allocation from now on fail, and all behind it;
// a negative n ends that. For tests.
func failAllocation(n int64) { C.aq_h3_fail_after(C.int64_t(n)) }
