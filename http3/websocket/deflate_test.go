package websocket_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/websocket"
)

const (
	offer  = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	answer = offer
)

// compress returns a message's content as RFC 7692, Section 7.2.1, says.
func compress(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// decompress is the inverse, as strict as can be.
func decompress(t *testing.T, s string) string {
	t.Helper()
	r := flate.NewReader(strings.NewReader(s + "\x00\x00\xff\xff\x01\x00\x00\xff\xff"))
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

// deflated returns a compressed message in parts of the size.
func deflated(op byte, s string, size int) []frame {
	fs := parts(op, split(compress(s), size)...)
	fs[0].rsv = 4
	return fs
}

// sample is something that can be compressed, more or less.
func sample(size int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < size {
		fmt.Fprintf(&b, "{\"id\": %d, \"name\": \"caf\u00e9 %x\"},\n", r.IntN(1000), r.Uint32()>>(seed%32))
	}
	s := b.String()
	for b.Len() > size && s[size]&0xc0 == 0x80 {
		size--
	}
	return s[:size]
}

// Section 12: messages of many sizes, each with another content, compressed and
// in parts.
func TestCompressedMessagesAreEchoed(t *testing.T) {
	roles(t, func(l *lab, us role) {
		ext := offer
		if us == asClient {
			ext = answer
		}
		c, peer := l.connect(us, websocket.AcceptOptions{Compression: true, ReadLimit: 1 << 20}, ext)
		go func() { _ = echo(c) }() // ends with the connection
		for i, size := range []int{0, 1, 16, 64, 256, 511, 512, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10} {
			for j, piece := range []int{1 << 20, 256, 100} {
				s := sample(size, uint64(10*i+j))
				peer.send(deflated(opText, s, piece)...)
				got := peer.next()
				require.Equal(l, byte(opText), got.op)
				if size < 512 {
					require.Zero(l, got.rsv, "a short message is not worth it")
					require.Equal(l, s, got.content)
					continue
				}
				require.Equal(l, byte(4), got.rsv)
				require.Less(l, len(got.content), size+64)
				require.Equal(l, s, decompress(l.T, got.content))
			}
		}
		// One that is not compressed may come at any time.
		peer.send(text("plain"))
		require.Equal(l, text("plain"), peer.next())
	})
}

func TestWhatBreaksTheRulesOfCompression(t *testing.T) {
	s := sample(4<<10, 5)
	whole := deflated(opText, s, 1<<20)
	cut := whole[0]
	cut.content = cut.content[:len(cut.content)-7]
	control := ping("")
	control.rsv = 4
	second := deflated(opText, s, 100)
	second[1].rsv = 4
	other := whole[0]
	other.rsv = 5
	cases := []struct {
		name string
		send []frame
		code websocket.StatusCode
	}{
		{"garbage", []frame{{op: opBinary, rsv: 4, content: "\xff\xff\xff\xff"}}, websocket.StatusInvalidPayload},
		{"cut off", []frame{cut}, websocket.StatusInvalidPayload},
		{"no UTF-8", deflated(opText, "caf\xe9", 100), websocket.StatusInvalidPayload},
		{"half a character", deflated(opText, "caf\xc3", 100), websocket.StatusInvalidPayload},
		{"control frame", []frame{control}, websocket.StatusProtocolError},
		{"second part", second, websocket.StatusProtocolError},
		{"other bits too", []frame{other}, websocket.StatusProtocolError},
		{"bomb", deflated(opBinary, strings.Repeat("\x00", 10<<20), 1<<20), websocket.StatusMessageTooBig},
		{"bomb in parts", deflated(opBinary, strings.Repeat("\x00", 10<<20), 100), websocket.StatusMessageTooBig},
	}
	roles(t, func(l *lab, us role) {
		for _, tc := range cases {
			c, peer := l.connect(us, websocket.AcceptOptions{Compression: true}, answer)
			peer.send(tc.send...)
			_, _, err := c.Read(l.Context())
			var e *websocket.CloseError
			require.ErrorAs(l, err, &e, tc.name)
			require.Equal(l, tc.code, e.Code, tc.name)
			got := peer.rest()
			require.Len(l, got, 1, tc.name)
			require.Equal(l, string([]byte{byte(tc.code >> 8), byte(tc.code)}), got[0].content[:2], tc.name)
		}
	})
}

// https://www.rfc-editor.org/rfc/rfc7692#section-7.2.3
func TestTheExamplesOfRFC7692(t *testing.T) {
	roles(t, func(l *lab, us role) {
		c, peer := l.connect(us, websocket.AcceptOptions{Compression: true}, answer)
		for _, content := range []string{
			"f248cdc9c90700",                        // 7.2.3.1
			"000500faff48656c6c6f00",                // 7.2.3.3, no compression
			"f348cdc9c9070000",                      // 7.2.3.4, BFINAL
			"f24805000000ffffcac9c90700",            // 7.2.3.5, two blocks
			"f348cdc9c90700" + "00",                 // BFINAL once more: nothing is left from before
			fmt.Sprintf("%x", compress("Hello")),    // and ours
			"010500faff48656c6c6f" + "00",           // BFINAL without compression
			"0105" + "00faff" + "48656c6c6f" + "00", // the same, to show that it ends well
		} {
			peer.send(frame{op: opText, rsv: 4, content: unhex(content)})
			_, p, err := c.Read(l.Context())
			require.NoError(l, err, content)
			require.Equal(l, "Hello", string(p), content)
		}
	})
}

// Section 13, and https://www.rfc-editor.org/rfc/rfc7692#section-7.1: what is
// offered and what is agreed on.
func TestOffersOfCompression(t *testing.T) {
	const with = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	cases := []struct{ offer, answer string }{
		{"permessage-deflate", with},
		{"permessage-deflate; client_no_context_takeover", with},
		{"permessage-deflate; server_no_context_takeover", with},
		{"permessage-deflate; client_max_window_bits", with},
		{"permessage-deflate; client_max_window_bits=9", with},
		{"permessage-deflate; client_max_window_bits=15; server_no_context_takeover", with},
		{"permessage-deflate; server_max_window_bits=15", with + "; server_max_window_bits=15"},
		{"permessage-deflate; server_max_window_bits=9", ""},
		{"permessage-deflate; server_max_window_bits=9, permessage-deflate", with},
		{"x-webkit-deflate-frame, permessage-deflate", with},
		{"permessage-deflate; server_max_window_bits", ""},
		{"permessage-deflate; server_max_window_bits=16", ""},
		{"permessage-deflate; server_max_window_bits=08, permessage-bzip2", ""},
		{"permessage-deflate; client_max_window_bits=7", ""},
		{"permessage-deflate; client_no_context_takeover=1", ""},
		{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
		{"permessage-deflate; unknown", ""},
		{"permessage-bzip2", ""},
		{"permessage-deflate; =", ""},
		{"", ""},
	}
	versions(t, func(l *lab) {
		l.setOptions(&websocket.AcceptOptions{Compression: true})
		for _, tc := range cases {
			s, resp := l.rawDial("/accept", http.Header{"Sec-Websocket-Extensions": {tc.offer}})
			require.NotNil(l, s, tc.offer)
			require.Equal(l, tc.answer, strings.ReplaceAll(resp.Header.Get("Sec-Websocket-Extensions"), ";", "; "), tc.offer)
			l.closeLater((<-l.accepted).conn)
		}
		l.setOptions(nil)
		s, resp := l.rawDial("/accept", http.Header{"Sec-Websocket-Extensions": {offer}})
		require.NotNil(l, s)
		require.Empty(l, resp.Header.Get("Sec-Websocket-Extensions"), "it is off by default")
		l.closeLater((<-l.accepted).conn)
	})
}

func TestAnswersAboutCompressionThatAClientRefuses(t *testing.T) {
	versions(t, func(l *lab) {
		for _, tc := range []struct {
			answer  string
			offered bool
		}{
			{"permessage-deflate; server_no_context_takeover", false},
			{"permessage-deflate", true}, // with context takeover
			{"permessage-deflate; server_no_context_takeover; client_max_window_bits=10", true},
			{"permessage-deflate; server_no_context_takeover; unknown", true},
			{"permessage-bzip2", true},
			{answer + ", " + answer, true},
		} {
			l.mu.Lock()
			l.answer = http.Header{"Sec-Websocket-Extensions": {tc.answer}}
			l.mu.Unlock()
			_, err := l.dial("/raw", websocket.DialOptions{Compression: tc.offered})
			var e *websocket.HandshakeError
			require.ErrorAs(l, err, &e, tc.answer)
			(<-l.taken).reset()
		}
	})
}

func TestBothEndsCompressStreamsAndMessages(t *testing.T) {
	versions(t, func(l *lab) {
		server, client := l.both(&websocket.AcceptOptions{Compression: true, ReadLimit: 1 << 20}, &websocket.DialOptions{Compression: true})
		go func() { _ = echo(server) }() // ends with the connection
		client.SetReadLimit(1 << 20)
		s := sample(300<<10, 3)
		go func() {
			w, err := client.Writer(l.Context(), websocket.Text)
			if err != nil {
				return
			}
			for _, p := range split(s, 10_001) {
				_, _ = w.Write([]byte(p)) // Close says it
			}
			_ = w.Close() // the other end says it
		}()
		typ, r, err := client.Reader(l.Context())
		require.NoError(l, err)
		require.Equal(l, websocket.Text, typ)
		b, err := io.ReadAll(r)
		require.NoError(l, err)
		require.Equal(l, s, string(b))
		require.NoError(l, client.Write(l.Context(), websocket.Binary, []byte(s)))
		_, b, err = client.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, s, string(b))
	})
}
