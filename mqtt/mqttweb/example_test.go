package mqttweb_test

import (
	"context"
	"fmt"
	"net/url"

	"github.com/anyquic/anyquic/http3/allhttp"
	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport/engine"
)

// A broker and clients on one port: WebSocket over TCP and UDP, and WebTransport.
func Example() {
	ctx := context.Background()
	quic := engine.Default()
	serverTLS, clientTLS := testcert.New()

	b, err := broker.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	web := mqttweb.NewListener(nil)
	srv := &allhttp.Server{Engine: quic, Addr: "localhost:0", Handler: web, TLS: serverTLS}
	srv.QUIC, srv.Extensions = mqttweb.ServerConfig(nil)
	sockets, err := srv.Listen()
	if err != nil {
		fmt.Println(err)
		return
	}
	go srv.Serve(sockets)
	go b.ServeLinks(web)
	defer srv.Close()
	defer b.Close()

	host := sockets.TCP[0].Addr().String()
	for _, scheme := range []string{"wss", "wss+h3", "mqtt+wt"} {
		c, err := client.Dial(ctx, &client.Config{
			URL:     (&url.URL{Scheme: scheme, Host: host, Path: mqttweb.Path}).String(),
			TLS:     clientTLS,
			Dialers: []client.LinkDialer{&mqttweb.Dialer{Transport: quic}},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		ack, err := c.Publish(ctx, &packet.Publish{Topic: "greetings", Payload: []byte("hello"), QoS: 1})
		fmt.Println(c.Carrier(), ack.Code, err)
		if err := c.Disconnect(ctx); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// wss No matching subscribers <nil>
	// wss+h3 No matching subscribers <nil>
	// wt No matching subscribers <nil>
}
