//go:build ngtcp2 && cgo && !race && !asan

package ngtcp2

// instrumented says that allocations are counted which are not the code's.
const instrumented = false
