package http3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/transport"
)

const (
	// maxEarlyPriorities bounds the PRIORITY_UPDATEs that wait for their
	// requests.
	maxEarlyPriorities = 100

	// Peers may reset requests, or change priorities, as often as it takes to
	// use a connection; more is an attempt to keep this side busy. The burst is
	// what is allowed at once, the rate, per second, what comes back.
	glitchBurst = 1000
	glitchRate  = 100
)

// A serverConn is a connection of a Server.
type serverConn struct {
	*Conn
	srv    *Server
	ctx    context.Context // of the requests' contexts; ends with the connection
	cancel context.CancelFunc
	slots  chan struct{} // one for each handler that runs

	handshaken chan struct{} // closed when requests can be no replay
	remote     remoteText

	mu         sync.Mutex
	active     int                            // requests; guarded by mu
	next       int64                          // the ID of the first request not accepted; guarded by mu
	limit      int64                          // requests from this ID on are rejected; guarded by mu
	drained    chan struct{}                  // closed at limit with no request; guarded by mu; nil before shutdown
	idle       *time.Timer                    // guarded by mu; nil: no IdleTimeout
	streams    map[transport.StreamID]*Stream // of the requests; guarded by mu
	priorities map[transport.StreamID]string  // of requests to come; guarded by mu
	glitches   float64                        // guarded by mu
	glitchTime time.Time                      // guarded by mu
}

func (s *Server) newServerConn(qc transport.Conn) *serverConn {
	c := &serverConn{
		Conn:       newConn(qc, false, s.maxHeaderBytes(), &s.Extensions),
		srv:        s,
		slots:      make(chan struct{}, s.maxStreams()),
		handshaken: make(chan struct{}),
		limit:      maxVarint,
		streams:    make(map[transport.StreamID]*Stream),
		glitchTime: time.Now(),
	}
	c.onPriority = c.priorityUpdate
	ctx := context.Background()
	if s.BaseContext != nil {
		ctx = s.BaseContext()
	}
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, qc.LocalAddr())
	if s.ConnContext != nil {
		ctx = s.ConnContext(ctx, c.Conn)
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	return c
}

// serve runs the connection to its end.
func (c *serverConn) serve() error {
	defer c.cancel()
	c.srv.workers.hold()
	defer c.srv.workers.release()
	stop := context.AfterFunc(c.qc.Context(), c.cancel)
	defer stop()
	c.awaitHandshake()
	c.start()
	c.armIdle()
	err := c.accept()
	c.cancel()
	c.mu.Lock()
	if c.idle != nil {
		c.idle.Stop()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return err
}

// awaitHandshake closes handshaken in time. It is no part of serve, whose frame
// stays on the stack for as long as the connection lives: a State is large.
//
//go:noinline
func (c *serverConn) awaitHandshake() {
	if c.qc.State().HandshakeComplete {
		close(c.handshaken)
		return
	}
	c.wg.Go(func() { // ends with the connection
		if c.qc.Handshake(c.qc.Context()) == nil {
			close(c.handshaken)
		}
	})
}

// accept starts a handler for each request. It returns when the connection has
// ended.
func (c *serverConn) accept() error {
	ctx := c.qc.Context()
	for {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return wrap(context.Cause(ctx))
		}
		qs, err := c.qc.AcceptStream(ctx)
		if err != nil {
			if ctx.Err() != nil { // it may be what AcceptStream says
				err = context.Cause(ctx)
			}
			return wrap(err)
		}
		s := c.newStream(qs)
		if !c.admit(s) {
			c.wg.Go(func() { // ends with the stream's head
				defer func() { <-c.slots }()
				c.refuse(s)
			})
			continue
		}
		c.wg.Add(1)
		c.srv.workers.run(func() { // which ends with the handler
			defer c.wg.Done()
			c.handleStream(s)
		})
	}
}

// refuse rejects a request that came after a GOAWAY. A stream that belongs to an
// extension is no request.
func (c *serverConn) refuse(s *Stream) {
	if len(c.ext.BidiStreams) > 0 && c.take(s) {
		return
	}
	s.abort(ErrRequestRejected)
}

// take hands a stream to the extension that it belongs to. It reports false if
// it is a request, or nothing.
func (c *serverConn) take(s *Stream) bool {
	if d := c.srv.readHeaderTimeout(); d > 0 {
		_ = s.SetReadDeadline(time.Now().Add(d)) // Read says so
	}
	e, err := s.readHead()
	if err != nil || e.kind != eventTaken {
		return false
	}
	c.handOver(s, e)
	return true
}

// handOver calls the extension that a stream belongs to.
func (c *serverConn) handOver(s *Stream, e event) {
	_ = s.SetReadDeadline(time.Time{}) // Read says so
	c.ext.BidiStreams[e.id](c.Conn, &restStream{s.qs, append([]byte(nil), e.data...)})
}

// admit accounts for a new request, unless the client was told that it will not
// be answered.
func (c *serverConn) admit(s *Stream) bool {
	id := s.StreamID()
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(id) >= c.limit {
		return false
	}
	c.next = int64(id) + 4
	c.active++
	if c.idle != nil {
		c.idle.Stop()
	}
	c.streams[id] = s
	s.holdCodec()
	s.ended = func() { c.release(id) }
	return true
}

// release is called when a request has ended.
func (c *serverConn) release(id transport.StreamID) {
	c.mu.Lock()
	c.active--
	delete(c.streams, id)
	delete(c.priorities, id)
	if c.active == 0 && c.drained != nil && c.limit < goAwayNotice {
		close(c.drained)
		c.drained = nil
	}
	idle := c.active == 0
	c.mu.Unlock()
	<-c.slots
	if idle {
		c.armIdle()
	}
}

// armIdle starts the IdleTimeout.
func (c *serverConn) armIdle() {
	d := c.srv.IdleTimeout
	if d <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle == nil {
		c.idle = time.AfterFunc(d, func() { c.shutdown(c.ctx) })
		return
	}
	c.idle.Reset(d)
}

// shutdown ends the connection when all its requests are answered, or returns
// when ctx is done.
//
// https://www.rfc-editor.org/rfc/rfc9114#section-5.2
func (c *serverConn) shutdown(ctx context.Context) {
	c.mu.Lock()
	if c.drained != nil || c.limit < maxVarint { // somebody else does it
		c.mu.Unlock()
		select {
		case <-c.qc.Context().Done():
		case <-ctx.Done():
		}
		return
	}
	drained := make(chan struct{})
	c.drained = drained
	c.limit = goAwayNotice
	c.mu.Unlock()
	c.drain()
	if c.send(func(codec codec) { codec.goAway(goAwayNotice) }) != nil {
		return
	}
	// Requests that are under way now arrive within a round trip.
	if !c.wait(ctx, nil, max(2*c.qc.Stats().SmoothedRTT, time.Millisecond)) {
		return
	}
	c.mu.Lock()
	c.limit = c.next
	limit := c.limit
	if c.active == 0 {
		close(drained)
		c.drained = nil
	}
	c.mu.Unlock()
	if c.send(func(codec codec) { codec.goAway(uint64(limit)) }) != nil {
		return
	}
	if !c.wait(ctx, drained, 0) {
		return
	}
	c.wait(ctx, nil, lingerTimeout)
	c.qc.CloseWithError(ErrNoError, "")
}

// wait waits for d, or for ch if that is not nil. It reports false if ctx or the
// connection ended first.
func (c *serverConn) wait(ctx context.Context, ch <-chan struct{}, d time.Duration) bool {
	var timer <-chan time.Time
	if ch == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ch:
		return true
	case <-timer:
		return true
	case <-ctx.Done():
		return false
	case <-c.qc.Context().Done():
		return false
	}
}

// glitch accounts for something that a peer may do, but not all the time.
func (c *serverConn) glitch() {
	c.mu.Lock()
	now := time.Now()
	c.glitches = max(0, c.glitches-glitchRate*now.Sub(c.glitchTime).Seconds()) + 1
	c.glitchTime = now
	over := c.glitches > glitchBurst
	c.mu.Unlock()
	if over {
		c.fail(connError(ErrExcessiveLoad, "too many cancelled requests or priority updates"))
	}
}

// priorityUpdate obeys a PRIORITY_UPDATE, which may come before its request.
//
// https://www.rfc-editor.org/rfc/rfc9218#section-7.2
func (c *serverConn) priorityUpdate(id uint64, value string) {
	c.glitch()
	sid := transport.StreamID(id)
	c.mu.Lock()
	s := c.streams[sid]
	if s != nil || int64(sid) >= c.next && len(c.priorities) < maxEarlyPriorities {
		if c.priorities == nil {
			c.priorities = make(map[transport.StreamID]string)
		}
		c.priorities[sid] = value // it wins over the header, which may come later
	}
	c.mu.Unlock()
	if s != nil {
		s.SetPriority(parsePriority(value))
	}
}

// prioritise obeys the latest of the request's header and PRIORITY_UPDATE.
func (c *serverConn) prioritise(s *Stream, header string) {
	c.mu.Lock()
	update, ok := c.priorities[s.StreamID()]
	c.mu.Unlock()
	switch {
	case ok:
		s.SetPriority(parsePriority(update))
	case header != "":
		s.SetPriority(parsePriority(header))
	}
}

// handleStream answers a request, or hands the stream to whom it belongs.
func (c *serverConn) handleStream(s *Stream) {
	handed := false
	defer func() {
		if !handed {
			s.end()
		}
	}()
	if d := c.srv.readHeaderTimeout(); d > 0 {
		_ = s.SetReadDeadline(time.Now().Add(d)) // Read says so
	}
	arrived := time.Now()
	early := !c.isHandshaken()
	e, err := s.readHead()
	if err != nil {
		c.noRequest(s, err)
		return
	}
	if e.kind == eventTaken {
		c.handOver(s, e)
		return
	}
	head, err := parseRequest(e.fields, true)
	if err != nil {
		_ = s.malformed(err) // the client is told
		return
	}
	s.counter.declared = head.contentLength
	ctx := &requestContext{conn: c.ctx, s: s, early: early && safeMethod(head.method)}
	defer ctx.end()
	req, err := c.newRequest(ctx, s, head)
	if err != nil {
		_ = s.malformed(err) // the client is told
		return
	}
	c.prioritise(s, req.Header.Get("Priority"))
	if early && !safeMethod(req.Method) && !c.waitHandshake() {
		return
	}
	c.setDeadlines(s, arrived)
	w := newResponseWriter(c, s, req)
	handed = c.run(w, req)
}

// run calls the handler. taken: the stream belongs to somebody else now.
func (c *serverConn) run(w *responseWriter, req *http.Request) (taken bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { //nolint:errorlint // a panic's value, as in net/http
				buf := make([]byte, 64<<10)
				c.srv.logger().Error("http3: panic serving", "remote", req.RemoteAddr, "panic", v,
					"stack", string(buf[:runtime.Stack(buf, false)]))
			}
			w.s.abort(ErrInternal)
			taken = false
		}
	}()
	if w.expectationFails() {
		w.WriteHeader(http.StatusExpectationFailed)
	} else {
		c.srv.handlerOf(req).ServeHTTP(w, req)
	}
	if w.taken {
		// The request lasts as long as its new owner writes.
		context.AfterFunc(w.s.qs.Context(), w.s.end)
		return true
	}
	_ = req.Body.Close() // which does not fail
	w.finish()
	return false
}

// noRequest ends a stream whose head was not read.
func (c *serverConn) noRequest(s *Stream, err error) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok && errors.Is(e.Err, errFieldsTooLarge):
		// https://www.rfc-editor.org/rfc/rfc9114#section-4.2.2
		_ = s.bufferHeaders([]field{{":status", "431"}, {"content-length", "0"}})
		_ = s.Close() // the client has gone: nobody to tell
	case ok && e.Remote:
		c.glitch()
		s.abort(ErrRequestCancelled)
	case !ok:
		s.abort(ErrRequestIncomplete) // it took too long
	}
}

func (c *serverConn) setDeadlines(s *Stream, start time.Time) {
	// The stream's next Read or Write says what is wrong with it.
	switch {
	case c.srv.ReadTimeout > 0:
		_ = s.SetReadDeadline(start.Add(c.srv.ReadTimeout))
	case c.srv.ReadHeaderTimeout > 0:
		_ = s.SetReadDeadline(time.Time{})
	}
	if c.srv.WriteTimeout > 0 {
		_ = s.SetWriteDeadline(time.Now().Add(c.srv.WriteTimeout))
	}
}

func (c *serverConn) isHandshaken() bool {
	select {
	case <-c.handshaken:
		return true
	default: // the goroutine that waits may lag behind
		return c.qc.State().HandshakeComplete
	}
}

func (c *serverConn) waitHandshake() bool {
	select {
	case <-c.handshaken:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// blankRequest is where requests with a context come from: WithContext copies.
var blankRequest http.Request

// newRequest makes the handler's request.
func (c *serverConn) newRequest(ctx context.Context, s *Stream, h *requestHead) (*http.Request, error) {
	u, uri, err := h.url()
	if err != nil {
		return nil, err
	}
	req := blankRequest.WithContext(ctx)
	req.Method, req.URL, req.RequestURI, req.Host = h.method, u, uri, h.authority
	req.Proto, req.ProtoMajor = "HTTP/3.0", 3
	req.Header, req.ContentLength = h.header, h.contentLength
	req.RemoteAddr = c.remote.string(c.qc.RemoteAddr())
	req.TLS = c.tls()
	if h.protocol != "" {
		req.Header[":protocol"] = []string{h.protocol}
	}
	req.Trailer = declaredTrailers(req.Header)
	switch {
	case h.method == http.MethodConnect:
		req.ContentLength = -1
		c.takeDatagrams(s)
		req.Body = &requestBody{s: s}
	case h.contentLength == 0, h.contentLength < 0 && s.atEnd():
		req.ContentLength = 0
		req.Body = http.NoBody
	default:
		req.Body = &requestBody{s: s}
		s.trailers = func(t http.Header) {
			if req.Trailer == nil {
				req.Trailer = t
				return
			}
			for k := range req.Trailer {
				delete(req.Trailer, k)
			}
			for k, v := range t {
				req.Trailer[k] = v
			}
		}
	}
	return req, nil
}

// declaredTrailers takes the Trailer field from h, as net/http does, and returns
// what it names.
func declaredTrailers(h http.Header) http.Header {
	var t http.Header
	for _, v := range h["Trailer"] {
		for k := range strings.SplitSeq(v, ",") {
			k = http.CanonicalHeaderKey(strings.TrimSpace(k))
			if k == "" || forbiddenTrailer(k) {
				continue
			}
			if t == nil {
				t = make(http.Header)
			}
			t[k] = nil
		}
	}
	delete(h, "Trailer")
	return t
}

// A requestBody is what the handler reads.
type requestBody struct {
	s      *Stream
	expect func() // sends 100 (Continue) once; nil if the client does not wait
	closed atomic.Bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.expect != nil {
		b.expect()
	}
	return b.s.Read(p)
}

// Close makes Read fail. What the client still sends is discarded when the
// handler has returned.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

type earlyKey struct{}

// Early reports whether a server's request came before the handshake was
// complete, so that it may be a replay (RFC 8470). That can be so only if
// transport.Config.EarlyData is set, and only for requests with a safe method:
// others wait until the handshake is complete.
func Early(r *http.Request) bool {
	early, _ := r.Context().Value(earlyKey{}).(bool)
	return early
}

// RejectEarly answers 425 (Too Early) to requests that may be a replay, to this
// server or, as an Early-Data field says, to a gateway before it; the client repeats
// them after the handshake. Others go to h.
//
// https://www.rfc-editor.org/rfc/rfc8470#section-5.2
func RejectEarly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Early(r) || r.Header.Get("Early-Data") == "1" {
			http.Error(w, fmt.Sprintf("%d %s", http.StatusTooEarly, http.StatusText(http.StatusTooEarly)), http.StatusTooEarly)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// safeMethod reports whether a replay of the request does no harm.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
func safeMethod(m string) bool {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}
