//go:build ngtcp2 && cgo

package ngtcp2

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
)

type closeWriter struct{ closed chan struct{} }

func (w *closeWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *closeWriter) Close() error                { close(w.closed); return nil }

func TestALogThatIsOpenedWhileTheEndpointClosesIsClosed(t *testing.T) {
	simulated(t, func(t *testing.T) {
		w := &closeWriter{make(chan struct{})}
		opening, goOn := make(chan struct{}), make(chan struct{})
		r := newRig(t, func(cfg *transport.Config) {
			cfg.QLog = func([]byte, bool) io.WriteCloser {
				close(opening)
				<-goOn
				return w
			}
		}, nil)
		ctx, cancel := context.WithCancel(r.Context())
		done := make(chan struct{})
		go func() { // ends with cancel
			defer close(done)
			_, _ = r.client.Dial(ctx, r.server.Addr(), r.cfg)
		}()
		<-opening
		closed := make(chan error)
		go func() { closed <- r.server.Close() }()
		synctest.Wait()
		close(goOn)
		require.NoError(t, <-closed)
		select {
		case <-w.closed:
		default:
			t.Error("the log was not closed")
		}
		cancel()
		<-done
	})
}
