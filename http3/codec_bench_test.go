package http3

import (
	"testing"
)

var (
	benchRequest = []field{
		{":method", "GET"}, {":scheme", "https"}, {":authority", "www.example.com"}, {":path", "/static/app.js?v=17"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"},
		{"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
		{"accept-encoding", "gzip, deflate, br, zstd"}, {"accept-language", "en-US,en;q=0.9"},
		{"cookie", "session=0123456789abcdef0123456789abcdef"}, {"referer", "https://www.example.com/"},
	}
	benchResponse = []field{
		{":status", "200"}, {"content-type", "text/plain; charset=utf-8"}, {"content-length", "1024"},
		{"date", "Sat, 01 Jan 2000 00:00:00 GMT"}, {"server", "example"},
	}
)

// BenchmarkHeads is a request and a response, encoded and decoded: what two
// connections with the codec do for each request. bytes is both heads as encoded.
func BenchmarkHeads(b *testing.B) {
	for _, k := range codecs {
		b.Run(k.info.Name, func(b *testing.B) {
			p := newPair(b, k)
			defer p.end()
			var wire []byte
			var ev []event
			size := 0
			id := 0
			exchange := func() {
				c, s := p.client.request(streamID(id)), p.server.request(streamID(id))
				id += 4
				send := func(from, to streamCodec, fields []field) {
					wire = from.appendHeaders(wire[:0], fields)
					size += len(wire)
					var err error
					if ev, err = to.receive(wire, true, ev[:0]); err != nil {
						b.Fatal(err)
					}
					if len(ev[0].fields) != len(fields) {
						b.Fatal("fields are missing")
					}
				}
				send(c, s, benchRequest)
				send(s, c, benchResponse)
				c.close()
				s.close()
				p.flush(b)
			}
			for range 10 {
				exchange()
			}
			size = 0
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				exchange()
				n++
			}
			b.ReportMetric(float64(size)/float64(n), "bytes")
		})
	}
}
