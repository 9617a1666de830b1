// Command tlstcp is what QUIC is compared with: crypto/tls over TCP, where each
// connection is one stream. It is a server on loopback, or with the argument client
// a client of it. They speak the protocol of internal/benchproc.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"sync/atomic"
	"time"

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

func server() error {
	cert, err := selfcert.New(time.Now())
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", benchproc.ServerTLS(cert))
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go serve(c.(*tls.Conn)) // ends with c
		}
	}()
	return benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{"tls": l.Addr().String()}})
}

// serve answers the one stream of c. The client reports what it misses.
func serve(c *tls.Conn) {
	defer c.Close()
	if c.Handshake() == nil {
		_ = benchproc.ServeStream(c)
	}
}

func client() error {
	config := benchproc.ClientTLS()
	return benchproc.ServeClient(os.Stdin, os.Stdout, func(ctx context.Context, addr string) (benchproc.Conn, error) {
		c, err := (&tls.Dialer{Config: config, NetDialer: new(net.Dialer)}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c.(*tls.Conn)}, nil
	})
}

type conn struct {
	*tls.Conn
	used atomic.Bool
}

func (c *conn) OpenStream(context.Context) (io.ReadWriteCloser, error) {
	if c.used.Swap(true) {
		return nil, fmt.Errorf("a second stream: %w", errors.ErrUnsupported)
	}
	return stream{c.Conn}, nil
}

func (c *conn) Packets() uint64 { return 0 } // segments are the kernel's

type stream struct{ *tls.Conn }

func (s stream) Close() error { return s.CloseWrite() }
