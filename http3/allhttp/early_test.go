package allhttp_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/transport"
)

// sessions keeps the newest session of each server.
type sessions struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (s *sessions) Take(server string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.kept[server]
	delete(s.kept, server)
	return b
}

func (s *sessions) Put(server string, session []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[string][]byte)
	}
	s.kept[server] = session
}

// resuming makes the world's client one that has a session of the server.
func (w *world) resuming(h http.Handler) *machine {
	w.Helper()
	if !w.engine.Features().EarlyData {
		w.Skip("the engine has no 0-RTT")
	}
	m := w.serve(serverAddr, h, func(s *allhttp.Server) { s.QUIC = &transport.Config{EarlyData: true} }, host)
	kept := new(sessions)
	w.tr.QUIC = &transport.Config{EarlyData: true, Sessions: kept}
	w.hint()
	w.get2(url, proto3)
	settle()
	require.NoError(w, w.tr.Close())
	synctest.Wait()
	w.tr = w.transport()
	w.tr.QUIC = &transport.Config{EarlyData: true, Sessions: kept}
	return m
}

func TestASafeRequestGoesAheadOfTheHandshake(t *testing.T) {
	worlds(t, func(w *world) {
		w.resuming(seen)
		w.hint()
		d := took(func() { w.get(url, proto3, allhttp.ReasonEarly) })
		require.Less(w, d, rtt+rtt/2)
		require.Equal(w, host+":443", w.choice().Alternative)
		settle() // everybody knows that the handshake is complete
		w.get(url, proto3, allhttp.ReasonConnected)
		require.Equal(w, 2, w.udpDials())
		require.Zero(w, w.tcpDials())
	})
}

func TestARequestThatWentAheadIntoABlackHoleIsSentOverTCP(t *testing.T) {
	worlds(t, func(w *world) {
		var requests atomic.Int64
		m := w.resuming(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			seen(rw, r)
		}))
		m.cut(true)
		w.hint()
		d := took(func() { w.get(url, proto2, allhttp.ReasonRace) })
		require.Less(w, d, 300*time.Millisecond)
		require.Equal(w, int64(2), requests.Load())
	})
}

func TestOnlySafeRequestsGoAhead(t *testing.T) {
	worlds(t, func(w *world) {
		w.resuming(seen)
		w.hint()
		resp := w.send(w.request(http.MethodPost, url, strings.NewReader("x")))
		require.Equal(w, proto3, resp.Proto)
		require.Equal(w, allhttp.ReasonRace, w.choice().Reason)
	})
}

func TestARequestGoesAheadWhenThereIsOnlyHTTP3(t *testing.T) {
	worlds(t, func(w *world) {
		w.resuming(seen)
		w.tr.Versions = allhttp.HTTP3
		d := took(func() { w.get(url, proto3, allhttp.ReasonEarly) })
		require.Less(w, d, rtt+rtt/2)
	})
}
