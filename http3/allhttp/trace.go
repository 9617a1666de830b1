package allhttp

import (
	"context"
	"net"
	"time"
)

// A Reason says why a request went the way it did.
type Reason string

// The reasons.
const (
	ReasonOnly        Reason = "only"        // Versions leave no choice
	ReasonScheme      Reason = "scheme"      // HTTP/3 has no http://
	ReasonProxy       Reason = "proxy"       // proxies are reached over TCP
	ReasonUpgrade     Reason = "upgrade"     // the request asks for an upgrade, which HTTP/1.1 has
	ReasonUnknown     Reason = "unknown"     // nobody said that the server has HTTP/3
	ReasonBroken      Reason = "broken"      // HTTP/3 failed a short while ago
	ReasonConnected   Reason = "connected"   // there was a connection
	ReasonRace        Reason = "race"        // it connected first
	ReasonFailed      Reason = "failed"      // the other could not connect
	ReasonEarly       Reason = "early"       // the request went ahead of the handshake (0-RTT)
	ReasonNotTaken    Reason = "not taken"   // HTTP/3 did not take the request
	ReasonMisdirected Reason = "misdirected" // the alternative said that it is not for it (421)
)

// A Choice is the connection that a request is sent on.
type Choice struct {
	Proto       string   // "HTTP/1.1", "HTTP/2.0" or "HTTP/3.0"
	Addr        net.Addr // of the server, or of a proxy
	Alternative string   // host:port that Alt-Svc named; empty: the origin's
	Reason      Reason
	Wait        time.Duration // from the request until there was a connection
}

// A Dial is an attempt to make a connection to an address.
type Dial struct {
	Network string   // "tcp", with TLS, or "udp"
	Addr    net.Addr // nil if it is not known
	Took    time.Duration
	Err     error // nil: it is connected, but perhaps not needed any more
}

// A Trace has functions that are called on the way of a request; they may be
// nil. They may be called concurrently and after the request has ended, and
// must not block. What net/http/httptrace has is called as well, for all
// versions.
type Trace struct {
	// Chosen is called when it is known how the request is sent, and again if
	// it is sent again.
	Chosen func(Choice)

	// Dialed is called for each attempt to connect that the request started
	// with QUIC, or in a race with it, when the attempt has ended.
	Dialed func(Dial)
}

type traceKey struct{}

// WithTrace returns a context for requests that t looks at, instead of one that
// ctx has.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// chosen returns who wants to know how a request is sent, or nil.
func chosen(ctx context.Context) func(Choice) {
	if t, _ := ctx.Value(traceKey{}).(*Trace); t != nil {
		return t.Chosen
	}
	return nil
}

// dialed tells whom it concerns about an attempt.
func dialed(ctx context.Context, network string, addr net.Addr, start time.Time, err error) {
	if t, _ := ctx.Value(traceKey{}).(*Trace); t != nil && t.Dialed != nil {
		t.Dialed(Dial{network, addr, time.Since(start), err})
	}
}
