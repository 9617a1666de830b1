//go:build ngtcp2 && cgo

package nghttp3

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/stretchr/testify/require"
)

type field struct{ name, value string }

func (f field) size() int { return len(f.name) + len(f.value) + 32 }

var request = []field{
	{":method", "GET"}, {":scheme", "https"}, {":authority", "www.example.com"}, {":path", "/a?b"},
	{"user-agent", "a browser"}, {"accept", "text/html"}, {"x-custom", "hello"}, {"authorization", "secret"},
	{"proxy-authorization", "secret"},
}

func newCoder(t testing.TB, table uint32) *Coder {
	c, err := New(table)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func encode(t testing.TB, c *Coder, stream int64, fields []field) (section, encoderStream []byte) {
	for _, f := range fields {
		c.Add(f.name, f.value)
	}
	prefix, rest, err := c.Encode(stream)
	require.NoError(t, err)
	return append(bytes.Clone(prefix), rest...), bytes.Clone(c.EncoderStream())
}

func fields(c *Coder) (all []field) {
	for name, value := range c.Fields() {
		all = append(all, field{name, value})
	}
	return all
}

// exchange encodes fields on one side, decodes them on the other, and carries what
// both say on the other streams.
func exchange(t testing.TB, from, to *Coder, stream int64, list []field) []byte {
	section, instructions := encode(t, from, stream, list)
	require.NoError(t, to.Decode(stream, section, 1<<20), "no section has to wait for the encoder stream")
	require.Equal(t, list, fields(to))
	require.Equal(t, len(list), to.Len())
	require.NoError(t, from.ReadDecoder(bytes.Clone(to.DecoderStream())))
	require.NoError(t, to.ReadEncoder(instructions))
	require.NoError(t, from.ReadDecoder(bytes.Clone(to.DecoderStream())))
	return section
}

func TestWhatWasSentBeforeIsSentAsAReference(t *testing.T) {
	a, b := newCoder(t, 4096), newCoder(t, 4096)
	require.NoError(t, a.SetPeer(4096))
	first := exchange(t, a, b, 0, request)
	second := exchange(t, a, b, 4, request)
	require.Less(t, len(second), len(first)*2/3)
	require.Zero(t, first[0], "the first section refers to nothing")
	require.NotZero(t, second[0], "the second does")
	require.Positive(t, b.Inserts())
	// https://www.rfc-editor.org/rfc/rfc9204#section-7.1.3
	for _, f := range []field{{"authorization", "secret"}, {"proxy-authorization", "secret"}} {
		section, instructions := encode(t, a, 8, []field{f})
		require.Equal(t, []byte{0, 0}, section[:2], "where nothing is referred to, Base is 0")
		require.Empty(t, instructions)
		never := section[2]&0xe0 == 0x60 || section[2]&0xf0 == 0x30 // the N bit of both literals
		require.True(t, never, f.name)
	}
}

// The table is not larger than what both sides want, but how insert counts are
// written follows from what the peer announced (RFC 9204, Section 4.5.1.1).
func TestInsertCountsWrapAsThePeerExpects(t *testing.T) {
	for _, table := range []uint32{64, 100, 4096, 5000, 65536} {
		t.Run(fmt.Sprint(table), func(t *testing.T) {
			a, b := newCoder(t, 0), newCoder(t, table)
			require.NoError(t, a.SetPeer(uint64(table)))
			for i := range int64(1000) {
				exchange(t, a, b, 4*i, []field{{"server", fmt.Sprint(i / 3)}, {"user-agent", fmt.Sprint(i / 5)}})
			}
		})
	}
}

func TestWithoutATableThereIsNoEncoder(t *testing.T) {
	c := newCoder(t, 0)
	for _, table := range []uint64{0, 1, 63} {
		require.NoError(t, c.SetPeer(table))
		c.Add("a", "b")
		_, _, err := c.Encode(0)
		require.ErrorIs(t, err, ErrNoEncoder)
		require.NoError(t, c.ReadDecoder([]byte{0x80}), "there is nobody to judge it")
	}
	require.NoError(t, c.SetPeer(1<<62-1))
	encode(t, c, 0, request)
}

func TestTheStaticTableIsThatOfTheStandard(t *testing.T) {
	c := newCoder(t, 0)
	d := qpack.NewDecoder()
	for i := range 99 {
		p := []byte{0, 0, 0xc0 | byte(i)}
		if i >= 63 {
			p = []byte{0, 0, 0xff, byte(i - 63)}
		}
		want, err := d.Decode(p)()
		require.NoError(t, err)
		for range 2 { // made, and then remembered
			require.NoError(t, c.Decode(0, p, 1000))
			require.Equal(t, []field{{want.Name, want.Value}}, fields(c))
		}
	}
}

func TestASectionEndsAtItsLimit(t *testing.T) {
	before := Memory()
	a, b := newCoder(t, 4096), newCoder(t, 4096)
	require.NoError(t, a.SetPeer(4096))
	size := 0
	for _, f := range request {
		size += f.size()
	}
	for _, dynamic := range []bool{false, true} {
		section, instructions := encode(t, a, 0, request)
		require.NoError(t, b.ReadEncoder(instructions))
		require.NoError(t, a.ReadDecoder(bytes.Clone(b.DecoderStream())))
		require.NoError(t, b.Decode(0, section, uint64(size)))
		require.ErrorIs(t, b.Decode(0, section, uint64(size-1)), ErrLimit)
		if dynamic {
			require.Equal(t, []byte{0x40}, b.DecoderStream(), "the peer must not wait for an acknowledgement")
		} else {
			require.Empty(t, b.DecoderStream())
		}
		require.ErrorIs(t, b.Decode(0, section, 0), ErrLimit)
		require.NoError(t, b.Decode(0, section, uint64(size)), "the coder goes on")
		exchange(t, a, b, 4, request)
	}
	// A small section that is large: 5000 fields.
	bomb := append([]byte{0, 0}, bytes.Repeat([]byte{0xd1}, 5000)...)
	require.ErrorIs(t, b.Decode(0, bomb, 10_000), ErrLimit)
	require.Less(t, Memory()-before, int64(200_000))
}

func TestWhatIsMalformedIsSaid(t *testing.T) {
	for name, section := range map[string][]byte{
		"empty":                     {},
		"half a prefix":             {0},
		"not inserted":              {2, 0, 0x80},
		"base below zero":           {0, 0x80, 0xd1},
		"no such static entry":      {0, 0, 0xff, 0x24},
		"dynamic without a count":   {0, 0, 0x80},
		"post-base without a count": {0, 0, 0x10},
		"cut":                       {0, 0, 0x51, 5, 'a'},
		"Huffman":                   {0, 0, 0x51, 0x84, 0xff, 0xff, 0xff, 0xff},
		"name too long":             append([]byte{0, 0, 0x27, 0xff, 1}, make([]byte, 300)...),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCoder(t, 4096)
			require.ErrorIs(t, c.Decode(0, section, 1000), ErrMalformed)
			require.Empty(t, fields(c))
		})
	}
	c := newCoder(t, 4096)
	require.ErrorIs(t, c.ReadEncoder([]byte{0x3f, 0xe2, 0x1f}), ErrMalformed, "4097")
	c = newCoder(t, 4096)
	require.NoError(t, c.SetPeer(4096))
	require.ErrorIs(t, c.ReadDecoder([]byte{0x80}), ErrMalformed)
}

func TestAPeerThatAcknowledgesNothingCostsABoundedAmount(t *testing.T) {
	a, b := newCoder(t, 4096), newCoder(t, 4096)
	require.NoError(t, a.SetPeer(4096))
	exchange(t, a, b, 0, request)
	before := Memory()
	var err error
	for i := int64(1); err == nil; i++ {
		require.Less(t, i, int64(10_000))
		a.Add("x-custom", "hello")
		a.Add("user-agent", "a browser")
		_, _, err = a.Encode(4 * i)
	}
	require.ErrorIs(t, err, ErrNoEncoder)
	require.Less(t, Memory()-before, int64(160<<10))
	// The acknowledgement of one makes room again.
	require.NoError(t, a.ReadDecoder([]byte{0x80 | 4, 0x80 | 8, 0x80 | 12, 0x80 | 16, 0x40 | 20, 0x40 | 24}))
	encode(t, a, 1<<20, request)
}

func TestLargeSectionsLeaveNothing(t *testing.T) {
	a, b := newCoder(t, 4096), newCoder(t, 4096)
	require.NoError(t, a.SetPeer(4096))
	exchange(t, a, b, 0, request)
	before := Memory()
	large := []field{{"a", strings.Repeat("x", 60_000)}, {"b", strings.Repeat("y", 60_000)}}
	for range 3 {
		exchange(t, a, b, 4, large)
		a.Trim()
		b.Trim()
		a.Trim()
		require.LessOrEqual(t, Memory(), before)
	}
	exchange(t, a, b, 8, request)
}

func TestAClosedCoderSaysSo(t *testing.T) {
	before := Memory()
	c := newCoder(t, 4096)
	require.NoError(t, c.SetPeer(4096))
	encode(t, c, 0, request)
	require.Greater(t, Memory(), before)
	c.Close()
	c.Close()
	require.Equal(t, before, Memory())
	c.Add("a", "b")
	_, _, err := c.Encode(0)
	require.ErrorIs(t, err, net.ErrClosed)
	for _, err := range []error{c.SetPeer(1), c.Decode(0, nil, 0), c.Cancel(0), c.ReadEncoder(nil), c.ReadDecoder(nil)} {
		require.ErrorIs(t, err, ErrClosed)
	}
	c.Trim()
	require.Empty(t, c.EncoderStream())
	require.Empty(t, c.DecoderStream())
	require.Empty(t, fields(c))
	require.Zero(t, c.Len()+int(c.Inserts()))
}

// Every allocation of an exchange fails once.
func TestWithoutMemoryACallFails(t *testing.T) {
	before := Memory()
	defer failAllocation(-1)
	failed := 0
	for n := range int64(1000) {
		failAllocation(n)
		err := try()
		failAllocation(-1)
		require.Equal(t, before, Memory(), "allocation %d", n)
		if err == nil {
			require.Greater(t, failed, 20)
			return
		}
		require.NotErrorIs(t, err, ErrMalformed)
		failed++
	}
	require.Fail(t, "it never succeeds")
}

func try() error {
	a, err := New(4096)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := New(4096)
	if err != nil {
		return err
	}
	defer b.Close()
	if err := a.SetPeer(4096); err != nil {
		return err
	}
	list := append(request, field{"a", strings.Repeat("x", 2_000)})
	for i := range int64(30) {
		for _, f := range list {
			a.Add(f.name, f.value)
		}
		a.Add("server", fmt.Sprint(i))
		prefix, section, err := a.Encode(4 * i)
		if err != nil {
			return err
		}
		section = append(bytes.Clone(prefix), section...)
		if err := b.ReadEncoder(bytes.Clone(a.EncoderStream())); err != nil {
			return err
		}
		if err := a.ReadDecoder(bytes.Clone(b.DecoderStream())); err != nil {
			return err
		}
		if err := b.Decode(4*i, section, 1<<20); err != nil {
			return err
		}
		if b.Len() != len(list)+1 {
			return io.ErrUnexpectedEOF
		}
		if err := a.ReadDecoder(bytes.Clone(b.DecoderStream())); err != nil {
			return err
		}
	}
	return b.Cancel(4)
}

func BenchmarkCoder(b *testing.B) {
	from, to := newCoder(b, 4096), newCoder(b, 4096)
	require.NoError(b, from.SetPeer(4096))
	for i := range int64(3) {
		exchange(b, from, to, 4*i, request)
	}
	b.ReportAllocs()
	var section []byte
	for i := int64(3); b.Loop(); i++ {
		for _, f := range request {
			from.Add(f.name, f.value)
		}
		prefix, rest, err := from.Encode(4 * i)
		if err != nil {
			b.Fatal(err)
		}
		section = append(append(section[:0], prefix...), rest...)
		if err := to.Decode(4*i, section, 1<<20); err != nil {
			b.Fatal(err)
		}
		n := 0
		for range to.Fields() {
			n++
		}
		if err := from.ReadDecoder(to.DecoderStream()); err != nil || n != len(request) {
			b.Fatal(err, n)
		}
	}
}

func TestACoderThatNobodyHasAnyMoreIsFreed(t *testing.T) {
	settle := func() int64 { runtime.GC(); return Memory() }
	before := settle()
	var coders []*Coder
	for range 10 {
		c, err := New(4096)
		require.NoError(t, err)
		require.NoError(t, c.Decode(0, []byte{0, 0, 0xd1}, 100))
		coders = append(coders, c)
	}
	require.Greater(t, Memory(), before)
	runtime.KeepAlive(coders) // until here, whenever the garbage is collected
	require.Eventually(t, func() bool { return settle() <= before }, time.Minute, time.Millisecond)
}
