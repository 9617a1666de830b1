package pahov3_test

import (
	"fmt"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/mqttquic/pahov3"
	"github.com/anyquic/anyquic/transport/engine"
)

// A program on paho.mqtt.golang gets MQTT over QUIC by SetCustomOpenConnectionFn.
func ExampleOpen() {
	serverTLS, clientTLS := testcert.New()
	b, err := broker.New(nil)
	if err != nil {
		panic(err)
	}
	defer b.Close()
	l, err := mqttquic.ListenAddr(engine.Default(), "127.0.0.1:0", &mqttquic.ListenConfig{TLS: serverTLS})
	if err != nil {
		panic(err)
	}
	defer l.CloseNow()
	go b.ServeLinks(l) // ends with b.Close

	opts := paho.NewClientOptions().
		AddBroker("mqtt+quic://" + l.Addr().String()).
		SetTLSConfig(clientTLS).
		SetCustomOpenConnectionFn(pahov3.Open(&mqttquic.Dialer{Transport: engine.Default()})) // the one line
	c := paho.NewClient(opts)
	wait := func(t paho.Token) {
		if t.Wait(); t.Error() != nil {
			panic(t.Error())
		}
	}
	wait(c.Connect())
	got := make(chan string, 1)
	wait(c.Subscribe("hello/+", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }))
	wait(c.Publish("hello/quic", 1, false, "hello over QUIC"))
	fmt.Println(<-got)
	c.Disconnect(100)
	// Output: hello over QUIC
}
