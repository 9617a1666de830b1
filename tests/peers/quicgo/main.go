// Command quicgo is a bare quic-go server to measure beside ours: it listens on
// UDP on loopback and speaks the protocol of internal/benchproc.
package main

import (
	"context"
	"crypto/tls"
	"log"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
)

func main() {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		log.Fatal(err)
	}
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{benchproc.ALPN}, MinVersion: tls.VersionTLS13,
	}, &quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	go accept(l)
	if err := benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{"quic": l.Addr().String()}}); err != nil {
		log.Fatal(err)
	}
}

// accept ends with the process.
func accept(l *quic.Listener) {
	for {
		c, err := l.Accept(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() { _ = benchproc.ServeStream(s) }() // the client reports what it misses
			}
		}()
	}
}
