//go:build ngtcp2 && cgo

package capi

// #include "shim.h"
//
// #cgo noescape aq_accept
// #cgo nocallback aq_accept
// #cgo noescape aq_write_version_negotiation
// #cgo nocallback aq_write_version_negotiation
// #cgo noescape aq_write_retry
// #cgo nocallback aq_write_retry
// #cgo noescape aq_verify_retry_token
// #cgo nocallback aq_verify_retry_token
// #cgo noescape aq_verify_regular_token
// #cgo nocallback aq_verify_regular_token
// #cgo noescape aq_reset_token
// #cgo nocallback aq_reset_token
// #cgo noescape aq_write_stateless_reset
// #cgo nocallback aq_write_stateless_reset
// #cgo noescape aq_write_initial_close
// #cgo nocallback aq_write_initial_close
import "C"

import (
	"errors"
	"net/netip"
	"unsafe"
)

// An Initial is what the first packet of a client says. Its slices are views
// of the packet.
type Initial struct {
	Version           uint32
	DCID, SCID, Token []byte
}

// ErrNotInitial is what Accept says of a packet that cannot begin a connection.
var ErrNotInitial = errors.New("ngtcp2: no acceptable Initial packet")

// Accept looks at a packet that belongs to no connection. It must be an Initial
// of a known version, in a datagram that is large enough (RFC 9000, Section 14.1).
func Accept(pkt []byte) (Initial, error) {
	var in C.aq_initial
	if len(pkt) == 0 || C.aq_accept(bytesPtr(pkt), C.size_t(len(pkt)), &in) != 0 {
		return Initial{}, ErrNotInitial
	}
	out := Initial{Version: uint32(in.version), DCID: goCID(&in.dcid), SCID: goCID(&in.scid)}
	if in.token_len > 0 {
		out.Token = pkt[in.token_at : in.token_at+in.token_len : in.token_at+in.token_len]
	}
	return out, nil
}

// WriteVersionNegotiation answers a packet of an unknown version, whose
// connection IDs are dcid and scid, with the versions there are. It returns the
// bytes written to dst, 0 if it has no room.
func WriteVersionNegotiation(dst []byte, dcid, scid []byte) int {
	if len(dst) == 0 {
		return 0
	}
	return max(0, int(C.aq_write_version_negotiation(bytesPtr(dst), C.size_t(len(dst)),
		bytesPtr(dcid), C.size_t(len(dcid)), bytesPtr(scid), C.size_t(len(scid)))))
}

// A TokenKey encrypts address validation tokens.
type TokenKey [32]byte

func (k *TokenKey) ptr() *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(k)) }

// WriteRetry writes a Retry packet, whose token holds the client's address and
// connection ID. newSCID is the connection ID the client shall use from now on.
func WriteRetry(dst []byte, key *TokenKey, in *Initial, newSCID []byte, remote netip.AddrPort, wallNow uint64) (int, error) {
	var dcid, scid, fresh C.aq_cid
	if len(dst) == 0 || !putCID(&dcid, in.DCID) || !putCID(&scid, in.SCID) || !putCID(&fresh, newSCID) {
		return 0, codeError(C.int(ErrInvalidArgument))
	}
	var addr C.aq_addr
	putAddr(&addr, remote)
	var cerr C.aq_error
	n := C.aq_write_retry(bytesPtr(dst), C.size_t(len(dst)), key.ptr(), C.uint32_t(in.Version),
		&dcid, &scid, &fresh, &addr, C.uint64_t(wallNow), &cerr)
	if n < 0 {
		return 0, goError(&cerr)
	}
	return int(n), nil
}

// ErrBadToken is a token of the right kind that does not hold: it expired, was
// made for another address or connection ID, or is broken.
var ErrBadToken = errors.New("ngtcp2: token does not validate the address")

// VerifyRetryToken checks the token of in, whose lifetime is in nanoseconds. It
// returns the connection ID of the client's first packet. ErrNotRetryToken: it
// is none of WriteRetry's.
func VerifyRetryToken(key *TokenKey, in *Initial, remote netip.AddrPort, lifetime, wallNow uint64) (originalDCID []byte, err error) {
	var dcid, original C.aq_cid
	if len(in.Token) == 0 || !putCID(&dcid, in.DCID) {
		return nil, ErrNotRetryToken
	}
	var addr C.aq_addr
	putAddr(&addr, remote)
	switch C.aq_verify_retry_token(key.ptr(), C.uint32_t(in.Version), bytesPtr(in.Token), C.size_t(len(in.Token)),
		&dcid, &addr, C.uint64_t(lifetime), C.uint64_t(wallNow), &original) {
	case 0:
		return goCID(&original), nil
	case 1:
		return nil, ErrNotRetryToken
	}
	return nil, ErrBadToken
}

// NewRegularToken makes a token for a NEW_TOKEN frame, which validates the
// address of a later connection.
func NewRegularToken(key *TokenKey, remote netip.AddrPort, wallNow uint64) ([]byte, error) {
	var buf [128]byte
	var addr C.aq_addr
	putAddr(&addr, remote)
	n := C.aq_regular_token(bytesPtr(buf[:]), C.size_t(len(buf)), key.ptr(), &addr, C.uint64_t(wallNow))
	if n <= 0 {
		return nil, codeError(C.int(ErrInternal))
	}
	return append([]byte(nil), buf[:n]...), nil
}

// VerifyRegularToken checks a token of NewRegularToken. The client's port may
// be another one.
func VerifyRegularToken(key *TokenKey, token []byte, remote netip.AddrPort, lifetime, wallNow uint64) error {
	var addr C.aq_addr
	putAddr(&addr, remote)
	if len(token) == 0 || C.aq_verify_regular_token(key.ptr(), bytesPtr(token), C.size_t(len(token)),
		&addr, C.uint64_t(lifetime), C.uint64_t(wallNow)) != 0 {
		return ErrBadToken
	}
	return nil
}

// ResetToken is the stateless reset token of a connection ID.
func ResetToken(key *[32]byte, cid []byte) (token [16]byte, err error) {
	var id C.aq_cid
	if !putCID(&id, cid) {
		return token, codeError(C.int(ErrInvalidArgument))
	}
	if C.aq_reset_token((*C.uint8_t)(unsafe.Pointer(key)), &id, bytesPtr(token[:])) != 0 {
		return token, codeError(C.int(ErrInternal))
	}
	return token, nil
}

// WriteStatelessReset answers a packet of received bytes with a shorter one
// (RFC 9000, Section 10.3.3). 0: it was too short to be answered.
func WriteStatelessReset(dst []byte, token *[16]byte, received int) int {
	if len(dst) == 0 || received <= 0 {
		return 0
	}
	return max(0, int(C.aq_write_stateless_reset(bytesPtr(dst), C.size_t(len(dst)),
		(*C.uint8_t)(unsafe.Pointer(token)), C.size_t(received))))
}

// WriteInitialClose refuses a connection that does not exist yet.
func WriteInitialClose(dst []byte, in *Initial, code uint64, reason string) (int, error) {
	var dcid, scid C.aq_cid
	if len(dst) == 0 || !putCID(&dcid, in.DCID) || !putCID(&scid, in.SCID) {
		return 0, codeError(C.int(ErrInvalidArgument))
	}
	text := unsafe.Slice(unsafe.StringData(reason), len(reason))
	n := C.aq_write_initial_close(bytesPtr(dst), C.size_t(len(dst)), C.uint32_t(in.Version), &dcid, &scid,
		C.uint64_t(code), bytesPtr(text), C.size_t(len(text)))
	if n <= 0 {
		return 0, codeError(C.int(ErrInternal))
	}
	return int(n), nil
}
