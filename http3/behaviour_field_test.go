package http3_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	neturl "net/url"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// fieldBehaviours are about targets and header fields.
var fieldBehaviours = []behaviour{
	{"a target arrives as it was written", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s %s", r.RequestURI, r.URL.Path, r.URL.RawPath, r.URL.RawQuery)
		})
		for target, want := range map[string]string{
			"":              "/ /  ",
			"?a=b":          "/?a=b /  a=b",
			"//a":           "//a //a  ",
			"/a//b/../c/":   "/a//b/../c/ /a//b/../c/  ",
			"/%2F%2f":       "/%2F%2f /// /%2F%2f ",
			"/a;b=c":        "/a;b=c /a;b=c  ",
			"/a?":           "/a? /a  ",
			"/?a;b&c=%20+d": "/?a;b&c=%20+d /  a;b&c=%20+d",
			"/ä":            "/%C3%A4 /ä  ",
			"/a#b":          "/a /a  ",
			"/a*(b)!":       "/a*(b)! /a*(b)! /a*(b)! ",
			"/?ä=%zz":       "/?ä=%zz /  ä=%zz",
		} {
			_, body := l.get(target)
			require.Equal(l, want, body, target)
		}
	}},
	{"a long target arrives", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.URL.Path), len(r.URL.RawQuery)) })
		_, body := l.get("/" + strings.Repeat("a", 99_999) + "?" + strings.Repeat("b", 100_000))
		require.Equal(l, "100000 100000", body)
	}},
	{"an opaque URL is a target", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.URL.EscapedPath(), r.URL.RawQuery, r.Host)
		})
		for _, opaque := range []string{"//localhost/a%2Fb", "/a%2Fb"} {
			req := l.request("GET", "/", nil)
			req.URL = &neturl.URL{Scheme: "https", Host: authority, Opaque: opaque, RawQuery: "c=d"}
			_, body := l.do(req)
			require.Equal(l, "/a%2Fbc=dlocalhost", body)
		}
	}},
	{"a host arrives as it was given", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
		for _, host := range []string{"[2001:db8::1]:443", "192.0.2.1", "Example.ORG", "sub_domain.example.org:8443", "xn--bcher-kva.example"} {
			req := l.request("GET", "/", nil)
			req.Host = host
			_, body := l.do(req)
			require.Equal(l, host, body)
		}
	}},
	{"a Host in the header does not count", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.Header["Host"]) })
		req := l.request("GET", "/", nil)
		req.Header.Set("Host", "example.org")
		_, body := l.do(req)
		require.Equal(l, "localhost[]", body)
	}},
	{"cookies in several fields arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Cookies()) })
		req := l.request("GET", "/", nil)
		req.Header["Cookie"] = []string{"a=1; b=2", "c=3"}
		_, body := l.do(req)
		require.Equal(l, "[a=1 b=2 c=3]", body) // RFC 9114, Section 4.2.1
	}},
	{"any method arrives", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Method", r.Method) })
		for _, method := range []string{"PURGE", "M-SEARCH", "get", "PATCH", "TRACE", "OPTIONS"} {
			resp, _ := l.do(l.request(method, "/", nil))
			require.Equal(l, method, resp.Header.Get("X-Method"))
		}
		req := l.request("GET", "/", nil)
		req.Method = ""
		resp, _ := l.do(req)
		require.Equal(l, "GET", resp.Header.Get("X-Method"))
	}},
	{"names are canonical", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.Equal(l, []string{"1"}, r.Header["X-Lower"])
			w.Header()["x-answer"] = []string{"2"}
		})
		req := l.request("GET", "/", nil)
		req.Header["x-lower"] = []string{"1"}
		resp, _ := l.do(req)
		require.Equal(l, []string{"2"}, resp.Header["X-Answer"])
	}},
	{"text that is not ASCII arrives", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Out", r.Header.Get("X-In")) })
		req := l.request("GET", "/", nil)
		req.Header.Set("X-In", "ü \t\x80\xff\"")
		resp, _ := l.do(req)
		require.Equal(l, "ü \t\x80\xff\"", resp.Header.Get("X-Out"))
	}},
	{"space around a value is not sent", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if l.proto != "HTTP/2.0" { // whose client sends it
				require.Equal(l, []string{"a b"}, r.Header["X-In"])
			}
			w.Header().Set("X-Out", "\tc ")
		})
		req := l.request("GET", "/", nil)
		req.Header.Set("X-In", " a b\t")
		resp, _ := l.do(req)
		if l.proto != "HTTP/2.0" {
			require.Equal(l, []string{"c"}, resp.Header["X-Out"]) // RFC 9114, Section 10.3
		}
	}},
	{"many fields arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			for k, v := range r.Header {
				if strings.HasPrefix(k, "X-") {
					w.Header()[k] = v
				}
			}
		})
		req := l.request("GET", "/", nil)
		for i := range 1000 {
			req.Header.Set(fmt.Sprint("X-", i), fmt.Sprint(i, " of many"))
		}
		resp, _ := l.do(req)
		for i := range 1000 {
			require.Equal(l, fmt.Sprint(i, " of many"), resp.Header.Get(fmt.Sprint("X-", i)))
		}
	}},
	{"fields that come again and again stay what they are", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["X-Always"] = r.Header["X-Always"]
			w.Header()["X-New"] = r.Header["X-New"]
			w.Header()["X-Both"] = append(r.Header["X-New"], r.Header["X-Always"]...)
		})
		for i := range 200 {
			value := strings.Repeat(fmt.Sprint(i, " "), i%20+1) + "."
			req := l.request("GET", "/", nil)
			req.Header.Set("X-Always", "the same value")
			req.Header.Set("X-New", value)
			resp, _ := l.do(req)
			require.Equal(l, "the same value", resp.Header.Get("X-Always"))
			require.Equal(l, value, resp.Header.Get("X-New"))
			require.Equal(l, []string{value, "the same value"}, resp.Header["X-Both"])
		}
	}},
	{"a handler cannot split a response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Out", "a\r\nX-Evil: 1\r\n\r\nevil")
			w.Header().Set("X Y\r\nX-Evil", "1")
			io.WriteString(w, "fine")
		})
		resp, body := l.get("/")
		require.Equal(l, "fine", body)
		require.NotContains(l, resp.Header, "X-Evil")
	}},
	{"Date can be left out", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { w.Header()["Date"] = nil })
		resp, _ := l.get("/")
		require.NotContains(l, resp.Header, "Date")
	}},
	{"the type of an encoded body is not detected", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "<html>")
		})
		resp, _ := l.get("/")
		require.NotContains(l, resp.Header, "Content-Type")
	}},
	{"the type of no body is not detected", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		resp, _ := l.get("/")
		require.NotContains(l, resp.Header, "Content-Type")
	}},
	{"the type is detected from several writes", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			for _, s := range []string{"<!DOC", "TYPE ", "html>"} {
				io.WriteString(w, s)
			}
		})
		resp, _ := l.get("/")
		require.Equal(l, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	}},
	{"a response with a declared length can be streamed", func(l *lab) {
		next := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			<-next
			io.WriteString(w, "world")
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		require.EqualValues(l, 10, resp.ContentLength)
		_, err = io.ReadFull(resp.Body, make([]byte, 5))
		require.NoError(l, err)
		close(next)
		require.Equal(l, "world", l.body(resp))
	}},
	{"a Content-Length that is none is not sent", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "a lot")
			io.WriteString(w, "hello")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		require.NotEqual(l, "a lot", resp.Header.Get("Content-Length"))
	}},
	{"a HEAD response can be flushed", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			err := http.NewResponseController(w).Flush()
			_, err2 := w.Write(make([]byte, 100_000))
			if l.proto != "HTTP/2.0" { // which says "short write"
				require.NoError(l, errors.Join(err, err2))
			}
		})
		resp, body := l.do(l.request("HEAD", "/", nil))
		require.Empty(l, body)
		require.Equal(l, "text/plain; charset=utf-8", resp.Header.Get("Content-Type"))
	}},
	{"a response without a body has trailers", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusOK)
			w.Header().Set("X-Sum", "0")
		})
		resp, body := l.get("/")
		require.Empty(l, body)
		require.Equal(l, http.Header{"X-Sum": {"0"}}, resp.Trailer)
	}},
	{"a trailer that would change the message is not sent", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"Content-Length", "1")
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		if l.proto != "HTTP/1.1" { // whose server sends it
			require.NotContains(l, resp.Trailer, "Content-Length") // RFC 9110, Section 6.5.1
		}
		require.Equal(l, "42", resp.Trailer.Get("X-Sum"))
	}},
	{"a request of any size has trailers", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err, r.Trailer.Get("X-Sum"))
		})
		for _, size := range []int{0, 1, 1 << 20} {
			// Of an unknown length, which HTTP/1.1 must have to send trailers.
			req := l.request("POST", "/", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
			req.Trailer = http.Header{"X-Sum": {fmt.Sprint("sum of ", size)}}
			_, body := l.do(req)
			require.Equal(l, fmt.Sprint(int64(size), error(nil), "sum of ", size), body)
		}
	}},
	{"the fields of a 103 stay for the response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-More", "1")
			io.WriteString(w, "hello")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		require.Equal(l, 200, resp.StatusCode)
		require.Equal(l, "</a.css>; rel=preload", resp.Header.Get("Link"))
		require.Equal(l, "1", resp.Header.Get("X-More"))
	}},
	{"a 103 arrives at once", func(l *lab) {
		hinted := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			<-hinted
		})
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error {
				close(hinted)
				return nil
			},
		})
		resp, _ := l.do(l.request("GET", "/", nil).WithContext(ctx))
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"a client need not accept a 103", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			time.Sleep(time.Second)
		})
		no := errors.New("no hints")
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { return no },
		})
		_, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		require.ErrorContains(l, err, "no hints")
		if l.proto != "HTTP/2.0" { // which has it in a text
			require.ErrorIs(l, err, no)
		}
	}},
	{"a panic after a 103 is no response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			panic(http.ErrAbortHandler)
		})
		_, err := l.http.Do(l.request("POST", "/", nil))
		require.Error(l, err)
	}},
	{"an Upgrade is for HTTP/1.1 alone", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Header.Get("Upgrade"), r.Header.Get("Connection"))
		})
		l.get("/")
		req := l.request("GET", "/", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		resp, err := l.http.Do(req)
		switch l.proto {
		case "HTTP/1.1":
			require.NoError(l, err)
			require.Equal(l, "websocketUpgrade", l.body(resp))
		case "HTTP/2.0": // net/http refuses it
			require.Error(l, err)
		default: // RFC 9114, Section 4.2: connection-specific fields are not sent
			require.NoError(l, err)
			require.Empty(l, l.body(resp))
		}
	}},
}
