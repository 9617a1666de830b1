package http3

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// These tests look at the codec alone, because a fuzzer needs it alone; what it
// must accept and refuse is in rules_test.go.

var requestFields = []field{
	{":method", "POST"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/a?b"},
	{"content-type", "text/plain"}, {"x-custom", "hello"},
}

func testConfig(client bool) codecConfig {
	return codecConfig{
		client:   client,
		settings: Settings{MaxFieldSection: 10_000, ExtendedConnect: true},
		takeUni:  func(t uint64) bool { return t == 0x54 },
		takeBidi: func(t uint64) bool { return t == 0x41 },
	}
}

// describe renders events; content is one text however it was cut.
func describe(ev []event) string {
	var b strings.Builder
	content := false
	for _, e := range ev {
		if e.kind == eventData {
			if !content {
				b.WriteString("data:")
			}
			content = true
			b.Write(e.data)
			continue
		}
		if content {
			b.WriteString("\n")
		}
		content = false
		fmt.Fprintf(&b, "%d %v %d %q %+v", e.kind, e.fields, e.id, e.value, e.peer)
		if e.kind == eventTaken {
			b.WriteString("\n") // what follows is not the codec's
			break
		}
		b.WriteString("\n")
	}
	return b.String()
}

// feed passes p in pieces and returns what it means, and how it ends.
func feed(p []byte, piece int, receive func(p []byte, fin bool) ([]event, error)) string {
	var all []event
	keep := func(ev []event) bool {
		for _, e := range ev {
			e.fields, e.data = slices.Clone(e.fields), bytes.Clone(e.data)
			all = append(all, e)
			if e.kind == eventTaken || e.kind == eventIgnored {
				return false
			}
		}
		return true
	}
	for chunk := range slices.Chunk(p, piece) {
		ev, err := receive(slices.Clone(chunk), false)
		if !keep(ev) {
			return describe(all)
		}
		if err != nil {
			return describe(all) + verdict(err)
		}
	}
	ev, err := receive(nil, true)
	keep(ev)
	return describe(all) + verdict(err)
}

func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		panic(fmt.Sprintf("codec returns %T", err))
	}
	return fmt.Sprint(codeName(e.Code), e.Conn)
}

// mustMake makes a codec, which has to be ended.
func (k *codecKind) mustMake(cfg codecConfig) codec {
	c, err := k.make(cfg)
	if err != nil {
		panic(err)
	}
	return c
}

// eachCodec runs f for each codec of the build.
func eachCodec(t *testing.T, f func(*testing.T, *codecKind)) {
	for _, k := range codecs {
		t.Run(k.info.Name, func(t *testing.T) { f(t, &k) })
	}
}

func feedRequest(k *codecKind, client bool, p []byte, piece int) string {
	c := k.mustMake(testConfig(client))
	defer c.end()
	s := c.request(0)
	defer s.close()
	return feed(p, piece, func(p []byte, fin bool) ([]event, error) { return s.receive(p, fin, nil) })
}

func feedUni(k *codecKind, client bool, p []byte, piece int) string {
	c := k.mustMake(testConfig(client))
	defer c.end()
	return feed(p, piece, func(p []byte, fin bool) ([]event, error) { return c.receiveUni(3, p, fin, nil) })
}

func exampleRequest() []byte {
	s := newGoCodec(testConfig(true)).request(0)
	b := appendFrame(nil, 0x21, []byte("grease"))
	b = s.appendHeaders(b, requestFields)
	for _, p := range []string{"hello ", "world"} {
		b = append(s.appendData(b, len(p)), p...)
	}
	return s.appendHeaders(b, []field{{"x-sum", "1"}})
}

func exampleControl() []byte {
	c := newGoCodec(codecConfig{client: true, settings: Settings{MaxFieldSection: 1000, Datagrams: true, Other: map[uint64]uint64{0x2b603742: 1}}})
	c.priorityUpdate(4, "u=1, i")
	c.goAway(1 << 20)
	return c.pending(ownControl, nil)
}

func TestACodecReadsWhatACodecWrites(t *testing.T) {
	want := fmt.Sprintf("0 %v 0 \"\" {MaxFieldSection:0 ExtendedConnect:false Datagrams:false Other:map[]}\n"+
		"data:hello world\n"+
		"1 [{x-sum 1}] 0 \"\" {MaxFieldSection:0 ExtendedConnect:false Datagrams:false Other:map[]}\n"+
		"3 [] 0 \"\" {MaxFieldSection:0 ExtendedConnect:false Datagrams:false Other:map[]}\nok", requestFields)
	eachCodec(t, func(t *testing.T, k *codecKind) {
		for _, piece := range []int{1, 2, 3, 7, 1000} {
			require.Equal(t, want, feedRequest(k, false, exampleRequest(), piece))
		}
	})
}

func TestAControlStreamMayComeInPieces(t *testing.T) {
	want := "4 [] 0 \"\" {MaxFieldSection:1000 ExtendedConnect:false Datagrams:true Other:map[727725890:1]}\n" +
		"6 [] 4 \"u=1, i\" {MaxFieldSection:0 ExtendedConnect:false Datagrams:false Other:map[]}\n" +
		"5 [] 1048576 \"\" {MaxFieldSection:0 ExtendedConnect:false Datagrams:false Other:map[]}\n" +
		"H3_CLOSED_CRITICAL_STREAMtrue"
	eachCodec(t, func(t *testing.T, k *codecKind) {
		for _, piece := range []int{1, 2, 3, 7, 1000} {
			require.Equal(t, want, feedUni(k, false, exampleControl(), piece))
		}
	})
}

func TestAStreamOfTheServerThatIsCancelledIsNoError(t *testing.T) {
	eachCodec(t, func(t *testing.T, k *codecKind) {
		c := k.mustMake(testConfig(false))
		defer c.end()
		ev, err := c.receiveUni(2, nil, true, nil)
		require.NoError(t, err)
		require.Empty(t, ev)
	})
}

func TestIntegersHaveFourLengths(t *testing.T) {
	for _, v := range []uint64{0, 63, 64, 1<<14 - 1, 1 << 14, 1<<30 - 1, 1 << 30, maxVarint} {
		b := appendVarint(nil, v)
		got, n := parseVarint(b)
		require.Equal(t, v, got)
		require.Equal(t, len(b), n)
		_, n = parseVarint(b[:len(b)-1])
		require.Zero(t, n)
	}
	require.Panics(t, func() { appendVarint(nil, maxVarint+1) })
}

func TestAPriorityIsParsedOrDefault(t *testing.T) {
	for value, want := range map[string]transport.Priority{
		"":                {Urgency: 3},
		"u=0":             {Urgency: 0},
		"u=7, i":          {Urgency: 7, Incremental: true},
		"i, u=1":          {Urgency: 1, Incremental: true},
		"i=?1":            {Urgency: 3, Incremental: true},
		"i=?0,u=2":        {Urgency: 2},
		"u=8":             {Urgency: 3},
		"u=-1":            {Urgency: 3},
		"u=1;x=2, i;y, z": {Urgency: 1, Incremental: true},
		"u=1, u=2":        {Urgency: 2},
		"u, i=5":          {Urgency: 3},
		"\x00,,,=":        {Urgency: 3},
	} {
		require.Equal(t, want, parsePriority(value), value)
	}
	for _, p := range []transport.Priority{{Urgency: 0}, {Urgency: 7, Incremental: true}, {Urgency: 3}} {
		require.Equal(t, p, parsePriority(formatPriority(p)))
	}
}

func FuzzRequestStream(f *testing.F) {
	f.Add(exampleRequest(), 3, false)
	f.Add(exampleRequest(), 1, true)
	f.Add([]byte{0x40, 0x41, 'x'}, 1, false)
	f.Add([]byte{0x01, 0x03, 0x00, 0x00, 0xd1}, 2, false)
	f.Fuzz(func(t *testing.T, p []byte, piece int, client bool) {
		if piece < 1 {
			return
		}
		for _, k := range codecs {
			whole, parts := feedRequest(&k, client, p, max(len(p), 1)), feedRequest(&k, client, p, piece)
			require.Equal(t, whole, parts, "it does not matter how the bytes are cut")
		}
	})
}

func FuzzUniStream(f *testing.F) {
	f.Add(exampleControl(), 3, false)
	f.Add([]byte{0x02, 0x20}, 1, false)
	f.Add([]byte{0x03, 0x7f, 0x80, 0x01}, 1, true)
	f.Add([]byte{0x40, 0x54, 'x'}, 1, true)
	f.Fuzz(func(t *testing.T, p []byte, piece int, client bool) {
		if piece < 1 {
			return
		}
		for _, k := range codecs {
			whole, parts := feedUni(&k, client, p, max(len(p), 1)), feedUni(&k, client, p, piece)
			require.Equal(t, whole, parts, "it does not matter how the bytes are cut")
		}
	})
}

func FuzzFieldSection(f *testing.F) {
	encoded := appendFields(nil, requestFields)
	f.Add(encoded[2:])
	f.Add([]byte{0, 0, 0xd1, 0xd7, 0x50, 0x01, 'a', 0xc1})
	f.Fuzz(func(t *testing.T, p []byte) {
		const limit = 10_000
		fields, err := decodeFields(nil, p, limit)
		var size uint64
		for _, x := range fields {
			size += fieldSize(x)
		}
		require.LessOrEqual(t, size, uint64(limit))
		if err != nil {
			return
		}
		again, err := decodeFields(nil, framePayloadOf(t, appendFields(nil, fields)), limit)
		require.NoError(t, err)
		require.Equal(t, fields, again)
		for _, extended := range []bool{false, true} {
			if h, err := parseRequest(fields, extended); err == nil {
				require.NotEmpty(t, h.method)
				require.NotEmpty(t, h.authority)
				_, _, _ = h.url()
			} else {
				require.Equal(t, "H3_MESSAGE_ERRORfalse", verdict(err))
			}
		}
		if h, err := parseResponse(fields); err == nil {
			require.GreaterOrEqual(t, h.status, 100)
		}
		if h, err := parseTrailers(fields); err == nil {
			sent := appendHeader(nil, h, nil)
			_, err := parseTrailers(sent)
			require.NoError(t, err, "what was accepted can be sent")
		}
	})
}

func framePayloadOf(t *testing.T, b []byte) []byte {
	_, n := parseVarint(b)
	l, m := parseVarint(b[n:])
	require.EqualValues(t, l, len(b)-n-m)
	return b[n+m:]
}

func FuzzSettings(f *testing.F) {
	s := Settings{MaxFieldSection: 1000, ExtendedConnect: true, Datagrams: true, Other: map[uint64]uint64{0x1234: 1}}
	f.Add(s.append(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		s, err := parseSettings(p)
		if err != nil {
			return
		}
		again, err := parseSettings(s.append(nil))
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func FuzzPriority(f *testing.F) {
	f.Add("u=1, i")
	f.Fuzz(func(t *testing.T, s string) {
		p := parsePriority(s)
		require.LessOrEqual(t, p.Urgency, uint8(7))
		require.Equal(t, p, parsePriority(formatPriority(p)))
	})
}
