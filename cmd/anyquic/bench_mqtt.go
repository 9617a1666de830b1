package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

type benchMQTTFlags struct {
	benchFlags
	carriers  []string
	peers     []string
	scenarios []string
	qos       uint8
	pairs     int
	size      int
	messages  int
	rate      int
	duration  time.Duration
	idle      int
	vanished  int
	pace      int
}

func newBenchMQTT() *cobra.Command {
	var f benchMQTTFlags
	cmd := &cobra.Command{
		Use:   "mqtt",
		Short: "Measure the broker: messages a second, loss, latency, memory",
		Long: `Measure the broker: messages a second, loss, latency, memory.

Scenarios:
  throughput  pairs of a publisher and a subscriber, as fast as the broker takes it
  latency     --rate messages a second, from publisher to subscriber
  idle        memory that a silent connection costs the broker
  vanished    QUIC subscribers that disappear without a word while the publisher goes on
              (--messages 20000 --size 1024 is a good load)

A peer is another broker, measured by the same load: NAME=COMMAND, where COMMAND
prints {"urls":{"tcp":"mqtt://127.0.0.1:PORT"}} and ends when its input does; or
NAME=URL for one that is running.`,
		Example: `  anyquic bench mqtt
  anyquic bench mqtt --carrier tcp,quic --qos 1 --json
  anyquic bench mqtt --scenario vanished --carrier quic --size 1024 --messages 20000
  anyquic bench mqtt --carrier tcp --peer mosquitto=mqtt://127.0.0.1:1884`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	f.bind(cmd)
	fs.StringSliceVar(&f.carriers, "carrier", []string{"tcp", "quic"}, "carriers to measure: tcp, tls, ws, wss, wss+h3, quic, wt")
	fs.StringArrayVar(&f.peers, "peer", nil, "another broker, NAME=COMMAND or NAME=URL; may be given several times")
	fs.StringSliceVar(&f.scenarios, "scenario", []string{"throughput", "latency", "idle"}, "what to measure")
	fs.Uint8Var(&f.qos, "qos", 0, "quality of service: 0, 1 or 2")
	fs.IntVar(&f.pairs, "pairs", 8, "publishers and subscribers, a topic for each pair")
	fs.IntVar(&f.size, "size", 64, "bytes of payload, at least 8")
	fs.IntVar(&f.messages, "messages", 1_000_000, "messages of all pairs")
	fs.IntVar(&f.rate, "rate", 2500, "messages a second for latency")
	fs.DurationVar(&f.duration, "duration", 3*time.Second, "how long latency publishes")
	fs.IntVar(&f.idle, "idle", 1000, "connections for idle")
	fs.IntVar(&f.vanished, "vanished", 100, "subscribers for vanished")
	fs.IntVar(&f.pace, "pace", 10000, "messages a second for vanished, beside flat out")
	return cmd
}

func (f *benchMQTTFlags) run(cmd *cobra.Command) error {
	qos, err := parseQoS(f.qos)
	if err != nil {
		return err
	}
	if f.size < 8 || f.pairs < 1 || f.messages < f.pairs || f.rate < 1 || f.pace < 1 || f.rounds < 1 {
		return errors.New("--size must be 8 or more, --pairs, --rate, --pace and --rounds 1 or more, --messages at least one for each pair")
	}
	quic, err := engineOf(cmd)
	if err != nil {
		return err
	}
	targets, stop, err := f.targets(cmd, quic)
	defer stop()
	if err != nil {
		return err
	}
	b := &bench.MQTT{
		Dialers: dialers(quic), Version: packet.V5, QoS: qos,
		Pairs: f.pairs, Size: f.size, Messages: f.messages,
		Progress: func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) },
	}
	var samples []bench.Sample
	for _, scenario := range f.scenarios {
		for round := 1; round <= f.rounds; round++ {
			for _, t := range targets {
				var got []bench.Sample
				var err error
				switch scenario {
				case "throughput":
					got, err = b.Throughput(cmd.Context(), t, round)
				case "latency":
					got, err = b.Latency(cmd.Context(), t, round, f.rate, f.duration)
				case "idle":
					got, err = b.Idle(cmd.Context(), t, round, f.idle)
				case "vanished":
					got, err = b.Vanished(cmd.Context(), t, quic, round, f.vanished, f.pace)
				default:
					err = fmt.Errorf("--scenario %q: use throughput, latency, idle or vanished", scenario)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", t.Name, err)
				}
				samples = append(samples, got...)
			}
		}
	}
	return f.print(cmd.OutOrStdout(), samples)
}

// targets starts the brokers. stop ends them; it is never nil.
func (f *benchMQTTFlags) targets(cmd *cobra.Command, quic transport.Transport) (targets []bench.MQTTTarget, stop func(), err error) {
	var procs []*benchproc.Process
	stop = func() {
		for _, p := range procs {
			if err := p.Stop(); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "anyquic: a measured server ended with:", err)
			}
		}
	}
	start := func(name string, args ...string) (*benchproc.Process, error) {
		c := exec.CommandContext(cmd.Context(), name, args...) //nolint:gosec // the user's own command
		c.Stderr = cmd.ErrOrStderr()
		p, err := benchproc.Start(c)
		if err == nil {
			procs = append(procs, p)
		}
		return p, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, stop, err
	}
	own, err := start(self, "bench", "broker", "--engine", quic.Name())
	if err != nil {
		return nil, stop, err
	}
	for _, carrier := range f.carriers {
		url, ok := own.URLs[carrier]
		if !ok {
			return nil, stop, fmt.Errorf("--carrier %q: use tcp, tls, ws, wss, wss+h3, quic or wt", carrier)
		}
		targets = append(targets, bench.MQTTTarget{Name: "anyquic/" + carrier, URL: url, Proc: own})
	}
	for _, peer := range f.peers {
		name, how, ok := strings.Cut(peer, "=")
		if !ok {
			return nil, stop, fmt.Errorf("--peer %q: not NAME=COMMAND or NAME=URL", peer)
		}
		if strings.Contains(how, "://") && !strings.Contains(how, " ") {
			targets = append(targets, bench.MQTTTarget{Name: name, URL: how})
			continue
		}
		words := strings.Fields(how)
		if len(words) == 0 {
			return nil, stop, fmt.Errorf("--peer %q: the command is empty", peer)
		}
		p, err := start(words[0], words[1:]...)
		if err != nil {
			return nil, stop, fmt.Errorf("--peer %s: %w", name, err)
		}
		for _, carrier := range f.carriers {
			if url, ok := p.URLs[carrier]; ok {
				targets = append(targets, bench.MQTTTarget{Name: name + "/" + carrier, URL: url, Proc: p})
			}
		}
	}
	return targets, stop, nil
}

// newBenchBroker is the broker as `anyquic bench mqtt` starts it.
func newBenchBroker() *cobra.Command {
	return &cobra.Command{
		Use:    "broker",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			quic, err := engineOf(cmd)
			if err != nil {
				return err
			}
			cfg := defaults()
			for _, addr := range []*string{&cfg.Listen.TCP, &cfg.Listen.TLS, &cfg.Listen.WS, &cfg.Listen.WSS, &cfg.Listen.QUIC} {
				*addr = "127.0.0.1:0"
			}
			cfg.Listen.Metrics = off
			if err := cfg.resolve(); err != nil {
				return err
			}
			cert, _, err := cfg.Certificate.certificate(time.Now())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			return serve(ctx, &cfg, quic, cert, io.Discard, func(open []*listener) error {
				hello := benchproc.Hello{URLs: make(map[string]string)}
				for _, l := range open {
					hello.URLs[l.name] = l.url
					for _, m := range l.more {
						if name := string(m.carrier); hello.URLs[name] == "" {
							hello.URLs[name] = m.url
						}
					}
				}
				go func() { // ends with standard input, that is with the parent
					defer cancel()
					if err := benchproc.Serve(cmd.InOrStdin(), cmd.OutOrStdout(), hello); err != nil {
						fmt.Fprintln(cmd.ErrOrStderr(), "anyquic:", err)
					}
				}()
				return nil
			})
		},
	}
}
