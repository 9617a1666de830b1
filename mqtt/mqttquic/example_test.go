package mqttquic_test

import (
	"context"
	"fmt"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

// A broker on QUIC, and a client of it.
func Example() {
	ctx := context.Background()
	quic := engine.Default()
	serverTLS, clientTLS := testcert.New()

	b, err := broker.New(nil)
	if err != nil {
		panic(err)
	}
	defer b.Close()
	l, err := mqttquic.ListenAddr(quic, "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS})
	if err != nil {
		panic(err)
	}
	defer l.CloseNow()
	go b.ServeLinks(l) // ends with b.Close

	c, err := client.Dial(ctx, &client.Config{
		URL:     "mqtt+quic://" + l.Addr().String(),
		TLS:     clientTLS,
		Dialers: []client.LinkDialer{&mqttquic.Dialer{Transport: quic}},
	})
	if err != nil {
		panic(err)
	}
	got := make(chan string, 1)
	handler := func(p *packet.Publish) { got <- string(p.Payload) }
	if _, err := c.Subscribe(ctx, handler, packet.Subscription{Filter: "hello/+", QoS: 1}); err != nil {
		panic(err)
	}
	if _, err := c.Publish(ctx, &packet.Publish{Topic: "hello/quic", Payload: []byte("hello"), QoS: 1}); err != nil {
		panic(err)
	}
	fmt.Println(<-got, "over", c.Carrier(), c.TLS().NegotiatedProtocol)
	if err := c.Disconnect(ctx); err != nil {
		panic(err)
	}
	// Output: hello over quic mqtt
}
