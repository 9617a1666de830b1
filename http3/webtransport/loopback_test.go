package webtransport_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
)

// A loopback is a server on a real socket, in real time.
type loopback struct {
	url      string
	tr       *http3.Transport
	sessions chan *webtransport.Session
}

func newLoopback(t testing.TB, e transport.Transport) *loopback {
	t.Helper()
	l := &loopback{sessions: make(chan *webtransport.Session, 1)}
	serverTLS, clientTLS := testcert.New()
	patient := &transport.Config{HandshakeTimeout: time.Minute} // when many other processes run
	srv := &http3.Server{TLS: serverTLS, Transport: patient, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := webtransport.Accept(w, r, nil)
		if err == nil {
			l.sessions <- s
		}
	})}
	webtransport.ConfigureServer(srv, nil)
	cfg, err := srv.TransportConfig()
	require.NoError(t, err)
	ln, err := transport.ListenAddr(e, "127.0.0.1:0", cfg)
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(ln) }) // ends with Close
	l.url = "https://" + ln.Addr().String() + "/"
	l.tr = &http3.Transport{Engine: e, TLS: clientTLS, Config: patient}
	t.Cleanup(func() {
		require.NoError(t, l.tr.Close())
		require.NoError(t, srv.Close())
		serving.Wait()
	})
	return l
}

// dial starts a session.
func (l *loopback) dial(t testing.TB) (client, server *webtransport.Session) {
	t.Helper()
	client, err := webtransport.Dial(t.Context(), l.tr, l.url, nil)
	require.NoError(t, err)
	return client, <-l.sessions
}
