//go:build ngtcp2 && cgo && (race || asan)

package ngtcp2

const instrumented = true
