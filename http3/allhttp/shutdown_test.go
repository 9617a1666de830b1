package allhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

func TestShutdownUnderLoadLosesNoRequest(t *testing.T) {
	const clients, requests = 8, 20000 // more requests than there is time for
	engines(t, func(t *testing.T, e transport.Transport) {
		gone, leave := context.WithCancel(t.Context()) // done when the server is gone
		defer leave()
		var taken sync.Map // what handlers have read
		var answered atomic.Int64
		s := open(t, &allhttp.Server{Engine: e, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if !noError(t, err) {
				return
			}
			taken.Store(string(body), true)
			_, _ = w.Write(body)
		})})
		var load sync.WaitGroup
		var warm sync.WaitGroup
		for i := range clients {
			for _, proto := range []string{proto1, proto2, proto3} {
				c := s.client(proto)
				if tr, ok := c.Transport.(*http3.Transport); ok {
					// Nobody says of UDP that it is refused: dials would last as long
					// as a handshake may.
					tr.Dial = func(ctx context.Context, addr string, cfg *transport.Config) (transport.Conn, error) {
						ctx, cancel := context.WithCancel(ctx)
						defer cancel()
						defer context.AfterFunc(gone, cancel)()
						return transport.DialAddr(ctx, e, addr, cfg)
					}
				}
				warm.Add(1)
				load.Go(func() { // ends when the server takes no request
					once := sync.OnceFunc(warm.Done)
					defer once()
					for n := range requests {
						want := fmt.Sprint(proto, " ", i, " ", n)
						connected := false // the request has had its connection
						ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
							GetConn: func(string) { connected = false },
							GotConn: func(httptrace.GotConnInfo) { connected = true },
						})
						// A POST is not sent again by net/http when it was perhaps processed.
						req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(), strings.NewReader(want))
						if !noError(t, err) {
							return
						}
						resp, err := c.Do(req)
						if err != nil {
							// No handler may have seen it.
							_, lost := taken.Load(want)
							if lost || !refused(proto, connected, err) {
								t.Errorf("%s: request %d was lost: %v", proto, n, err)
							}
							return
						}
						body, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || string(body) != want {
							t.Errorf("%s: response %d was lost: %q, %v", proto, n, body, err)
							return
						}
						answered.Add(1)
						if n == 10 {
							once()
						}
					}
				})
			}
		}
		warm.Wait()
		require.NoError(t, s.srv.Shutdown(t.Context()))
		leave()
		load.Wait()
		require.Less(t, answered.Load(), int64(3*clients*requests))
	})
}

// refused reports whether err is what a request gets that a server, which shuts
// down, has not taken. connected: it had a connection.
func refused(proto string, connected bool, err error) bool {
	switch {
	case proto == proto3:
		return true // to be refused over QUIC takes many forms
	case connected && proto == proto2:
		return false // the server says GOAWAY; net/http sends again what was not taken
	case connected && strings.Contains(err.Error(), "http: server closed idle connection"):
		return true // a request that was to be the next on it
	}
	// HTTP/1.1 cannot say that a connection ends. Of one that is closed while a
	// request is on its way, net/http meets the end, as a Read or a Write does, or
	// that it has closed its own side when the reader met the end. A new one is
	// refused, or meets its end if it was made before the server had accepted it.
	for _, end := range []error{syscall.ECONNREFUSED, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func TestShutdownWaitsForRequestsThatAreUnderWay(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		begun, finish := make(chan struct{}), make(chan struct{})
		s := open(t, &allhttp.Server{Engine: e, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-finish
			_, _ = io.WriteString(w, r.Proto)
		})})
		var wg sync.WaitGroup
		for _, proto := range []string{proto1, proto2, proto3} {
			c := s.client(proto)
			wg.Go(func() {
				resp, err := c.Get(s.url())
				if !noError(t, err) {
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if noError(t, err) && string(body) != proto {
					t.Errorf("got %q", body)
				}
			})
			<-begun
		}
		stopped, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, s.srv.Shutdown(stopped), context.Canceled)
		down := make(chan error, 1)
		go func() { down <- s.srv.Shutdown(context.WithoutCancel(t.Context())) }() // ends with the requests
		for range 3 {
			finish <- struct{}{}
		}
		wg.Wait()
		require.NoError(t, <-down)
	})
}

func TestCloseDoesNotWaitForRequests(t *testing.T) {
	engines(t, func(t *testing.T, e transport.Transport) {
		begun := make(chan struct{}, 3)
		s := open(t, &allhttp.Server{Engine: e, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			<-r.Context().Done()
		})})
		var wg sync.WaitGroup
		for _, proto := range []string{proto1, proto2, proto3} {
			c := s.client(proto)
			wg.Go(func() {
				resp, err := c.Get(s.url())
				if err == nil {
					resp.Body.Close()
					t.Errorf("%s: got a response", proto)
				}
			})
			<-begun
		}
		require.NoError(t, s.srv.Close())
		wg.Wait()
	})
}
