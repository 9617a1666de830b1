// Command anyquic serves and speaks MQTT over QUIC, TCP, TLS, WebSocket and
// WebTransport, and HTTP/1.1, HTTP/2 and HTTP/3.
//
//	anyquic serve                                     a broker on loopback
//	anyquic mqtt sub mqtt+quic://localhost -t 'a/#'   subscribe
//	anyquic mqtt pub mqtt+quic://localhost -t a -m x  publish
//	anyquic h3 serve .                                a folder over every version of HTTP
//	anyquic h3 get https://localhost:8443/            fetch over HTTP/3
//	anyquic bench mqtt                                what it can do here
//	anyquic engines                                   what carries the packets
//
// It is the one place, with the tests, that reads flags, files and signals and
// that chooses a QUIC engine; the packages it is made of are handed what they
// need.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without its process. It returns the exit status: 0 when
// all went well, 1 after an error, 130 when ctx ended something unfinished.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "anyquic: interrupted")
		return 130
	}
	fmt.Fprintln(stderr, "anyquic:", err)
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "anyquic",
		Short: "MQTT over QUIC, and QUIC for Go, on whichever engine is compiled in",
		Example: `  anyquic serve
  anyquic mqtt sub mqtt+quic://localhost --insecure -t 'sensors/#' -v
  anyquic mqtt pub mqtt+quic://localhost --insecure -t sensors/1/temp -m 21.5 -q 1
  anyquic engines --json`,
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		Args:          cobra.NoArgs, // an unknown command is an error
		RunE:          help,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().String("engine", "", "QUIC engine by `name`, see anyquic engines (default the preferred one)")
	root.AddCommand(newServe(), newMQTT(), newH3(), newBench(), newEngines(), newVersion())
	return root
}

// help is what a command does that is only the name of a group.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// engineOf returns the engine that --engine names.
func engineOf(cmd *cobra.Command) (transport.Transport, error) {
	name, err := cmd.Flags().GetString("engine")
	if err != nil {
		return nil, err
	}
	return engine.Lookup(name)
}
