package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func newBenchTransport() *cobra.Command {
	var f benchFlags
	var engines, peers []string
	b := &bench.Transport{}
	cmd := &cobra.Command{
		Use:   "transport",
		Short: "Measure the QUIC engines: bulk, streams, latency, handshakes, memory",
		Long: `Measure the QUIC engines: bulk, streams, latency, handshakes, memory.

Client and server run the same engine, the server in a process of its own. A peer is a
foreign server, NAME=COMMAND, measured with the client of the first engine.`,
		Example: `  anyquic bench transport
  anyquic bench transport --engines purego --rounds 3 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(engines) == 0 {
				for _, t := range engine.All() {
					engines = append(engines, t.Name())
				}
			}
			if f.rounds < 1 || b.Bulk < 1 || b.Streams < 1 || b.Pings < 1 || b.Handshakes < 1 || b.Idle < 1 {
				return errors.New("every count must be 1 or more")
			}
			b.Progress = func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) }
			samples, err := benchTransport(cmd, b, engines, peers, f.rounds)
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), samples)
		},
	}
	f.bind(cmd)
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringSliceVar(&engines, "engines", nil, "engines to measure, client and server alike (default all)")
	fs.StringArrayVar(&peers, "peer", nil, "a foreign server, NAME=COMMAND; may be given several times")
	fs.Int64Var(&b.Bulk, "bulk", 512<<20, "bytes to send each way on one stream")
	fs.IntVar(&b.Streams, "streams", 20000, "streams to open")
	fs.IntVar(&b.Pings, "pings", 5000, "round trips of 32 bytes")
	fs.IntVar(&b.Handshakes, "handshakes", 500, "connections to open and close")
	fs.IntVar(&b.Idle, "idle", 500, "connections to hold")
	return cmd
}

func benchTransport(cmd *cobra.Command, b *bench.Transport, engines, peers []string, rounds int) (samples []bench.Sample, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	type server struct {
		name    string
		client  string // engine
		command []string
	}
	var servers []server
	for _, name := range engines {
		servers = append(servers, server{name, name, []string{self, "bench", "transport-server", "--engine", name}})
	}
	for _, peer := range peers {
		name, command, ok := strings.Cut(peer, "=")
		words := strings.Fields(command)
		if !ok || len(words) == 0 {
			return nil, fmt.Errorf("--peer %q: not NAME=COMMAND", peer)
		}
		servers = append(servers, server{name, engines[0], words})
	}
	var targets []bench.TransportTarget
	for _, s := range servers {
		t, err := engine.Lookup(s.client)
		if err != nil {
			return nil, err
		}
		c := exec.CommandContext(cmd.Context(), s.command[0], s.command[1:]...) //nolint:gosec // ourselves, or the user's own command
		c.Stderr = cmd.ErrOrStderr()
		p, err := benchproc.Start(c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		defer func() { err = errors.Join(err, p.Stop()) }()
		targets = append(targets, bench.TransportTarget{Name: s.name, Client: t, Addr: p.URLs["quic"], Proc: p})
	}
	for round := 1; round <= rounds; round++ {
		for _, t := range targets {
			got, err := b.Measure(cmd.Context(), t, round)
			if err != nil {
				return nil, err
			}
			samples = append(samples, got...)
		}
	}
	return samples, nil
}

// newBenchTransportServer is the server of `anyquic bench transport`.
func newBenchTransportServer() *cobra.Command {
	return &cobra.Command{
		Use:    "transport-server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := engineOf(cmd)
			if err != nil {
				return err
			}
			cert, err := selfcert.New(time.Now())
			if err != nil {
				return err
			}
			l, err := transport.ListenAddr(t, "127.0.0.1:0", &transport.Config{TLS: bench.TransportServerTLS(cert), IdleTimeout: time.Minute})
			if err != nil {
				return err
			}
			var g errgroup.Group
			g.Go(func() error { return bench.ServeTransport(l) })
			err = benchproc.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), benchproc.Hello{URLs: map[string]string{"quic": l.Addr().String()}})
			return errors.Join(err, l.Close(), g.Wait())
		},
	}
}
