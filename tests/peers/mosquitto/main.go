// Command mosquitto makes a peer to measure of an installed mosquitto: it runs it
// on TCP on loopback, without a store, and speaks the protocol of internal/benchproc
// for it.
//
//	mosquitto PROGRAM
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/tests/peers/foreign"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: mosquitto PROGRAM")
	}
	temp, err := os.MkdirTemp("", "mosquitto")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(serve(os.Args[1], temp), os.RemoveAll(temp)); err != nil {
		log.Fatal(err)
	}
}

func serve(program, temp string) error {
	port, err := foreign.FreePort("tcp")
	if err != nil {
		return err
	}
	// Its own limits would drop messages of QoS 1 and 2 that we keep.
	config := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nlog_dest none\nmax_queued_messages 0\n", port)
	file := filepath.Join(temp, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	hello := benchproc.Hello{URLs: map[string]string{"tcp": fmt.Sprintf("mqtt://127.0.0.1:%d", port)}}
	return foreign.Serve(exec.Command(program, "-c", file), "tcp", port, hello)
}
