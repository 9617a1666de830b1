package http3_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// The peer here lets nothing be said to it, or says what nobody asked for.

func TestAClientThatAllowsNoStreamsDoesNotDelayShutdown(t *testing.T) {
	simulate(t, func(w *world) {
		srv := &http3.Server{Handler: http.NotFoundHandler()}
		w.start(srv, nil)
		c, err := w.client.Dial(w.Context(), net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)),
			&transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), MaxUniStreams: -1, KeepAlive: time.Second})
		require.NoError(w, err)
		time.Sleep(time.Second)

		ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(w, srv.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(w, 3*time.Second, time.Since(start))

		// And it loses its connection.
		<-c.Context().Done()
		require.Equal(w, http3.ErrInternal, (&peer{T: w.T, conn: c}).ended().Code)
		require.Less(w, time.Since(start), time.Minute)
	})
}

func TestContentOfAResponseToHEADIsRefused(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		accept := w.listenPeer(tr)
		got := make(chan error, 1)
		go func() { // ends with the response
			req, err := http.NewRequestWithContext(w.Context(), http.MethodHead, url+"/", nil)
			if err == nil {
				var resp *http.Response
				if resp, err = tr.RoundTrip(req); err == nil {
					err = resp.Body.Close()
				}
			}
			got <- err
		}()
		p := accept()
		p.uni(varints(0, 4, 0), false)
		s := p.serverStream()
		_, err := s.Write(ok("content-length", "20000000"))
		require.NoError(w, err)
		require.NoError(w, <-got)
		for range 200 {
			if _, err = s.Write(data(strings.Repeat("x", 100_000))); err != nil {
				break
			}
		}
		var se *transport.StreamError
		require.ErrorAs(w, err, &se)
		require.Equal(w, http3.ErrMessage, se.Code)
	})
}

// What could end a line where a gateway speaks HTTP/1.1 is not sent.
func TestAPathWithControlCharactersIsNotSent(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.NotFoundHandler()}, tr)
		req := newGet(w.T)
		req.URL.RawQuery = "a HTTP/1.1\r\nHost: elsewhere"
		_, err := tr.RoundTrip(req)
		require.ErrorContains(w, err, "invalid request path")
	})
}
