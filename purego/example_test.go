package purego_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/purego"
	"github.com/anyquic/anyquic/transport"
)

func ExampleTransport() {
	f := purego.Transport.Features()
	fmt.Println(purego.Transport.Name(), f.CongestionControl, f.EarlyData, f.Migration)
	// Output: purego [reno] true true
}

// An endpoint listens and dials on one socket. Here it talks to itself.
func ExampleTransport_echo() {
	ctx := context.Background()
	serverTLS, clientTLS := testcert.New("echo")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ep, err := purego.Transport.Open(pc, nil)
	if err != nil {
		panic(err)
	}
	defer ep.Close()

	l, err := ep.Listen(&transport.Config{TLS: serverTLS})
	if err != nil {
		panic(err)
	}
	go func() {
		c, err := l.Accept(ctx)
		if err != nil {
			return
		}
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return
		}
		io.Copy(s, s)
		s.Close()
	}()

	c, err := ep.Dial(ctx, ep.Addr(), &transport.Config{TLS: clientTLS})
	if err != nil {
		panic(err)
	}
	s, err := c.OpenStream(ctx)
	if err != nil {
		panic(err)
	}
	io.WriteString(s, "hello")
	s.Close()
	answer, err := io.ReadAll(s)
	fmt.Println(string(answer), err)
	// Output: hello <nil>
}
