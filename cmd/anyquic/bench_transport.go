package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/transport/engine"
)

type benchTransportFlags struct {
	benchFlags
	bench.Transport
	engines []string
	cc      []string
	loss    float64 // percent
}

func newBenchTransport() *cobra.Command {
	var f benchTransportFlags
	cmd := &cobra.Command{
		Use:   "transport",
		Short: "Measure the QUIC engines: bulk, latency, handshakes, memory, loss",
		Long: `Measure the QUIC engines: bulk, latency, handshakes, memory, loss.

Client and server are of one kind, in a process of their own each, new for each
scenario and round. Ratios are to the first target's figure of the same round.

Scenarios:
  bulk        one stream each way: MB/s, processor time, Go allocations per packet
  pings       32 bytes there and back: p50, p99
  streams     open, echo a byte, close; 64 at once
  handshakes  full handshakes, one at a time and --parallel at a time
  idle        memory that a silent connection costs the server, of Go and C together
  quiet       processor time of a connection on which nothing happens
  loss        one stream through a relay that adds --rtt and drops --loss percent each way

With --cc, an engine that has the named congestion control is measured with it, as
ENGINE/CC; an engine that has none of them, with its own.

A peer is measured beside the engines: NAME=COMMAND, where COMMAND is a server and
COMMAND client a client of the protocol of internal/benchproc.`,
		Example: `  anyquic bench transport
  anyquic bench transport --engine purego --engine ngtcp2 --rounds 3 --json
  anyquic bench transport --engine purego,ngtcp2 --cc bbr --scenario loss
  anyquic bench transport --peer quic-go=bench-out/bin/quicgo --scenario bulk`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.bind(cmd, bench.TransportScenarios, bench.TransportScenarios)
	fs := cmd.Flags()
	fs.StringSliceVar(&f.engines, "engine", nil, "engine to measure; may be given several times (default all)")
	fs.StringSliceVar(&f.cc, "cc", nil, "congestion control: reno, cubic, bbr; may be given several times (default the engine's)")
	fs.Int64Var(&f.Bulk, "bulk", 512<<20, "bytes to send each way on one stream")
	fs.IntVar(&f.Pings, "pings", 5000, "round trips of 32 bytes")
	fs.IntVar(&f.Streams, "streams", 20000, "streams to open")
	fs.IntVar(&f.Handshakes, "handshakes", 1000, "connections to open and close")
	fs.IntVar(&f.Parallel, "parallel", 16, "handshakes at once")
	fs.IntVar(&f.Idle, "idle", 1000, "connections to hold")
	fs.Float64Var(&f.loss, "loss", 1, "percent of the packets to drop, each way")
	fs.DurationVar(&f.Loss.RTT, "rtt", 50*time.Millisecond, "round-trip time to add for loss")
	fs.DurationVar(&f.Duration, "duration", 10*time.Second, "how long loss is watched")
	return cmd
}

func (f *benchTransportFlags) run(cmd *cobra.Command) error {
	if f.Bulk < 1 || f.Streams < 1 || f.Pings < 1 || f.Handshakes < 1 || f.Parallel < 1 || f.Idle < 1 {
		return errors.New("every count must be 1 or more")
	}
	if f.loss < 0 || f.loss >= 100 || f.Loss.RTT < 0 || f.Duration <= 0 {
		return errors.New("--loss must be 0 or more and less than 100, --rtt 0 or more, --duration more than 0")
	}
	if err := f.check(); err != nil {
		return err
	}
	targets, err := f.targets()
	if err != nil {
		return err
	}
	f.Loss.Loss = f.loss / 100
	f.Progress, f.Command = progress(cmd), child(cmd)
	return measure(cmd, &f.benchFlags, targets, f.Measure)
}

// targets returns the engines, each with the congestion controls asked for that it
// has, and the peers.
func (f *benchTransportFlags) targets() (targets []bench.TransportTarget, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	names := make(map[string]int)
	add := func(name string, server, client []string) {
		// A target beside itself shows what differences mean nothing.
		if names[name]++; names[name] > 1 {
			name = fmt.Sprintf("%s#%d", name, names[name])
		}
		targets = append(targets, bench.TransportTarget{Name: name, Server: server, Client: client})
	}
	engines, had := f.engines, make(map[string]bool)
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
		name = t.Name()
		options := []string{"--engine", name}
		one := func(label string, options ...string) {
			command := func(side string) []string { return append([]string{self, "bench", side}, options...) }
			add(label, command("transport-server"), command("transport-client"))
		}
		var has bool
		for _, cc := range f.cc {
			if slices.Contains(t.Features().CongestionControl, cc) {
				has, had[cc] = true, true
				one(name+"/"+cc, append(slices.Clone(options), "--cc", cc)...)
			}
		}
		if !has {
			one(name, options...)
		}
	}
	for _, cc := range f.cc {
		if !had[cc] {
			return nil, fmt.Errorf("--cc %q: no engine to measure has it", cc)
		}
	}
	peers, err := f.foreign()
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		add(p.name, p.command, append(slices.Clone(p.command), "client"))
	}
	return targets, nil
}

// newBenchTransportServer is the server of `anyquic bench transport`.
func newBenchTransportServer() *cobra.Command {
	var cc string
	cmd := &cobra.Command{
		Use:    "transport-server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := engineOf(cmd)
			if err != nil {
				return err
			}
			l, err := bench.ListenTransport(t, cc)
			if err != nil {
				return err
			}
			var g errgroup.Group
			g.Go(func() error { return bench.ServeTransport(l) })
			err = benchproc.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), benchproc.Hello{URLs: map[string]string{"quic": l.Addr().String()}})
			return errors.Join(err, l.Close(), g.Wait())
		},
	}
	cmd.Flags().StringVar(&cc, "cc", "", "congestion control")
	return cmd
}

// newBenchTransportClient is the client of `anyquic bench transport`.
func newBenchTransportClient() *cobra.Command {
	var cc string
	cmd := &cobra.Command{
		Use:    "transport-client",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := engineOf(cmd)
			if err != nil {
				return err
			}
			pc, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			ep, err := t.Open(pc, nil)
			if err != nil {
				return errors.Join(err, pc.Close())
			}
			err = benchproc.ServeClient(cmd.InOrStdin(), cmd.OutOrStdout(), bench.DialTransport(ep, cc))
			return errors.Join(err, ep.Close())
		},
	}
	cmd.Flags().StringVar(&cc, "cc", "", "congestion control")
	return cmd
}
