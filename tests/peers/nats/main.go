// Command nats is a NATS server to measure beside ours: it takes MQTT 3.1.1 over
// TCP on loopback and speaks the protocol of internal/benchproc. Its sessions are in
// a temporary folder, which it needs for MQTT.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/anyquic/anyquic/internal/benchproc"
)

func main() {
	temp, err := os.MkdirTemp("", "nats")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(serve(temp), os.RemoveAll(temp)); err != nil {
		log.Fatal(err)
	}
}

func serve(temp string) error {
	options := &server.Options{
		ServerName: "bench", // MQTT demands one
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		JetStream:  true,
		StoreDir:   temp,
		NoLog:      true,
		NoSigs:     true,
		MQTT:       server.MQTTOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server is not ready")
	}
	url := fmt.Sprintf("mqtt://127.0.0.1:%d", options.MQTT.Port) // the server has written the port into it
	err = benchproc.Serve(os.Stdin, os.Stdout, benchproc.Hello{URLs: map[string]string{"tcp": url}})
	s.Shutdown()
	s.WaitForShutdown()
	return err
}
