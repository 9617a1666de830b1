package http3_test

import (
	"io"
	"net"
	"net/http"
	"testing"

	foreign "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

var kilobyte = make([]byte, 1<<10)

func benchHandler(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/bulk" {
		b := make([]byte, 64<<10)
		for range 256 { // 16 MiB
			w.Write(b)
		}
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(kilobyte)
}

// Both sides run in this process, on loopback: the allocations are those of both
// and of the engine.
func benchmark(b *testing.B, client func() (http.RoundTripper, func()), addr string) {
	for _, path := range []string{"/", "/bulk"} {
		b.Run(path[1:], func(b *testing.B) {
			rt, stop := client()
			defer stop()
			get := func() int64 {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+addr+path, nil)
				require.NoError(b, err)
				resp, err := rt.RoundTrip(req)
				require.NoError(b, err)
				n, err := io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				resp.Body.Close()
				return n
			}
			b.SetBytes(get())
			b.ReportAllocs()
			for b.Loop() {
				get()
			}
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, e := range engine.All() {
		b.Run(e.Name(), func(b *testing.B) {
			serverTLS, clientTLS := testcert.New()
			srv := &http3.Server{TLS: serverTLS, Handler: http.HandlerFunc(benchHandler)}
			cfg, err := srv.TransportConfig()
			require.NoError(b, err)
			ln, err := transport.ListenAddr(e, "127.0.0.1:0", cfg)
			require.NoError(b, err)
			go srv.Serve(ln) // ends with Close
			defer srv.Close()
			benchmark(b, func() (http.RoundTripper, func()) {
				tr := &http3.Transport{Engine: e, TLS: clientTLS, DisableCompression: true}
				return tr, func() { tr.Close() }
			}, ln.Addr().String())
		})
	}
}

// BenchmarkQuicGo is what there is to compare with.
func BenchmarkQuicGo(b *testing.B) {
	serverTLS, clientTLS := testcert.New()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(b, err)
	srv := &foreign.Server{TLSConfig: foreign.ConfigureTLSConfig(serverTLS), Handler: http.HandlerFunc(benchHandler)}
	go srv.Serve(pc) // ends with Close
	defer pc.Close()
	defer srv.Close()
	benchmark(b, func() (http.RoundTripper, func()) {
		tr := &foreign.Transport{TLSClientConfig: clientTLS, DisableCompression: true}
		return tr, func() { tr.Close() }
	}, pc.LocalAddr().String())
}
