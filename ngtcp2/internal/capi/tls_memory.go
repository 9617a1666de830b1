//go:build ngtcp2 && cgo

package capi

// #include "tls_memory.h"
import "C"

// watchTLSMemory, tlsBlocks and refuseTLSMemory are for tests: they count what the
// TLS library allocates, and let the n-th allocation from now on fail. The first
// must be called before the library is used.

func watchTLSMemory() bool      { return C.aq_tls_watch_memory() == 0 }
func tlsBlocks() int64          { return int64(C.aq_tls_blocks()) }
func refuseTLSMemory(n int64)   { C.aq_tls_refuse(C.int64_t(n)) }
func tlsMemoryCountdown() int64 { return int64(C.aq_tls_countdown()) }

// tlsMemoryWasRefused says that it was, or that none was to be.
func tlsMemoryWasRefused() bool { return tlsMemoryCountdown() <= 0 }
