package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

// A LossyPath says what a relay does to packets.
type LossyPath struct {
	RTT  time.Duration // half of it each way
	Loss float64       // probability that a packet is dropped, each way
	Seed uint64        // equal seeds drop the same packets, counted each way
}

// A relay is a path between one client and one server: two UDP sockets on
// loopback, with two goroutines for each way. It keeps the order of packets.
//
// It has no bandwidth of its own: what it cannot take is counted as lost, and
// what a batch of system calls costs it is under two microseconds a packet.
type relay struct {
	front, back *net.UDPConn // the client's side; the server's
	client      atomic.Pointer[net.UDPAddr]
	way         [2]*oneWay
	group       sync.WaitGroup
}

const (
	relayBatch  = 64      // packets in a system call
	relayPacket = 2048    // bytes; a packet on a path with an MTU of 1500 is smaller
	relayQueue  = 1 << 16 // packets on their way
	relayBuffer = 8 << 20 // bytes, of a socket
)

// newRelay starts a relay to a server; close ends it.
func newRelay(server string, path LossyPath) (*relay, error) {
	to, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		return nil, err
	}
	r := &relay{}
	loopback := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if r.front, err = net.ListenUDP("udp4", loopback); err != nil {
		return nil, err
	}
	if r.back, err = net.ListenUDP("udp4", loopback); err != nil {
		return nil, errors.Join(err, r.front.Close())
	}
	for _, s := range []*net.UDPConn{r.front, r.back} {
		if err := growBuffers(s, relayBuffer); err != nil {
			return nil, errors.Join(fmt.Errorf("bench: the relay's socket buffers: %w", err), r.front.Close(), r.back.Close())
		}
	}
	newWay := func(direction uint64) *oneWay {
		return &oneWay{
			delay: path.RTT / 2, loss: path.Loss,
			rand:  rand.New(rand.NewPCG(path.Seed, direction)), //nolint:gosec // chance, not secrets
			queue: make(chan flying, relayQueue),
		}
	}
	r.way = [2]*oneWay{newWay(0), newWay(1)}
	r.group.Go(func() { r.way[0].receive(r.front, func(from *net.UDPAddr) { r.client.Store(from) }) })
	r.group.Go(func() { r.way[0].deliver(r.back, func() *net.UDPAddr { return to }) })
	r.group.Go(func() { r.way[1].receive(r.back, func(*net.UDPAddr) {}) })
	r.group.Go(func() { r.way[1].deliver(r.front, r.client.Load) })
	return r, nil
}

// addr is where the client connects to.
func (r *relay) addr() string { return r.front.LocalAddr().String() }

// counters returns how many packets have come so far, both ways, and how many of
// them were lost.
func (r *relay) counters() (lost, total uint64) {
	overflown := socketDrops(r.front) + socketDrops(r.back)
	for _, w := range r.way {
		total += w.total.Load() // first: a packet that is lost counts there last
		lost += w.lost.Load()
	}
	return lost + overflown, total + overflown
}

// close ends the goroutines: receive with its socket, deliver with receive.
func (r *relay) close() {
	r.front.Close()
	r.back.Close()
	r.group.Wait()
}

// A flying packet arrives later.
type flying struct {
	at   time.Time
	data []byte
}

// oneWay is one direction of a relay.
type oneWay struct {
	delay       time.Duration
	loss        float64
	rand        *rand.Rand  // of receive
	queue       chan flying // in the order of arrival; closed by receive
	lost, total atomic.Uint64
}

// receive takes packets from s until it is closed.
func (w *oneWay) receive(s *net.UDPConn, seen func(from *net.UDPAddr)) {
	defer close(w.queue)
	batch := make([]ipv4.Message, relayBatch)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, relayPacket)}
	}
	for conn := ipv4.NewPacketConn(s); ; {
		n, err := conn.ReadBatch(batch, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as an ICMP message about a packet sent before
		}
		at := time.Now().Add(w.delay)
		for i := range batch[:n] {
			m := &batch[i]
			seen(m.Addr.(*net.UDPAddr))
			if w.rand.Float64() < w.loss || !w.push(flying{at, m.Buffers[0][:m.N]}) {
				w.lost.Add(1)
			} else {
				m.Buffers[0] = make([]byte, relayPacket)
			}
			w.total.Add(1)
		}
	}
}

// push reports whether the queue had room.
func (w *oneWay) push(p flying) bool {
	select {
	case w.queue <- p:
		return true
	default:
		return false
	}
}

// deliver sends each packet when it is due, and with it those behind that are due
// too, until the queue is closed.
func (w *oneWay) deliver(s *net.UDPConn, to func() *net.UDPAddr) {
	conn := ipv4.NewPacketConn(s)
	batch := make([]ipv4.Message, 0, relayBatch)
	var next flying
	var have bool
	for {
		if !have {
			if next, have = <-w.queue; !have {
				return
			}
		}
		sleep(time.Until(next.at))
		now := time.Now()
		for batch = batch[:0]; have && len(batch) < relayBatch && !next.at.After(now); next, have = w.poll() {
			batch = append(batch, ipv4.Message{Buffers: [][]byte{next.data}, Addr: to()})
		}
		w.send(conn, batch)
	}
}

// poll returns the next packet if there is one.
func (w *oneWay) poll() (p flying, have bool) {
	select {
	case p, have = <-w.queue:
	default:
	}
	return p, have
}

func (w *oneWay) send(conn *ipv4.PacketConn, batch []ipv4.Message) {
	for len(batch) > 0 {
		n, err := conn.WriteBatch(batch, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if n < 1 { // the first cannot be sent: perhaps its receiver has gone
			w.lost.Add(1)
			n = 1
		}
		batch = batch[n:]
	}
}
