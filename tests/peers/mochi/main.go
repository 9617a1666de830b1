// Command mochi is a mochi-mqtt broker to measure beside ours: it listens on TCP
// on loopback and speaks the protocol of internal/benchproc.
package main

import (
	"io"
	"log"
	"log/slog"
	"os"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/anyquic/anyquic/internal/benchproc"
)

func main() {
	s := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := s.AddHook(new(auth.AllowHook), nil); err != nil {
		log.Fatal(err)
	}
	tcp := listeners.NewTCP(listeners.Config{ID: "tcp", Address: "127.0.0.1:0"})
	if err := s.AddListener(tcp); err != nil {
		log.Fatal(err)
	}
	if err := s.Serve(); err != nil { // returns when the listeners serve
		log.Fatal(err)
	}
	err := benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{"tcp": "mqtt://" + tcp.Address()}})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
}
