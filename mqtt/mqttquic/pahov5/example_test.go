package pahov5_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttquic/pahov5"
	"github.com/anyquic/anyquic/transport/engine"
)

// A program on paho.golang gets MQTT over QUIC by AttemptConnection.
func ExampleAttempt() {
	ctx := context.Background()
	serverTLS, clientTLS := testcert.New()
	server := serve(serverTLS)
	defer server.close()

	got := make(chan string, 1)
	cfg := autopaho.ClientConfig{
		ServerUrls:        []*url.URL{{Scheme: "mqtt+quic", Host: server.addr}},
		TlsCfg:            clientTLS,
		AttemptConnection: pahov5.Attempt(&mqttquic.Dialer{Transport: engine.Default()}), // the one line
		KeepAlive:         20,
		ClientConfig: paho.ClientConfig{
			ClientID: "example",
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				got <- string(p.Packet.Payload)
				return true, nil
			}},
		},
	}
	c, err := autopaho.NewConnection(ctx, cfg)
	if err != nil {
		panic(err)
	}
	if err := c.AwaitConnection(ctx); err != nil {
		panic(err)
	}
	if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "hello/+", QoS: 1}}}); err != nil {
		panic(err)
	}
	if _, err := c.Publish(ctx, &paho.Publish{Topic: "hello/quic", Payload: []byte("hello over QUIC"), QoS: 1}); err != nil {
		panic(err)
	}
	fmt.Println(<-got)
	_ = c.Disconnect(ctx)
	// Output: hello over QUIC
}

type exampleServer struct {
	addr  string
	close func()
}

// serve starts a broker on QUIC.
func serve(conf *tls.Config) exampleServer {
	b, err := broker.New(nil)
	if err != nil {
		panic(err)
	}
	l, err := mqttquic.ListenAddr(engine.Default(), "127.0.0.1:0", &mqttquic.ListenConfig{TLS: conf})
	if err != nil {
		panic(err)
	}
	go b.ServeLinks(l) // ends with b.Close
	return exampleServer{l.Addr().String(), func() { b.Close(); l.CloseNow() }}
}
