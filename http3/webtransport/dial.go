package webtransport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/anyquic/anyquic/http3"
)

// DialOptions say what a client wants of a session. The zero DialOptions want a
// connection for it alone.
type DialOptions struct {
	// Header is sent with the request, besides what this package sends. For a
	// server that checks it, set "Origin".
	Header http.Header

	// Protocols are the application protocols that the client offers, the
	// preferred first: printable ASCII, not empty. See [Session.Protocol].
	Protocols []string

	// RequireProtocol makes Dial fail if the server chooses none of Protocols.
	RequireProtocol bool

	// Pool makes the session share the connection that t has, or makes, for the
	// server, with requests and other sessions, as many as the server allows;
	// then Dial fails with [ErrSessionLimit]. It needs [ConfigureTransport].
	Pool bool

	// Config is for a connection that the session does not share. Nil is the
	// zero Config.
	Config *Config
}

// Dial asks the server of an https URL for a session and waits for its answer,
// until ctx is done; the session lasts longer. Unless opts.Pool is set it has a
// connection of its own, made as t makes its connections, from its fields
// Engine, Dial, TLS, Config, MaxResponseHeaderBytes and Extensions; nothing else
// of t is touched. A nil opts is the zero DialOptions.
//
// The error is a [*StatusError] if the server refuses, a [*RequirementsError] if
// it has no WebTransport, or what http3.Transport.RoundTrip returns. Redirects
// are not followed.
func Dial(ctx context.Context, t *http3.Transport, rawURL string, opts *DialOptions) (*Session, error) {
	if opts == nil {
		opts = new(DialOptions)
	}
	req, err := newRequest(rawURL, opts)
	if err != nil {
		return nil, err
	}
	if opts.Pool {
		if t.BidiStreams[streamBidi] == nil {
			return nil, errors.New("webtransport: ConfigureTransport was not called")
		}
		return dial(ctx, t, req, opts, func() {})
	}
	own := &http3.Transport{
		Engine: t.Engine, Dial: t.Dial, TLS: t.TLS, Config: t.Config,
		MaxResponseHeaderBytes: t.MaxResponseHeaderBytes, Extensions: t.Extensions,
	}
	ConfigureTransport(own, opts.Config)
	closeOwn := func() { _ = own.Close() } // which does not fail
	s, err := dial(ctx, own, req, opts, closeOwn)
	if err != nil {
		closeOwn()
		return nil, err
	}
	return s, nil
}

func newRequest(rawURL string, opts *DialOptions) (*http.Request, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("webtransport: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return nil, fmt.Errorf("webtransport: %q is no https URL of a server, without a fragment", rawURL)
	}
	for _, p := range opts.Protocols {
		if !validProtocol(p) {
			return nil, fmt.Errorf("webtransport: protocol %q is empty or not printable ASCII", p)
		}
	}
	req := &http.Request{Method: http.MethodConnect, URL: u, Host: u.Host, Header: opts.Header.Clone()}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	req.Header[":protocol"] = []string{protocol} // chainConnect knows better
	req.Header.Set(headerDraft02, "1")
	if len(opts.Protocols) > 0 {
		req.Header.Set(headerAvailable, formatStrings(opts.Protocols...))
	}
	return req, nil
}

// A dialing is a request for a session under way.
type dialing struct {
	own bool      // the connection is for the session alone
	reg *registry // has a session reserved; nil: none yet
}

type dialingKey struct{}

func (d *dialing) release() {
	if d.reg != nil {
		d.reg.unreserve()
		d.reg = nil
	}
}

// chainConnect returns the function for http3.Extensions.ExtendedConnect: it asks for
// the version that the server speaks.
func chainConnect(before func(*http3.Conn, *http.Request) error) func(*http3.Conn, *http.Request) error {
	return func(c *http3.Conn, req *http.Request) error {
		if before != nil {
			if err := before(c, req); err != nil {
				return err
			}
		}
		d, ok := req.Context().Value(dialingKey{}).(*dialing)
		if !ok {
			return nil // not a session of this package
		}
		return d.connect(c, req)
	}
}

// connect prepares the request for a connection.
func (d *dialing) connect(c *http3.Conn, req *http.Request) error {
	d.release() // from the attempt before
	settings, err := c.Settings(req.Context())
	if err != nil {
		return err
	}
	if v := settings.Other[settingEnabled15]; v > 1 {
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.1
		_ = c.Transport().CloseWithError(http3.ErrSettings, fmt.Sprintf("setting %#x is %d", settingEnabled15, v)) // the first call counts
		return context.Cause(c.Transport().Context())
	}
	reg := registryOf(c)
	v, err := negotiate(settings, reg.cfg)
	if err == nil && c.Transport().State().MaxDatagram == 0 {
		err = &RequirementsError{"QUIC datagrams at the server"}
	}
	if err != nil {
		if d.own {
			// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.1
			_ = c.Transport().CloseWithError(codeRequirementsNotMet, err.Error()) // the first call counts
		}
		return err
	}
	if !reg.reserve(int(v.maxSessions)) {
		return ErrSessionLimit
	}
	d.reg = reg
	req.Header[":protocol"] = []string{v.protocol}
	return nil
}

// dial sends the request on t. closer releases t.
func dial(ctx context.Context, t *http3.Transport, req *http.Request, opts *DialOptions, closer func()) (*Session, error) {
	d := &dialing{own: !opts.Pool}
	defer d.release()
	// The session outlives ctx, which bounds only its start.
	values := context.WithoutCancel(ctx)
	lasting, cancel := context.WithCancelCause(context.WithValue(values, dialingKey{}, d))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	resp, err := t.RoundTrip(req.WithContext(lasting))
	if !stop() && err == nil {
		_ = resp.Body.Close() // which does not fail
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel(nil)
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			err = context.Cause(ctx) // not how lasting ended
		}
		return nil, err
	}
	release := func() {
		_ = resp.Body.Close() // which does not fail
		cancel(nil)
		closer()
	}
	refuse := func(err error) (*Session, error) {
		_ = resp.Body.Close()
		cancel(nil)
		return nil, err
	}
	connect, ok := http3.ResponseStream(resp)
	if !ok {
		return refuse(&StatusError{resp.StatusCode, resp.Header})
	}
	proto, ok := chosen(resp.Header, opts.Protocols)
	if !ok || proto == "" && opts.RequireProtocol {
		// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.3
		connect.CancelRead(codeALPN)
		connect.CancelWrite(codeALPN)
		if !opts.Pool {
			_ = connect.Conn().Transport().CloseWithError(codeALPN, "") // the first call counts
		}
		return refuse(fmt.Errorf("webtransport: the server chose protocol %q of %q", proto, opts.Protocols))
	}
	s := newSession(values, d.reg, connect, resp.Header, proto, release)
	d.reg = nil // the session has it
	s.start()
	return s, nil
}
