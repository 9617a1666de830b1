//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
// #include "tls.h"
//
// #cgo noescape aq_conn_read
// #cgo noescape aq_conn_write
// #cgo noescape aq_conn_handle_expiry
// #cgo noescape aq_conn_write_close
// #cgo nocallback aq_conn_write_close
// #cgo noescape aq_conn_info
// #cgo nocallback aq_conn_info
// #cgo noescape aq_conn_path
// #cgo nocallback aq_conn_path
// #cgo noescape aq_conn_peer_params
// #cgo nocallback aq_conn_peer_params
// #cgo noescape aq_conn_supply_id
// #cgo nocallback aq_conn_supply_id
// #cgo noescape aq_conn_pto
// #cgo nocallback aq_conn_pto
import "C"

import (
	"errors"
	"math"
	"unsafe"
)

// NoExpiry is a time that never comes.
const NoExpiry = math.MaxUint64

// MinWriteBuffer is what WritePackets and WriteClose need at least.
const MinWriteBuffer = 65536

// Congestion controllers, for Settings.CongestionControl.
const (
	Reno = iota
	Cubic
	BBR
)

// Settings are numbers only; durations are nanoseconds.
type Settings struct {
	CongestionControl int    // Reno, Cubic, BBR
	Now               uint64 // the time at which the connection begins
	HandshakeTimeout  uint64 // NoExpiry: none
	IdleTimeout       uint64 // 0: none
	KeepAlive         uint64 // NoExpiry or 0: none

	MaxStreams, MaxUniStreams      uint64 // that the peer may have open at a time
	StreamWindow, ConnWindow       uint64 // bytes at the beginning
	MaxStreamWindow, MaxConnWindow uint64 // bytes; windows grow to these if the path is fast
	SendBuffer                     uint64 // bytes; most that a stream keeps, unsent or unacknowledged

	MaxDatagramFrame       uint64 // bytes; 0: none are taken
	DatagramQueue          uint32 // messages in each direction; 0: 64
	MaxUDPPayload          uint32 // bytes; over 1200 the path's limit is searched for
	ActiveConnIDs          uint32 // of the peer's that we keep; 0: ngtcp2's default
	DisableActiveMigration bool
	QLog                   bool // QLogChunk has it

	ResetKey      [32]byte // of the stateless reset tokens of our connection IDs
	ResetKeySet   bool     // false: they are random, so that nobody can make them again
	ConnIDLen     uint8    // bytes, of ours
	EngineConnIDs bool     // ours come from SupplyConnID; the first is SCID
}

func (s *Settings) c() (out C.aq_settings) {
	out.congestion_control = C.uint8_t(s.CongestionControl)
	out.now = C.uint64_t(s.Now)
	out.handshake_timeout = C.uint64_t(s.HandshakeTimeout)
	out.idle_timeout = C.uint64_t(s.IdleTimeout)
	out.keep_alive = C.uint64_t(s.KeepAlive)
	out.max_streams = C.uint64_t(s.MaxStreams)
	out.max_uni_streams = C.uint64_t(s.MaxUniStreams)
	out.stream_window = C.uint64_t(s.StreamWindow)
	out.conn_window = C.uint64_t(s.ConnWindow)
	out.max_stream_window = C.uint64_t(s.MaxStreamWindow)
	out.max_conn_window = C.uint64_t(s.MaxConnWindow)
	out.send_buffer = C.uint64_t(s.SendBuffer)
	out.max_datagram_frame = C.uint64_t(s.MaxDatagramFrame)
	out.datagram_queue = C.uint32_t(s.DatagramQueue)
	out.max_udp_payload = C.uint32_t(s.MaxUDPPayload)
	out.active_conn_ids = C.uint32_t(s.ActiveConnIDs)
	out.disable_active_migration = cBool(s.DisableActiveMigration)
	out.qlog = cBool(s.QLog)
	out.reset_key_set = cBool(s.ResetKeySet)
	out.conn_id_len = C.uint8_t(s.ConnIDLen)
	out.engine_conn_ids = cBool(s.EngineConnIDs)
	for i, b := range s.ResetKey {
		out.reset_key[i] = C.uint8_t(b)
	}
	return out
}

// ClientOptions are what one outgoing connection needs besides Settings.
type ClientOptions struct {
	Path        Path
	DCID, SCID  []byte // DCID: at least 8 unpredictable bytes
	Token       []byte // of an earlier NEW_TOKEN frame
	EarlyParams []byte // EarlyTransportParams of the connection that gave the session
}

// A TokenKind says what a server knows of the token in a client's Initial.
type TokenKind int

const (
	TokenNone    = TokenKind(C.AQ_TOKEN_NONE)
	TokenRetry   = TokenKind(C.AQ_TOKEN_RETRY)   // VerifyRetryToken was content
	TokenRegular = TokenKind(C.AQ_TOKEN_REGULAR) // VerifyRegularToken was content
)

// ServerOptions are what one incoming connection needs besides Settings.
type ServerOptions struct {
	Path         Path
	Initial      Initial
	SCID         []byte // ours; after a Retry it is what that said, Initial.DCID
	OriginalDCID []byte // that the client used before a Retry; nil: there was none
	Token        []byte
	TokenKind    TokenKind
}

// A Conn is one QUIC connection. Its zero value is of no use.
type Conn struct {
	c    *C.aq_conn // nil after Free
	args *tlsArgs   // nil until TLS is there
	last struct {   // what may still be asked after Free
		datagramsSent, datagramsReceived, datagramsDropped uint64
	}
}

var errFreed = errors.New("ngtcp2: connection is freed")

// NewClient makes a connection that begins its handshake with the first
// WritePackets.
func NewClient(s *Settings, o *ClientOptions, t *TLSConfig) (*Conn, error) {
	args, err := newTLSArgs(t)
	if err != nil {
		return nil, err
	}
	settings := s.c()
	var options C.aq_client_options
	options.path = o.Path.c()
	if !putCID(&options.dcid, o.DCID) || !putCID(&options.scid, o.SCID) {
		args.release()
		return nil, codeError(C.int(ErrInvalidArgument))
	}
	var cerr C.aq_error
	c := &Conn{args: args}
	c.c = C.aq_client_new(&settings, &options, bytesPtr(o.Token), C.size_t(len(o.Token)), &cerr)
	if c.c == nil {
		args.release()
		return nil, goError(&cerr)
	}
	var tls *C.aq_tls
	text := newErrorText()
	rv := C.aq_conn_make_tls(c.c, &tls, &args.config, args.dataPtr(), args.dataLen(), text.ptr(), text.len())
	args.started()
	if rv != 0 {
		c.Free()
		return nil, errors.New("ngtcp2: tls: " + text.String())
	}
	C.aq_conn_set_client_tls(c.c, tls, bytesPtr(o.EarlyParams), C.size_t(len(o.EarlyParams)))
	return c, nil
}

// NewServer makes a connection for a client's first Initial, which is then
// given to ReadPackets like any other packet. When the event ClientHello comes
// StartServerTLS goes on.
func NewServer(s *Settings, o *ServerOptions) (*Conn, error) {
	settings := s.c()
	var options C.aq_server_options
	options.path = o.Path.c()
	options.version = C.uint32_t(o.Initial.Version)
	options.token_kind = C.uint32_t(o.TokenKind)
	if !putCID(&options.dcid, o.Initial.DCID) || !putCID(&options.peer_scid, o.Initial.SCID) ||
		!putCID(&options.scid, o.SCID) || !putCID(&options.original_dcid, o.OriginalDCID) {
		return nil, codeError(C.int(ErrInvalidArgument))
	}
	var cerr C.aq_error
	c := &Conn{c: C.aq_server_new(&settings, &options, bytesPtr(o.Token), C.size_t(len(o.Token)), &cerr)}
	if c.c == nil {
		return nil, goError(&cerr)
	}
	return c, nil
}

// Free frees what c has in C. It may be called again.
func (c *Conn) Free() {
	if c.c == nil {
		return
	}
	c.last.datagramsSent, c.last.datagramsReceived, c.last.datagramsDropped = c.DatagramCounters()
	C.aq_conn_free(c.c)
	c.c = nil
	c.args.release()
}

// ClientHello is a copy of the client's message, without record header; nil
// before the event ClientHello and after StartServerTLS.
func (c *Conn) ClientHello() []byte {
	if c.c == nil {
		return nil
	}
	var n C.size_t
	return goBytes(C.aq_conn_hello(c.c, &n), n)
}

// StartServerTLS gives the client's message to a TLS object made from t.
func (c *Conn) StartServerTLS(t *TLSConfig, now uint64) error {
	if c.c == nil {
		return errFreed
	}
	if c.args != nil {
		return codeError(C.int(ErrInvalidState))
	}
	args, err := newTLSArgs(t)
	if err != nil {
		return err
	}
	var tls *C.aq_tls
	text := newErrorText()
	rv := C.aq_conn_make_tls(c.c, &tls, &args.config, args.dataPtr(), args.dataLen(), text.ptr(), text.len())
	args.started()
	if rv != 0 {
		args.release()
		return errors.New("ngtcp2: tls: " + text.String())
	}
	c.args = args
	return c.result(C.aq_conn_start_server_tls(c.c, tls, C.uint64_t(now)))
}

// FailHandshake makes the pending close one that carries a TLS alert.
func (c *Conn) FailHandshake(alert uint8) {
	if c.c != nil {
		C.aq_conn_fail_handshake(c.c, C.uint8_t(alert))
	}
}

// TLSError is the error of the callback that failed the handshake, if one did.
func (c *Conn) TLSError() error { return c.args.err() }

// ReadPackets takes packets of segment bytes each, the last of which may be
// shorter; segment 0 stands for one packet. Packets that make no sense are
// ignored. Data is not kept.
func (c *Conn) ReadPackets(p Path, ecn uint8, data []byte, segment int, now uint64) error {
	if c.c == nil {
		return errFreed
	}
	if len(data) == 0 {
		return nil
	}
	c.c.in = p.c()
	return c.result(C.aq_conn_read(c.c, &c.c.in, C.uint32_t(ecn), bytesPtr(data),
		C.size_t(len(data)), C.size_t(max(segment, 0)), C.uint64_t(now)))
}

// AnswerWaits says that nothing need be written yet because of the packets that
// were just read: the application got something and may add to the answer. Expiry
// says how long it may take.
func (c *Conn) AnswerWaits() bool { return c.c != nil && c.c.answer_waits != 0 }

// Held says that WritePackets, called last, has left stream data that pacing or
// congestion control holds back: until packets or a timer come, it would write
// nothing, whatever is added to the data.
func (c *Conn) Held() bool { return c.c != nil && c.c.held != 0 }

// HandleExpiry does what is due. WritePackets comes next.
func (c *Conn) HandleExpiry(now uint64) error {
	if c.c == nil {
		return errFreed
	}
	return c.result(C.aq_conn_handle_expiry(c.c, C.uint64_t(now)))
}

// An Output is what a Write call put into its buffer: N bytes, which are
// packets of Segment bytes, the last of which may be shorter.
type Output struct {
	N, Segment int
	ECN        uint8
	Path       Path
}

// WritePackets fills buf, of at least MinWriteBuffer bytes, with packets for
// one sendmsg. N is 0 when there is nothing to send now; otherwise there may be
// more.
func (c *Conn) WritePackets(buf []byte, now uint64) (Output, error) {
	if c.c == nil {
		return Output{}, errFreed
	}
	if rv := C.aq_conn_write(c.c, bytesPtr(buf), C.size_t(len(buf)), C.uint64_t(now)); rv != 0 {
		return Output{}, c.result(rv)
	}
	return c.output(), nil
}

func (c *Conn) output() Output {
	o := &c.c.out
	if o.n == 0 {
		return Output{}
	}
	return Output{N: int(o.n), Segment: int(o.segment), ECN: uint8(o.ecn), Path: goPath(&o.path)}
}

// EarlyData says whether a client can send data before the handshake is complete:
// its session and the parameters of the server allow it. After the first
// WritePackets that is what the ClientHello, which is then written, has asked for.
func (c *Conn) EarlyData() bool { return c.c != nil && c.c.early_data != 0 }

// Expiry is when HandleExpiry wants to be called.
func (c *Conn) Expiry() uint64 {
	if c.c == nil {
		return NoExpiry
	}
	return min(uint64(c.c.expiry), uint64(c.c.trim_at))
}

// A CloseKind is one of the two CONNECTION_CLOSE frames, or what the error that
// came last asks for.
type CloseKind int

const (
	CloseApplication = CloseKind(C.AQ_CLOSE_APPLICATION)
	CloseTransport   = CloseKind(C.AQ_CLOSE_TRANSPORT)
	ClosePending     = CloseKind(C.AQ_CLOSE_PENDING)
)

// WriteClose ends the connection and writes the packet that says so. N is 0
// if there is nothing to say: the peer has ended it, or it timed out.
func (c *Conn) WriteClose(buf []byte, k CloseKind, code uint64, reason string, now uint64) (Output, error) {
	if c.c == nil {
		return Output{}, errFreed
	}
	text := unsafe.Slice(unsafe.StringData(reason), len(reason))
	rv := C.aq_conn_write_close(c.c, bytesPtr(buf), C.size_t(len(buf)), C.uint32_t(k), C.uint64_t(code),
		bytesPtr(text), C.size_t(len(text)), C.uint64_t(now))
	if rv != 0 {
		return Output{}, c.result(rv)
	}
	return c.output(), nil
}

// CloseInfo is what the peer's CONNECTION_CLOSE said.
func (c *Conn) CloseInfo() (kind CloseKind, code, frame uint64, reason string) {
	if c.c == nil {
		return CloseTransport, 0, 0, ""
	}
	var i C.aq_close_info
	C.aq_conn_close_info(c.c, &i)
	return CloseKind(i.kind), uint64(i.code), uint64(i.frame), string(cBytes(&i.reason[0], C.size_t(i.reason_len)))
}

// SupplyConnID adds to the connection IDs that will be given to the peer, of
// which 16 can wait. It is for Settings.EngineConnIDs.
func (c *Conn) SupplyConnID(id []byte) {
	if c.c != nil {
		C.aq_conn_supply_id(c.c, bytesPtr(id), C.size_t(len(id)))
	}
}

// ConnIDsWanted says how many SupplyConnID would take.
func (c *Conn) ConnIDsWanted() int {
	if c.c == nil {
		return 0
	}
	return C.AQ_CID_POOL - int(c.c.cid_pool_len)
}

// SubmitNewToken sends a NEW_TOKEN frame, for servers.
func (c *Conn) SubmitNewToken(token []byte) error {
	if c.c == nil {
		return errFreed
	}
	return c.result(C.aq_conn_submit_new_token(c.c, bytesPtr(token), C.size_t(len(token))))
}

// InitiateMigration validates a path and moves to it: event PathValidated.
func (c *Conn) InitiateMigration(p Path, now uint64) error {
	if c.c == nil {
		return errFreed
	}
	path := p.c()
	return c.result(C.aq_conn_migrate(c.c, &path, C.uint64_t(now)))
}

// SetLocalPath corrects the local address of the current path, which changed
// without the peer's knowledge (a wildcard socket that became a known address).
func (c *Conn) SetLocalPath(p Path) error {
	if c.c == nil {
		return errFreed
	}
	path := p.c()
	return c.result(C.aq_conn_set_local(c.c, &path))
}

// InitiateKeyUpdate begins with new keys; ErrInvalidState while the last update
// is not confirmed.
func (c *Conn) InitiateKeyUpdate(now uint64) error {
	if c.c == nil {
		return errFreed
	}
	return c.result(C.aq_conn_key_update(c.c, C.uint64_t(now)))
}

// An Info is what a connection knows of itself. Durations are nanoseconds.
type Info struct {
	MinRTT, LatestRTT, SmoothedRTT, RTTVar                       uint64
	CongestionWindow, SlowStartThreshold, InFlight               uint64 // bytes
	PacketsSent, PacketsReceived, PacketsLost, PacketsDiscarded  uint64
	BytesSent, BytesReceived, BytesLost                          uint64
	MaxUDPPayload                                                int // of the current path
	Version                                                      uint32
	EarlyDataRejected, Completed, Confirmed, InClosing, Draining bool
}

// Info tells how the connection is.
func (c *Conn) Info() Info {
	if c.c == nil {
		return Info{}
	}
	var i C.aq_info
	C.aq_conn_info(c.c, &i)
	return Info{
		MinRTT: uint64(i.min_rtt), LatestRTT: uint64(i.latest_rtt), SmoothedRTT: uint64(i.smoothed_rtt), RTTVar: uint64(i.rtt_var),
		CongestionWindow: uint64(i.cwnd), SlowStartThreshold: uint64(i.ssthresh), InFlight: uint64(i.bytes_in_flight),
		PacketsSent: uint64(i.packets_sent), PacketsReceived: uint64(i.packets_received),
		PacketsLost: uint64(i.packets_lost), PacketsDiscarded: uint64(i.packets_discarded),
		BytesSent: uint64(i.bytes_sent), BytesReceived: uint64(i.bytes_received), BytesLost: uint64(i.bytes_lost),
		MaxUDPPayload: int(i.max_udp_payload), Version: uint32(i.version),
		EarlyDataRejected: i.early_rejected != 0, Completed: i.completed != 0, Confirmed: i.confirmed != 0,
		InClosing: i.closing != 0, Draining: i.draining != 0,
	}
}

// RemotePath is the current path.
func (c *Conn) RemotePath() Path {
	p, _ := c.CurrentPath()
	return p
}

// CurrentPath is the path in use, and whether it was validated: a server moves
// to the one that its client comes from before it is.
func (c *Conn) CurrentPath() (p Path, validated bool) {
	if c.c == nil {
		return Path{}, false
	}
	var out C.aq_path
	validated = C.aq_conn_path(c.c, &out) != 0
	return goPath(&out), validated
}

// QLogChunk returns what was logged since the last call, as JSON text
// sequences (RFC 7464); nil if nothing. What was not fetched in time is left
// out in whole records.
func (c *Conn) QLogChunk() []byte {
	if c.c == nil {
		return nil
	}
	var n C.size_t
	b := goBytes(C.aq_conn_qlog(c.c, &n), n)
	C.aq_conn_qlog_clear(c.c)
	return b
}

// EarlyTransportParams is what a client keeps beside a session, to use 0-RTT.
func (c *Conn) EarlyTransportParams() []byte {
	if c.c == nil {
		return nil
	}
	var buf [256]byte
	n := C.aq_conn_early_params(c.c, bytesPtr(buf[:]), C.size_t(len(buf)))
	if n <= 0 {
		return nil
	}
	return append([]byte(nil), buf[:n]...)
}

// NewToken is a copy of the token that the last event NewToken was about.
func (c *Conn) NewToken() []byte {
	if c.c == nil {
		return nil
	}
	var n C.size_t
	return goBytes(C.aq_conn_new_token(c.c, &n), n)
}

// PTO is the probe timeout, RFC 9002, Section 6.2.1.
func (c *Conn) PTO() uint64 {
	if c.c == nil {
		return 0
	}
	return uint64(C.aq_conn_pto(c.c))
}

// TakeSession returns the oldest session that a client was given and that was
// not taken, of the last four, or nil: event Session stands for one or more.
func (c *Conn) TakeSession() []byte {
	if c.c == nil {
		return nil
	}
	return takeTLSSession(C.aq_conn_tls(c.c))
}

// TLSState is what the handshake agreed on; it survives ReleaseTLS.
func (c *Conn) TLSState() TLSState {
	if c.c == nil {
		return TLSState{}
	}
	return readTLSState(C.aq_conn_tls(c.c))
}

// ReleaseTLS frees a server's TLS object, which nothing needs after the
// handshake is confirmed: a client has nothing to say in CRYPTO frames any more
// (RFC 9001, Section 4.4), and one that tries ends the connection.
func (c *Conn) ReleaseTLS() {
	if c.c != nil {
		C.aq_conn_release_tls(c.c)
	}
}

// PeerParams are transport parameters of the peer.
type PeerParams struct {
	Known                  bool // the others mean nothing before
	MaxDatagramFrame       uint64
	MaxUDPPayload          uint64
	IdleTimeout            uint64 // nanoseconds; 0: none
	ActiveConnIDs          uint64
	DisableActiveMigration bool
}

// PeerParams returns what the peer has announced.
func (c *Conn) PeerParams() PeerParams {
	if c.c == nil {
		return PeerParams{}
	}
	var p C.aq_peer_params
	C.aq_conn_peer_params(c.c, &p)
	return PeerParams{
		Known: p.known != 0, MaxDatagramFrame: uint64(p.max_datagram_frame), MaxUDPPayload: uint64(p.max_udp_payload),
		IdleTimeout: uint64(p.max_idle_timeout), ActiveConnIDs: uint64(p.active_conn_ids),
		DisableActiveMigration: p.disable_active_migration != 0,
	}
}

// result makes an error of what the call that just returned said of itself.
func (c *Conn) result(rv C.int) error {
	if rv == 0 {
		return nil
	}
	if err := goError(&c.c.error); err != nil {
		return err
	}
	return codeError(rv)
}

func putCID(out *C.aq_cid, id []byte) bool {
	if len(id) > len(out.data) {
		return false
	}
	for i, b := range id {
		out.data[i] = C.uint8_t(b)
	}
	out.len = C.uint8_t(len(id))
	return true
}

func goCID(id *C.aq_cid) []byte {
	return append([]byte{}, cBytes(&id.data[0], C.size_t(id.len))...)
}

// cBytes views n bytes at p.
func cBytes(p *C.uint8_t, n C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), int(n))
}
