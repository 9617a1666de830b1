package http3

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// responseBuffer is how much of a response is collected, in bytes, before it is
// sent: one that fits gets its Content-Length.
const responseBuffer = 4 << 10

// A responseWriter is what the handler writes to. As in net/http its methods
// must not be called at once, but for those of http.ResponseController.
type responseWriter struct {
	c      *serverConn
	s      *Stream
	req    *http.Request
	header http.Header

	status   int      // 0: WriteHeader was not called
	head     headCopy // of header, at WriteHeader
	declared int64    // Content-Length of the head, or -1
	written  int64    // by the handler
	buf      []byte   // not yet sent
	headSent bool
	taken    bool // by TakeStream
	err      error

	mu        sync.Mutex
	continued bool // 100 was sent, or must not be any more; guarded by mu
}

func newResponseWriter(c *serverConn, s *Stream, req *http.Request) *responseWriter {
	w := &responseWriter{c: c, s: s, req: req, header: make(http.Header), declared: -1}
	if b, ok := req.Body.(*requestBody); ok && hasExpectContinue(req.Header) {
		b.expect = w.sendContinue
	}
	return w
}

func hasExpectContinue(h http.Header) bool { return strings.EqualFold(h.Get("Expect"), "100-continue") }

// expectationFails reports whether the client expects something unknown.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
func (w *responseWriter) expectationFails() bool {
	v := w.req.Header.Get("Expect")
	return v != "" && !hasExpectContinue(w.req.Header)
}

func (w *responseWriter) sendContinue() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.continued {
		return
	}
	w.continued = true
	if w.s.bufferHeaders([]field{{":status", "100"}}) == nil {
		_ = w.s.flushHeaders() // the next Write says it
	}
}

// Header returns what WriteHeader sends.
func (w *responseWriter) Header() http.Header { return w.header }

// WriteHeader sets the status, or sends an informational one at once.
func (w *responseWriter) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("http3: invalid WriteHeader code %v", status))
	}
	switch {
	case w.taken:
		w.complain("WriteHeader on a taken stream")
	case w.status != 0:
		w.complain("superfluous WriteHeader")
	case status == http.StatusSwitchingProtocols:
		// https://www.rfc-editor.org/rfc/rfc9114#section-4.5
		w.complain("101 (Switching Protocols) does not exist in HTTP/3")
	case status < 200:
		w.inform(status)
	default:
		w.setStatus(status)
	}
}

func (w *responseWriter) complain(what string) {
	w.c.srv.logger().Warn("http3: "+what, "method", w.req.Method, "path", w.req.URL.Path)
}

// inform sends an interim response.
func (w *responseWriter) inform(status int) {
	if status == http.StatusContinue {
		w.sendContinue()
		return
	}
	fields := appendHeader([]field{{":status", strconv.Itoa(status)}}, w.header, func(k string) bool {
		return k == "Content-Length" || strings.HasPrefix(k, http.TrailerPrefix)
	})
	if err := w.s.bufferHeaders(fields); err == nil {
		_ = w.s.flushHeaders() // the next Write says it
	}
}

func (w *responseWriter) setStatus(status int) {
	w.status = status
	length := true
	if v := w.header.Get("Content-Length"); v != "" {
		n, ok := parseContentLength(v)
		if ok {
			w.declared = n
		} else {
			w.complain("invalid Content-Length " + strconv.Quote(v))
			length = false
		}
	}
	if status == http.StatusNoContent {
		length = false // https://www.rfc-editor.org/rfc/rfc9110#section-8.6
	}
	w.head.take(status, w.header, length)
}

// A headCopy is what a response's head has been since WriteHeader: the handler may
// change the header.
type headCopy struct {
	fields   *[]field // of fieldLists; nil before, and when they are encoded
	date     bool     // is among them, or must not be
	typ      bool     // Content-Type, likewise
	typed    bool     // Content-Type has a value
	encoded  bool     // Content-Encoding has a value
	trailers []string // values of Trailer
}

var fieldLists = sync.Pool{New: func() any { return new([]field) }}

// take copies. length: Content-Length may be sent.
func (c *headCopy) take(status int, h http.Header, length bool) {
	c.fields = fieldLists.Get().(*[]field)
	*c.fields = appendHeader(append(*c.fields, field{":status", statusText(status)}), h, func(k string) bool {
		switch k {
		case "Content-Length":
			return !length
		case "Date":
			c.date = true
		case "Content-Type":
			c.typ, c.typed = true, h.Get(k) != ""
		case "Content-Encoding":
			c.encoded = h.Get(k) != ""
		case "Trailer":
			c.trailers = slices.Clone(h[k])
		}
		return strings.HasPrefix(k, http.TrailerPrefix)
	})
}

func (c *headCopy) add(name, value string) { *c.fields = append(*c.fields, field{name, value}) }

// release gives the fields back.
func (c *headCopy) release() {
	clear(*c.fields)
	*c.fields = (*c.fields)[:0]
	fieldLists.Put(c.fields)
	c.fields = nil
}

// statusText returns a status as it stands in :status.
func statusText(status int) string {
	if status == http.StatusOK {
		return "200" // without an allocation
	}
	return strconv.Itoa(status)
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// Write writes content, after WriteHeader(200) if the status is not set.
func (w *responseWriter) Write(p []byte) (int, error) { return write(w, p) }

// WriteString is Write without a conversion.
func (w *responseWriter) WriteString(p string) (int, error) { return write(w, p) }

func write[T string | []byte](w *responseWriter, p T) (int, error) {
	if w.taken {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.setStatus(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.declared >= 0 && w.written > w.declared {
		return 0, http.ErrContentLength
	}
	if w.req.Method == http.MethodHead {
		if !w.head.typed && len(w.buf) < 512 {
			w.buf = append(w.buf, p[:min(len(p), 512-len(w.buf))]...)
		}
		return len(p), nil
	}
	if len(w.buf)+len(p) <= responseBuffer {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if w.headSent && len(w.buf) == 0 {
		return w.s.Write([]byte(p))
	}
	n := responseBuffer - len(w.buf) // what the type is detected from is among it
	w.buf = append(w.buf, p[:n]...)
	if err := w.flush(); err != nil {
		return 0, err
	}
	if p = p[n:]; len(p) <= responseBuffer {
		w.buf = append(w.buf, p...)
		return n + len(p), nil
	}
	m, err := w.s.Write([]byte(p))
	return n + m, err
}

// flush sends what is buffered, after the head.
func (w *responseWriter) flush() error {
	if w.err != nil {
		return w.err
	}
	w.s.defaultPriority() // there is more to come
	if err := w.sendHead(); err != nil {
		w.err = err
		return err
	}
	buf := w.buf
	if w.req.Method == http.MethodHead {
		buf = nil
	}
	_, w.err = w.s.Write(buf) // or the head alone
	w.buf = w.buf[:0]
	return w.err
}

// sendHead encodes the head; it is written with what follows.
func (w *responseWriter) sendHead() error {
	if w.headSent {
		return nil
	}
	w.headSent = true
	w.mu.Lock()
	w.continued = true
	w.mu.Unlock()
	w.complete()
	defer w.head.release()
	return w.s.bufferHeaders(*w.head.fields)
}

// complete adds what net/http adds to a response's header.
func (w *responseWriter) complete() {
	h := &w.head
	if !h.date {
		h.add("date", dateNow())
	}
	if bodyAllowed(w.status) && !h.typ && len(w.buf) > 0 && !h.encoded && w.req.Method != http.MethodConnect {
		h.add("content-type", http.DetectContentType(w.buf))
	}
}

// finish ends the response after the handler has returned.
func (w *responseWriter) finish() {
	if w.status == 0 {
		w.setStatus(http.StatusOK)
	}
	if !w.headSent && w.declared < 0 && bodyAllowed(w.status) && w.req.Method != http.MethodConnect &&
		len(w.trailerKeys()) == 0 && (w.req.Method != http.MethodHead || w.written > 0) {
		w.declared = w.written
		w.head.add("content-length", strconv.FormatInt(w.written, 10))
	}
	if err := w.finishWrite(); err != nil {
		if e, ok := errors.AsType[*Error](err); ok && e.Remote && !e.Conn {
			w.c.glitch()
		}
		w.s.abort(ErrInternal)
		return
	}
	// https://www.rfc-editor.org/rfc/rfc9114#section-4.1: the client need not
	// send the rest.
	w.s.CancelRead(ErrNoError)
}

func (w *responseWriter) finishWrite() error {
	if err := w.sendHead(); err != nil {
		if errors.Is(err, errPeerFieldLimit) {
			w.complain("header larger than the client accepts")
		}
		return err
	}
	if w.req.Method != http.MethodHead {
		if err := w.s.bufferContent(w.buf); err != nil {
			return err
		}
	}
	if w.declared >= 0 && w.written < w.declared && w.req.Method != http.MethodHead && bodyAllowed(w.status) {
		// The client must not take what there is for the whole.
		w.complain(fmt.Sprintf("handler wrote %d of %d bytes", w.written, w.declared))
		return http.ErrContentLength
	}
	if t := w.trailers(); len(t) > 0 {
		if err := w.s.bufferHeaders(t); err != nil {
			return err
		}
	}
	return w.s.Close()
}

// trailerKeys returns the names of trailers that were declared.
func (w *responseWriter) trailerKeys() []string {
	var keys []string
	for _, v := range w.head.trailers {
		for k := range strings.SplitSeq(v, ",") {
			k = http.CanonicalHeaderKey(strings.TrimSpace(k))
			if k != "" && !forbiddenTrailer(k) {
				keys = append(keys, k)
			}
		}
	}
	for k := range w.header {
		if strings.HasPrefix(k, http.TrailerPrefix) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (w *responseWriter) trailers() []field {
	keys := w.trailerKeys()
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	t := make(http.Header)
	for _, k := range slices.Compact(keys) {
		if vv, ok := w.header[k]; ok {
			name := http.CanonicalHeaderKey(strings.TrimPrefix(k, http.TrailerPrefix))
			if !forbiddenTrailer(name) {
				t[name] = vv
			}
		}
	}
	return appendHeader(nil, t, nil)
}

// Flush sends what is buffered.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError sends what is buffered.
func (w *responseWriter) FlushError() error {
	if w.taken {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.setStatus(http.StatusOK)
	}
	return w.flush()
}

// SetReadDeadline bounds the Reads of the request's body.
func (w *responseWriter) SetReadDeadline(t time.Time) error { return w.s.SetReadDeadline(t) }

// SetWriteDeadline bounds the Writes of the response.
func (w *responseWriter) SetWriteDeadline(t time.Time) error { return w.s.SetWriteDeadline(t) }

// EnableFullDuplex does nothing: HTTP/3 always is.
func (w *responseWriter) EnableFullDuplex() error { return nil }

// SetPriority orders the response among those of the connection.
func (w *responseWriter) SetPriority(p transport.Priority) { w.s.SetPriority(p) }

// takeStream sends the head and gives the stream away.
func (w *responseWriter) takeStream() (*Stream, error) {
	if w.taken {
		return nil, http.ErrHijacked
	}
	if err := w.FlushError(); err != nil {
		return nil, err
	}
	if w.c.datagrams.on {
		// They must not be sent before it is known that the client wants them.
		if _, err := w.c.Settings(w.req.Context()); err != nil {
			return nil, err
		}
	}
	w.taken = true
	// What bounded the request does not bound what follows it.
	return w.s, w.s.SetDeadline(time.Time{})
}

// find returns w or what it wraps as a T.
func find[T any](w http.ResponseWriter) (t T, ok bool) {
	for {
		if t, ok = w.(T); ok {
			return t, true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return t, false
		}
		w = u.Unwrap()
	}
}

// TakeStream sends the head of the response, with the status that was set or
// 200, and takes the request's stream from the server: what it carries in both
// directions is the caller's, also after the handler has returned. The caller
// must Close or cancel it. TakeStream waits for the client's settings if they
// matter. For requests that did not come over HTTP/3 the error
// matches [errors.ErrUnsupported].
func TakeStream(w http.ResponseWriter) (*Stream, error) {
	rw, ok := find[*responseWriter](w)
	if !ok {
		return nil, fmt.Errorf("http3: no HTTP/3 stream: %w", errors.ErrUnsupported)
	}
	return rw.takeStream()
}

// ConnOf returns the connection that a server's request came on, or nil if that
// is not HTTP/3.
func ConnOf(w http.ResponseWriter) *Conn {
	if rw, ok := find[*responseWriter](w); ok {
		return rw.c.Conn
	}
	return nil
}

// SetPriority orders a response among those of the connection (RFC 9218). It
// does nothing for other versions of HTTP.
func SetPriority(w http.ResponseWriter, p transport.Priority) {
	if rw, ok := find[*responseWriter](w); ok {
		rw.SetPriority(p)
	}
}
