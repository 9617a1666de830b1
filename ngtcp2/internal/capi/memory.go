//go:build ngtcp2 && cgo

package capi

// #include "guard.h"
// #include "memory.h"
//
// #cgo noescape aq_memory
// #cgo nocallback aq_memory
// #cgo noescape aq_leaked
// #cgo nocallback aq_leaked
// #cgo noescape aq_memory_trim
// #cgo nocallback aq_memory_trim
import "C"

// Memory returns the bytes of C memory that connections hold, in this process.
// The TLS library's own are not in it.
func Memory() int64 { return int64(C.aq_memory()) }

// Trim returns the C memory that is free in this process to the system: what
// handshakes and connections that are over have left between what is in use. It takes
// milliseconds when that is much, and holds up others who allocate in C.
func Trim() { C.aq_memory_trim() }

// Leaked counts the connections whose memory cannot be freed, because an
// assertion of ngtcp2 failed: [Memory] has it for ever.
func Leaked() int64 { return int64(C.aq_leaked()) }

// failAllocation makes the n-th allocation from now on fail, and all behind it;
// a negative n ends that. For tests.
func failAllocation(n int64) { C.aq_memory_fail_after(C.int64_t(n)) }
