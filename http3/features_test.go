package http3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/transporttest"
)

func TestPriorities(t *testing.T) {
	// The last response asked for comes first if it is more urgent.
	order := func(t *testing.T, want string, ask func(tr *http3.Transport, handler *http.Handler) (first, last *http.Response)) {
		engines(t, func(t *testing.T, e transport.Transport) {
			w := newWorldBehind(t, e, transporttest.Link{Latency: oneWay, Rate: 4 << 20, Queue: 1 << 20})
			var handler http.Handler
			tr := new(http3.Transport)
			w.start(&http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handler.ServeHTTP(w, r)
			})}, tr)
			first, last := ask(tr, &handler)
			var finished []string
			var mu sync.Mutex
			var wg sync.WaitGroup
			for name, resp := range map[string]*http.Response{"first": first, "last": last} {
				wg.Go(func() {
					n, err := io.Copy(io.Discard, resp.Body)
					require.NoError(t, err)
					require.EqualValues(t, 2<<20, n)
					mu.Lock()
					defer mu.Unlock()
					finished = append(finished, name)
				})
			}
			wg.Wait()
			require.Equal(t, want, strings.Join(finished, " "))
		})
	}
	large := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 2<<20)) })
	fetch := func(tr *http3.Transport, path, priority string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, url+path, nil)
		require.NoError(t, err)
		req.Header.Set("Priority", priority)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		return resp
	}
	t.Run("without any the requests are served in their order", func(t *testing.T) {
		order(t, "first last", func(tr *http3.Transport, h *http.Handler) (a, b *http.Response) {
			*h = large
			return fetch(tr, "/", ""), fetch(tr, "/", "")
		})
	})
	t.Run("by the request's header", func(t *testing.T) {
		order(t, "last first", func(tr *http3.Transport, h *http.Handler) (a, b *http.Response) {
			*h = large
			return fetch(tr, "/", "u=5, i"), fetch(tr, "/", "u=1")
		})
	})
	t.Run("by PRIORITY_UPDATE", func(t *testing.T) {
		order(t, "last first", func(tr *http3.Transport, h *http.Handler) (a, b *http.Response) {
			*h = large
			a, b = fetch(tr, "/", ""), fetch(tr, "/", "")
			require.NoError(t, http3.Reprioritise(b, transport.PriorityHigh))
			return a, b
		})
	})
	t.Run("by the handler", func(t *testing.T) {
		order(t, "last first", func(tr *http3.Transport, h *http.Handler) (a, b *http.Response) {
			*h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/urgent" {
					http3.SetPriority(w, transport.PriorityHigh)
				}
				large(w, r)
			})
			return fetch(tr, "/", ""), fetch(tr, "/urgent", "")
		})
	})
}

func TestExtendedConnectIsAStreamWithDatagrams(t *testing.T) {
	simulate(t, func(w *world) {
		served := make(chan error, 1)
		srv := &http3.Server{Transport: &transport.Config{Datagrams: true}}
		srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			require.Equal(w, http.MethodConnect, r.Method)
			require.Equal(w, "echo", r.Header.Get(":protocol"))
			require.Equal(w, "/chat", r.URL.Path)
			s, err := http3.TakeStream(rw)
			require.NoError(w, err)
			go func() { // ends with the stream
				d, err := s.ReceiveDatagram(context.Background())
				if err == nil {
					err = s.SendDatagram(append(d, '!'))
				}
				if err == nil {
					_, err = io.Copy(s, s)
				}
				served <- errors.Join(err, s.Close())
			}()
		})
		tr := &http3.Transport{Config: &transport.Config{Datagrams: true}}
		w.start(srv, tr)
		req, err := http.NewRequestWithContext(w.Context(), http.MethodConnect, url+"/chat", nil)
		require.NoError(w, err)
		req.Header[":protocol"] = []string{"echo"}
		resp, err := tr.RoundTrip(req)
		require.NoError(w, err)
		defer resp.Body.Close()
		require.Equal(w, 200, resp.StatusCode)
		s, ok := http3.ResponseStream(resp)
		require.True(w, ok)
		require.NoError(w, s.SendDatagram([]byte("hi")))
		d, err := s.ReceiveDatagram(w.Context())
		require.NoError(w, err)
		require.Equal(w, "hi!", string(d))
		_, err = io.WriteString(s, "hello")
		require.NoError(w, err)
		b := make([]byte, 5)
		_, err = io.ReadFull(s, b)
		require.NoError(w, err)
		require.Equal(w, "hello", string(b))
		require.NoError(w, s.Close())
		_, err = s.Read(b)
		require.ErrorIs(w, err, io.EOF)
		require.NoError(w, <-served)
	})
}

func TestConnectIsAStream(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			require.Equal(w, "example.org:25", r.Host)
			require.Equal(w, "example.org:25", r.RequestURI)
			require.NoError(w, http.NewResponseController(rw).Flush())
			_, err := io.Copy(flusher{rw}, r.Body)
			require.NoError(w, err)
		})}, tr)
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(w.Context(), http.MethodConnect, url, pr)
		require.NoError(w, err)
		req.Host = "example.org:25"
		resp, err := tr.RoundTrip(req)
		require.NoError(w, err)
		defer resp.Body.Close()
		io.WriteString(pw, "hello")
		b := make([]byte, 5)
		_, err = io.ReadFull(resp.Body, b)
		require.NoError(w, err)
		require.Equal(w, "hello", string(b))
		pw.Close()
		_, err = resp.Body.Read(b)
		require.ErrorIs(w, err, io.EOF)
	})
}

type flusher struct{ http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	return n, errors.Join(err, http.NewResponseController(f.ResponseWriter).Flush())
}

func TestDatagramsNeedBothSides(t *testing.T) {
	simulate(t, func(w *world) {
		tr := new(http3.Transport)
		w.start(&http3.Server{Transport: &transport.Config{Datagrams: true}, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			s, err := http3.TakeStream(rw)
			require.NoError(w, err)
			require.ErrorIs(w, s.SendDatagram([]byte("x")), errors.ErrUnsupported)
			_, err = s.ReceiveDatagram(w.Context())
			require.ErrorIs(w, err, errors.ErrUnsupported)
			s.Close()
		})}, tr)
		resp, err := tr.RoundTrip(newGet(w.T))
		require.NoError(w, err)
		resp.Body.Close()
	})
}

func TestADatagramThatIsNoneEndsTheConnection(t *testing.T) {
	for name, b := range map[string][]byte{"empty": {}, "short": {0xc0}, "no such stream": varints(1 << 60)} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.start(&http3.Server{Transport: &transport.Config{Datagrams: true}}, nil)
				p := w.peer()
				require.NoError(t, p.conn.SendDatagram(b))
				require.Equal(t, http3.ErrDatagram, p.ended().Code)
			})
		})
	}
}

func TestExtensionsTakeStreamsAndSettings(t *testing.T) {
	simulate(t, func(w *world) {
		got := make(chan string, 4)
		read := func(name string, r io.Reader) {
			b, err := io.ReadAll(r)
			got <- fmt.Sprint(name, string(b), err)
		}
		ext := http3.Extensions{
			Settings:    map[uint64]uint64{0x1234: 5},
			UniStreams:  map[uint64]func(*http3.Conn, transport.ReceiveStream){0x54: func(_ *http3.Conn, s transport.ReceiveStream) { read("uni", s) }},
			BidiStreams: map[uint64]func(*http3.Conn, transport.Stream){0x41: func(_ *http3.Conn, s transport.Stream) { read("bidi", s); s.Close() }},
		}
		conns := make(chan *http3.Conn, 1)
		srv := &http3.Server{Extensions: ext, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { conns <- http3.ConnOf(w) })}
		tr := &http3.Transport{Extensions: ext}
		w.start(srv, tr)
		resp, err := tr.RoundTrip(newGet(w.T))
		require.NoError(w, err)
		resp.Body.Close()
		c := <-conns
		peerSettings, err := c.Settings(w.Context())
		require.NoError(w, err)
		require.EqualValues(w, 5, peerSettings.Other[0x1234])
		uni, err := c.Transport().OpenUniStream(w.Context())
		require.NoError(w, err)
		uni.Write(cat(varints(0x54), []byte("from the server")))
		uni.Close()
		require.Equal(w, "unifrom the server<nil>", <-got)
		bidi, err := c.Transport().OpenStream(w.Context())
		require.NoError(w, err)
		bidi.Write(cat(varints(0x41), []byte("from the server")))
		bidi.Close()
		require.Equal(w, "bidifrom the server<nil>", <-got)

		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		p.uni(cat(varints(0x54), []byte("from a client")), true)
		require.Equal(w, "unifrom a client<nil>", <-got)
		s := p.request(cat(varints(0x41), []byte("from a client")), true)
		require.Equal(w, "bidifrom a client<nil>", <-got)
		_, err = io.ReadAll(s)
		require.NoError(w, err)
	})
}

func TestEarlyRequests(t *testing.T) {
	for _, tt := range []struct {
		name, method string
		reject       bool
		want         string // what the handler saw, request by request
	}{
		{"a safe method goes early", http.MethodGet, false, "GET false GET true"},
		{"another waits for the handshake", http.MethodPost, false, "GET false POST false"},
		{"425 makes the client repeat the request", http.MethodGet, true, "GET false GET false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, func(w *world) {
				var saw []string
				var h http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					saw = append(saw, r.Method, fmt.Sprint(http3.Early(r)))
				})
				if tt.reject {
					h = http3.RejectEarly(h)
				}
				tr := &http3.Transport{Config: &transport.Config{EarlyData: true, Sessions: new(sessions)}}
				w.start(&http3.Server{Transport: &transport.Config{EarlyData: true}, Handler: h}, tr)
				for _, method := range []string{http.MethodGet, tt.method} {
					req := newGet(w.T)
					req.Method = method
					resp, err := tr.RoundTrip(req)
					require.NoError(t, err)
					require.Equal(t, 200, resp.StatusCode)
					resp.Body.Close()
					time.Sleep(time.Second) // a ticket comes
					tr.CloseIdleConnections()
					time.Sleep(time.Second)
				}
				require.Equal(t, 2, w.dials)
				require.Equal(t, tt.want, strings.Join(saw, " "))
			})
		})
	}
}

// A gateway that passes on an early request says so (RFC 8470, Section 5.1).
func TestARequestThatWasEarlyAtAGatewayIsRejected(t *testing.T) {
	for value, want := range map[string]int{"": 200, "1": 425} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if value != "" {
			r.Header.Set("Early-Data", value)
		}
		w := httptest.NewRecorder()
		http3.RejectEarly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		require.Equal(t, want, w.Code)
	}
}

func TestARequestThatWasSentEarlyInVainIsSentAgain(t *testing.T) {
	simulate(t, func(w *world) {
		var early []bool
		h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { early = append(early, http3.Early(r)) })
		cfg := &transport.Config{EarlyData: true}
		srv := &http3.Server{Transport: cfg, Handler: h}
		tr := &http3.Transport{Config: &transport.Config{EarlyData: true, Sessions: new(sessions)}}
		w.start(srv, tr)
		for range 2 {
			resp, err := tr.RoundTrip(newGet(w.T))
			require.NoError(w, err)
			resp.Body.Close()
			time.Sleep(time.Second) // a ticket comes
			tr.CloseIdleConnections()
			require.NoError(w, srv.Close())
			srv = &http3.Server{Transport: cfg, Handler: h} // with other keys: it cannot read the ticket
			w.start(srv, nil)
		}
		require.Equal(w, []bool{false, false}, early)
	})
}

// sessions keeps one session.
type sessions struct {
	mu   sync.Mutex
	last []byte
}

func (s *sessions) Take(string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	s.last = nil
	return last
}

func (s *sessions) Put(_ string, session []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = session
}

func TestARequestThatIsNotSafeWaitsForTheHandshake(t *testing.T) {
	// The client is one that sends what it likes.
	simulate(t, func(w *world) {
		var complete []bool
		srv := &http3.Server{Transport: &transport.Config{EarlyData: true}}
		srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			require.False(w, http3.Early(r))
			complete = append(complete, http3.ConnOf(rw).Transport().State().HandshakeComplete)
		})
		w.start(srv, nil)
		kept := new(sessions)
		for _, early := range []bool{false, true} {
			c, err := w.client.Dial(w.Context(), net.UDPAddrFromAddrPort(mustAddrPort(serverAddr)),
				&transport.Config{TLS: w.ca.Client("localhost", http3.ALPN), EarlyData: true, Sessions: kept})
			require.NoError(w, err)
			require.Equal(w, early, !c.State().HandshakeComplete)
			p := &peer{T: w.T, conn: c}
			p.uni(cat(varints(0), settings), false)
			b, err := io.ReadAll(p.request(post("content-length", "0"), true))
			require.NoError(w, err)
			require.Equal(w, "200", head(w.T, b)[":status"])
			time.Sleep(time.Second) // a ticket comes
			require.NoError(w, c.CloseWithError(http3.ErrNoError, ""))
		}
		require.Equal(w, []bool{true, true}, complete)
	})
}

type key struct{}

func TestAConnectionCanBeServedAlone(t *testing.T) {
	simulate(t, func(w *world) {
		var logged bytes.Buffer
		srv := &http3.Server{
			Logger:      slog.New(slog.NewTextHandler(&logged, nil)),
			BaseContext: func() context.Context { return context.WithValue(context.Background(), key{}, "base") },
			ConnContext: func(ctx context.Context, c *http3.Conn) context.Context {
				require.Equal(w, "base", ctx.Value(key{}))
				return context.WithValue(ctx, key{}, c)
			},
			Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				require.Same(w, http3.ConnOf(rw), r.Context().Value(key{}))
				panic("what a pity")
			}),
		}
		srv.TLS = w.ca.Server("localhost")
		cfg, err := srv.TransportConfig()
		require.NoError(w, err)
		ln, err := w.server.Listen(cfg)
		require.NoError(w, err)
		p := w.peer()
		c, err := ln.Accept(w.Context())
		require.NoError(w, err)
		served := make(chan error, 1)
		go func() { served <- srv.ServeConn(c) }() // ends with the connection
		_, err = io.ReadAll(p.request(get(), true))
		require.Error(w, err)
		require.NoError(w, p.conn.CloseWithError(http3.ErrNoError, "enough"))
		var e *http3.Error
		require.ErrorAs(w, <-served, &e)
		require.Equal(w, "http3: connection ended by remote: H3_NO_ERROR: enough", e.Error())
		require.Contains(w, logged.String(), "what a pity")

		require.NoError(w, srv.Close())
		w.peer()
		c, err = ln.Accept(w.Context())
		require.NoError(w, err)
		require.ErrorIs(w, srv.ServeConn(c), http.ErrServerClosed)
		require.ErrorIs(w, srv.Serve(ln), http.ErrServerClosed)
	})
}

// A wrapper is what middleware makes of a ResponseWriter.
type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestWhatIsOnlyInHTTP3SaysSo(t *testing.T) {
	versions(t, func(l *lab) {
		three := l.proto == "HTTP/3.0"
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w = wrapper{w}
			http3.SetPriority(w, transport.PriorityHigh)
			require.Equal(l, three, http3.ConnOf(w) != nil)
			s, err := http3.TakeStream(w)
			if !three {
				require.ErrorIs(l, err, errors.ErrUnsupported)
				return
			}
			require.NoError(l, err)
			require.Same(l, http3.ConnOf(w), s.Conn())
			_, err = w.Write([]byte("x"))
			require.ErrorIs(l, err, http.ErrHijacked)
			_, err = http3.TakeStream(w)
			require.ErrorIs(l, err, http.ErrHijacked)
			require.NoError(l, s.Close())
			_, err = s.Write([]byte("x"))
			require.ErrorIs(l, err, net.ErrClosed)
		})
		resp, _ := l.get("/")
		_, ok := http3.ResponseStream(resp)
		require.False(l, ok)
		require.NoError(l, http3.Reprioritise(&http.Response{Body: http.NoBody}, transport.PriorityHigh))
	})
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	_, err := new(http3.Server).TransportConfig()
	require.ErrorContains(t, err, "TLS is not set")
	serverTLS, _ := testcert.New()
	for _, srv := range []*http3.Server{
		{TLS: serverTLS, Transport: &transport.Config{MaxUniStreams: 2}},
		{TLS: serverTLS, Transport: &transport.Config{MaxUniStreams: -1}},
		{TLS: serverTLS, Extensions: http3.Extensions{Settings: map[uint64]uint64{0x6: 1}}},
		{TLS: serverTLS, Extensions: http3.Extensions{Settings: map[uint64]uint64{0x2: 1}}},
	} {
		_, err := srv.TransportConfig()
		require.ErrorContains(t, err, "http3: ")
	}
	_, err = new(http3.Transport).RoundTrip(newGet(t))
	require.ErrorContains(t, err, "no Engine and no Dial")
}

func TestAStalledReaderHoldsNoMoreThanTheWindows(t *testing.T) {
	simulate(t, func(w *world) {
		var written atomic.Int64
		tr := &http3.Transport{Config: &transport.Config{StreamWindow: 256 << 10, ConnWindow: 512 << 10}}
		w.start(&http3.Server{WriteTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				n, err := w.Write(make([]byte, 10_000))
				written.Add(int64(n))
				if err != nil {
					return
				}
			}
		})}, tr)
		resp, err := tr.RoundTrip(newGet(w.T))
		require.NoError(w, err)
		time.Sleep(30 * time.Second)
		require.Less(w, written.Load(), int64(1<<20))
		time.Sleep(time.Minute) // WriteTimeout
		_, err = io.Copy(io.Discard, resp.Body)
		require.Error(w, err)
		resp.Body.Close()
	})
}
