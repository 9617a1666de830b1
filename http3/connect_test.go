package http3_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

func TestAConnectionCanBeMadeBeforeTheFirstRequestAndWithdrawn(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, tr)
		request := func() {
			w.Helper()
			resp, err := tr.RoundTrip(newGet(w.T))
			require.NoError(w, err)
			require.NoError(w, resp.Body.Close())
		}
		host := newGet(w.T).URL.Host
		require.Nil(w, tr.Connected(host))
		tr.Withdraw(host) // nothing

		soon, cancel := context.WithTimeout(w.Context(), time.Microsecond)
		defer cancel()
		_, err := tr.Connect(soon, host)
		require.ErrorIs(w, err, context.DeadlineExceeded)
		first, err := tr.Connect(w.Context(), host)
		require.NoError(w, err)
		require.Equal(w, 1, w.dials, "the attempt went on")
		require.True(w, first.Transport().State().HandshakeComplete)
		require.Same(w, first, tr.Connected(host))
		request()
		require.Equal(w, 1, w.dials)

		tr.Withdraw(host)
		require.Nil(w, tr.Connected(host))
		synctest.Wait()
		require.Error(w, first.Transport().Context().Err(), "it had no request")
		request()
		require.Equal(w, 2, w.dials)

		tr.Connected(host).Transport().CloseWithError(0, "")
		require.Nil(w, tr.Connected(host))
		next, err := tr.Connect(w.Context(), host)
		require.NoError(w, err)
		require.Same(w, next, tr.Connected(host))
		require.Equal(w, 3, w.dials)

		require.NoError(w, tr.Close())
		_, err = tr.Connect(w.Context(), host)
		require.Error(w, err)
	})
}

func TestConnectSaysWhyThereIsNoConnection(t *testing.T) {
	simulate(t, func(w *world) {
		tr := &http3.Transport{Dial: func(context.Context, string, *transport.Config) (transport.Conn, error) {
			return nil, context.Canceled
		}}
		_, err := tr.Connect(w.Context(), "localhost")
		require.ErrorIs(w, err, context.Canceled)
		require.Nil(w, tr.Connected("localhost"))
		require.NoError(w, tr.Close())
	})
}
