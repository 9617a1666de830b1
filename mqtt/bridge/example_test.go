package bridge_test

import (
	"context"
	"fmt"
	"net"
	"net/url"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func Example() {
	ctx := context.Background()
	here, err := broker.New(&broker.Config{Node: "here"})
	if err != nil {
		panic(err)
	}
	defer here.Close()
	there, err := broker.New(&broker.Config{Node: "there"})
	if err != nil {
		panic(err)
	}
	defer there.Close()

	b, err := bridge.New(&bridge.Config{
		Name:    "up",
		Local:   here,
		Forward: []bridge.Rule{{Filter: "sensors/#", To: "here/sensors/$1"}},
		Remote:  client.Config{URL: "mqtt://there", Dial: inMemory(there)}, // or mqtt+quic://broker.example and a dialer
	})
	if err != nil {
		panic(err)
	}
	defer b.Close()

	got := make(chan string)
	sub, err := client.Dial(ctx, &client.Config{URL: "mqtt://there", Dial: inMemory(there)})
	if err != nil {
		panic(err)
	}
	defer sub.Close()
	_, err = sub.Subscribe(ctx, func(p *packet.Publish) { got <- p.Topic + ": " + string(p.Payload) }, packet.Subscription{Filter: "#", QoS: 1})
	if err != nil {
		panic(err)
	}

	pub, err := client.Dial(ctx, &client.Config{URL: "mqtt://here", Dial: inMemory(here)})
	if err != nil {
		panic(err)
	}
	defer pub.Close()
	if _, err := pub.Publish(ctx, &packet.Publish{Topic: "sensors/1/temp", Payload: []byte("21.5"), QoS: 1}); err != nil {
		panic(err)
	}
	fmt.Println(<-got)
	// Output: here/sensors/1/temp: 21.5
}

// inMemory connects to a broker of this program.
func inMemory(b *broker.Broker) func(context.Context, *url.URL) (net.Conn, error) {
	return func(context.Context, *url.URL) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _ = b.ServeLink(context.Background(), mqtt.NewConnLink(theirs, mqtt.TCP)) }() // until ours is closed
		return ours, nil
	}
}
