package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/rewrite"
	"github.com/anyquic/anyquic/transport"
)

// A bridgeConfig is an entry of `bridges` in the YAML file of `anyquic serve`. Its
// keys are named as the options of `anyquic mqtt`.
type bridgeConfig struct {
	Name    string `yaml:"name"`
	URL     string `yaml:"url"`
	Version string `yaml:"version,omitempty"` // 5, 311 or 31

	ID            string        `yaml:"id,omitempty"` // of the client; default NODE-NAME
	Username      string        `yaml:"username,omitempty"`
	PasswordFile  string        `yaml:"password-file,omitempty"`
	KeepAlive     time.Duration `yaml:"keepalive,omitempty"`
	SessionExpiry time.Duration `yaml:"session-expiry-interval,omitempty"`

	CAFile     string `yaml:"cafile,omitempty"`
	Cert       string `yaml:"cert,omitempty"`
	Key        string `yaml:"key,omitempty"`
	ServerName string `yaml:"servername,omitempty"`
	Insecure   bool   `yaml:"insecure,omitempty"`

	LocalUsername     string `yaml:"local-username,omitempty"`
	LocalPasswordFile string `yaml:"local-password-file,omitempty"`

	QueueBytes int `yaml:"queue-bytes,omitempty"`
	MaxHops    int `yaml:"max-hops,omitempty"`

	Forward   []bridgeRule `yaml:"forward,omitempty"`
	Subscribe []bridgeRule `yaml:"subscribe,omitempty"`
}

// A bridgeRule is an entry of `forward` or `subscribe`.
type bridgeRule struct {
	Filter string `yaml:"filter"`
	To     string `yaml:"to,omitempty"`
	QoS    *uint8 `yaml:"qos,omitempty"` // at most; nil: 2
}

// UnmarshalYAML checks a rule where its line is known.
func (r *bridgeRule) UnmarshalYAML(node ast.Node) error {
	type plain bridgeRule
	return decodeRule(node, (*plain)(r), func() error {
		to := r.To
		if to == "" {
			to = "$0"
		}
		if r.QoS != nil && *r.QoS > 2 {
			return fmt.Errorf("qos %d: use 0, 1 or 2", *r.QoS)
		}
		_, err := rewrite.New(rewrite.Rule{Filter: r.Filter, To: to})
		return err
	})
}

// decodeRule decodes node into rule and checks it. The error names the line.
func decodeRule(node ast.Node, rule any, check func() error) error {
	if err := yaml.NodeToValue(node, rule, yaml.Strict()); err != nil {
		return err
	}
	if err := check(); err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: node.GetToken()}
	}
	return nil
}

// checkBridges reports what is wrong with the bridges.
func (c *serveConfig) checkBridges(quic transport.Transport) error {
	names := make(map[string]bool)
	for i := range c.Bridges {
		cfg, err := c.Bridges[i].config(quic)
		if err == nil {
			err = cfg.Validate()
		}
		if err == nil && names[cfg.Name] {
			err = fmt.Errorf("bridge: %s: another bridge has that name", cfg.Name)
		}
		if err != nil {
			return fmt.Errorf("bridges: entry %d: %w", i+1, err)
		}
		names[cfg.Name] = true
	}
	return nil
}

func (c *bridgeConfig) config(quic transport.Transport) (*bridge.Config, error) {
	version := packet.V5
	if c.Version != "" {
		var err error
		if version, err = parseVersion(c.Version); err != nil {
			return nil, fmt.Errorf("version %q: use 5, 311 or 31", c.Version)
		}
	}
	tlsFlags := connectFlags{caFile: c.CAFile, certFile: c.Cert, keyFile: c.Key, serverName: c.ServerName, insecure: c.Insecure}
	tlsConfig, err := tlsFlags.tls()
	if err != nil {
		return nil, err
	}
	password, err := secret(c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password-file: %w", err)
	}
	localPassword, err := secret(c.LocalPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("local-password-file: %w", err)
	}
	return &bridge.Config{
		Name:          c.Name,
		LocalUsername: c.LocalUsername,
		LocalPassword: localPassword,
		QueueBytes:    c.QueueBytes,
		MaxHops:       c.MaxHops,
		Forward:       bridgeRules(c.Forward),
		Subscribe:     bridgeRules(c.Subscribe),
		Remote: client.Config{
			URL:           c.URL,
			TLS:           tlsConfig,
			Dialers:       dialers(quic),
			Version:       version,
			ClientID:      c.ID,
			Username:      c.Username,
			Password:      password,
			KeepAlive:     c.KeepAlive,
			SessionExpiry: c.SessionExpiry,
		},
	}, nil
}

// secret returns the first line of a file, nil without a file.
func secret(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return nil, fmt.Errorf("%s: the first line is empty: it should be the password", file)
	}
	return line, nil
}

func bridgeRules(list []bridgeRule) (rules []bridge.Rule) {
	for _, r := range list {
		rule := bridge.Rule{Filter: r.Filter, To: r.To}
		if r.QoS != nil {
			rule.MaxQoS = packet.Some(packet.QoS(*r.QoS))
		}
		rules = append(rules, rule)
	}
	return rules
}

// bridges are those that run, and their metrics.
type bridges []*bridge.Bridge

// startBridges starts all bridges, or none.
func (c *serveConfig) startBridges(b *broker.Broker, quic transport.Transport, log *slog.Logger) (bridges, error) {
	var all bridges
	for i := range c.Bridges {
		cfg, err := c.Bridges[i].config(quic)
		if err == nil {
			cfg.Local, cfg.Logger = b, log
			var br *bridge.Bridge
			if br, err = bridge.New(cfg); err == nil {
				all = append(all, br)
				continue
			}
		}
		all.Close()
		return nil, fmt.Errorf("bridges: entry %d: %w", i+1, err)
	}
	return all, nil
}

// Shutdown sends what waits and ends the bridges.
func (b bridges) Shutdown(ctx context.Context) (err error) {
	for _, br := range b {
		err = errors.Join(err, br.Shutdown(ctx))
	}
	return err
}

// Close ends the bridges at once.
func (b bridges) Close() {
	for _, br := range b {
		_ = br.Close() // it returns nil
	}
}

var (
	bridgeConnected   = bridgeMetric("connected", "1 while the bridge is connected to the remote broker.")
	bridgeConnections = bridgeMetric("connections_total", "Connections that the remote broker has accepted.")
	bridgeQueued      = bridgeMetric("queued_messages", "Messages that the remote broker has not acknowledged.")
	bridgeQueueBytes  = bridgeMetric("queued_bytes", "Bytes of those messages.")
	bridgeForwarded   = bridgeMetric("forwarded_total", "Messages that the remote broker has taken, or that were sent with QoS 0.")
	bridgeUnknown     = bridgeMetric("unknown_total", "Messages of QoS 2 that the remote broker had accepted before it lost the session: it may have published them or not.")
	bridgeReceived    = bridgeMetric("received_total", "Messages of the remote broker that the local one has taken.")
	bridgeDropped     = bridgeMetric("dropped_total", "Messages that were not carried.", "reason")
)

func bridgeMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("anyquic_bridge_"+name, help, append([]string{"bridge"}, labels...), nil)
}

// Describe is of prometheus.Collector.
func (b bridges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{bridgeConnected, bridgeConnections, bridgeQueued, bridgeQueueBytes, bridgeForwarded, bridgeUnknown, bridgeReceived, bridgeDropped} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (b bridges) Collect(ch chan<- prometheus.Metric) {
	for _, br := range b {
		s := br.Status()
		metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{s.Name}, labels...)...)
		}
		connected := 0.0
		if s.Connected {
			connected = 1
		}
		metric(bridgeConnected, prometheus.GaugeValue, connected)
		metric(bridgeConnections, prometheus.CounterValue, float64(s.Connections))
		metric(bridgeQueued, prometheus.GaugeValue, float64(s.Queued))
		metric(bridgeQueueBytes, prometheus.GaugeValue, float64(s.QueueBytes))
		metric(bridgeForwarded, prometheus.CounterValue, float64(s.Forwarded))
		metric(bridgeUnknown, prometheus.CounterValue, float64(s.Unknown))
		metric(bridgeReceived, prometheus.CounterValue, float64(s.Received))
		for _, d := range bridge.Drops() {
			metric(bridgeDropped, prometheus.CounterValue, float64(s.Dropped[d]), d.String())
		}
	}
}
