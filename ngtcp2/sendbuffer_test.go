//go:build ngtcp2 && cgo

package ngtcp2

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// dialWith is dial with send buffers of a size that Knobs would refuse, perhaps.
func (r *rig) dialWith(sendBuffer uint64) (client, server *conn) {
	r.Helper()
	r.ln.(*listener).cfg.settings.SendBuffer = sendBuffer
	cc, err := r.client.knobs.clientConfig(r.cfg)
	require.NoError(r, err)
	cc.settings.SendBuffer = sendBuffer
	remote, err := r.client.addrPort(r.server.Addr())
	require.NoError(r, err)
	c, err := newClientConn(r.client, r.client.socket, remote, cc)
	require.NoError(r, err)
	require.True(r, r.client.addConn(c, false, false))
	<-c.ready
	require.NoError(r, c.reason())
	s, err := r.ln.Accept(r.Context())
	require.NoError(r, err)
	return c, s.(*conn)
}

// links changes both sides' links.
func (r *rig) links(l transporttest.Link) {
	for _, e := range []*endpoint{r.client, r.server} {
		e.socket.netConn().(*transporttest.Socket).Links(l, transporttest.Link{})
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// exchange sends data by one stream in each direction, in pieces, and checks what
// arrives. It takes no longer than the limit.
func (r *rig) exchange(c, s *conn, data []byte, piece int, limit time.Duration) {
	r.Helper()
	errs := make(chan error, 4)
	send := func(w transport.Stream) {
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := w.Write(rest[:n]); err != nil {
				errs <- fmt.Errorf("%d bytes before: %w", len(data)-len(rest), err)
				return
			}
			rest = rest[n:]
		}
		errs <- w.Close()
	}
	receive := func(w transport.Stream) {
		got, err := io.ReadAll(w)
		if err == nil && !bytes.Equal(data, got) {
			err = fmt.Errorf("%d bytes arrived, or others", len(got))
		}
		errs <- err
	}
	w, err := c.OpenStream(r.Context())
	require.NoError(r, err)
	require.NoError(r, w.SetDeadline(time.Now().Add(limit)))
	go send(w)    // ends with its deadline
	go receive(w) // as well
	a, err := s.AcceptStream(r.Context())
	require.NoError(r, err)
	require.NoError(r, a.SetDeadline(time.Now().Add(limit)))
	go send(a)
	go receive(a)
	for range cap(errs) {
		require.NoError(r, <-errs)
	}
}

func TestATinySendBufferNeverLeavesAWriterAsleep(t *testing.T) {
	for _, loss := range []float64{0, 0.05} {
		for _, size := range []int{1, 1000, 4 << 10, 16 << 10, 64 << 10} {
			t.Run(fmt.Sprintf("%d bytes, loss %v", size, loss), func(t *testing.T) {
				simulated(t, func(t *testing.T) {
					r := newRig(t, nil, nil)
					c, s := r.dialWith(uint64(size))
					r.links(transporttest.Link{Latency: 10 * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: loss})
					data := randomBytes(min(50*size, 400<<10))
					for _, piece := range []int{len(data), size/2 + 1, 3 * size} {
						r.exchange(c, s, data, piece, time.Minute)
					}
				})
			})
		}
	}
}

// While congestion control holds data back, Write does not try to send.
func TestWhatIsWrittenWhileDataIsHeldBackArrives(t *testing.T) {
	for _, loss := range []float64{0, 0.02} {
		t.Run(fmt.Sprint("loss ", loss), func(t *testing.T) {
			simulated(t, func(t *testing.T) {
				r := newRig(t, nil, nil)
				c, s := r.dial()
				time.Sleep(time.Second)
				r.links(transporttest.Link{Latency: 10 * time.Millisecond, Loss: loss, Rate: 1 << 20})
				w, err := c.OpenUniStream(r.Context())
				require.NoError(t, err)
				_, err = w.Write(make([]byte, 200<<10))
				require.NoError(t, err)
				c.mu.Lock()
				require.True(t, c.cc.Held())
				c.mu.Unlock()
				// To this stream and to others, which come before it.
				_, err = w.Write(make([]byte, 500))
				require.NoError(t, err)
				require.NoError(t, w.Close())
				other, err := c.OpenUniStream(r.Context())
				require.NoError(t, err)
				other.SetPriority(transport.Priority{Urgency: 0})
				c.mu.Lock()
				require.True(t, c.cc.Held())
				c.mu.Unlock()
				_, err = other.WriteLast([]byte("hello"))
				require.NoError(t, err)
				for _, want := range []int{200<<10 + 500, len("hello")} {
					a, err := s.AcceptUniStream(r.Context())
					require.NoError(t, err)
					require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Minute)))
					got, err := io.ReadAll(a)
					require.NoError(t, err)
					require.Len(t, got, want)
				}
				r.exchange(c, s, randomBytes(1<<20), 700, time.Minute)
			})
		})
	}
}
