//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
)

// A session is stored as sessionMagic, a checksum of the rest, and the rest:
// fields with their lengths before them, in the order of session's fields.
//
// The checksum is there because the TLS library reads what is in it: a damaged
// session must cost no more than resumption.
const (
	sessionMagic = "anyquic/ngtcp2\x03"
	sumLen       = 8 // of SHA-256

	maxSession      = 256 << 10 // bytes, in all
	maxSessionCerts = 32
	maxSessionSCTs  = 255

	// maxSessionLifetime limits what a server may say (RFC 8446, Section 4.6.1).
	maxSessionLifetime = 7 * 24 * time.Hour
)

var errNoSession = errors.New("ngtcp2: not a session of this engine")

// A session is what a client needs to resume.
type session struct {
	library  string    // that wrote tls
	server   string    // tls.Config.ServerName: what resumes is that server
	created  time.Time // by the clock of tls.Config, to the second
	suite    uint16
	verified bool // the chain was verified
	alpn     string
	tls      []byte   // the TLS library's
	params   []byte   // transport parameters for 0-RTT; empty: none
	ocsp     []byte   // stapled by the server
	scts     [][]byte // signed certificate timestamps that the server sent
	chain    [][]byte // the server's, DER, leaf first; or its raw public key
	raw      bool     // chain is a raw public key

	peer *peer // of chain; not stored
}

// early reports whether the session allows 0-RTT to a client that offers protos.
func (s *session) early(protos []string) bool {
	return len(s.params) > 0 && slices.Contains(protos, s.alpn)
}

func (s *session) encode() ([]byte, error) {
	if len(s.chain) > maxSessionCerts || len(s.scts) > maxSessionSCTs || len(s.tls) == 0 {
		return nil, errNoSession
	}
	head := len(sessionMagic) + sumLen
	b := make([]byte, head, head+len(s.tls)+len(s.params)+4096)
	b = appendField(b, []byte(s.library))
	b = appendField(b, []byte(s.server))
	b = binary.BigEndian.AppendUint64(b, uint64(s.created.Unix()))
	b = binary.BigEndian.AppendUint16(b, s.suite)
	b = append(b, flag(s.verified)|flag(s.raw)<<1)
	b = appendField(b, []byte(s.alpn))
	b = appendField(b, s.tls)
	b = appendField(b, s.params)
	b = appendField(b, s.ocsp)
	b = append(b, byte(len(s.scts)))
	for _, sct := range s.scts {
		b = appendField(b, sct)
	}
	b = append(b, byte(len(s.chain)))
	for _, der := range s.chain {
		b = appendField(b, der)
	}
	if len(b) > maxSession {
		return nil, errNoSession
	}
	sum := sha256.Sum256(b[head:])
	copy(b, sessionMagic)
	copy(b[len(sessionMagic):], sum[:sumLen])
	return b, nil
}

func decodeSession(b []byte) (*session, error) {
	if len(b) > maxSession {
		return nil, errNoSession
	}
	b, ok := bytes.CutPrefix(b, []byte(sessionMagic))
	if !ok || len(b) < sumLen {
		return nil, errNoSession
	}
	sum := sha256.Sum256(b[sumLen:])
	if !bytes.Equal(b[:sumLen], sum[:sumLen]) {
		return nil, errNoSession
	}
	return decodeFields(b[sumLen:])
}

// decodeFields reads what follows the checksum. The session shares no memory
// with b.
func decodeFields(b []byte) (*session, error) {
	r := fieldReader{b: bytes.Clone(b)}
	s := &session{library: string(r.field()), server: string(r.field())}
	s.created = time.Unix(int64(r.uint(8)), 0)
	s.suite = uint16(r.uint(2))
	flags := r.uint(1)
	s.verified, s.raw = flags&1 != 0, flags&2 != 0
	s.alpn = string(r.field())
	s.tls, s.params, s.ocsp = r.field(), r.field(), r.field()
	for n := r.uint(1); n > 0 && !r.bad; n-- {
		s.scts = append(s.scts, r.field())
	}
	n := r.uint(1)
	if r.bad || n > maxSessionCerts || flags > 3 {
		return nil, errNoSession
	}
	for range n {
		s.chain = append(s.chain, r.field())
	}
	if r.bad || len(r.b) > 0 || len(s.tls) == 0 {
		return nil, errNoSession
	}
	return s, nil
}

// A fieldReader takes fields from the front of b. After the first that is not
// there, bad is set and it returns zeros.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) uint(size int) uint64 {
	if r.bad || len(r.b) < size {
		r.bad = true
		return 0
	}
	var v uint64
	for _, c := range r.b[:size] {
		v = v<<8 | uint64(c)
	}
	r.b = r.b[size:]
	return v
}

// field is nil if it is empty.
func (r *fieldReader) field() []byte {
	n := r.uint(4)
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	f := r.b[:n:n]
	r.b = r.b[n:]
	return f
}

func appendField(b, f []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// sessionKey is what sessions of this server are kept under; "": they are not.
func (cc *connConfig) sessionKey() string {
	if cc.cfg.Sessions == nil || cc.tls.SessionTicketsDisabled {
		return ""
	}
	return cc.tls.ServerName
}

// takeSession returns a session that may be used now, or nil. It asks the
// application's cache.
func (cc *connConfig) takeSession() *session {
	key := cc.sessionKey()
	if key == "" {
		return nil
	}
	s, err := decodeSession(cc.cfg.Sessions.Take(key))
	if err != nil || !cc.usable(s) {
		return nil // a full handshake
	}
	return s
}

// usable reports whether crypto/tls would offer s, and fills in its peer. What
// the server proved when s began must still convince.
func (cc *connConfig) usable(s *session) bool {
	t := cc.tls
	raw := cc.knobs.rawPublicKeys()
	age := clock(t).Sub(s.created)
	if s.server != t.ServerName {
		return false // whatever else is verified: nothing says that the other is this one
	}
	if s.library != capi.TLSLibrary() || s.raw != (raw != nil) || age > maxSessionLifetime || age < 0 || len(s.chain) == 0 {
		return false
	}
	if suites := cipherSuites(t); suites != nil && !slices.Contains(suites, s.suite) {
		return false
	}
	if raw != nil {
		if len(s.chain) != 1 || raw.Verify(s.chain[0]) != nil {
			return false
		}
		s.peer = &peer{raw: s.chain}
		return true
	}
	certs, fail := parseCertificates(s.chain, "certificate from server", "server")
	if fail != nil || clock(t).After(certs[0].NotAfter) {
		return false
	}
	s.peer = &peer{certs: certs, ocsp: s.ocsp, scts: s.scts}
	if t.InsecureSkipVerify {
		return true
	}
	if !s.verified {
		return false // it began with InsecureSkipVerify, and this does not
	}
	var err error
	s.peer.chains, err = certs[0].Verify(serverOptions(t, certs))
	return err == nil
}

// storeSession stores a session that the TLS library has for a client (event
// Session), with the server's transport parameters for 0-RTT. It calls the
// application's cache, and must not be called with a lock held.
func (ts *tlsState) storeSession(tlsSession, params []byte) {
	key := ts.cc.sessionKey()
	s := ts.newSession(tlsSession, params)
	if key == "" || s == nil {
		return
	}
	if b, err := s.encode(); err == nil {
		ts.cc.cfg.Sessions.Put(key, b)
	}
}

// newSession returns nil before the handshake is complete.
func (ts *tlsState) newSession(tlsSession, params []byte) *session {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	p := ts.peer
	if p == nil || !ts.client {
		return nil
	}
	s := &session{
		library:  capi.TLSLibrary(),
		server:   ts.tls.ServerName,
		created:  clock(ts.tls),
		suite:    ts.final.CipherSuite,
		verified: len(p.chains) > 0,
		alpn:     ts.final.ALPN,
		tls:      tlsSession,
		params:   params,
		ocsp:     p.ocsp,
		scts:     p.scts,
		raw:      p.raw != nil,
		chain:    p.raw,
	}
	if s.ocsp == nil {
		s.ocsp = ts.final.OCSP
	}
	if s.scts == nil {
		s.scts = ts.final.Timestamps
	}
	for _, c := range p.certs {
		s.chain = append(s.chain, c.Raw)
	}
	return s
}
