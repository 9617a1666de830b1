package http3_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var lifeBehaviours = []behaviour{
	{"a client that cancels ends the handler's context", func(l *lab) {
		started, ended := make(chan struct{}), make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			gone(r)
			close(ended)
		})
		ctx, cancel := context.WithCancel(l.Context())
		go func() {
			<-started
			cancel()
		}()
		_, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		require.ErrorIs(l, err, context.Canceled)
		<-ended
	}},
	{"a client's deadline ends the request", func(l *lab) {
		ended := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			gone(r)
			close(ended)
		})
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		require.ErrorIs(l, err, context.DeadlineExceeded)
		<-ended
	}},
	{"a client's deadline ends the reading of a response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			gone(r)
		})
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		resp, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		require.NoError(l, err)
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(l, err, context.DeadlineExceeded)
		resp.Body.Close()
	}},
	{"closing a response's body ends the handler's context and writes", func(l *lab) {
		ended := make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 10_000))
			}
			gone(r)
			ended <- err
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		_, err = io.ReadFull(resp.Body, make([]byte, 100))
		require.NoError(l, err)
		require.NoError(l, resp.Body.Close())
		require.Error(l, <-ended)
		_, err = resp.Body.Read(make([]byte, 1))
		require.Error(l, err)
	}},
	{"a response can come before the request is read", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
		resp, body := l.do(l.request("POST", "/", bytes.NewReader(make([]byte, 100_000))))
		require.Equal(l, http.StatusForbidden, resp.StatusCode)
		require.Equal(l, "no\n", body)
	}},
	{"a body must not be read when the handler has returned", func(l *lab) {
		bodies := make(chan io.ReadCloser, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) { bodies <- r.Body })
		l.do(l.request("POST", "/", strings.NewReader("hello")))
		synctest.Wait()
		n, err := (<-bodies).Read(make([]byte, 100))
		if l.proto != "HTTP/2.0" { // which gives what it has
			require.Error(l, err)
			require.Zero(l, n)
		}
	}},
	{"a body must not be read after its Close", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(l, r.Body.Close())
			_, err := r.Body.Read(make([]byte, 1))
			require.Error(l, err)
		})
		l.do(l.request("POST", "/", strings.NewReader("hello")))
	}},
	{"more than Content-Length is not written", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
			_, err := io.WriteString(w, "x")
			if l.proto != "HTTP/2.0" { // whose stream is reset, some time later
				require.ErrorIs(l, err, http.ErrContentLength)
			}
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		if l.proto != "HTTP/2.0" {
			require.NoError(l, err)
			require.Equal(l, "hello", l.body(resp))
		}
	}},
	{"less than Content-Length is an error", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			synctest.Wait()
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		require.Error(l, err)
	}},
	{"a request shorter than it said is an error", func(l *lab) {
		begun, ended := make(chan struct{}), make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			require.NoError(l, err)
			close(begun)
			_, err = io.ReadAll(r.Body)
			ended <- err
		})
		req := l.request("POST", "/", io.MultiReader(strings.NewReader("hello"), errReader{io.EOF, begun}))
		req.ContentLength = 10
		resp, err := l.http.Do(req)
		if err == nil { // HTTP/2: the handler may answer first
			require.Equal(l, "HTTP/2.0", l.proto)
			resp.Body.Close()
		}
		require.Error(l, <-ended)
	}},
	{"a request longer than it said is an error", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		l.get("/")
		req := l.request("POST", "/", io.MultiReader(strings.NewReader("hello")))
		req.ContentLength = 3
		resp, err := l.http.Do(req)
		if err == nil { // HTTP/1.1 and 2: the handler may answer first
			require.NotEqual(l, "HTTP/3.0", l.proto)
			resp.Body.Close()
		}
	}},
	{"an error of the body ends the request", func(l *lab) {
		broken := errors.New("broken")
		ended := make(chan error, 1)
		begun := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			require.NoError(l, err)
			close(begun)
			_, err = io.ReadAll(r.Body)
			ended <- err
		})
		_, err := l.http.Do(l.request("POST", "/", io.MultiReader(strings.NewReader("hello"), errReader{broken, begun})))
		require.ErrorIs(l, err, broken)
		require.Error(l, <-ended)
	}},
	{"the request's body is closed", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		closed := make(chan struct{})
		req := l.request("POST", "/", nil)
		req.Body = &onClose{strings.NewReader("hello"), sync.OnceFunc(func() { close(closed) })}
		l.do(req)
		<-closed
	}},
	{"gzip is asked for and decoded", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.Equal(l, "gzip", r.Header.Get("Accept-Encoding"))
			w.Header().Set("Content-Encoding", "gzip")
			zw := gzip.NewWriter(w)
			io.WriteString(zw, strings.Repeat("hello", 1000))
			zw.Close()
		})
		resp, body := l.get("/")
		require.Equal(l, strings.Repeat("hello", 1000), body)
		require.True(l, resp.Uncompressed)
		require.EqualValues(l, -1, resp.ContentLength)
		require.Empty(l, resp.Header.Get("Content-Encoding")+resp.Header.Get("Content-Length"))
	}},
	{"gzip that the user asked for is not decoded", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "raw")
		})
		req := l.request("GET", "/", nil)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, body := l.do(req)
		require.Equal(l, "raw", body)
		require.False(l, resp.Uncompressed)
	}},
	{"compression can be disabled", func(l *lab) {
		l.client.disableCompression = true
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["Accept-Encoding"]) })
		_, body := l.get("/")
		require.Equal(l, "[]", body)
	}},
	{"what is flushed arrives", func(l *lab) {
		next := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			for i := range 3 {
				fmt.Fprintln(w, i)
				require.NoError(l, http.NewResponseController(w).Flush())
				<-next
			}
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		r := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := r.ReadString('\n')
			require.NoError(l, err)
			require.Equal(l, fmt.Sprintln(i), line)
			next <- struct{}{}
		}
		l.body(resp)
	}},
	{"request and response can go on at once", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.EnableFullDuplex(); l.proto != "HTTP/2.0" {
				require.NoError(l, err)
			}
			require.NoError(l, rc.Flush())
			in := bufio.NewReader(r.Body)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, strings.ToUpper(line))
				rc.Flush()
			}
		})
		pr, pw := io.Pipe()
		resp, err := l.http.Do(l.request("POST", "/", pr))
		require.NoError(l, err)
		in := bufio.NewReader(resp.Body)
		for _, word := range []string{"a", "b", "c"} {
			io.WriteString(pw, word+"\n")
			line, err := in.ReadString('\n')
			require.NoError(l, err)
			require.Equal(l, strings.ToUpper(word)+"\n", line)
		}
		pw.Close()
		l.body(resp)
	}},
	{"a handler can bound its reads", func(l *lab) {
		ended := make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(l, http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second)))
			_, err := r.Body.Read(make([]byte, 1))
			ended <- err
		})
		pr, pw := io.Pipe()
		go func() {
			resp, err := l.http.Do(l.request("POST", "/", pr))
			if err == nil {
				resp.Body.Close()
			}
		}()
		require.ErrorIs(l, <-ended, os.ErrDeadlineExceeded)
		pw.Close()
		synctest.Wait()
	}},
	{"a handler can bound its writes", func(l *lab) {
		ended := make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(l, http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second)))
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 100_000))
			}
			ended <- err
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		defer resp.Body.Close()
		require.Error(l, <-ended)
	}},
	{"ReadTimeout bounds the request", func(l *lab) {
		l.server.read = time.Second
		ended := make(chan time.Duration, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			_, err := io.ReadAll(r.Body)
			require.Error(l, err)
			ended <- time.Since(start)
		})
		pr, pw := io.Pipe()
		go func() {
			resp, err := l.http.Do(l.request("POST", "/", pr))
			if err == nil {
				resp.Body.Close()
			}
		}()
		require.InDelta(l, time.Second, <-ended, float64(100*time.Millisecond))
		pw.Close()
		synctest.Wait()
	}},
	{"WriteTimeout bounds the response", func(l *lab) {
		l.server.write = time.Second
		ended := make(chan time.Duration, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			start := time.Now()
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 100_000))
			}
			ended <- time.Since(start)
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		defer resp.Body.Close()
		d := <-ended
		require.GreaterOrEqual(l, d, time.Second)
		require.LessOrEqual(l, d, 7*time.Second) // crypto/tls takes 5s to say goodbye
	}},
	{"a client can bound the wait for a response", func(l *lab) {
		l.client.responseHeader = time.Second
		done := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) { <-done })
		_, err := l.http.Do(l.request("GET", "/", nil))
		var ne net.Error
		require.ErrorAs(l, err, &ne)
		require.True(l, ne.Timeout())
		close(done)
	}},
	{"a hundred requests go on at once", func(l *lab) {
		var mu sync.Mutex
		n := 0
		all := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if n++; n == 100 {
				close(all)
			}
			mu.Unlock()
			<-all
			io.WriteString(w, r.URL.Path)
		})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				_, body := l.get(fmt.Sprint("/", i))
				require.Equal(l, fmt.Sprint("/", i), body)
			})
		}
		wg.Wait()
	}},
	{"five hundred requests wait for their turn", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				_, body := l.get(fmt.Sprint("/", i))
				require.Equal(l, fmt.Sprint("/", i), body)
			})
		}
		wg.Wait()
	}},
	{"Shutdown waits for the requests", func(l *lab) {
		started, finish := make(chan struct{}), make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			<-finish
			w.Write(make([]byte, 1<<20))
		})
		got := make(chan int, 1)
		go func() {
			_, body := l.get("/")
			got <- len(body)
		}()
		<-started
		down := make(chan error, 1)
		go func() { down <- l.shutdown(l.Context()) }()
		time.Sleep(time.Minute) // of virtual time
		require.Empty(l, down)
		close(finish)
		require.Equal(l, 1<<20, <-got)
		require.NoError(l, <-down)
		_, err := l.http.Do(l.request("GET", "/", nil))
		require.Error(l, err)
	}},
	{"Shutdown gives up with its context", func(l *lab) {
		started := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			gone(r)
		})
		go l.http.Do(l.request("GET", "/", nil))
		<-started
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		require.ErrorIs(l, l.shutdown(ctx), context.DeadlineExceeded)
		require.NoError(l, l.close())
		synctest.Wait()
	}},
	{"Close ends requests", func(l *lab) {
		started, ended := make(chan struct{}), make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			gone(r)
			close(ended)
		})
		failed := make(chan error, 1)
		go func() {
			_, err := l.http.Do(l.request("POST", "/", nil))
			failed <- err
		}()
		<-started
		require.NoError(l, l.close())
		<-ended
		require.Error(l, <-failed)
	}},
	{"idle connections can be closed, and come back", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })
		l.get("/")
		l.http.CloseIdleConnections()
		synctest.Wait()
		resp, _ := l.get("/")
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"an idle connection ends at the server", func(l *lab) {
		l.server.idle = time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		l.get("/")
		time.Sleep(time.Minute)
		resp, _ := l.get("/")
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"an idle connection ends at the client", func(l *lab) {
		l.client.idle = time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		l.get("/")
		time.Sleep(time.Minute)
		resp, _ := l.get("/")
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"a redirect sends the body again", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				http.Redirect(w, r, "/there", http.StatusTemporaryRedirect)
				return
			}
			io.Copy(w, r.Body)
		})
		_, body := l.do(l.request("POST", "/", strings.NewReader("hello")))
		require.Equal(l, "hello", body)
	}},
	{"Request.Host is what the server sees", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
		req := l.request("GET", "/", nil)
		req.Host = "example.org:8443"
		_, body := l.do(req)
		require.Equal(l, "example.org:8443", body)
	}},
	{"User-Agent has a default, which can be left out", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.Header["User-Agent"])) })
		_, body := l.get("/")
		require.Equal(l, "1", body)
		req := l.request("GET", "/", nil)
		req.Header.Set("User-Agent", "")
		_, body = l.do(req)
		require.Equal(l, "0", body)
	}},
	{"connection-specific fields stay behind", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "x-out")
			w.Header().Set("Keep-Alive", "1")
			io.WriteString(w, "hello")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		if l.proto != "HTTP/1.1" {
			require.NotContains(l, resp.Header, "Connection")
		}
	}},
	{"an invalid field is not sent", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { require.Equal(l, "/good", r.URL.Path) })
		l.get("/good")
		for _, h := range []http.Header{{"a b": {"x"}}, {"A": {"x\ny"}}, {"A\n": {"x"}}} {
			req := l.request("GET", "/", nil)
			req.Header = h
			_, err := l.http.Do(req)
			require.Error(l, err)
		}
	}},
	{"OPTIONS * is answered by the server", func(l *lab) {
		l.serve(func(http.ResponseWriter, *http.Request) { require.Fail(l, "the handler was asked") })
		req := l.request("OPTIONS", "/", nil)
		req.URL = &neturl.URL{Scheme: "https", Host: authority, Opaque: "*"}
		resp, body := l.do(req)
		require.Equal(l, 200, resp.StatusCode)
		require.Empty(l, body)
		require.Equal(l, "0", resp.Header.Get("Content-Length"))
	}},
	{"a host outside of ASCII is sent as DNS has it", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
		req := l.request("GET", "/", nil)
		req.Host = "bücher.example:8443"
		_, body := l.do(req)
		require.Equal(l, "xn--bcher-kva.example:8443", body)
	}},
	{"MaxBytesReader ends a body that is too long", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1000))
			var tooLong *http.MaxBytesError
			require.ErrorAs(l, err, &tooLong)
			http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		})
		resp, _ := l.do(l.request("POST", "/", bytes.NewReader(make([]byte, 2000))))
		require.Equal(l, http.StatusRequestEntityTooLarge, resp.StatusCode)
	}},
	{"ServeContent serves ranges", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("0123456789"))
		})
		req := l.request("GET", "/", nil)
		req.Header.Set("Range", "bytes=2-4")
		resp, body := l.do(req)
		require.Equal(l, "234", body)
		require.Equal(l, http.StatusPartialContent, resp.StatusCode)
		require.Equal(l, "bytes 2-4/10", resp.Header.Get("Content-Range"))
	}},
	{"TimeoutHandler answers for a slow handler", func(l *lab) {
		h := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			gone(r)
		}), time.Second, "slow")
		l.serve(h.ServeHTTP)
		resp, body := l.get("/")
		require.Equal(l, http.StatusServiceUnavailable, resp.StatusCode)
		require.Equal(l, "slow", body)
	}},
	{"a ReverseProxy can be the handler", func(l *lab) {
		back := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(r.Body)
			return &http.Response{StatusCode: http.StatusCreated, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
				Header: http.Header{"X-Path": {r.URL.Path}}, Body: io.NopCloser(bytes.NewReader(b)), ContentLength: -1}, err
		})}
		p := &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&neturl.URL{Scheme: "http", Host: "back"}) },
			Transport: back.Transport,
		}
		l.serve(p.ServeHTTP)
		resp, body := l.do(l.request("POST", "/a", strings.NewReader("hello")))
		require.Equal(l, "hello", body)
		require.Equal(l, 201, resp.StatusCode)
		require.Equal(l, "/a", resp.Header.Get("X-Path"))
	}},
	{"a client's trace sees the steps", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		var mu sync.Mutex
		var steps []string
		step := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, s)
		}
		trace := &httptrace.ClientTrace{
			GetConn:              func(string) { step("get") },
			GotConn:              func(i httptrace.GotConnInfo) { step(fmt.Sprint("got ", i.Conn.RemoteAddr(), i.Reused)) },
			WroteHeaders:         func() { step("headers") },
			WroteRequest:         func(httptrace.WroteRequestInfo) { step("request") },
			GotFirstResponseByte: func() { step("response") },
		}
		for _, reused := range []bool{false, true} {
			steps = nil
			l.do(l.request("GET", "/", nil).WithContext(httptrace.WithClientTrace(l.Context(), trace)))
			mu.Lock()
			if l.proto == "HTTP/2.0" && len(steps) > 2 {
				// net/http says what it has written when that may be answered already,
				// and another goroutine says that it is. Nothing orders the two.
				slices.Sort(steps[2:])
			}
			require.Equal(l, []string{"get", fmt.Sprint("got ", serverAddr, " ", reused), "headers", "request", "response"}, steps)
			mu.Unlock()
		}
	}},
}
