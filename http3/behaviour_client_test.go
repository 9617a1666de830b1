package http3_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	neturl "net/url"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// clientBehaviours are about what a client's user sees.
var clientBehaviours = []behaviour{
	{"a redirect after a POST is a GET", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				http.Redirect(w, r, "there?x", http.StatusSeeOther)
				return
			}
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, r.Method, " ", r.RequestURI, " ", n, err, r.Header["Content-Type"])
		})
		req := l.request("POST", "/", strings.NewReader("hello"))
		req.Header.Set("Content-Type", "a/b")
		resp, body := l.do(req)
		require.Equal(l, "GET /there?x 0 <nil> []", body)
		require.Equal(l, url+"/there?x", resp.Request.URL.String())
	}},
	{"a redirect of a body that cannot be repeated is not followed", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			http.Redirect(w, r, "/there", http.StatusPermanentRedirect)
		})
		resp, _ := l.do(l.request("POST", "/", io.MultiReader(strings.NewReader("hello"))))
		require.Equal(l, http.StatusPermanentRedirect, resp.StatusCode)
		require.Equal(l, "/there", resp.Header.Get("Location"))
	}},
	{"a jar keeps cookies", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1", Secure: true})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
			fmt.Fprint(w, r.Cookies())
		})
		l.http.Jar, _ = cookiejar.New(nil)
		l.get("/")
		_, body := l.get("/")
		require.Equal(l, "[a=1 b=2]", body)
	}},
	{"user and password of a URL arrive", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["Authorization"]) })
		req := l.request("GET", "/", nil)
		req.URL.User = neturl.UserPassword("me", "secret")
		_, body := l.do(req)
		require.Equal(l, "[Basic bWU6c2VjcmV0]", body)
	}},
	{"the end of a response stays its end", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 10_000)) })
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		n, err := io.Copy(io.Discard, resp.Body)
		require.NoError(l, err)
		require.EqualValues(l, 10_000, n)
		for range 3 {
			_, err = resp.Body.Read(make([]byte, 1))
			require.ErrorIs(l, err, io.EOF)
		}
		require.NoError(l, resp.Body.Close())
		require.NoError(l, resp.Body.Close())
		_, err = resp.Body.Read(make([]byte, 1))
		require.Error(l, err)
	}},
	{"the end of a request stays its end", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			for range 3 {
				n, err := r.Body.Read(make([]byte, 1))
				require.Zero(l, n)
				require.ErrorIs(l, err, io.EOF)
			}
			require.NoError(l, r.Body.Close())
			require.NoError(l, r.Body.Close())
		})
		l.do(l.request("POST", "/", strings.NewReader("hello")))
	}},
	{"a client's Timeout bounds the wait", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { gone(r) })
		l.http.Timeout = time.Second
		_, err := l.http.Do(l.request("GET", "/", nil))
		var ne net.Error
		require.ErrorAs(l, err, &ne)
		require.True(l, ne.Timeout())
	}},
	{"a client's Timeout bounds the body", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			gone(r)
		})
		l.http.Timeout = time.Second
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		_, err = io.ReadAll(resp.Body)
		var ne net.Error
		require.ErrorAs(l, err, &ne)
		require.True(l, ne.Timeout())
		require.NoError(l, resp.Body.Close())
	}},
	{"the cause of a cancellation is the error", func(l *lab) {
		started := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			gone(r)
		})
		cause := errors.New("the user has left")
		ctx, cancel := context.WithCancelCause(l.Context())
		go func() {
			<-started
			cancel(cause)
		}()
		_, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		if l.proto == "HTTP/2.0" { // which does not tell
			cause = context.Canceled
		}
		require.ErrorIs(l, err, cause)
	}},
	{"a request that was cancelled before is not sent", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { require.Equal(l, "/good", r.URL.Path) })
		l.get("/good")
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		closed := make(chan struct{})
		req := l.request("POST", "/", &onClose{strings.NewReader("hello"), sync.OnceFunc(func() { close(closed) })})
		_, err := l.http.Do(req.WithContext(ctx))
		require.ErrorIs(l, err, context.Canceled)
		<-closed
	}},
	{"a client that cancels ends the handler's Read", func(l *lab) {
		begun, ended := make(chan struct{}), make(chan error, 1)
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			require.NoError(l, err)
			close(begun)
			_, err = io.ReadAll(r.Body)
			ended <- err
		})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		pr, pw := io.Pipe()
		failed := make(chan error, 1)
		go func() { // ends with the request
			_, err := l.http.Do(l.request("POST", "/", pr).WithContext(ctx))
			failed <- err
		}()
		io.WriteString(pw, "hello")
		<-begun
		cancel()
		synctest.Wait()
		pw.Write([]byte("x")) // HTTP/1.1 waits for that
		require.ErrorIs(l, <-failed, context.Canceled)
		err := <-ended
		require.Error(l, err, "the body is not complete")
	}},
	{"Close ends a Read of the response that is under way", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			gone(r)
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		ended := make(chan error, 1)
		go func() { // ends with Close
			_, err := io.ReadAll(resp.Body)
			ended <- err
		}()
		synctest.Wait()
		require.NoError(l, resp.Body.Close())
		require.Error(l, <-ended)
	}},
	{"a request that waits for its turn can be cancelled", func(l *lab) {
		finish := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-finish:
			case <-r.Context().Done():
			}
		})
		var wg sync.WaitGroup
		for range 300 { // more than a server takes at once
			wg.Go(func() {
				resp, _ := l.get("/")
				require.Equal(l, 200, resp.StatusCode)
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		_, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
		require.ErrorIs(l, err, context.DeadlineExceeded)
		close(finish)
		wg.Wait()
	}},
	{"cancelling one request leaves the others alone", func(l *lab) {
		finish := make(chan struct{})
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-finish:
				w.Write(make([]byte, 100_000))
			case <-r.Context().Done():
			}
		})
		var wg sync.WaitGroup
		for i := range 10 {
			ctx, cancel := context.WithCancel(l.Context())
			wg.Go(func() {
				resp, err := l.http.Do(l.request("GET", "/", nil).WithContext(ctx))
				if i%2 == 0 {
					require.ErrorIs(l, err, context.Canceled)
					return
				}
				require.NoError(l, err)
				require.Len(l, l.body(resp), 100_000)
			})
			defer cancel()
			synctest.Wait()
			if i%2 == 0 {
				cancel()
			}
		}
		synctest.Wait()
		close(finish)
		wg.Wait()
	}},
	{"gzip that is cut off is an error", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			var b bytes.Buffer
			zw := gzip.NewWriter(&b)
			io.WriteString(zw, "hello")
			zw.Close()
			w.Write(b.Bytes()[:b.Len()-1])
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(l, err, io.ErrUnexpectedEOF)
		require.NoError(l, resp.Body.Close())
	}},
	{"what claims to be gzip and is not is an error", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "certainly no gzip")
		})
		resp, err := l.http.Do(l.request("GET", "/", nil))
		require.NoError(l, err)
		for range 2 {
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(l, err, gzip.ErrHeader)
		}
		require.NoError(l, resp.Body.Close())
	}},
	{"gzip leaves trailers alone", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Trailer", "X-Sum")
			zw := gzip.NewWriter(w)
			io.WriteString(zw, "hello")
			zw.Close()
			w.Header().Set("X-Sum", "42")
		})
		resp, body := l.get("/")
		require.Equal(l, "hello", body)
		require.Equal(l, "42", resp.Trailer.Get("X-Sum"))
	}},
	{"gzip may be empty", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Length", "0")
		})
		_, body := l.get("/")
		require.Empty(l, body)
	}},
	{"gzip is not asked for with a range, nor with HEAD", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Accepted", fmt.Sprint(r.Header["Accept-Encoding"]))
		})
		req := l.request("GET", "/", nil)
		req.Header.Set("Range", "bytes=0-1")
		resp, _ := l.do(req)
		require.Equal(l, "[]", resp.Header.Get("X-Accepted"))
		resp, _ = l.do(l.request("HEAD", "/", nil))
		require.Equal(l, "[]", resp.Header.Get("X-Accepted"))
	}},
	{"a request is left as it was, and can be sent again", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		req := l.request("PUT", "/", strings.NewReader("hello"))
		req.Header.Set("X-Mine", "1")
		before := req.Clone(l.Context())
		for range 3 {
			_, body := l.do(req)
			require.Equal(l, "hello", body)
			require.Equal(l, before.Header, req.Header)
			require.Equal(l, before.URL, req.URL)
			require.Equal(l, before.Method, req.Method)
			req.Body, _ = req.GetBody()
		}
	}},
	{"Request.Close hinders nobody", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		for range 2 {
			req := l.request("POST", "/", strings.NewReader("hello"))
			req.Close = true
			_, body := l.do(req)
			require.Equal(l, "hello", body)
		}
	}},
	{"requests one after another share a connection", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/204", "/304":
				w.WriteHeader(map[string]int{"/204": 204, "/304": 304}[r.URL.Path])
			case "/404":
				http.NotFound(w, r)
			default:
				io.Copy(w, r.Body)
			}
		})
		made := 0
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			GotConn: func(i httptrace.GotConnInfo) {
				if !i.Reused {
					made++
				}
			},
		})
		for range 3 {
			l.do(l.request("GET", "/204", nil).WithContext(ctx))
			l.do(l.request("GET", "/304", nil).WithContext(ctx))
			l.do(l.request("HEAD", "/404", nil).WithContext(ctx))
			l.do(l.request("POST", "/404", strings.NewReader("unread")).WithContext(ctx))
			l.do(l.request("POST", "/", strings.NewReader("read")).WithContext(ctx))
			synctest.Wait()
		}
		require.Equal(l, 1, made)
	}},
	{"a trace sees a connection made, and used again", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
		var steps []string // while the request waits
		step := func(f string, a ...any) { steps = append(steps, fmt.Sprintf(f, a...)) }
		ctx := httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			GetConn:           func(addr string) { step("get %s", addr) },
			TLSHandshakeStart: func() { step("handshake") },
			TLSHandshakeDone: func(st tls.ConnectionState, err error) {
				step("shaken %t %s %v", st.HandshakeComplete, st.ServerName, err)
			},
			GotConn: func(i httptrace.GotConnInfo) {
				step("got %s reused=%t idle=%t for %s", i.Conn.RemoteAddr(), i.Reused, i.WasIdle, i.IdleTime)
			},
		})
		for range 2 {
			l.do(l.request("GET", "/", nil).WithContext(ctx))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		require.Equal(l, []string{
			"get localhost:443", "handshake", "shaken true localhost <nil>", "got 192.0.2.1:443 reused=false idle=false for 0s",
			"get localhost:443", "got 192.0.2.1:443 reused=true idle=true for 1s",
		}, steps)
	}},
	{"a trace sees 100-continue", func(l *lab) {
		l.client.expectContinue = time.Hour
		l.serve(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		var mu sync.Mutex
		var steps []string
		step := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, s)
		}
		req := l.request("POST", "/", strings.NewReader("hello"))
		req.Header.Set("Expect", "100-continue")
		_, body := l.do(req.WithContext(httptrace.WithClientTrace(l.Context(), &httptrace.ClientTrace{
			Wait100Continue: func() { step("wait") },
			Got100Continue:  func() { step("go on") },
			WroteRequest:    func(httptrace.WroteRequestInfo) { step("request") },
		})))
		require.Equal(l, "hello", body)
		synctest.Wait() // a response does not wait for what the writer of the request has to say
		mu.Lock()
		defer mu.Unlock()
		want := []string{"wait", "go on", "request"}
		if l.proto != "HTTP/3.0" && len(steps) > 0 && steps[0] == "go on" {
			// net/http sends the head, then says that it waits, while another
			// goroutine reads what the server says to the head, and on a pipe
			// that takes no time. Nothing orders the two, in HTTP/1.1 and HTTP/2.
			want[0], want[1] = want[1], want[0]
		}
		require.Equal(l, want, steps)
	}},
	{"large bodies go both ways at once", func(l *lab) {
		const size = 2 << 20
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.EnableFullDuplex(); l.proto != "HTTP/2.0" {
				require.NoError(l, err)
			}
			require.NoError(l, rc.Flush())
			n, err := io.Copy(w, r.Body)
			require.NoError(l, err)
			require.EqualValues(l, size, n)
		})
		sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		pr, pw := io.Pipe()
		resp, err := l.http.Do(l.request("POST", "/", pr))
		require.NoError(l, err)
		go func() { // ends with the body
			pw.Write(sent)
			pw.Close()
		}()
		require.True(l, l.body(resp) == string(sent))
	}},
	{"closing a response ends the upload", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); l.proto != "HTTP/2.0" {
				require.NoError(l, err)
			}
			w.(http.Flusher).Flush()
			io.Copy(io.Discard, r.Body)
		})
		pr, pw := io.Pipe()
		resp, err := l.http.Do(l.request("POST", "/", pr))
		require.NoError(l, err)
		require.NoError(l, resp.Body.Close())
		for err == nil {
			_, err = pw.Write(make([]byte, 10_000))
		}
		require.ErrorIs(l, err, io.ErrClosedPipe)
	}},
	{"a response ends an upload without end", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "enough", http.StatusRequestEntityTooLarge)
		})
		closed := make(chan struct{})
		body := &onClose{endless{}, sync.OnceFunc(func() { close(closed) })}
		resp, got := l.do(l.request("POST", "/", body))
		require.Equal(l, http.StatusRequestEntityTooLarge, resp.StatusCode)
		require.Equal(l, "enough\n", got)
		<-closed
		resp, _ = l.do(l.request("POST", "/", strings.NewReader("x")))
		require.Equal(l, http.StatusRequestEntityTooLarge, resp.StatusCode)
	}},
	{"many uploads at once do not mix", func(l *lab) {
		l.serve(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			require.NoError(l, err)
			w.Write(b)
		})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				sent := strings.Repeat(fmt.Sprintf("%03d", i), 1000*i)
				_, body := l.do(l.request("POST", "/", strings.NewReader(sent)))
				require.True(l, body == sent)
			})
		}
		wg.Wait()
	}},
}

// endless has no end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
