package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/transport/engine"
)

type benchMQTTFlags struct {
	benchFlags
	bench.MQTT
	carriers []string
	qos      uint8
	version  string
	loss     float64 // percent
	store    storeConfig
	all      bool
	most     time.Duration
}

func newBenchMQTT() *cobra.Command {
	f := benchMQTTFlags{store: defaultStore()}
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
  streams     --stream-rate messages a second on a thousand topics through a path that
              adds --rtt and drops --loss percent each way, on each number of --streams;
              QUIC only
  idle        memory that a silent connection costs the broker
  vanished    QUIC subscribers that disappear without a word while the publisher goes on
              (--messages 20000 --size 1024 is a good load)

--all measures all of it, on every engine, beside every peer, and what is asked of
the broker beside what it reaches. It has its own loads and ends within --most: a round
that would take longer is not begun.

With --store our broker keeps sessions there, in a new folder that is removed in the end,
and the subscribers of every broker have sessions that outlive their connections.

A peer is another broker, measured by the same load: NAME=COMMAND, where COMMAND
prints {"urls":{"tcp":"mqtt://127.0.0.1:PORT"}} and ends when its input does; or
NAME=URL for one that is running.`,
		Example: `  anyquic bench mqtt
  anyquic bench mqtt --carrier tcp,quic --qos 1 --json
  anyquic bench mqtt --scenario fanout --carrier tcp,quic --fanout 100
  anyquic bench mqtt --scenario streams --carrier quic --engine purego --loss 2
  anyquic bench mqtt --scenario throughput --carrier tcp --qos 1 --messages 200000 --store .
  anyquic bench mqtt --scenario vanished --carrier quic --size 1024 --messages 20000
  anyquic bench mqtt --carrier tcp --peer mosquitto=mqtt://127.0.0.1:1884
  anyquic bench mqtt --all --peer mochi=bench-out/bin/mochi --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.bind(cmd, bench.MQTTScenarios, []string{"throughput", "latency", "idle"})
	fs := cmd.Flags()
	fs.BoolVar(&f.all, "all", false, "measure all that is asked of the broker, beside the peers")
	fs.DurationVar(&f.most, "most", 15*time.Minute, "how long --all may take")
	fs.StringSliceVar(&f.carriers, "carrier", []string{"tcp", "quic"}, "carriers to measure: tcp, tls, ws, wss, wss+h3, quic, wt")
	fs.Uint8Var(&f.qos, "qos", 0, "quality of service: 0, 1 or 2")
	fs.StringVarP(&f.version, "protocol-version", "V", "5", "MQTT version: 5 or 311")
	fs.IntVar(&f.Pairs, "pairs", 8, "publishers and subscribers, a topic for each pair")
	fs.IntVar(&f.FanOut, "fanout", 100, "subscribers for fanout and blocked")
	fs.IntVar(&f.Size, "size", 64, "bytes of payload, at least 8")
	fs.IntVar(&f.Messages, "messages", 1_000_000, "messages of all pairs, or to all subscribers")
	fs.IntVar(&f.Rate, "rate", 2500, "messages a second for latency and blocked")
	fs.DurationVar(&f.Duration, "duration", 3*time.Second, "how long latency, blocked and streams publish")
	fs.IntVar(&f.Idle, "idle", 1000, "connections for idle")
	fs.DurationVar(&f.Settle, "settle", 2*time.Second, "how long memory is left alone before idle looks")
	fs.IntVar(&f.Vanished, "vanished", 100, "subscribers for vanished")
	fs.IntVar(&f.Pace, "pace", 10000, "messages a second for vanished, beside flat out")
	fs.IntSliceVar(&f.Streams, "streams", []int{1, 8, 64}, "numbers of streams to compare; 1 is the control stream")
	fs.IntVar(&f.StreamRate, "stream-rate", 320, "messages a second for streams")
	fs.Float64Var(&f.loss, "loss", 1, "percent of the packets to drop for streams, each way")
	fs.DurationVar(&f.Loss.RTT, "rtt", 50*time.Millisecond, "round-trip time to add for streams")
	f.store.bind(fs)
	return cmd
}

func (f *benchMQTTFlags) run(cmd *cobra.Command) error {
	if err := f.checkMQTT(); err != nil {
		return err
	}
	f.Progress, f.Command = progress(cmd), child(cmd)
	b := &benchBrokers{cmd: cmd, store: f.store}
	defer b.stop()
	if f.all {
		return f.runAll(cmd, b)
	}
	quic, err := engineOf(cmd)
	if err != nil {
		return err
	}
	f.Engine, f.Dialers, f.Durable = quic, dialers(quic), f.store.Dir != ""
	if slices.Contains(f.scenarios, "streams") {
		b.streams = slices.Max(f.Streams) + 1
	}
	targets, err := b.own(quic, "anyquic/", f.carriers)
	if err != nil {
		return err
	}
	peers, err := b.peers(&f.benchFlags, f.carriers)
	if err != nil {
		return err
	}
	return measure(cmd, &f.benchFlags, append(targets, peers...), f.Measure)
}

func (f *benchMQTTFlags) checkMQTT() (err error) {
	if f.QoS, err = parseQoS(f.qos); err != nil {
		return err
	}
	if f.Version, err = parseVersion(f.version); err != nil {
		return err
	}
	if err := errors.Join(f.check(), f.store.check(), bench.CheckStreams(f.Streams)); err != nil {
		return err
	}
	if f.Size < 8 || f.Pairs < 1 || f.FanOut < 1 || f.Messages < f.Pairs || f.Rate < 1 || f.Pace < 1 || f.Idle < 1 || f.StreamRate < 1 {
		return errors.New("--size must be 8 or more, --pairs, --fanout, --rate, --pace, --idle and --stream-rate 1 or more, --messages at least one for each pair")
	}
	if f.Duration <= 0 || f.Settle <= 0 || f.most <= 0 {
		return errors.New("--duration, --settle and --most must be more than 0")
	}
	if f.loss < 0 || f.loss >= 100 || f.Loss.RTT < 0 {
		return errors.New("--loss must be 0 or more and less than 100, --rtt 0 or more")
	}
	f.Loss.Loss = f.loss / 100
	if f.store.Dir != "" && f.version != "5" && !f.all {
		return errors.New("--store needs MQTT 5: sessions outlive their connections by Session Expiry Interval")
	}
	return nil
}

// runAll measures all that is asked of the broker.
func (f *benchMQTTFlags) runAll(cmd *cobra.Command, b *benchBrokers) error {
	for _, name := range []string{"scenario", "carrier", "qos", "protocol-version"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--all has every scenario, on the carriers and with the QoS that are asked for: leave --%s out", name)
		}
	}
	if b.store.Dir == "" {
		b.store.Dir = "." // not a temporary folder, which may be in memory
	}
	plan := bench.Plan{MQTT: f.MQTT}
	changed := cmd.Flags().Changed
	plan.Scale(changed("messages"), changed("duration"), changed("idle"))
	b.streams = maxStreams
	for i, quic := range engine.All() {
		memory := *b
		memory.store.Dir = ""
		carriers := []string{"quic"}
		if i == 0 {
			carriers = []string{"tcp", "tls", "quic"}
		}
		got, err := memory.own(quic, "anyquic/", carriers)
		b.running = memory.running
		if err != nil {
			return err
		}
		for _, t := range got {
			t.Engine, t.Dialers = quic, dialers(quic)
			if t.Carrier == "quic" {
				t.Name += "/" + quic.Name()
			}
			plan.Own = append(plan.Own, t)
		}
	}
	durable, err := b.own(engine.Default(), "anyquic/durable/", []string{"tcp"})
	if err != nil {
		return err
	}
	plan.Durable = durable
	if plan.Peers, err = b.peers(&f.benchFlags, []string{"tcp"}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.most)
	defer cancel()
	samples, err := plan.Run(ctx, f.rounds)
	if errors.Is(err, context.DeadlineExceeded) && cmd.Context().Err() == nil {
		err = fmt.Errorf("not one round within --most %v: measure less, with --messages, --duration and --idle", f.most)
	}
	if len(samples) == 0 {
		return err
	}
	// What the rounds before a failure have measured is worth having.
	return errors.Join(f.printAsked(cmd.OutOrStdout(), samples, bench.Asked(plan.Names(), samples)), err)
}

// selfCommand is this program with other arguments.
func selfCommand(words ...string) ([]string, error) {
	self, err := os.Executable()
	return append([]string{self, "bench"}, words...), err
}
