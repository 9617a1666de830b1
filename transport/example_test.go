package transport_test

import (
	"context"
	"fmt"
	"io"
	"log"

	"github.com/anyquic/anyquic/internal/testcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

// A server that sends back what it reads, and a client.
func Example() {
	ctx := context.Background()
	serverTLS, clientTLS := testcert.New("echo")

	ln, err := transport.ListenAddr(engine.Default(), "127.0.0.1:0", &transport.Config{TLS: serverTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		for {
			stream, err := conn.AcceptStream(ctx)
			if err != nil {
				return // the connection has ended
			}
			go func() {
				io.Copy(stream, stream)
				stream.Close()
			}()
		}
	}()

	conn, err := transport.DialAddr(ctx, engine.Default(), ln.Addr().String(), &transport.Config{TLS: clientTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	stream, err := conn.OpenStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(stream, "Hello, QUIC!")
	stream.Close() // ends this direction only
	answer, err := io.ReadAll(stream)
	fmt.Println(string(answer), err)
	// Output: Hello, QUIC! <nil>
}

// Why a connection ended is the error of every call on it.
func ExampleApplicationError() {
	const goingAway transport.ErrorCode = 0x42
	var err error = &transport.ApplicationError{Code: goingAway, Reason: "maintenance", Remote: true}
	fmt.Println(err)
	// Output: quic: closed by remote: application error 0x42: "maintenance"
}

func ExampleStreamID() {
	for id := range transport.StreamID(4) {
		fmt.Println(id, "opened by server:", id.ServerInitiated(), "unidirectional:", id.Unidirectional())
	}
	// Output:
	// 0 opened by server: false unidirectional: false
	// 1 opened by server: true unidirectional: false
	// 2 opened by server: false unidirectional: true
	// 3 opened by server: true unidirectional: true
}
