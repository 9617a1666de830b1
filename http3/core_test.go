package http3_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

// simulate runs f in a bubble with a world, for every engine.
func simulate(t *testing.T, f func(w *world)) {
	t.Helper()
	engines(t, func(t *testing.T, e transport.Transport) { f(newWorld(t, e)) })
}

func TestEveryRequestUsesOneConnection(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, tr)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				resp, err := tr.RoundTrip(newGet(w.T))
				require.NoError(w, err)
				resp.Body.Close()
			})
		}
		wg.Wait()
		require.Equal(w, 1, w.dials)
	})
}

func TestRequestsThatEndInEveryWayDoNotMix(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				io.Copy(w, r.Body)
			} // others leave their body unread
		})}, tr)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 16 {
					body := bytes.Repeat([]byte{byte(16*i + j)}, i*j*300)
					method := http.MethodPost
					if j%5 == 0 {
						method = http.MethodPut
					}
					req, err := http.NewRequestWithContext(w.Context(), method, url+"/", bytes.NewReader(body))
					require.NoError(w, err)
					if j%3 == 0 {
						req.ContentLength, req.GetBody = -1, nil
					}
					resp, err := tr.RoundTrip(req)
					require.NoError(w, err)
					if j%7 == 3 {
						resp.Body.Close() // without reading
						continue
					}
					got, err := io.ReadAll(resp.Body)
					require.NoError(w, err)
					resp.Body.Close()
					if method == http.MethodPost {
						require.True(w, bytes.Equal(body, got))
					}
				}
			})
		}
		wg.Wait()
		require.Equal(w, 1, w.dials)
	})
}

func TestRequestsWaitForTheServersStreamLimit(t *testing.T) {
	simulate(t, func(w *world) {
		var mu sync.Mutex
		var now, most int // guarded by mu
		srv := &http3.Server{Transport: &transport.Config{MaxStreams: 3}}
		srv.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
		})
		tr := new(http3.Transport)
		w.start(srv, tr)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				resp, err := tr.RoundTrip(newGet(w.T))
				require.NoError(w, err)
				resp.Body.Close()
			})
		}
		wg.Wait()
		require.Equal(w, 3, most)
		require.Equal(w, 1, w.dials)
	})
}

func TestAWaitForAStreamEndsWithTheContext(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Transport: &transport.Config{MaxStreams: 1}, Handler: http.HandlerFunc(
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}, tr)
		ctx, cancel := context.WithCancel(w.Context())
		go tr.RoundTrip(newGet(w.T).WithContext(ctx))
		time.Sleep(time.Second)
		short, stop := context.WithTimeout(w.Context(), time.Second)
		defer stop()
		_, err := tr.RoundTrip(newGet(w.T).WithContext(short))
		require.ErrorIs(w, err, context.DeadlineExceeded)
		cancel()
		synctest.Wait()
	})
}

func TestShutdownSaysGoAwayTwice(t *testing.T) {
	simulate(t, func(w *world) {
		finish := make(chan struct{})
		srv := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-finish
			io.WriteString(w, "fine")
		})}
		w.start(srv, nil)
		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		first := p.request(get(), true)
		control, err := p.conn.AcceptUniStream(w.Context())
		require.NoError(w, err)
		time.Sleep(time.Second)
		buf := make([]byte, 1000)
		_, err = control.Read(buf) // SETTINGS
		require.NoError(w, err)

		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(w.Context()) }()
		n, err := control.Read(buf)
		require.NoError(w, err)
		require.Equal(w, frame(0x7, varints(1<<62-4)), buf[:n], "the notice")
		second := p.request(get(), true) // it was under way
		n, err = control.Read(buf)
		require.NoError(w, err)
		require.Equal(w, frame(0x7, varints(8)), buf[:n], "what is answered")

		third := p.request(get(), true)
		_, err = io.ReadAll(third)
		var se *transport.StreamError
		require.ErrorAs(w, err, &se)
		require.Equal(w, http3.ErrRequestRejected, se.Code)

		close(finish)
		for _, s := range []transport.Stream{first, second} {
			b, err := io.ReadAll(s)
			require.NoError(w, err)
			require.Contains(w, string(b), "fine")
		}
		require.NoError(w, p.conn.CloseWithError(http3.ErrNoError, ""))
		require.NoError(w, <-down)
	})
}

func TestShutdownLosesNoRequest(t *testing.T) {
	simulate(t, func(w *world) {
		// The clients go on while one server follows another. Every request
		// that a handler saw is answered, and the others fail.
		var handled atomic.Int32
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handled.Add(1)
			b, _ := io.ReadAll(r.Body)
			time.Sleep(7 * time.Millisecond)
			w.Write(b)
		})
		tr := new(http3.Transport)
		srv := &http3.Server{Handler: handler}
		w.start(srv, tr)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var sent atomic.Int32
		for i := range 20 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					body := strings.Repeat(fmt.Sprint(i), 1000)
					req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, url+"/", strings.NewReader(body))
					require.NoError(w, err)
					resp, err := tr.RoundTrip(req)
					if err != nil {
						time.Sleep(10 * time.Millisecond) // until there is a server again
						continue
					}
					b, err := io.ReadAll(resp.Body)
					require.NoError(w, err)
					require.Equal(w, body, string(b))
					sent.Add(1)
				}
			})
		}
		for range 3 {
			time.Sleep(time.Second)
			before := sent.Load()
			down := make(chan error, 1)
			go func() { down <- srv.Shutdown(w.Context()) }()
			require.NoError(w, <-down)
			require.Greater(w, sent.Load(), before)
			srv = &http3.Server{Handler: handler, TLS: srv.TLS}
			w.start(srv, nil)
		}
		close(stop)
		clients.Wait()
		require.Equal(w, handled.Load(), sent.Load())
	})
}

func TestARejectedRequestIsSentAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		reject func(p *peer, s transport.Stream)
		dials  int
	}{
		{"on the same connection after H3_REQUEST_REJECTED", func(_ *peer, s transport.Stream) {
			s.CancelRead(http3.ErrRequestRejected)
			s.CancelWrite(http3.ErrRequestRejected)
		}, 1},
		{"on a new one after GOAWAY", func(p *peer, _ transport.Stream) {
			_, err := p.control.Write(frame(0x7, varints(0)))
			require.NoError(p, err)
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, func(w *world) {
				tr := new(http3.Transport)
				accept := w.listenPeer(tr)
				done := make(chan error, 1)
				req := newGet(w.T)
				req.Method = http.MethodPost
				body := strings.NewReader("hello")
				req.Body, req.ContentLength = io.NopCloser(body), 5
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }
				go func() {
					resp, err := tr.RoundTrip(req)
					if err == nil {
						resp.Body.Close()
					}
					done <- err
				}()
				p := accept()
				p.control = p.uni(cat(varints(0), settings), false)
				tt.reject(p, p.serverStream())
				if tt.dials == 2 {
					p = accept()
				}
				s := p.serverStream()
				_, err := s.Write(ok())
				require.NoError(t, err)
				require.NoError(t, s.Close())
				require.NoError(t, <-done)
				require.Equal(t, tt.dials, w.dials)
			})
		})
	}
}

func TestGoAwayFreesRequestsThatWaitForAStream(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		finish := make(chan struct{})
		srv := &http3.Server{Transport: &transport.Config{MaxStreams: 1}, Handler: http.HandlerFunc(
			func(http.ResponseWriter, *http.Request) { <-finish })}
		w.start(srv, tr)
		results := make(chan error, 2)
		get := func() {
			resp, err := tr.RoundTrip(newGet(w.T))
			if err == nil {
				resp.Body.Close()
			}
			results <- err
		}
		go get()
		time.Sleep(time.Second)
		go get()
		time.Sleep(time.Second)
		go srv.Shutdown(w.Context())
		require.Error(w, <-results, "the second: no server takes it")
		close(finish)
		require.NoError(w, <-results, "the first is answered")
	})
}

func TestAServerMayAnswerBeforeTheEndOfTheRequest(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		accept := w.listenPeer(tr)
		done := make(chan error, 1)
		pr, pw := io.Pipe()
		req := newGet(w.T)
		req.Method, req.Body = http.MethodPost, pr
		go func() {
			resp, err := tr.RoundTrip(req)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			done <- err
		}()
		s, err := accept().conn.AcceptStream(w.Context())
		require.NoError(w, err)
		s.CancelRead(http3.ErrNoError)
		time.Sleep(time.Second)
		pw.Write([]byte("nobody wants it"))
		time.Sleep(time.Second)
		s.Write(cat(ok(), data("enough")))
		s.Close()
		require.NoError(w, <-done)
	})
}

func TestARequestWithoutASecondBodyIsNotSentAgain(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		accept := w.listenPeer(tr)
		done := make(chan error, 1)
		req := newGet(w.T)
		req.Method = http.MethodPost
		req.Body = io.NopCloser(strings.NewReader("hello"))
		go func() {
			_, err := tr.RoundTrip(req)
			done <- err
		}()
		s := accept().serverStream()
		s.CancelRead(http3.ErrRequestRejected)
		s.CancelWrite(http3.ErrRequestRejected)
		var e *http3.Error
		require.ErrorAs(w, <-done, &e)
		require.Equal(w, http3.ErrRequestRejected, e.Code)
		require.True(w, e.Remote)
	})
}

func TestCancellationHasItsCodes(t *testing.T) {
	t.Run("a client that gives up", func(t *testing.T) {
		simulate(t, func(w *world) {
			tr := new(http3.Transport)
			accept := w.listenPeer(tr)
			ctx, cancel := context.WithCancel(w.Context())
			pr, pw := io.Pipe()
			req := newGet(w.T).WithContext(ctx)
			req.Method, req.Body = http.MethodPost, pr
			go func() {
				_, err := tr.RoundTrip(req)
				require.ErrorIs(t, err, context.Canceled)
			}()
			s, err := accept().conn.AcceptStream(w.Context())
			require.NoError(t, err)
			synctest.Wait()
			cancel()
			_, err = io.ReadAll(s)
			var se *transport.StreamError
			require.ErrorAs(t, err, &se)
			require.Equal(t, http3.ErrRequestCancelled, se.Code)
			<-s.Context().Done()
			_, err = s.Write([]byte("x"))
			require.ErrorAs(t, err, &se)
			require.Equal(t, http3.ErrRequestCancelled, se.Code)
			_, err = pw.Write([]byte("x"))
			require.ErrorIs(t, err, io.ErrClosedPipe, "the body was closed")
		})
	})
	t.Run("a handler that panics", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.start(&http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") })}, nil)
			p := w.peer()
			p.uni(cat(varints(0), settings), false)
			_, err := io.ReadAll(p.request(get(), true))
			var se *transport.StreamError
			require.ErrorAs(t, err, &se)
			require.Equal(t, http3.ErrInternal, se.Code)
		})
	})
	t.Run("a handler that does not read", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.start(&http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, nil)
			p := w.peer()
			p.uni(cat(varints(0), settings), false)
			s := p.request(cat(post(), data("x")), false)
			_, err := io.ReadAll(s)
			require.NoError(t, err)
			<-s.Context().Done()
			_, err = s.Write([]byte("x"))
			var se *transport.StreamError
			require.ErrorAs(t, err, &se)
			require.Equal(t, http3.ErrNoError, se.Code)
		})
	})
}

func TestAHeadThatTakesTooLongIsRefused(t *testing.T) {
	simulate(t, func(w *world) {
		w.start(&http3.Server{ReadHeaderTimeout: time.Second}, nil)
		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		start := time.Now()
		s := p.request(get()[:10], false)
		_, err := io.ReadAll(s)
		var se *transport.StreamError
		require.ErrorAs(w, err, &se)
		require.Equal(w, http3.ErrRequestIncomplete, se.Code)
		require.InDelta(w, time.Second, time.Since(start), float64(100*time.Millisecond))
	})
}

func TestAClientThatResetsRequestsAllTheTimeIsEnded(t *testing.T) {
	simulate(t, func(w *world) {
		w.start(&http3.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {})}, nil)
		p := w.peer()
		p.control = p.uni(cat(varints(0), settings), false)
		var b []byte
		for range 2000 {
			b = append(b, frame(0xf0700, varints(0), []byte("u=1"))...)
		}
		_, _ = p.control.Write(b)
		require.Equal(w, http3.ErrExcessiveLoad, p.ended().Code)
	})
}

func TestHandlersOfAConnectionAreLimited(t *testing.T) {
	simulate(t, func(w *world) {
		var running atomic.Int32
		release := make(chan struct{})
		w.start(&http3.Server{Transport: &transport.Config{MaxStreams: 5}, Handler: http.HandlerFunc(
			func(http.ResponseWriter, *http.Request) {
				running.Add(1)
				<-release // it does not care that the request has ended
				running.Add(-1)
			})}, nil)
		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		for range 20 {
			ctx, cancel := context.WithTimeout(w.Context(), time.Second)
			s, err := p.conn.OpenStream(ctx)
			cancel()
			if err != nil {
				break
			}
			_, _ = s.Write(get())
			time.Sleep(50 * time.Millisecond)
			s.CancelRead(http3.ErrRequestCancelled)
			s.CancelWrite(http3.ErrRequestCancelled)
		}
		require.EqualValues(w, 5, running.Load())
		close(release)
		time.Sleep(time.Second)
		require.Zero(w, running.Load())
	})
}

func TestADialThatFailsIsTriedAgainByTheNextRequest(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, tr)
		dial := tr.Dial
		broken := errors.New("broken")
		fail := true
		tr.Dial = func(ctx context.Context, addr string, cfg *transport.Config) (transport.Conn, error) {
			require.Equal(w, "localhost:443", addr)
			if fail {
				return nil, broken
			}
			return dial(ctx, addr, cfg)
		}
		_, err := tr.RoundTrip(newGet(w.T))
		require.ErrorIs(w, err, broken)
		fail = false
		resp, err := tr.RoundTrip(newGet(w.T))
		require.NoError(w, err)
		resp.Body.Close()
	})
}

func TestAnIdleConnectionThatDiedIsReplaced(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		srv := &http3.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		w.start(srv, tr)
		for range 2 {
			resp, err := tr.RoundTrip(newGet(w.T))
			require.NoError(w, err)
			resp.Body.Close()
			// All connections end without a GOAWAY, and at once.
			require.NoError(w, srv.Close())
			srv = &http3.Server{Handler: srv.Handler, TLS: srv.TLS}
			w.start(srv, nil)
		}
		require.Equal(w, 2, w.dials)
	})
}

func TestTheTransportRefusesWhatItCannotSend(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"http":     func(r *http.Request) { r.URL.Scheme = "http" },
		"no URL":   func(r *http.Request) { r.URL = nil },
		"no host":  func(r *http.Request) { r.URL.Host = "" },
		"method":   func(r *http.Request) { r.Method = "G T" },
		"host":     func(r *http.Request) { r.Host = "a b" },
		"trailers": func(r *http.Request) { r.Trailer = http.Header{"Content-Length": nil} },
	} {
		t.Run(name, func(t *testing.T) {
			req := newGet(t)
			closed := false
			req.Body = &onClose{strings.NewReader("x"), func() { closed = true }}
			change(req)
			_, err := new(http3.Transport).RoundTrip(req)
			require.ErrorContains(t, err, "http3: ")
			require.True(t, closed)
		})
	}
}

func TestATransportThatIsClosedTakesNoRequest(t *testing.T) {
	tr := new(http3.Transport)
	require.NoError(t, tr.Close())
	_, err := tr.RoundTrip(newGet(t))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestTheServerObeysTheClientsFieldLimit(t *testing.T) {
	simulate(t, func(w *world) {
		w.start(&http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("a", 2000))
		})}, nil)
		p := w.peer()
		p.uni(cat(varints(0), frame(0x4, varints(0x6, 1000))), false)
		synctest.Wait()
		time.Sleep(time.Second)
		_, err := io.ReadAll(p.request(get(), true))
		var se *transport.StreamError
		require.ErrorAs(w, err, &se)
		require.Equal(w, http3.ErrInternal, se.Code)
	})
}

func TestCapsules(t *testing.T) {
	b := http3.AppendCapsule(nil, http3.CapsuleDatagram, []byte("hello"))
	b = http3.AppendCapsule(b, 0x2843, nil)
	r := bufio.NewReader(bytes.NewReader(b))
	typ, value, err := http3.ReadCapsule(r)
	require.NoError(t, err)
	require.EqualValues(t, http3.CapsuleDatagram, typ)
	v, err := io.ReadAll(value)
	require.NoError(t, err)
	require.Equal(t, "hello", string(v))
	typ, value, err = http3.ReadCapsule(r)
	require.NoError(t, err)
	require.EqualValues(t, 0x2843, typ)
	require.Zero(t, value.N)
	_, _, err = http3.ReadCapsule(r)
	require.ErrorIs(t, err, io.EOF)
	for n := 1; n < 2; n++ {
		_, _, err = http3.ReadCapsule(bufio.NewReader(bytes.NewReader(b[:n])))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}
