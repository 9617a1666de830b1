//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/ngtcp2/internal/capi"
	"github.com/anyquic/anyquic/transport"
)

// arrived waits until the peer has acknowledged all of w, with its end.
func arrived(r *rig, w transport.SendStream) {
	r.Helper()
	s := w.(*bidiStream)
	require.Eventually(r, func() bool {
		s.stream.c.mu.Lock()
		defer s.stream.c.mu.Unlock()
		return s.finished
	}, time.Minute, 10*time.Millisecond)
}

// What was received and nobody reads must not be C memory when the connection is
// gone: nothing would free it.
func TestWhatNobodyReadsAfterTheEndIsNotInC(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		before := capi.Memory()
		c, s := r.dial()
		var unread []transport.Stream
		for i := range 20 {
			w, err := c.OpenStream(r.Context())
			require.NoError(t, err)
			_, err = w.WriteLast(randomBytes(20_000))
			require.NoError(t, err)
			a, err := s.AcceptStream(r.Context())
			require.NoError(t, err)
			if i%2 == 0 { // what Read has detached
				_, err = io.ReadFull(a, make([]byte, 5000))
				require.NoError(t, err)
			}
			arrived(r, w)
			unread = append(unread, a)
		}
		require.NoError(t, c.CloseWithError(0, ""))
		<-s.Context().Done()
		time.Sleep(time.Minute)
		require.LessOrEqual(t, capi.Memory(), before)
		for i, a := range unread {
			got, err := io.ReadAll(a)
			require.NoError(t, err)
			want := randomBytes(20_000)
			if i%2 == 0 {
				want = want[5000:]
			}
			require.True(t, bytes.Equal(want, got), "stream %d", i)
		}
	})
}

// The end of the connection comes at any point of a Read.
func TestReadersLoseNothingWhenThePeerEndsTheConnection(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		data := randomBytes(200_000)
		for i := range 50 {
			c, s := r.dial()
			w, err := c.OpenStream(r.Context())
			require.NoError(t, err)
			go func() { _, _ = w.WriteLast(data) }() // ends with the connection
			a, err := s.AcceptStream(r.Context())
			require.NoError(t, err)
			read := make(chan error, 2)
			var got [2]int
			for k := range got {
				go func() { // ends with the connection
					b := make([]byte, 100+i*40)
					for {
						n, err := a.Read(b)
						got[k] += n
						if err != nil {
							read <- err
							return
						}
						if n%3 == 0 {
							runtime.Gosched()
						}
					}
				}()
			}
			arrived(r, w)
			require.NoError(t, c.CloseWithError(0, ""))
			for range got {
				require.Equal(t, io.EOF, <-read)
			}
			require.Equal(t, len(data), got[0]+got[1])
		}
	})
}

// CancelRead and the end of the connection come at once, while a Read is under way.
func TestWhatIsCancelledAtTheEndOfItsConnectionIsFreed(t *testing.T) {
	simulated(t, func(t *testing.T) {
		r := newRig(t, nil, nil)
		before := capi.Memory()
		for range 100 {
			c, s := r.dial()
			w, err := c.OpenStream(r.Context())
			require.NoError(t, err)
			_, err = w.WriteLast(make([]byte, 50_000))
			require.NoError(t, err)
			a, err := s.AcceptStream(r.Context())
			require.NoError(t, err)
			arrived(r, w)
			read, cancelled := make(chan error, 1), make(chan struct{})
			go func() { // ends with the stream
				_, err := io.Copy(io.Discard, struct{ io.Reader }{a})
				read <- err
			}()
			require.NoError(t, c.CloseWithError(6, ""))
			go func() {
				<-s.Context().Done()
				a.CancelRead(9)
				close(cancelled)
			}()
			if err := <-read; err != nil {
				var e *transport.ApplicationError
				require.True(t, errors.As(err, &e), "%v", err)
			}
			<-cancelled
			_, err = a.Read(make([]byte, 1))
			require.Error(t, err)
		}
		time.Sleep(time.Minute)
		require.LessOrEqual(t, capi.Memory(), before)
	})
}
