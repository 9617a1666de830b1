//go:build ngtcp2 && cgo && system && !wolfssl

package capi

// #cgo pkg-config: libngtcp2 libngtcp2_crypto_ossl libnghttp3 openssl
// #cgo CFLAGS: -std=c11 -Wall -Wextra -DAQ_SYSTEM -include ${SRCDIR}/link.h
// #include "link.h"
import "C"
