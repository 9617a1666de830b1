// Command quicgoh3 is a server of quic-go's http3 to measure beside ours, on
// loopback. It speaks the protocol of internal/benchproc.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return err
	}
	// The limits and timeouts that ours is measured with.
	config := &quic.Config{MaxIdleTimeout: 5 * time.Minute}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h3 := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(benchproc.ServerTLS(cert)), QUICConfig: config, Handler: benchproc.HTTPHandler()}
	go func() { _ = h3.Serve(pc) }() // ends with the process; the client reports what it misses
	bare, err := quic.ListenAddr("127.0.0.1:0", benchproc.ServerTLS(cert), config)
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	go hold(bare)
	return benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{
		"h3": pc.LocalAddr().String(), "quic": bare.Addr().String(),
	}})
}

// hold keeps connections. It ends with the process.
func hold(l *quic.Listener) {
	for {
		if _, err := l.Accept(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
}
