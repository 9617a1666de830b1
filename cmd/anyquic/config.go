package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/faultlink"
	"github.com/anyquic/anyquic/mqtt/mqttweb"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A serveConfig is everything `anyquic serve` can be told, by flags or by a
// YAML file. The zero value of an address means the default port on Host;
// "off" means no such listener.
type serveConfig struct {
	Engine      string            `yaml:"engine"`
	Host        string            `yaml:"host"`
	Certificate certificateConfig `yaml:"certificate"`
	Listen      listenConfig      `yaml:"listen"`
	Access      accessConfig      `yaml:"access"`
	Store       storeConfig       `yaml:"store"`
	Limits      limitsConfig      `yaml:"limits"`
	Quotas      quotasConfig      `yaml:"quotas"`
	Timeouts    timeoutsConfig    `yaml:"timeouts"`
	Delayed     delayedConfig     `yaml:"delayed"`
	Log         logConfig         `yaml:"log"`

	// SysInterval is how often the broker publishes about itself; 0: never.
	SysInterval time.Duration `yaml:"sys-interval"`

	// ServerReference is where clients are told to go when the broker drains.
	ServerReference string         `yaml:"server-reference"`
	Node            string         `yaml:"node,omitempty"`    // how bridges name the broker
	Rewrite         []rewriteRule  `yaml:"rewrite,omitempty"` // in the file only
	Bridges         []bridgeConfig `yaml:"bridges,omitempty"` // likewise

	faults *faultlink.Source // nil: none; see faultFlags
}

type certificateConfig struct {
	Cert string `yaml:"cert"` // PEM, with the chain
	Key  string `yaml:"key"`  // PEM
}

type listenConfig struct {
	TCP     string `yaml:"tcp"`
	TLS     string `yaml:"tls"`
	WS      string `yaml:"ws"`  // WebSocket without TLS
	WSS     string `yaml:"wss"` // WebSocket on HTTPS
	WSPath  string `yaml:"ws-path"`
	Origins string `yaml:"origins"` // with commas
	HTTP3   bool   `yaml:"http3"`   // on the UDP ports of WSS and QUIC
	Early   string `yaml:"early-data"`
	QUIC    string `yaml:"quic"`
	Streams int    `yaml:"quic-streams"` // of a client, the control stream with them
	Metrics string `yaml:"metrics"`
}

type limitsConfig struct {
	MaxConnections    int    `yaml:"max-connections"`
	QueueBytes        int    `yaml:"queue-bytes"`
	MaximumPacketSize uint32 `yaml:"maximum-packet-size"`
	ReceiveMaximum    uint16 `yaml:"receive-maximum"`
	MaxInflight       uint16 `yaml:"max-inflight"`
	TopicAliasMaximum uint16 `yaml:"topic-alias-maximum"`
	MaxSubscriptions  int    `yaml:"max-subscriptions"`
	SubscriptionBytes int    `yaml:"subscription-bytes"`
	TopicLevels       uint16 `yaml:"topic-levels"`
	MaxSessions       int    `yaml:"max-sessions"`
	RetainedMessages  int    `yaml:"retained-messages"`
	RetainedBytes     int64  `yaml:"retained-bytes"`
}

type timeoutsConfig struct {
	Connect       time.Duration `yaml:"connect"`
	Stall         time.Duration `yaml:"stall"`
	Hold          time.Duration `yaml:"hold"`
	Drain         time.Duration `yaml:"drain"`
	DrainSpread   time.Duration `yaml:"drain-spread"` // 0: half of Drain with a reference, else none
	SessionExpiry time.Duration `yaml:"session-expiry"`
	KeepAlive     time.Duration `yaml:"keep-alive"`
}

// A delayedConfig is for messages to $delayed/SECONDS/TOPIC.
type delayedConfig struct {
	Enabled  bool          `yaml:"enabled"`
	Messages int           `yaml:"messages"`
	Bytes    int64         `yaml:"bytes"`
	Max      time.Duration `yaml:"max"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

const off = "off"

// maxStreams is what the broker serves of a connection: 64 data streams and the
// control stream.
const maxStreams = 65

// defaults returns the configuration of `anyquic serve` with no flag.
func defaults() serveConfig {
	b := broker.DefaultConfig()
	l := b.Limits
	return serveConfig{
		Host:   "127.0.0.1",
		Listen: listenConfig{WS: off, WSPath: mqttweb.Path, HTTP3: true, Early: "connect", Streams: 16, Metrics: "127.0.0.1:9090"},
		Access: accessConfig{JWTUser: "sub", ClientName: "cn", Timeout: b.HookTimeout, Queue: 32},
		Limits: limitsConfig{
			MaxConnections:    100_000,
			QueueBytes:        l.QueueBytes,
			MaximumPacketSize: l.MaximumPacketSize,
			ReceiveMaximum:    l.ReceiveMaximum,
			MaxInflight:       l.MaxInflight,
			TopicAliasMaximum: l.TopicAliasMaximum,
			MaxSubscriptions:  l.MaxSubscriptions,
			SubscriptionBytes: l.SubscriptionBytes,
			TopicLevels:       l.TopicLevels,
			MaxSessions:       1_000_000,
			RetainedMessages:  b.MaxRetained,
			RetainedBytes:     b.MaxRetainedBytes,
		},
		Quotas: defaultQuotas(&b.Quotas),
		Timeouts: timeoutsConfig{
			Connect:       b.ConnectTimeout,
			Stall:         b.StallTimeout,
			Hold:          b.HoldTimeout,
			Drain:         10 * time.Second,
			SessionExpiry: l.SessionExpiryMax,
		},
		Store:       defaultStore(),
		SysInterval: 30 * time.Second,
		Delayed:     delayedConfig{Messages: b.Delayed.MaxMessages, Bytes: b.Delayed.MaxBytes, Max: b.Delayed.MaxDelay},
		Log:         logConfig{Level: "info", Format: "text"},
	}
}

// bind declares a flag for every setting, with the values in c as defaults.
func (c *serveConfig) bind(fs *pflag.FlagSet) {
	fs.StringVar(&c.Host, "host", c.Host, "address of listeners that name none; 0.0.0.0 or :: opens them to the network")
	fs.StringVar(&c.Listen.TCP, "tcp", c.Listen.TCP, `MQTT on TCP, HOST:PORT or "off" (default HOST:1883)`)
	fs.StringVar(&c.Listen.TLS, "tls", c.Listen.TLS, `MQTT on TLS, HOST:PORT or "off" (default HOST:8883)`)
	fs.StringVar(&c.Listen.WS, "ws", c.Listen.WS, `MQTT on WebSocket without TLS, HOST:PORT or "off"`)
	fs.StringVar(&c.Listen.WSS, "wss", c.Listen.WSS, `MQTT on WebSocket over HTTPS, HOST:PORT or "off" (default HOST:8443, TCP and UDP)`)
	fs.StringVar(&c.Listen.WSPath, "ws-path", c.Listen.WSPath, "path of the WebSocket and WebTransport endpoint")
	fs.StringVar(&c.Listen.Origins, "origins", c.Listen.Origins, `other origins whose pages may connect, with commas: https://example.com, *.example.com, or * for all`)
	fs.BoolVar(&c.Listen.HTTP3, "http3", c.Listen.HTTP3, "WebSocket on HTTP/3 and WebTransport, on the UDP ports of --wss and --quic")
	fs.StringVar(&c.Listen.QUIC, "quic", c.Listen.QUIC, `MQTT on QUIC, HOST:PORT or "off" (default HOST:14567, UDP)`)
	fs.IntVar(&c.Listen.Streams, "quic-streams", c.Listen.Streams, "streams that a client may have open at once on --quic, 10 to 65")
	fs.StringVar(&c.Listen.Metrics, "metrics", c.Listen.Metrics, `Prometheus /metrics, /healthz and, from this machine, /debug/clients; HOST:PORT or "off"`)
	fs.StringVar(&c.Listen.Early, "early-data", c.Listen.Early, "what of 0-RTT data on --quic takes effect before the handshake: off (it is refused), connect (nothing), idempotent or all")
	fs.StringVar(&c.Certificate.Cert, "cert", c.Certificate.Cert, "PEM file with the certificate chain (default: a self-signed one, made at start)")
	fs.StringVar(&c.Certificate.Key, "key", c.Certificate.Key, "PEM file with the certificate's private key")
	c.Access.bind(fs)
	c.Store.bind(fs)
	fs.IntVar(&c.Limits.MaxConnections, "max-connections", c.Limits.MaxConnections, "clients at once, 0 for no limit")
	fs.IntVar(&c.Limits.QueueBytes, "queue-bytes", c.Limits.QueueBytes, "bytes that may wait for one client")
	fs.Uint32Var(&c.Limits.MaximumPacketSize, "maximum-packet-size", c.Limits.MaximumPacketSize, "bytes of the largest packet a client may send")
	fs.Uint16Var(&c.Limits.ReceiveMaximum, "receive-maximum", c.Limits.ReceiveMaximum, "QoS 1 and 2 messages a client may have in flight to the broker")
	fs.Uint16Var(&c.Limits.MaxInflight, "max-inflight", c.Limits.MaxInflight, "QoS 1 and 2 messages in flight to a client, at most")
	fs.Uint16Var(&c.Limits.TopicAliasMaximum, "topic-alias-maximum", c.Limits.TopicAliasMaximum, "topic aliases a client may use")
	fs.IntVar(&c.Limits.MaxSubscriptions, "max-subscriptions", c.Limits.MaxSubscriptions, "subscriptions of one client")
	fs.IntVar(&c.Limits.SubscriptionBytes, "subscription-bytes", c.Limits.SubscriptionBytes, "bytes of all topic filters of one client")
	fs.Uint16Var(&c.Limits.TopicLevels, "topic-levels", c.Limits.TopicLevels, "levels of a topic or a filter")
	fs.IntVar(&c.Limits.MaxSessions, "max-sessions", c.Limits.MaxSessions, "sessions with and without a connection, 0 for no limit")
	fs.IntVar(&c.Limits.RetainedMessages, "retained-messages", c.Limits.RetainedMessages, "retained messages, -1 for no limit")
	fs.Int64Var(&c.Limits.RetainedBytes, "retained-bytes", c.Limits.RetainedBytes, "bytes of all retained messages, -1 for no limit")
	c.Quotas.bind(fs)
	fs.DurationVar(&c.Timeouts.Connect, "connect-timeout", c.Timeouts.Connect, "from a connection to its CONNECT packet")
	fs.DurationVar(&c.Timeouts.Stall, "stall-timeout", c.Timeouts.Stall, "without progress, after which publishers do not wait for a subscriber")
	fs.DurationVar(&c.Timeouts.Hold, "hold-timeout", c.Timeouts.Hold, "longest wait of a publisher for slow subscribers")
	fs.DurationVar(&c.Timeouts.Drain, "drain-timeout", c.Timeouts.Drain, "for clients to take their DISCONNECT at shutdown")
	fs.DurationVar(&c.Timeouts.DrainSpread, "drain-spread", c.Timeouts.DrainSpread, "time in which clients are sent away one after the other (default half of --drain-timeout with --server-reference, else at once)")
	fs.StringVar(&c.ServerReference, "server-reference", c.ServerReference, "other brokers that clients are sent to when this one drains, HOST:PORT with spaces between")
	fs.DurationVar(&c.Timeouts.SessionExpiry, "session-expiry", c.Timeouts.SessionExpiry, "longest life of a session without a connection")
	fs.DurationVar(&c.Timeouts.KeepAlive, "keep-alive", c.Timeouts.KeepAlive, "longest keep-alive granted, 0 for as the client asks")
	fs.DurationVar(&c.SysInterval, "sys-interval", c.SysInterval, "how often the broker publishes its figures below $SYS/broker/, 0 for never")
	fs.BoolVar(&c.Delayed.Enabled, "delayed", c.Delayed.Enabled, "publish what comes to $delayed/SECONDS/TOPIC that much later; off: refuse it")
	fs.IntVar(&c.Delayed.Messages, "delayed-messages", c.Delayed.Messages, "messages that may wait to be published later, -1 for no limit")
	fs.Int64Var(&c.Delayed.Bytes, "delayed-bytes", c.Delayed.Bytes, "bytes of those messages, -1 for no limit")
	fs.DurationVar(&c.Delayed.Max, "delayed-max", c.Delayed.Max, "longest delay")
	fs.StringVar(&c.Node, "node", c.Node, "name of this broker in the messages that bridges carry (default a random one)")
	fs.StringVar(&c.Log.Level, "log-level", c.Log.Level, "debug, info, warn or error")
	fs.StringVar(&c.Log.Format, "log-format", c.Log.Format, "text or json")
}

// load returns the effective configuration: defaults, then the file (if any),
// then the flags that were set on the command line.
func load(file string, flags *pflag.FlagSet) (serveConfig, error) {
	cfg := defaults()
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return cfg, fmt.Errorf("--config: %w", err)
		}
		dec := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()) // an unknown key is an error
		if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
			return cfg, fmt.Errorf("%s: %s", file, yaml.FormatError(err, false, true))
		}
	}
	effective := pflag.NewFlagSet("effective", pflag.ContinueOnError)
	cfg.bind(effective)
	effective.StringVar(&cfg.Engine, "engine", cfg.Engine, "")
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if effective.Lookup(f.Name) != nil && err == nil {
			err = effective.Set(f.Name, f.Value.String())
		}
	})
	if err != nil {
		return cfg, err
	}
	return cfg, cfg.resolve()
}

// resolve fills in the addresses that were left out and checks the rest, so
// that what --check prints is what would be used.
func (c *serveConfig) resolve() error {
	if c.Host == "" {
		return errors.New("host is empty: use 127.0.0.1, or 0.0.0.0 to open the listeners to the network")
	}
	any := false
	for _, l := range []struct {
		flag string
		addr *string
		port int
	}{
		{"tcp", &c.Listen.TCP, 1883},
		{"tls", &c.Listen.TLS, 8883},
		{"ws", &c.Listen.WS, 8083},
		{"wss", &c.Listen.WSS, 8443},
		{"quic", &c.Listen.QUIC, 14567},
	} {
		if *l.addr == "" {
			*l.addr = net.JoinHostPort(c.Host, strconv.Itoa(l.port))
		}
		if *l.addr == off {
			continue
		}
		any = true
		if err := checkAddr(l.flag, *l.addr); err != nil {
			return err
		}
	}
	if !any {
		return errors.New(`every listener is "off": leave at least one of --tcp, --tls, --ws, --wss, --quic on`)
	}
	if err := c.Access.check(map[string]string{
		"tcp": c.Listen.TCP, "tls": c.Listen.TLS, "ws": c.Listen.WS, "wss": c.Listen.WSS, "quic": c.Listen.QUIC,
	}); err != nil {
		return err
	}
	if c.Listen.Metrics != off {
		if err := checkAddr("metrics", c.Listen.Metrics); err != nil {
			return err
		}
	}
	if len(c.Listen.WSPath) == 0 || c.Listen.WSPath[0] != '/' {
		return fmt.Errorf("--ws-path %q does not start with /", c.Listen.WSPath)
	}
	if _, err := parseEarly(c.Listen.Early); err != nil {
		return err
	}
	if c.Listen.Streams < 10 || c.Listen.Streams > maxStreams {
		return fmt.Errorf("--quic-streams %d: must be 10, which clients count on, to %d", c.Listen.Streams, maxStreams)
	}
	if (c.Certificate.Cert == "") != (c.Certificate.Key == "") {
		return errors.New("--cert and --key go together: one of them is missing")
	}
	for _, l := range []struct {
		flag  string
		value int64
	}{
		{"queue-bytes", int64(c.Limits.QueueBytes)},
		{"maximum-packet-size", int64(c.Limits.MaximumPacketSize)},
		{"receive-maximum", int64(c.Limits.ReceiveMaximum)},
		{"max-inflight", int64(c.Limits.MaxInflight)},
		{"max-subscriptions", int64(c.Limits.MaxSubscriptions)},
		{"subscription-bytes", int64(c.Limits.SubscriptionBytes)},
		{"topic-levels", int64(c.Limits.TopicLevels)},
		{"connect-timeout", int64(c.Timeouts.Connect)},
		{"stall-timeout", int64(c.Timeouts.Stall)},
		{"hold-timeout", int64(c.Timeouts.Hold)},
		{"drain-timeout", int64(c.Timeouts.Drain)},
		{"session-expiry", int64(c.Timeouts.SessionExpiry)},
		{"delayed-max", int64(c.Delayed.Max)},
	} {
		if l.value <= 0 {
			return fmt.Errorf("--%s must be more than 0", l.flag)
		}
	}
	if c.SysInterval < 0 || c.SysInterval > 0 && c.SysInterval < time.Second {
		return fmt.Errorf("--sys-interval %v: must be 0 for never, or a second or more", c.SysInterval)
	}
	if c.Timeouts.DrainSpread < 0 || c.Timeouts.DrainSpread >= c.Timeouts.Drain {
		return fmt.Errorf("--drain-spread %v: must be 0 or more, and less than --drain-timeout %v", c.Timeouts.DrainSpread, c.Timeouts.Drain)
	}
	if c.Limits.MaxConnections < 0 || c.Limits.MaxSessions < 0 {
		return errors.New("--max-connections and --max-sessions must be 0 (no limit) or more")
	}
	if err := c.Quotas.check(); err != nil {
		return err
	}
	if c.Delayed.Messages == 0 || c.Delayed.Bytes == 0 {
		return errors.New("--delayed-messages and --delayed-bytes must be more than 0, or -1 for no limit")
	}
	if c.Limits.RetainedMessages == 0 || c.Limits.RetainedBytes == 0 {
		return errors.New("--retained-messages and --retained-bytes must be more than 0, or -1 for no limit")
	}
	if k := c.Timeouts.KeepAlive; k < 0 || k > 65535*time.Second || k%time.Second != 0 {
		return fmt.Errorf("--keep-alive %v: must be whole seconds, up to 65535", k)
	}
	if err := c.Store.check(); err != nil {
		return err
	}
	_, err := c.Log.level()
	if err != nil {
		return err
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return fmt.Errorf(`--log-format %q: use "text" or "json"`, c.Log.Format)
	}
	return nil
}

func checkAddr(flag, addr string) error {
	_, port, err := net.SplitHostPort(addr) // port 0: the kernel chooses
	if err != nil {
		return fmt.Errorf("--%s %q: not HOST:PORT (%w)", flag, addr, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("--%s %q: port %q is not a number from 0 to 65535", flag, addr, port)
	}
	return nil
}

// origins returns the list that Origins is.
func (c *listenConfig) origins() (list []string) {
	for o := range strings.SplitSeq(c.Origins, ",") {
		if o = strings.TrimSpace(o); o != "" {
			list = append(list, o)
		}
	}
	return list
}

// drain returns how clients are sent away.
func (c *serveConfig) drain() broker.Drain {
	d := broker.Drain{Reference: c.ServerReference, Spread: c.Timeouts.DrainSpread}
	if d.Reference != "" && d.Spread == 0 {
		d.Spread = c.Timeouts.Drain / 2
	}
	return d
}

// brokerConfig returns what the broker needs of c.
func (c *serveConfig) brokerConfig() *broker.Config {
	return &broker.Config{
		Node:             c.Node,
		MaxConns:         c.Limits.MaxConnections,
		MaxSessions:      c.Limits.MaxSessions,
		Quotas:           c.Quotas.quotas(),
		MaxRetained:      c.Limits.RetainedMessages,
		MaxRetainedBytes: c.Limits.RetainedBytes,
		ConnectTimeout:   c.Timeouts.Connect,
		SysInterval:      c.SysInterval,
		Version:          "anyquic " + buildVersion().Version,
		StallTimeout:     c.Timeouts.Stall,
		HoldTimeout:      c.Timeouts.Hold,
		Delayed: broker.Delayed{
			Enabled: c.Delayed.Enabled, MaxMessages: c.Delayed.Messages, MaxBytes: c.Delayed.Bytes, MaxDelay: c.Delayed.Max,
		},
		Limits: session.Limits{
			QueueBytes:        c.Limits.QueueBytes,
			ReceiveMaximum:    c.Limits.ReceiveMaximum,
			MaximumPacketSize: c.Limits.MaximumPacketSize,
			TopicAliasMaximum: c.Limits.TopicAliasMaximum,
			MaxInflight:       c.Limits.MaxInflight,
			MaxSubscriptions:  c.Limits.MaxSubscriptions,
			SubscriptionBytes: c.Limits.SubscriptionBytes,
			TopicLevels:       c.Limits.TopicLevels,
			SessionExpiryMax:  c.Timeouts.SessionExpiry,
			KeepAliveMax:      uint16(c.Timeouts.KeepAlive / time.Second),
		},
	}
}
