package mqtttest_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqtttest"
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
	carriers := []mqtttest.Carrier{mqtttest.TCP(), mqtttest.TLS(), mqtttest.WebSocket(), mqtttest.WSS()}
	for _, e := range engine.All() {
		listen := func(addr string, cfg *mqttquic.ListenConfig) (*mqttquic.Listener, error) {
			return mqttquic.ListenAddr(e, addr, cfg)
		}
		carriers = append(carriers, mqtttest.QUIC("quic-"+e.Name(), listen, &mqttquic.Dialer{Transport: e}))
	}
	for _, c := range carriers {
		t.Run(c.Name, func(t *testing.T) { mqtttest.Run(t, c) })
	}
}
