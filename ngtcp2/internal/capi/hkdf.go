//go:build ngtcp2 && cgo

package capi

// What hkdf.c has takes the place of ngtcp2's. A shared library's own calls cannot
// be led elsewhere, nor does every linker know how to.

// #cgo linux,!system LDFLAGS: -Wl,--wrap=ngtcp2_crypto_hkdf_extract -Wl,--wrap=ngtcp2_crypto_hkdf_expand -Wl,--wrap=ngtcp2_crypto_hkdf
// #include "hkdf.h"
import "C"

// hkdf is what ngtcp2 derives with, for tests.
func hkdf(sha384 bool, secret, salt, info []byte, n int) ([]byte, bool) {
	out := make([]byte, n)
	ok := C.aq_hkdf(C.int(cBool(sha384)), bytesPtr(out), C.size_t(n), bytesPtr(secret), C.size_t(len(secret)),
		bytesPtr(salt), C.size_t(len(salt)), bytesPtr(info), C.size_t(len(info))) == 0
	return out, ok
}
