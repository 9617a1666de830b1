package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/faultlink"
)

// faultFlags make the broker misbehave, to test clients. They are not settings:
// no file can turn them on.
type faultFlags struct {
	list string
	cfg  faultlink.Config
}

func (f *faultFlags) bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.list, "fault", "", `misbehave towards clients, to test them; on loopback only: a list with commas, or "all" (see docs/mqtt-faults.md)`)
	fs.Float64Var(&f.cfg.Rate, "fault-rate", 0.1, "how probable each fault is at each packet, 0 to 1")
	fs.Uint64Var(&f.cfg.Seed, "fault-seed", 0, "makes faults repeatable")
	fs.Int64Var(&f.cfg.Limit, "fault-limit", 0, "how many faults happen, 0 for no limit")
}

// source returns what makes the faults; nil if there are none.
func (f *faultFlags) source() (*faultlink.Source, error) {
	if f.list == "" {
		return nil, nil //nolint:nilnil // no faults is not an error
	}
	var err error
	if f.cfg.Faults, err = faultlink.Parse(f.list); err != nil {
		return nil, fmt.Errorf("--fault: %w", err)
	}
	if f.cfg.Rate == 0 {
		return nil, errors.New("--fault-rate is 0: without --fault there are no faults")
	}
	return faultlink.New(f.cfg)
}

// checkFaults refuses faults where others than this machine could meet them.
func (c *serveConfig) checkFaults(open []*listener) error {
	if c.faults == nil {
		return nil
	}
	for _, l := range open {
		if l.url != "" && !loopback(l.addr) {
			return fmt.Errorf("--fault is for loopback only, and the %s listener is on %s: leave out --host, or name 127.0.0.1", l.name, l.addr)
		}
	}
	return nil
}

// serveLinks is Broker.ServeLinks with the faults that were asked for.
func (c *serveConfig) serveLinks(b *broker.Broker, l mqtt.LinkListener) error {
	if c.faults != nil {
		l = c.faults.Listener(l)
	}
	return b.ServeLinks(l)
}

// serveConns is Broker.Serve with the faults that were asked for.
func (c *serveConfig) serveConns(b *broker.Broker, l net.Listener, carrier mqtt.Carrier) error {
	if c.faults == nil {
		return b.Serve(l, carrier)
	}
	return c.serveLinks(b, &connLinks{l, carrier})
}

// connLinks makes Links of a net.Listener's connections.
type connLinks struct {
	net.Listener
	carrier mqtt.Carrier
}

func (l *connLinks) Accept(context.Context) (mqtt.Link, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return mqtt.NewConnLink(c, l.carrier), nil
}
