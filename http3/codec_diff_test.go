//go:build ngtcp2 && cgo

package http3

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// These tests give the codec in Go and that of libnghttp3 the same bytes: they must
// say the same, and end with the same error of the same scope.
//
// They differ on purpose in what follows from the dynamic table. The codec in Go
// announces none, so that any use of one is an error; libnghttp3's may be used
// within what it announces. Without entries, the request stream leaves no room for a
// difference: whatever it refers to is not there. On the encoder stream, a codec of
// libnghttp3 that announces no table (emptyTable) has to do as the one in Go does. Then there
// are limits of libnghttp3 alone, within RFC 9204, Section 7.4: see limits.

var emptyTable = codecKind{
	info: CodecInfo{Name: "nghttp3 without a table"},
	make: func(cfg codecConfig) (codec, error) { return newNghttp3CodecSize(cfg, 0) },
}

// limits: an encoder stream of 128 KiB with no section between is refused, although
// all it says is that the table has no room.
const limits = 128 << 10

// compare feeds both codecs, as a client and as a server, in pieces.
func compare(t *testing.T, p []byte, piece int) {
	for _, client := range []bool{false, true} {
		want := feedRequest(&goKind, client, p, piece)
		require.Equal(t, want, feedRequest(&nghttp3Kind, client, p, piece), "request %x", p)
		if len(p) < limits {
			require.Equal(t, feedUni(&goKind, client, p, piece), feedUni(&emptyTable, client, p, piece), "stream %x", p)
		}
		if len(p) > 0 && p[0] != streamEncoder {
			require.Equal(t, feedUni(&goKind, client, p, piece), feedUni(&nghttp3Kind, client, p, piece), "stream %x", p)
		}
	}
}

// sections are HEADERS frames with all that a field section can hold.
func sections() [][]byte {
	lines := func(p ...byte) []byte { return appendFrame(nil, frameHeaders, append([]byte{0, 0}, p...)) }
	raw := func(p ...byte) []byte { return appendFrame(nil, frameHeaders, p) }
	long := strings.Repeat("~", 300) // in Huffman code it is longer still
	var all [][]byte
	for _, f := range [][]field{
		nil, requestFields, benchRequest, benchResponse,
		{{"", ""}}, {{"x", ""}}, {{"", "y"}}, {{long, "v"}}, {{"v", long}}, {{"X", strings.Repeat("z", 9_000)}},
		{{"x", strings.Repeat("z", 10_000)}}, {{"x", "\x00\x01\xff\n"}}, {{":status", "100"}}, {{":status", "304"}},
	} {
		all = append(all, appendFields(nil, f))
	}
	for i := range 120 { // the static table and beyond
		if i < 63 {
			all = append(all, lines(0xc0|byte(i)))
		} else {
			all = append(all, lines(0xff, byte(i-63)))
		}
		if i < 15 {
			all = append(all, lines(0x50|byte(i), 1, 'v'))
		} else {
			all = append(all, lines(0x5f, byte(i-15), 1, 'v'))
		}
	}
	return append(all,
		raw(), raw(0), raw(0, 0), raw(0, 1, 0xd1), raw(0, 0x7f, 0, 0xd1), raw(0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		raw(0, 0x80, 0xd1), raw(0, 0x81, 0xd1), raw(1, 0), raw(1, 0, 0xd1), raw(2, 0, 0x80), raw(2, 0x80, 0x10), raw(0xff, 0, 0, 0xd1), raw(0xff, 0xff),
		lines(0x80), lines(0x40, 1, 'a'), lines(0x10), lines(0x00, 1, 'a'), lines(0x51), lines(0x51, 0x7f), lines(0x51, 2, 'a'),
		lines(0x51, 0x81, 0xff), lines(0x51, 0x82, 0x1f, 0xff), lines(0x51, 0x84, 0xff, 0xff, 0xff, 0xff), lines(0x51, 0x81, 0x1f),
		lines(0x51, 0x80), lines(0x20, 0), lines(0x21, 'a', 0), lines(0x29, 0x1f, 0x81, 0x1f), lines(0x31, 'a', 1, 'b'), lines(0x71, 1, 'b'),
		lines(0x27, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), lines(0xff, 0x80, 0x00), lines(0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00),
		lines(bytes.Repeat([]byte{0xd1}, 300)...),
	)
}

func TestBothCodecsReadSectionsAlike(t *testing.T) {
	for _, p := range sections() {
		for _, piece := range []int{1, 1 << 20} {
			compare(t, p, piece)
		}
	}
}

// streams are unidirectional streams, in pieces and whole.
func streams() [][]byte {
	control := exampleControl()
	var all [][]byte
	for _, p := range [][]byte{
		control, {0x00}, {0x01, 0}, {0x02}, {0x03}, {0x40, 0x54, 'x'}, {0x21, 'x'}, {},
		{0x02, 0x20}, {0x02, 0x20, 0x20}, {0x02, 0x21}, {0x02, 0x3f, 0x00}, {0x02, 0x3f, 0xe1, 0x1f}, {0x02, 0xc0, 0x01, 'a'}, {0x02, 0x41, 'a', 1, 'b'}, {0x02, 0x00},
		{0x03, 0x40}, {0x03, 0x7f, 0x00}, {0x03, 0x7f, 0xff, 0x01}, {0x03, 0x80}, {0x03, 0x01}, {0x03, 0x00}, {0x03, 0xff, 0xff}, {0x03, 0x44, 0x44, 0x80},
		append([]byte{0x03, 0x7f}, bytes.Repeat([]byte{0xff}, 20)...),
	} {
		all = append(all, p, append(bytes.Clone(p), 0x80), append(bytes.Clone(p), control...))
	}
	return all
}

func TestBothCodecsReadStreamsAlike(t *testing.T) {
	for _, p := range streams() {
		for _, piece := range []int{1, 2, 1 << 20} {
			compare(t, p, piece)
		}
	}
}

func TestBothCodecsReadWhatIsBrokenAlike(t *testing.T) {
	whole := exampleRequest()
	for cut := range whole {
		compare(t, whole[:cut], 1<<20)
		for _, bit := range []byte{0x01, 0x80, 0xff} {
			p := bytes.Clone(whole)
			p[cut] ^= bit
			compare(t, p, 1<<20)
		}
	}
}

func FuzzCodecs(f *testing.F) {
	f.Add(exampleRequest(), 3)
	f.Add(exampleControl(), 2)
	for _, p := range sections() {
		f.Add(p, len(p)+1)
	}
	for _, p := range streams() {
		f.Add(p, 1)
	}
	f.Fuzz(func(t *testing.T, p []byte, piece int) {
		if piece > 0 && len(p) < limits {
			compare(t, p, piece)
		}
	})
}
