package http3_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// A rule is what one side may not do, or may do although it looks odd, and what
// it gets.
type rule struct {
	name    string
	control []byte              // after the type of the control stream; nil: SETTINGS
	end     bool                // the control stream ends
	uni     []byte              // another unidirectional stream
	uni2    []byte              // and another one
	message []byte              // the request or response; nil: a good one
	open    bool                // its stream does not end
	code    transport.ErrorCode // 0: everything is fine
	conn    bool                // the connection ends, not just the request
	status  int                 // of the response, if not 200
	only    string              // the codec, if it holds for one
}

var settings = frame(0x4)

// controlRules hold for what both sides send on unidirectional streams.
var controlRules = []rule{
	{name: "SETTINGS may be empty"},
	{name: "unknown settings are ignored", control: frame(0x4, varints(0x21, 7, 0x40, 1<<40))},
	{name: "the first frame is SETTINGS", control: frame(0x7, varints(0)), code: http3.ErrMissingSettings, conn: true},
	{name: "an unknown first frame is not SETTINGS", control: frame(0x21), code: http3.ErrMissingSettings, conn: true},
	{name: "SETTINGS come once", control: cat(settings, settings), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a setting comes once", control: frame(0x4, varints(0x6, 1000, 0x6, 1000)), code: http3.ErrSettings, conn: true},
	{name: "setting 0x2 is reserved", control: frame(0x4, varints(0x2, 0)), code: http3.ErrSettings, conn: true},
	{name: "setting 0x3 is reserved", control: frame(0x4, varints(0x3, 0)), code: http3.ErrSettings, conn: true},
	{name: "setting 0x4 is reserved", control: frame(0x4, varints(0x4, 0)), code: http3.ErrSettings, conn: true},
	{name: "setting 0x5 is reserved", control: frame(0x4, varints(0x5, 0)), code: http3.ErrSettings, conn: true},
	{name: "ENABLE_CONNECT_PROTOCOL is 0 or 1", control: frame(0x4, varints(0x8, 2)), code: http3.ErrSettings, conn: true},
	{name: "H3_DATAGRAM is 0 or 1", control: frame(0x4, varints(0x33, 2)), code: http3.ErrSettings, conn: true},
	{name: "SETTINGS end after a setting", control: frame(0x4, varints(0x6)), code: http3.ErrFrame, conn: true},
	{name: "SETTINGS end after an integer", control: frame(0x4, []byte{0x6, 0xc0}), code: http3.ErrFrame, conn: true},
	{name: "SETTINGS have a reasonable size", control: frame(0x4, make([]byte, 20_000)), code: http3.ErrExcessiveLoad, conn: true},
	{name: "DATA is not for the control stream", control: cat(settings, data("x")), code: http3.ErrFrameUnexpected, conn: true},
	{name: "HEADERS are not for the control stream", control: cat(settings, get()), code: http3.ErrFrameUnexpected, conn: true},
	{name: "PUSH_PROMISE is not for the control stream", control: cat(settings, frame(0x5, varints(0), section())), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x2 is reserved on the control stream", control: cat(settings, frame(0x2)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x6 is reserved on the control stream", control: cat(settings, frame(0x6)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x8 is reserved on the control stream", control: cat(settings, frame(0x8)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x9 is reserved on the control stream", control: cat(settings, frame(0x9)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "unknown frames are ignored on the control stream", control: cat(settings, frame(0x21, make([]byte, 30_000)), frame(0x40, []byte("x")))},
	{name: "the control stream stays open", control: settings, end: true, code: http3.ErrClosedCriticalStream, conn: true},
	{name: "there is one control stream", uni: varints(0), uni2: varints(0), code: http3.ErrStreamCreation, conn: true},
	{name: "there is one encoder stream", uni: varints(2), uni2: varints(2), code: http3.ErrStreamCreation, conn: true},
	{name: "there is one decoder stream", uni: varints(3), uni2: varints(3), code: http3.ErrStreamCreation, conn: true},
	{name: "encoder and decoder stream may be there", uni: varints(2), uni2: varints(3)},
	{name: "streams of unknown types are ignored", uni: cat(varints(0x21), []byte("anything")), uni2: cat(varints(0x4000), make([]byte, 10_000))},
	{name: "the dynamic table may be given no room", uni: cat(varints(2), []byte{0x20})},
	{name: "the dynamic table has no room", only: "go", uni: cat(varints(2), []byte{0x3f, 0x01}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "the dynamic table may have less room than announced", only: "nghttp3", uni: cat(varints(2), []byte{0x3f, 0x01})},
	{name: "the dynamic table has no more room than announced", uni: cat(varints(2), []byte{0x3f, 0xe2, 0x1f}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "the dynamic table has no room for a larger entry", uni: cat(varints(2), []byte{0x3f, 0x01, 0x41, 'a', 0x01, 'b'}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "the dynamic table takes no entry with a known name", uni: cat(varints(2), []byte{0xc0, 0x01, 'a'}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "the dynamic table takes no entry with a new name", uni: cat(varints(2), []byte{0x41, 'a', 0x01, 'b'}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "the dynamic table has no entry to duplicate", uni: cat(varints(2), []byte{0x00}), code: http3.ErrQPACKEncoderStream, conn: true},
	{name: "a stream may be cancelled on the decoder stream", uni: cat(varints(3), []byte{0x44, 0x7f, 0xff, 0x01})},
	{name: "no section is to be acknowledged", uni: cat(varints(3), []byte{0x80}), code: http3.ErrQPACKDecoderStream, conn: true},
	{name: "no insert is to be counted", uni: cat(varints(3), []byte{0x01}), code: http3.ErrQPACKDecoderStream, conn: true},
	{name: "the insert count grows by something", uni: cat(varints(3), []byte{0x00}), code: http3.ErrQPACKDecoderStream, conn: true},
	{name: "integers on the decoder stream are not endless", uni: cat(varints(3), []byte{0x7f}, make120()), code: http3.ErrQPACKDecoderStream, conn: true},
	{name: "GOAWAY holds one integer", control: cat(settings, frame(0x7, varints(0, 0))), code: http3.ErrFrame, conn: true},
	{name: "GOAWAY holds an integer", control: cat(settings, frame(0x7)), code: http3.ErrFrame, conn: true},
	{name: "GOAWAY does not grow", control: cat(settings, frame(0x7, varints(1<<20)), frame(0x7, varints(1<<20+4))), code: http3.ErrID, conn: true},
	{name: "GOAWAY may stay and shrink", control: cat(settings, frame(0x7, varints(1<<20)), frame(0x7, varints(1<<20)), frame(0x7, varints(1<<10)))},
	{name: "CANCEL_PUSH is for what was promised", control: cat(settings, frame(0x3, varints(0))), code: http3.ErrID, conn: true},
	{name: "CANCEL_PUSH holds an integer", control: cat(settings, frame(0x3)), code: http3.ErrFrame, conn: true},
}

// getLines are the field lines of a request, without the prefix of its section.
func getLines() []byte {
	return section(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/")[2:]
}

// codecs runs f with each codec of the build serving every connection.
func codecs(t *testing.T, r *rule, f func(*testing.T)) {
	for _, c := range http3.Codecs() {
		if r.only == "" || r.only == c.Name {
			t.Run(c.Name, func(t *testing.T) {
				used := http3.UseCodec(t, c.Name)
				f(t)
				require.Positive(t, used(), "connections were served")
			})
		}
	}
}

func make120() []byte { return []byte(strings.Repeat("\xff", 20)) }

// serverRules hold for what a client sends.
var serverRules = []rule{
	{name: "a good request is answered"},
	{name: "a body may come in pieces", message: cat(post(), data("a"), data(""), data("bc"))},
	{name: "unknown frames are ignored", message: cat(frame(0x21, []byte("x")), post(), frame(0x40), data("a"), frame(0x21))},
	{name: "trailers may follow", message: cat(post(), data("a"), headers("x-sum", "1"))},
	{name: "unknown frames may follow trailers", message: cat(post(), headers("x-sum", "1"), frame(0x21))},
	{name: "MAX_PUSH_ID may grow", control: cat(settings, frame(0xd, varints(1)), frame(0xd, varints(8)))},
	{name: "MAX_PUSH_ID does not shrink", control: cat(settings, frame(0xd, varints(8)), frame(0xd, varints(1))), code: http3.ErrID, conn: true},
	{name: "MAX_PUSH_ID holds an integer", control: cat(settings, frame(0xd, []byte{0x40})), code: http3.ErrFrame, conn: true},
	{name: "a client pushes nothing", uni: varints(1, 0), code: http3.ErrStreamCreation, conn: true},
	{name: "PRIORITY_UPDATE is for a request", control: cat(settings, frame(0xf0700, varints(0), []byte("u=1")))},
	{name: "PRIORITY_UPDATE is not for a stream of the server", control: cat(settings, frame(0xf0700, varints(1), []byte("u=1"))), code: http3.ErrID, conn: true},
	{name: "PRIORITY_UPDATE is not for a push", control: cat(settings, frame(0xf0701, varints(0), []byte("u=1"))), code: http3.ErrID, conn: true},
	{name: "PRIORITY_UPDATE holds an integer", control: cat(settings, frame(0xf0700)), code: http3.ErrFrame, conn: true},
	{name: "DATA comes after HEADERS", message: data("x"), code: http3.ErrFrameUnexpected, conn: true},
	{name: "DATA comes before trailers", message: cat(post(), data("a"), headers("x", "1"), data("b")), code: http3.ErrFrameUnexpected, conn: true},
	{name: "HEADERS come twice at most", message: cat(post(), headers("x", "1"), headers("y", "1")), code: http3.ErrFrameUnexpected, conn: true},
	{name: "SETTINGS are not for requests", message: settings, code: http3.ErrFrameUnexpected, conn: true},
	{name: "GOAWAY is not for requests", message: frame(0x7, varints(0)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "MAX_PUSH_ID is not for requests", message: frame(0xd, varints(0)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "CANCEL_PUSH is not for requests", message: frame(0x3, varints(0)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "PRIORITY_UPDATE is not for requests", message: frame(0xf0700, varints(0)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a client promises nothing", message: frame(0x5, varints(0), section()), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x2 is reserved", message: cat(post(), frame(0x2)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x6 is reserved", message: cat(post(), frame(0x6)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x8 is reserved", message: cat(post(), frame(0x8)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x9 is reserved", message: cat(post(), frame(0x9)), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a frame does not end early", message: cat(post(), varints(0x0, 10), []byte("x")), code: http3.ErrFrame, conn: true},
	{name: "a frame's head does not end early", message: cat(post(), varints(0x0)), code: http3.ErrFrame, conn: true},
	{name: "HEADERS do not end early", message: cat(varints(0x1, 100), []byte{0, 0}), code: http3.ErrFrame, conn: true},
	{name: "a request is not nothing", message: []byte{}, code: http3.ErrRequestIncomplete},
	{name: "a request is more than unknown frames", message: frame(0x21), code: http3.ErrRequestIncomplete},
	{name: "a section does not refer to the dynamic table", message: frame(0x1, []byte{0x02, 0x00, 0x80}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a section without references may have any base", message: frame(0x1, []byte{0x00, 0x7f, 0xff, 0x01}, getLines())},
	{name: "a section's base is not negative", message: frame(0x1, []byte{0x00, 0x80}, getLines()), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a field is not in the dynamic table", message: frame(0x1, []byte{0x00, 0x00, 0x80}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a name is not in the dynamic table", message: frame(0x1, []byte{0x00, 0x00, 0x40, 0x01, 'a'}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a field is not behind the base", message: frame(0x1, []byte{0x00, 0x00, 0x10}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "the static table has 99 fields", message: frame(0x1, []byte{0x00, 0x00, 0xff, 0x24}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a section does not end within a field", message: frame(0x1, []byte{0x00, 0x00, 0x27, 0x05, 'a'}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a section has a prefix", message: frame(0x1), code: http3.ErrQPACKDecompression, conn: true},
	{name: "Huffman codes are valid", message: frame(0x1, []byte{0x00, 0x00, 0x51, 0x84, 0xff, 0xff, 0xff, 0xff}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a section is not over the limit", message: get("x", strings.Repeat("a", 20_000)), status: http.StatusRequestHeaderFieldsTooLarge},
	{name: "a section does not grow over the limit", message: frame(0x1, []byte{0, 0}, []byte(strings.Repeat("\xd1", 5000))), status: http.StatusRequestHeaderFieldsTooLarge},
	{name: "trailers are not over the limit", message: cat(post(), headers("x", strings.Repeat("a", 20_000))), code: http3.ErrExcessiveLoad},
	{name: ":method is there", message: headers(":scheme", "https", ":authority", "localhost", ":path", "/"), code: http3.ErrMessage},
	{name: ":scheme is there", message: headers(":method", "GET", ":authority", "localhost", ":path", "/"), code: http3.ErrMessage},
	{name: ":path is there", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost"), code: http3.ErrMessage},
	{name: ":path is not empty", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", ""), code: http3.ErrMessage},
	{name: ":path is absolute", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "a"), code: http3.ErrMessage},
	{name: ":path is a path", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/%zz"), code: http3.ErrMessage},
	{name: "OPTIONS may have *", message: headers(":method", "OPTIONS", ":scheme", "https", ":authority", "localhost", ":path", "*")},
	{name: "GET has no *", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "*"), code: http3.ErrMessage},
	{name: ":authority or host is there", message: headers(":method", "GET", ":scheme", "https", ":path", "/"), code: http3.ErrMessage},
	{name: "host is enough", message: headers(":method", "GET", ":scheme", "https", ":path", "/", "host", "localhost")},
	{name: ":authority and host agree", message: get("host", "localhost")},
	{name: ":authority and host do not differ", message: get("host", "example.com"), code: http3.ErrMessage},
	{name: ":authority is not empty", message: headers(":method", "GET", ":scheme", "https", ":authority", "", ":path", "/"), code: http3.ErrMessage},
	{name: ":authority has no user", message: headers(":method", "GET", ":scheme", "https", ":authority", "me@localhost", ":path", "/"), code: http3.ErrMessage},
	{name: ":method is a token", message: headers(":method", "G T", ":scheme", "https", ":authority", "localhost", ":path", "/"), code: http3.ErrMessage},
	{name: ":scheme is a scheme", message: headers(":method", "GET", ":scheme", "1", ":authority", "localhost", ":path", "/"), code: http3.ErrMessage},
	{name: ":method comes once", message: get(":method", "GET"), code: http3.ErrMessage},
	{name: "pseudo-headers come first", message: headers(":method", "GET", ":scheme", "https", "a", "b", ":authority", "localhost", ":path", "/"), code: http3.ErrMessage},
	{name: "unknown pseudo-headers do not exist", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/", ":x", "y"), code: http3.ErrMessage},
	{name: ":status is for responses", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/", ":status", "200"), code: http3.ErrMessage},
	{name: ":protocol is for CONNECT", message: headers(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/", ":protocol", "x"), code: http3.ErrMessage},
	{name: "extended CONNECT has a path", message: headers(":method", "CONNECT", ":scheme", "https", ":authority", "localhost", ":protocol", "x"), code: http3.ErrMessage},
	{name: "extended CONNECT is answered", message: headers(":method", "CONNECT", ":scheme", "https", ":authority", "localhost", ":path", "/", ":protocol", "x")},
	{name: "CONNECT is answered", message: headers(":method", "CONNECT", ":authority", "localhost:25")},
	{name: "CONNECT has no path", message: headers(":method", "CONNECT", ":authority", "localhost:25", ":path", "/"), code: http3.ErrMessage},
	{name: "CONNECT has no scheme", message: headers(":method", "CONNECT", ":authority", "localhost:25", ":scheme", "https"), code: http3.ErrMessage},
	{name: "CONNECT has an authority", message: headers(":method", "CONNECT"), code: http3.ErrMessage},
	{name: "CONNECT has no trailers", message: cat(headers(":method", "CONNECT", ":authority", "localhost:25"), data("x"), headers("a", "b")), code: http3.ErrFrameUnexpected, conn: true},
	{name: "names are in lower case", message: get("X-Up", "1"), code: http3.ErrMessage},
	{name: "names are tokens", message: get("x y", "1"), code: http3.ErrMessage},
	{name: "names are not empty", message: get("", "1"), code: http3.ErrMessage},
	{name: "values have no line feed", message: get("x", "a\nb"), code: http3.ErrMessage},
	{name: "values have no carriage return", message: get("x", "a\rb"), code: http3.ErrMessage},
	{name: "values have no NUL", message: get("x", "a\x00b"), code: http3.ErrMessage},
	{name: "values have no space in front", message: get("x", " a"), code: http3.ErrMessage},
	{name: "values have no space behind", message: get("x", "a\t"), code: http3.ErrMessage},
	{name: "values may hold any text", message: get("x", "a \t\x80ü\"")},
	{name: "connection is not sent", message: get("connection", "close"), code: http3.ErrMessage},
	{name: "keep-alive is not sent", message: get("keep-alive", "1"), code: http3.ErrMessage},
	{name: "proxy-connection is not sent", message: get("proxy-connection", "close"), code: http3.ErrMessage},
	{name: "transfer-encoding is not sent", message: post("transfer-encoding", "chunked"), code: http3.ErrMessage},
	{name: "upgrade is not sent", message: get("upgrade", "websocket"), code: http3.ErrMessage},
	{name: "te may be trailers", message: get("te", "trailers")},
	{name: "te is nothing else", message: get("te", "gzip"), code: http3.ErrMessage},
	{name: "content-length may be true", message: cat(post("content-length", "3"), data("ab"), data("c"))},
	{name: "content-length may be repeated", message: cat(post("content-length", "3", "content-length", "3"), data("abc"))},
	{name: "content-length is not contradicted", message: cat(post("content-length", "3", "content-length", "4"), data("abc")), code: http3.ErrMessage},
	{name: "content-length is a number", message: cat(post("content-length", "three"), data("abc")), code: http3.ErrMessage},
	{name: "content-length has no sign", message: cat(post("content-length", "+3"), data("abc")), code: http3.ErrMessage},
	{name: "content-length fits into 63 bits", message: cat(post("content-length", "99999999999999999999"), data("abc")), code: http3.ErrMessage},
	{name: "content is not longer than content-length", message: cat(post("content-length", "3"), data("abcd")), code: http3.ErrMessage},
	{name: "content is not shorter than content-length", message: cat(post("content-length", "3"), data("ab")), code: http3.ErrMessage},
	{name: "content is not missing", message: post("content-length", "3"), code: http3.ErrMessage},
	{name: "trailers have no pseudo-headers", message: cat(post(), headers(":path", "/")), code: http3.ErrMessage},
	{name: "trailers have lower-case names", message: cat(post(), headers("X", "y")), code: http3.ErrMessage},
	{name: "trailers have no connection-specific fields", message: cat(post(), headers("connection", "y")), code: http3.ErrMessage},
}

// clientRules hold for what a server sends.
var clientRules = []rule{
	{name: "a good response is taken"},
	{name: "interim responses may come first", message: cat(headers(":status", "103", "link", "x"), headers(":status", "100"), ok(), data("x"))},
	{name: "an interim response is not enough", message: headers(":status", "103"), code: http3.ErrMessage},
	{name: "a response is not nothing", message: []byte{}, code: http3.ErrMessage},
	{name: "interim responses have no content", message: cat(headers(":status", "103"), data("x"), ok()), code: http3.ErrFrameUnexpected, conn: true},
	{name: "many interim responses may come first", message: cat([]byte(strings.Repeat(string(headers(":status", "103")), 200)), ok(), data("x"))},
	{name: "interim responses come to an end", message: []byte(strings.Repeat(string(headers(":status", "103")), 300)), code: http3.ErrExcessiveLoad},
	{name: "DATA comes after HEADERS", message: data("x"), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a second response is no trailer", message: cat(ok(), ok()), code: http3.ErrMessage},
	{name: "HEADERS come twice at most", message: cat(ok(), headers("x", "1"), headers("x", "1")), code: http3.ErrFrameUnexpected, conn: true},
	{name: "nothing was allowed to be promised", message: cat(frame(0x5, varints(0), section()), ok()), code: http3.ErrID, conn: true},
	{name: "nothing was allowed to be pushed", uni: varints(1, 0), code: http3.ErrID, conn: true},
	{name: "a server sends no MAX_PUSH_ID", control: cat(settings, frame(0xd, varints(0))), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a server sends no PRIORITY_UPDATE", control: cat(settings, frame(0xf0700, varints(0))), code: http3.ErrFrameUnexpected, conn: true},
	{name: "GOAWAY names a request", control: cat(settings, frame(0x7, varints(1))), code: http3.ErrID, conn: true},
	{name: "SETTINGS are not for responses", message: cat(ok(), settings), code: http3.ErrFrameUnexpected, conn: true},
	{name: "frame 0x9 is reserved", message: frame(0x9), code: http3.ErrFrameUnexpected, conn: true},
	{name: "a frame does not end early", message: cat(ok(), varints(0x0, 10), []byte("x")), code: http3.ErrFrame, conn: true},
	{name: "a section does not refer to the dynamic table", message: frame(0x1, []byte{0x02, 0x00, 0x80}), code: http3.ErrQPACKDecompression, conn: true},
	{name: "a section is not over the limit", message: ok("x", strings.Repeat("a", 20_000)), code: http3.ErrExcessiveLoad},
	{name: ":status is there", message: headers("x", "y"), code: http3.ErrMessage},
	{name: ":status has three digits", message: headers(":status", "0200"), code: http3.ErrMessage},
	{name: ":status is a number", message: headers(":status", "abc"), code: http3.ErrMessage},
	{name: ":status is 100 or more", message: headers(":status", "042"), code: http3.ErrMessage},
	{name: ":status is not 101", message: headers(":status", "101"), code: http3.ErrMessage},
	{name: ":status comes once", message: ok(":status", "200"), code: http3.ErrMessage},
	{name: ":status comes first", message: headers("x", "y", ":status", "200"), code: http3.ErrMessage},
	{name: ":path is for requests", message: ok(":path", "/"), code: http3.ErrMessage},
	{name: "names are in lower case", message: ok("X", "y"), code: http3.ErrMessage},
	{name: "connection is not sent", message: ok("connection", "close"), code: http3.ErrMessage},
	{name: "content is not longer than content-length", message: cat(ok("content-length", "1"), data("ab")), code: http3.ErrMessage},
	{name: "content is not shorter than content-length", message: cat(ok("content-length", "3"), data("ab")), code: http3.ErrMessage},
	{name: "trailers have no pseudo-headers", message: cat(ok(), headers(":status", "200")), code: http3.ErrMessage},
}

func TestAClientThatBreaksARuleIsTold(t *testing.T) {
	for _, r := range append(controlRules, serverRules...) {
		t.Run(r.name, func(t *testing.T) {
			codecs(t, &r, func(t *testing.T) {
				engines(t, func(t *testing.T, e transport.Transport) {
					w := newWorld(t, e)
					w.start(&http3.Server{MaxHeaderBytes: 10_000, DisableGeneralOptionsHandler: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if _, err := io.ReadAll(r.Body); err == nil {
							io.WriteString(w, "fine")
						}
					})}, nil)
					p := w.peer()
					r.sendControl(p)
					synctest.Wait()
					message := r.message
					if message == nil {
						message = get()
					}
					s := p.request(message, !r.open)
					if r.code != 0 && r.conn {
						require.Equal(t, r.code, p.ended().Code, p.ended().Reason)
						return
					}
					b, err := io.ReadAll(s)
					if r.code != 0 {
						var se *transport.StreamError
						require.ErrorAs(t, err, &se)
						require.True(t, se.Remote)
						require.Equal(t, r.code, se.Code)
					} else {
						require.NoError(t, err)
						status := "200"
						if r.status != 0 {
							status = strconv.Itoa(r.status)
						} else {
							require.Contains(t, string(b), "fine")
						}
						require.Equal(t, status, head(t, b)[":status"])
					}
					require.NoError(t, p.conn.Context().Err(), "the connection lives")
					again := p.request(get(), true)
					b, err = io.ReadAll(again)
					require.NoError(t, err, "and answers the next request")
					require.Contains(t, string(b), "fine")
				})
			})
		})
	}
}

func (r *rule) sendControl(p *peer) {
	control := r.control
	if control == nil {
		control = settings
	}
	if r.uni == nil || r.uni[0] != 0 { // not about the control stream
		p.uni(cat(varints(0), control), r.end)
	}
	if r.uni != nil {
		p.uni(r.uni, false)
	}
	if r.uni2 != nil {
		synctest.Wait()
		p.uni(r.uni2, false)
	}
}

func TestAServerThatBreaksARuleIsTold(t *testing.T) {
	for _, r := range append(controlRules, clientRules...) {
		t.Run(r.name, func(t *testing.T) {
			codecs(t, &r, func(t *testing.T) {
				engines(t, func(t *testing.T, e transport.Transport) {
					w := newWorld(t, e)
					tr := &http3.Transport{MaxResponseHeaderBytes: 10_000}
					accept := w.listenPeer(tr)
					done := make(chan error, 1)
					go func() {
						resp, err := tr.RoundTrip(newGet(t))
						if err == nil {
							_, err = io.ReadAll(resp.Body)
							resp.Body.Close()
						}
						done <- err
					}()
					p := accept()
					s := p.serverStream()
					r.sendControl(p)
					message := r.message
					if message == nil {
						message = cat(ok(), data("fine"))
					}
					if r.message != nil || r.code == 0 {
						_, _ = s.Write(message)
						_ = s.Close()
					}
					if r.code != 0 && r.conn {
						require.Equal(t, r.code, p.ended().Code)
					}
					err := <-done
					if r.code == 0 {
						require.NoError(t, err)
						return
					}
					require.Error(t, err)
					if e, ok := errors.AsType[*http3.Error](err); ok {
						require.Equal(t, r.code, e.Code)
						require.Equal(t, r.conn, e.Conn)
						require.False(t, e.Remote)
					} else {
						require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					}
				})
			})
		})
	}
}
