//go:build ngtcp2 && cgo

package capi

// #include <stdlib.h>
// #include "tls_messages.h"
import "C"

import "unsafe"

// helloExtensions, timestampList and gatherRequest are C's parsers of the peer's handshake
// messages, for tests.

// helloExtensions returns the lists in a ClientHello's extensions.
func helloExtensions(hello []byte) (groups, shares, protocols []byte, ok bool) {
	in := C.aq_slice{p: (*C.uint8_t)(C.CBytes(hello)), n: C.size_t(len(hello))}
	defer C.free(unsafe.Pointer(in.p))
	var extensions, list C.aq_slice
	if C.aq_hello_extensions(in, &extensions) != 0 {
		return nil, nil, nil, false
	}
	for t, to := range map[C.unsigned]*[]byte{
		C.AQ_EXT_SUPPORTED_GROUPS: &groups, C.AQ_EXT_KEY_SHARE: &shares, C.AQ_EXT_ALPN: &protocols,
	} {
		if C.aq_list_extension(extensions, t, &list) == 0 {
			*to = goBytes(list.p, list.n)
		}
	}
	return groups, shares, protocols, true
}

// timestampList returns what is in a SignedCertificateTimestampList.
func timestampList(body []byte) (list [][]byte, ok bool) {
	in := C.aq_slice{p: (*C.uint8_t)(C.CBytes(body)), n: C.size_t(len(body))}
	defer C.free(unsafe.Pointer(in.p))
	var out C.aq_slice
	if C.aq_timestamps_read(in, &out) != 0 {
		return nil, false
	}
	return unpackNames(goBytes(out.p, out.n)), true
}

// gatherRequest finds the CertificateRequest in a stream of handshake messages
// that comes in pieces.
func gatherRequest(pieces [][]byte) (names, schemes []byte) {
	var r C.aq_request
	for _, p := range pieces {
		in := C.CBytes(p)
		C.aq_request_read(&r, (*C.uint8_t)(in), C.size_t(len(p)))
		C.free(in)
	}
	var n, s C.aq_slice
	C.aq_request_lists(&r, &n, &s)
	names, schemes = goBytes(n.p, n.n), goBytes(s.p, s.n)
	C.aq_blob_free(&r.body)
	return names, schemes
}
