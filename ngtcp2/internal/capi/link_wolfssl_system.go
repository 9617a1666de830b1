//go:build ngtcp2 && cgo && system && wolfssl

package capi

// #cgo pkg-config: libngtcp2 libngtcp2_crypto_wolfssl libnghttp3 wolfssl
// #cgo CFLAGS: -std=c11 -Wall -Wextra -DAQ_SYSTEM -DAQ_WOLFSSL -include ${SRCDIR}/link.h
// #cgo LDFLAGS: -lm
// #include "link.h"
import "C"
