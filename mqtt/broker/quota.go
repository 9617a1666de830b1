package broker

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// Quotas bound what clients may take of the broker. Zero is the default of each,
// negative none. Connections that are refused are told so, as long as there
// are not too many of them.
//
// An address is one of IPv4, or the first IPv6Prefix bits of one of IPv6. Loopback is
// none: behind a proxy on this machine everyone has its address.
type Quotas struct {
	// Allow and Deny say from which networks connections are taken: if Allow has any,
	// from these only, and never from those of Deny. Others are closed at once, before
	// any stream of theirs is read. A link without an address is the program's own,
	// and allowed.
	Allow, Deny []netip.Prefix

	// IPv6Prefix is how many bits of an IPv6 address one customer has: 64.
	IPv6Prefix int

	// Pending and PendingPerAddr bound the connections, of all and of one address,
	// that have no session yet: their handshake, their CONNECT or their
	// authentication is not complete, for which they have Config.ConnectTimeout.
	// Those above are refused with Server busy (0x89): 16,384 and 256.
	Pending, PendingPerAddr int

	// FailedLogins bounds the logins a second, of one address, that fail for what the
	// client has shown, with 300 seconds' worth at once. Above it clients of that
	// address that show a user name, a password or a token are refused with Quota
	// exceeded (0x97) before Config.Auth is asked: 0.2.
	FailedLogins float64

	// ConnsPerListener bounds the connections of each Serve and ServeLinks, above
	// which they are refused with Server busy (0x89): none.
	ConnsPerListener int
	// ConnsPerAddr bounds the connections of one address, above which they are
	// refused with Quota exceeded (0x97): 1,000.
	ConnsPerAddr int
	// ConnRate and ConnRatePerAddr bound new connections a second, of all and of
	// one address, each with the connections of two seconds at once. Those above
	// are refused with Connection rate exceeded (0x9F): none, and 200.
	ConnRate, ConnRatePerAddr float64

	// MessageRate and ByteRate bound the PUBLISH packets, and the bytes of all
	// packets, that one client may send a second, on all of its streams, with
	// one second's worth at once: none. A client that is faster is not read for
	// as long as it takes: flow control slows it down, and nothing is lost.
	MessageRate, ByteRate float64
	// The same for all clients of one address, of one listener, and of the broker
	// together, each client in its turn: none.
	MessageRatePerAddr, ByteRatePerAddr         float64
	MessageRatePerListener, ByteRatePerListener float64
	TotalMessageRate, TotalByteRate             float64
	// SubscribeRate bounds the filters a second that one client may subscribe to
	// and unsubscribe from, in the same way, with 60 seconds' worth at once, so
	// that a client can take up its subscriptions again: 1,000.
	SubscribeRate float64

	// Subscriptions bounds those of all sessions, above which new ones are refused
	// with Quota exceeded (0x97): 10,000,000.
	Subscriptions int
}

const (
	defaultConnsPerAddr    = 1000
	defaultConnRatePerAddr = 200
	defaultSubscribeRate   = 1000
	defaultSubscriptions   = 10_000_000
	defaultIPv6Prefix      = 64
	defaultPending         = 16_384
	defaultPendingPerAddr  = 256
	defaultFailedLogins    = 0.2

	// maxRefusing is how many connections above a quota may at one time wait to
	// be told so; others are closed at once.
	maxRefusing = 256
	// maxAddrs is how many addresses are kept count of. Above it, which takes
	// as many addresses, new ones are bounded by the other limits alone.
	maxAddrs = 1 << 16
)

// complete fills in defaults and makes none of what is negative.
func (q *Quotas) complete() {
	setInt := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
		*v = max(*v, 0)
	}
	setRate := func(v *float64, def float64) {
		if *v == 0 {
			*v = def
		}
		*v = max(*v, 0)
	}
	setInt(&q.ConnsPerListener, 0)
	setInt(&q.ConnsPerAddr, defaultConnsPerAddr)
	setInt(&q.Subscriptions, defaultSubscriptions)
	setInt(&q.Pending, defaultPending)
	setInt(&q.PendingPerAddr, defaultPendingPerAddr)
	if q.IPv6Prefix == 0 {
		q.IPv6Prefix = defaultIPv6Prefix
	}
	setRate(&q.FailedLogins, defaultFailedLogins)
	for _, v := range []*float64{&q.MessageRatePerAddr, &q.ByteRatePerAddr, &q.MessageRatePerListener, &q.ByteRatePerListener, &q.TotalMessageRate, &q.TotalByteRate} {
		setRate(v, 0)
	}
	setRate(&q.ConnRate, 0)
	setRate(&q.ConnRatePerAddr, defaultConnRatePerAddr)
	setRate(&q.MessageRate, 0)
	setRate(&q.ByteRate, 0)
	setRate(&q.SubscribeRate, defaultSubscribeRate)
}

// Why a connection was refused, in Stats.AboveQuota.
const (
	RefusedConns    = "connections"     // Config.MaxConns
	RefusedListener = "listener"        // Quotas.ConnsPerListener
	RefusedAddr     = "address"         // Quotas.ConnsPerAddr
	RefusedRate     = "connection_rate" // Quotas.ConnRate
	RefusedAddrRate = "address_rate"    // Quotas.ConnRatePerAddr

	RefusedPending     = "pending"         // Quotas.Pending
	RefusedAddrPending = "address_pending" // Quotas.PendingPerAddr
	RefusedLogins      = "failed_logins"   // Quotas.FailedLogins
	RefusedNetwork     = "network"         // Quotas.Allow and Deny

	numQuotas = 9 // of them
)

// A quota is one that a connection is above.
type quota struct {
	index int // of its counter
	name  string
	code  packet.ReasonCode
	text  string
}

var (
	quotaConns    = &quota{0, RefusedConns, packet.ServerBusy, "too many connections"}
	quotaListener = &quota{1, RefusedListener, packet.ServerBusy, "too many connections to this listener"}
	quotaAddr     = &quota{2, RefusedAddr, packet.QuotaExceeded, "too many connections from this address"}
	quotaRate     = &quota{3, RefusedRate, packet.ConnectionRateExceeded, "too many new connections"}
	quotaAddrRate = &quota{4, RefusedAddrRate, packet.ConnectionRateExceeded, "too many new connections from this address"}

	quotaPending     = &quota{5, RefusedPending, packet.ServerBusy, "too many connections without a session"}
	quotaAddrPending = &quota{6, RefusedAddrPending, packet.ServerBusy, "too many connections from this address without a session"}
	quotaLogins      = &quota{7, RefusedLogins, packet.QuotaExceeded, "too many failed logins from this address"}
	quotaNetwork     = &quota{8, RefusedNetwork, packet.Banned, "this network is not allowed"}

	allQuotas = [numQuotas]*quota{
		quotaConns, quotaListener, quotaAddr, quotaRate, quotaAddrRate,
		quotaPending, quotaAddrPending, quotaLogins, quotaNetwork,
	}
)

// An addrUse is what one address has of the broker.
type addrUse struct {
	conns   int
	pending int           // of conns: without a session
	rate    *rate.Limiter // nil: no limit
	logins  failedLogins
	rates   sharedRate
}

// forgettable reports whether nobody gets anything by u being forgotten: who leaves
// and comes back must not find its rates recovered.
func (u *addrUse) forgettable(q *Quotas, now time.Time) bool {
	u.logins.forgive(q.FailedLogins, now)
	return u.conns == 0 && u.logins.n == 0 && u.rates.recovered(now) &&
		(u.rate == nil || u.rate.TokensAt(now) >= float64(u.rate.Burst()))
}

// admission keeps count of connections. It is guarded by Broker.mu.
type admission struct {
	q        *Quotas // not modified
	packet   uint32  // bytes: the largest
	rates    sharedRate
	pending  int
	rate     *rate.Limiter // nil: no limit
	addrs    map[netip.Prefix]*addrUse
	sweepAt  int       // entries of addrs at which those without use are removed
	swept    time.Time // when that was last
	refusing int
}

func (a *admission) init(l *limits) {
	a.addrs = make(map[netip.Prefix]*addrUse)
	a.sweepAt = 1024
	a.rates.init(3)
	a.use(l, nil, nil)
}

// use puts limits in force, also for what is counted already: conns have addresses
// and listeners that may not be in the tables any more.
func (a *admission) use(l *limits, listeners map[interface{ Close() error }]*listenerUse, conns map[*conn]struct{}) {
	q := &l.quotas
	if a.q != nil && a.q.IPv6Prefix != q.IPv6Prefix {
		// Who is connected is counted where he was until he leaves.
		a.addrs = make(map[netip.Prefix]*addrUse)
	}
	a.q, a.packet = q, l.session.MaximumPacketSize
	a.rate = changed(a.rate, q.ConnRate)
	a.rates.set(q.TotalMessageRate, q.TotalByteRate, a.packet)
	for _, u := range a.addrs {
		a.useAddr(u)
	}
	for _, l := range listeners {
		a.useListener(l)
	}
	for cn := range conns {
		if u := cn.place.addr; u != nil {
			a.useAddr(u)
		}
		if l := cn.place.listener; l != nil {
			a.useListener(l)
		}
	}
}

func (a *admission) useAddr(u *addrUse) {
	u.rate = changed(u.rate, a.q.ConnRatePerAddr)
	u.rates.set(a.q.MessageRatePerAddr, a.q.ByteRatePerAddr, a.packet)
}

func (a *admission) useListener(l *listenerUse) {
	l.rates.set(a.q.MessageRatePerListener, a.q.ByteRatePerListener, a.packet)
}

// changed returns a limiter of new connections that goes on from old, which may be nil.
func changed(old *rate.Limiter, perSecond float64) *rate.Limiter {
	l := newRate(perSecond, 2)
	if l == nil || old == nil {
		return l
	}
	old.SetLimit(l.Limit())
	old.SetBurst(l.Burst())
	return old
}

// newRate returns a limiter that lets the events of a number of seconds through at
// once, nil for no limit.
func newRate(perSecond float64, seconds float64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(min(perSecond*seconds, 1<<30))))
}

// ipOf returns the address without port and zone. It is not valid for what has none.
func ipOf(a net.Addr) (ip netip.Addr) {
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	case nil:
	default:
		if p, err := netip.ParseAddrPort(a.String()); err == nil {
			ip = p.Addr()
		}
	}
	return ip.Unmap().WithZone("")
}

// admits reports whether connections from an address are taken.
func (q *Quotas) admits(a net.Addr) bool {
	if len(q.Allow) == 0 && len(q.Deny) == 0 {
		return true
	}
	ip := ipOf(a)
	in := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return !ip.IsValid() || (len(q.Allow) == 0 || in(q.Allow)) && !in(q.Deny)
}

// addrOf returns what an address is counted as, with so many bits of IPv6. It is not
// valid for what has no address, and for loopback.
func addrOf(a net.Addr, v6 int) netip.Prefix {
	ip := ipOf(a)
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = v6
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// entry returns that of an address, nil if it is not kept count of.
func (a *admission) entry(p netip.Prefix, now time.Time) *addrUse {
	if !p.IsValid() {
		return nil
	}
	if u := a.addrs[p]; u != nil {
		return u
	}
	if full := len(a.addrs) >= maxAddrs; len(a.addrs) >= a.sweepAt && (!full || now.Sub(a.swept) >= time.Second) {
		a.swept = now
		for k, u := range a.addrs {
			if u.forgettable(a.q, now) {
				delete(a.addrs, k)
			}
		}
		a.sweepAt = min(maxAddrs, max(1024, 2*len(a.addrs)))
	}
	if len(a.addrs) >= maxAddrs {
		return nil
	}
	u := new(addrUse)
	u.rates.init(1)
	a.useAddr(u)
	a.addrs[p] = u
	return u
}

// A place is what a connection takes up.
type place struct {
	addr     *addrUse     // nil: not kept count of
	listener *listenerUse // nil: none
	refused  *quota       // nil: it is admitted
	pending  bool         // it is admitted, and has no session yet
}

// enter counts a connection. It reports false if it must be closed at once;
// otherwise leave takes it back. b.mu is held.
func (b *Broker) enter(at net.Addr, listener *listenerUse, now time.Time) (place, bool) {
	a := &b.admission
	if !a.q.admits(at) {
		b.count.aboveQuota[quotaNetwork.index].Add(1)
		return place{refused: quotaNetwork}, false
	}
	p := place{listener: listener, addr: a.entry(addrOf(at, a.q.IPv6Prefix), now)}
	room := b.room()
	switch {
	case room != roomForOne:
		p.refused = quotaConns
	case listener != nil && a.q.ConnsPerListener > 0 && listener.conns.Load() >= int64(a.q.ConnsPerListener):
		p.refused = quotaListener
	case p.addr != nil && a.q.ConnsPerAddr > 0 && p.addr.conns >= a.q.ConnsPerAddr:
		p.refused = quotaAddr
	case p.addr != nil && a.q.PendingPerAddr > 0 && p.addr.pending >= a.q.PendingPerAddr:
		p.refused = quotaAddrPending
	case a.q.Pending > 0 && a.pending >= a.q.Pending:
		p.refused = quotaPending
	case p.addr != nil && p.addr.rate != nil && !p.addr.rate.AllowN(now, 1):
		p.refused = quotaAddrRate
	case a.rate != nil && !a.rate.AllowN(now, 1):
		p.refused = quotaRate
	}
	if p.refused != nil {
		b.count.aboveQuota[p.refused.index].Add(1)
		if room == noRoom || a.refusing >= maxRefusing {
			return p, false
		}
		a.refusing++
		return p, true
	}
	if p.addr != nil {
		p.addr.conns++
		p.addr.pending++
	}
	if listener != nil {
		listener.conns.Add(1)
	}
	a.pending++
	p.pending = true
	return p, true
}

// arrived notes that a connection has its session. b.mu is held.
func (b *Broker) arrived(p *place) {
	if !p.pending {
		return
	}
	p.pending = false
	b.admission.pending--
	if p.addr != nil {
		p.addr.pending--
	}
}

// leave takes back what enter has counted. b.mu is held.
func (b *Broker) leave(p *place) {
	if p.refused != nil {
		b.admission.refusing--
		return
	}
	b.arrived(p)
	if p.addr != nil {
		p.addr.conns--
	}
	if p.listener != nil {
		p.listener.conns.Add(-1)
	}
}

func (q *Quotas) check() error {
	for name, v := range map[string]float64{
		"ConnRate": q.ConnRate, "ConnRatePerAddr": q.ConnRatePerAddr, "MessageRate": q.MessageRate, "ByteRate": q.ByteRate, "SubscribeRate": q.SubscribeRate,
		"FailedLogins": q.FailedLogins, "MessageRatePerAddr": q.MessageRatePerAddr, "ByteRatePerAddr": q.ByteRatePerAddr,
		"MessageRatePerListener": q.MessageRatePerListener, "ByteRatePerListener": q.ByteRatePerListener,
		"TotalMessageRate": q.TotalMessageRate, "TotalByteRate": q.TotalByteRate,
	} {
		if math.IsNaN(v) {
			return fmt.Errorf("broker: Quotas.%s is not a number", name)
		}
	}
	if q.IPv6Prefix < 0 || q.IPv6Prefix > 128 {
		return fmt.Errorf("broker: Quotas.IPv6Prefix %d: must be 1 to 128", q.IPv6Prefix)
	}
	for _, p := range slices.Concat(q.Allow, q.Deny) {
		if !p.IsValid() {
			return errors.New("broker: Quotas.Allow and Quotas.Deny: a network is not valid")
		}
		if p.Addr().Is4In6() { // which no address is in: they are compared as IPv4
			return fmt.Errorf("broker: Quotas.Allow and Quotas.Deny: %v is to be written as a network of IPv4", p)
		}
	}
	return nil
}
