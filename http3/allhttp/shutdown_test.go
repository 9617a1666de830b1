package allhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

func TestShutdownUnderLoadLosesNoRequest(t *testing.T) {
	const clients, requests = 8, 20000 // more requests than there is time for
	engines(t, func(t *testing.T, e transport.Transport) {
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
				warm.Add(1)
				load.Go(func() { // ends when the server takes no request
					once := sync.OnceFunc(warm.Done)
					defer once()
					for n := range requests {
						want := fmt.Sprint(proto, " ", i, " ", n)
						// A POST is not sent again by net/http when it was perhaps processed.
						resp, err := c.Post(s.url(), "text/plain", strings.NewReader(want))
						if err != nil {
							// No handler may have seen it.
							_, lost := taken.Load(want)
							if lost || !refused(proto, err) {
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
		load.Wait()
		require.Less(t, answered.Load(), int64(3*clients*requests))
	})
}

// refused reports whether err is what a request gets that a server, which shuts
// down, has not taken.
func refused(proto string, err error) bool {
	switch proto {
	case proto1:
		// HTTP/1.1 cannot say that a connection ends. Of one that is closed while
		// a request is on its way, net/http meets the end, as a Read or a Write
		// does, or that it has closed its own side when the reader met the end.
		for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
			if errors.Is(err, end) {
				return true
			}
		}
		fallthrough
	case proto2: // which says GOAWAY; net/http sends again what was not taken
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	return true // to be refused over QUIC takes many forms
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
