//go:build ngtcp2 && cgo

package capi

import "testing"

// BenchmarkTransfer moves bytes from client to server without a network between
// them: what QUIC and TLS cost both sides, on one CPU.
func BenchmarkTransfer(b *testing.B) {
	w := connected(b, func(w *world, s *Settings, _ *ClientOptions, _ *TLSConfig) {
		for _, s := range []*Settings{s, &w.serverSettings} {
			s.StreamWindow, s.ConnWindow = 8<<20, 16<<20
		}
	})
	w.wait(second)
	s := w.client.open(true)
	chunk := payload(64 << 10)
	s.Write(chunk[:1])
	w.until("stream", func() bool { return w.server.streams[s.ID()] != nil })
	h := w.server.streams[s.ID()]
	h.read()
	back := make([]byte, MinWriteBuffer)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	b.ResetTimer()
	moved := 0
	deliver := func(from, to *peer, buf []byte) bool {
		out, err := from.WritePackets(buf, w.now)
		if err != nil {
			b.Fatal(err)
		}
		if out.N == 0 {
			return false
		}
		if err := to.ReadPackets(Path{out.Path.Remote, out.Path.Local}, out.ECN, buf[:out.N], out.Segment, w.now); err != nil {
			b.Fatal(err)
		}
		return true
	}
	for moved < b.N*len(chunk) {
		s.Write(chunk)
		w.now += 20 * microsecond
		for deliver(w.client, w.server, w.buf) {
			list := h.RecvChunks()
			n := 0
			for ch := list; ch != nil; ch = ch.Next() {
				n += len(ch.Bytes())
			}
			h.Consumed(n)
			w.server.Recycle(list)
			moved += n
			w.now += 20 * microsecond
		}
		for deliver(w.server, w.client, back) {
		}
		for _, p := range []*peer{w.client, w.server} {
			if p.Expiry() <= w.now {
				if err := p.HandleExpiry(w.now); err != nil {
					b.Fatal(err)
				}
			}
			p.ClearEvents()
		}
	}
}
