package broker

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// Quotas bound what clients may take of the broker. Zero is the default of each,
// negative none. Connections that are refused are told so, as long as there
// are not too many of them.
//
// An address is one of IPv4 or 64 bits of one of IPv6, which is what one customer
// has. Loopback is none: behind a proxy on this machine everyone has its address.
type Quotas struct {
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

	// maxRefusing is how many connections above a quota may at one time wait to
	// be told so; others are closed at once.
	maxRefusing = 256
	// maxAddrs is how many addresses are kept count of. Above it, which takes
	// as many /64s, new ones are bounded by the other limits alone.
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
	numQuotas       = 5                 // of them
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

	allQuotas = [numQuotas]*quota{quotaConns, quotaListener, quotaAddr, quotaRate, quotaAddrRate}
)

// An addrUse is what one address has of the broker.
type addrUse struct {
	conns int
	rate  *rate.Limiter // nil: no limit
}

// admission keeps count of connections. It is guarded by Broker.mu.
type admission struct {
	q        *Quotas
	rate     *rate.Limiter // nil: no limit
	addrs    map[netip.Prefix]*addrUse
	sweepAt  int       // entries of addrs at which those without use are removed
	swept    time.Time // when that was last
	refusing int
}

func (a *admission) init(q *Quotas) {
	a.q = q
	a.rate = newRate(q.ConnRate, 2)
	a.addrs = make(map[netip.Prefix]*addrUse)
	a.sweepAt = 1024
}

// newRate returns a limiter that lets the events of a number of seconds through at
// once, nil for no limit.
func newRate(perSecond float64, seconds float64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(min(perSecond*seconds, 1<<30))))
}

// addrOf returns what an address is counted as. It is not valid for what has no
// address, and for loopback.
func addrOf(a net.Addr) netip.Prefix {
	var ip netip.Addr
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
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() || ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// use returns the entry of an address, nil if it is not kept count of.
func (a *admission) use(p netip.Prefix, now time.Time) *addrUse {
	if !p.IsValid() || a.q.ConnsPerAddr == 0 && a.q.ConnRatePerAddr == 0 {
		return nil
	}
	if u := a.addrs[p]; u != nil {
		return u
	}
	if full := len(a.addrs) >= maxAddrs; len(a.addrs) >= a.sweepAt && (!full || now.Sub(a.swept) >= time.Second) {
		a.swept = now
		for k, u := range a.addrs {
			// One whose rate has not recovered must not get it back by going away.
			if u.conns == 0 && (u.rate == nil || u.rate.TokensAt(now) >= float64(u.rate.Burst())) {
				delete(a.addrs, k)
			}
		}
		a.sweepAt = min(maxAddrs, max(1024, 2*len(a.addrs)))
	}
	if len(a.addrs) >= maxAddrs {
		return nil
	}
	u := &addrUse{rate: newRate(a.q.ConnRatePerAddr, 2)}
	a.addrs[p] = u
	return u
}

// A place is what a connection takes up.
type place struct {
	addr     *addrUse      // nil: not kept count of
	listener *atomic.Int64 // nil: none
	refused  *quota        // nil: it is admitted
}

// enter counts a connection. It reports false if it must be closed at once;
// otherwise leave takes it back. b.mu is held.
func (b *Broker) enter(at net.Addr, listener *atomic.Int64, now time.Time) (place, bool) {
	a := &b.admission
	p := place{listener: listener, addr: a.use(addrOf(at), now)}
	room := b.room()
	switch {
	case room != roomForOne:
		p.refused = quotaConns
	case listener != nil && a.q.ConnsPerListener > 0 && listener.Load() >= int64(a.q.ConnsPerListener):
		p.refused = quotaListener
	case p.addr != nil && a.q.ConnsPerAddr > 0 && p.addr.conns >= a.q.ConnsPerAddr:
		p.refused = quotaAddr
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
	}
	if listener != nil {
		listener.Add(1)
	}
	return p, true
}

// leave takes back what enter has counted. b.mu is held.
func (b *Broker) leave(p *place) {
	if p.refused != nil {
		b.admission.refusing--
		return
	}
	if p.addr != nil {
		p.addr.conns--
	}
	if p.listener != nil {
		p.listener.Add(-1)
	}
}

func (q *Quotas) check() error {
	for name, v := range map[string]float64{
		"ConnRate": q.ConnRate, "ConnRatePerAddr": q.ConnRatePerAddr, "MessageRate": q.MessageRate, "ByteRate": q.ByteRate, "SubscribeRate": q.SubscribeRate,
	} {
		if math.IsNaN(v) {
			return fmt.Errorf("broker: Quotas.%s is not a number", name)
		}
	}
	return nil
}
