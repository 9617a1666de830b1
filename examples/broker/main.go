// Command broker is an MQTT broker on QUIC in one page.
package main

import (
	"crypto/tls"
	"log"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
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
	log.Println("serving MQTT over QUIC on", l.Addr())
	log.Fatal(b.ServeLinks(l)) // b.Serve(ln, mqtt.TCP) serves TCP beside it
}
