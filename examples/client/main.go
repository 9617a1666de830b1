// Command client publishes an MQTT message over QUIC and waits until it comes
// back.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
	ctx := context.Background()
	trusted, err := os.ReadFile("cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)

	got := make(chan string, 1)
	c, err := client.Dial(ctx, &client.Config{
		URL:     "mqtt+quic://localhost:14567", // or mqtt:, mqtts: and, with a mqttweb.Dialer, wss:, wss+h3:, mqtt+wt:
		Dialers: []client.LinkDialer{&mqttquic.Dialer{Transport: engine.Default()}},
		TLS:     &tls.Config{RootCAs: roots},
		OnMessage: func(m *packet.Publish) {
			got <- fmt.Sprintf("%s: %s", m.Topic, m.Payload)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Subscribe(ctx, nil, packet.Subscription{Filter: "greetings/#", QoS: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Publish(ctx, &packet.Publish{Topic: "greetings/world", Payload: []byte("hello"), QoS: 1}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-got, "over", c.Carrier())
	if err := c.Disconnect(ctx); err != nil {
		log.Fatal(err)
	}
}
