package http3

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const defaultUserAgent = "anyquic-http3"

var errHeaderTimeout error = &timeoutError{"http3: timeout awaiting response headers"}

type timeoutError struct{ msg string }

func (e *timeoutError) Error() string   { return e.msg }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// An exchange is a request of a client with its response.
type exchange struct {
	cc    *clientConn
	req   *http.Request
	s     *Stream
	trace *httptrace.ClientTrace // nil: nobody looks

	early    bool // sent before the handshake was complete
	gzip     bool // this side asked for it
	tunnel   bool // CONNECT succeeded
	unwatch  func() bool
	finished sync.Once

	proceed     chan struct{} // closed when the body may be sent; nil: it may
	proceedOnce sync.Once

	mu       sync.Mutex
	err      error       // why this side gave up, if it did; guarded by mu
	timer    *time.Timer // of ResponseHeaderTimeout; guarded by mu
	headSeen bool        // guarded by mu

	bodyRead atomic.Bool // the request's body was touched, or must not be any more
	bodySent atomic.Bool // and all is written
}

func (x *exchange) method() string {
	if x.req.Method == "" {
		return http.MethodGet
	}
	return x.req.Method
}

func (x *exchange) hasBody() bool { return x.req.Body != nil && x.req.Body != http.NoBody }

// extended reports whether the request is an extended CONNECT.
func (x *exchange) extended() bool {
	return x.method() == http.MethodConnect && len(x.req.Header[":protocol"]) > 0
}

// fail ends the exchange for a reason of this side. The first one counts.
func (x *exchange) fail(err error) {
	x.mu.Lock()
	if x.err == nil {
		x.err = err
	}
	x.mu.Unlock()
	x.s.abort(ErrRequestCancelled)
}

// reason returns what to tell the caller when the stream said err.
func (x *exchange) reason(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	return err
}

// finish releases what the exchange holds.
func (x *exchange) finish() {
	x.finished.Do(func() {
		x.unwatch()
		x.stopTimer()
		if !x.bodySent.Load() {
			x.s.CancelWrite(ErrRequestCancelled)
			closeBody(x.req) // ends a Read of it
		}
		x.s.end()
	})
}

// run sends the request and returns the head of the response.
func (x *exchange) run() (*http.Response, error) {
	ctx := x.req.Context()
	x.unwatch = context.AfterFunc(ctx, func() { x.fail(context.Cause(ctx)) })
	err := x.send()
	if err == nil || stopped(err) {
		var resp *http.Response
		if resp, err = x.receive(); err == nil {
			return resp, nil
		}
	}
	if x.cc.qc.Context().Err() != nil {
		<-x.cc.heard // there may have been a GOAWAY, which says that the request was not processed
	}
	untouched := x.bodyRead.CompareAndSwap(false, true) // sendBody may be about to start
	if untouched {
		x.bodySent.Store(true) // leaves the body for another attempt
		x.s.abort(ErrRequestCancelled)
	}
	x.finish()
	e, _ := errors.AsType[*Error](err)
	x.mu.Lock()
	noHead := !x.headSeen
	x.mu.Unlock()
	return nil, &sentError{
		err:      x.reason(err),
		rejected: x.s.rejected.Load() || e != nil && e.Remote && !e.Conn && e.Code == ErrRequestRejected,
		noHead:   noHead,
		bodyRead: !untouched,
	}
}

// stopped reports whether a Write failed because the server has heard enough: it
// may answer before it has seen the end of the request. Reading the response
// tells.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-4.1
func stopped(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Remote && !e.Conn
}

// send sends the head, and starts to send the body.
func (x *exchange) send() error {
	fields, err := x.fields()
	if err != nil {
		return err
	}
	if p := x.req.Header.Get("Priority"); p != "" {
		x.s.SetPriority(parsePriority(p)) // of what is uploaded
	}
	if x.method() == http.MethodConnect {
		x.cc.takeDatagrams(x.s)
	}
	if err := x.s.bufferHeaders(fields); err != nil {
		return err
	}
	switch {
	case x.hasBody():
		waits := x.expectsContinue()
		if waits || x.req.GetBody == nil { // a Read of the body may take its time
			err = x.s.flushHeaders()
		}
		x.traceHeaders() // before what the body makes known
		if waits {
			x.proceed = make(chan struct{})
			if x.trace != nil && x.trace.Wait100Continue != nil {
				x.trace.Wait100Continue() // before the answer is read
			}
		}
		x.cc.spawn(x.sendBody) // ends with the body, which finish closes
	case x.method() == http.MethodConnect:
		err = x.s.flushHeaders()
		x.traceHeaders()
		x.bodySent.Store(true)
	default:
		x.traceHeaders()
		x.bodySent.Store(true)
		if err = x.trailers(); err == nil {
			err = x.s.Close()
		}
		x.armTimer()
	}
	if !x.hasBody() {
		x.wroteRequest(err)
	}
	return err
}

func (x *exchange) traceHeaders() {
	if x.trace != nil && x.trace.WroteHeaders != nil {
		x.trace.WroteHeaders()
	}
}

func (x *exchange) wroteRequest(err error) {
	if x.trace != nil && x.trace.WroteRequest != nil {
		x.trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
}

func (x *exchange) expectsContinue() bool {
	return x.cc.t.ExpectContinueTimeout > 0 && hasExpectContinue(x.req.Header)
}

// fields returns the request's field section.
func (x *exchange) fields() ([]field, error) {
	req := x.req
	host, err := authority(req)
	if err != nil {
		return nil, err
	}
	fields := make([]field, 0, len(req.Header)+8)
	fields = append(fields, field{":method", x.method()})
	if x.method() == http.MethodConnect && !x.extended() {
		fields = append(fields, field{":authority", host})
	} else {
		// An opaque URL may say the authority once more, as in net/http.
		path := strings.TrimPrefix(req.URL.RequestURI(), "https://"+cmp.Or(req.Host, req.URL.Host))
		if !strings.HasPrefix(path, "/") && path != "*" || !validFieldText(path) {
			return nil, fmt.Errorf("http3: invalid request path %q", path)
		}
		fields = append(fields, field{":scheme", "https"}, field{":authority", host}, field{":path", path})
		if x.extended() {
			fields = append(fields, field{":protocol", req.Header[":protocol"][0]})
		}
	}
	if n := x.contentLength(); n >= 0 {
		fields = append(fields, field{"content-length", strconv.FormatInt(n, 10)})
	}
	if len(req.Trailer) > 0 {
		for k := range req.Trailer {
			fields = append(fields, field{"trailer", http.CanonicalHeaderKey(k)})
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		fields = append(fields, field{"user-agent", defaultUserAgent})
	}
	if x.wantsGzip() {
		x.gzip = true
		fields = append(fields, field{"accept-encoding", "gzip"})
	}
	return appendHeader(fields, req.Header, func(k string) bool {
		switch k {
		case "Content-Length", "Trailer":
			return true
		case "User-Agent": // present and empty: not sent, as in net/http
			return req.Header.Get(k) == ""
		}
		return false
	}), nil
}

// contentLength returns what to declare, or -1.
func (x *exchange) contentLength() int64 {
	switch {
	case x.method() == http.MethodConnect:
		return -1
	case x.hasBody() && x.req.ContentLength > 0:
		return x.req.ContentLength
	case x.hasBody():
		return -1
	}
	switch x.method() {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return 0
	}
	return -1
}

func (x *exchange) wantsGzip() bool {
	h := x.req.Header
	return !x.cc.t.DisableCompression && h.Get("Accept-Encoding") == "" && h.Get("Range") == "" &&
		x.method() != http.MethodHead && x.method() != http.MethodConnect
}

// trailers encodes the request's trailers.
func (x *exchange) trailers() error {
	t := appendHeader(nil, x.req.Trailer, nil)
	if len(t) == 0 {
		return nil
	}
	return x.s.bufferHeaders(t)
}

// sendBody sends the request's body.
func (x *exchange) sendBody() {
	if x.proceed != nil && !x.awaitContinue() {
		x.wroteRequest(errClosed)
		return
	}
	if !x.bodyRead.CompareAndSwap(false, true) { // run has given it back
		x.wroteRequest(errClosed)
		return
	}
	err := x.copyBody()
	if err == nil {
		if x.method() != http.MethodConnect {
			if err = x.trailers(); err == nil {
				err = x.s.Close()
			}
		} else {
			err = x.s.Close()
		}
	}
	x.bodySent.Store(true)
	closeBody(x.req)
	x.wroteRequest(err)
	if err == nil {
		x.armTimer()
	}
}

// awaitContinue waits until the body may be sent. It reports false if it must
// not be any more.
func (x *exchange) awaitContinue() bool {
	timer := time.NewTimer(x.cc.t.ExpectContinueTimeout)
	defer timer.Stop()
	select {
	case <-x.proceed:
	case <-timer.C:
	case <-x.s.Context().Done():
	}
	return x.s.Context().Err() == nil
}

// copyBody copies the request's body to the stream.
func (x *exchange) copyBody() error {
	buf := bodyBuffers.Get().(*[bodyBuffer]byte)
	defer bodyBuffers.Put(buf)
	left := x.req.ContentLength
	limited := left > 0
	for {
		n, err := x.req.Body.Read(buf[:])
		if limited && int64(n) > left {
			err := fmt.Errorf("http3: request body longer than its ContentLength %d", x.req.ContentLength)
			x.fail(err)
			return err
		}
		left -= int64(n)
		if n > 0 {
			if _, werr := x.s.Write(buf[:n]); werr != nil {
				// The server has answered without the rest, or the stream has
				// ended: reading the response tells.
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			x.fail(err)
			return err
		}
	}
	if limited && left > 0 {
		err := fmt.Errorf("http3: request body shorter than its ContentLength %d", x.req.ContentLength)
		x.fail(err)
		return err
	}
	return nil
}

const bodyBuffer = 32 << 10

var bodyBuffers = sync.Pool{New: func() any { return new([bodyBuffer]byte) }}

// armTimer starts the ResponseHeaderTimeout.
func (x *exchange) armTimer() {
	d := x.cc.t.ResponseHeaderTimeout
	x.mu.Lock()
	defer x.mu.Unlock()
	if d > 0 && !x.headSeen && x.timer == nil {
		x.timer = time.AfterFunc(d, func() { x.fail(errHeaderTimeout) })
	}
}

func (x *exchange) stopTimer() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.timer != nil {
		x.timer.Stop()
	}
}

// receive reads the head of the response.
func (x *exchange) receive() (*http.Response, error) {
	var interim uint64 // the size of interim responses that nobody looks at
	for n := 0; ; n++ {
		e, err := x.s.readHead()
		if err != nil {
			return nil, err
		}
		if e.kind != eventHeaders {
			return nil, x.s.malformed(streamError(ErrMessage, "no response"))
		}
		if n == 0 && x.trace != nil && x.trace.GotFirstResponseByte != nil {
			x.trace.GotFirstResponseByte()
		}
		h, err := parseResponse(e.fields)
		if err != nil {
			return nil, x.s.malformed(err)
		}
		if h.status >= 200 {
			x.mu.Lock()
			x.headSeen = true
			x.mu.Unlock()
			x.stopTimer()
			return x.response(h), nil
		}
		// As in net/http, who looks at interim responses decides how many are too
		// many; otherwise they share what one head may take.
		if x.trace == nil || x.trace.Got1xxResponse == nil {
			for _, f := range e.fields {
				interim += fieldSize(f)
			}
			if limit := x.cc.t.maxHeaderBytes(); interim > limit {
				return nil, x.s.malformed(streamError(ErrExcessiveLoad, "interim responses of more than %d bytes", limit))
			}
		}
		if err := x.interim(h); err != nil {
			x.fail(err)
			return nil, err
		}
	}
}

// interim acts on a 1xx response.
func (x *exchange) interim(h *responseHead) error {
	if h.status == http.StatusContinue {
		if x.trace != nil && x.trace.Got100Continue != nil {
			x.trace.Got100Continue()
		}
		if x.proceed != nil {
			x.proceedOnce.Do(func() { close(x.proceed) })
		}
	}
	if x.trace != nil && x.trace.Got1xxResponse != nil {
		return x.trace.Got1xxResponse(h.status, textproto.MIMEHeader(h.header))
	}
	return nil
}

// response makes the response of a final head.
func (x *exchange) response(h *responseHead) *http.Response {
	if x.early {
		x.req = x.req.WithContext(context.WithValue(x.req.Context(), sentEarlyKey{}, true))
	}
	resp := &http.Response{
		Status:     strconv.Itoa(h.status) + " " + http.StatusText(h.status),
		StatusCode: h.status, Proto: "HTTP/3.0", ProtoMajor: 3,
		Header: h.header, ContentLength: h.contentLength,
		Request: x.req, TLS: x.cc.tls(),
	}
	if x.method() == http.MethodConnect && h.status < 300 {
		x.tunnel = true
		resp.ContentLength = -1
		resp.Body = &responseBody{x: x}
		return resp
	}
	if x.proceed != nil {
		x.refuseBody()
	}
	resp.Trailer = declaredTrailers(h.header)
	x.s.trailers = func(t http.Header) {
		if resp.Trailer == nil {
			resp.Trailer = t
			return
		}
		for k, v := range t {
			resp.Trailer[k] = v
		}
	}
	switch {
	case x.method() == http.MethodHead, h.status == http.StatusNoContent, h.status == http.StatusNotModified:
		resp.Body = http.NoBody
		x.s.counter.declared = 0 // https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1
		if !x.cc.spawn(func() {  // ends with the stream
			_, _ = io.Copy(io.Discard, x.s) // nobody is interested
			x.finish()
		}) {
			x.finish()
		}
		return resp
	case h.contentLength <= 0 && x.s.atEnd():
		resp.ContentLength = 0
		resp.Body = http.NoBody
		x.finish()
		return resp
	}
	x.s.counter.declared = h.contentLength
	x.s.counted = h.contentLength >= 0 && resp.Trailer == nil
	body := &responseBody{x: x}
	resp.Body = body
	if x.gzip && strings.EqualFold(h.header.Get("Content-Encoding"), "gzip") {
		h.header.Del("Content-Encoding")
		h.header.Del("Content-Length")
		resp.ContentLength = -1
		resp.Uncompressed = true
		resp.Body = &gzipBody{body: body}
	}
	return resp
}

// refuseBody keeps a body back that the server answered without asking for it.
func (x *exchange) refuseBody() {
	x.proceedOnce.Do(func() {
		if !x.bodyRead.Load() {
			x.s.CancelWrite(ErrRequestCancelled)
		}
	})
}

// A responseBody is what the caller reads.
type responseBody struct {
	x      *exchange
	closed atomic.Bool
}

func (b *responseBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.x.s.Read(p)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		if !b.x.tunnel {
			b.x.finish()
		}
		return n, io.EOF
	}
	err = b.x.reason(err)
	if e, ok := errors.AsType[*Error](err); ok && errors.Is(e.Err, io.ErrUnexpectedEOF) {
		err = io.ErrUnexpectedEOF
	}
	b.x.finish()
	return n, err
}

// Close cancels what is not yet read.
func (b *responseBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.x.tunnel {
		b.x.s.cancelUnclosed(ErrRequestCancelled)
	}
	b.x.s.CancelRead(ErrRequestCancelled) // nothing after io.EOF
	b.x.finish()
	return nil
}

// A gzipBody is a responseBody that is decoded.
type gzipBody struct {
	body *responseBody
	zr   *gzip.Reader
	err  error
}

func (b *gzipBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.zr == nil {
		if b.zr, b.err = gzip.NewReader(b.body); b.err != nil {
			return 0, b.err
		}
	}
	if b.body.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.zr.Read(p)
}

func (b *gzipBody) Close() error { return b.body.Close() }
