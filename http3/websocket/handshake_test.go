package websocket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/internal/testcert"
)

func TestHandshakesThatAServerRefuses(t *testing.T) {
	type set = http.Header
	closed := new(websocket.Group)
	require.NoError(t, closed.Shutdown(t.Context()))
	cases := []struct {
		name   string
		only   string // version; "": all
		header set
		opts   websocket.AcceptOptions
		status int
	}{
		{name: "other version", header: set{"Sec-Websocket-Version": {"8"}}, status: 400},
		{name: "other origin", header: set{"Origin": {"https://evil.example"}}, status: 403},
		{name: "origin that only starts alike", header: set{"Origin": {"https://localhost.evil.example"}}, status: 403},
		{name: "own host without TLS", only: "CONNECT", header: set{"Origin": {"http://localhost"}}, status: 403},
		{name: "two origins", header: set{"Origin": {"https://localhost", "https://evil.example"}}, status: 403},
		{name: "opaque origin", header: set{"Origin": {"null"}}, status: 403},
		{name: "no host in the origin", header: set{"Origin": {"https://"}}, status: 403},
		{name: "pattern for another origin", header: set{"Origin": {"https://evil.example"}},
			opts: websocket.AcceptOptions{OriginPatterns: []string{"*.good.example"}}, status: 403},
		{name: "pattern for another scheme", header: set{"Origin": {"http://a.good.example"}},
			opts: websocket.AcceptOptions{OriginPatterns: []string{"https://*.good.example"}}, status: 403},
		{name: "bad pattern", header: set{"Origin": {"http://a.good.example"}},
			opts: websocket.AcceptOptions{OriginPatterns: []string{"["}}, status: 403},
		{name: "going away", opts: websocket.AcceptOptions{Group: closed}, status: 503},
		{name: "negative heartbeat", opts: websocket.AcceptOptions{Heartbeat: &websocket.Heartbeat{Timeout: -1}}, status: 500},
		{name: "other protocol", only: "CONNECT", header: set{":protocol": {"connect-udp"}}, status: 501},
	}
	versions(t, func(l *lab) {
		for _, tc := range cases {
			if tc.only == "CONNECT" && l.proto == "HTTP/1.1" {
				continue // it has none
			}
			l.setOptions(&tc.opts)
			s, resp := l.rawDial("/accept", tc.header)
			require.Nil(l, s, tc.name)
			require.Equal(l, tc.status, resp.StatusCode, tc.name)
			var e *websocket.HandshakeError
			require.ErrorAs(l, (<-l.accepted).err, &e, tc.name)
			require.Equal(l, tc.status, e.StatusCode, tc.name)
			if tc.status == 400 {
				require.Equal(l, "13", resp.Header.Get("Sec-Websocket-Version"))
			}
		}
	})
}

func TestUpgradesThatAServerRefuses(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	versions(t, func(l *lab) {
		for _, tc := range []struct {
			name, method, connection, upgrade string
			keys                              []string
			status                            int
		}{
			{"no Upgrade", "GET", "", "", nil, 426},
			{"Upgrade to something else", "GET", "Upgrade", "h2c", []string{key}, 426},
			{"no Connection: Upgrade", "GET", "keep-alive", "websocket", []string{key}, 426},
			{"POST", "POST", "Upgrade", "websocket", []string{key}, 405},
			{"no key", "GET", "Upgrade", "websocket", nil, 400},
			{"two keys", "GET", "Upgrade", "websocket", []string{key, key}, 400},
			{"short key", "GET", "Upgrade", "websocket", []string{"dGhlIHNhbXBs"}, 400},
			{"no base64", "GET", "Upgrade", "websocket", []string{"********************=="}, 400},
		} {
			if l.proto != "HTTP/1.1" {
				tc.connection, tc.upgrade, tc.status = "", "", 400 // not CONNECT
			}
			req, err := http.NewRequestWithContext(l.Context(), tc.method, "http"+l.url[2:]+"/accept", nil)
			require.NoError(l, err)
			req.Header = http.Header{"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": tc.keys}
			if tc.connection != "" {
				req.Header.Set("Connection", tc.connection)
			}
			if tc.upgrade != "" {
				req.Header.Set("Upgrade", tc.upgrade)
			}
			resp, err := l.transport.RoundTrip(req)
			require.NoError(l, err)
			require.Equal(l, tc.status, resp.StatusCode, tc.name)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(l, err)
			require.NoError(l, resp.Body.Close())
			require.Error(l, (<-l.accepted).err, tc.name)
		}
	})
}

func TestOriginsThatAServerAllows(t *testing.T) {
	versions(t, func(l *lab) {
		for _, tc := range []struct {
			origin string
			opts   websocket.AcceptOptions
		}{
			{"", websocket.AcceptOptions{}},
			{"https://localhost", websocket.AcceptOptions{}},
			{"https://LocalHost", websocket.AcceptOptions{}},
			{"https://a.Good.example", websocket.AcceptOptions{OriginPatterns: []string{"x", "*.good.example"}}},
			{"https://good.example:8443", websocket.AcceptOptions{OriginPatterns: []string{"https://good.example:*"}}},
			{"https://evil.example", websocket.AcceptOptions{AnyOrigin: true}},
		} {
			l.setOptions(&tc.opts)
			c, err := l.dial("/accept", websocket.DialOptions{Header: http.Header{"Origin": {tc.origin}}})
			require.NoError(l, err, tc.origin)
			l.closeLater(c)
			l.closeLater((<-l.accepted).conn)
		}
	})
}

func TestTheServersBestSubprotocolIsAgreedOn(t *testing.T) {
	versions(t, func(l *lab) {
		for _, tc := range []struct {
			server, client []string
			want           string
		}{
			{[]string{"mqtt", "chat"}, []string{"chat", "mqtt"}, "mqtt"},
			{[]string{"mqtt"}, []string{"chat", "mqtt"}, "mqtt"},
			{[]string{"mqtt"}, []string{"MQTT"}, ""},
			{[]string{"mqtt"}, nil, ""},
			{nil, []string{"mqtt"}, ""},
		} {
			s, c := l.both(&websocket.AcceptOptions{Subprotocols: tc.server}, &websocket.DialOptions{Subprotocols: tc.client})
			require.Equal(l, tc.want, s.Subprotocol())
			require.Equal(l, tc.want, c.Subprotocol())
		}
	})
}

func TestAConnTellsWhatCarriesIt(t *testing.T) {
	versions(t, func(l *lab) {
		s, c := l.both(nil, nil)
		for _, conn := range []*websocket.Conn{s, c} {
			require.Equal(l, l.proto, conn.Proto())
			require.Equal(l, l.proto == "HTTP/3.0", conn.HTTP3() != nil)
			require.Equal(l, l.proto == "HTTP/3.0", conn.RemoteAddr() != nil && conn.RemoteAddr().Network() == "udp")
		}
	})
}

func TestHandshakesThatAClientRefuses(t *testing.T) {
	versions(t, func(l *lab) {
		l.mu.Lock()
		l.answer = http.Header{"Sec-Websocket-Protocol": {"chat"}}
		l.mu.Unlock()
		for _, offered := range [][]string{nil, {"mqtt"}} {
			_, err := l.dial("/raw", websocket.DialOptions{Subprotocols: offered})
			var e *websocket.HandshakeError
			require.ErrorAs(l, err, &e)
			require.Contains(l, e.Error(), "chat")
			(<-l.taken).reset()
		}
		l.setOptions(nil)
		_, err := l.dial("/accept", websocket.DialOptions{Header: http.Header{"Origin": {"https://evil.example"}}})
		var e *websocket.HandshakeError
		require.ErrorAs(l, err, &e)
		require.Equal(l, 403, e.StatusCode)
		require.Contains(l, string(e.Body), "evil.example")
		require.Error(l, (<-l.accepted).err)
	})
}

func TestDialRefusesWhatCannotWork(t *testing.T) {
	for _, tc := range []struct {
		url  string
		opts websocket.DialOptions
		want string
	}{
		{"ftp://localhost", websocket.DialOptions{}, `scheme "ftp"`},
		{"wss://", websocket.DialOptions{}, "no host"},
		{"wss://localhost/#top", websocket.DialOptions{}, "fragment"},
		{"://", websocket.DialOptions{}, "missing protocol scheme"},
		{"wss://localhost", websocket.DialOptions{Heartbeat: &websocket.Heartbeat{Interval: -time.Second}}, "negative Heartbeat"},
		{"wss://localhost", websocket.DialOptions{Version: 4}, "version 4"},
		{"wss://localhost", websocket.DialOptions{Version: 3}, "needs DialOptions.Transport"},
	} {
		_, err := websocket.Dial(t.Context(), tc.url, &tc.opts)
		require.ErrorContains(t, err, tc.want)
	}
	_, err := websocket.Dial(t.Context(), "wss://localhost", &websocket.DialOptions{Version: 2, Transport: http.DefaultTransport})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestTheContextOfDialBoundsTheHandshakeOnly(t *testing.T) {
	versions(t, func(l *lab) {
		ctx, cancel := context.WithCancel(l.Context())
		l.setOptions(nil)
		c, err := websocket.Dial(ctx, l.url+"/accept", &websocket.DialOptions{Transport: l.transport})
		require.NoError(l, err)
		l.closeLater(c)
		s := (<-l.accepted).conn
		l.closeLater(s)
		cancel()
		time.Sleep(time.Second)
		go func() { _ = echo(s) }() // ends with the connection
		require.NoError(l, c.Write(l.Context(), websocket.Text, []byte("still here")))
		_, p, err := c.Read(l.Context())
		require.NoError(l, err)
		require.Equal(l, "still here", string(p))

		_, err = websocket.Dial(ctx, l.url+"/accept", &websocket.DialOptions{Transport: l.transport})
		require.ErrorIs(l, err, context.Canceled)
	})
}

// A server of HTTP/2 that does not offer extended CONNECT is told from others.
func TestAServerWithoutExtendedConnect(t *testing.T) {
	serverTLS, clientTLS := testcert.New("h2")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener or the connection
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_, _ = io.ReadFull(nc, make([]byte, len(http2.ClientPreface))) // the frames say it
		fr := http2.NewFramer(nc, nc)
		for err = fr.WriteSettings(); err == nil; {
			_, err = fr.ReadFrame()
		}
	})
	_, err = websocket.Dial(t.Context(), "wss://"+ln.Addr().String(), &websocket.DialOptions{Version: 2, TLS: clientTLS})
	var e *websocket.HandshakeError
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.NoError(t, ln.Close())
	wg.Wait()
}

func TestAResponseWriterWithoutAStreamGetsAnAnswer(t *testing.T) {
	for _, r := range []*http.Request{
		{Method: "GET", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}},
		{Method: "CONNECT", Proto: "HTTP/3.0", ProtoMajor: 3, Header: http.Header{
			":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"},
		}},
	} {
		w := httptest.NewRecorder()
		_, err := websocket.Accept(w, r, nil)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Equal(t, http.StatusNotImplemented, w.Code)
	}
}
