package http3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/transport"
)

func TestExtensionsSeeConnectionsAndConnects(t *testing.T) {
	simulate(t, func(w *world) {
		type key struct{}
		refuse := errors.New("not today")
		var refused bool
		tr := &http3.Transport{Extensions: http3.Extensions{
			NewConn: func(c *http3.Conn) {
				require.Nil(w, c.Value(key{}))
				c.SetValue(key{}, "value")
			},
			ExtendedConnect: func(c *http3.Conn, r *http.Request) error {
				require.Equal(w, "value", c.Value(key{}))
				st, err := c.Settings(r.Context())
				require.NoError(w, err)
				require.True(w, st.ExtendedConnect)
				if refused {
					return refuse
				}
				r.Header[":protocol"] = []string{"chosen"}
				return nil
			},
		}}
		srv := &http3.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			require.Equal(w, []string{"value"}, r.Header["X-Value"])
			require.Equal(w, "value", http3.ConnOf(rw).Value(key{}))
			io.WriteString(rw, r.Header.Get(":protocol"))
		})}
		srv.NewConn = tr.NewConn
		w.start(srv, tr)
		do := func(method string) (string, error) {
			req := newGet(w.T)
			req.Method = method
			req.Header.Set("X-Value", "value")
			if method == http.MethodConnect {
				req.Header[":protocol"] = []string{"offered"}
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return "", err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return string(b), err
		}
		got, err := do(http.MethodConnect)
		require.NoError(w, err)
		require.Equal(w, "chosen", got)
		refused = true
		_, err = do(http.MethodConnect)
		require.ErrorIs(w, err, refuse)
		_, err = do(http.MethodGet)
		require.NoError(w, err, "it is not asked about other requests")
	})
}

func TestBothSidesSeeTheConnectionDrain(t *testing.T) {
	simulate(t, func(w *world) {
		conns := make(chan *http3.Conn, 2)
		ext := http3.Extensions{NewConn: func(c *http3.Conn) { conns <- c }}
		tr := &http3.Transport{Extensions: ext}
		srv := &http3.Server{Extensions: ext}
		w.start(srv, tr)
		resp, err := tr.RoundTrip(newGet(w.T))
		require.NoError(w, err)
		resp.Body.Close()
		a, b := <-conns, <-conns
		select {
		case <-a.Draining():
			t.Fatal("too early")
		case <-b.Draining():
			t.Fatal("too early")
		default:
		}
		require.NoError(w, srv.Shutdown(w.Context()))
		<-a.Draining()
		<-b.Draining()
	})
}

func TestAStreamOfAnExtensionIsServedAfterGoAway(t *testing.T) {
	simulate(t, func(w *world) {
		got := make(chan string, 1)
		srv := &http3.Server{}
		srv.BidiStreams = map[uint64]func(*http3.Conn, transport.Stream){0x41: func(_ *http3.Conn, s transport.Stream) {
			b, _ := io.ReadAll(s)
			got <- string(b)
			s.Close()
		}}
		begun, held := make(chan struct{}), make(chan struct{})
		srv.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(begun)
			<-held
		})
		w.start(srv, nil)
		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		p.request(get(), true)
		<-begun
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(w.Context()) }()
		awaitGoAways(p, 2)
		p.request(cat(varints(0x41), []byte("late")), true)
		require.Equal(w, "late", <-got)
		_, err := io.ReadAll(p.request(get(), true))
		require.ErrorIs(w, err, &transport.StreamError{Code: http3.ErrRequestRejected})
		close(held)
		require.NoError(w, <-down)
	})
}

// awaitGoAways reads the server's control stream until so many GOAWAYs came.
func awaitGoAways(p *peer, n int) {
	p.Helper()
	s, err := p.conn.AcceptUniStream(p.Context())
	require.NoError(p, err)
	r := oneByte{s}
	_, err = http3.ReadVarint(r)
	require.NoError(p, err)
	for n > 0 {
		typ, err := http3.ReadVarint(r)
		require.NoError(p, err)
		size, err := http3.ReadVarint(r)
		require.NoError(p, err)
		_, err = io.CopyN(io.Discard, s, int64(size))
		require.NoError(p, err)
		if typ == 0x7 {
			n--
		}
	}
}

type oneByte struct{ io.Reader }

func (r oneByte) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(r, p[:])
	return p[0], err
}

func TestTheStartOfATakenStreamElsewhereIsAFrameError(t *testing.T) {
	take := map[uint64]func(*http3.Conn, transport.Stream){0x41: func(_ *http3.Conn, s transport.Stream) { s.Close() }}
	for name, send := range map[string]func(p *peer){
		"within a request":      func(p *peer) { p.request(cat(post(), varints(0x41, 0)), false) },
		"on the control stream": func(p *peer) { p.uni(cat(varints(0), settings, varints(0x41, 0)), false) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.start(&http3.Server{Extensions: http3.Extensions{BidiStreams: take}, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
				})}, nil)
				p := w.peer()
				send(p)
				require.Equal(t, http3.ErrFrame, p.ended().Code)
			})
		})
	}
}

func TestDatagramsOfPeersBeforeTheRFC(t *testing.T) {
	for name, tt := range map[string]struct {
		settings []uint64
		want     bool
	}{
		"the old setting":         {[]uint64{0xffd277, 1}, true},
		"both":                    {[]uint64{0x33, 1, 0xffd277, 1}, true},
		"the new one says no":     {[]uint64{0x33, 0, 0xffd277, 1}, false},
		"the old one has nothing": {[]uint64{0xffd277, 0}, false},
		"none":                    {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				conns := make(chan *http3.Conn, 1)
				w.start(&http3.Server{Extensions: http3.Extensions{NewConn: func(c *http3.Conn) { conns <- c }}}, nil)
				p := w.peer()
				p.uni(cat(varints(0), frame(0x4, varints(tt.settings...))), false)
				st, err := (<-conns).Settings(w.Context())
				require.NoError(t, err)
				require.Equal(t, tt.want, st.Datagrams)
			})
		})
	}
}

func TestDatagramsInCapsules(t *testing.T) {
	simulate(t, func(w *world) {
		streams := make(chan *http3.Stream, 1)
		srv := &http3.Server{Transport: &transport.Config{Datagrams: true}, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			s, err := http3.TakeStream(rw)
			require.NoError(w, err)
			streams <- s
		})}
		w.start(srv, nil)
		p := w.peer()
		p.uni(cat(varints(0), settings), false)
		p.request(headers(":method", "CONNECT", ":authority", "localhost:1"), false)
		s := <-streams
		s.PutDatagram([]byte("in a capsule"))
		d, err := s.ReceiveDatagram(context.Background())
		require.NoError(w, err)
		require.Equal(w, "in a capsule", string(d))
		require.NoError(w, s.Close())
	})
}

func TestVarints(t *testing.T) {
	for _, v := range []uint64{0, 63, 64, 1<<14 - 1, 1 << 14, 1<<30 - 1, 1 << 30, 1<<62 - 1} {
		b := http3.AppendVarint([]byte("x"), v)
		got, err := http3.ReadVarint(bytes.NewReader(b[1:]))
		require.NoError(t, err)
		require.Equal(t, v, got)
		if len(b) > 2 {
			_, err = http3.ReadVarint(bytes.NewReader(b[1 : len(b)-1]))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
	}
	_, err := http3.ReadVarint(bytes.NewReader(nil))
	require.ErrorIs(t, err, io.EOF)
	require.Panics(t, func() { http3.AppendVarint(nil, 1<<62) })
}

func TestClosingTheBodyAfterTheStreamLosesNothing(t *testing.T) {
	simulate(t, func(w *world) {
		type result struct {
			n   int64
			err error
		}
		got := make(chan result, 1)
		srv := &http3.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			s, err := http3.TakeStream(rw)
			require.NoError(w, err)
			n, err := io.Copy(io.Discard, s)
			got <- result{n, err}
			s.Close()
		})}
		tr := new(http3.Transport)
		w.start(srv, tr)
		req := newGet(w.T)
		req.Method = http.MethodConnect
		req.Host = "example.org:25"
		resp, err := tr.RoundTrip(req)
		require.NoError(w, err)
		s, ok := http3.ResponseStream(resp)
		require.True(w, ok)
		_, err = s.Write(make([]byte, 1<<20))
		require.NoError(w, err)
		require.NoError(w, s.Close())
		require.NoError(w, resp.Body.Close())
		require.Equal(w, result{1 << 20, nil}, <-got)
	})
}
