package http3_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport/transporttest"
)

// lastWords is a handler that answers in a way that r's path names, and ends the
// connection so that the client sees it at the same time. What it writes is one
// packet, or pacing would part it.
func (l *lab) lastWords(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Custom", "this goes into a dynamic table")
	if r.URL.Path == "/before" {
		io.WriteString(w, "hello")
		return
	}
	qc := http3.ConnOf(w).Transport()
	l.link(transporttest.Link{Latency: 2 * oneWay})
	end := func() {
		time.Sleep(oneWay)
		l.link(transporttest.Link{Latency: oneWay})
		qc.CloseWithError(http3.ErrNoError, "")
	}
	switch r.URL.Path {
	case "/counted":
		w.Header().Set("Content-Length", "900")
		w.Write(make([]byte, 900)) // the end of the stream does not follow
		w.(http.Flusher).Flush()
		end()
	case "/ended":
		w.Header().Set("Trailer", "X-Sum")
		w.Write(make([]byte, 900))
		w.Header().Set("X-Sum", "nine")
		go end() // ends when the connection does
	case "/cut":
		w.Write(make([]byte, 900))
		w.(http.Flusher).Flush()
		end()
	case "/nothing":
		end()
	}
}

// onlyHTTP3 runs f on the stacks of HTTP/3.
func onlyHTTP3(t *testing.T, f func(*lab)) {
	versions(t, func(l *lab) {
		if l.proto == "HTTP/3.0" {
			f(l)
		}
	})
}

func TestAResponseThatArrivesWithTheEndOfItsConnectionIsWhole(t *testing.T) {
	onlyHTTP3(t, func(l *lab) {
		l.serve(l.lastWords)
		keeps := l.engine.Features().ReadAfterEnd
		for range 20 {
			for _, c := range []struct {
				path string
				size int
			}{{"/counted", 900}, {"/ended", 900}, {"/nothing", 0}} {
				for range 2 {
					_, body := l.get("/before")
					require.Equal(l, "hello", body)
				}
				// Not idempotent: it is not sent once more.
				resp, err := l.http.Do(l.request(http.MethodPost, c.path, strings.NewReader("x")))
				if err == nil {
					require.Equal(l, "this goes into a dynamic table", resp.Header.Get("X-Custom"))
					var body []byte
					body, err = io.ReadAll(resp.Body)
					if err == nil {
						require.Len(l, body, c.size)
						require.Equal(l, c.path == "/ended", resp.Trailer.Get("X-Sum") == "nine")
					}
					require.NoError(l, resp.Body.Close())
				}
				switch {
				case c.path == "/nothing":
					require.Error(l, err, "there was no response")
				case keeps:
					require.NoError(l, err, c.path)
				case err != nil:
					require.ErrorIs(l, err, net.ErrClosed, c.path)
				}
			}
		}
	})
}

func TestAResponseIsReadLongAfterTheEndOfItsConnection(t *testing.T) {
	onlyHTTP3(t, func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/trailers" {
				w.Header().Set("Trailer", "X-Sum")
				defer w.Header().Set("X-Sum", "seven")
			}
			w.Write(make([]byte, 50_000))
		})
		for _, path := range []string{"/", "/trailers"} {
			var open []*http.Response
			for range 3 {
				resp, err := l.http.Do(l.request(http.MethodGet, path, nil))
				require.NoError(l, err)
				open = append(open, resp)
			}
			time.Sleep(time.Second)
			l.drop()
			time.Sleep(time.Minute)
			for _, resp := range open {
				body, err := io.ReadAll(resp.Body)
				if !l.engine.Features().ReadAfterEnd {
					require.ErrorIs(l, err, net.ErrClosed)
				} else {
					require.NoError(l, err)
					require.Len(l, body, 50_000)
					if path == "/trailers" {
						require.Equal(l, "seven", resp.Trailer.Get("X-Sum"))
					}
				}
				require.NoError(l, resp.Body.Close())
			}
		}
	})
}

// What was cut off is not taken for a response, whatever the reason.
func TestAResponseThatTheEndOfItsConnectionCutsOffFails(t *testing.T) {
	onlyHTTP3(t, func(l *lab) {
		l.serve(l.lastWords)
		resp, err := l.http.Do(l.request(http.MethodPost, "/cut", strings.NewReader("x")))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			require.NoError(l, resp.Body.Close())
		}
		require.ErrorIs(l, err, net.ErrClosed)
		var e *http3.Error
		require.True(l, errors.As(err, &e))
		require.Equal(l, http3.ErrNoError, e.Code)
	})
}
