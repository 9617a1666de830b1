//go:build ngtcp2 && cgo

package capi

// #include "tls.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"runtime/cgo"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// How a server asks for a client's certificate.
const (
	ClientAuthNone = iota
	ClientAuthRequest
	ClientAuthRequire
)

// A TLSConfig is what one connection's handshake is made from.
type TLSConfig struct {
	Server bool
	// NextProtos are offered by a client. A server chooses the first of its own
	// that the client offers; if there is none the handshake fails with
	// no_application_protocol.
	NextProtos []string
	ServerName string // client: sent as SNI, unless empty or an IP address
	// Certificate is the server's. A client's is chosen by Callbacks.
	Certificate  *Certificate
	CipherSuites []uint16 // in order of preference; empty: the default order
	// Curves are tls.CurveIDs in order of preference; empty: X25519MLKEM768,
	// X25519, P-256, P-384.
	Curves     []uint16
	ClientAuth int      // server: ClientAuthNone ...; a certificate that comes is given to VerifyPeer
	ClientCAs  [][]byte // server: raw subject names that are sent in a CertificateRequest
	EarlyData  bool     // server: accept 0-RTT; client: try it, if Session allows
	Tickets    bool     // server: issue tickets; client: want sessions
	// TicketKeys encrypt a server's tickets (the first) and decrypt them (all).
	TicketKeys [][32]byte
	Session    []byte // client: to be resumed, from TakeSession; useless bytes are ignored
	// SessionAge is how long ago Session was given, by the clock that counts: if
	// that is more than the server allows it is not used.
	SessionAge time.Duration
	KeyLog     bool
	// RawPublicKey uses RFC 7250 keys instead of certificates, for both sides.
	RawPublicKey bool
	Callbacks    Callbacks
}

// A TLSState is what a handshake agreed on.
type TLSState struct {
	Version, CipherSuite, Curve uint16
	ALPN                        string
	ServerName                  string   // what the client sent
	Resumed                     bool     // PeerChain, OCSP and Timestamps are then empty: the session's owner has kept them
	EarlyAccepted               bool     // 0-RTT was sent and accepted
	HelloRetry                  bool     // the server asked for a second ClientHello
	PeerChain                   [][]byte // DER, leaf first; or one raw public key
	OCSP                        []byte   // client: the stapled response
	Timestamps                  [][]byte // client: signed certificate timestamps that came with the leaf
	TicketData                  []byte   // server: of the ticket that was resumed
}

var errClosedCertificate = errors.New("ngtcp2: certificate: used after Close")

// CheckTLS tells what of t this TLS library cannot honour.
func CheckTLS(t *TLSConfig) error {
	if TLSLibrary() != "wolfssl" {
		return nil
	}
	if t.RawPublicKey {
		return errors.New("ngtcp2: tls: wolfSSL gives raw public keys without a proof to Go")
	}
	for _, p := range t.NextProtos {
		if strings.Contains(p, ",") {
			return fmt.Errorf("ngtcp2: tls: wolfSSL takes no comma in a protocol's name, %q", p)
		}
	}
	return nil
}

// tlsArgs is a TLSConfig in C's form. It keeps what C refers to until release.
type tlsArgs struct {
	config    C.aq_tls_config
	data      []byte // what config's lengths are about
	cert      *C.aq_cert
	callbacks cgo.Handle
	state     *tlsCallbacks
}

// newTLSArgs gives t the form in which C takes it. The owner of the connection
// calls release once, after aq_tls_free.
func newTLSArgs(t *TLSConfig) (*tlsArgs, error) {
	if t == nil || t.Callbacks == nil {
		return nil, errors.New("ngtcp2: tls: no configuration")
	}
	if err := initTLS(); err != nil {
		return nil, err
	}
	if err := CheckTLS(t); err != nil {
		return nil, err
	}
	a := &tlsArgs{state: &tlsCallbacks{Callbacks: t.Callbacks}}
	c := &a.config
	c.client_auth = C.uint8_t(t.ClientAuth)
	c.early_data = cBool(t.EarlyData)
	c.tickets = cBool(t.Tickets)
	c.key_log = cBool(t.KeyLog)
	c.raw_public_key = cBool(t.RawPublicKey)

	start := len(a.data)
	for _, p := range t.NextProtos {
		// RFC 7301, Section 3.1: opaque ProtocolName<1..2^8-1>
		if len(p) == 0 || len(p) > math.MaxUint8 {
			return nil, fmt.Errorf("ngtcp2: tls: %q is no protocol name for ALPN", p)
		}
		a.data = append(append(a.data, byte(len(p))), p...)
	}
	if len(a.data) > math.MaxUint16-2 {
		return nil, errors.New("ngtcp2: tls: NextProtos are too long")
	}
	c.alpn_len = a.since(&start)
	if name := t.ServerName; name != "" && !t.Server {
		// RFC 6066, Section 3: literal addresses are not permitted.
		if _, err := netip.ParseAddr(name); err != nil {
			a.data = append(a.data, name...)
		}
	}
	c.server_name_len = a.since(&start)
	a.data = appendUint16s(a.data, t.CipherSuites)
	c.suites_len = a.since(&start)
	a.data = appendUint16s(a.data, t.Curves)
	c.curves_len = a.since(&start)
	for _, name := range t.ClientCAs {
		if len(name) == 0 || len(name) > math.MaxUint16 {
			return nil, errors.New("ngtcp2: tls: a name in ClientCAs has a length that cannot be sent")
		}
		a.data = append(append(a.data, byte(len(name)>>8), byte(len(name))), name...)
	}
	c.cas_len = a.since(&start)
	for i := range t.TicketKeys {
		a.data = append(a.data, t.TicketKeys[i][:]...)
	}
	c.ticket_keys_len = a.since(&start)
	a.data = append(a.data, t.Session...)
	c.session_len = a.since(&start)
	if t.SessionAge < 0 {
		c.session_age = math.MaxUint64
	} else {
		c.session_age = C.uint64_t(t.SessionAge / time.Second)
	}

	if t.Certificate != nil {
		if a.cert = t.Certificate.h.ref(); a.cert == nil {
			return nil, errClosedCertificate
		}
		c.cert = a.cert
	}
	a.callbacks = cgo.NewHandle(a.state)
	c.callbacks = C.uintptr_t(a.callbacks)
	return a, nil
}

// since returns how much data came since *start, and moves it.
func (a *tlsArgs) since(start *int) C.uint32_t {
	n := len(a.data) - *start
	*start = len(a.data)
	return C.uint32_t(n)
}

// started lets go of what only the making of the TLS object needs.
func (a *tlsArgs) started() {
	clear(a.data) // ticket keys and the session are secret
	a.data = nil
	if a.cert != nil {
		C.aq_cert_free(a.cert)
		a.cert, a.config.cert = nil, nil
	}
}

// release may be called again.
func (a *tlsArgs) release() {
	if a == nil {
		return
	}
	a.started()
	if a.callbacks != 0 {
		a.callbacks.Delete()
		a.callbacks = 0
	}
}

// err is what a callback failed the handshake with, if one did.
func (a *tlsArgs) err() error {
	if a == nil {
		return nil
	}
	return a.state.err
}

func (a *tlsArgs) ptr() *C.aq_tls_config { return &a.config }
func (a *tlsArgs) dataPtr() *C.uint8_t   { return bytesPtr(a.data) }
func (a *tlsArgs) dataLen() C.size_t     { return C.size_t(len(a.data)) }

// readTLSState copies what t knows; t may be nil.
func readTLSState(t *C.aq_tls) TLSState {
	if t == nil {
		return TLSState{}
	}
	var s C.aq_tls_state
	C.aq_tls_get_state(t, &s)
	return TLSState{
		Version: uint16(s.version), CipherSuite: uint16(s.suite), Curve: uint16(s.curve),
		Resumed: s.resumed != 0, EarlyAccepted: s.early_accepted != 0, HelloRetry: s.hello_retry != 0,
		ALPN:       string(goBytes(s.alpn, s.alpn_len)),
		ServerName: string(goBytes(s.server_name, s.server_name_len)),
		PeerChain:  unpackChain(unsafe.Slice((*byte)(s.chain), int(s.chain_len))),
		OCSP:       goBytes(s.ocsp, s.ocsp_len),
		Timestamps: unpackNames(unsafe.Slice((*byte)(s.timestamps), int(s.timestamps_len))),
		TicketData: goBytes(s.ticket_data, s.ticket_data_len),
	}
}

// takeTLSSession returns the oldest session of a client that nobody has taken,
// nil if there is none.
func takeTLSSession(t *C.aq_tls) []byte {
	if t == nil {
		return nil
	}
	var n C.size_t
	p := C.aq_tls_session(t, &n)
	b := goBytes(p, n)
	C.aq_tls_session_done(t)
	return b
}

// goBytes copies; nil if there is nothing.
func goBytes(p *C.uint8_t, n C.size_t) []byte {
	if p == nil || n == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(p), int(n))...)
}

func appendUint16s(b []byte, v []uint16) []byte {
	for _, x := range v {
		b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&x)), 2)...)
	}
	return b
}

func cBool(b bool) C.uint8_t {
	if b {
		return 1
	}
	return 0
}

// An errorText is where C writes why it failed.
type errorText [256]byte

func newErrorText() *errorText     { return new(errorText) }
func (t *errorText) ptr() *C.char  { return (*C.char)(unsafe.Pointer(&t[0])) }
func (t *errorText) len() C.size_t { return C.size_t(len(t)) }
func (t *errorText) String() string {
	s := C.GoString(t.ptr())
	runtime.KeepAlive(t)
	return s
}

// initTLS makes what the process has once. It may be called by any goroutine.
var initTLS = sync.OnceValue(func() error {
	text := newErrorText()
	if C.aq_tls_init(text.ptr(), text.len()) != 0 {
		return fmt.Errorf("ngtcp2: tls: %s", text)
	}
	return nil
})
