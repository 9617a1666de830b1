package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/internal/selfcert"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/transport"
	"github.com/anyquic/anyquic/transport/engine"
)

func newServe() *cobra.Command {
	var file string
	var check, asJSON bool
	bound := defaults()
	var faults faultFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run an MQTT broker on TCP, TLS, WebSocket, QUIC and WebTransport",
		Long: `Run an MQTT 3.1, 3.1.1 and 5 broker on TCP, TLS, WebSocket, QUIC and WebTransport.

The port of --wss takes WebSocket on HTTP/1.1 and HTTP/2 by TCP, and WebSocket on
HTTP/3 and WebTransport by UDP; the last two work on the port of --quic as well.

Without flags it listens on loopback only, with a self-signed certificate made
at start, and keeps its state in memory; with --store DIR it keeps what must last in
a folder, and acknowledges nothing before it is on the disk. On other addresses
clients must say who they are, by --users, --jwks, --client-ca or --auth-http, unless
--allow-anonymous opens the broker to everyone. Every setting is a flag and a key of
the YAML file that --config names; a flag wins over the file. Rules that rewrite
topics and bridges to other brokers are in the file only.

SIGTERM and SIGINT drain: /healthz says 503, clients are told (DISCONNECT 0x8B, or 0x9C
with --server-reference) and have --drain-timeout to go; a second signal ends the
program at once.

SIGHUP reads --config and the files that it and the flags name again: certificates,
limits, users, keys, rules, the log's level. Nobody is disconnected. If anything is wrong with them, it is
logged and everything stays as it was.`,
		Example: `  anyquic serve
  anyquic serve --host 0.0.0.0 --cert fullchain.pem --key key.pem --users users --acl rules
  anyquic serve --tcp off --wss off --quic :14567
  anyquic serve --wss :443 --origins https://app.example.com
  anyquic serve --server-reference b.example.com:8883 --drain-timeout 60s
  anyquic serve --store /var/lib/anyquic
  anyquic serve --config broker.yaml --check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(file, cmd.Flags())
			if err != nil {
				return err
			}
			if cfg.faults, err = faults.source(); err != nil {
				return err
			}
			quic, err := engine.Lookup(cfg.Engine)
			if err != nil {
				return err
			}
			cfg.Engine = quic.Name()
			if err := cfg.checkBridges(quic); err != nil {
				return err
			}
			cert, selfSigned, err := cfg.Certificate.certificate(time.Now(), cfg.hosts()...)
			if err != nil {
				return err
			}
			if check {
				return yaml.NewEncoder(cmd.OutOrStdout()).Encode(cfg)
			}
			announce := printListeners
			if asJSON {
				announce = printListenersJSON
			}
			var again func() (serveConfig, error)
			if file != "" || cfg.namesFiles() {
				again = func() (serveConfig, error) { return load(file, cmd.Flags()) }
			}
			return serve(cmd.Context(), &cfg, quic, cert, cmd.ErrOrStderr(), again, func(open []*listener) error {
				return announce(cmd.OutOrStdout(), quic, open, cert, selfSigned)
			})
		},
	}
	cmd.Flags().SortFlags = false
	bound.bind(cmd.Flags())
	faults.bind(cmd.Flags())
	cmd.Flags().StringVar(&file, "config", "", "YAML file with settings; see --check for its keys")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the listeners as one JSON object when they are open")
	cmd.Flags().BoolVar(&check, "check", false, "print the effective configuration as YAML and exit")
	return cmd
}

// hosts returns the hosts of the listeners, for the certificate.
func (c *serveConfig) hosts() []string {
	var hosts []string
	for _, addr := range []string{c.Listen.TLS, c.Listen.WSS, c.Listen.QUIC} {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// serve runs the broker until ctx is done, then drains it. It calls announce
// when the listeners are open, and load when it is to reload the configuration; if that is nil
// SIGHUP ends the program, as when a terminal goes.
func serve(ctx context.Context, cfg *serveConfig, quic transport.Transport, cert tls.Certificate, stderr io.Writer, load func() (serveConfig, error), announce func([]*listener) error) error {
	guard, err := cfg.Access.open()
	if err != nil {
		return err
	}
	defer guard.close()
	var st io.Closer
	defer func() { closeStore(st, cfg.Log.logger(stderr)) }() // after the broker
	ops, err := newOperations(cfg, quic, &cert, stderr, func(log *slog.Logger) (*broker.Broker, error) {
		bc := cfg.brokerConfig()
		bc.Logger = log
		guard.guard(bc, cfg.Access.Timeout)
		var err error
		if bc.Rewrite, err = cfg.rewriting(); err != nil {
			return nil, err
		}
		if st, err = cfg.Store.open(bc, log); err != nil {
			return nil, err
		}
		return broker.New(bc)
	})
	if err != nil {
		return err
	}
	b, log := ops.broker, ops.log
	defer b.Close()
	ops.watch(guard)

	hup := make(chan os.Signal, 1)
	if load != nil {
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
	}
	if ops.bridges, err = cfg.startBridges(b, quic, log); err != nil {
		return err
	}
	defer ops.bridges.Close()
	open, err := listeners(cfg, b, ops, log)
	if err != nil {
		return err
	}
	if err := cfg.checkFaults(open); err != nil {
		for _, l := range open {
			err = errors.Join(err, ignoreClosed(l.close()))
		}
		return err
	}
	if err := announce(open); err != nil {
		log.Warn("could not print the listeners", "error", err) // the broker works without
	}
	for _, l := range open {
		if l.url != "" && !loopback(l.addr) && cfg.Access.AllowAnonymous {
			log.Warn("anyone who can reach this address may connect: --allow-anonymous says so", "listener", l.name, "addr", l.addr.String())
		}
	}

	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	for _, l := range open {
		g.Go(func() error {
			if err := ignoreClosed(l.serve()); err != nil {
				return fmt.Errorf("%s listener: %w", l.name, err)
			}
			return nil
		})
	}
	for running := true; running; {
		select {
		case <-hup:
			ops.reload(load)
		case <-ctx.Done():
			running = false
		case <-failed.Done(): // one listener broke: end, so that a supervisor restarts all
			running = false
		}
	}
	cfg = ops.config()
	ops.draining.Store(true) // /healthz says so, until the metrics listener is closed as the last
	log.Info("draining", "timeout", cfg.Timeouts.Drain, "clients", connected(b))
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Drain)
	defer cancel()
	if err := b.Drain(drain, cfg.drain()); err != nil {
		log.Warn("clients are still connected at the end of --drain-timeout: they are cut off", "clients", connected(b))
	}
	err = errors.Join(b.Shutdown(drain), ops.bridges.Shutdown(drain))
	for _, l := range open {
		err = errors.Join(err, ignoreClosed(l.close()))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	log.Info("stopped")
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func printListeners(w io.Writer, quic transport.Transport, open []*listener, cert tls.Certificate, selfSigned bool) error {
	fmt.Fprintf(w, "anyquic %s, QUIC engine %s%s\n\n", buildVersion().Version, quic.Name(), libraries(quic.Features().Versions))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range open {
		if l.url == "" {
			fmt.Fprintf(tw, "  %s\t%s\tcurl http://%s/metrics\n", l.name, l.addr, dialable(l.addr))
			continue
		}
		insecure := ""
		if selfSigned && l.name != "tcp" && l.name != "ws" {
			insecure = " --insecure"
		}
		fmt.Fprintf(tw, "  %s\t%s\tanyquic mqtt sub %s%s -t '#' -v\n", l.name, l.addr, l.url, insecure)
		for _, m := range l.more {
			fmt.Fprintf(tw, "  %s\t%s\tanyquic mqtt sub %s%s -t '#' -v\n", m.carrier, l.addr, m.url, insecure)
		}
	}
	tw.Flush()
	kind := "certificate"
	if selfSigned {
		kind = "self-signed certificate"
	}
	fmt.Fprintf(w, "\n%s, SHA-256 %s, valid until %s\n", kind, selfcert.Fingerprint(cert.Certificate[0]), cert.Leaf.NotAfter.Format(time.DateOnly))
	_, err := fmt.Fprintln(w, "Stop with Ctrl-C.")
	return err
}

// listening is what `anyquic serve --json` prints, on one line.
type listening struct {
	PID               int              `json:"pid"`
	Engine            string           `json:"engine"`
	Listeners         []listenerOnJSON `json:"listeners"`
	CertificateSHA256 string           `json:"certificate_sha256"`
	SelfSigned        bool             `json:"self_signed"`
}

type listenerOnJSON struct {
	Name string `json:"name"`
	Addr string `json:"addr"`
	URL  string `json:"url,omitempty"`

	// More are the other carriers on the port.
	More map[mqtt.Carrier]string `json:"more,omitempty"`
}

func printListenersJSON(w io.Writer, quic transport.Transport, open []*listener, cert tls.Certificate, selfSigned bool) error {
	l := listening{
		PID:               os.Getpid(),
		Engine:            quic.Name(),
		CertificateSHA256: selfcert.Fingerprint(cert.Certificate[0]),
		SelfSigned:        selfSigned,
	}
	for _, o := range open {
		j := listenerOnJSON{Name: o.name, Addr: o.addr.String(), URL: o.url}
		for _, m := range o.more {
			if j.More == nil {
				j.More = make(map[mqtt.Carrier]string)
			}
			j.More[m.carrier] = m.url
		}
		l.Listeners = append(l.Listeners, j)
	}
	return json.NewEncoder(w).Encode(l)
}

// connected returns how many clients are connected now.
func connected(b *broker.Broker) int {
	s := b.Stats()
	return s.Connected()
}
