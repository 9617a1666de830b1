//go:build ngtcp2 && cgo

package capi

// #include "memory.h"
// #include "tls.h"
import "C"

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"runtime/cgo"
	"time"
	"unsafe"
)

// Callbacks is what a handshake asks of Go. It is called on the goroutine that
// drives the connection, inside ReadPackets, WritePackets or StartServerTLS;
// of the Conn it may use only TLSState.
type Callbacks interface {
	// VerifyPeer judges the peer's certificates (DER, leaf first), or its raw
	// public key (one element). A server that asked a client and got none does
	// not call it. If not ok the peer gets the alert. It is not called when a
	// session is resumed.
	VerifyPeer(chain [][]byte) (alert uint8, ok bool)
	// ClientCertificate chooses what to answer a CertificateRequest; nil for
	// none. An error ends the handshake with internal_error.
	ClientCertificate(req *CertificateRequest) (*Certificate, error)
	// TicketData is what a server's new ticket remembers of the client.
	TicketData() []byte
	// ResumeTicket tells whether the client that brings a ticket with data may
	// resume, and how old the ticket is. If not, the handshake is a full one.
	ResumeTicket(data []byte) (age time.Duration, ok bool)
	// KeyLog gets lines in the NSS format, without line end, if TLSConfig.KeyLog.
	KeyLog(line string)
}

// A CertificateRequest is what a server said about the certificate it wants.
type CertificateRequest struct {
	AcceptableCAs    [][]byte // raw subject names; empty: any
	SignatureSchemes []uint16 // in the server's order of preference
}

// A tlsCallbacks is what a connection's handle stands for.
type tlsCallbacks struct {
	Callbacks
	err error // why a callback failed the handshake, nil if none did
}

//export aqGoVerifyPeer
func aqGoVerifyPeer(callbacks C.uintptr_t, chain *C.uint8_t, n C.size_t) C.int {
	cb := cgo.Handle(callbacks).Value().(*tlsCallbacks)
	alert, ok := cb.VerifyPeer(unpackChain(unsafe.Slice((*byte)(chain), int(n))))
	if ok {
		return -1
	}
	return C.int(alert)
}

//export aqGoClientCertificate
func aqGoClientCertificate(callbacks C.uintptr_t, cas *C.uint8_t, casLen C.size_t, schemes *C.uint16_t, schemesLen C.size_t, out **C.aq_cert) C.int {
	cb := cgo.Handle(callbacks).Value().(*tlsCallbacks)
	req := &CertificateRequest{AcceptableCAs: unpackNames(unsafe.Slice((*byte)(cas), int(casLen)))}
	req.SignatureSchemes = append(req.SignatureSchemes, unsafe.Slice((*uint16)(schemes), int(schemesLen))...)
	cert, err := cb.ClientCertificate(req)
	if err != nil {
		cb.err = err
		return -1
	}
	if cert == nil {
		*out = nil
		return 0
	}
	if *out = cert.h.ref(); *out == nil {
		cb.err = errClosedCertificate
		return -1
	}
	return 0
}

//export aqGoTicketData
func aqGoTicketData(callbacks C.uintptr_t, out **C.uint8_t, n *C.size_t) C.int {
	data := cgo.Handle(callbacks).Value().(*tlsCallbacks).TicketData()
	*out, *n = nil, 0
	if len(data) == 0 {
		return 0
	}
	p := (*C.uint8_t)(C.aq_malloc(C.size_t(len(data))))
	if p == nil {
		return -1
	}
	copy(unsafe.Slice((*byte)(p), len(data)), data)
	*out, *n = p, C.size_t(len(data))
	return 0
}

//export aqGoResumeTicket
func aqGoResumeTicket(callbacks C.uintptr_t, data *C.uint8_t, n C.size_t) C.int64_t {
	age, ok := cgo.Handle(callbacks).Value().(*tlsCallbacks).ResumeTicket(goBytes(data, n))
	if !ok || age < 0 {
		return -1
	}
	return C.int64_t(age / time.Millisecond)
}

//export aqGoKeyLog
func aqGoKeyLog(callbacks C.uintptr_t, line *C.char, n C.size_t) {
	cb := cgo.Handle(callbacks).Value().(*tlsCallbacks)
	cb.KeyLog(string(unsafe.Slice((*byte)(unsafe.Pointer(line)), int(n))))
}

// A signerKey is a private key that stays with its holder.
type signerKey struct {
	signer crypto.Signer
	public crypto.PublicKey
}

//export aqGoSign
func aqGoSign(callbacks, signer C.uintptr_t, hash C.uint32_t, salt C.int, in *C.uint8_t, inLen C.size_t, out *C.uint8_t, outLen C.size_t) C.int {
	key := cgo.Handle(signer).Value().(*signerKey)
	var opts crypto.SignerOpts = crypto.Hash(hash)
	if salt >= 0 {
		opts = &rsa.PSSOptions{SaltLength: int(salt), Hash: crypto.Hash(hash)}
	}
	// The signer may keep what it is given; this memory is C's.
	msg := C.GoBytes(unsafe.Pointer(in), C.int(inLen))
	sig, err := key.signer.Sign(rand.Reader, msg, opts)
	if err == nil && len(sig) > int(outLen) {
		err = errors.New("ngtcp2: certificate: the signer's signature is longer than its key allows")
	}
	if err != nil {
		if callbacks != 0 {
			cgo.Handle(callbacks).Value().(*tlsCallbacks).err = err
		}
		return -1
	}
	return C.int(copy(unsafe.Slice((*byte)(out), int(outLen)), sig))
}

//export aqGoSignerFree
func aqGoSignerFree(signer C.uintptr_t) { cgo.Handle(signer).Delete() }

// unpackNames splits elements that have 2 bytes of length before them.
func unpackNames(b []byte) [][]byte {
	var names [][]byte
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		if b = b[2:]; n > len(b) {
			return names
		}
		names = append(names, append([]byte(nil), b[:n]...))
		b = b[n:]
	}
	return names
}
