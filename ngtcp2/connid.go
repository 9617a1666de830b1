//go:build ngtcp2 && cgo

package ngtcp2

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

const (
	// defaultConnIDLen is the length of random connection IDs.
	defaultConnIDLen = 8
	// maxConnIDLen is that of QUIC version 1 (RFC 9000, Section 17.2).
	maxConnIDLen = 20
	// maxRemembered bounds the connections that are remembered after their end.
	maxRemembered = 4096
	// maxRememberedIDs bounds the connection IDs of one of them.
	maxRememberedIDs = 32
)

// A header is what RFC 8999 leaves of a packet in all versions of QUIC.
type header struct {
	long       bool
	version    uint32 // of a long header
	dcid, scid []byte // parts of the packet; a short header has no scid
}

// parseHeader parses a packet whose destination connection ID, in a short
// header, has idLen bytes (RFC 8999, Section 5).
func parseHeader(b []byte, idLen int) (h header, ok bool) {
	if len(b) == 0 {
		return h, false
	}
	if b[0]&0x80 == 0 {
		if len(b) < 1+idLen {
			return h, false
		}
		h.dcid = b[1 : 1+idLen]
		return h, true
	}
	if len(b) < 7 {
		return h, false
	}
	h.long = true
	h.version = binary.BigEndian.Uint32(b[1:])
	b = b[5:]
	n := int(b[0])
	if len(b) < 1+n+1 {
		return h, false
	}
	h.dcid, b = b[1:1+n], b[1+n:]
	n = int(b[0])
	if len(b) < 1+n {
		return h, false
	}
	h.scid = b[1 : 1+n]
	return h, true
}

// A cidKey is a connection ID as a map's key.
type cidKey struct {
	n  uint8
	id [maxConnIDLen]byte
}

// keyOf returns the key of an ID of at most maxConnIDLen bytes.
func keyOf(id []byte) (k cidKey) {
	k.n = uint8(copy(k.id[:], id))
	return k
}

// A receiver takes the packets to a connection ID.
type receiver interface {
	receive(s socket, b *batch)
}

// Routes are embedded in a connection: its entries in the endpoint's tables.
type routes struct {
	ids    []cidKey   // guarded by table.mu; connection IDs
	first  []cidKey   // guarded by table.mu; a client's first destination connection IDs
	resets []resetKey // guarded by table.mu; stateless reset tokens of the peer
	gone   bool       // guarded by table.mu; nothing may be added any more

	server      bool // guarded by endpoint.mu; it has a place among Options.MaxConns
	unvalidated bool // guarded by endpoint.mu; the handshake goes on and nobody has proved the address
	complete    bool // guarded by endpoint.mu; the handshake is
	ended       bool // guarded by endpoint.mu
}

// A resetKey stands for a stateless reset token in a table. It is a hash with
// a secret, so that the time that a search takes tells nothing about the
// tokens (RFC 9000, Section 10.3.1).
type resetKey [sha256.Size]byte

// A table says which connection a packet is for. It knows a connection by its
// connection IDs and by the stateless reset tokens that end it, and remembers
// connections that have ended.
type table struct {
	secret [16]byte

	mu     sync.RWMutex
	ids    map[cidKey]receiver // guarded by mu
	resets map[resetKey]*conn  // guarded by mu
	recent list.List           // guarded by mu; of *remembered, the newest first
}

func newTable() *table {
	t := &table{ids: make(map[cidKey]receiver), resets: make(map[resetKey]*conn)}
	rand.Read(t.secret[:])
	return t
}

func (t *table) lookup(k cidKey) receiver {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.ids[k]
}

// add routes k to c. It returns false if another connection has k. What has
// ended is not added.
func (t *table) add(r receiver, rt *routes, k cidKey, first bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rt.gone {
		return true
	}
	if other, ok := t.ids[k]; ok {
		return other == r
	}
	t.ids[k] = r
	if first {
		rt.first = append(rt.first, k)
	} else {
		rt.ids = append(rt.ids, k)
	}
	return true
}

func (t *table) remove(r receiver, rt *routes, k cidKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids[k] != r {
		return
	}
	for i, id := range rt.ids {
		if id == k {
			rt.ids = append(rt.ids[:i], rt.ids[i+1:]...)
			delete(t.ids, k)
			return
		}
	}
}

// removeFirst forgets the IDs that a client chose for the server.
func (t *table) removeFirst(rt *routes) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range rt.first {
		delete(t.ids, k)
	}
	rt.first = nil
}

func (t *table) resetKey(token []byte) resetKey {
	var b [32]byte
	copy(b[:16], t.secret[:])
	copy(b[16:], token)
	return sha256.Sum256(b[:])
}

func (t *table) addReset(c *conn, token []byte) {
	k := t.resetKey(token)
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.routes.gone || t.resets[k] != nil {
		return
	}
	t.resets[k] = c
	c.routes.resets = append(c.routes.resets, k)
}

func (t *table) removeReset(c *conn, token []byte) {
	k := t.resetKey(token)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range c.routes.resets {
		if r == k {
			c.routes.resets = append(c.routes.resets[:i], c.routes.resets[i+1:]...)
			delete(t.resets, k)
			return
		}
	}
}

// resets returns the connection that a packet ends if it is a stateless reset.
func (t *table) reset(packet []byte) *conn {
	if len(packet) < minReset {
		return nil
	}
	t.mu.RLock()
	empty := len(t.resets) == 0
	t.mu.RUnlock()
	if empty {
		return nil
	}
	k := t.resetKey(packet[len(packet)-16:])
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.resets[k]
}

// end removes all entries of a connection, or lets them stand for m, if that
// is not nil. It returns what had to be forgotten for it.
func (t *table) end(rt *routes, m *remembered) (dropped []*remembered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rt.gone {
		return nil
	}
	rt.gone = true
	for _, k := range rt.resets {
		delete(t.resets, k)
	}
	for _, k := range append(rt.ids, rt.first...) {
		if m == nil || len(m.ids) == maxRememberedIDs {
			delete(t.ids, k)
			continue
		}
		t.ids[k] = m
		m.ids = append(m.ids, k)
	}
	rt.ids, rt.first, rt.resets = nil, nil, nil
	if m == nil {
		return nil
	}
	m.el = t.recent.PushFront(m)
	for t.recent.Len() > maxRemembered {
		last := t.recent.Back().Value.(*remembered)
		t.dropLocked(last)
		dropped = append(dropped, last)
	}
	return dropped
}

func (t *table) drop(m *remembered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(m)
}

func (t *table) dropLocked(m *remembered) {
	if m.el == nil {
		return
	}
	t.recent.Remove(m.el)
	m.el = nil
	for _, k := range m.ids {
		delete(t.ids, k)
	}
	m.ids = nil
}

// A remembered is what is left of a connection for a while after its end: it
// answers late packets with CONNECTION_CLOSE or, if the peer closed the
// connection or does not answer, not at all (RFC 9000, Section 10.2).
type remembered struct {
	timer
	table  *table
	packet []byte

	ids []cidKey      // guarded by table.mu
	el  *list.Element // guarded by table.mu

	mu       sync.Mutex
	received uint64 // guarded by mu; datagrams
	answerAt uint64 // guarded by mu; the value of received to answer next
}

// receive implements receiver. The first packet, the second, the fourth and so
// on are answered (RFC 9000, Section 10.2.1: an endpoint SHOULD limit the rate
// at which it generates packets in the closing state), but never with more
// than three times what arrived, as it may be from anywhere.
func (m *remembered) receive(s socket, b *batch) {
	if len(m.packet) == 0 || len(m.packet) > 3*len(b.data) {
		return
	}
	m.mu.Lock()
	m.received++
	answer := m.received >= m.answerAt
	if answer {
		m.answerAt = 2 * m.received
	}
	m.mu.Unlock()
	if answer {
		s.send(nil, &capi.Output{N: len(m.packet), Path: b.path}, m.packet)
	}
}

func (m *remembered) expired(uint64) { m.table.drop(m) }

func (e *endpoint) addConnID(c *conn, id []byte) bool {
	return e.table.add(c, &c.routes, keyOf(id), false)
}

func (e *endpoint) removeConnID(c *conn, id []byte) { e.table.remove(c, &c.routes, keyOf(id)) }

func (e *endpoint) addResetToken(token [16]byte, c *conn) { e.table.addReset(c, token[:]) }

func (e *endpoint) removeResetToken(token [16]byte, c *conn) { e.table.removeReset(c, token[:]) }

// confirmed is called when the handshake of a server's connection is
// confirmed: the client knows an ID that this side chose. What it sent to the
// first one may be on its way still, and must not begin another connection.
func (e *endpoint) confirmed(c *conn, after uint64) {
	f := &firstIDs{table: e.table, routes: &c.routes}
	f.expiry.Store(e.now() + after)
	e.socket.wake(f)
}

// firstIDs are forgotten when the time comes.
type firstIDs struct {
	timer
	table  *table
	routes *routes
}

func (f *firstIDs) expired(uint64) { f.table.removeFirst(f.routes) }

// remember ends c's entries in the table. Its connection IDs answer with
// packet, if there is one, for that long.
func (e *endpoint) remember(c *conn, packet []byte, repeatFor time.Duration) {
	if repeatFor <= 0 {
		e.table.end(&c.routes, nil)
		return
	}
	m := &remembered{table: e.table, packet: append([]byte(nil), packet...), answerAt: 1}
	for _, old := range e.table.end(&c.routes, m) {
		e.socket.forget(old)
	}
	m.expiry.Store(e.now() + uint64(repeatFor))
	e.socket.wake(m)
}

// connIDs makes connection IDs.
type connIDs struct {
	gen transport.ConnIDGenerator // nil: random
	len int
}

func newConnIDs(gen transport.ConnIDGenerator) (connIDs, error) {
	if gen == nil {
		return connIDs{len: defaultConnIDLen}, nil
	}
	n := gen.ConnIDLen()
	if n < 1 || n > maxConnIDLen {
		return connIDs{}, fmt.Errorf("ngtcp2: ConnIDLen is %d, not 1 to %d", n, maxConnIDLen)
	}
	return connIDs{gen, n}, nil
}

func (g connIDs) generate() ([]byte, error) {
	if g.gen == nil {
		id := make([]byte, g.len)
		rand.Read(id)
		return id, nil
	}
	id, err := g.gen.GenerateConnID()
	if err != nil {
		return nil, fmt.Errorf("ngtcp2: GenerateConnID: %w", err)
	}
	if len(id) != g.len {
		return nil, fmt.Errorf("ngtcp2: GenerateConnID returned %d bytes, not %d", len(id), g.len)
	}
	return id, nil
}

// newConnID returns a connection ID that is not in use. The caller holds no
// lock: it may call the application.
func (e *endpoint) newConnID() ([]byte, error) {
	id, err := e.ids.generate()
	if err != nil {
		return nil, err
	}
	if e.table.lookup(keyOf(id)) != nil {
		return nil, errDuplicateID
	}
	return id, nil
}

var errDuplicateID = fmt.Errorf("ngtcp2: GenerateConnID returned an ID that is in use")
