//go:build ngtcp2 && cgo && !system

package nghttp3

// The archive is named by its path, and without pkg-config, so that nothing else
// can be linked, and so that link.h has the word when it is missing.

// #cgo CFLAGS: -std=c11 -Wall -Wextra -I${SRCDIR}/../build/out/include -DNGHTTP3_STATICLIB -include ${SRCDIR}/link.h
// #cgo LDFLAGS: ${SRCDIR}/../build/out/lib/libnghttp3.a
// #include "link.h"
import "C"
