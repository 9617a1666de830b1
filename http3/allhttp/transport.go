package allhttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// saveDelay is how long changes of the AltSvcFile wait for others.
const saveDelay = time.Second

var errClosed = fmt.Errorf("allhttp: Transport is closed: %w", net.ErrClosed)

// A Transport is a [http.RoundTripper] that speaks HTTP/1.1, HTTP/2 and HTTP/3.
// Its fields must not be changed after the first request.
//
// It uses HTTP/3 with the servers that are known to have it: by Alt-Svc in their
// responses, by AddAltSvc, or all if Race is set. When it needs a connection to
// such a server, it starts with QUIC and RaceDelay later with TCP, and takes the
// first to be connected. If that is TCP, QUIC goes on for later requests; if QUIC
// fails, it is left alone for a while, which doubles with each failure. As long
// as nobody has heard of QUIC since it was last too slow, both start at once. A
// request is sent on one connection only: it is sent again only if it was not
// processed, or if it is safe (RFC 9110, Section 9.2.1) and without a body.
//
// While there is a TCP connection that can take a request, none waits for QUIC.
//
// Requests with the scheme http, those that go to a proxy and those that ask for
// an upgrade of the connection use TCP. An extended CONNECT (RFC 8441, RFC 9220)
// has its ":protocol" in the Header; see [http3.ResponseStream] for HTTP/3, while
// with HTTP/2 the two bodies are the stream.
type Transport struct {
	// Engine runs QUIC. It must be set unless Versions are without HTTP3.
	Engine transport.Transport

	// Versions are those that are used. Zero: all. With HTTP2 and without HTTP1,
	// requests with the scheme http use HTTP/2 with prior knowledge.
	Versions Versions

	// Base configures TCP, proxies, TLS, timeouts and what else HTTP/1.1 and
	// HTTP/2 need; it is cloned, but for its connections. If nil,
	// http.DefaultTransport is. HTTP/3 uses its TLSClientConfig,
	// DisableCompression, MaxResponseHeaderBytes, ResponseHeaderTimeout,
	// ExpectContinueTimeout and IdleConnTimeout; of the TLSClientConfig not what
	// is for TLS 1.2, nor the ClientSessionCache, in whose place QUIC has
	// Sessions. The Protocols of Base do not matter. Its functions that dial see
	// nothing of QUIC, which may connect to any port of an origin's host: a
	// program that restricts where connections go sets ListenPacket as well.
	Base *http.Transport

	// QUIC configures QUIC connections, but for TLS; see [http3.Transport].
	QUIC *transport.Config

	// Extensions are for protocols on HTTP/3, such as WebTransport.
	Extensions http3.Extensions

	// Race tries HTTP/3 with all servers, whether or not they are known to have
	// it.
	Race bool

	// RaceDelay is how much later than QUIC a race starts with TCP. Default
	// 250ms; negative: at once.
	RaceDelay time.Duration

	// AllowAlternative reports whether an alternative for an origin counts that
	// has another host; both are "host:port". If nil, none does: Alt-Svc names
	// ports of the origin's own host. Browsers follow it to any host that has the
	// origin's certificate. A program on a server, which fetches what others tell
	// it to, is not to be made to send packets to hosts, private addresses among
	// them, that no URL has named; and where certificates are not verified, nothing
	// says that the other host is the origin's. What is allowed is still used only
	// with the origin's certificate. AddAltSvc is not asked about.
	AllowAlternative func(origin, alternative string) bool

	// AltSvcFile, if not empty, keeps what Alt-Svc has said, for other runs of
	// the program. It is read before the first request and written after
	// changes. Its format is that of curl's option --alt-svc; lines about other
	// protocols than HTTP/3, and what AllowAlternative forbids, are not kept.
	AltSvcFile string

	// ListenPacket opens the UDP socket for a QUIC connection to an address, or
	// refuses that by an error. If nil, net.ListenPacket does, with any port.
	ListenPacket func(ctx context.Context, to netip.AddrPort) (net.PacketConn, error)

	// LookupIP returns the addresses of a host, best first, for QUIC. If nil,
	// net.DefaultResolver does.
	LookupIP func(ctx context.Context, host string) ([]netip.Addr, error)

	// Logger gets what goes wrong but is hidden from requests. Nil discards.
	Logger *slog.Logger

	once      sync.Once
	err       error // of once
	base      *http.Transport
	customTLS func(ctx context.Context, network, addr string) (net.Conn, error) // of Base; nil: none
	http2     closingRoundTripper                                               // for extended CONNECT only
	h3        *http3.Transport
	ctx       context.Context // done after Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup // of everything but what net/http runs

	alts    altCache
	backoff backoff
	tcp     tcpConns
	suspect atomic.Bool // no word of QUIC since TCP was faster by the RaceDelay

	mu    sync.Mutex
	races map[string]*race          // by origin; guarded by mu
	good  map[string]netip.AddrPort // the address that worked last, by place; guarded by mu
	quic  map[transport.Conn]place  // open connections; guarded by mu
	save  *time.Timer               // of the AltSvcFile; guarded by mu; nil: nothing to save
}

// init makes t ready.
func (t *Transport) init() error {
	t.once.Do(func() { t.err = t.setUp() })
	return t.err
}

func (t *Transport) setUp() error {
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.races = make(map[string]*race)
	t.quic = make(map[transport.Conn]place)
	t.good = make(map[string]netip.AddrPort)
	if err := t.Versions.check(); err != nil {
		return err
	}
	if t.Versions.Has(HTTP3) && t.Engine == nil {
		return errors.New("allhttp: Transport.Engine is not set: HTTP/3 needs one")
	}
	base := t.Base
	if base == nil {
		if base, _ = http.DefaultTransport.(*http.Transport); base == nil {
			base = &http.Transport{Proxy: http.ProxyFromEnvironment}
		}
	}
	t.base = base.Clone()
	if t.customTLS = base.DialTLSContext; t.customTLS == nil && base.DialTLS != nil { //nolint:staticcheck // who has set it means it
		t.customTLS = func(_ context.Context, network, addr string) (net.Conn, error) { return base.DialTLS(network, addr) } //nolint:staticcheck // as above
	}
	t.base.DialTLS = nil //nolint:staticcheck // as above
	t.base.DialTLSContext = t.dialTLS
	t.base.TLSNextProto = nil // which would say something about versions
	t.base.Protocols = t.Versions.protocols()
	t.base.Protocols.SetUnencryptedHTTP2(t.Versions.Has(HTTP2) && !t.Versions.Has(HTTP1))
	t.http2 = t.newHTTP2()
	t.h3 = &http3.Transport{
		Dial:                   t.dialQUIC,
		TLS:                    base.TLSClientConfig,
		Config:                 t.QUIC,
		DisableCompression:     base.DisableCompression,
		MaxResponseHeaderBytes: base.MaxResponseHeaderBytes,
		ResponseHeaderTimeout:  base.ResponseHeaderTimeout,
		ExpectContinueTimeout:  base.ExpectContinueTimeout,
		IdleConnTimeout:        base.IdleConnTimeout,
		Extensions:             t.Extensions,
	}
	if t.h3.IdleConnTimeout == 0 {
		t.h3.IdleConnTimeout = -1 // what zero means in net/http
	}
	t.alts.allow = t.allow
	if t.AltSvcFile != "" {
		if err := t.alts.loadFile(t.AltSvcFile, time.Now()); err != nil {
			t.logger().Warn("starting without Alt-Svc file", "error", err)
		}
	}
	return nil
}

// rawDial makes a TCP connection.
func (t *Transport) rawDial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch {
	case t.base.DialContext != nil:
		return t.base.DialContext(ctx, network, addr)
	case t.base.Dial != nil: //nolint:staticcheck // who has set it means it
		return t.base.Dial(network, addr) //nolint:staticcheck // as above
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// RoundTrip sends a request and returns the head of its response. See
// [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.init(); err != nil {
		closeBody(req)
		return nil, err
	}
	if t.ctx.Err() != nil {
		closeBody(req)
		return nil, errClosed
	}
	start := time.Now()
	reason, err := t.onlyTCP(req)
	switch {
	case err != nil:
		closeBody(req)
		return nil, err
	case reason != "":
		return t.roundTripTCP(req, &tcpCall{t: t, origin: originOf(req), reason: reason, start: start})
	}
	origin := originOf(req)
	if !t.Versions.tcp() {
		return t.roundTrip3(req, origin, ReasonOnly, start)
	}
	if t.h3.Connected(origin) != nil {
		return t.roundTrip3(req, origin, ReasonConnected, start)
	}
	how, reason := t.start(origin)
	if reason != "" {
		return t.roundTripTCP(req, &tcpCall{t: t, origin: origin, reason: reason, start: start})
	}
	r := t.join(req.Context(), origin, how)
	if r == nil {
		closeBody(req)
		return nil, errClosed
	}
	defer r.leave()
	if how == quicBehind {
		return t.roundTripTCP(req, &tcpCall{t: t, origin: origin, reason: ReasonConnected, start: start})
	}
	if how == quicFirst && t.mayBeEarly(req) {
		if resp, err := t.sendEarly(req, r, start); resp != nil || err != nil {
			return resp, err
		}
	}
	select {
	case <-r.decided:
	case <-req.Context().Done():
		closeBody(req)
		return nil, context.Cause(req.Context())
	}
	switch {
	case r.err != nil:
		closeBody(req)
		if t.ctx.Err() != nil {
			return nil, errClosed
		}
		return nil, r.err
	case r.http3:
		return t.roundTrip3(req, origin, r.reason, start)
	}
	reason = r.reason
	if how == tcpFirst {
		reason = ReasonBroken
	}
	return t.roundTripTCP(req, &tcpCall{t: t, origin: origin, race: r, reason: reason, start: start})
}

// onlyTCP returns why a request is none for HTTP/3, or an empty reason.
func (t *Transport) onlyTCP(req *http.Request) (Reason, error) {
	tcp := t.Versions.tcp()
	https := req.URL != nil && req.URL.Scheme == "https" && req.URL.Host != ""
	switch {
	case !https && tcp:
		return ReasonScheme, nil // or net/http says what is wrong with it
	case !https:
		return "", nil // http3 says so
	case !t.Versions.Has(HTTP3):
		return ReasonOnly, nil
	}
	if t.base.Proxy != nil {
		proxy, err := t.base.Proxy(req)
		switch {
		case proxy == nil && err == nil:
		case tcp:
			return ReasonProxy, nil // net/http asks again, and says so
		case err != nil:
			return "", fmt.Errorf("allhttp: proxy: %w", err)
		default:
			return "", fmt.Errorf("allhttp: proxy %s: HTTP/3 is the only version, and does not go through a proxy", proxy.Redacted())
		}
	}
	if tcp && req.Header.Get("Upgrade") != "" {
		return ReasonUpgrade, nil
	}
	return "", nil
}

// start returns how a race for an origin is run, or why there is none.
func (t *Transport) start(origin string) (start, Reason) {
	best := broken
	for _, p := range t.allPlaces(origin) {
		best = min(best, t.backoff.health(p.key(), time.Now()))
		if best == healthy {
			break
		}
	}
	known := len(t.allPlaces(origin)) > 0
	switch {
	case !known:
		return 0, ReasonUnknown
	case best == broken && t.tcp.available(origin):
		return 0, ReasonBroken
	case best == broken:
		return tcpFirst, ""
	case t.tcp.available(origin):
		return quicBehind, ""
	case best == doubtful || t.suspect.Load() || t.raceDelay() == 0:
		return together, ""
	}
	return quicFirst, ""
}

func (t *Transport) raceDelay() time.Duration {
	switch {
	case t.RaceDelay < 0:
		return 0
	case t.RaceDelay == 0:
		return defaultRaceDelay
	}
	return t.RaceDelay
}

// originOf returns the host and port of a request for https, as TLS and Alt-Svc
// know them.
func originOf(req *http.Request) string {
	if req.URL == nil {
		return ""
	}
	host := strings.ToLower(req.URL.Hostname())
	if !ascii(host) {
		if a, err := idna.Lookup.ToASCII(host); err == nil {
			host = a // otherwise it is wrong, which others say
		}
	}
	port := req.URL.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(host, port)
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// roundTripTCP sends a request with net/http.
func (t *Transport) roundTripTCP(req *http.Request, call *tcpCall) (*http.Response, error) {
	call.onlyH1 = req.Header.Get("Upgrade") != ""
	ctx := context.WithValue(req.Context(), tcpCallKey{}, call)
	ctx = httptrace.WithClientTrace(ctx, call.trace(chosen(ctx)))
	var resp *http.Response
	var err error
	if r := req.WithContext(ctx); extendedConnect(req) {
		resp, err = t.roundTripConnect(r, call.reason)
	} else {
		resp, err = t.base.RoundTrip(r)
	}
	if err != nil {
		return nil, err
	}
	resp.Request = req
	if req.URL.Scheme == "https" && resp.TLS != nil {
		t.learn(call.origin, resp)
	}
	return resp, nil
}

// roundTrip3 sends a request over HTTP/3, or over TCP if it is not taken there.
func (t *Transport) roundTrip3(req *http.Request, origin string, reason Reason, start time.Time) (*http.Response, error) {
	r := *req
	var held *heldBody
	if hasBody(req) {
		held = &heldBody{body: req.Body}
		defer func() {
			held.release()
		}()
		r.Body = held
	}
	resp, err := t.send3(&r, origin, reason, start)
	if err == nil && resp.StatusCode != http.StatusMisdirectedRequest {
		resp.Request = req
		t.learn(origin, resp)
		return resp, nil
	}
	reason = ReasonMisdirected
	if err != nil {
		reason = ReasonNotTaken
	}
	if !t.Versions.tcp() || !t.notTaken(origin, resp, err) || req.Context().Err() != nil {
		if resp != nil {
			resp.Request = req
		}
		return resp, err
	}
	next, berr := again(req, held)
	if next == nil {
		if berr != nil && resp != nil {
			resp.Body.Close()
		}
		if berr != nil {
			return nil, berr
		}
		return resp, err
	}
	if resp != nil {
		resp.Body.Close()
	}
	tcp, tcpErr := t.roundTripTCP(next, &tcpCall{t: t, origin: origin, reason: reason, start: start})
	if tcpErr != nil {
		return nil, raceError(tcpErr, err)
	}
	tcp.Request = req
	if err != nil {
		t.blame(err)
	}
	return tcp, nil
}

// send3 sends a request over HTTP/3. It may change r, but not what r points to.
func (t *Transport) send3(r *http.Request, origin string, reason Reason, start time.Time) (*http.Response, error) {
	if r.URL == nil || r.URL.Scheme != "https" || r.URL.Host == "" {
		return t.h3.RoundTrip(r) // which says what is wrong with it
	}
	if places := t.places(origin); !t.Versions.tcp() && t.mayBeEarly(r) && t.h3.Connected(origin) == nil && len(places) > 0 {
		aim(r, places[0])
		resp, err := t.h3.RoundTrip(r)
		if err == nil {
			t.chooseEarly(r, places[0], reason, start)
		}
		return resp, err
	}
	c, err := t.h3.Connect(r.Context(), origin)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	p := t.placeOf(c)
	aim(r, p)
	choose(r, c.Transport(), p, reason, start)
	return t.h3.RoundTrip(r)
}

// placeOf returns where a connection leads.
func (t *Transport) placeOf(c *http3.Conn) place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.quic[c.Transport()]
}

// choose tells whom it concerns how a request is sent.
func choose(r *http.Request, c transport.Conn, p place, reason Reason, start time.Time) {
	f := chosen(r.Context())
	if f == nil {
		return
	}
	ch := Choice{Proto: "HTTP/3.0", Addr: c.RemoteAddr(), Reason: reason, Wait: time.Since(start)}
	if p.told {
		ch.Alternative = p.addr
	}
	f(ch)
}

// aim makes a request one for a connection to the place. It changes r, but not
// what r points to.
func aim(r *http.Request, p place) {
	if r.URL.Host != p.origin && p.origin != "" {
		u := *r.URL
		if r.Host = cmp.Or(r.Host, u.Host); r.Host == u.Host && !ascii(r.Host) {
			r.Host = strings.TrimSuffix(p.origin, ":443")
		}
		u.Host = p.origin
		r.URL = &u
	}
	if p.told {
		// https://www.rfc-editor.org/rfc/rfc7838#section-5
		h := make(http.Header, len(r.Header)+1)
		maps.Copy(h, r.Header)
		h["Alt-Used"] = []string{strings.TrimSuffix(p.addr, ":443")}
		r.Header = h
	}
}

// notTaken reports whether a request over HTTP/3 was not processed, and another
// version may have more luck.
func (t *Transport) notTaken(origin string, resp *http.Response, err error) bool {
	if resp != nil {
		// https://www.rfc-editor.org/rfc/rfc7838#section-6
		c := t.h3.Connected(origin)
		if c == nil {
			return true
		}
		p := t.placeOf(c)
		if p.told {
			t.fail(p, errors.New("421 (Misdirected Request)"))
			t.h3.Withdraw(origin)
		}
		return p.told
	}
	if _, ok := errors.AsType[*quicError](err); ok {
		return true
	}
	e, ok := errors.AsType[*http3.Error](err)
	return ok && e.Remote && (e.Code == http3.ErrRequestRejected || e.Code == http3.ErrVersionFallback)
}

// blame remembers that HTTP/3 failed where TCP did not.
func (t *Transport) blame(err error) {
	if e, ok := errors.AsType[*quicError](err); ok && !errors.Is(err, errNoPlace) {
		t.fail(e.place, e.err)
	}
}

func (t *Transport) fail(p place, err error) {
	t.backoff.fail(p.key(), time.Now())
	t.logger().Info("HTTP/3 failed", "origin", p.origin, "at", p.addr, "error", err)
}

// forgive lets HTTP/3 be tried with an origin.
func (t *Transport) forgive(origin string) {
	for _, p := range t.allPlaces(origin) {
		t.backoff.forgive(p.key())
	}
}

// learn takes a response's word for where the origin has HTTP/3.
func (t *Transport) learn(origin string, resp *http.Response) {
	values := resp.Header["Alt-Svc"]
	if len(values) == 0 || origin == "" || resp.StatusCode == http.StatusMisdirectedRequest || !t.Versions.Has(HTTP3) {
		return // https://www.rfc-editor.org/rfc/rfc7838#section-6
	}
	now := time.Now()
	said := now
	if age, ok := deltaSeconds(resp.Header.Get("Age")); ok {
		said = now.Add(-age)
	}
	if err := t.altSvc(origin, strings.Join(values, ", "), said, now, t.allow); err != nil {
		t.logger().Info("Alt-Svc ignored", "origin", origin, "error", err)
	}
}

// allow reports whether an alternative counts that the user has not named.
//
// https://www.rfc-editor.org/rfc/rfc7838#section-9.2
func (t *Transport) allow(origin string, a alternative) bool {
	return a.host == "" || t.AllowAlternative != nil && t.AllowAlternative(origin, a.authority(""))
}

// altSvc takes an origin's word, as far as it is allowed; nil: all of it.
func (t *Transport) altSvc(origin, value string, said, now time.Time, allow func(string, alternative) bool) error {
	alts, clear, ok := parseAltSvc(value)
	if !ok {
		return fmt.Errorf("allhttp: Alt-Svc is malformed: %q", value[:min(len(value), 100)])
	}
	if clear {
		alts = nil
	}
	host, _, _ := net.SplitHostPort(origin)
	for i := range alts {
		if alts[i].host == host {
			alts[i].host = ""
		}
	}
	if allow != nil {
		alts = slices.DeleteFunc(alts, func(a alternative) bool { return !allow(origin, a) })
	}
	if t.alts.set(origin, alts, said, now) && len(alts) == 0 && !t.Race && t.Versions.tcp() {
		t.h3.Withdraw(origin)
	}
	t.saveLater()
	return nil
}

// AddAltSvc makes t use what the value of an Alt-Svc header field says about an
// origin, such as "https://example.com", as if it had said so itself: `h3=":443"`
// makes t use HTTP/3 with it on the same port, "clear" forgets. It may name another
// host; for what t reads from the AltSvcFile in another run, AllowAlternative is
// asked.
func (t *Transport) AddAltSvc(origin, value string) error {
	if err := t.init(); err != nil {
		return err
	}
	u, err := url.Parse(origin)
	if err != nil {
		return fmt.Errorf("allhttp: origin: %w", err)
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("allhttp: %q is no origin with https", origin)
	}
	now := time.Now()
	return t.altSvc(originOf(&http.Request{URL: u}), value, now, now, nil)
}

// NetworkChanged tells t that this host is in another network now. It forgets
// where HTTP/3 failed, and the alternatives that are not said to persist (RFC
// 7838, Section 2.2).
func (t *Transport) NetworkChanged() {
	if t.init() != nil {
		return
	}
	t.backoff.reset()
	t.suspect.Store(false)
	t.mu.Lock()
	clear(t.good)
	t.mu.Unlock()
	t.alts.changeNetwork()
	t.saveLater()
}

// saveLater writes the AltSvcFile in a moment, if there is something new.
func (t *Transport) saveLater() {
	if t.AltSvcFile == "" || !t.alts.changed() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.save != nil || t.ctx.Err() != nil {
		return
	}
	t.save = time.AfterFunc(saveDelay, func() {
		t.mu.Lock()
		t.save = nil
		t.mu.Unlock()
		if err := t.alts.saveFile(t.AltSvcFile, time.Now()); err != nil {
			t.logger().Warn("Alt-Svc file not written", "error", err)
		}
	})
}

// CloseIdleConnections closes the connections that have no request.
func (t *Transport) CloseIdleConnections() {
	if t.init() != nil {
		return
	}
	t.base.CloseIdleConnections()
	t.http2.CloseIdleConnections()
	t.h3.CloseIdleConnections()
}

// Close ends all HTTP/3 connections, with their requests, and idle connections of
// the other versions; it makes further requests fail. It waits for the goroutines
// of QUIC, and for races in progress. AltSvcFile is written.
func (t *Transport) Close() error {
	if t.init() != nil {
		return nil //nolint:nilerr // nothing has begun
	}
	t.mu.Lock()
	t.cancel()
	if t.save != nil {
		t.save.Stop()
	}
	t.mu.Unlock()
	err := t.h3.Close()
	t.base.CloseIdleConnections()
	t.http2.CloseIdleConnections()
	t.wg.Wait()
	if t.AltSvcFile != "" {
		err = errors.Join(err, t.alts.saveFile(t.AltSvcFile, time.Now()))
	}
	return err
}

func (t *Transport) logger() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
}
