package broker_test

import (
	"context"
	"fmt"
	"net"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
)

func Example() {
	b, err := broker.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- b.Serve(l, mqtt.TCP) }()

	// Clients connect to l.Addr() here.

	fmt.Println(b.Shutdown(context.Background()))
	fmt.Println(<-served)
	// Output:
	// <nil>
	// <nil>
}
