package webtransport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/anyquic/anyquic/http3"
)

// AcceptOptions say which sessions a handler wants. The zero AcceptOptions want
// those from the handler's own origin, and from clients that are no browsers.
type AcceptOptions struct {
	// Origins are the other origins whose pages may start sessions:
	// "https://example.com:8443", or "example.com" for https and its usual
	// port. A host that starts with "*." stands for all below it, a port "*"
	// for all, and "*" alone for every page there is.
	Origins []string

	// Protocols are the application protocols that the handler speaks, the
	// preferred first. The first that the client offers is taken: see
	// [Session.Protocol].
	Protocols []string

	// RequireProtocol refuses (400) a client that offers none of Protocols.
	// Otherwise its session has none.
	RequireProtocol bool
}

// settingsTimeout bounds the wait for a client's settings.
const settingsTimeout = 10 * time.Second

// IsRequest reports whether r asks for a session.
func IsRequest(r *http.Request) bool {
	if r.Method != http.MethodConnect || r.ProtoMajor != 3 {
		return false
	}
	p := r.Header[":protocol"]
	return len(p) == 1 && (p[0] == protocol || p[0] == protocol15)
}

// Accept starts the session that a client's request asks for, with what is in
// w.Header() in the response. If it returns an error it has answered the
// request: with 405 if that is for something else, 403 if its Origin is not
// allowed, 429 if the connection carries Config.MaxSessions sessions, 400 if the
// client cannot have a session, and 500 if the server was not configured for
// them. A nil opts is the zero AcceptOptions.
//
// The session goes on when the handler has returned; it must be closed.
func Accept(w http.ResponseWriter, r *http.Request, opts *AcceptOptions) (*Session, error) {
	if opts == nil {
		opts = new(AcceptOptions)
	}
	s, status, err := start(w, r, opts)
	if err != nil {
		if status != 0 {
			http.Error(w, http.StatusText(status), status)
		}
		return nil, err
	}
	return s, nil
}

// start returns the status to answer with, or 0 if there is no use in that.
func start(w http.ResponseWriter, r *http.Request, opts *AcceptOptions) (_ *Session, status int, _ error) {
	if !IsRequest(r) {
		w.Header().Set("Allow", http.MethodConnect)
		return nil, http.StatusMethodNotAllowed, fmt.Errorf("webtransport: the request is no extended CONNECT for a session: %w", errors.ErrUnsupported)
	}
	if !originAllowed(r, opts.Origins) {
		return nil, http.StatusForbidden, fmt.Errorf("webtransport: origin %q is not allowed", r.Header.Get("Origin"))
	}
	c := http3.ConnOf(w)
	if c == nil {
		return nil, http.StatusInternalServerError, errors.New("webtransport: the ResponseWriter is wrapped and has no Unwrap method")
	}
	reg := registryOf(c)
	if reg == nil {
		return nil, http.StatusInternalServerError, errors.New("webtransport: ConfigureServer was not called")
	}
	// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-15#section-3.1
	ctx, cancel := context.WithTimeout(r.Context(), settingsTimeout)
	defer cancel()
	settings, err := c.Settings(ctx)
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("webtransport: no settings of the client: %w", err)
	}
	if !settings.Datagrams || c.Transport().State().MaxDatagram == 0 {
		return nil, http.StatusBadRequest, &RequirementsError{"HTTP datagrams at the client"}
	}
	proto := choose(opts.Protocols, offered(r.Header))
	if proto == "" && opts.RequireProtocol {
		return nil, http.StatusBadRequest, fmt.Errorf("webtransport: the client offers none of the protocols %q", opts.Protocols)
	}
	if proto != "" {
		w.Header().Set(headerProtocol, formatStrings(proto))
	}
	if r.Header.Get(headerDraft02) != "" {
		w.Header().Set("Sec-Webtransport-Http3-Draft", "draft02")
	}
	if !reg.reserve(reg.cfg.MaxSessions) {
		return nil, http.StatusTooManyRequests, ErrSessionLimit
	}
	connect, err := http3.TakeStream(w)
	if err != nil {
		reg.unreserve()
		return nil, 0, fmt.Errorf("webtransport: %w", err)
	}
	s := newSession(context.WithoutCancel(r.Context()), reg, connect, r.Header, proto, func() {})
	s.start()
	return s, 0, nil
}

// headerDraft02 is how clients of draft-02 say so.
//
// https://datatracker.ietf.org/doc/html/draft-ietf-webtrans-http3-02#section-3.3
const headerDraft02 = "Sec-Webtransport-Http3-Draft02"
