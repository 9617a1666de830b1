//go:build ngtcp2 && cgo

package capi

// #include "tls.h"
// #include "versions.h"
import "C"

import "fmt"

// TLSLibrary is the name of the TLS library in this build.
func TLSLibrary() string { return C.AQ_TLS_LIBRARY }

// Versions are the libraries that run in this process.
func Versions() map[string]string {
	return map[string]string{
		"ngtcp2":     C.GoString(C.aq_ngtcp2_version()),
		"nghttp3":    C.GoString(C.aq_nghttp3_version()),
		TLSLibrary(): C.GoString(C.aq_tls_version()),
	}
}

// Check tells whether the libraries that run are those this was compiled for.
// Structures differ between versions; where the libraries are the system's an
// update may have replaced them.
func Check() error {
	have := Versions()
	for name, want := range map[string]string{
		"ngtcp2":     C.NGTCP2_VERSION,
		"nghttp3":    C.NGHTTP3_VERSION,
		TLSLibrary(): C.GoString(C.aq_tls_header_version()),
	} {
		if have[name] != want {
			return fmt.Errorf("ngtcp2: built for %s %s, but %s runs: build again", name, want, have[name])
		}
	}
	return initTLS()
}
