package client_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// exampleBroker starts a broker and returns its URL.
func exampleBroker() (string, func() error) {
	b, err := broker.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go b.Serve(ln, mqtt.TCP)
	return "mqtt://" + ln.Addr().String(), b.Close
}

func Example() {
	addr, stop := exampleBroker()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.Dial(ctx, &client.Config{URL: addr})
	if err != nil {
		log.Fatal(err)
	}
	got := make(chan bool)
	_, err = c.Subscribe(ctx, func(p *packet.Publish) {
		fmt.Printf("%s: %s\n", p.Topic, p.Payload)
		close(got)
	}, packet.Subscription{Filter: "room/+/temperature", QoS: packet.AtLeastOnce})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Publish(ctx, &packet.Publish{
		Topic: "room/7/temperature", Payload: []byte("21.5"), QoS: packet.AtLeastOnce,
	})
	if err != nil {
		log.Fatal(err)
	}
	<-got
	if err := c.Disconnect(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: room/7/temperature: 21.5
}

func ExampleClient_Request() {
	addr, stop := exampleBroker()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.Dial(ctx, &client.Config{URL: addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Subscribe(ctx, func(p *packet.Publish) {
		// A response goes where the request says, with its correlation data.
		_ = c.PublishAsync(ctx, &packet.Publish{
			Topic: p.Properties.ResponseTopic, Payload: []byte("pong"), QoS: packet.AtLeastOnce,
			Properties: &packet.Properties{CorrelationData: p.Properties.CorrelationData},
		}, nil)
	}, packet.Subscription{Filter: "ping", QoS: packet.AtLeastOnce})
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.Request(ctx, "ping", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", p.Payload)
	// Output: pong
}
