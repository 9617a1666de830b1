package mqtttest

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
)

// WebSocket is MQTT in binary WebSocket messages on TCP (MQTT 5, Section 6).
func WebSocket() Carrier {
	return Carrier{Name: "ws", Kind: mqtt.WebSocket, Serve: func(t testing.TB, b *broker.Broker) Target {
		addr := serveHTTP(t, b, nil)
		return dialedBy(t, new(mqttweb.Dialer), "ws://"+addr+mqttweb.Path, nil)
	}}
}

// WSS is WebSocket on TLS.
func WSS() Carrier { return secureWebSocket("wss", mqtt.WSS, "http/1.1") }

// WSSH2 is WebSocket on HTTP/2, which net/http must allow: see package
// http3/websocket.
func WSSH2() Carrier { return secureWebSocket("wss+h2", mqtt.WSSH2, "h2") }

func secureWebSocket(scheme string, kind mqtt.Carrier, alpn string) Carrier {
	server, clientTLS := testcert.New()
	return Carrier{Name: scheme, Kind: kind, ALPN: alpn, Serve: func(t testing.TB, b *broker.Broker) Target {
		addr := serveHTTP(t, b, server)
		return dialedBy(t, new(mqttweb.Dialer), scheme+"://"+addr+mqttweb.Path, clientTLS)
	}}
}

// serveHTTP serves b on TCP, with TLS if server is not nil.
func serveHTTP(t testing.TB, b *broker.Broker, server *tls.Config) (addr string) {
	l := listenTCP(t)
	hs := &http.Server{Handler: webHandler(t, b), TLSConfig: server.Clone()}
	served := make(chan struct{})
	go func() { // ends with hs.Close
		defer close(served)
		if server != nil {
			_ = hs.ServeTLS(l, "", "")
		} else {
			_ = hs.Serve(l)
		}
	}()
	t.Cleanup(func() { hs.Close(); <-served })
	return l.Addr().String()
}

// webHandler serves what comes over HTTP.
func webHandler(t testing.TB, b *broker.Broker) http.Handler {
	web := mqttweb.NewListener(nil)
	serve(t, func() error { return b.ServeLinks(web) })
	mux := http.NewServeMux()
	mux.Handle(mqttweb.Path, web)
	return mux
}

// OnHTTP3 is WebSocket or WebTransport on HTTP/3 by an engine, which d has. serve
// answers requests over HTTP/3 with a handler, for MQTT, until the test ends, and
// returns the address of its socket on loopback.
func OnHTTP3(name, scheme string, kind mqtt.Carrier, serve func(testing.TB, http.Handler, *tls.Config) (addr string), d *mqttweb.Dialer) Carrier {
	server, clientTLS := testcert.New()
	return Carrier{Name: name, Kind: kind, ALPN: "h3", Serve: func(t testing.TB, b *broker.Broker) Target {
		addr := serve(t, webHandler(t, b), server)
		return dialedBy(t, d, scheme+"://"+addr+mqttweb.Path, clientTLS)
	}}
}
