package http3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// limitBehaviours are about deadlines, limits and losses.
var limitBehaviours = []behaviour{
	{"many interim responses may come before the final one", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			for range 500 {
				w.WriteHeader(http.StatusEarlyHints)
			}
			io.WriteString(w, "at last")
		})
		_, body := l.get("/")
		require.Equal(l, "at last", body)
	}},
	{"interim responses that nobody looks at have the limit of one header", func(l *lab) {
		l.client.maxHeaderBytes = 20_000
		const many = 1000
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</"+strings.Repeat("a", 100)+".css>; rel=preload")
			for range many {
				w.WriteHeader(http.StatusEarlyHints)
			}
			io.WriteString(w, "at last")
		})
		_, err := l.http.Do(l.request("GET", "/", nil))
		require.Error(l, err)
		seen := 0
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error {
				seen++ // before the response is there
				return nil
			},
		})
		_, body := l.do(l.request("GET", "/", nil).WithContext(ctx))
		require.Equal(l, "at last", body)
		require.Equal(l, many, seen, "who looks at them decides")
	}},
	{"a read deadline can be moved", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			var b [1]byte
			for range 5 {
				require.NoError(l, rc.SetReadDeadline(time.Now().Add(2*time.Second)))
				_, err := io.ReadFull(r.Body, b[:])
				require.NoError(l, err)
			}
			require.NoError(l, rc.SetReadDeadline(time.Time{}))
			_, err := io.ReadFull(r.Body, b[:])
			require.NoError(l, err)
		})
		pr, pw := io.Pipe()
		go func() { // ends with the bytes
			for i := range 6 {
				time.Sleep(time.Second)
				if i == 5 {
					time.Sleep(time.Minute)
				}
				pw.Write([]byte("x"))
			}
			pw.Close()
		}()
		resp, _ := l.do(l.request("POST", "/", pr))
		require.Equal(l, 200, resp.StatusCode)
	}},
	{"a read deadline that passes leaves the response alone", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(l, http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second)))
			_, err := io.ReadAll(r.Body)
			require.ErrorIs(l, err, os.ErrDeadlineExceeded)
			http.Error(w, "too slow", http.StatusRequestTimeout)
		})
		pr, pw := io.Pipe()
		defer pw.Close()
		resp, err := l.http.Do(l.request("POST", "/", pr))
		require.NoError(l, err)
		require.Equal(l, http.StatusRequestTimeout, resp.StatusCode)
		require.Equal(l, "too slow\n", l.body(resp))
	}},
	{"a deadline in the past ends a Read that is under way", func(l *lab) {
		ended := make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			time.AfterFunc(time.Second, func() { http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })
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
	{"a handler can lift WriteTimeout", func(l *lab) {
		l.server.write = time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			require.NoError(l, rc.SetWriteDeadline(time.Time{}))
			for range 10 {
				time.Sleep(time.Second)
				io.WriteString(w, "x")
				require.NoError(l, rc.Flush())
			}
		})
		_, body := l.get("/")
		require.Equal(l, "xxxxxxxxxx", body)
	}},
	{"a handler can lift ReadTimeout", func(l *lab) {
		l.server.read = 2 * time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.NoError(l, http.NewResponseController(w).SetReadDeadline(time.Time{}))
			b, err := io.ReadAll(r.Body)
			require.NoError(l, err)
			w.Write(b)
		})
		pr, pw := io.Pipe()
		go func() { // ends with the sleep
			time.Sleep(time.Minute)
			io.WriteString(pw, "late")
			pw.Close()
		}()
		_, body := l.do(l.request("POST", "/", pr))
		require.Equal(l, "late", body)
	}},
	{"ReadHeaderTimeout does not bound the body", func(l *lab) {
		l.server.readHeader = time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			require.NoError(l, err)
			w.Write(b)
		})
		pr, pw := io.Pipe()
		go func() { // ends with the sleep
			time.Sleep(time.Minute)
			io.WriteString(pw, "late")
			pw.Close()
		}()
		_, body := l.do(l.request("POST", "/", pr))
		require.Equal(l, "late", body)
	}},
	{"WriteTimeout starts anew with every request", func(l *lab) {
		l.server.write = 2 * time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			io.WriteString(w, "fine")
		})
		for range 5 {
			_, body := l.get("/")
			require.Equal(l, "fine", body)
		}
	}},
	{"IdleTimeout does not bound a request", func(l *lab) {
		l.server.idle, l.client.idle = time.Second, time.Second
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Minute)
			require.NoError(l, r.Context().Err())
			io.WriteString(w, "at last")
		})
		_, body := l.get("/")
		require.Equal(l, "at last", body)
	}},
	{"too many fields are refused", func(l *lab) {
		l.server.maxHeaderBytes = 10_000
		l.serve(func(http.ResponseWriter, *http.Request) { l.Error("the handler was called") })
		req := l.request("GET", "/", nil)
		for i := range 4000 {
			req.Header.Set(fmt.Sprint("X-", i), "")
		}
		resp, err := l.http.Do(req)
		if err != nil { // a client that knows the limit need not ask: RFC 9114, Section 4.2.2
			require.NotEqual(l, "HTTP/1.1", l.proto)
			return
		}
		require.Equal(l, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
		resp.Body.Close()
	}},
	{"a context lasts as long as the handler", func(l *lab) {
		contexts := make(chan context.Context, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			time.Sleep(time.Minute)
			require.NoError(l, r.Context().Err())
			contexts <- r.Context()
		})
		l.do(l.request("POST", "/", strings.NewReader("hello")))
		ctx := <-contexts
		synctest.Wait()
		require.ErrorIs(l, ctx.Err(), context.Canceled)
	}},
	{"a lost connection ends its requests on both sides", func(l *lab) {
		started, ended := make(chan struct{}), make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			require.NoError(l, err)
			close(started)
			_, err = r.Body.Read(make([]byte, 1))
			gone(r)
			ended <- err
		})
		failed := make(chan error, 1)
		pr, pw := io.Pipe()
		go func() {
			_, err := l.http.Do(l.request("POST", "/", pr))
			failed <- err
		}()
		io.WriteString(pw, "hello")
		<-started
		l.drop()
		require.Error(l, <-ended)
		pw.Write([]byte("x")) // HTTP/1.1: what is sent next tells the client
		require.Error(l, <-failed)
		_, err := pw.Write([]byte("x"))
		require.ErrorIs(l, err, io.ErrClosedPipe)
	}},
	{"a lost connection ends a response", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			gone(r)
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		_, err = io.ReadFull(resp.Body, make([]byte, 1))
		require.NoError(l, err)
		l.drop()
		_, err = io.ReadAll(resp.Body)
		require.Error(l, err)
		require.NoError(l, resp.Body.Close())
	}},
	{"a connection that was lost while idle is replaced", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		for range 3 {
			l.get("/")
			_, body := l.do(l.request("POST", "/", strings.NewReader("hello")))
			require.Equal(l, "hello", body)
			l.drop()
			synctest.Wait()
		}
	}},
	{"a request is not sent again if that could do harm", func(l *lab) {
		posts := 0
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				posts++
				l.drop()
			}
		})
		l.get("/")
		_, err := l.http.Do(l.request("POST", "/", strings.NewReader("hello")))
		require.Error(l, err)
		require.Equal(l, 1, posts) // RFC 9110, Section 9.2.2
	}},
	{"a request that may be repeated survives a lost connection", func(l *lab) {
		again := 0
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.URL.Path == "/again" {
				if again++; again == 1 {
					l.drop()
					gone(r)
				}
			}
			w.Write(b)
		})
		l.get("/")
		req := l.request("GET", "/again", strings.NewReader("hello"))
		resp, err := l.http.Do(req)
		if l.proto == "HTTP/2.0" { // whose client gives up
			require.Error(l, err)
			require.Equal(l, 1, again)
			return
		}
		require.NoError(l, err)
		require.Equal(l, "hello", l.body(resp))
		require.Equal(l, 2, again)
	}},
	{"what a handler does not read does not spoil the next request", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 3))
			require.NoError(l, err)
			io.WriteString(w, r.URL.Path)
		})
		for _, size := range []int{3, 5, 10_000, 300_000, 3 << 20} {
			path := fmt.Sprint("/", size)
			resp, body := l.do(l.request("POST", path, bytes.NewReader(make([]byte, size))))
			require.Equal(l, 200, resp.StatusCode)
			require.Equal(l, path, body)
		}
	}},
	{"a body that is too long for MaxBytesReader does not spoil the next request", func(l *lab) {
		l.serve(http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			var tooLong *http.MaxBytesError
			if errors.As(err, &tooLong) {
				require.EqualValues(l, 1000, tooLong.Limit)
				http.Error(w, "too long", http.StatusRequestEntityTooLarge)
				return
			}
			require.NoError(l, err)
			w.Write(b)
		}), 1000).ServeHTTP)
		for range 3 {
			resp, _ := l.do(l.request("POST", "/", bytes.NewReader(make([]byte, 50_000))))
			require.Equal(l, http.StatusRequestEntityTooLarge, resp.StatusCode)
			_, body := l.do(l.request("POST", "/", strings.NewReader("hello")))
			require.Equal(l, "hello", body)
		}
	}},
	{"a panic is logged, unless it is ErrAbortHandler", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/silent" {
				panic(http.ErrAbortHandler)
			}
			panic("what a pity")
		})
		_, err := l.http.Do(l.request("POST", "/silent", nil))
		require.Error(l, err)
		synctest.Wait()
		require.NotContains(l, l.log.String(), "panic")
		_, err = l.http.Do(l.request("POST", "/", nil))
		require.Error(l, err)
		synctest.Wait()
		require.Contains(l, l.log.String(), "what a pity")
		require.Contains(l, l.log.String(), "behaviour_limit_test.go", "with the stack")
	}},
	{"a panic after a response's end is too late", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		b := make([]byte, 5)
		_, err = io.ReadFull(resp.Body, b)
		require.NoError(l, err)
		require.Equal(l, "hello", string(b))
		resp.Body.Close()
	}},
	{"only HTTP/1.1 can be hijacked", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if l.proto != "HTTP/1.1" { // a connection is not of one request alone: RFC 9114, Section 4.1
				require.ErrorIs(l, err, errors.ErrUnsupported)
				io.WriteString(w, "fine")
				return
			}
			require.NoError(l, err)
			buf.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine")
			buf.Flush()
			conn.Close()
		})
		_, body := l.get("/")
		require.Equal(l, "fine", body)
	}},
	{"only HTTP/2 can push", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			p, ok := w.(http.Pusher)
			require.Equal(l, l.proto == "HTTP/2.0", ok) // HTTP/3's push is an option nobody implements: RFC 9114, Section 4.6
			if ok {
				require.ErrorIs(l, p.Push("/a", nil), http.ErrNotSupported, "the client does not want it")
			}
		})
		l.get("/")
	}},
	{"CONNECT makes a tunnel", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			require.Equal(l, http.MethodConnect, r.Method)
			require.Equal(l, "example.org:25", r.Host)
			require.Equal(l, "example.org:25", r.RequestURI)
			if l.proto == "HTTP/1.1" {
				conn, buf, err := http.NewResponseController(w).Hijack()
				require.NoError(l, err)
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				_, err = io.CopyN(conn, buf, 10)
				require.NoError(l, err)
				conn.Close()
				return
			}
			require.NoError(l, http.NewResponseController(w).Flush())
			_, err := io.CopyN(flusher{w}, r.Body, 10)
			require.NoError(l, err)
		})
		pr, pw := io.Pipe()
		defer pw.Close()
		req := l.request("CONNECT", "", pr)
		req.Host = "example.org:25"
		resp, err := l.http.Do(req)
		require.NoError(l, err)
		require.Equal(l, 200, resp.StatusCode)
		for _, word := range []string{"hello", "world"} {
			io.WriteString(pw, word)
			b := make([]byte, 5)
			_, err := io.ReadFull(resp.Body, b)
			require.NoError(l, err)
			require.Equal(l, word, string(b))
		}
		_, err = resp.Body.Read(make([]byte, 1))
		require.ErrorIs(l, err, io.EOF)
		resp.Body.Close()
	}},
	{"CONNECT can be refused", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
		req := l.request("CONNECT", "", nil)
		req.Host = "example.org:25"
		resp, body := l.do(req)
		require.Equal(l, http.StatusForbidden, resp.StatusCode)
		require.Equal(l, "no\n", body)
	}},
	{"Shutdown with nothing to do does not last", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {})
		l.get("/")
		start := time.Now()
		require.NoError(l, l.shutdown(l.Context()))
		require.Less(l, time.Since(start), 10*time.Second)
		require.NoError(l, l.shutdown(l.Context()), "once more")
	}},
}
