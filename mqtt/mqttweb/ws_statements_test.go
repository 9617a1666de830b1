package mqttweb_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// webServer is a broker behind WebSocket on HTTP/1.1; it returns its URL.
func webServer(t *testing.T) string {
	b, err := broker.New(nil)
	require.NoError(t, err)
	web := mqttweb.NewListener(nil)
	served := make(chan error, 1)
	go func() { served <- b.ServeLinks(web) }() // ends with web
	hs := httptest.NewServer(web)
	t.Cleanup(func() {
		require.NoError(t, web.Close())
		require.NoError(t, b.Close())
		<-served
		hs.Close()
	})
	return "ws" + strings.TrimPrefix(hs.URL, "http")
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestTheServerSelectsTheSubprotocolMqtt(t *testing.T) {
	t.Attr("mqtt5", "MQTT-6.0.0-4")
	t.Attr("mqtt3.1.1", "MQTT-6.0.0-4")
	for _, offered := range [][]string{{"mqtt"}, {"other", "mqtt"}, {"mqtt", "other"}, {"mqttv3.1", "mqtt"}} {
		ws, resp, err := websocket.Dial(patient(t), webServer(t), &websocket.DialOptions{Subprotocols: offered})
		require.NoError(t, err)
		require.Equal(t, "mqtt", resp.Header.Get("Sec-WebSocket-Protocol"))
		require.NoError(t, ws.CloseNow())
	}
}

func TestATextMessageEndsTheConnection(t *testing.T) {
	t.Attr("mqtt5", "server: MQTT-6.0.0-1")
	t.Attr("mqtt3.1.1", "server: MQTT-6.0.0-1")
	ws, _, err := websocket.Dial(patient(t), webServer(t), &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	require.NoError(t, err)
	connect := encode(t, &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true})
	require.NoError(t, ws.Write(patient(t), websocket.MessageBinary, connect))
	typ, _, err := ws.Read(patient(t))
	require.NoError(t, err)
	require.Equal(t, websocket.MessageBinary, typ, "the server's are binary")
	require.NoError(t, ws.Write(patient(t), websocket.MessageText, encode(t, &packet.Pingreq{})))
	for err == nil { // it may say DISCONNECT, and nothing else
		var b []byte
		if _, b, err = ws.Read(patient(t)); err == nil {
			require.Equal(t, byte(packet.DISCONNECT)<<4, b[0])
		}
	}
	require.NoError(t, patient(t).Err())
}

func TestPacketsAndFramesNeedNotCoincide(t *testing.T) {
	t.Attr("mqtt5", "server: MQTT-6.0.0-2")
	t.Attr("mqtt3.1.1", "server: MQTT-6.0.0-2")
	all := encode(t, &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}, &packet.Pingreq{}, &packet.Pingreq{})
	for _, size := range []int{1, 2, 7, len(all) - 1, len(all)} {
		ws, _, err := websocket.Dial(patient(t), webServer(t), &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
		require.NoError(t, err)
		for rest := all; len(rest) > 0; {
			n := min(size, len(rest))
			require.NoError(t, ws.Write(patient(t), websocket.MessageBinary, rest[:n]))
			rest = rest[n:]
		}
		var got []byte
		for !strings.HasSuffix(string(got), "\xd0\x00\xd0\x00") {
			_, b, err := ws.Read(patient(t))
			require.NoError(t, err)
			got = append(got, b...)
		}
		require.Equal(t, byte(packet.CONNACK)<<4, got[0])
		require.NoError(t, ws.CloseNow())
	}
}

// A webPeer is a server that takes one WebSocket and shows what the client does.
func webPeer(t *testing.T, offered chan<- string, serve func(*websocket.Conn)) *url.URL {
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offered <- r.Header.Get("Sec-WebSocket-Protocol")
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		serve(ws)
	}))
	t.Cleanup(hs.Close)
	u, err := url.Parse("ws" + strings.TrimPrefix(hs.URL, "http"))
	require.NoError(t, err)
	return u
}

func TestTheClientSpeaksBinaryOfAnySizeAndOffersMqtt(t *testing.T) {
	t.Attr("mqtt5", "client: MQTT-6.0.0-1 MQTT-6.0.0-2 MQTT-6.0.0-3")
	t.Attr("mqtt3.1.1", "client: MQTT-6.0.0-1 MQTT-6.0.0-2 MQTT-6.0.0-3")
	offered := make(chan string, 1)
	types := make(chan websocket.MessageType, 1)
	u := webPeer(t, offered, func(ws *websocket.Conn) {
		typ, _, err := ws.Read(patient(t))
		types <- typ
		answer := encode(t, &packet.Connack{}, &packet.Pingresp{})
		for i := 0; i < len(answer) && err == nil; i++ {
			err = ws.Write(patient(t), websocket.MessageBinary, answer[i:i+1])
		}
		if err == nil {
			_ = ws.Write(patient(t), websocket.MessageText, encode(t, &packet.Pingresp{}))
			_, _, _ = ws.Read(patient(t)) // until the client closes
		}
	})
	link, err := new(mqttweb.Dialer).DialLink(patient(t), u, nil)
	require.NoError(t, err)
	protocols := strings.FieldsFunc(<-offered, func(r rune) bool { return r == ',' || r == ' ' })
	require.Contains(t, protocols, "mqtt")
	c := newClient(t, link)
	c.send(&packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true})
	require.Equal(t, websocket.MessageBinary, <-types)
	receive[*packet.Connack](c)
	receive[*packet.Pingresp](c)
	_, _, err = c.in.Next()
	require.Error(t, err, "a text message is no part of the stream")
	require.NoError(t, patient(t).Err())
}
