//go:build ngtcp2 && cgo && !system && wolfssl

package capi

// The archives are named by their path, and without pkg-config, so that nothing
// else can be linked, and so that link.h has the word when they are missing.

// #cgo CFLAGS: -std=c11 -Wall -Wextra -DAQ_WOLFSSL -I${SRCDIR}/../../../build/out/include -DNGTCP2_STATICLIB -DNGHTTP3_STATICLIB -include ${SRCDIR}/link.h
// #cgo LDFLAGS: ${SRCDIR}/../../../build/out/lib/libngtcp2_crypto_wolfssl.a ${SRCDIR}/../../../build/out/lib/libngtcp2.a ${SRCDIR}/../../../build/out/lib/libnghttp3.a
// #cgo LDFLAGS: ${SRCDIR}/../../../build/out/lib/libwolfssl.a -lm -pthread
// #include "link.h"
import "C"
