package http3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/anyquic/anyquic/transport"
)

const (
	// maxAttempts bounds how often a request is sent that servers say they did
	// not process.
	maxAttempts = 4

	// defaultIdleConnTimeout is that of http.DefaultTransport.
	defaultIdleConnTimeout = 90 * time.Second

	// defaultKeepAlive leaves two PINGs within the usual idle timeout, so that
	// a response may take its time.
	//
	// https://www.rfc-editor.org/rfc/rfc9114#section-5.1
	defaultKeepAlive = 10 * time.Second
)

// A Transport is a [http.RoundTripper] that speaks HTTP/3. It keeps one
// connection for each authority and uses it for all requests, as many at once as
// the server allows; further ones wait. Its fields must not be changed after the
// first request.
//
// A request whose context ends, or whose response body is closed before its end,
// is cancelled at the server. One that the server says it did not process is
// sent again if its body can be.
type Transport struct {
	// Engine makes connections, each on a socket of its own. It must be set
	// unless Dial is.
	Engine transport.Transport

	// Dial, if not nil, makes connections instead. cfg.TLS.ServerName is set. What
	// is traced of it is what it traces: see TraceDial.
	Dial func(ctx context.Context, addr string, cfg *transport.Config) (transport.Conn, error)

	// TLS configures TLS. A nil TLS is the zero Config.
	TLS *tls.Config

	// Config configures connections, but for TLS. If nil, the zero Config
	// does. KeepAlive is 10s by default, since responses may take longer than
	// the idle timeout; connections without requests end all the same. With its EarlyData, requests with safe methods are sent before the
	// handshake is complete, when its Sessions know the server.
	Config *transport.Config

	// DisableCompression keeps the Transport from asking for gzip, and from
	// decoding what it asked for.
	DisableCompression bool

	// MaxResponseHeaderBytes limits the head and the trailers of a response,
	// each field counted with 32 bytes above its text, and the sum of its interim
	// responses (1xx), unless an httptrace.ClientTrace looks at these. Zero: 10
	// MB, as in net/http.
	MaxResponseHeaderBytes int64

	// ResponseHeaderTimeout bounds the wait for a response's head after the
	// request is written. Zero: none.
	ResponseHeaderTimeout time.Duration

	// ExpectContinueTimeout bounds the wait for 100 (Continue) of a request
	// with "Expect: 100-continue". After it the body is sent. Zero: at once.
	ExpectContinueTimeout time.Duration

	// IdleConnTimeout ends connections without a request. Default 90s,
	// negative: none.
	IdleConnTimeout time.Duration

	Extensions

	mu     sync.Mutex
	closed bool                     // guarded by mu
	conns  map[string]*poolEntry    // by host:port; guarded by mu
	all    map[*clientConn]struct{} // also those that take no request any more; guarded by mu
	wg     sync.WaitGroup           // of dials and connections
}

// A poolEntry is a connection, or the attempt to make one.
type poolEntry struct {
	ready chan struct{} // closed when conn or err is set
	conn  *clientConn
	err   error
}

var errTransportClosed = fmt.Errorf("http3: Transport is closed: %w", net.ErrClosed)

// RoundTrip sends a request and returns the head of its response. See
// [http.RoundTripper].
//
// A CONNECT request with a ":protocol" in its Header is an extended CONNECT
// (RFC 9220). [ResponseStream] returns the stream of a CONNECT that succeeded.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	addr := authorityAddr(req.URL.Host)
	late := false // do not send before the handshake is complete
	for attempt := 1; ; attempt++ {
		cc, reused, err := t.requestConn(req.Context(), addr)
		if err != nil {
			closeBody(req)
			return nil, err
		}
		resp, err := cc.roundTrip(req, late)
		retry := attempt < maxAttempts && t.retry(req, resp, err, reused)
		if !retry {
			if err != nil {
				closeBody(req) // once more does no harm
			}
			return resp, unwrapSent(err)
		}
		if resp != nil {
			resp.Body.Close()
		} else if !isStreamError(unwrapSent(err)) {
			cc.withdraw()
		}
		late = true
		if req, err = rewind(req); err != nil {
			return nil, err
		}
	}
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

func (t *Transport) check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("http3: nil Request.URL")
	case req.URL.Scheme != "https":
		return fmt.Errorf("http3: unsupported scheme %q", req.URL.Scheme)
	case req.URL.Host == "":
		return errors.New("http3: no host in request URL")
	case req.Method != "" && !validToken(req.Method):
		return fmt.Errorf("http3: invalid method %q", req.Method)
	}
	if _, err := authority(req); err != nil {
		return err
	}
	for k, vv := range req.Header {
		if !validToken(k) && k != ":protocol" {
			return fmt.Errorf("http3: invalid header field name %q", k)
		}
		for _, v := range vv {
			if !validFieldText(v) {
				return fmt.Errorf("http3: invalid header field value for %q", k) // which may be a secret
			}
		}
	}
	for k, vv := range req.Trailer {
		if !validToken(k) || forbiddenTrailer(http.CanonicalHeaderKey(k)) {
			return fmt.Errorf("http3: invalid trailer field name %q", k)
		}
		for _, v := range vv {
			if !validFieldText(v) {
				return fmt.Errorf("http3: invalid trailer field value for %q", k)
			}
		}
	}
	return nil
}

// authority returns the ":authority" of a request: its host in ASCII, as DNS has
// it, and without the zone of an IPv6 address, which means nothing to the server.
//
// https://www.rfc-editor.org/rfc/rfc5891#section-4
// https://www.rfc-editor.org/rfc/rfc6874#section-1
func authority(req *http.Request) (string, error) {
	said := cmp.Or(req.Host, req.URL.Host)
	host, err := asciiHost(said)
	if strings.HasPrefix(host, "[") {
		if end := strings.LastIndexByte(host, ']'); end > 0 {
			if zone := strings.IndexByte(host[:end], '%'); zone > 0 {
				host = host[:zone] + host[end:]
			}
		}
	}
	if err != nil || !validAuthority(host) {
		return "", fmt.Errorf("http3: invalid host %q", said)
	}
	return host, nil
}

// asciiHost returns a host with or without port as it is in DNS.
func asciiHost(s string) (string, error) {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return s, nil
	}
	host, port, found := strings.Cut(s, ":") // an IPv6 address is ASCII
	host, err := idna.Lookup.ToASCII(host)
	if found {
		host += ":" + port
	}
	return host, err
}

// authorityAddr returns host:port, with the host in ASCII.
func authorityAddr(host string) string {
	if ascii, err := asciiHost(host); err == nil {
		host = ascii // otherwise it is wrong, which others say
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), "443")
}

// conn returns a connection for addr.
func (t *Transport) conn(ctx context.Context, addr string) (_ *clientConn, reused bool, _ error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, false, errTransportClosed
	}
	e := t.conns[addr]
	reused = e != nil
	if e == nil {
		e = &poolEntry{ready: make(chan struct{})}
		if t.conns == nil {
			t.conns = make(map[string]*poolEntry)
			t.all = make(map[*clientConn]struct{})
		}
		t.conns[addr] = e
		// It ends when the connection does: all who wait for it share it, so
		// that it is not for the first of them to cancel.
		dialCtx := context.WithoutCancel(ctx)
		t.wg.Go(func() { t.dial(dialCtx, addr, e) })
	}
	t.mu.Unlock()
	select {
	case <-e.ready:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if e.err != nil {
		return nil, false, e.err
	}
	return e.conn, reused, nil
}

// requestConn is conn for a request, whose trace is told.
func (t *Transport) requestConn(ctx context.Context, addr string) (_ *clientConn, reused bool, _ error) {
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(addr)
	}
	cc, reused, err := t.conn(ctx, addr)
	if err != nil {
		return nil, false, err
	}
	if info := cc.gotConn(); trace != nil && trace.GotConn != nil {
		trace.GotConn(info)
	}
	return cc, reused, nil
}

// dial makes a connection and runs it to its end.
func (t *Transport) dial(ctx context.Context, addr string, e *poolEntry) {
	qc, err := t.connect(ctx, addr)
	if err != nil {
		e.err = err
		t.forget(addr, e)
		close(e.ready)
		return
	}
	cc := newClientConn(t, qc, func() { t.forget(addr, e) })
	t.mu.Lock()
	t.all[cc] = struct{}{}
	closed := t.closed
	t.mu.Unlock()
	e.conn = cc
	close(e.ready)
	if closed {
		qc.CloseWithError(ErrNoError, "")
	}
	cc.run()
	t.forget(addr, e)
	t.mu.Lock()
	delete(t.all, cc)
	t.mu.Unlock()
}

func (t *Transport) connect(ctx context.Context, addr string) (transport.Conn, error) {
	cfg, err := http3Config(t.Config, &t.Extensions)
	if err != nil {
		return nil, err
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = defaultKeepAlive
		if cfg.IdleTimeout > 0 {
			cfg.KeepAlive = min(cfg.KeepAlive, cfg.IdleTimeout/3)
		}
	}
	cfg.TLS = &tls.Config{}
	if t.TLS != nil {
		cfg.TLS = t.TLS.Clone()
	}
	cfg.TLS.NextProtos = []string{ALPN}
	if cfg.TLS.ServerName == "" {
		cfg.TLS.ServerName, _, _ = net.SplitHostPort(addr)
	}
	if len(t.BidiStreams) == 0 {
		// https://www.rfc-editor.org/rfc/rfc9114#section-6.1: a server opens none.
		cfg.MaxStreams = -1
	}
	switch {
	case t.Dial != nil:
		return t.Dial(ctx, addr, cfg)
	case t.Engine != nil:
		return transport.DialAddr(ctx, tracedEngine{t.Engine}, addr, cfg)
	}
	return nil, errors.New("http3: Transport has no Engine and no Dial")
}

// forget makes the next request to addr dial again.
func (t *Transport) forget(addr string, e *poolEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[addr] == e {
		delete(t.conns, addr)
	}
}

// CloseIdleConnections closes the connections that have no request.
func (t *Transport) CloseIdleConnections() {
	for _, cc := range t.list() {
		cc.closeIfIdle()
	}
}

// Close ends all connections, with their requests, and makes further requests
// fail. It waits for the goroutines of the connections, and for dials in
// progress.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, cc := range t.list() {
		cc.qc.CloseWithError(ErrNoError, "")
	}
	t.wg.Wait()
	return nil
}

func (t *Transport) list() []*clientConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*clientConn, 0, len(t.all))
	for cc := range t.all {
		list = append(list, cc)
	}
	return list
}

func (t *Transport) maxHeaderBytes() uint64 {
	if t.MaxResponseHeaderBytes <= 0 {
		return 10 << 20
	}
	return uint64(t.MaxResponseHeaderBytes)
}

// A sentError is one that came after the request may have reached the server.
type sentError struct {
	err      error
	rejected bool // and the server says that it did not process it
	noHead   bool // no byte of a response was seen
	bodyRead bool // the request's body was touched
}

func (e *sentError) Error() string { return e.err.Error() }

func unwrapSent(err error) error {
	if e, ok := err.(*sentError); ok { //nolint:errorlint // roundTrip returns it as it is
		return e.err
	}
	return err
}

// retry reports whether the request may be sent once more.
func (t *Transport) retry(req *http.Request, resp *http.Response, err error, reused bool) bool {
	if resp != nil {
		// https://www.rfc-editor.org/rfc/rfc8470#section-5.2
		return resp.StatusCode == http.StatusTooEarly && resp.Request.Context().Value(sentEarlyKey{}) != nil && replayable(req, true)
	}
	e, ok := err.(*sentError) //nolint:errorlint // roundTrip returns it as it is
	if !ok || req.Context().Err() != nil {
		return false
	}
	switch {
	case e.rejected:
	case errors.Is(e.err, transport.ErrEarlyDataRejected):
		// https://www.rfc-editor.org/rfc/rfc8470#section-3
	case reused && e.noHead && idempotent(req) && errors.Is(e.err, net.ErrClosed) && !isStreamError(e.err):
		// The connection ended, perhaps before the request came. See
		// https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
	default:
		return false
	}
	return replayable(req, e.bodyRead)
}

func isStreamError(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && !e.Conn
}

func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

// replayable reports whether the body can be sent once more.
func replayable(req *http.Request, bodyRead bool) bool {
	return req.Body == nil || req.Body == http.NoBody || !bodyRead || req.GetBody != nil
}

// rewind returns the request with a fresh body.
func rewind(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	r := *req
	r.Body = body
	return &r, nil
}

// ResponseStream returns the stream of a CONNECT request that got a 2xx
// response: what is written to it follows the request. The caller must Close or
// cancel it, and Close the response's body. It reports false for other responses.
func ResponseStream(resp *http.Response) (*Stream, bool) {
	b, ok := resp.Body.(*responseBody)
	if !ok || !b.x.tunnel {
		return nil, false
	}
	return b.x.s, true
}

// Reprioritise orders a response that is under way among those of its
// connection (RFC 9218). It does nothing for other versions of HTTP. The priority
// that a request starts with is that of its Priority header field.
func Reprioritise(resp *http.Response, p transport.Priority) error {
	var x *exchange
	switch b := resp.Body.(type) {
	case *responseBody:
		x = b.x
	case *gzipBody:
		x = b.body.x
	default:
		return nil
	}
	return x.cc.send(func(c codec) { c.priorityUpdate(x.s.StreamID(), formatPriority(p)) })
}

var _ io.Closer = (*Transport)(nil)
