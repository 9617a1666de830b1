// Command quicgo is a bare quic-go pair to measure beside ours: a server on UDP on
// loopback, or with the argument client a client of it. They speak the protocol of
// internal/benchproc.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
)

func main() {
	run := server
	if len(os.Args) > 1 && os.Args[1] == "client" {
		run = client
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// config has the limits and timeouts that the engines are measured with.
func config() *quic.Config { return &quic.Config{MaxIdleTimeout: 5 * time.Minute} }

func server() error {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return err
	}
	l, err := quic.ListenAddr("127.0.0.1:0", benchproc.ServerTLS(cert), config())
	if err != nil {
		return err
	}
	go accept(l)
	return benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{"quic": l.Addr().String()}})
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

func client() error {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t := &quic.Transport{Conn: pc}
	err = benchproc.ServeClient(os.Stdin, os.Stdout, func(ctx context.Context, addr string) (benchproc.Conn, error) {
		to, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return nil, err
		}
		c, err := t.Dial(ctx, to, benchproc.ClientTLS(), config())
		if err != nil {
			return nil, err
		}
		return conn{c}, nil
	})
	return errors.Join(err, t.Close(), pc.Close())
}

type conn struct{ *quic.Conn }

func (c conn) OpenStream(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.OpenStreamSync(ctx)
}

func (c conn) Packets() uint64 {
	s := c.ConnectionStats()
	return s.PacketsSent + s.PacketsReceived
}

func (c conn) Close() error { return c.CloseWithError(0, "") }
