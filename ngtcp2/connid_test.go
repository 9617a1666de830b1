//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

func TestHeadersAreThoseOfAllVersions(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
		want   header
		ok     bool
	}{
		{"nothing", nil, header{}, false},
		{"a short header", []byte{0x40, 1, 2, 3, 9}, header{dcid: []byte{1, 2, 3}}, true},
		{"a short header and nothing else", []byte{0x40, 1, 2, 3}, header{dcid: []byte{1, 2, 3}}, true},
		{"a connection ID cut off", []byte{0x40, 1, 2}, header{}, false},
		{"a long header", []byte{0xc0, 0, 0, 0, 1, 2, 7, 8, 1, 9, 5}, header{long: true, version: 1, dcid: []byte{7, 8}, scid: []byte{9}}, true},
		{"empty connection IDs", []byte{0x80, 1, 2, 3, 4, 0, 0}, header{long: true, version: 0x01020304, dcid: []byte{}, scid: []byte{}}, true},
		{"no place for the source ID", []byte{0xc0, 0, 0, 0, 1, 2, 7, 8}, header{}, false},
		{"the source ID cut off", []byte{0xc0, 0, 0, 0, 1, 1, 7, 2, 8}, header{}, false},
		{"the destination ID cut off", []byte{0xc0, 0, 0, 0, 1, 200, 7}, header{}, false},
		{"IDs of 255 bytes", append(append([]byte{0xc0, 9, 9, 9, 9, 255}, make([]byte, 255)...), append([]byte{255}, make([]byte, 255)...)...),
			header{long: true, version: 0x09090909, dcid: make([]byte, 255), scid: make([]byte, 255)}, true},
	} {
		got, ok := parseHeader(c.packet, 3)
		require.Equal(t, c.ok, ok, c.name)
		if ok {
			require.Equal(t, c.want, got, c.name)
		}
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8}, 8)
	f.Add([]byte{0xc0, 0, 0, 0, 1, 2, 7, 8, 1, 9, 5}, 8)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 20)
	f.Fuzz(func(t *testing.T, b []byte, idLen int) {
		idLen = 1 + (idLen&0xff)%maxConnIDLen
		h, ok := parseHeader(b, idLen)
		if !ok {
			return
		}
		require.Equal(t, b[0]&0x80 != 0, h.long)
		if !h.long {
			require.Equal(t, b[1:1+idLen], h.dcid)
			return
		}
		// What was read, written again, is the beginning of the packet.
		again := []byte{b[0], byte(h.version >> 24), byte(h.version >> 16), byte(h.version >> 8), byte(h.version), byte(len(h.dcid))}
		again = append(append(again, h.dcid...), byte(len(h.scid)))
		again = append(again, h.scid...)
		require.True(t, bytes.HasPrefix(b, again))
	})
}

// A recorder is a receiver that keeps what it gets.
type recorder struct {
	routes
	got []batch
}

func (r *recorder) receive(_ socket, b *batch) {
	c := *b
	c.data = bytes.Clone(b.data)
	r.got = append(r.got, c)
}

// An outlet is a socket that keeps what is sent.
type outlet struct {
	timers
	sent []sentPacket
}

type sentPacket struct {
	to   netip.AddrPort
	data []byte
}

func newOutlet() *outlet { return &outlet{timers: timers{kick: func() {}}} }

func (o *outlet) localAddr() netip.AddrPort { return netip.MustParseAddrPort("192.0.2.1:1") }
func (o *outlet) netConn() net.PacketConn   { return nil }
func (o *outlet) wake(s sleeper)            { o.timers.set(s) }
func (o *outlet) close() error              { return nil }
func (o *outlet) own()                      {}
func (o *outlet) release()                  {}
func (o *outlet) start()                    {}
func (o *outlet) send(_ blocker, out *capi.Output, buf []byte) bool {
	o.sent = append(o.sent, sentPacket{out.Path.Remote, bytes.Clone(buf[:out.N])})
	return false
}

var somewhere = netip.MustParseAddrPort("203.0.113.9:9")

func newTestEndpoint(t testing.TB, opts transport.Options) (*endpoint, *outlet) {
	t.Helper()
	o := newOutlet()
	e := &endpoint{opts: opts, start: time.Now(), table: newTable(), conns: make(map[*conn]struct{}), socket: o}
	var err error
	e.ids, err = newConnIDs(opts.ConnIDs)
	require.NoError(t, err)
	e.tokenKey = capi.TokenKey{1}
	return e, o
}

func TestAConnectionIDBelongsToOneConnection(t *testing.T) {
	tab := newTable()
	var a, b recorder
	k := keyOf([]byte("12345678"))
	require.True(t, tab.add(&a, &a.routes, k, false))
	require.True(t, tab.add(&a, &a.routes, k, false), "it is its own already")
	require.False(t, tab.add(&b, &b.routes, k, false))
	require.Same(t, &a, tab.lookup(k))
	tab.remove(&b, &b.routes, k)
	require.Same(t, &a, tab.lookup(k), "it is not the other's to remove")
	tab.remove(&a, &a.routes, k)
	require.Nil(t, tab.lookup(k))
	require.True(t, tab.add(&b, &b.routes, k, false))
	// IDs are different if one is the beginning of the other, also with zeros.
	require.NotEqual(t, keyOf([]byte{1}), keyOf([]byte{1, 0}))
}

func TestTheFirstIDOfAClientIsForgottenWhenTheHandshakeIsConfirmed(t *testing.T) {
	tab := newTable()
	var a recorder
	first, own := keyOf([]byte("original")), keyOf([]byte("12345678"))
	tab.add(&a, &a.routes, first, true)
	tab.add(&a, &a.routes, own, false)
	tab.removeFirst(&a.routes)
	require.Nil(t, tab.lookup(first))
	require.Same(t, &a, tab.lookup(own))
	tab.end(&a.routes, nil)
	require.Empty(t, tab.ids)
	require.True(t, tab.add(&a, &a.routes, own, false))
	require.Empty(t, tab.ids, "what has ended gets no entry")
}

func TestAStatelessResetFindsItsConnection(t *testing.T) {
	tab := newTable()
	c, other := new(conn), new(conn)
	token := []byte("sixteen bytes...")
	packet := append(make([]byte, 30), token...)
	require.Nil(t, tab.reset(packet))
	tab.addReset(c, token)
	tab.addReset(other, token) // a peer cannot take another's
	tab.removeReset(other, token)
	require.Same(t, c, tab.reset(packet))
	require.Nil(t, tab.reset(packet[len(packet)-minReset+1:]), "too short for a reset")
	require.Nil(t, tab.reset(packet[:len(packet)-1]))
	tab.removeReset(c, token)
	require.Nil(t, tab.reset(packet))
	tab.addReset(c, token)
	tab.end(&c.routes, nil)
	require.Empty(t, tab.resets)
}

func TestAClosedConnectionRepeatsItsCloseLessAndLess(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	c := new(conn)
	id := []byte("12345678")
	require.True(t, e.addConnID(c, id))
	before := e.now()
	e.connEnded(c, nil, []byte("CLOSE"), 3*time.Second)
	packet := append([]byte{0x40}, id...)
	for i := 1; i <= 100; i++ {
		e.route(o, &batch{path: capi.Path{Remote: somewhere}, data: packet})
		want := 0
		for n := 1; n <= i; n *= 2 {
			want++
		}
		require.Len(t, o.sent, want, "after %d packets", i)
	}
	require.Equal(t, sentPacket{somewhere, []byte("CLOSE")}, o.sent[0])
	require.Zero(t, e.stats.dropped.Load())
	require.Nil(t, o.due(before+2e9))
	m := o.due(e.now() + 4e9)
	require.NotNil(t, m)
	m.expired(0)
	require.Empty(t, e.table.ids)
	require.Zero(t, e.table.recent.Len())
	e.route(o, &batch{path: capi.Path{Remote: somewhere}, data: packet})
	require.EqualValues(t, 1, e.stats.dropped.Load())
}

// RFC 9000, Section 10.2.1: the answer must not be larger than three times what
// caused it, because the packet may be forged.
func TestARepeatedCloseDoesNotAmplify(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	c := new(conn)
	id := []byte("12345678")
	e.addConnID(c, id)
	e.connEnded(c, nil, make([]byte, 28), time.Second)
	e.route(o, &batch{data: append([]byte{0x40}, id...)})
	require.Empty(t, o.sent)
	e.route(o, &batch{data: append([]byte{0x40, 1}, id...)[:1+len(id)]})
	e.route(o, &batch{data: append(append([]byte{0x40}, id...), 0)})
	require.Len(t, o.sent, 1)
}

func TestEndedConnectionsAreNotRememberedWithoutBound(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	for i := range maxRemembered + 100 {
		c := new(conn)
		e.addConnID(c, fmt.Appendf(nil, "%08d", i))
		e.connEnded(c, nil, []byte("CLOSE"), time.Second)
	}
	require.Equal(t, maxRemembered, e.table.recent.Len())
	require.Len(t, e.table.ids, maxRemembered)
	require.Len(t, o.heap, maxRemembered)
	require.Nil(t, e.table.lookup(keyOf([]byte("00000000"))), "the oldest is forgotten")
}

// A generator that makes what a test tells it.
type scripted struct {
	len int
	id  func() ([]byte, error)
}

func (g scripted) ConnIDLen() int                  { return g.len }
func (g scripted) GenerateConnID() ([]byte, error) { return g.id() }

func TestWhatTheGeneratorReturnsIsChecked(t *testing.T) {
	for _, n := range []int{-1, 0, 21, 1000} {
		_, err := newConnIDs(scripted{len: n})
		require.Error(t, err)
	}
	boom := errors.New("boom")
	var id []byte
	var fail error
	e, _ := newTestEndpoint(t, transport.Options{ConnIDs: scripted{5, func() ([]byte, error) { return id, fail }}})
	id = []byte("abcde")
	got, err := e.newConnID()
	require.NoError(t, err)
	require.Equal(t, id, got)
	require.True(t, e.addConnID(new(conn), got))
	_, err = e.newConnID()
	require.ErrorIs(t, err, errDuplicateID)
	id = []byte("abcd")
	_, err = e.newConnID()
	require.ErrorContains(t, err, "returned 4 bytes, not 5")
	id = nil
	_, err = e.newConnID()
	require.Error(t, err)
	fail = boom
	_, err = e.newConnID()
	require.ErrorIs(t, err, boom)
}

func TestPacketsToOneConnectionAreHandedOverTogether(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	var a, b recorder
	e.table.add(&a, &a.routes, keyOf([]byte("aaaaaaaa")), false)
	e.table.add(&b, &b.routes, keyOf([]byte("bbbbbbbb")), false)
	one := func(id string, size int) []byte {
		return append(append([]byte{0x40}, id...), make([]byte, size-9)...)
	}
	data := bytes.Join([][]byte{one("aaaaaaaa", 50), one("aaaaaaaa", 50), one("bbbbbbbb", 50), one("cccccccc", 50), one("aaaaaaaa", 50), one("aaaaaaaa", 20)}, nil)
	e.route(o, &batch{path: capi.Path{Remote: somewhere}, ecn: 2, data: data, segment: 50, now: 7})
	require.Len(t, a.got, 2)
	require.Equal(t, batch{path: capi.Path{Remote: somewhere}, ecn: 2, data: data[:100], segment: 50, now: 7}, a.got[0])
	require.Equal(t, batch{path: capi.Path{Remote: somewhere}, ecn: 2, data: data[200:], segment: 50, now: 7}, a.got[1])
	require.Len(t, b.got, 1)
	require.Equal(t, data[100:150], b.got[0].data)
	require.EqualValues(t, 1, e.stats.dropped.Load())
	// Without GRO there is one packet.
	e.route(o, &batch{data: one("bbbbbbbb", 30)})
	require.Len(t, b.got, 2)
	require.Len(t, b.got[1].data, 30)
}

func TestRoutingDoesNotAllocate(t *testing.T) {
	e, o := newTestEndpoint(t, transport.Options{})
	var sink countingReceiver
	e.table.add(&sink, new(routes), keyOf([]byte("aaaaaaaa")), false)
	data := bytes.Repeat(append([]byte("@aaaaaaaa"), make([]byte, 1443)...), 44)
	b := &batch{path: capi.Path{Remote: somewhere}, data: data, segment: 1452}
	require.Zero(t, testing.AllocsPerRun(100, func() { e.route(o, b) }))
	require.Positive(t, sink)
	for _, stray := range [][]byte{[]byte("@bbbbbbbb...................................."), {0xc0, 0, 0, 0, 9}, {0xe0, 0, 0, 0, 1, 0, 0}} {
		b = &batch{data: stray}
		require.Zero(t, testing.AllocsPerRun(100, func() { e.route(o, b) }))
	}
}

type countingReceiver int

func (c *countingReceiver) receive(socket, *batch) { *c++ }
