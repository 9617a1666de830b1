package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
)

type benchMQTTFlags struct {
	benchFlags
	bench.MQTT
	carriers []string
	qos      uint8
	version  string
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
  fanout      one publisher, --fanout subscribers, as fast as the broker takes it
  blocked     --rate messages a second to --fanout subscribers, and again beside one
              that reads nothing; TCP only
  idle        memory that a silent connection costs the broker
  vanished    QUIC subscribers that disappear without a word while the publisher goes on
              (--messages 20000 --size 1024 is a good load)

A peer is another broker, measured by the same load: NAME=COMMAND, where COMMAND
prints {"urls":{"tcp":"mqtt://127.0.0.1:PORT"}} and ends when its input does; or
NAME=URL for one that is running.`,
		Example: `  anyquic bench mqtt
  anyquic bench mqtt --carrier tcp,quic --qos 1 --json
  anyquic bench mqtt --scenario fanout --carrier tcp,quic --fanout 100
  anyquic bench mqtt --scenario vanished --carrier quic --size 1024 --messages 20000
  anyquic bench mqtt --carrier tcp --peer mosquitto=mqtt://127.0.0.1:1884`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.bind(cmd, bench.MQTTScenarios, []string{"throughput", "latency", "idle"})
	fs := cmd.Flags()
	fs.StringSliceVar(&f.carriers, "carrier", []string{"tcp", "quic"}, "carriers to measure: tcp, tls, ws, wss, wss+h3, quic, wt")
	fs.Uint8Var(&f.qos, "qos", 0, "quality of service: 0, 1 or 2")
	fs.StringVarP(&f.version, "protocol-version", "V", "5", "MQTT version: 5 or 311")
	fs.IntVar(&f.Pairs, "pairs", 8, "publishers and subscribers, a topic for each pair")
	fs.IntVar(&f.FanOut, "fanout", 100, "subscribers for fanout and blocked")
	fs.IntVar(&f.Size, "size", 64, "bytes of payload, at least 8")
	fs.IntVar(&f.Messages, "messages", 1_000_000, "messages of all pairs, or to all subscribers")
	fs.IntVar(&f.Rate, "rate", 2500, "messages a second for latency and blocked")
	fs.DurationVar(&f.Duration, "duration", 3*time.Second, "how long latency and blocked publish")
	fs.IntVar(&f.Idle, "idle", 1000, "connections for idle")
	fs.IntVar(&f.Vanished, "vanished", 100, "subscribers for vanished")
	fs.IntVar(&f.Pace, "pace", 10000, "messages a second for vanished, beside flat out")
	return cmd
}

func (f *benchMQTTFlags) run(cmd *cobra.Command) error {
	var err error
	if f.QoS, err = parseQoS(f.qos); err != nil {
		return err
	}
	if f.Version, err = parseVersion(f.version); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	if f.Size < 8 || f.Pairs < 1 || f.FanOut < 1 || f.Messages < f.Pairs || f.Rate < 1 || f.Pace < 1 {
		return errors.New("--size must be 8 or more, --pairs, --fanout, --rate and --pace 1 or more, --messages at least one for each pair")
	}
	if f.Engine, err = engineOf(cmd); err != nil {
		return err
	}
	targets, stop, err := f.targets(cmd)
	defer stop()
	if err != nil {
		return err
	}
	f.Dialers, f.Progress = dialers(f.Engine), progress(cmd)
	return measure(cmd, &f.benchFlags, targets, f.Measure)
}

// targets starts the brokers. stop ends them; it is never nil.
func (f *benchMQTTFlags) targets(cmd *cobra.Command) (targets []bench.MQTTTarget, stop func(), err error) {
	var procs []*benchproc.Process
	stop = func() {
		for _, p := range procs {
			if err := p.Stop(); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "anyquic: a measured server ended with:", err)
			}
		}
	}
	start := func(words ...string) (*benchproc.Process, error) {
		p, err := benchproc.Start(child(cmd)(cmd.Context(), words))
		if err == nil {
			procs = append(procs, p)
		}
		return p, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, stop, err
	}
	own, err := start(self, "bench", "broker", "--engine", f.Engine.Name())
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
	peers, err := f.foreign()
	if err != nil {
		return nil, stop, err
	}
	for _, foreign := range peers {
		if len(foreign.command) == 1 && strings.Contains(foreign.command[0], "://") {
			targets = append(targets, bench.MQTTTarget{Name: foreign.name, URL: foreign.command[0]})
			continue
		}
		p, err := start(foreign.command...)
		if err != nil {
			return nil, stop, fmt.Errorf("--peer %s: %w", foreign.name, err)
		}
		for _, carrier := range f.carriers {
			if url, ok := p.URLs[carrier]; ok {
				targets = append(targets, bench.MQTTTarget{Name: foreign.name + "/" + carrier, URL: url, Proc: p})
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
			return serve(ctx, &cfg, quic, cert, io.Discard, nil, func(open []*listener) error {
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
