//go:build ngtcp2 && cgo && system

package nghttp3

// #cgo pkg-config: libnghttp3
// #cgo CFLAGS: -std=c11 -Wall -Wextra -DAQ_H3_SYSTEM -include ${SRCDIR}/link.h
// #include "link.h"
import "C"
