package websocket

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/anyquic/anyquic/http3"
)

// maxErrorBody is how much of the body of a response that is no handshake is
// kept, in bytes.
const maxErrorBody = 1 << 10

// DialOptions are a client's. The zero DialOptions connect over HTTP/1.1.
type DialOptions struct {
	// Transport makes the request: a *http3.Transport, a *http2.Transport of
	// golang.org/x/net/http2 or a *http.Transport, which does for HTTP/1.1 only, or
	// something that wraps one of them. If nil, there is a new one for this
	// connection, of HTTP/1.1 or, as Version says, HTTP/2.
	Transport http.RoundTripper

	// Version is the version of HTTP that Transport speaks: 1, 2 or 3. Zero
	// means that its type tells: it need not be set for the three above.
	Version int

	// TLS configures TLS if Transport is nil.
	TLS *tls.Config

	// Header is added to the request, and Host, if not empty, is its host
	// instead of the URL's.
	Header http.Header
	Host   string

	// Subprotocols are what the client speaks, best first.
	Subprotocols []string

	// Compression offers permessage-deflate (RFC 7692), without context
	// takeover. It takes time and memory.
	Compression bool

	// ReadLimit is the first [Conn.SetReadLimit]. Zero: 32 KiB.
	ReadLimit int64

	// Heartbeat sends pings. If nil, there are none.
	Heartbeat *Heartbeat
}

// Dial connects to a URL with the scheme ws or wss, or http or https, which mean
// the same. ctx bounds the handshake, and gives values and a trace to the request,
// but does not bound the Conn. Redirects are not followed. The error is a
// *HandshakeError if the server did not agree; it matches errors.ErrUnsupported if
// the server offers no extended CONNECT.
func Dial(ctx context.Context, rawURL string, opts *DialOptions) (*Conn, error) {
	if opts == nil {
		opts = &DialOptions{}
	}
	d := &dialer{opts: opts, cfg: config{client: true, readLimit: opts.ReadLimit}}
	var err error
	if d.cfg.heartbeat, err = opts.Heartbeat.check(); err != nil {
		return nil, err
	}
	if d.url, err = parseURL(rawURL); err != nil {
		return nil, err
	}
	if err := d.choose(); err != nil {
		return nil, err
	}
	// The request lasts as long as the Conn.
	reqCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	d.cancel = func() {
		cancel(net.ErrClosed)
		d.forget()
	}
	s, err := d.handshake(reqCtx)
	if !stop() && err == nil { // ctx has ended the request
		s.abort()
		err = context.Cause(ctx)
	}
	if err != nil {
		d.cancel()
		return nil, err
	}
	d.cfg.release = d.cancel
	return newConn(s, d.cfg), nil
}

func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("websocket: URL scheme %q", u.Scheme)
	}
	if u.Host == "" {
		return nil, fmt.Errorf("websocket: no host in URL %q", s)
	}
	// https://www.rfc-editor.org/rfc/rfc6455#section-3
	if u.Fragment != "" {
		return nil, fmt.Errorf("websocket: fragment in URL %q", s)
	}
	return u, nil
}

// A dialer makes a handshake.
type dialer struct {
	opts    *DialOptions
	cfg     config
	url     *url.URL
	version int
	rt      http.RoundTripper
	own     bool   // rt is for this connection only
	cancel  func() // ends the request
	local   net.Addr
	remote  net.Addr
}

// choose finds the Transport and what it speaks.
func (d *dialer) choose() error {
	d.version, d.rt = d.opts.Version, d.opts.Transport
	if d.version < 0 || d.version > 3 {
		return fmt.Errorf("websocket: HTTP version %d", d.version)
	}
	if d.version == 0 {
		switch d.rt.(type) {
		case *http3.Transport:
			d.version = 3
		case *http2.Transport: //nolint:staticcheck // that of net/http refuses a :protocol
			d.version = 2
		default:
			d.version = 1
		}
	}
	if _, ok := d.rt.(*http.Transport); ok && d.version > 1 {
		return &HandshakeError{Reason: "no transport for HTTP/" + string(rune('0'+d.version)), Err: errVersion2}
	}
	if d.rt != nil {
		return nil
	}
	d.own = true
	switch d.version {
	case 1:
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		t.TLSClientConfig = d.opts.TLS.Clone()
		d.rt = t
	case 2:
		d.rt = &http2.Transport{TLSClientConfig: d.opts.TLS.Clone()} //nolint:staticcheck // see above
	default:
		return errors.New("websocket: HTTP/3 needs DialOptions.Transport")
	}
	return nil
}

// forget ends what Dial made for this connection.
func (d *dialer) forget() {
	if !d.own {
		return
	}
	d.rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

// handshake sends the request and checks the response.
func (d *dialer) handshake(ctx context.Context) (duplex, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Conn != nil {
			d.local, d.remote = i.Conn.LocalAddr(), i.Conn.RemoteAddr()
		}
	}})
	req := (&http.Request{Method: http.MethodGet, URL: d.url, Host: d.opts.Host, Header: d.header()}).WithContext(ctx)
	var key string
	var upload *io.PipeWriter
	if d.version == 1 {
		b := make([]byte, 16)
		_, _ = rand.Read(b) // which does not fail
		key = base64.StdEncoding.EncodeToString(b)
		req.Header.Set(headerKey, key)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", protocolName)
	} else {
		req.Method = http.MethodConnect
		req.Header[connectProtocol] = []string{protocolName}
	}
	if d.version == 2 {
		var r *io.PipeReader
		r, upload = io.Pipe()
		req.Body, req.ContentLength = r, -1
	}
	resp, err := d.rt.RoundTrip(req)
	if err != nil {
		if d.version > 1 && strings.Contains(strings.ToLower(err.Error()), "extended connect") {
			// Neither package has a name for it.
			err = fmt.Errorf("%w (%w)", err, errors.ErrUnsupported)
		}
		return nil, &HandshakeError{Reason: "request failed", Err: err}
	}
	if reason := d.checkResponse(resp, key); reason != "" {
		return nil, &HandshakeError{StatusCode: resp.StatusCode, Header: resp.Header, Body: errorBody(resp), Reason: reason}
	}
	d.cfg.proto = resp.Proto
	s := d.stream(resp, upload)
	if s == nil {
		resp.Body.Close()
		return nil, &HandshakeError{StatusCode: resp.StatusCode, Header: resp.Header, Reason: "Transport gives no stream for " + resp.Proto}
	}
	return s, nil
}

// errorBody returns what there is of a body, if it comes in time, and closes it.
func errorBody(resp *http.Response) []byte {
	defer resp.Body.Close()
	if resp.StatusCode < 300 { // it is no body but a stream
		return nil
	}
	timer := time.AfterFunc(closeTimeout, func() { resp.Body.Close() })
	defer timer.Stop()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what there is
	return body
}

func (d *dialer) header() http.Header {
	h := d.opts.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	h.Set(headerVersion, version)
	if len(d.opts.Subprotocols) > 0 {
		h.Set(headerProtocol, strings.Join(d.opts.Subprotocols, ", "))
	}
	if d.opts.Compression {
		h.Set(headerExtensions, formatDeflate(agreed()))
	}
	return h
}

// checkResponse returns what is wrong with the response, or "".
//
// https://www.rfc-editor.org/rfc/rfc6455#section-4.1
// https://www.rfc-editor.org/rfc/rfc8441#section-5
func (d *dialer) checkResponse(resp *http.Response, key string) string {
	h := resp.Header
	if d.version == 1 {
		switch {
		case resp.StatusCode != http.StatusSwitchingProtocols:
			return "status " + resp.Status
		case !hasToken(h, "Connection", "Upgrade"), !hasToken(h, "Upgrade", protocolName):
			return "response is no Upgrade to websocket"
		case h.Get(headerAccept) != acceptKey(key):
			return "wrong Sec-WebSocket-Accept"
		}
	} else if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "status " + resp.Status
	}
	protocols := h[headerProtocol]
	if len(protocols) > 1 || len(protocols) == 1 && !slices.Contains(d.opts.Subprotocols, protocols[0]) {
		return fmt.Sprintf("subprotocol %q was not offered", protocols)
	}
	d.cfg.subprotocol = h.Get(headerProtocol)
	var err error
	if d.cfg.compress, err = checkDeflate(h, d.opts.Compression); err != nil {
		return err.Error()
	}
	return ""
}

// stream returns the stream that the response carries, or nil.
func (d *dialer) stream(resp *http.Response, upload *io.PipeWriter) duplex {
	p := &pumpDuplex{local: d.local, remote: d.remote}
	switch d.version {
	case 3:
		s, ok := http3.ResponseStream(resp)
		if !ok {
			return nil
		}
		return &streamDuplex{Stream: s, resp: resp}
	case 2:
		p.w = upload
		p.closeWrite = func() bool { return upload.Close() == nil }
		p.kill = func() {
			_ = upload.CloseWithError(net.ErrClosed) // which does not fail
			_ = resp.Body.Close()                    // likewise
			d.cancel()
		}
	default:
		body, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			return nil
		}
		p.w = body
		// Only a connection of its own could be half closed.
		p.closeWrite = func() bool { return false }
		p.kill = func() { _ = body.Close() } // it is not needed any more
	}
	p.stop = p.kill
	return p.start(resp.Body)
}
