//go:build ngtcp2 && cgo

package capi

import (
	"crypto/tls"
	"syscall"
	"testing"
	"time"
)

// BenchmarkHandshake takes both sides through a handshake, without a network
// between them, until it is confirmed: the cost of ngtcp2 and of the TLS library.
// Go verifies nothing.
func BenchmarkHandshake(b *testing.B) {
	for _, bm := range []struct {
		name    string
		curves  []uint16
		tickets bool
	}{
		{"default", nil, false},
		{"X25519", []uint16{uint16(tls.X25519)}, false},
		{"tickets", nil, true},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, MinWriteBuffer)
			before := processorTime(b)
			for b.Loop() {
				w := newWorld(b, func(w *world, _ *Settings, _ *ClientOptions, ct *TLSConfig) {
					w.buf, w.delay = buf, microsecond
					ct.Curves, w.serverTLS.Curves = bm.curves, bm.curves
					if bm.tickets {
						ct.Tickets, w.serverTLS.Tickets = true, true
						w.serverTLS.TicketKeys = [][32]byte{{1}}
					}
				})
				w.handshake()
				w.close()
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime is what the process has used: on a busy machine it says more than
// the time that has passed.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
