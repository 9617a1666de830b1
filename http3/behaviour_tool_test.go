package http3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"strings"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	changed = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	files   = fstest.MapFS{
		"index.html":  {Data: []byte("<h1>hello</h1>"), ModTime: changed},
		"a/b.css":     {Data: []byte("b{}"), ModTime: changed},
		"a/large.bin": {Data: bytes.Repeat([]byte("0123456789"), 100_000), ModTime: changed},
	}
)

// toolBehaviours are about what net/http has for handlers and clients, and what is
// built from that.
var toolBehaviours = []behaviour{
	{"FileServer serves files and folders", func(l *lab) {
		l.serve(http.FileServerFS(files).ServeHTTP)
		resp, body := l.get("/")
		require.Equal(l, "<h1>hello</h1>", body)
		require.EqualValues(l, len(body), resp.ContentLength)
		require.Equal(l, changed.Format(http.TimeFormat), resp.Header.Get("Last-Modified"))
		resp, _ = l.get("/a/b.css")
		require.Equal(l, "text/css; charset=utf-8", resp.Header.Get("Content-Type"))
		resp, body = l.get("/a") // and a redirect
		require.Equal(l, "/a/", resp.Request.URL.Path)
		require.Contains(l, body, `<a href="b.css">`)
		resp, body = l.get("/a/large.bin")
		require.EqualValues(l, 1_000_000, resp.ContentLength)
		require.True(l, body == string(files["a/large.bin"].Data))
		resp, _ = l.do(l.request("HEAD", "/a/large.bin", nil))
		require.EqualValues(l, 1_000_000, resp.ContentLength)
		resp, body = l.get("/none")
		require.Equal(l, http.StatusNotFound, resp.StatusCode)
		require.Equal(l, "404 page not found\n", body)
	}},
	{"FileServer tells what has not changed", func(l *lab) {
		l.serve(http.FileServerFS(files).ServeHTTP)
		for since, status := range map[time.Time]int{
			changed.Add(-time.Second): http.StatusOK, changed: http.StatusNotModified, changed.Add(time.Hour): http.StatusNotModified,
		} {
			req := l.request("GET", "/a/b.css", nil)
			req.Header.Set("If-Modified-Since", since.Format(http.TimeFormat))
			resp, body := l.do(req)
			require.Equal(l, status, resp.StatusCode)
			require.Equal(l, status == http.StatusOK, body == "b{}")
			require.NotEmpty(l, resp.Header.Get("Last-Modified"))
		}
	}},
	{"ServeContent compares ETags", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("0123456789"))
		})
		for _, tt := range []struct {
			field, value string
			status       int
		}{
			{"If-None-Match", `"0", "1"`, http.StatusNotModified},
			{"If-None-Match", `"0"`, http.StatusOK},
			{"If-Match", `"0"`, http.StatusPreconditionFailed},
		} {
			req := l.request("GET", "/", nil)
			req.Header.Set(tt.field, tt.value)
			resp, _ := l.do(req)
			require.Equal(l, tt.status, resp.StatusCode, tt)
			require.Equal(l, `"1"`, resp.Header.Get("ETag"))
		}
	}},
	{"ServeContent serves several ranges at once", func(l *lab) {
		l.serve(http.FileServerFS(files).ServeHTTP)
		req := l.request("GET", "/a/large.bin", nil)
		req.Header.Set("Range", "bytes=0-9,500000-500004,-3")
		resp, body := l.do(req)
		require.Equal(l, http.StatusPartialContent, resp.StatusCode)
		require.EqualValues(l, len(body), resp.ContentLength)
		typ, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		require.NoError(l, err)
		require.Equal(l, "multipart/byteranges", typ)
		parts := multipart.NewReader(strings.NewReader(body), params["boundary"])
		for _, want := range []string{"0123456789", "01234", "789"} {
			p, err := parts.NextPart()
			require.NoError(l, err)
			b, err := io.ReadAll(p)
			require.NoError(l, err)
			require.Equal(l, want, string(b))
		}
		_, err = parts.NextPart()
		require.ErrorIs(l, err, io.EOF)
	}},
	{"ServeContent refuses ranges that are not there", func(l *lab) {
		l.serve(http.FileServerFS(files).ServeHTTP)
		req := l.request("GET", "/a/b.css", nil)
		req.Header.Set("Range", "bytes=3-")
		resp, _ := l.do(req)
		require.Equal(l, http.StatusRequestedRangeNotSatisfiable, resp.StatusCode)
		require.Equal(l, "bytes */3", resp.Header.Get("Content-Range"))
	}},
	{"ServeMux matches methods, hosts and wildcards", func(l *lab) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /item/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "item ", r.PathValue("id"), r.Pattern) })
		mux.HandleFunc("POST localhost/item/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "new") })
		mux.HandleFunc("/rest/{path...}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("path")) })
		l.serve(mux.ServeHTTP)
		_, body := l.get("/item/a%2Fb")
		require.Equal(l, "item a/bGET /item/{id}", body)
		_, body = l.do(l.request("POST", "/item/", nil))
		require.Equal(l, "new", body)
		_, body = l.get("/rest/x/../y//z")
		require.Equal(l, "y/z", body, "after a redirect")
		resp, _ := l.do(l.request("DELETE", "/item/1", nil))
		require.Equal(l, http.StatusMethodNotAllowed, resp.StatusCode)
		require.Equal(l, "GET, HEAD, POST", resp.Header.Get("Allow"))
		resp, _ = l.get("/nothing")
		require.Equal(l, http.StatusNotFound, resp.StatusCode)
	}},
	{"forms and files arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/form" {
				require.NoError(l, r.ParseForm())
				fmt.Fprint(w, r.Form["a"], r.PostForm["a"])
				return
			}
			f, h, err := r.FormFile("file")
			require.NoError(l, err)
			defer f.Close()
			n, err := io.Copy(io.Discard, f)
			require.NoError(l, err)
			fmt.Fprint(w, r.FormValue("a"), h.Filename, n)
		})
		req := l.request("POST", "/form?a=1", strings.NewReader("a=2&b=%20"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		_, body := l.do(req)
		require.Equal(l, "[2 1] [2]", body)

		pr, pw := io.Pipe()
		mw := multipart.NewWriter(pw)
		go func() { // ends with the form
			mw.WriteField("a", "3")
			f, err := mw.CreateFormFile("file", "x.bin")
			if err == nil {
				f.Write(make([]byte, 1<<20))
			}
			pw.CloseWithError(errors.Join(err, mw.Close()))
		}()
		req = l.request("POST", "/", pr)
		req.Header.Set("Content-Type", mw.FormDataContentType())
		_, body = l.do(req)
		require.Equal(l, "3x.bin1048576", body)
	}},
	{"TimeoutHandler leaves a fast handler alone", func(l *lab) {
		l.serve(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Fast", "1")
			w.WriteHeader(http.StatusCreated)
			io.Copy(w, r.Body)
		}), time.Second, "slow").ServeHTTP)
		resp, body := l.do(l.request("POST", "/", strings.NewReader("hello")))
		require.Equal(l, http.StatusCreated, resp.StatusCode)
		require.Equal(l, "1", resp.Header.Get("X-Fast"))
		require.Equal(l, "hello", body)
	}},
	{"the client can be behind a ReverseProxy", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			w.Header().Set("X-From", r.Header.Get("X-Forwarded-For"))
			w.WriteHeader(http.StatusAccepted)
			io.Copy(w, r.Body)
			w.Header().Set("X-Sum", r.Host)
		})
		back, err := neturl.Parse(url)
		require.NoError(l, err)
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(back)
				r.SetXForwarded()
			},
			Transport:     l.http.Transport,
			FlushInterval: -1,
		}
		req := httptest.NewRequest(http.MethodPost, "http://front/a", strings.NewReader("hello"))
		req.Header.Set("Connection", "close")
		rec := httptest.NewRecorder()
		proxy.ServeHTTP(rec, req.WithContext(l.Context()))
		resp := rec.Result()
		require.Equal(l, http.StatusAccepted, resp.StatusCode)
		require.Equal(l, "192.0.2.1", resp.Header.Get("X-From"))
		require.Equal(l, "hello", rec.Body.String())
		require.Equal(l, http.Header{"X-Sum": {"localhost"}}, resp.Trailer)
	}},
	{"a ReverseProxy whose client goes away cancels", func(l *lab) {
		started, ended := make(chan struct{}), make(chan struct{})
		p := &httputil.ReverseProxy{
			Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(&neturl.URL{Scheme: "http", Host: "back"}) },
			ErrorLog: log.New(&l.log, "", 0),
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				close(started)
				gone(r)
				close(ended)
				return nil, r.Context().Err()
			}),
		}
		l.serve(p.ServeHTTP)
		l.http.Timeout = time.Second
		_, err := l.http.Do(l.request("GET", "/", nil))
		require.Error(l, err)
		<-started
		<-ended
	}},
	{"io.Copy copies whatever the reader", func(l *lab) {
		data := bytes.Repeat([]byte("0123456789"), 20_000)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); l.proto != "HTTP/2.0" {
				require.NoError(l, err)
			}
			io.WriteString(w, "<")
			for _, src := range []io.Reader{
				bytes.NewReader(data),                               // an io.WriterTo
				io.LimitReader(bytes.NewReader(data), 1<<30),        // what net/http looks into
				struct{ io.Reader }{bytes.NewReader(data)},          // a plain reader
				io.MultiReader(r.Body, strings.NewReader(">\nend")), // the request
			} {
				_, err := io.Copy(w, src)
				require.NoError(l, err)
			}
		})
		_, body := l.do(l.request("POST", "/", bytes.NewReader(data)))
		require.True(l, body == "<"+strings.Repeat(string(data), 4)+">\nend")
	}},
	{"a ResponseController finds what middleware wraps", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(wrapper{wrapper{w}})
			require.NoError(l, rc.SetReadDeadline(time.Now().Add(time.Minute)))
			require.NoError(l, rc.SetWriteDeadline(time.Now().Add(time.Minute)))
			io.WriteString(w, "hello")
			require.NoError(l, rc.Flush())
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		require.EqualValues(l, -1, resp.ContentLength, "it was flushed")
	}},
	{"CrossOriginProtection knows the origin", func(l *lab) {
		l.serve(http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP)
		for origin, status := range map[string]int{"": 200, url: 200, "https://evil.example": 403} {
			req := l.request("POST", "/", nil)
			if origin != "" {
				req.Header.Set("Origin", origin)
			}
			resp, _ := l.do(req)
			require.Equal(l, status, resp.StatusCode, origin)
		}
	}},
	{"requests and responses can be dumped", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := httputil.DumpRequest(r, true)
			require.NoError(l, err)
			require.Contains(l, string(b), "POST /a?b "+l.proto)
			require.Contains(l, string(b), "Host: localhost")
			require.True(l, strings.HasSuffix(strings.TrimRight(string(b), "0\r\n"), "hello"), string(b))
			io.Copy(w, r.Body) // which is still there
		})
		resp, err := l.http.Do(l.request("POST", "/a?b", strings.NewReader("hello")))
		require.NoError(l, err)
		b, err := httputil.DumpResponse(resp, true)
		require.NoError(l, err)
		require.Contains(l, string(b), l.proto+" 200 OK")
		require.Equal(l, "hello", l.body(resp))
	}},
}
