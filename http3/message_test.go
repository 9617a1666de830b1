package http3

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

// What a client sends as one byte must not cost a copy of all that came before.
func TestCookiesInThousandsOfPiecesAreJoinedOnce(t *testing.T) {
	fields := []field{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/"}}
	var want []string
	for range 27000 { // what fits into http.DefaultMaxHeaderBytes
		fields = append(fields, field{"cookie", "a"})
		want = append(want, "a")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h, err := parseRequest(fields, true)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Equal(t, []string{strings.Join(want, "; ")}, h.header["Cookie"])
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
}

func TestContentLengthInThousandsOfPiecesTakesNoStack(t *testing.T) {
	result := make(chan [2]int64)
	go func() { // ends with the test: its stack is new
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, ok := parseContentLength(strings.Repeat("7,", 500_000) + "7")
		runtime.ReadMemStats(&after)
		if !ok {
			n = -1
		}
		result <- [2]int64{n, int64(after.StackInuse) - int64(before.StackInuse)}
	}()
	got := <-result
	require.EqualValues(t, 7, got[0])
	require.Less(t, got[1], int64(4<<20))
}

func TestContentLengthIsOneNumber(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "7": 7, "7,7": 7, " 7 , 7 ": 7, "9223372036854775807": 1<<63 - 1} {
		n, ok := parseContentLength(s)
		require.True(t, ok, s)
		require.Equal(t, want, n)
	}
	for _, s := range []string{"", ",", "7,", ",7", "7,8", "7,7,8", "+7", "-7", "7,+7", "0x7", "7 7", "1_0", "9223372036854775808"} {
		_, ok := parseContentLength(s)
		require.False(t, ok, s)
	}
}

// An untouchedBody fails the test when it is used.
type untouchedBody struct{ t *testing.T }

func (b untouchedBody) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}

func (b untouchedBody) Close() error {
	b.t.Error("the body was closed")
	return nil
}

// The goroutine that sends a body may start late: after the attempt has failed, and
// while another one sends the same body.
func TestABodyThatWasGivenBackIsLeftAlone(t *testing.T) {
	x := &exchange{req: &http.Request{Method: http.MethodPost, Body: untouchedBody{t}}}
	x.bodyRead.Store(true) // as run does
	x.sendBody()
	require.False(t, x.bodySent.Load())
}

// A readStream has something to read.
type readStream struct {
	transport.Stream
	r io.Reader
}

func (s *readStream) Read(p []byte) (int, error) { return s.r.Read(p) }

func TestAStreamDoesNotKeepRoomForThousandsOfTinyFrames(t *testing.T) {
	b := bytes.Repeat([]byte{frameData, 1, 'x'}, 10_000)
	codec := newGoCodec(codecConfig{})
	codec.pending(ownControl, nil) // nothing more is to be written
	s := &Stream{
		conn: &Conn{codec: codec}, qs: &readStream{r: bytes.NewReader(b)},
		codec: codec.request(0), counter: contentCounter{declared: -1},
	}
	s.codec.(*bidiStream).state = inContent
	p := make([]byte, 2*len(b))
	n, err := s.Read(p)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 10_000), string(p[:n]))
	require.Greater(t, cap(s.events), maxIdleEvents)
	_, err = s.Read(p)
	require.ErrorIs(t, err, io.EOF)
	require.LessOrEqual(t, cap(s.events), maxIdleEvents)
}
