package websocket

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/anyquic/anyquic/http3"
)

// AcceptOptions are a server's. The zero AcceptOptions are good for most.
type AcceptOptions struct {
	// Subprotocols are what the server speaks, best first. If the client offers
	// none of them, none is agreed on.
	Subprotocols []string

	// OriginPatterns allow pages of other origins than the request's host to
	// connect: patterns of path.Match for the origin's host, with its port if it
	// has one, or, with "://", for scheme and host. AnyOrigin allows all, which
	// is for servers that do not tell users by cookies or by where they are.
	OriginPatterns []string
	AnyOrigin      bool

	// Compression accepts permessage-deflate (RFC 7692), without context
	// takeover. It takes time and memory.
	Compression bool

	// ReadLimit is the first [Conn.SetReadLimit]. Zero: 32 KiB.
	ReadLimit int64

	// Heartbeat sends pings. If nil, there are none.
	Heartbeat *Heartbeat

	// Group, if not nil, is what the connection belongs to.
	Group *Group
}

// Accept answers a WebSocket handshake: an Upgrade of HTTP/1.1 or an extended
// CONNECT of HTTP/2 or HTTP/3. Nothing must have been written to w, and nothing may
// be afterwards. If it fails it has answered the request with an error.
//
// Header fields of w are part of the answer. Timeouts of the server do not count
// for the Conn, which lives on after the handler has returned, but not over HTTP/2;
// see the package's comment.
func Accept(w http.ResponseWriter, r *http.Request, opts *AcceptOptions) (*Conn, error) {
	if opts == nil {
		opts = &AcceptOptions{}
	}
	a := &acceptor{w: w, r: r, opts: opts, cfg: config{proto: r.Proto, readLimit: opts.ReadLimit}}
	status, err := a.check()
	if err != nil {
		http.Error(w, err.Error(), status)
		return nil, &HandshakeError{StatusCode: status, Reason: err.Error()}
	}
	a.agree()
	s, err := a.take()
	if errors.Is(err, errors.ErrUnsupported) { // by the ResponseWriter: there is no answer yet
		http.Error(w, "WebSocket is not possible here", http.StatusNotImplemented)
		return nil, &HandshakeError{StatusCode: http.StatusNotImplemented, Reason: "ResponseWriter gives no stream", Err: err}
	}
	if err != nil {
		return nil, &HandshakeError{Reason: "cannot take the stream", Err: err}
	}
	c := newConn(s, a.cfg)
	if opts.Group != nil && !opts.Group.add(c) {
		_ = c.Close(StatusGoingAway, "") // it came too late, which is not the caller's mistake
		return nil, c.reason()
	}
	if r.ProtoMajor == 2 {
		// The stream ends with the handler.
		stop := context.AfterFunc(r.Context(), func() { _ = c.lost(net.ErrClosed) })
		context.AfterFunc(c.ctx, func() { stop() })
	}
	return c, nil
}

// An acceptor answers a handshake.
type acceptor struct {
	w    http.ResponseWriter
	r    *http.Request
	opts *AcceptOptions
	cfg  config
}

// check returns what is wrong with the request, with the status that says so.
//
// https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1
// https://www.rfc-editor.org/rfc/rfc8441#section-5
func (a *acceptor) check() (status int, err error) {
	h := a.r.Header
	if a.cfg.heartbeat, err = a.opts.Heartbeat.check(); err != nil {
		return http.StatusInternalServerError, err
	}
	if a.r.ProtoMajor >= 2 {
		switch {
		case a.r.Method != http.MethodConnect:
			return http.StatusBadRequest, fmt.Errorf("WebSocket needs CONNECT in %s, not %s", a.r.Proto, a.r.Method)
		case h.Get(connectProtocol) != protocolName:
			// https://www.rfc-editor.org/rfc/rfc9220#section-3
			return http.StatusNotImplemented, fmt.Errorf("CONNECT protocol %q is not websocket", h.Get(connectProtocol))
		}
	} else if status, err = a.checkUpgrade(); err != nil {
		return status, err
	}
	if h.Get(headerVersion) != version {
		a.w.Header().Set(headerVersion, version)
		return http.StatusBadRequest, fmt.Errorf("WebSocket version %q is not 13", h.Get(headerVersion))
	}
	if !a.opts.AnyOrigin {
		if err := checkOrigin(a.r, a.opts.OriginPatterns); err != nil {
			return http.StatusForbidden, err
		}
	}
	if a.opts.Group != nil && a.opts.Group.isClosed() {
		return http.StatusServiceUnavailable, fmt.Errorf("the server is going away")
	}
	return 0, nil
}

func (a *acceptor) checkUpgrade() (status int, err error) {
	h := a.r.Header
	if !hasToken(h, "Connection", "Upgrade") || !hasToken(h, "Upgrade", protocolName) {
		a.w.Header().Set("Connection", "Upgrade")
		a.w.Header().Set("Upgrade", protocolName)
		return http.StatusUpgradeRequired, fmt.Errorf("not an Upgrade to websocket")
	}
	if a.r.Method != http.MethodGet {
		return http.StatusMethodNotAllowed, fmt.Errorf("method %s is not GET", a.r.Method)
	}
	if !a.r.ProtoAtLeast(1, 1) {
		return http.StatusHTTPVersionNotSupported, fmt.Errorf("%s has no Upgrade", a.r.Proto)
	}
	keys := h[headerKey]
	if len(keys) != 1 {
		return http.StatusBadRequest, fmt.Errorf("%d Sec-WebSocket-Key", len(keys))
	}
	if k, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(k) != 16 {
		return http.StatusBadRequest, fmt.Errorf("invalid Sec-WebSocket-Key")
	}
	return 0, nil
}

// agree chooses subprotocol and extensions.
func (a *acceptor) agree() {
	h := a.w.Header()
	if a.cfg.subprotocol = chooseSubprotocol(a.r.Header, a.opts.Subprotocols); a.cfg.subprotocol != "" {
		h.Set(headerProtocol, a.cfg.subprotocol)
	}
	if a.opts.Compression {
		if answer := chooseDeflate(a.r.Header); answer != "" {
			h.Set(headerExtensions, answer)
			a.cfg.compress = true
		}
	}
}

// take sends the head of the response and takes the stream.
func (a *acceptor) take() (duplex, error) {
	switch a.r.ProtoMajor {
	case 3:
		s, err := http3.TakeStream(a.w)
		if err != nil {
			return nil, err
		}
		return &streamDuplex{Stream: s}, nil
	case 2:
		return a.takeResponse()
	}
	return a.hijack()
}

// hijack takes the connection of HTTP/1.1 and writes the response's head to it.
func (a *acceptor) hijack() (duplex, error) {
	h := a.w.Header()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", protocolName)
	h.Set(headerAccept, acceptKey(strings.TrimSpace(a.r.Header.Get(headerKey))))
	nc, brw, err := http.NewResponseController(a.w).Hijack()
	if err != nil {
		return nil, err
	}
	// What bounded the request does not bound what follows it.
	err = nc.SetDeadline(time.Time{})
	if err == nil {
		err = writeHead(brw.Writer, h)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return newNetDuplex(nc, brw.Reader), nil
}

func writeHead(bw *bufio.Writer, h http.Header) error {
	_, _ = bw.WriteString("HTTP/1.1 101 Switching Protocols\r\n") // Flush says it
	if err := h.Write(bw); err != nil {
		return err
	}
	_, _ = bw.WriteString("\r\n") // likewise
	return bw.Flush()
}

// takeResponse uses the response and the request's body of HTTP/2.
func (a *acceptor) takeResponse() (duplex, error) {
	rc := http.NewResponseController(a.w)
	a.w.WriteHeader(http.StatusOK)
	for _, set := range []func(time.Time) error{rc.SetReadDeadline, rc.SetWriteDeadline} {
		if err := set(time.Time{}); err != nil {
			return nil, err
		}
	}
	if err := rc.Flush(); err != nil {
		return nil, err
	}
	w := &responseWriter{ctx: a.r.Context(), w: a.w, rc: rc}
	stop := func() { _ = a.r.Body.Close() } // which does not fail
	d := &pumpDuplex{
		w: w, stop: stop,
		kill: func() {
			w.reset()
			stop()
		},
		// The server ends its direction when the handler returns.
		closeWrite: func() bool { return false },
	}
	d.local, _ = a.r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if ap, err := netip.ParseAddrPort(a.r.RemoteAddr); err == nil {
		d.remote = net.TCPAddrFromAddrPort(ap)
	}
	return d.start(a.r.Body), nil
}
