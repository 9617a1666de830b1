package transporttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

var endpointCases = []testCase{
	{name: "OpenFails", rows: "T11", run: testOpenFails,
		says: "If Open fails, pc stays open and the caller's. ConnIDLen returns the length of all IDs, 1 to 20 bytes."},
	{name: "EngineNames", rows: "T04", run: testEngineNames,
		says: "Name returns the short, lower-case name of the engine. Versions of the libraries inside."},
	{name: "DialWhileListening", rows: "T10", run: testDialWhileListening,
		says: "It can dial any number of connections while it listens."},
	{name: "EndpointClose", rows: "T07", run: testEndpointClose,
		says: "Close closes every connection and the listener at once, with application error 0, and closes the socket. A second Close does nothing and returns nil."},
	{name: "EndpointClosed", rows: "T07", run: testEndpointClosed,
		says: "Close closes every connection and the listener at once."},
	{name: "NoGoroutineLeak", rows: "T07 V10", run: testNoGoroutineLeak,
		says: "Close waits for the engine's goroutines to end."},
	{name: "NoGoroutineLeakCut", rows: "T07 V10", run: testNoGoroutineLeakCut,
		says: "Close waits for the engine's goroutines to end."},
	{name: "EndpointStats", rows: "T10 O03", run: testEndpointStats,
		says: "EndpointStats are the counters of a socket since Open."},
	{name: "TwoListeners", rows: "T27", run: testTwoListeners,
		says: "An Endpoint runs QUIC on one packet socket."},
	{name: "OneSocket", rows: "T10", run: testOneSocket,
		says: "An Endpoint runs QUIC on one packet socket. It can dial any number of connections."},
	{name: "Junk", rows: "T10 A08", run: testJunk,
		says: "PacketsDropped counts packets that belong to no connection and start none: junk, unknown connection IDs, unknown versions."},
	{name: "VersionNegotiation", rows: "T20", run: testVersionNegotiation,
		says: "A Transport is an implementation of QUIC version 1 (RFC 9000)."},
	{name: "CIDGenerator", rows: "T11", run: testCIDGenerator,
		says: "ConnIDs makes the connection IDs that peers address this socket by, for routing by connection ID."},
	{name: "CIDGeneratorClient", rows: "T11", run: testCIDGeneratorClient,
		says: "ConnIDs makes the connection IDs that peers address this socket by."},
	{name: "CIDDefault", rows: "T11", run: testCIDDefault,
		says: "If nil, they are random, of 8 bytes."},
}

// A prefixed ConnIDGenerator makes IDs of a server numbered 0xA7 in a cluster.
type prefixed struct {
	length int
	made   *atomic.Int64
}

func (g prefixed) ConnIDLen() int { return g.length }

func (g prefixed) GenerateConnID() ([]byte, error) {
	g.made.Add(1)
	id := make([]byte, g.length)
	rand.Read(id)
	id[0] = 0xa7
	return id, nil
}

func testOpenFails(l *lab) {
	for _, e := range []transport.Transport{l.client, l.server} {
		for _, n := range []int{0, 21} {
			pc := l.socket(fmt.Sprintf("203.0.113.%d:1", n+1))
			_, err := e.Open(pc, &transport.Options{ConnIDs: prefixed{n, new(atomic.Int64)}})
			require.Error(l, err, "connection IDs of %d bytes", n)
			require.False(l, sim(pc).Closed())
			ep, err := e.Open(pc, nil) // the socket is as good as new, and nil means the zero Options
			require.NoError(l, err)
			require.Equal(l, pc.LocalAddr(), ep.Addr())
			require.NoError(l, ep.Close())
			require.True(l, sim(pc).Closed())
		}
	}
}

func testEngineNames(l *lab) {
	for _, e := range []transport.Transport{l.client, l.server} {
		require.NotEmpty(l, e.Name())
		require.Equal(l, strings.ToLower(e.Name()), e.Name())
		f := e.Features()
		require.NotEmpty(l, f.Versions)
		for lib, v := range f.Versions {
			require.NotEmpty(l, v, lib)
		}
		require.NotEmpty(l, f.CongestionControl)
	}
}

func testDialWhileListening(l *lab) {
	a := l.listen(setup{}) // its server's endpoint dials, its client's listens
	ln, err := a.clientEP.Listen(l.serverConfig())
	require.NoError(l, err)
	b := &pair{clientEP: a.serverEP, serverEP: a.clientEP, ln: ln, clientCfg: l.clientConfig()}
	a.dial(l)
	b.dial(l)
	a.echo(l)
	b.echo(l)
	a.dial(l)
	b.dial(l)
	a.echo(l)
	b.echo(l)
}

func testEndpointClose(l *lab) {
	p := l.connect(setup{})
	otherClient, otherServer := p.more(l)
	accepting := async(func() error { _, err := p.ln.Accept(l.ctx); return err })
	l.settle(0)
	start := time.Now()
	require.NoError(l, p.serverEP.Close())
	require.Zero(l, time.Since(start), "at once")
	require.ErrorIs(l, <-accepting, errClosed)
	require.True(l, sim(p.serverPC).Closed())
	for _, c := range []transport.Conn{p.server, otherServer} {
		wantApplication(l, ended(l, c), 0, "", false, "server")
	}
	for _, c := range []transport.Conn{p.client, otherClient} {
		wantApplication(l, ended(l, c), 0, "", true, "client")
	}
	require.NoError(l, p.serverEP.Close(), "a second Close")
	require.NoError(l, p.clientEP.Close())
	require.True(l, sim(p.clientPC).Closed())
}

func testEndpointClosed(l *lab) {
	p := l.listen(setup{})
	require.NoError(l, p.clientEP.Close())
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	require.ErrorIs(l, err, errClosed, "Dial")
	_, err = p.clientEP.Listen(l.serverConfig())
	require.ErrorIs(l, err, errClosed, "Listen")
	require.NoError(l, p.serverEP.Close())
	_, err = p.ln.Accept(l.ctx)
	require.ErrorIs(l, err, errClosed, "Accept")

	// While Dial waits.
	p = l.listen(setup{})
	cut(p.serverPC)
	dialing := async(func() error {
		_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		return err
	})
	l.settle(time.Second)
	start := time.Now()
	require.NoError(l, p.clientEP.Close())
	require.ErrorIs(l, <-dialing, errClosed)
	require.Zero(l, time.Since(start))
}

func testNoGoroutineLeak(l *lab) {
	before := bubbleGoroutines(l)
	p := l.connectWithDatagrams()
	p.echo(l)
	c, _ := p.streams(l)
	blocked := async(func() error {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
	})
	_, _ = p.more(l)
	l.settle(100 * time.Millisecond)
	require.NoError(l, p.clientEP.Close())
	require.NoError(l, p.serverEP.Close())
	require.ErrorIs(l, <-blocked, errClosed)
	require.Equal(l, before, bubbleGoroutines(l), "%s", stacks(bubbleID()))
}

// The same when the peer cannot be reached, with a handshake in progress.
func testNoGoroutineLeakCut(l *lab) {
	before := bubbleGoroutines(l)
	p := l.connect(setup{})
	cut(p.clientPC)
	dialing := async(func() error {
		_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
		return err
	})
	l.settle(100 * time.Millisecond)
	require.NoError(l, p.clientEP.Close())
	require.ErrorIs(l, <-dialing, errClosed)
	require.NoError(l, p.serverEP.Close())
	require.Equal(l, before, bubbleGoroutines(l), "%s", stacks(bubbleID()))
}

func testEndpointStats(l *lab) {
	p := l.listen(setup{})
	require.Zero(l, p.clientEP.Stats())
	require.Zero(l, p.serverEP.Stats())
	first, _ := p.more(l)
	p.more(l)
	require.Equal(l, transport.EndpointStats{ConnsDialed: 2, ConnsOpen: 2}, p.clientEP.Stats())
	require.Equal(l, transport.EndpointStats{ConnsAccepted: 2, ConnsOpen: 2}, p.serverEP.Stats())
	require.NoError(l, first.CloseWithError(0, ""))
	l.settle(10 * time.Second)
	require.EqualValues(l, 1, p.clientEP.Stats().ConnsOpen)
	require.EqualValues(l, 1, p.serverEP.Stats().ConnsOpen)
	require.EqualValues(l, 2, p.serverEP.Stats().ConnsAccepted)

	require.NoError(l, p.ln.Close())
	_, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
	wantProtocol(l, err, connectionRefused, true, "Dial without a listener")
	wantRefused(l, p, 1)
	require.EqualValues(l, 3, p.clientEP.Stats().ConnsDialed, "complete or not")
	require.EqualValues(l, 2, p.serverEP.Stats().ConnsAccepted)
}

func testTwoListeners(l *lab) {
	p := l.listen(setup{})
	other := l.open(l.server, l.socket("192.0.2.2:4433"), nil)
	cfg := l.serverConfig()
	cfg.TLS.NextProtos = []string{"other"}
	ln, err := other.Listen(cfg)
	require.NoError(l, err)
	q := &pair{clientEP: p.clientEP, serverEP: other, ln: ln, clientCfg: l.clientConfig()}
	q.clientCfg.TLS.NextProtos = []string{"other"}
	p.dial(l)
	q.dial(l)
	p.echo(l)
	q.echo(l)
	require.NoError(l, ln.Close())
	p.dial(l)
	p.echo(l)
	q.echo(l)
}

func testOneSocket(l *lab) {
	n := scale(1000, 100)
	p := l.listen(setup{})
	const workers = 20
	conns := make([]transport.Conn, n) // the clients'
	var wg sync.WaitGroup
	accepted := make(map[string]transport.Conn, n) // by connection ID
	accepting := async(func() error {
		for range n {
			c, err := p.ln.Accept(l.ctx)
			if err != nil {
				return err
			}
			accepted[string(c.State().ConnID)] = c
		}
		return nil
	})
	errs := make(chan error, workers)
	var next atomic.Int64
	for range workers {
		wg.Go(func() {
			errs <- func() error {
				for {
					i := int(next.Add(1)) - 1
					if i >= n {
						return nil
					}
					c, err := p.clientEP.Dial(l.ctx, p.serverEP.Addr(), p.clientCfg)
					if err != nil {
						return err
					}
					conns[i] = c
				}
			}()
		})
	}
	wg.Wait()
	for range workers {
		require.NoError(l, <-errs)
	}
	require.NoError(l, <-accepting)
	require.Len(l, accepted, n, "connections with an ID of their own")
	require.EqualValues(l, n, p.serverEP.Stats().ConnsOpen)
	require.EqualValues(l, n, p.clientEP.Stats().ConnsOpen)
	for i, c := range conns { // a message to each, that must arrive at the right one
		u, err := c.OpenUniStream(l.ctx)
		require.NoError(l, err)
		_, err = fmt.Fprint(u, i)
		require.NoError(l, err)
		require.NoError(l, u.Close())
	}
	for i, c := range conns {
		r, err := accepted[string(c.State().ConnID)].AcceptUniStream(l.ctx)
		require.NoError(l, err)
		got, err := io.ReadAll(r)
		require.NoError(l, err)
		require.Equal(l, fmt.Sprint(i), string(got))
	}
}

func testJunk(l *lab) {
	p := l.connect(setup{})
	from, to := netip.MustParseAddrPort("203.0.113.9:9"), addrPort(p.serverPC.LocalAddr())
	before := p.serverEP.Stats().PacketsDropped
	junk := [][]byte{
		{0x40},                                  // a short header, and nothing else
		append([]byte{0x40}, noiseBytes(40)...), // an unknown connection ID
		append([]byte{0x5a}, noiseBytes(1200)...),                                  // the same, longer
		append([]byte{0xe0, 0, 0, 0, 1, 8}, noiseBytes(60)...),                     // a Handshake packet of no connection
		append([]byte{0xd0, 0, 0, 0, 1, 8}, noiseBytes(60)...),                     // a 0-RTT packet of no connection
		append([]byte{0xc0, 0, 0, 0, 1, 8}, noiseBytes(50)...),                     // an Initial that is too small
		append([]byte{0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8}, make([]byte, 100)...),      // an unknown version, too small to answer
		append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, noiseBytes(1300)...),    // connection IDs of impossible lengths
		append([]byte{0xc0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0}, 0, 0, 0, 1), // a Version Negotiation packet
	}
	for _, b := range junk {
		l.net.Inject(from, to, b)
		l.settle(time.Millisecond)
	}
	after := p.serverEP.Stats().PacketsDropped
	require.GreaterOrEqual(l, after-before, uint64(6), "of %d", len(junk))
	p.echo(l)
	// And from the client's address, within its connection's path.
	for _, b := range junk {
		l.net.Inject(addrPort(p.clientPC.LocalAddr()), to, b)
	}
	p.echo(l)
	p.dial(l)
	p.echo(l)
	require.EqualValues(l, 2, p.serverEP.Stats().ConnsAccepted)
}

// RFC 9000, Section 6: a server answers a packet of an unknown version with
// those it supports, if the packet is large enough to start a connection.
func testVersionNegotiation(l *lab) {
	p := l.connect(setup{})
	seen := l.net.Capture()
	client := l.socket("203.0.113.7:7")
	defer client.Close()
	dcid, scid := []byte("destination"), []byte("source")
	hello := []byte{0xc0, 0x1a, 0x2a, 0x3a, 0x4a} // a version reserved to exercise this
	hello = append(append(hello, byte(len(dcid))), dcid...)
	hello = append(append(hello, byte(len(scid))), scid...)
	hello = append(hello, make([]byte, 1200-len(hello))...)
	_, err := client.WriteTo(hello, p.serverPC.LocalAddr())
	require.NoError(l, err)
	require.NoError(l, client.SetReadDeadline(time.Now().Add(5*time.Second)))
	b := make([]byte, 1500)
	n, _, err := client.ReadFrom(b)
	require.NoError(l, err, "no answer; %d packets seen", len(seen.Packets()))
	h, ok := parseLong(b[:n])
	require.True(l, ok)
	require.Zero(l, h.version, "a Version Negotiation packet")
	require.Equal(l, scid, h.dcid)
	require.Equal(l, dcid, h.scid)
	require.Zero(l, len(h.rest)%4)
	require.True(l, bytes.Contains(h.rest, []byte{0, 0, 0, 1}), "version 1 is offered: % x", h.rest)
	require.EqualValues(l, 1, p.serverEP.Stats().PacketsDropped, "an unknown version")
	require.EqualValues(l, 1, p.client.State().Version)
	require.EqualValues(l, 1, p.server.State().Version)
	p.echo(l)
}

func testCIDGenerator(l *lab) {
	gen := prefixed{10, new(atomic.Int64)}
	seen := l.net.Capture()
	p := l.connect(setup{serverOpts: &transport.Options{ConnIDs: gen}})
	l.settle(time.Second)
	p.echo(l)
	require.Positive(l, gen.made.Load())
	server := addrPort(p.serverPC.LocalAddr())
	short := 0
	for _, pkt := range seen.Packets() {
		h, long := parseLong(pkt.Data)
		switch {
		case long && pkt.From == server:
			require.Len(l, h.scid, 10)
			require.EqualValues(l, 0xa7, h.scid[0], "the server calls itself so")
		case !long && pkt.To == server:
			short++
			require.EqualValues(l, 0xa7, pkt.Data[1], "the client addresses it so")
		}
	}
	require.Positive(l, short)
	// An ID that the generator made for nobody belongs to no connection.
	before := p.serverEP.Stats().PacketsDropped
	foreign := append([]byte{0x40, 0xa7}, noiseBytes(60)...)
	l.net.Inject(addrPort(p.clientPC.LocalAddr()), server, foreign)
	l.settle(time.Second)
	require.Equal(l, before+1, p.serverEP.Stats().PacketsDropped)
}

func testCIDGeneratorClient(l *lab) {
	gen := prefixed{20, new(atomic.Int64)}
	seen := l.net.Capture()
	p := l.connect(setup{clientOpts: &transport.Options{ConnIDs: gen}})
	p.echo(l)
	client := addrPort(p.clientPC.LocalAddr())
	short := 0
	for _, pkt := range seen.Packets() {
		if pkt.To != client {
			continue
		}
		if h, long := parseLong(pkt.Data); long {
			require.Len(l, h.dcid, 20)
			require.EqualValues(l, 0xa7, h.dcid[0])
		} else {
			short++
			require.EqualValues(l, 0xa7, pkt.Data[1])
		}
	}
	require.Positive(l, short)
}

func testCIDDefault(l *lab) {
	seen := l.net.Capture()
	p := l.listen(setup{})
	ids := map[string]bool{}
	for range 5 {
		p.dial(l)
		p.echo(l)
	}
	for _, pkt := range seen.Packets() {
		if h, long := parseLong(pkt.Data); long {
			require.Len(l, h.scid, 8, "from %s", pkt.From)
			ids[string(h.scid)] = true
		}
	}
	require.Len(l, ids, 10, "one from each side of each connection")
}

// A longHeader is what RFC 8999, Section 5.1, and RFC 9000, Section 17.2, leave
// in the clear.
type longHeader struct {
	kind       byte // of version 1: 0 Initial, 1 0-RTT, 2 Handshake, 3 Retry
	version    uint32
	dcid, scid []byte
	rest       []byte
}

const (
	initialPacket = iota
	zeroRTTPacket
	handshakePacket
	retryPacket
)

// parseLong parses the first packet of a UDP datagram.
func parseLong(b []byte) (h longHeader, ok bool) {
	if len(b) < 7 || b[0]&0x80 == 0 {
		return h, false
	}
	h.kind = b[0] >> 4 & 3
	h.version = uint32(b[1])<<24 | uint32(b[2])<<16 | uint32(b[3])<<8 | uint32(b[4])
	b = b[5:]
	for _, id := range []*[]byte{&h.dcid, &h.scid} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return h, false
		}
		*id, b = b[1:1+b[0]], b[1+b[0]:]
	}
	h.rest = b
	return h, true
}

// longPackets returns the kinds of all packets with long headers in a datagram
// (RFC 9000, Section 12.2).
func longPackets(b []byte) (kinds []byte) {
	for {
		h, ok := parseLong(b)
		if !ok || h.version != 1 {
			return kinds
		}
		kinds = append(kinds, h.kind)
		rest := h.rest
		switch h.kind {
		case retryPacket:
			return kinds
		case initialPacket:
			n, k := varint(rest) // the token
			if k == 0 || uint64(len(rest)-k) < n {
				return kinds
			}
			rest = rest[k+int(n):]
		}
		n, k := varint(rest) // the length of packet number and payload
		if k == 0 || uint64(len(rest)-k) < n {
			return kinds
		}
		b = rest[k+int(n):]
	}
}

// varint decodes a variable-length integer (RFC 9000, Section 16); k is its
// length in bytes, 0 if it is incomplete.
func varint(b []byte) (n uint64, k int) {
	if len(b) == 0 {
		return 0, 0
	}
	k = 1 << (b[0] >> 6)
	if len(b) < k {
		return 0, 0
	}
	n = uint64(b[0] & 0x3f)
	for _, c := range b[1:k] {
		n = n<<8 | uint64(c)
	}
	return n, k
}

// seenKinds counts the long-header packets that from sent.
func seenKinds(c *Capture, from net.Addr) map[byte]int {
	kinds := map[byte]int{}
	for _, pkt := range c.Packets() {
		if pkt.From == addrPort(from) {
			for _, k := range longPackets(pkt.Data) {
				kinds[k]++
			}
		}
	}
	return kinds
}

// dialUntil dials until ctx is done, for cases that expect no answer.
func dialUntil(l *lab, p *pair, d time.Duration) error {
	ctx, cancel := context.WithTimeout(l.ctx, d)
	defer cancel()
	_, err := p.clientEP.Dial(ctx, p.serverEP.Addr(), p.clientCfg)
	return err
}
