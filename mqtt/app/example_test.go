package app_test

import (
	"context"
	"fmt"
	"log"

	"github.com/anyquic/anyquic/mqtt/app"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/packet"
)

func Example() {
	b, err := broker.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	a := app.New(nil)
	defer a.Close()
	a.Handle("greet/{name}", func(_ context.Context, m *app.Message) error {
		return m.Reply([]byte("hello, " + m.Named("name")))
	})
	subscribed := make(chan struct{})
	a.Handle("ready", func(context.Context, *app.Message) error { close(subscribed); return nil })
	if _, err := b.Publish(context.Background(), &packet.Publish{Topic: "ready", Payload: []byte("yes"), Retain: true}); err != nil {
		log.Fatal(err)
	}
	go a.ServeBroker(context.Background(), b) // or ServeClient; it ends with Close
	<-subscribed

	answer, err := a.Request(context.Background(), "greet/world", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", answer.Payload)
	// Output: hello, world
}
