package allhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/anyquic/anyquic/transport"
)

// mayBeEarly reports whether a request may be sent before QUIC's handshake is
// complete. Such a request may be sent twice.
//
// https://www.rfc-editor.org/rfc/rfc8470#section-4
func (t *Transport) mayBeEarly(req *http.Request) bool {
	if t.QUIC == nil || !t.QUIC.EarlyData || t.QUIC.Sessions == nil || hasBody(req) {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

var errTCPFirst = errors.New("allhttp: TCP was connected first")

// sendEarly sends a request over HTTP/3 while the race to its origin goes on,
// and takes it back if TCP wins. It returns no response and no error if the
// request is to be sent as the race says.
func (t *Transport) sendEarly(req *http.Request, r *race, start time.Time) (*http.Response, error) {
	places := t.places(r.origin)
	if len(places) == 0 {
		return nil, nil
	}
	p := places[0]
	ctx, cancel := context.WithCancelCause(req.Context())
	early := req.WithContext(ctx)
	aim(early, p)
	type result struct {
		resp *http.Response
		err  error
	}
	got := make(chan result, 1)
	go func() { // ends with ctx or the response, which is waited for below
		resp, err := t.h3.RoundTrip(early) //nolint:bodyclose // the receiver has it
		got <- result{resp, err}
	}()
	var res result
	select {
	case res = <-got:
	case <-r.decided:
		if !r.http3 {
			cancel(errTCPFirst)
		}
		res = <-got
	}
	if res.err == nil && res.resp.StatusCode == http.StatusMisdirectedRequest {
		res.resp.Body.Close() // the usual way deals with it
		res.err = errTCPFirst
	}
	if res.err != nil {
		cancel(nil)
		if req.Context().Err() != nil {
			return nil, context.Cause(req.Context())
		}
		return nil, nil
	}
	// The context is that of the body, which ends with the connection at last.
	ends := t.ctx
	if c := t.chooseEarly(req, p, ReasonRace, start); c != nil {
		ends = c.Context()
	}
	context.AfterFunc(ends, func() { cancel(nil) })
	res.resp.Request = req
	t.learn(r.origin, res.resp)
	return res.resp, nil
}

// chooseEarly tells whom it concerns about a request that may have been early,
// and got a response. It returns the connection, or nil if that is not known.
func (t *Transport) chooseEarly(req *http.Request, p place, reason Reason, start time.Time) transport.Conn {
	c := t.connTo(p)
	if c == nil {
		return nil
	}
	// A response over a connection means that the handshake is complete, but
	// perhaps not that everybody knows.
	if c.Handshake(req.Context()) == nil && c.State().EarlyData {
		reason = ReasonEarly
	}
	choose(req, c, p, reason, start)
	return c
}

// connTo returns a connection to the place, or nil.
func (t *Transport) connTo(p place) transport.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c, at := range t.quic {
		if at == p {
			return c
		}
	}
	return nil
}
