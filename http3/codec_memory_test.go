//go:build ngtcp2 && cgo

package http3_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/nghttp3"
	"github.com/anyquic/anyquic/transport"
)

func TestTheEndOfAConnectionFreesItsCodec(t *testing.T) {
	http3.AwaitNoCodec(t)
	engines(t, func(t *testing.T, e transport.Transport) {
		w := newWorld(t, e)
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })}, tr)
		for range 5 {
			resp, err := tr.RoundTrip(newGet(t))
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		used := nghttp3.Memory()
		require.Positive(t, used)
		require.Less(t, used, int64(2*16<<10), "bytes of both sides")
		t.Logf("%d bytes of C memory at both sides", used)
	})
	require.Zero(t, nghttp3.Memory())
}

func TestAConnectionThatIsNotServedHasNoCodec(t *testing.T) {
	http3.AwaitNoCodec(t)
	engines(t, func(t *testing.T, e transport.Transport) {
		w := newWorld(t, e)
		srv := &http3.Server{TLS: w.ca.Server("localhost")}
		cfg, err := srv.TransportConfig()
		require.NoError(t, err)
		ln, err := w.server.Listen(cfg)
		require.NoError(t, err)
		w.peer()
		c, err := ln.Accept(w.Context())
		require.NoError(t, err)
		require.NoError(t, srv.Close())
		require.ErrorIs(t, srv.ServeConn(c), http.ErrServerClosed)
		require.Zero(t, nghttp3.Memory())
	})
}
