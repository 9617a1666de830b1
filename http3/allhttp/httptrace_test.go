package allhttp_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

func TestATraceSeesWhatEveryVersionConnectsTo(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		s := open(t, &allhttp.Server{Engine: e, Handler: answerProto})
		for _, proto := range []string{proto1, proto2, proto3} {
			var steps []string // while the request waits
			step := func(f string, a ...any) { steps = append(steps, fmt.Sprintf(f, a...)) }
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				ConnectStart:      func(network, addr string) { step("connect %s %s", network, addr) },
				ConnectDone:       func(network, addr string, err error) { step("connected %s %s %v", network, addr, err) },
				TLSHandshakeStart: func() { step("handshake") },
				TLSHandshakeDone:  func(st tls.ConnectionState, err error) { step("shaken %t %v", st.HandshakeComplete, err) },
				GotConn:           func(i httptrace.GotConnInfo) { step("got reused=%t", i.Reused) },
			})
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(), http.NoBody)
			require.NoError(t, err)
			resp, err := s.client(proto).Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			addr := s.addrs[0].String()
			want := []string{"connect tcp " + addr, "connected tcp " + addr + " <nil>", "handshake", "shaken true <nil>", "got reused=false"}
			if proto == proto3 { // connects and negotiates TLS at once
				want = []string{"connect udp " + addr, "handshake", "shaken true <nil>", "connected udp " + addr + " <nil>", "got reused=false"}
			}
			require.Equal(t, want, steps)
		}
	})
}

func TestATraceSeesThatAnAddressDoesNotConnect(t *testing.T) {
	worlds(t, func(w *world) {
		m := w.serve(serverAddr, seen, func(s *allhttp.Server) { s.AltSvcMaxAge = -1 }, host)
		m.cut(true)
		w.tr.Versions = allhttp.HTTP3
		var shaken, connected error
		ctx := httptrace.WithClientTrace(w.Context(), &httptrace.ClientTrace{
			TLSHandshakeDone: func(_ tls.ConnectionState, err error) { shaken = err },
			ConnectDone: func(network, addr string, err error) {
				require.Equal(w, "udp "+serverAddr, network+" "+addr)
				connected = err
			},
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		require.NoError(w, err)
		_, err = w.tr.RoundTrip(req)
		require.Error(w, err)
		var timeout net.Error
		require.True(w, errors.As(connected, &timeout) && timeout.Timeout(), "%v", connected)
		require.Equal(w, connected, shaken)
	})
}
