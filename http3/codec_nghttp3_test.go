//go:build ngtcp2 && cgo

package http3

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/nghttp3"
)

// AwaitNoCodec waits until what other tests had of libnghttp3 is freed: the end of a
// connection does so, but Server.Close does not wait for that.
func AwaitNoCodec(t testing.TB) {
	require.Eventually(t, func() bool { return nghttp3.Memory() == 0 }, time.Minute, time.Millisecond)
}

func newTablePair(t testing.TB) *pair {
	p := newPair(t, nghttp3Kind)
	t.Cleanup(p.end)
	return p
}

// get sends a request head from the client to the server and returns it as encoded.
func (p *pair) get(t testing.TB, id int, fields []field) []byte {
	from, to := p.client.request(streamID(id)), p.server.request(streamID(id))
	wire := from.appendHeaders(nil, fields)
	ev, err := to.receive(wire, true, nil)
	require.NoError(t, err)
	require.Equal(t, fields, ev[0].fields)
	from.close()
	to.close()
	return wire
}

func TestTheTableIsAnnounced(t *testing.T) {
	c := nghttp3Kind.mustMake(testConfig(false))
	defer c.end()
	p := c.pending(ownControl, nil)
	payload := framePayloadOf(t, p[1:])
	require.EqualValues(t, 4096, tableCapacity(payload))
	s, err := parseSettings(payload)
	require.NoError(t, err)
	require.Equal(t, Settings{MaxFieldSection: 10_000, ExtendedConnect: true}, s)
	require.NotContains(t, settingIDs(payload), uint64(settingBlockedStreams))
	require.Empty(t, c.pending(ownEncoder, nil), "a stream that is not needed is not opened")
	require.Empty(t, c.pending(ownDecoder, nil))
}

func settingIDs(p []byte) (ids []uint64) {
	for len(p) > 0 {
		id, n := parseVarint(p)
		_, m := parseVarint(p[n:])
		ids = append(ids, id)
		p = p[n+m:]
	}
	return ids
}

func TestHeadsGetShort(t *testing.T) {
	p := newTablePair(t)
	first := p.get(t, 0, benchRequest)
	require.Len(t, p.get(t, 4, benchRequest), len(first), "nothing refers to what is not acknowledged")
	p.flush(t)
	p.flush(t)
	second := p.get(t, 8, benchRequest)
	require.Less(t, len(second), len(first)/4)
}

func TestWithAPeerWithoutATableNothingIsSaid(t *testing.T) {
	p := &pair{client: goKind.mustMake(testConfig(true)), server: nghttp3Kind.mustMake(testConfig(false))}
	defer p.end()
	p.flush(t)
	for i := range 3 {
		p.get(t, 4*i, benchRequest)
		s, c := p.server.request(streamID(4*i)), p.client.request(streamID(4*i))
		_, err := c.receive(s.appendHeaders(nil, benchResponse), true, nil)
		require.NoError(t, err)
		s.close()
	}
	require.False(t, p.server.isPending())
	require.Empty(t, p.server.pending(ownEncoder, nil))
	require.Empty(t, p.server.pending(ownDecoder, nil))
}

func TestWhatCouldNotBeWrittenComesFirst(t *testing.T) {
	p := newTablePair(t)
	p.get(t, 0, benchRequest)
	all := p.client.pending(ownEncoder, nil)
	require.EqualValues(t, streamEncoder, all[0], "the type of the stream comes first, and once")
	p.client.pending(ownControl, nil)
	require.False(t, p.client.isPending())
	p.client.unsent(ownEncoder, all[5:])
	require.True(t, p.client.isPending())
	p.get(t, 4, []field{{"user-agent", "another"}})
	rest := p.client.pending(ownEncoder, nil)
	require.True(t, bytes.HasPrefix(rest, all[5:]))
	require.Greater(t, len(rest), len(all)-5)
	_, err := p.server.receiveUni(2, append(all[:5:5], rest...), false, nil)
	require.NoError(t, err)
}

// https://www.rfc-editor.org/rfc/rfc9204#section-2.2.2.2
func TestAStreamThatIsGivenUpIsCancelled(t *testing.T) {
	p := newTablePair(t)
	abandon := func(id int) []byte {
		s := p.server.request(streamID(id))
		_, err := s.receive(p.client.request(streamID(id)).appendHeaders(nil, benchRequest), false, nil)
		require.NoError(t, err)
		s.close()
		return p.server.pending(ownDecoder, nil)
	}
	require.Empty(t, abandon(0), "the peer has no entry that it could refer to")
	p.flush(t)
	p.flush(t)
	require.Equal(t, []byte{0x80 | 4, 0x40 | 4}, abandon(4), "acknowledged, and then cancelled")
	p.get(t, 8, benchRequest)
	require.Equal(t, []byte{0x80 | 8}, p.server.pending(ownDecoder, nil), "one that was read to its end is not")

	s := p.server.request(12)
	_, err := s.receive(p.client.request(12).appendHeaders(nil, append([]field{{"user-agent", benchRequest[4].value}}, field{"x", strings.Repeat("z", 10_000)})), false, nil)
	require.ErrorIs(t, err.(*Error).Err, errFieldsTooLarge)
	require.Equal(t, []byte{0x40 | 12}, p.server.pending(ownDecoder, nil), "nor is one whose section is too large acknowledged")
}

func TestLongLiteralsAreRead(t *testing.T) {
	cfg := testConfig(false)
	cfg.settings.MaxFieldSection = 1 << 20
	server := nghttp3Kind.mustMake(cfg)
	defer server.end()
	client := nghttp3Kind.mustMake(testConfig(true))
	defer client.end()
	p := &pair{client: client, server: server}
	p.flush(t)
	long := [][]field{
		{{strings.Repeat("~", nghttp3.MaxName+1), "v"}},
		{{"x", strings.Repeat("\xff", nghttp3.MaxValue+1)}},
	}
	for i, fields := range long {
		p.get(t, 4*i, fields)
	}
	p.get(t, 100, benchRequest)
	p.flush(t)
	p.flush(t)
	for i, fields := range long {
		s := server.request(streamID(200 + 4*i))
		wire := client.request(streamID(200+4*i)).appendHeaders(nil, append([]field{{"user-agent", benchRequest[4].value}}, fields...))
		_, err := s.receive(wire, true, nil)
		// https://www.rfc-editor.org/rfc/rfc9204#section-7.4
		require.Equal(t, "QPACK_DECOMPRESSION_FAILEDfalse", verdict(err))
		p.flush(t)
	}
	p.get(t, 300, benchRequest)
}

func TestAnEncoderStreamThatIsNotTakenStaysShort(t *testing.T) {
	p := newTablePair(t)
	for i := range 1000 {
		p.get(t, 4*i, []field{{"user-agent", fmt.Sprint(i, strings.Repeat("x", 200))}})
	}
	backlog := p.client.pending(ownEncoder, nil)
	require.Less(t, len(backlog), maxEncoderBacklog+1000)
	p.client.unsent(ownEncoder, backlog)
	p.flush(t)
	p.get(t, 1<<20, benchRequest)
}

func TestAPeerThatLeavesTheDecoderStreamUnreadEndsTheConnection(t *testing.T) {
	p := newTablePair(t)
	p.get(t, 0, benchRequest)
	p.flush(t)
	p.flush(t)
	unread := 0
	for i := 1; i < maxDecoderBacklog; i++ {
		s := p.server.request(streamID(4 * i))
		_, err := s.receive(p.client.request(streamID(4*i)).appendHeaders(nil, benchRequest), true, nil)
		if err != nil {
			require.Equal(t, "H3_EXCESSIVE_LOADtrue", verdict(err))
			return
		}
		// The client is told, so that it goes on to use its table, but takes nothing.
		all := p.server.pending(ownDecoder, nil)
		_, err = p.client.receiveUni(streamID(int(ownDecoder)), all[unread:], false, nil)
		require.NoError(t, err)
		p.server.unsent(ownDecoder, all)
		unread = len(all)
	}
	require.Fail(t, "it never ends")
}

// The decoder stream may come before the settings, which say that there is an encoder.
func TestAnInstructionMayBeginBeforeTheSettings(t *testing.T) {
	for _, before := range []string{"", "\x44", "\x7f", "\x7f\xff", "\x44\x7f\xff"} {
		c := nghttp3Kind.mustMake(testConfig(false))
		rest := "\x44"
		if strings.ContainsAny(before, "\x7f") {
			rest = "\x01\x44"
		}
		_, err := c.receiveUni(3, []byte("\x03"+before), false, nil)
		require.NoError(t, err)
		control := nghttp3Kind.mustMake(testConfig(true))
		_, err = c.receiveUni(2, control.pending(ownControl, nil), false, nil)
		require.NoError(t, err)
		_, err = c.receiveUni(3, []byte(rest), false, nil)
		require.NoError(t, err)
		_, err = c.receiveUni(3, []byte{0x80}, false, nil)
		require.Equal(t, "QPACK_DECODER_STREAM_ERRORtrue", verdict(err))
		control.end()
		c.end()
	}
}

func TestAfterTheEndThereIsNoTable(t *testing.T) {
	AwaitNoCodec(t)
	p := newPair(t, nghttp3Kind)
	p.get(t, 0, benchRequest)
	p.flush(t)
	p.flush(t)
	dynamic := p.client.request(4).appendHeaders(nil, benchRequest)
	p.end()
	p.end()
	require.Zero(t, nghttp3.Memory())
	p.get(t, 8, benchRequest)
	s := p.server.request(4)
	_, err := s.receive(dynamic, false, nil)
	require.Equal(t, "QPACK_DECOMPRESSION_FAILEDtrue", verdict(err))
	s.close()
	_, err = p.server.receiveUni(ownEncoderID, []byte{0x20}, false, nil)
	require.Equal(t, "H3_INTERNAL_ERRORtrue", verdict(err))
	require.Empty(t, p.server.pending(ownDecoder, nil))
}

const ownEncoderID = 1 // as pair.flush numbers streams

func TestACodecIsUsedByMany(t *testing.T) {
	p := newTablePair(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				p.get(t, 4*(8*j+i), append(benchRequest, field{"server", fmt.Sprint(j / 10)}))
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			p.flush(t)
		}
	})
	wg.Wait()
	p.flush(t)

	ended := newPair(t, nghttp3Kind)
	wg.Go(func() {
		for i := range 300 {
			ended.get(t, 4*i, benchRequest)
		}
	})
	wg.Go(ended.end)
	wg.Wait()
}
