package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/anyquic/anyquic/cmd/anyquic/internal/bench"
	"github.com/anyquic/anyquic/internal/benchproc"
	"github.com/anyquic/anyquic/transport"
)

// benchBrokers starts the brokers to measure.
type benchBrokers struct {
	cmd     *cobra.Command
	store   storeConfig // of ours; the folder is one to make others in
	streams int         // that ours grants on QUIC; 0: its default
	running []*benchproc.Process
	folders []string
}

// stop ends them all.
func (b *benchBrokers) stop() {
	for _, p := range b.running {
		if err := p.Stop(); err != nil {
			fmt.Fprintln(b.cmd.ErrOrStderr(), "anyquic: a measured server ended with:", err)
		}
	}
	for _, dir := range b.folders {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(b.cmd.ErrOrStderr(), "anyquic:", err)
		}
	}
}

func (b *benchBrokers) start(words []string) (*benchproc.Process, error) {
	p, err := benchproc.Start(child(b.cmd)(b.cmd.Context(), words))
	if err == nil {
		b.running = append(b.running, p)
	}
	return p, err
}

// own starts our broker on an engine and returns it as a target on each carrier.
func (b *benchBrokers) own(quic transport.Transport, prefix string, carriers []string) (targets []bench.MQTTTarget, err error) {
	words := []string{"broker", "--engine", quic.Name()}
	if b.streams > defaults().Listen.Streams {
		words = append(words, "--quic-streams", strconv.Itoa(b.streams))
	}
	again, err := selfCommand(words...) // without a store, which is one process's
	if err != nil {
		return nil, err
	}
	command, dir := again, ""
	if b.store.Dir != "" {
		if dir, err = os.MkdirTemp(b.store.Dir, "anyquic-bench-"); err != nil {
			return nil, fmt.Errorf("--store: %w", err)
		}
		b.folders = append(b.folders, dir)
		if command, err = selfCommand(append(words, "--store", dir, "--sync", b.store.Sync, "--sync-interval", b.store.SyncInterval.String())...); err != nil {
			return nil, err
		}
	}
	p, err := b.start(command)
	if err != nil {
		return nil, err
	}
	bareServer, err1 := selfCommand("transport-server", "--engine", quic.Name())
	bareClient, err2 := selfCommand("transport-client", "--engine", quic.Name())
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for _, carrier := range carriers {
		url, ok := p.URLs[carrier]
		if !ok {
			return nil, fmt.Errorf("--carrier %q: use tcp, tls, ws, wss, wss+h3, quic or wt", carrier)
		}
		t := bench.MQTTTarget{
			Name: prefix + carrier, URL: url, Proc: p, Carrier: carrier, StoreDir: dir,
			Start: func(ctx context.Context) (*benchproc.Process, error) {
				return benchproc.Start(child(b.cmd)(ctx, again))
			},
		}
		if carrier == "quic" {
			t.Bare = bench.TransportTarget{Name: quic.Name(), Server: bareServer, Client: bareClient}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// peers starts the foreign brokers and returns them on those of the carriers that
// they have.
func (b *benchBrokers) peers(f *benchFlags, carriers []string) (targets []bench.MQTTTarget, err error) {
	peers, err := f.foreign()
	if err != nil {
		return nil, err
	}
	for _, foreign := range peers {
		if len(foreign.command) == 1 && strings.Contains(foreign.command[0], "://") {
			targets = append(targets, bench.MQTTTarget{Name: foreign.name, URL: foreign.command[0]})
			continue
		}
		p, err := b.start(foreign.command)
		if err != nil {
			return nil, fmt.Errorf("--peer %s: %w", foreign.name, err)
		}
		for _, carrier := range carriers {
			if url, ok := p.URLs[carrier]; ok {
				targets = append(targets, bench.MQTTTarget{Name: foreign.name + "/" + carrier, URL: url, Proc: p, Carrier: carrier})
			}
		}
	}
	return targets, nil
}

// newBenchBroker is the broker as `anyquic bench mqtt` starts it.
func newBenchBroker() *cobra.Command {
	cfg := defaults()
	cmd := &cobra.Command{
		Use:    "broker",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			quic, err := engineOf(cmd)
			if err != nil {
				return err
			}
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
	cfg.Store.bind(cmd.Flags())
	cmd.Flags().IntVar(&cfg.Listen.Streams, "quic-streams", cfg.Listen.Streams, "streams of a client")
	return cmd
}
