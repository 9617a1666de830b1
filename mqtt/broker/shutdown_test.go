package broker_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func TestShutdownTellsClientsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, nil)
		polite, deaf, old, early := connect(t, b, "polite"), connect(t, b, "deaf"), connect(t, b, "old", v311), dial(t, b)
		began := time.Now()
		done := make(chan error)
		go func() { done <- b.Shutdown(context.Background()) }()
		require.Equal(t, packet.ServerShuttingDown, receive[*packet.Disconnect](polite).Code)
		polite.close()
		early.closed()
		require.Zero(t, time.Since(began))
		require.NoError(t, <-done)
		require.InDelta(t, time.Second, time.Since(began), float64(50*time.Millisecond))
		<-deaf.end
		<-old.end
		require.ErrorIs(t, b.ServeLink(context.Background(), mqtt.NewConnLink(early.conn, mqtt.TCP)), net.ErrClosed)
	})
}

func TestShutdownEndsAtOnceWhenItsContextDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, &broker.Config{DrainTimeout: time.Hour})
		deaf := connect(t, b, "deaf")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		<-deaf.end
	})
}

func TestShutdownDeliversWhatWasWrittenOverTCP(t *testing.T) {
	b := newBroker(t, nil)
	addr := serveTCP(t, b)
	c := dialTCP(t, addr, "a")
	c.subscribe(packet.Subscription{Filter: "t"})
	go flood(c, "t", 0, 1000, 1000) // leaves data unread in the broker
	done := make(chan error)
	receive[*packet.Publish](c)
	go func() { done <- b.Shutdown(context.Background()) }()
	for {
		p, err := c.read()
		require.NoError(t, err)
		if d, ok := p.(*packet.Disconnect); ok {
			require.Equal(t, packet.ServerShuttingDown, d.Code)
			break
		}
	}
	c.conn.Close()
	require.NoError(t, <-done)
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	b, err := broker.New(nil)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error)
	go func() { served <- b.Serve(l, mqtt.TCP) }()
	web := httptest.NewServer(b.WebSocketHandler())
	var conns []net.Conn
	for i := range 20 {
		c := dialTCP(t, l.Addr().String(), string(rune('a'+i)))
		c.subscribe(packet.Subscription{Filter: "#"})
		conns = append(conns, c.conn)
		go flood(c, "t", 0, 1000, 1000)
	}
	ws := dialWebSocket(t, web.URL, nil, "mqtt")
	require.Equal(t, packet.Success, ws.connect("ws").Code)
	require.NoError(t, b.Close())
	require.NoError(t, <-served)
	require.NoError(t, b.Serve(l, mqtt.TCP))
	for _, c := range append(conns, ws.conn) {
		c.Close()
	}
	web.Close()
	http.DefaultClient.CloseIdleConnections()
	// One more is Eventually's own.
	if !assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 5*time.Second, 5*time.Millisecond) {
		stacks := make([]byte, 1<<20)
		t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
	}
}

func dialWebSocket(t *testing.T, url string, client *http.Client, protocols ...string) *peer {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: protocols, HTTPClient: client})
	require.NoError(t, err)
	conn := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	t.Cleanup(func() { ws.CloseNow() })
	return &peer{t: t, conn: conn, r: mqtt.NewReader(conn, 0), v: packet.V5}
}

func TestWebSocket(t *testing.T) {
	for _, carrier := range []mqtt.Carrier{mqtt.WebSocket, mqtt.WSS} {
		t.Run(string(carrier), func(t *testing.T) {
			b := newBroker(t, nil)
			web := httptest.NewUnstartedServer(b.WebSocketHandler())
			if carrier == mqtt.WSS {
				web.TLS = &tls.Config{}
				web.StartTLS()
			} else {
				web.Start()
			}
			defer web.Close()
			c := dialWebSocket(t, web.URL, web.Client(), "mqtt")
			require.Equal(t, packet.Success, c.connect("a").Code)
			require.EqualValues(t, 1, b.Stats().Connections[carrier].Now)
			c.subscribe(packet.Subscription{Filter: "t"})
			for _, one := range encode(t, packet.V5, &packet.Publish{Topic: "t", Payload: []byte("in pieces")}) {
				c.sendBytes(one) // packets may span messages
			}
			c.message("t", "in pieces")
			done := make(chan error)
			go func() { done <- b.Shutdown(context.Background()) }()
			require.Equal(t, packet.ServerShuttingDown, receive[*packet.Disconnect](c).Code)
			_, err := c.read()
			require.ErrorIs(t, err, io.EOF)
			c.conn.Close()
			require.NoError(t, <-done)
		})
	}
	t.Run("without the subprotocol is refused", func(t *testing.T) {
		b := newBroker(t, nil)
		web := httptest.NewServer(b.WebSocketHandler())
		defer web.Close()
		ws, _, err := websocket.Dial(t.Context(), web.URL, nil)
		require.NoError(t, err)
		_, _, err = ws.Read(t.Context())
		require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err))
	})
	t.Run("text messages end the connection", func(t *testing.T) {
		b := newBroker(t, nil)
		web := httptest.NewServer(b.WebSocketHandler())
		defer web.Close()
		ws, _, err := websocket.Dial(t.Context(), web.URL, &websocket.DialOptions{Subprotocols: []string{"mqttv3.1"}})
		require.NoError(t, err)
		require.NoError(t, ws.Write(t.Context(), websocket.MessageText, []byte("\x10")))
		_, _, err = ws.Read(t.Context())
		require.Error(t, err)
	})
	t.Run("another origin is refused", func(t *testing.T) {
		b := newBroker(t, nil)
		web := httptest.NewServer(b.WebSocketHandler())
		defer web.Close()
		_, resp, err := websocket.Dial(t.Context(), strings.Replace(web.URL, "http", "ws", 1), &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, HTTPHeader: http.Header{"Origin": {"https://example.com"}}})
		require.Error(t, err)
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
	})
}
