package allhttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

const (
	// attemptDelay is how much later the next address is tried than the one
	// before.
	//
	// https://www.rfc-editor.org/rfc/rfc8305#section-5
	attemptDelay = 250 * time.Millisecond

	// maxAttempts bounds the addresses, each of which takes a socket.
	maxAttempts = 10
)

// A place is where HTTP/3 of an origin may be found.
type place struct {
	origin string // host:port
	addr   string // host:port; the same, or what Alt-Svc said
	told   bool   // by Alt-Svc
}

// key names the place for the backoff.
func (p place) key() string { return p.origin + ">" + p.addr }

// A quicError means that there is no QUIC connection. Nothing was sent.
type quicError struct {
	place place
	err   error
}

func (e *quicError) Error() string {
	if e.place.addr == e.place.origin {
		return "allhttp: HTTP/3: " + e.err.Error()
	}
	return "allhttp: HTTP/3 at " + e.place.addr + ": " + e.err.Error()
}

func (e *quicError) Unwrap() error { return e.err }

// errNoPlace means that there is no HTTP/3 for the origin, or not now.
var errNoPlace = errors.New("it is not known to be there, or failed a short while ago")

// dialQUIC connects to an origin, for http3.Transport.
func (t *Transport) dialQUIC(ctx context.Context, origin string, cfg *transport.Config) (transport.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	var errs []error
	for _, p := range t.places(origin) {
		c, err := t.dialPlace(ctx, p, cfg)
		if err == nil {
			return c, nil
		}
		errs = append(errs, &quicError{p, err})
		if ctx.Err() != nil {
			break
		}
	}
	switch len(errs) {
	case 0:
		return nil, &quicError{place{origin: origin, addr: origin}, errNoPlace}
	case 1:
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

// places returns where to connect to, in order. If there is TCP to fall back to,
// that is one place at most.
func (t *Transport) places(origin string) []place {
	all := t.allPlaces(origin)
	var good, bad []place
	for _, p := range all {
		switch t.backoff.health(p.key(), time.Now()) {
		case broken:
			bad = append(bad, p)
		default:
			good = append(good, p)
		}
	}
	if !t.Versions.tcp() {
		return append(good, bad...)
	}
	return good[:min(1, len(good))]
}

// allPlaces returns where HTTP/3 of an origin may be.
func (t *Transport) allPlaces(origin string) (places []place) {
	host, _, _ := net.SplitHostPort(origin)
	for _, a := range t.alts.get(origin, time.Now()) {
		places = append(places, place{origin, a.authority(host), true})
	}
	if self := (place{origin, origin, false}); t.Race || !t.Versions.tcp() {
		for _, p := range places {
			if p.addr == origin {
				return places
			}
		}
		places = append(places, self)
	}
	return places
}

// dialPlace connects to the addresses of a place.
func (t *Transport) dialPlace(ctx context.Context, p place, cfg *transport.Config) (transport.Conn, error) {
	c := *cfg
	var err error
	// The certificate must be the origin's, wherever this is.
	//
	// https://www.rfc-editor.org/rfc/rfc7838#section-2.1
	if c.TLS, err = quicTLS(cfg.TLS); err != nil {
		return nil, err
	}
	addrs, err := t.resolve(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	conn, err := t.dialAddrs(ctx, t.bestFirst(p, addrs), &c)
	if err != nil {
		return nil, err
	}
	t.adopt(conn, p, c.KeepAlive > 0)
	return conn, nil
}

// adopt keeps what is to be known about a connection, until it ends. alive: it
// says PING when it is idle, so that only a broken path ends it by a timeout.
func (t *Transport) adopt(c transport.Conn, p place, alive bool) {
	t.mu.Lock()
	t.quic[c] = p
	t.mu.Unlock()
	works := func() {
		t.backoff.succeed(p.key())
		t.suspect.Store(false)
		t.remember(p, c.RemoteAddr())
	}
	if c.State().HandshakeComplete {
		works()
	}
	t.wg.Go(func() { // ends with the connection
		if c.Handshake(c.Context()) == nil {
			works()
		}
		<-c.Context().Done()
		t.mu.Lock()
		delete(t.quic, c)
		t.mu.Unlock()
		if cause := context.Cause(c.Context()); alive && errors.Is(cause, transport.ErrIdleTimeout) {
			t.fail(p, cause)
		}
	})
}

// remember notes the address that a place was reached at.
func (t *Transport) remember(p place, addr net.Addr) {
	to, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.good) >= maxOrigins {
		for key := range t.good { // any of them
			delete(t.good, key)
			break
		}
	}
	t.good[p.key()] = to
}

// bestFirst puts the address that has worked last before the others.
//
// https://www.rfc-editor.org/rfc/rfc8305#section-4
func (t *Transport) bestFirst(p place, addrs []netip.AddrPort) []netip.AddrPort {
	t.mu.Lock()
	good := t.good[p.key()]
	t.mu.Unlock()
	i := slices.Index(addrs, good)
	if i <= 0 {
		return addrs
	}
	return slices.Concat(addrs[i:i+1], addrs[:i], addrs[i+1:])
}

// resolve returns the addresses behind a host:port in the order in which they
// are to be tried.
func (t *Transport) resolve(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", service, err)
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else if ips, err = t.lookup(ctx, host); err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	var addrs []netip.AddrPort
	for _, ip := range interleave(ips) {
		addrs = append(addrs, netip.AddrPortFrom(ip, uint16(port)))
	}
	return addrs[:min(len(addrs), maxAttempts)], nil
}

func (t *Transport) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if t.LookupIP != nil {
		return t.LookupIP(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// interleave returns addresses, of which the best come first, with the families
// in turns.
//
// https://www.rfc-editor.org/rfc/rfc8305#section-4
func interleave(ips []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for i := range ips {
		ip := ips[i].Unmap()
		if ip.Is4() == ips[0].Unmap().Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	turns := make([]netip.Addr, 0, len(ips))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			turns = append(turns, first[i])
		}
		if i < len(second) {
			turns = append(turns, second[i])
		}
	}
	return turns
}

// An attempt is the outcome of dialling one address.
type attempt struct {
	conn transport.Conn
	err  error
}

// dialAddrs connects to the addresses, one some time after the other or as soon
// as that has failed, and returns the first connection.
//
// https://www.rfc-editor.org/rfc/rfc8305#section-5
func (t *Transport) dialAddrs(ctx context.Context, addrs []netip.AddrPort, cfg *transport.Config) (transport.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan attempt)
	pending := 0
	defer func() {
		cancel()
		t.wg.Go(func() { // ends with the attempts, which cancel ends
			for range pending {
				if r := <-results; r.conn != nil {
					r.conn.CloseWithError(http3.ErrNoError, "")
				}
			}
		})
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs []error
	for len(addrs) > 0 || pending > 0 {
		select {
		case <-timer.C:
			if len(addrs) == 0 {
				continue
			}
			to := addrs[0]
			addrs = addrs[1:]
			pending++
			t.wg.Go(func() { // ends with ctx
				c, err := t.dialAddr(ctx, to, cfg)
				results <- attempt{c, err}
			})
			timer.Reset(attemptDelay)
		case r := <-results:
			pending--
			if r.err == nil {
				return r.conn, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
	}
	return nil, errors.Join(errs...)
}

// dialAddr connects to an address from a new socket, which is closed with the
// connection.
func (t *Transport) dialAddr(ctx context.Context, to netip.AddrPort, cfg *transport.Config) (c transport.Conn, err error) {
	start := time.Now()
	addr := net.UDPAddrFromAddrPort(to)
	defer func() {
		if err != nil {
			err = fmt.Errorf("dial %s: %w", to, err)
		}
		dialed(ctx, "udp", addr, start, err)
	}()
	pc, err := t.listenPacket(ctx, to)
	if err != nil {
		return nil, err
	}
	ep, err := t.Engine.Open(pc, nil)
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	c, err = http3.TraceDial(ctx, addr, func(ctx context.Context) (transport.Conn, error) { return ep.Dial(ctx, addr, cfg) })
	if err != nil {
		return nil, errors.Join(err, ep.Close())
	}
	t.wg.Go(func() { // ends with the connection
		<-c.Context().Done()
		if err := ep.Close(); err != nil {
			t.logger().Warn("closing a UDP socket", "error", err)
		}
	})
	return c, nil
}

func (t *Transport) listenPacket(ctx context.Context, to netip.AddrPort) (net.PacketConn, error) {
	if t.ListenPacket != nil {
		return t.ListenPacket(ctx, to)
	}
	if to.Addr().Is4() {
		return net.ListenPacket("udp4", "0.0.0.0:0")
	}
	return net.ListenPacket("udp6", "[::]:0")
}
