package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/transport/engine"
)

type benchH3Flags struct {
	benchFlags
	bench.H3
	engines []string
	client  string
}

func newBenchH3() *cobra.Command {
	var f benchH3Flags
	cmd := &cobra.Command{
		Use:   "h3",
		Short: "Measure HTTP/3 servers: requests, large bodies, memory",
		Long: `Measure HTTP/3 servers: requests, large bodies, memory.

Every server runs in a process of its own, new for each scenario and round, and gets
the same load from this one. Ratios are to the figure of the first peer, or without
peers of the first engine, of the same round. What the client costs is not in the
server's processor time.

Scenarios:
  requests  --requests GETs of --size bytes, --parallel at a time on --conns connections
  bulk      one body of --bulk bytes each way
  idle      memory that a silent connection costs the server, beside a bare QUIC one

A peer is measured beside our server on each engine: NAME=COMMAND, where COMMAND is a
server of the protocol of internal/benchproc that answers as its HTTPHandler does.`,
		Example: `  anyquic bench h3
  anyquic bench h3 --engine ngtcp2 --scenario requests --conns 8 --json
  anyquic bench h3 --peer quic-go=bench-out/bin/quicgoh3 --rounds 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.bind(cmd, bench.H3Scenarios, bench.H3Scenarios)
	fs := cmd.Flags()
	fs.StringSliceVar(&f.engines, "engine", nil, "engine to measure; may be given several times (default all)")
	fs.StringVar(&f.client, "client", engine.Default().Name(), "engine of the client")
	fs.Int64Var(&f.Requests, "requests", 30000, "requests to send")
	fs.Int64Var(&f.Size, "size", 1<<10, "bytes of a response")
	fs.IntVar(&f.Conns, "conns", 4, "connections")
	fs.IntVar(&f.Parallel, "parallel", 8, "requests at a time on a connection")
	fs.Int64Var(&f.Bulk, "bulk", 256<<20, "bytes of a large body")
	fs.IntVar(&f.Idle, "idle", 500, "connections to hold")
	return cmd
}

func (f *benchH3Flags) run(cmd *cobra.Command) error {
	if f.Requests < 1 || f.Size < 0 || f.Conns < 1 || f.Parallel < 1 || f.Bulk < 1 || f.Idle < 1 {
		return errors.New("every count must be 1 or more")
	}
	if err := f.check(); err != nil {
		return err
	}
	targets, err := f.targets()
	if err != nil {
		return err
	}
	if f.Engine, err = engine.Lookup(f.client); err != nil {
		return err
	}
	f.Progress, f.Command = progress(cmd), child(cmd)
	return measure(cmd, &f.benchFlags, targets, f.Measure)
}

// targets returns the peers, which are what to compare with, and our server on each
// engine.
func (f *benchH3Flags) targets() (targets []bench.H3Target, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	peers, err := f.foreign()
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		targets = append(targets, bench.H3Target{Name: p.name, Server: p.command})
	}
	engines := f.engines
	if len(engines) == 0 {
		for _, t := range engine.All() {
			engines = append(engines, t.Name())
		}
	}
	for _, name := range engines {
		t, err := engine.Lookup(name)
		if err != nil {
			return nil, err
		}
		targets = append(targets, bench.H3Target{Name: "anyquic/" + t.Name(), Server: []string{self, "bench", "h3-server", "--engine", t.Name()}})
	}
	return targets, nil
}

// newBenchH3Server is the server of `anyquic bench h3`.
func newBenchH3Server() *cobra.Command {
	return &cobra.Command{
		Use:    "h3-server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := engineOf(cmd)
			if err != nil {
				return err
			}
			s, err := bench.ServeH3(t)
			if err != nil {
				return err
			}
			err = benchproc.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), benchproc.Hello{URLs: s.URLs()})
			return errors.Join(err, s.Close())
		},
	}
}
