package http3_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	foreign "github.com/quic-go/quic-go/http3"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// Another implementation of HTTP/3 judges ours, over real sockets.

// patience is for handshakes: a busy machine may leave a test alone for a while.
const patience = time.Minute

func echoHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	w.Header().Set("X-Proto", r.Proto)
	w.WriteHeader(http.StatusEarlyHints)
	n, _ := io.Copy(w, r.Body)
	w.Header().Set("X-Sum", strings.Repeat("1", int(min(n, 1))))
}

// exchangeWith sends requests with rt and checks the responses.
func exchangeWith(t *testing.T, rt http.RoundTripper, addr string) {
	t.Helper()
	client := &http.Client{Transport: rt}
	for _, body := range [][]byte{nil, []byte("hello"), make([]byte, 3<<20)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/a?b=c", bytes.NewReader(body))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.True(t, bytes.Equal(body, got))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "HTTP/3.0", resp.Header.Get("X-Proto"))
		if len(body) > 0 {
			require.Equal(t, "1", resp.Trailer.Get("X-Sum"))
		}
	}
	resp, err := client.Head("https://" + addr + "/")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
}

func TestQuicGosClientIsServed(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			serverTLS, clientTLS := testcert.New()
			srv := &http3.Server{
				TLS: serverTLS, Handler: http.HandlerFunc(echoHandler),
				Transport: &transport.Config{HandshakeTimeout: patience},
			}
			cfg, err := srv.TransportConfig()
			require.NoError(t, err)
			ln, err := transport.ListenAddr(e, "127.0.0.1:0", cfg)
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(ln) }() // ends with Close
			tr := &foreign.Transport{TLSClientConfig: clientTLS, QUICConfig: &quic.Config{HandshakeIdleTimeout: patience}}
			exchangeWith(t, tr, ln.Addr().String())
			require.NoError(t, tr.Close())
			require.NoError(t, srv.Close())
			require.ErrorIs(t, <-served, http.ErrServerClosed)
		})
	}
}

func TestQuicGosServerAnswers(t *testing.T) {
	for _, e := range engine.All() {
		t.Run(e.Name(), func(t *testing.T) {
			serverTLS, clientTLS := testcert.New()
			pc, err := net.ListenPacket("udp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := &foreign.Server{
				TLSConfig: foreign.ConfigureTLSConfig(serverTLS), Handler: http.HandlerFunc(echoHandler),
				QUICConfig: &quic.Config{HandshakeIdleTimeout: patience},
			}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(pc) }() // ends with Close
			tr := &http3.Transport{Engine: e, TLS: clientTLS, Config: &transport.Config{HandshakeTimeout: patience}}
			exchangeWith(t, tr, pc.LocalAddr().String())
			require.NoError(t, tr.Close())
			require.NoError(t, srv.Close())
			require.Error(t, <-served)
			require.NoError(t, pc.Close())
		})
	}
}

func TestQuicGosExtendedConnectAndDatagrams(t *testing.T) {
	serverTLS, clientTLS := testcert.New()
	srv := &http3.Server{TLS: serverTLS, Transport: &transport.Config{Datagrams: true, HandshakeTimeout: patience}}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s, err := http3.TakeStream(w)
		if err != nil {
			t.Error(err)
			return
		}
		d, err := s.ReceiveDatagram(context.Background())
		if err == nil { // the client's settings are on another stream
			_, err = s.Conn().Settings(context.Background())
		}
		if err == nil {
			err = s.SendDatagram(d)
		}
		if err == nil {
			_, err = io.Copy(s, s)
		}
		if err != nil {
			t.Error(err)
		}
		s.Close()
	})
	cfg, err := srv.TransportConfig()
	require.NoError(t, err)
	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", cfg)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ends with Close

	clientTLS.NextProtos = []string{foreign.NextProtoH3}
	qc, err := quic.DialAddr(t.Context(), ln.Addr().String(), clientTLS.Clone(), &quic.Config{EnableDatagrams: true, HandshakeIdleTimeout: patience})
	require.NoError(t, err)
	tr := &foreign.Transport{EnableDatagrams: true}
	conn := tr.NewClientConn(qc)
	<-conn.ReceivedSettings()
	require.True(t, conn.Settings().EnableExtendedConnect)
	require.True(t, conn.Settings().EnableDatagrams)
	s, err := conn.OpenRequestStream(t.Context())
	require.NoError(t, err)
	req, err := http.NewRequest(http.MethodConnect, "https://localhost/chat", nil)
	require.NoError(t, err)
	req.Proto = "echo"
	require.NoError(t, s.SendRequestHeader(req))
	resp, err := s.ReadResponse()
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.NoError(t, s.SendDatagram([]byte("hi")))
	d, err := s.ReceiveDatagram(t.Context())
	require.NoError(t, err)
	require.Equal(t, "hi", string(d))
	_, err = s.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	b, err := io.ReadAll(s)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))
	require.NoError(t, qc.CloseWithError(0x100, ""))
	require.NoError(t, srv.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}
