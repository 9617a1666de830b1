// Command app is an MQTT broker on QUIC with handlers of its own.
package main

import (
	"context"
	"crypto/tls"
	"log"

	"github.com/anyquic/anyquic/mqtt/app"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
	a := app.New(nil)
	a.Handle("greetings/{name}", func(_ context.Context, m *app.Message) error {
		text, err := m.Text()
		if err != nil {
			return err // the publisher hears "Payload format invalid"
		}
		log.Printf("%s says %s to %s", m.Client().Carrier, text, m.Named("name"))
		return m.Publish("log/greetings", m.Payload)
	})
	a.Handle("add", func(_ context.Context, m *app.Message) error {
		var n struct{ A, B int }
		if err := m.JSON(&n); err != nil {
			return err
		}
		return m.ReplyJSON(n.A + n.B) // to whoever calls client.Request, or mosquitto_rr
	})

	cert, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	b, err := broker.New(&broker.Config{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := mqttquic.ListenAddr(engine.Default(), "localhost:14567", &mqttquic.ListenConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(b.ServeLinks(l)) }()
	log.Println("serving MQTT over QUIC on", l.Addr())
	log.Fatal(a.ServeBroker(context.Background(), b)) // or a.ServeClient, by a client of any broker
}
