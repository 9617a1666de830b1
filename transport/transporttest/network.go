package transporttest

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// A Network is a simulated UDP network: it carries packets between its Sockets
// and, on the way, delays, loses, repeats, damages and reorders them as the
// Links of the two ends say. It does not care whether time is virtual; in a
// synctest bubble a transfer of minutes takes as long as its packets take to
// compute. The choices of a link depend on nothing but the seed, the number of
// sockets opened before, and the packets on that link.
//
//	socket -> filter -> sender's Up link -> receiver's Down link -> queue -> ReadFrom
//	             |
//	          capture
type Network struct {
	mu      sync.Mutex
	seed    uint64
	pipes   uint64                     // made so far
	sockets map[netip.AddrPort]*Socket // by the address that others see
	queue   events
	seq     uint64
	filter  func(Packet) Verdict
	taps    []*Capture
	closed  bool

	wake chan struct{} // capacity 1: the queue has a new head, or closed is set
	done chan struct{} // closed when the delivery goroutine has ended
}

// A Packet is one UDP datagram under way.
type Packet struct {
	Time     time.Time // when it was sent
	From, To netip.AddrPort
	Data     []byte // read only
	Lost     bool   // dropped by the filter or on the sender's link
}

// A Verdict is what a filter does to a packet, besides what the links do.
type Verdict struct {
	Drop  bool
	Delay time.Duration
}

// A Link is one direction of a socket's access to the network. The zero Link
// is perfect and instant.
type Link struct {
	Latency   time.Duration
	Jitter    time.Duration // each packet waits up to that much more, and packets overtake
	Loss      float64       // probability that a packet disappears
	Duplicate float64       // … arrives twice
	Corrupt   float64       // … arrives with one bit flipped
	Reorder   float64       // … is held back for ReorderBy
	ReorderBy time.Duration
	Rate      int // bytes per second, 0 without limit
	Queue     int // bytes that wait for the rate, more are dropped; 0 means 64 KiB
	MTU       int // larger UDP payloads are dropped; 0 without limit
	Cut       bool
}

// receiveQueue bounds what waits in a Socket for ReadFrom, in bytes, as a
// kernel's socket buffer does.
const receiveQueue = 4 << 20

// NewNetwork returns a network without sockets. Close ends its goroutine.
func NewNetwork(seed uint64) *Network {
	n := &Network{
		seed:    seed,
		sockets: make(map[netip.AddrPort]*Socket),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	go n.deliver() // ended by Close
	return n
}

// Close drops what is under way. It closes no socket.
func (n *Network) Close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.kick()
	<-n.done
}

// Socket opens a socket at addr, with its links to the network. An address in
// use is a bug of the caller.
func (n *Network) Socket(addr string, up, down Link) *Socket {
	a := netip.MustParseAddrPort(addr)
	s := &Socket{net: n, local: a, public: a}
	s.readable.L = &s.mu
	n.mu.Lock()
	defer n.mu.Unlock()
	s.up, s.down = n.pipe(up), n.pipe(down)
	if n.sockets[a] != nil {
		panic("transporttest: address in use: " + addr)
	}
	n.sockets[a] = s
	return s
}

func (n *Network) pipe(l Link) pipe {
	n.pipes++
	return pipe{Link: l, rng: rand.New(rand.NewPCG(n.seed, n.pipes))}
}

// Filter installs f, which sees every packet when it is sent and decides.
// It runs under the network's lock: it must not block, nor call the network.
func (n *Network) Filter(f func(Packet) Verdict) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

// Inject sends a packet as if the socket at from had, whether or not there is
// one. It passes no filter and is in no capture.
func (n *Network) Inject(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	n.push(event{at: time.Now(), pkt: Packet{Time: time.Now(), From: from, To: to, Data: slices.Clone(data)}})
	n.mu.Unlock()
	n.kick()
}

// A Capture keeps every packet that was sent since it was started, also those
// that were lost on the way.
type Capture struct {
	net     *Network
	packets []Packet // guarded by net.mu
}

// Capture starts a capture.
func (n *Network) Capture() *Capture {
	c := &Capture{net: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taps = append(n.taps, c)
	return c
}

// Packets returns what was captured so far, in the order of sending.
func (c *Capture) Packets() []Packet {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return slices.Clone(c.packets)
}

func (n *Network) send(from *Socket, to netip.AddrPort, data []byte) {
	now := time.Now()
	n.mu.Lock()
	defer n.kick()
	defer n.mu.Unlock()
	p := Packet{Time: now, From: from.public, To: to, Data: slices.Clone(data)}
	var v Verdict
	if n.filter != nil {
		v = n.filter(p)
	}
	times := []time.Time(nil)
	if !v.Drop {
		times = from.up.transit(now.Add(v.Delay), &p)
	}
	p.Lost = len(times) == 0
	for _, c := range n.taps {
		c.packets = append(c.packets, p)
	}
	for _, at := range times {
		n.push(event{at: at, pkt: p})
	}
}

func (n *Network) push(e event) {
	e.seq = n.seq
	n.seq++
	heap.Push(&n.queue, e)
}

func (n *Network) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// deliver hands packets over in the order of their times.
func (n *Network) deliver() {
	defer close(n.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.mu.Lock()
		now := time.Now()
		for len(n.queue) > 0 && !n.queue[0].at.After(now) {
			n.arrive(now, heap.Pop(&n.queue).(event))
		}
		closed, wait := n.closed, time.Hour
		if len(n.queue) > 0 {
			wait = n.queue[0].at.Sub(now)
		}
		n.mu.Unlock()
		if closed {
			return
		}
		timer.Reset(wait)
		select {
		case <-n.wake:
		case <-timer.C:
		}
	}
}

// arrive takes a packet off the sender's link, or off the receiver's.
func (n *Network) arrive(now time.Time, e event) {
	s := n.sockets[e.pkt.To]
	if s == nil {
		return // nobody is there (any more)
	}
	if e.down {
		s.receive(e.pkt)
		return
	}
	for _, at := range s.down.transit(now, &e.pkt) {
		n.push(event{at: at, pkt: e.pkt, down: true})
	}
}

// A pipe is a Link in operation.
type pipe struct {
	Link
	rng  *rand.Rand
	free time.Time // when the last packet will have left
}

// transit returns when the packet comes out of the pipe: never, once or twice.
func (l *pipe) transit(now time.Time, p *Packet) []time.Time {
	if l.Cut || l.MTU > 0 && len(p.Data) > l.MTU || l.rng.Float64() < l.Loss {
		return nil
	}
	at := now
	if l.Rate > 0 {
		start := now
		if l.free.After(now) {
			start = l.free
		}
		limit := l.Queue
		if limit == 0 {
			limit = 64 << 10
		}
		if waiting := int(start.Sub(now).Seconds() * float64(l.Rate)); waiting+len(p.Data) > limit {
			return nil
		}
		at = start.Add(time.Duration(len(p.Data)) * time.Second / time.Duration(l.Rate))
		l.free = at
	}
	at = at.Add(l.Latency)
	if l.Jitter > 0 {
		at = at.Add(time.Duration(l.rng.Int64N(int64(l.Jitter))))
	}
	if l.rng.Float64() < l.Reorder {
		at = at.Add(l.ReorderBy)
	}
	if l.rng.Float64() < l.Corrupt {
		p.Data = slices.Clone(p.Data)
		p.Data[l.rng.IntN(len(p.Data))] ^= 1 << l.rng.IntN(8)
	}
	if l.rng.Float64() < l.Duplicate {
		return []time.Time{at, at}
	}
	return []time.Time{at}
}

// A Socket is a net.PacketConn on a Network.
type Socket struct {
	net      *Network
	local    netip.AddrPort
	public   netip.AddrPort // guarded by net.mu; others see it
	up, down pipe           // guarded by net.mu

	mu       sync.Mutex
	readable sync.Cond // L is &mu
	packets  []Packet
	size     int // bytes in packets
	dropped  uint64
	closed   bool
	read     time.Time // deadline
	write    time.Time // deadline
	timer    *time.Timer
}

var _ net.PacketConn = (*Socket)(nil)

// Links replaces the conditions, from now on.
func (s *Socket) Links(up, down Link) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.up.Link, s.down.Link = up, down
}

// Rebind gives the socket another public address, as a NAT does that lost its
// state: what is sent to the old one goes nowhere. LocalAddr stays.
func (s *Socket) Rebind(addr string) {
	a := netip.MustParseAddrPort(addr)
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.net.sockets[a] != nil {
		panic("transporttest: address in use: " + addr)
	}
	delete(s.net.sockets, s.public)
	s.public = a
	s.net.sockets[a] = s
}

// Closed reports whether Close was called.
func (s *Socket) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// LocalAddr returns the address that the socket was opened with.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.local) }

// WriteTo sends one packet. It never blocks.
func (s *Socket) WriteTo(b []byte, addr net.Addr) (int, error) {
	s.mu.Lock()
	closed, deadline := s.closed, s.write
	s.mu.Unlock()
	switch {
	case closed:
		return 0, net.ErrClosed
	case expired(deadline):
		return 0, os.ErrDeadlineExceeded
	}
	to := addr.(*net.UDPAddr).AddrPort()
	s.net.send(s, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), b)
	return len(b), nil
}

func (s *Socket) receive(p Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case s.size+len(p.Data) > receiveQueue:
		s.dropped++
	default:
		s.packets = append(s.packets, p)
		s.size += len(p.Data)
		s.readable.Signal()
	}
}

// ReadFrom returns the next packet. What does not fit into b is lost.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, nil, net.ErrClosed
		case expired(s.read):
			return 0, nil, os.ErrDeadlineExceeded
		case len(s.packets) > 0:
			p := s.packets[0]
			s.packets = s.packets[1:]
			s.size -= len(p.Data)
			return copy(b, p.Data), net.UDPAddrFromAddrPort(p.From), nil
		}
		s.readable.Wait()
	}
}

// Close ends the socket and frees its address.
func (s *Socket) Close() error {
	s.net.mu.Lock()
	if s.net.sockets[s.public] == s {
		delete(s.net.sockets, s.public)
	}
	s.net.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.readable.Broadcast()
	return nil
}

// SetDeadline bounds pending and future calls of ReadFrom and WriteTo.
func (s *Socket) SetDeadline(t time.Time) error {
	if err := s.SetWriteDeadline(t); err != nil {
		return err
	}
	return s.SetReadDeadline(t)
}

// SetReadDeadline bounds pending and future calls of ReadFrom.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.read = t
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), s.readable.Broadcast)
	}
	s.readable.Broadcast()
	return nil
}

// SetWriteDeadline bounds calls of WriteTo.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.write = t
	return nil
}

// SetReadBuffer and SetWriteBuffer accept any size, as engines ask for one and
// complain without.
func (s *Socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer accepts any size.
func (s *Socket) SetWriteBuffer(int) error { return nil }

func expired(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

// An event is a packet that comes off a link.
type event struct {
	at   time.Time
	seq  uint64
	pkt  Packet
	down bool // off the receiver's link
}

// events is a heap, the earliest first.
type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(e any)   { *q = append(*q, e.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}
