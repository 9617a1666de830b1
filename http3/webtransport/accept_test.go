package webtransport_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

func TestTheServerRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		path   string
		header http.Header
		opts   webtransport.AcceptOptions
		want   int
	}{
		"a path that is not there":     {path: "/nowhere", want: 404},
		"a path that is for GET":       {path: "/hello", want: 405},
		"another origin":               {path: "/", header: http.Header{"Origin": {"https://evil.example"}}, want: 403},
		"an origin not on the list":    {path: "/", header: http.Header{"Origin": {"https://evil.example"}}, opts: webtransport.AcceptOptions{Origins: []string{"good.example"}}, want: 403},
		"two origins":                  {path: "/", header: http.Header{"Origin": {"https://localhost", "https://evil.example"}}, want: 403},
		"a client without a protocol":  {path: "/", opts: webtransport.AcceptOptions{Protocols: []string{"a"}, RequireProtocol: true}, want: 400},
		"a protocol that is not known": {path: "/", header: http.Header{"Wt-Available-Protocols": {`"b"`}}, opts: webtransport.AcceptOptions{Protocols: []string{"a"}, RequireProtocol: true}, want: 400},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.serve(nil, &tt.opts)
				_, err := webtransport.Dial(w.Context(), w.tr, site+tt.path, &webtransport.DialOptions{Header: tt.header})
				var se *webtransport.StatusError
				require.ErrorAs(w, err, &se)
				require.Equal(w, tt.want, se.StatusCode)
				if tt.path == "/" {
					require.Error(w, <-w.failures)
				}
			})
		})
	}
}

func TestARefusedSessionHoldsNothing(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		webtransport.ConfigureTransport(w.tr, nil)
		opts := &webtransport.DialOptions{Pool: true, Header: http.Header{"Origin": {"https://evil.example"}}}
		for range 50 {
			_, err := webtransport.Dial(w.Context(), w.tr, site+"/", opts)
			require.ErrorContains(w, err, "403 Forbidden")
			<-w.failures
		}
		c, s := w.dial(&webtransport.DialOptions{Pool: true})
		require.Len(w, w.dialled, 1)
		require.Equal(w, 1, webtransport.Held(c.Conn()))
		require.Equal(w, 1, webtransport.Held(s.Conn()))
		require.NoError(w, c.Close())
	})
}

func TestOrigins(t *testing.T) {
	for _, tt := range []struct {
		host, origin string
		allowed      []string
		want         bool
	}{
		{"example.com", "", nil, true},
		{"example.com", "https://example.com", nil, true},
		{"example.com", "https://EXAMPLE.com:443", nil, true},
		{"example.com:443", "https://example.com", nil, true},
		{"example.com:8443", "https://example.com:8443", nil, true},
		{"[::1]:8443", "https://[::1]:8443", nil, true},
		{"example.com:8443", "https://example.com", nil, false},
		{"example.com", "http://example.com", nil, false},
		{"example.com", "https://www.example.com", nil, false},
		{"example.com", "https://example.com.evil.org", nil, false},
		{"example.com", "null", nil, false},
		{"example.com", "null", []string{"null"}, false},
		{"example.com", "null", []string{"*"}, true},
		{"example.com", "https://example.com/path", nil, false},
		{"example.com", "https://user@example.com", nil, false},
		{"example.com", "https://", nil, false},
		{"example.com", "://", nil, false},
		{"example.com", "https://a.org", []string{"a.org"}, true},
		{"example.com", "https://a.org:443", []string{"a.org"}, true},
		{"example.com", "https://a.org:1", []string{"a.org"}, false},
		{"example.com", "https://a.org:1", []string{"a.org:*"}, true},
		{"example.com", "https://a.org:1", []string{"https://A.org:1"}, true},
		{"example.com", "http://a.org", []string{"a.org"}, false},
		{"example.com", "http://a.org", []string{"http://a.org"}, true},
		{"example.com", "https://b.a.org", []string{"a.org"}, false},
		{"example.com", "https://b.a.org", []string{"*.a.org"}, true},
		{"example.com", "https://a.org", []string{"*.a.org"}, false},
		{"example.com", "https://.a.org", []string{"*.a.org"}, false},
		{"example.com", "https://evila.org", []string{"*.a.org"}, false},
		{"example.com", "https://evila.org", []string{"*a.org"}, false},
		{"example.com", "https://[::1]:5", []string{"[::1]:5"}, true},
		{"example.com", "https://[::1]", []string{"[::1]"}, true},
		{"example.com", "app://a.org", []string{"app://a.org"}, true},
	} {
		r := httptest.NewRequest(http.MethodConnect, "/", nil)
		r.Host = tt.host
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		require.Equal(t, tt.want, webtransport.OriginAllowed(r, tt.allowed), "%s at %s with %q", tt.origin, tt.host, tt.allowed)
	}
}

func TestAnAllowedOriginGetsItsSession(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, &webtransport.AcceptOptions{Origins: []string{"https://app.example:8443"}})
		c, s := w.dial(&webtransport.DialOptions{Header: http.Header{"Origin": {"https://app.example:8443"}, "X-Token": {"secret"}}})
		require.Equal(w, "secret", s.Header().Get("X-Token"))
		require.Equal(w, s.ID(), c.ID())
		require.NoError(w, c.Close())
	})
}

func TestApplicationProtocols(t *testing.T) {
	for name, tt := range map[string]struct {
		client, server []string
		want           string
	}{
		"the server's preference counts": {[]string{"a", "b", "c"}, []string{"x", "c", "b"}, "c"},
		"none in common":                 {[]string{"a"}, []string{"b"}, ""},
		"none offered":                   {nil, []string{"b"}, ""},
		"none known":                     {[]string{"a"}, nil, ""},
		"quotes and backslashes":         {[]string{`a "b" \c`, "x, y;z=1"}, []string{`a "b" \c`}, `a "b" \c`},
		"a name that looks like a list":  {[]string{"x, y;z=1"}, []string{"y", "x, y;z=1"}, "x, y;z=1"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.serve(nil, &webtransport.AcceptOptions{Protocols: tt.server})
				c, s := w.dial(&webtransport.DialOptions{Protocols: tt.client, RequireProtocol: tt.want != ""})
				require.Equal(w, tt.want, c.Protocol())
				require.Equal(w, tt.want, s.Protocol())
				require.NoError(w, c.Close())
			})
		})
	}
}

func TestStructuredFields(t *testing.T) {
	for in, want := range map[string][]string{
		`"a"`:                               {"a"},
		` "a" , "b"`:                        {"a", "b"},
		"\"a\"\t,\t\"b\"":                   {"a", "b"},
		`"a";q=1, "b";x;y="z\"";w=:YQ==:`:   {"a", "b"},
		`"a";*x=?1`:                         {"a"},
		`"\\\""`:                            {`\"`},
		`""`:                                {""},
		`a`:                                 nil,
		`"a", b`:                            nil,
		`"a", 1`:                            nil,
		`"a",`:                              nil,
		`,"a"`:                              nil,
		`"a" "b"`:                           nil,
		`"a`:                                nil,
		`"a\`:                               nil,
		`"\x"`:                              nil,
		"\"\x7f\"":                          nil,
		"\"\u00e4\"":                        nil,
		`("a" "b")`:                         nil,
		`"a";`:                              nil,
		`"a";X`:                             nil,
		`"a";x=`:                            nil,
		`"a";x="`:                           nil,
		"":                                  nil,
		strings.Repeat(`"a",`, 200) + `"a"`: nil,
	} {
		got, ok := webtransport.ParseStrings([]string{in})
		require.Equal(t, want != nil, ok, "%q", in)
		if ok {
			require.Equal(t, want, got, "%q", in)
		}
	}
	got, ok := webtransport.ParseStrings([]string{`"a"`, `"b", "c"`})
	require.True(t, ok)
	require.Equal(t, []string{"a", "b", "c"}, got, "lines are one list")
}

func TestDialRefusesWhatCannotBe(t *testing.T) {
	tr := new(http3.Transport)
	for _, u := range []string{"http://localhost/", "https:///x", "https://localhost/#x", "wss://localhost", "%"} {
		_, err := webtransport.Dial(t.Context(), tr, u, nil)
		require.ErrorContains(t, err, "webtransport: ", u)
	}
	for _, p := range []string{"", "\n", "ä"} {
		_, err := webtransport.Dial(t.Context(), tr, site, &webtransport.DialOptions{Protocols: []string{p}})
		require.ErrorContains(t, err, "not printable ASCII")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	simulate(t, func(w *world) {
		w.listenPeer() // which does nothing
		_, err := webtransport.Dial(w.timeout(oneWay), w.tr, site, nil)
		require.ErrorIs(w, err, context.DeadlineExceeded, "during the handshake")
		_, err = webtransport.Dial(w.timeout(10*oneWay), w.tr, site, nil)
		require.ErrorIs(w, err, context.DeadlineExceeded, "before the settings")
	})
	simulate(t, func(w *world) {
		accept := w.listenPeer(newest...)
		ctx, cancel := context.WithCancelCause(w.Context())
		why := errors.New("changed my mind")
		go func() {
			p := accept()
			s, err := p.conn.AcceptStream(w.Context())
			require.NoError(w, err)
			p.head(s)
			cancel(why)
		}()
		_, err := webtransport.Dial(ctx, w.tr, site, nil)
		require.ErrorIs(w, err, why, "before the answer")
	})
}

func TestASessionOutlivesTheContextOfDial(t *testing.T) {
	simulate(t, func(w *world) {
		w.serve(nil, nil)
		ctx, cancel := context.WithCancel(w.Context())
		c, err := webtransport.Dial(ctx, w.tr, site, nil)
		require.NoError(w, err)
		cancel()
		s := <-w.sessions
		go echo(s)
		require.NoError(w, roundTrip(w.Context(), c, []byte("x")))
		require.NoError(w, c.Close())
	})
}

func TestAcceptAnswersWhatIsNoSession(t *testing.T) {
	rec := httptest.NewRecorder()
	_, err := webtransport.Accept(rec, httptest.NewRequest(http.MethodGet, "/", nil), nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.Equal(t, http.StatusMethodNotAllowed, rec.Code)

	r := httptest.NewRequest(http.MethodConnect, "/", nil)
	r.ProtoMajor = 3
	r.Header[":protocol"] = []string{"webtransport"}
	require.True(t, webtransport.IsRequest(r))
	rec = httptest.NewRecorder()
	_, err = webtransport.Accept(rec, r, nil)
	require.ErrorContains(t, err, "Unwrap")
	require.Equal(t, http.StatusInternalServerError, rec.Code)
	r.Header[":protocol"] = []string{"websocket"}
	require.False(t, webtransport.IsRequest(r))
}

func TestAServerThatWasNotConfiguredSaysSo(t *testing.T) {
	simulate(t, func(w *world) {
		failed := make(chan error, 1)
		srv := &http3.Server{TLS: w.ca.Server("localhost"), Transport: &transport.Config{Datagrams: true}}
		srv.Settings = map[uint64]uint64{0x2c7cf000: 1}
		srv.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, err := webtransport.Accept(rw, r, nil)
			failed <- err
		})
		cfg, err := srv.TransportConfig()
		require.NoError(w, err)
		ln, err := w.server.Listen(cfg)
		require.NoError(w, err)
		go srv.Serve(ln) // until Close
		defer srv.Close()
		_, err = webtransport.Dial(w.Context(), w.tr, site, nil)
		var se *webtransport.StatusError
		require.ErrorAs(w, err, &se)
		require.Equal(w, 500, se.StatusCode)
		require.ErrorContains(w, <-failed, "ConfigureServer was not called")
	})
}

func TestOtherExtensionsStay(t *testing.T) {
	simulate(t, func(w *world) {
		got := make(chan string, 2)
		ext := http3.Extensions{
			Settings: map[uint64]uint64{0x1234: 5},
			UniStreams: map[uint64]func(*http3.Conn, transport.ReceiveStream){0x77: func(_ *http3.Conn, s transport.ReceiveStream) {
				b, _ := io.ReadAll(s)
				got <- string(b)
			}},
			NewConn:         func(c *http3.Conn) { c.SetValue("mine", "value") },
			ExtendedConnect: func(c *http3.Conn, r *http.Request) error { got <- c.Value("mine").(string); return nil },
		}
		w.tr.Extensions = ext
		w.serveWith(&http3.Server{Extensions: ext}, nil, nil)
		c, s := w.dial(nil)
		require.Equal(w, "value", <-got)
		require.Equal(w, "value", s.Conn().Value("mine"))
		st, err := s.Conn().Settings(w.Context())
		require.NoError(w, err)
		require.EqualValues(w, 5, st.Other[0x1234])
		u, err := c.Conn().Transport().OpenUniStream(w.Context())
		require.NoError(w, err)
		_, err = u.WriteLast(cat(varints(0x77), []byte("hello")))
		require.NoError(w, err)
		require.Equal(w, "hello", <-got)
		require.NoError(w, c.Close())
	})
}
