package websocket

import (
	"bytes"
	"context"
	"testing"
)

// A loopDuplex reads the same bytes for ever, and forgets what is written.
type loopDuplex struct {
	memoryDuplex
	b   []byte
	pos int
}

func (d *loopDuplex) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], d.b[d.pos:])
		n += m
		d.pos = (d.pos + m) % len(d.b)
	}
	return n, nil
}

func (d *loopDuplex) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{64, 1000} {
		b.Run(map[int]string{64: "64", 1000: "1000"}[size], func(b *testing.B) {
			d := &memoryDuplex{}
			w := newConn(d, config{client: true})
			if err := w.Write(context.Background(), Binary, make([]byte, size)); err != nil {
				b.Fatal(err)
			}
			c := newConn(&loopDuplex{b: bytes.Clone(d.out.Bytes())}, config{})
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, _, err := c.Read(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, client := range []bool{false, true} {
		b.Run(map[bool]string{false: "server", true: "client"}[client], func(b *testing.B) {
			c := newConn(&loopDuplex{}, config{client: client})
			p := make([]byte, 1000)
			b.ReportAllocs()
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if err := c.Write(context.Background(), Binary, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
