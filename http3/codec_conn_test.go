package http3_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

func TestAConnectionHasThePreferredCodec(t *testing.T) {
	all := http3.Codecs()
	require.Equal(t, "go", all[len(all)-1].Name, "it is in every build")
	all[0].Name = "x"
	require.NotEqual(t, "x", http3.Codecs()[0].Name, "the list is the caller's")
	engines(t, func(t *testing.T, e transport.Transport) {
		for _, ext := range []*http3.Extensions{nil, {Settings: map[uint64]uint64{0x1234: 5}}} {
			srv := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				s, err := http3.TakeStream(w)
				if err == nil {
					fmt.Fprint(s, s.Conn().Codec())
					s.Close()
				}
			})}
			if ext != nil {
				srv.Extensions = *ext
			}
			w := newWorld(t, e)
			tr := new(http3.Transport)
			w.start(srv, tr)
			resp, err := tr.RoundTrip(newGet(t))
			require.NoError(t, err)
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http3.Codecs()[0].Name, string(b))
		}
	})
}

// A client that has no room for more data of the connection, because it does not read
// one response, has none for the encoder stream either. Nothing waits for that.
//
// https://www.rfc-editor.org/rfc/rfc9204#section-2.1.3
func TestAStalledConnectionLives(t *testing.T) {
	for _, c := range http3.Codecs() {
		t.Run(c.Name, func(t *testing.T) {
			used := http3.UseCodec(t, c.Name)
			engines(t, func(t *testing.T, e transport.Transport) {
				const size = 1 << 20
				w := newWorld(t, e)
				w.start(&http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Server", strings.Repeat(r.Header.Get("Tag"), 100))
					if r.Header.Get("Tag") == "" {
						w.Write(make([]byte, size))
					}
				})}, nil)
				conn, err := w.client.Dial(w.Context(), net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)), &transport.Config{
					TLS: w.ca.Client("localhost", http3.ALPN), ConnWindow: 64 << 10, KeepAlive: 5 * time.Second,
				})
				require.NoError(t, err)
				p := &peer{T: t, conn: conn}
				p.uni(cat(varints(0), frame(0x4, varints(0x1, 4096))), false)
				large := p.request(get(), true)
				synctest.Wait()
				var small []transport.Stream
				for i := range 20 {
					small = append(small, p.request(get("tag", fmt.Sprintf("%05d", i)), true))
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				require.NoError(t, conn.Context().Err())
				done := make(chan struct{})
				go func() { // ends with the stream
					defer close(done)
					n, err := io.Copy(io.Discard, large)
					require.NoError(t, err)
					require.Greater(t, n, int64(size))
				}()
				for i, s := range small {
					b, err := io.ReadAll(s)
					require.NoError(t, err)
					require.Equal(t, strings.Repeat(fmt.Sprintf("%05d", i), 100), head(t, b)["server"])
				}
				<-done
				conn.CloseWithError(0, "")
			})
			require.Positive(t, used())
		})
	}
}
