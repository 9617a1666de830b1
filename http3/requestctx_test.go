package http3_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestARequestsContextEndsWithItsHandlerWhetherItWasAskedBeforeOrNot(t *testing.T) {
	versions(t, func(l *lab) {
		contexts := make(chan context.Context, 2)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/asks" {
				if r.Context().Err() != nil {
					w.WriteHeader(http.StatusInternalServerError)
				}
				child, cancel := context.WithCancel(r.Context())
				_ = cancel // the parent's end is what ends it
				contexts <- child
			}
			contexts <- r.Context()
		})
		l.get("/")
		ctx := <-contexts
		synctest.Wait()
		require.ErrorIs(l, ctx.Err(), context.Canceled)
		require.ErrorIs(l, context.Cause(ctx), context.Canceled)
		resp, _ := l.get("/asks")
		require.Equal(l, http.StatusOK, resp.StatusCode)
		for range 2 {
			ctx = <-contexts
			<-ctx.Done()
			require.ErrorIs(l, ctx.Err(), context.Canceled)
		}
	})
}
