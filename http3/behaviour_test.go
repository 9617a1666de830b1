package http3_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A behaviour is what a user of net/http counts on: the same on every version of
// HTTP.
type behaviour struct {
	name string
	f    func(l *lab)
}

// messageBehaviours are about what is sent and what arrives; lifeBehaviours, in
// another file, about when things end.
var messageBehaviours = []behaviour{
	{"a request has method, target, host and protocol", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Host, r.Proto)
		})
		resp, body := l.do(l.request("DELETE", "/a%20b/c?d=e&f=%2F", nil))
		require.Equal(l, "DELETE /a%20b/c?d=e&f=%2F /a b/c d=e&f=%2F localhost "+l.proto, body)
		require.Equal(l, l.proto, resp.Proto)
		require.Equal(l, "200 OK", resp.Status)
	}},
	{"a request knows the client's address and TLS", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprint(w, host, err, r.TLS.HandshakeComplete, r.TLS.ServerName, r.Context().Value(http.LocalAddrContextKey))
		})
		resp, body := l.get("/")
		require.Equal(l, "198.51.100.1<nil>truelocalhost"+serverAddr, strings.ReplaceAll(body, " ", ""))
		require.True(l, resp.TLS.HandshakeComplete)
	}},
	{"both sides know the protocol that was negotiated", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.TLS.NegotiatedProtocol, r.ProtoMajor, r.ProtoMinor)
		})
		resp, body := l.get("/")
		want := map[string]string{"HTTP/1.1": "http/1.11 1", "HTTP/2.0": "h22 0", "HTTP/3.0": "h33 0"}[l.proto]
		require.Equal(l, want, body)
		require.Equal(l, want, fmt.Sprint(resp.TLS.NegotiatedProtocol, resp.ProtoMajor, resp.ProtoMinor))
		require.NotEmpty(l, resp.TLS.PeerCertificates)
	}},
	{"a GET has no body", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := r.Body.Read(make([]byte, 1))
			fmt.Fprint(w, l.noBody(r.Body), r.ContentLength, err)
		})
		_, body := l.get("/")
		if l.engine != nil && body != "true 0 EOF" {
			// The end of the stream may have a packet of its own, behind the header.
			require.Equal(l, "false -1 EOF", body)
			return
		}
		require.Equal(l, "true 0 EOF", body)
	}},
	{"an empty POST has no body", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, l.noBody(r.Body), r.ContentLength, r.Header["Content-Length"])
		})
		_, body := l.do(l.request("POST", "/", nil))
		require.Equal(l, "true 0 [0]", body)
	}},
	{"a body with a length arrives with it", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			fmt.Fprint(w, string(b), r.ContentLength, err)
		})
		_, body := l.do(l.request("POST", "/", strings.NewReader("hello")))
		require.Equal(l, "hello5 <nil>", body)
	}},
	{"a body without a length arrives without", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			fmt.Fprint(w, string(b), r.ContentLength, err)
		})
		_, body := l.do(l.request("POST", "/", io.MultiReader(strings.NewReader("hel"), strings.NewReader("lo"))))
		require.Equal(l, "hello-1 <nil>", body)
	}},
	{"large bodies go both ways", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err == nil {
				_, _ = w.Write(b)
			}
		})
		sent := make([]byte, 3<<20)
		rand.Read(sent)
		resp, body := l.do(l.request("POST", "/", bytes.NewReader(sent)))
		require.True(l, body == string(sent))
		require.EqualValues(l, -1, resp.ContentLength)
	}},
	{"many small reads and writes add up", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			var one [1]byte
			for range 5000 {
				_, err := io.ReadFull(r.Body, one[:])
				require.NoError(l, err)
			}
			n, err := r.Body.Read(one[:])
			require.Zero(l, n)
			require.ErrorIs(l, err, io.EOF)
			for range 5000 {
				_, err := w.Write([]byte("x"))
				require.NoError(l, err)
			}
		})
		_, body := l.do(l.request("POST", "/", strings.NewReader(strings.Repeat("y", 5000))))
		require.Equal(l, strings.Repeat("x", 5000), body)
	}},
	{"a HEAD response has the length and no body", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1234")
			n, err := io.WriteString(w, "hello")
			require.Equal(l, 5, n)
			require.NoError(l, err)
		})
		resp, body := l.do(l.request("HEAD", "/", nil))
		require.Empty(l, body)
		require.EqualValues(l, 1234, resp.ContentLength)
		require.True(l, l.noBody(resp.Body))
	}},
	{"the length of a HEAD response is counted", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		resp, _ := l.do(l.request("HEAD", "/", nil))
		require.EqualValues(l, 5, resp.ContentLength)
	}},
	{"the length of a HEAD response that was not written is not known", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		resp, _ := l.do(l.request("HEAD", "/", nil))
		require.EqualValues(l, -1, resp.ContentLength)
	}},
	{"204 and 304 have no body", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(status)
			_, err := w.Write([]byte("x"))
			require.ErrorIs(l, err, http.ErrBodyNotAllowed)
		})
		for _, status := range []int{204, 304} {
			resp, body := l.get(fmt.Sprint("/", status))
			require.Equal(l, status, resp.StatusCode)
			require.Empty(l, body)
			require.Empty(l, resp.Header["Content-Type"])
		}
	}},
	{"a small response gets its length", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		resp, _ := l.get("/")
		require.EqualValues(l, 5, resp.ContentLength)
		require.Equal(l, "5", resp.Header.Get("Content-Length"))
	}},
	{"an empty response has length 0", func(l *lab) {
		l.serve(func(http.ResponseWriter, *http.Request) {})
		resp, body := l.get("/")
		require.Equal(l, 200, resp.StatusCode)
		require.Zero(l, resp.ContentLength)
		require.Empty(l, body)
	}},
	{"a flushed response has no length", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			io.WriteString(w, "lo")
		})
		resp, body := l.get("/")
		require.EqualValues(l, -1, resp.ContentLength)
		require.Equal(l, "hello", body)
	}},
	{"the type of content is detected", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<html>"+strings.Repeat("x", 100_000))
		})
		resp, _ := l.get("/")
		require.Equal(l, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	}},
	{"a type that is set is kept", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "a/b")
			io.WriteString(w, "<html>")
		})
		resp, _ := l.get("/")
		require.Equal(l, "a/b", resp.Header.Get("Content-Type"))
	}},
	{"a type that is nil is not detected", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		})
		resp, _ := l.get("/")
		require.NotContains(l, resp.Header, "Content-Type")
	}},
	{"a response has a date", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		resp, _ := l.get("/")
		d, err := http.ParseTime(resp.Header.Get("Date"))
		require.NoError(l, err)
		require.WithinDuration(l, time.Now(), d, time.Second)
	}},
	{"fields keep their values in order", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["X-Out"] = r.Header["X-In"]
		})
		req := l.request("GET", "/", nil)
		req.Header["X-In"] = []string{"c", "a", "b", ""}
		resp, _ := l.do(req)
		require.Equal(l, []string{"c", "a", "b", ""}, resp.Header["X-Out"])
	}},
	{"cookies come together", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "x", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "y", Value: "2"})
			fmt.Fprint(w, r.Header.Get("Cookie"), len(r.Cookies()))
		})
		req := l.request("GET", "/", nil)
		req.AddCookie(&http.Cookie{Name: "a", Value: "b"})
		req.AddCookie(&http.Cookie{Name: "c", Value: "d"})
		resp, body := l.do(req)
		require.Equal(l, "a=b; c=d2", body)
		require.Len(l, resp.Cookies(), 2)
	}},
	{"a large header arrives", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Out", r.Header.Get("X-In")) })
		req := l.request("GET", "/", nil)
		req.Header.Set("X-In", strings.Repeat("a", 200_000))
		resp, _ := l.do(req)
		require.Len(l, resp.Header.Get("X-Out"), 200_000)
	}},
	{"a header over the server's limit is refused", func(l *lab) {
		l.server.maxHeaderBytes = 10_000
		l.serve(func(http.ResponseWriter, *http.Request) { l.Error("the handler was called") })
		req := l.request("GET", "/", nil)
		req.Header.Set("X-In", strings.Repeat("a", 100_000))
		resp, err := l.http.Do(req)
		if err != nil { // a client that knows the limit need not ask
			require.NotEqual(l, "HTTP/1.1", l.proto)
			return
		}
		require.Equal(l, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
		resp.Body.Close()
	}},
	{"a header over the client's limit is an error", func(l *lab) {
		l.client.maxHeaderBytes = 10_000
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Out", strings.Repeat("a", 100_000))
		})
		_, err := l.http.Do(l.request("GET", "/", nil))
		require.Error(l, err)
	}},
	{"trailers that are declared arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum, X-Other")
			io.WriteString(w, "hello")
			w.Header().Set("X-Sum", "42")
			w.Header().Set("X-Undeclared", "43")
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		require.Equal(l, http.Header{"X-Sum": nil, "X-Other": nil}, resp.Trailer)
		require.Equal(l, "hello", l.body(resp))
		require.Equal(l, "42", resp.Trailer.Get("X-Sum"))
		require.Empty(l, resp.Trailer.Get("X-Undeclared"))
		require.NotContains(l, resp.Header, "X-Sum")
	}},
	{"trailers with a prefix arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		require.Equal(l, http.Header{"X-Sum": {"42"}}, resp.Trailer)
	}},
	{"a request's trailers arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			before := fmt.Sprint(r.Trailer)
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, before, r.Trailer)
		})
		req := l.request("POST", "/", io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Sum": nil}
		req.Body = &atEOF{req.Body, func() { req.Trailer["X-Sum"] = []string{"42"} }}
		_, body := l.do(req)
		require.Equal(l, "map[X-Sum:[]]map[X-Sum:[42]]", body)
	}},
	{"103 arrives before the response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Link", "</b.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			io.WriteString(w, "hello")
		})
		var links []string
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				links = append(links, fmt.Sprint(code, h.Get("Link")))
				return nil
			},
		})
		resp, body := l.do(l.request("GET", "/", nil).WithContext(ctx))
		require.Equal(l, "hello", body)
		require.Empty(l, resp.Header["Link"])
		require.Equal(l, []string{"103</a.css>; rel=preload", "103</b.css>; rel=preload"}, links)
	}},
	{"100-continue: the body waits for the handler's Read", func(l *lab) {
		l.client.expectContinue = time.Hour
		var asked, read time.Time
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			asked = time.Now()
			io.Copy(w, r.Body)
		})
		req := l.request("POST", "/", &onRead{strings.NewReader("hello"), func() {
			if read.IsZero() {
				read = time.Now()
			}
		}})
		req.ContentLength = 5
		req.Header.Set("Expect", "100-continue")
		_, body := l.do(req)
		require.Equal(l, "hello", body)
		require.False(l, read.Before(asked))
	}},
	{"100-continue: a refusal saves the body", func(l *lab) {
		l.client.expectContinue = time.Hour
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		})
		req := l.request("POST", "/", &onRead{strings.NewReader("hello"), func() { l.Error("the body was read") }})
		req.ContentLength = 5
		req.Header.Set("Expect", "100-continue")
		resp, _ := l.do(req)
		require.Equal(l, http.StatusRequestEntityTooLarge, resp.StatusCode)
	}},
	{"100-continue: the body does not wait for ever", func(l *lab) {
		l.client.expectContinue = time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			io.Copy(w, r.Body)
		})
		req := l.request("POST", "/", strings.NewReader("hello"))
		req.Header.Set("Expect", "100-continue")
		_, body := l.do(req)
		require.Equal(l, "hello", body)
	}},
	{"an unknown expectation fails", func(l *lab) {
		l.serve(func(http.ResponseWriter, *http.Request) {
			if l.proto != "HTTP/2.0" {
				l.Error("the handler was called")
			}
		})
		req := l.request("GET", "/", nil)
		req.Header.Set("Expect", "miracles")
		resp, _ := l.do(req)
		if l.proto != "HTTP/2.0" { // whose server does not look
			require.Equal(l, http.StatusExpectationFailed, resp.StatusCode)
		}
	}},
	{"a panic ends the request and nothing else", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic(http.ErrAbortHandler)
			}
		})
		_, err := l.http.Do(l.request("POST", "/panic", nil))
		require.Error(l, err)
		resp, _ := l.get("/")
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"a panic in the middle of a response cuts it off", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			synctest.Wait()
			panic(http.ErrAbortHandler)
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		require.Error(l, err)
	}},
	{"an invalid status is a panic", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.Panics(l, func() { w.WriteHeader(42) })
			w.WriteHeader(222)
		})
		resp, _ := l.get("/")
		require.Equal(l, 222, resp.StatusCode)
	}},
	{"a second status is ignored", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			w.Header().Set("X-Late", "1")
			w.WriteHeader(http.StatusAccepted)
		})
		resp, _ := l.get("/")
		require.Equal(l, 201, resp.StatusCode)
		require.NotContains(l, resp.Header, "X-Late")
		if l.proto != "HTTP/2.0" { // which says nothing
			require.Contains(l, l.log.String(), "superfluous")
		}
	}},
}

func TestHTTPBehavesAsItDoes(t *testing.T) {
	all := slices.Concat(messageBehaviours, fieldBehaviours, clientBehaviours, lifeBehaviours, limitBehaviours, toolBehaviours)
	ran := make(map[string]int) // by stack
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) {
			versions(t, func(l *lab) {
				ran[l.stack.String()]++
				b.f(l)
			})
		})
	}
	names := make([]string, 0, len(ran))
	cases := 0
	for _, s := range stacks() {
		if n := ran[s.String()]; n > 0 {
			names = append(names, s.String())
			cases += n
		}
	}
	require.GreaterOrEqual(t, len(all), 80)
	t.Logf("%d behaviours on %d stacks (%s): %d cases", len(all), len(names), strings.Join(names, ", "), cases)
}

// noBody reports whether b says that there is nothing to read. HTTP/2 has a type
// of its own for that.
func (l *lab) noBody(b io.ReadCloser) bool { return b == http.NoBody || l.proto == "HTTP/2.0" }

// gone waits until the client has gone, and for what it does on its way: an HTTP/1.1
// handler that returned at once could still complete the response.
func gone(r *http.Request) {
	<-r.Context().Done()
	time.Sleep(time.Second) // of virtual time
}

// atEOF calls f before io.EOF is returned.
type atEOF struct {
	io.ReadCloser
	f func()
}

func (r *atEOF) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		r.f()
	}
	return n, err
}

type onRead struct {
	io.Reader
	f func()
}

func (r *onRead) Read(p []byte) (int, error) {
	r.f()
	return r.Reader.Read(p)
}

type onClose struct {
	io.Reader
	f func()
}

func (r *onClose) Close() error {
	r.f()
	return nil
}

type errReader struct {
	err   error
	after <-chan struct{}
}

func (r errReader) Read([]byte) (int, error) {
	<-r.after
	return 0, r.err
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
