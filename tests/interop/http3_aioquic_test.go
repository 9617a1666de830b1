//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	"github.com/anyquic/anyquic/http3/websocket"
	"github.com/anyquic/anyquic/http3/webtransport"
	"github.com/anyquic/anyquic/transport"
)

const aioquicWebScript = "testdata/aioquic_web.py"

// An aioquicWeb is aioquic's client.
type aioquicWeb struct {
	*jsonProcess
	server string // the engine
}

// An aioquicAnswer is what it says after a request or a session.
type aioquicAnswer struct {
	Error   string              `json:"error"`
	ALPN    string              `json:"alpn"`
	Early   bool                `json:"early"`
	Heads   []map[string]string `json:"heads"` // interim, final, trailers
	Sum     string              `json:"sum"`
	Text    string              `json:"text"`
	Answers []aioquicAnswer     `json:"answers"`

	Echo  [][3]any `json:"echo"`  // of WebSocket: opcode, length, sum
	Close [2]int   `json:"close"` // opcode and status code

	Hello    string `json:"hello"` // of WebTransport
	Bidi     string `json:"bidi"`
	Uni      string `json:"uni"`
	Datagram string `json:"datagram"`
}

func (a aioquicAnswer) status() string { return a.Heads[len(a.Heads)-1][":status"] }

func aioquicConnects(t *testing.T, s *site) *aioquicWeb {
	t.Helper()
	c := &aioquicWeb{startJSON(t, foreignProgram(t, "aioquic-python"), aioquicWebScript, "client", s.id.certFile), s.engine.Name()}
	c.must(t, map[string]any{"do": "connect", "addr": s.addr})
	return c
}

// must has the client do something, which must not fail.
func (c *aioquicWeb) must(t *testing.T, req map[string]any) (a aioquicAnswer) {
	t.Helper()
	require.NoError(t, c.call(req, &a))
	require.Empty(t, a.Error, "server %s, ALPN h3, %v", c.server, req)
	return a
}

func TestAioquicsClientExchangesRequests(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		c := aioquicConnects(t, s)
		const size = 2 << 20
		got := c.must(t, map[string]any{"do": "request", "method": "GET", "path": pathBytes + "2097152"})
		require.Equal(t, h3ALPN, got.ALPN)
		require.Equal(t, "200", got.status())
		require.Equal(t, sumOf(pattern(size)), got.Sum, "server %s, ALPN h3", c.server)

		got = c.must(t, map[string]any{"do": "request", "method": "POST", "path": pathSum, "up": size})
		var seen uploadSeen
		require.NoError(t, json.Unmarshal([]byte(got.Text), &seen), got.Text)
		require.Equal(t, uploadSeen{"POST", "HTTP/3.0", size, sumOf(pattern(size)), h3ALPN}, seen, "server %s", c.server)

		got = c.must(t, map[string]any{"do": "request", "method": "POST", "path": pathEcho, "up": 100_000, "trailer": "from aioquic"})
		require.Equal(t, sumOf(pattern(100_000)), got.Sum)
		require.Equal(t, "from aioquic", got.Heads[1]["x-trailer"], "trailers both ways")

		// Not pathHints: to aioquic 1.3.0 what follows a 103 are trailers. Nor HEAD: it
		// wants a body of the Content-Length.
		got = c.must(t, map[string]any{"do": "request", "method": "GET", "path": pathTrailers})
		require.Len(t, got.Heads, 2)
		require.Equal(t, "at the end", got.Heads[1]["x-trailer"])

		var paths []string
		for i := range 60 {
			paths = append(paths, fmt.Sprint(pathBytes, 1000+i))
		}
		all := c.must(t, map[string]any{"do": "parallel", "paths": paths})
		require.Len(t, all.Answers, len(paths))
		for i, a := range all.Answers {
			require.Equal(t, sumOf(pattern(1000+i)), a.Sum)
		}
		c.must(t, map[string]any{"do": "close"})
	})
}

func TestAioquicsClientSendsEarlyData(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		c := aioquicConnects(t, s)
		got := c.must(t, map[string]any{"do": "request", "method": "GET", "path": pathEarly})
		require.Equal(t, "false", got.Text)
		c.must(t, map[string]any{"do": "close"})
		c.must(t, map[string]any{"do": "connect", "addr": s.addr, "early": true})
		got = c.must(t, map[string]any{"do": "request", "method": "GET", "path": pathEarly})
		require.Equal(t, "true", got.Text, "server %s, ALPN h3", c.server)
		require.True(t, got.Early)
		c.must(t, map[string]any{"do": "close"})
	})
}

func TestAioquicsClientSpeaksWebSocketOverHTTP3(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		c := aioquicConnects(t, s)
		messages := [][2]int{{1, 5}, {2, 0}, {2, 125}, {1, 126}, {2, 70_000}}
		got := c.must(t, map[string]any{"do": "websocket", "path": pathWS, "origin": s.url(""), "messages": messages})
		require.Equal(t, "200", got.status())
		require.Equal(t, "echo", got.Heads[0]["sec-websocket-protocol"])
		require.Len(t, got.Echo, len(messages))
		for i, m := range messages {
			sent := pattern(m[1])
			if m[0] == 1 {
				sent = bytes.Repeat([]byte("a"), m[1])
			}
			require.Equal(t, [3]any{float64(m[0]), float64(m[1]), sumOf(sent)}, got.Echo[i], "server %s, ALPN h3", c.server)
		}
		require.Equal(t, [2]int{8, 1000}, got.Close)

		got = c.must(t, map[string]any{"do": "websocket", "path": pathWS, "origin": "https://evil.example", "messages": messages})
		require.Equal(t, "403", got.status(), "server %s: a page of another origin", c.server)
		c.must(t, map[string]any{"do": "close"})
	})
}

func TestAioquicsClientSpeaksWebTransport(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		c := aioquicConnects(t, s)
		const size = 300_000
		got := c.must(t, map[string]any{"do": "webtransport", "path": pathWT, "origin": s.url(""), "size": size})
		require.Equal(t, "200", got.status())
		require.Equal(t, "hello from the server", got.Hello, "server %s, ALPN h3", c.server)
		require.Equal(t, sumOf(pattern(size)), got.Bidi)
		require.Equal(t, sumOf(pattern(size)), got.Uni)
		require.Equal(t, "datagram", got.Datagram)

		got = c.must(t, map[string]any{"do": "webtransport", "path": pathWT, "origin": "https://evil.example", "size": size})
		require.Equal(t, "403", got.status(), "server %s: a page of another origin", c.server)
		c.must(t, map[string]any{"do": "close"})
	})
}

// startAioquicWeb runs aioquic's server.
func startAioquicWeb(t *testing.T) (addr string, id *identity) {
	t.Helper()
	id = newIdentity(t)
	p := startJSON(t, foreignProgram(t, "aioquic-python"), aioquicWebScript, "server", id.certFile, id.keyFile)
	var hello struct{ Addr string }
	require.NoError(t, p.read(&hello))
	require.NotEmpty(t, hello.Addr)
	return hello.Addr, id
}

func TestAioquicsServerAnswersRequests(t *testing.T) {
	eachWebClient(t, startAioquicWeb, func(t *testing.T, c webClient) {
		const size = 2 << 20
		resp, got, err := c.do(http.MethodGet, pathBytes+"2097152", nil, nil)
		require.NoError(t, err, "client %s, ALPN h3", c.engine.Name())
		require.Equal(t, "HTTP/3.0", resp.Proto)
		require.True(t, bytes.Equal(pattern(size), got))

		resp, _, err = c.do(http.MethodPost, pathBytes+"0", pattern(size), http.Header{"User-Agent": {"anyquic"}})
		require.NoError(t, err, "client %s, ALPN h3", c.engine.Name())
		require.Equal(t, sumOf(pattern(size)), resp.Header.Get("X-Sum"))
		require.Equal(t, "POST anyquic", resp.Header.Get("X-Method")+" "+resp.Header.Get("X-User-Agent"))

		resp, got, err = c.do(http.MethodGet, pathTrailers, nil, nil)
		require.NoError(t, err)
		require.Equal(t, "body", string(got))
		require.Equal(t, "at the end", resp.Trailer.Get(siteTrailer), "client %s, ALPN h3", c.engine.Name())

		resp, got, err = c.do(http.MethodHead, pathBytes+"77", nil, nil)
		require.NoError(t, err)
		require.EqualValues(t, 77, resp.ContentLength)
		require.Empty(t, got)

		errs := make(chan error, 100)
		for i := range cap(errs) {
			go func() { // ends with the response, or the client's patience
				_, got, err := c.do(http.MethodGet, fmt.Sprint(pathBytes, i), nil, nil)
				if err == nil && !bytes.Equal(got, pattern(i)) {
					err = errors.New("another body")
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			require.NoError(t, <-errs, "client %s, ALPN h3", c.engine.Name())
		}
	})
}

func TestAioquicsServerSpeaksWebSocketOverHTTP3(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		addr, id := startAioquicWeb(t)
		c, err := websocket.Dial(t.Context(), "wss://"+addr+pathWS, &websocket.DialOptions{
			Transport: newHTTP3Transport(t, e, id), Subprotocols: []string{"echo"}, ReadLimit: -1,
		})
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		defer c.CloseNow()
		require.Equal(t, "HTTP/3.0 echo", c.Proto()+" "+c.Subprotocol())
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for typ, sent := range map[websocket.MessageType][]byte{websocket.Text: []byte(strings.Repeat("é", 1000)), websocket.Binary: pattern(100_000)} {
			require.NoError(t, c.Write(ctx, typ, sent))
			gotType, got, err := c.Read(ctx)
			require.NoError(t, err, "client %s, ALPN h3", e.Name())
			require.Equal(t, typ, gotType)
			require.True(t, bytes.Equal(sent, got))
		}
		require.NoError(t, c.Close(websocket.StatusNormal, "bye"))
		<-c.Context().Done()
		var closed *websocket.CloseError
		require.ErrorAs(t, context.Cause(c.Context()), &closed)
		require.NoError(t, closed.Err, "the server has answered the Close frame")
	})
}

func TestAioquicsServerSpeaksWebTransport(t *testing.T) {
	eachEngine(t, func(t *testing.T, e transport.Transport) {
		addr, id := startAioquicWeb(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s, err := webtransport.Dial(ctx, &http3.Transport{Engine: e, TLS: withoutALPN(id)}, "https://"+addr+pathWT, nil)
		require.NoError(t, err, "client %s, ALPN h3", e.Name())
		defer func() { s.Close(); <-s.Finished() }()
		checkEchoes(ctx, t, s, "client "+e.Name()+", ALPN h3")
	})
}

// checkEchoes uses a session with somebody who does what echoSession does.
func checkEchoes(ctx context.Context, t *testing.T, s *webtransport.Session, who string) {
	t.Helper()
	hello, err := s.AcceptStream(ctx)
	require.NoError(t, err, who)
	got, err := io.ReadAll(hello)
	require.NoError(t, err, who)
	require.Equal(t, "hello from the server", string(got))

	const size = 300_000
	both, err := s.OpenStream(ctx)
	require.NoError(t, err, who)
	_, err = both.WriteLast(pattern(size))
	require.NoError(t, err, who)
	got, err = io.ReadAll(both)
	require.NoError(t, err, who)
	require.True(t, bytes.Equal(pattern(size), got), who)

	uni, err := s.OpenUniStream(ctx)
	require.NoError(t, err, who)
	_, err = uni.WriteLast(pattern(size))
	require.NoError(t, err, who)
	back, err := s.AcceptUniStream(ctx)
	require.NoError(t, err, who)
	got, err = io.ReadAll(back)
	require.NoError(t, err, who)
	require.True(t, bytes.Equal(pattern(size), got), who)

	var d []byte
	for d == nil { // one may be lost
		require.NoError(t, s.SendDatagram([]byte("datagram")), who)
		wait, cancel := context.WithTimeout(ctx, time.Second)
		d, _ = s.ReceiveDatagram(wait)
		cancel()
		require.NoError(t, ctx.Err(), who)
	}
	require.Equal(t, "datagram", string(d))
}
