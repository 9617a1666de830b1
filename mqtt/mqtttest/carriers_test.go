package mqtttest_test

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/http3"
	_ "github.com/anyquic/anyquic/http3/websocket/http2connect"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqtttest"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// The cases that wait for a keep-alive or an expiry use no processor meanwhile.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

func TestBroker(t *testing.T) {
	carriers := []mqtttest.Carrier{mqtttest.TCP(), mqtttest.TLS(), mqtttest.WebSocket(), mqtttest.WSS(), mqtttest.WSSH2()}
	for _, e := range engine.All() {
		listen := func(addr string, cfg *mqttquic.ListenConfig) (*mqttquic.Listener, error) {
			return mqttquic.ListenAddr(e, addr, cfg)
		}
		carriers = append(carriers, mqtttest.QUIC("quic-"+e.Name(), listen, &mqttquic.Dialer{Transport: e}))
		web := func(scheme string, kind mqtt.Carrier) mqtttest.Carrier {
			return mqtttest.OnHTTP3(scheme+"-"+e.Name(), scheme, kind, serveHTTP3(e), &mqttweb.Dialer{Transport: e})
		}
		one := web("mqtt+wt", mqtt.WebTransport)
		one.Name, one.OneStream = one.Name+"-one-stream", true
		carriers = append(carriers, web("wss+h3", mqtt.WSSH3), web("mqtt+wt", mqtt.WebTransport), one)
	}
	for _, c := range carriers {
		t.Run(c.Name, func(t *testing.T) { mqtttest.Run(t, c) })
	}
}

// serveHTTP3 returns a server of HTTP/3 by an engine.
func serveHTTP3(e transport.Transport) func(testing.TB, http.Handler, *tls.Config) string {
	return func(t testing.TB, h http.Handler, server *tls.Config) string {
		hs := &http3.Server{TLS: server, Handler: h}
		hs.Transport, hs.Extensions = mqttweb.ServerConfig(nil)
		cfg, err := hs.TransportConfig()
		require.NoError(t, err)
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		ep, err := e.Open(pc, nil)
		require.NoError(t, err)
		l, err := ep.Listen(cfg)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- hs.Serve(l) }() // ends with Close
		t.Cleanup(func() {
			require.NoError(t, errors.Join(hs.Close(), ep.Close()))
			require.ErrorIs(t, <-served, http.ErrServerClosed)
		})
		return pc.LocalAddr().String()
	}
}
