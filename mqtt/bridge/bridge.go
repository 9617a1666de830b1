// Package bridge connects a broker to another one, so that messages of the one are
// published on the other:
//
//	local broker ── in memory ── client ── queue ── client ── any carrier ── remote broker
//	                 Forward:  ────────────────────────────────>
//	                 Subscribe: <───────────────────────────────
//
// To both brokers a bridge is a client as any other. What the local broker has for
// the remote one goes through a queue, bounded in bytes, that outlives connections:
// the remote broker may be away when the bridge starts, restart, or be cut off.
//
// # Delivery
//
// A message is the local broker's until it is in the queue, and in the queue until
// the remote broker has acknowledged it. With QoS 1 it arrives at least once; with
// QoS 2 exactly once while the remote broker keeps the bridge's session, which the
// bridge asks it to. In the other direction the remote broker gets its
// acknowledgement when the local broker has given its own. The queue is in memory:
// it ends with the program. Messages with QoS 0 that are on their way when a
// connection is lost are lost, and when the queue is full the oldest of them make
// room; a message with QoS 1 or 2 that finds no room even so is dropped. All of
// that is counted.
//
// Messages leave in the order in which the local broker delivered them, so those of
// one topic and one QoS keep theirs.
//
// # Loops
//
// A message never comes back: not over the same bridge (No Local), and not through
// any circle of brokers. Each bridge adds the name of its broker to the user
// properties of what it carries ([mqtt.ViaProperty]), does not send a message to a
// broker that it names, and takes none that names its own. Bridges and brokers of
// this module tell each other their names when they connect. If there are several
// ways from one broker to another, a message takes all of them and arrives that
// often: brokers are best connected as a tree or a ring of one direction, or, each
// with each other, with MaxHops 1.
//
// MQTT 3.x has no properties. To and from a remote broker of 3.x, only messages are
// carried that have come over no other bridge, and the remote broker is asked for
// No Local as mosquitto's bridges do. If it does not know that, the bridge does not
// connect if what it subscribes to could be what it forwards.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/rewrite"
)

// A Local is the broker that a bridge belongs to: a *broker.Broker.
type Local interface {
	// ServeLink serves a client until its connection has ended.
	ServeLink(ctx context.Context, link mqtt.Link) error
	// Node is the broker's name.
	Node() string
}

// A Config says what a bridge connects. Name, Local, Remote.URL and a rule must be
// set.
type Config struct {
	// Name names the bridge in logs, status and metrics, and its session on the
	// local broker: "bridge-" and Name.
	Name string

	Local Local

	// LocalUsername and LocalPassword are shown to the local broker.
	LocalUsername string
	LocalPassword []byte

	// Remote says how to connect to the remote broker. Name and local broker make
	// its ClientID if that is empty; it should be set if the local broker has a
	// random name, for the session to survive the program. SessionExpiry is 24 h if
	// zero. CleanStart, Bridge, OnMessage, OnConnect and OnDisconnect are the
	// bridge's.
	Remote client.Config

	// Forward and Subscribe say what goes to the remote broker and what comes
	// from it. A message that several rules are for goes once for each.
	Forward, Subscribe []Rule

	// QueueBytes bounds what waits for the remote broker: 64 MiB.
	QueueBytes int

	// MaxHops is how many brokers a message may name: 8. One that names as many is
	// carried no further. With 1, only messages are carried that have come over no
	// bridge.
	MaxHops int

	// Logger gets connections, their loss, and the first of what is dropped.
	// If nil nothing is logged.
	Logger *slog.Logger
}

// A Rule says which messages are carried, and what they become.
type Rule struct {
	// Filter is subscribed to where the messages come from.
	Filter string

	// To is the topic on the other side, as in [rewrite.Rule]: with the filter
	// "sensors/#", "site1/sensors/$1" adds a prefix. Empty: it stays the same.
	To string

	// MaxQoS caps the QoS. Default packet.ExactlyOnce.
	MaxQoS packet.Opt[packet.QoS]
}

type rule struct {
	Rule
	mapping *rewrite.Mapping
	qos     packet.QoS
}

const (
	defaultQueueBytes    = 64 << 20
	defaultMaxHops       = 8
	defaultSessionExpiry = 24 * time.Hour
	defaultBackoffMax    = 30 * time.Second

	// localExpiry is how long the local broker keeps the bridge's session if it
	// throws the bridge out; it is back at once.
	localExpiry = time.Hour
)

// A Bridge connects two brokers until it is closed. Its methods may be called from
// any goroutine.
type Bridge struct {
	cfg                Config
	node               string
	forward, subscribe []rule
	log                *slog.Logger
	queue              *queue
	local              *client.Client

	ctx     context.Context // done when the bridge ends
	end     context.CancelFunc
	running sync.WaitGroup
	closing sync.Once

	remote     atomic.Pointer[client.Client] // nil until the first connection
	remoteNode atomic.Pointer[string]        // the remote broker's name; nil or empty: it does not tell
	counts     counts

	mu      sync.Mutex
	since   time.Time          // guarded by mu; of the connection, or of its loss
	lastErr error              // guarded by mu
	saidAt  map[Drop]time.Time // guarded by mu; when the log was last told
}

// New starts a bridge. It returns when the local broker has accepted it; the
// connection to the remote broker is made, and made again, while the bridge lives.
func New(cfg *Config) (*Bridge, error) {
	b := &Bridge{saidAt: make(map[Drop]time.Time), since: time.Now()}
	if cfg != nil {
		b.cfg = *cfg
	}
	if err := b.complete(); err != nil {
		return nil, err
	}
	b.ctx, b.end = context.WithCancel(context.Background())
	if err := b.start(); err != nil {
		b.end()
		if b.local != nil {
			b.local.Close()
		}
		b.running.Wait()
		return nil, fmt.Errorf("bridge: %s: local broker: %w", b.cfg.Name, err)
	}
	b.running.Add(1)
	go b.run() // ends with Close
	return b, nil
}

// Validate returns what keeps cfg from being a configuration, nil if nothing does. A
// missing Local does not.
func (cfg *Config) Validate() error {
	b := &Bridge{cfg: *cfg}
	if b.cfg.Local == nil {
		b.cfg.Local = nobody{}
	}
	return b.complete()
}

// nobody is a local broker to check a configuration with.
type nobody struct{}

func (nobody) ServeLink(context.Context, mqtt.Link) error { return net.ErrClosed }
func (nobody) Node() string                               { return "" }

func (b *Bridge) complete() error {
	cfg := &b.cfg
	if cfg.Name == "" || len(cfg.Name) > 64 || strings.ContainsFunc(cfg.Name, notInNames) {
		return fmt.Errorf("bridge: Config.Name %q: must be 1 to 64 letters, digits, dots, dashes and underscores", cfg.Name)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("bridge: "+cfg.Name+": "+format, args...)
	}
	if cfg.Local == nil {
		return bad("Config.Local is missing")
	}
	if len(cfg.Forward)+len(cfg.Subscribe) == 0 {
		return bad("neither Config.Forward nor Config.Subscribe has a rule: there is nothing to carry")
	}
	if cfg.QueueBytes < 0 || cfg.MaxHops < 0 {
		return bad("Config.QueueBytes and Config.MaxHops cannot be negative")
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = defaultQueueBytes
	}
	if cfg.MaxHops == 0 {
		cfg.MaxHops = defaultMaxHops
	}
	if b.log = cfg.Logger; b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.log = b.log.With("bridge", cfg.Name)
	var err error
	if b.forward, err = rules(cfg.Forward); err != nil {
		return bad("forward: %w", err)
	}
	if b.subscribe, err = rules(cfg.Subscribe); err != nil {
		return bad("subscribe: %w", err)
	}
	b.node = cfg.Local.Node()
	b.queue = newQueue(cfg.QueueBytes)
	b.completeRemote()
	if err := cfg.Remote.Validate(); err != nil {
		return bad("remote broker: %w", err)
	}
	return nil
}

func notInNames(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

func rules(list []Rule) (all []rule, err error) {
	for i, r := range list {
		to := r.To
		if to == "" {
			to = "$0"
		}
		m, err := rewrite.New(rewrite.Rule{Filter: r.Filter, To: to})
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
		qos := r.MaxQoS.Or(packet.ExactlyOnce)
		if qos > packet.ExactlyOnce {
			return nil, fmt.Errorf("rule %d: QoS %d: use 0, 1 or 2", i+1, qos)
		}
		all = append(all, rule{r, m, qos})
	}
	return all, nil
}

// completeRemote makes the remote side's client configuration the bridge's.
func (b *Bridge) completeRemote() {
	r := &b.cfg.Remote
	if r.ClientID == "" {
		r.ClientID = b.node + "-" + b.cfg.Name
	}
	if r.SessionExpiry == 0 {
		r.SessionExpiry = defaultSessionExpiry
	}
	if r.Reconnect.Max == 0 {
		r.Reconnect.Max = max(r.Reconnect.Min, defaultBackoffMax)
	}
	r.Reconnect.Disabled, r.Reconnect.MaxAttempts = false, 0
	// Whatever is wrong there, someone may put it right.
	r.Reconnect.Retry = func(error) bool { return true }
	r.CleanStart = false
	r.Bridge = r.Version != 0 && r.Version < packet.V5
	r.OnMessage = b.unclaimed
	r.OnConnect = b.connected
	r.OnDisconnect = b.disconnected
	r.UserProperties = append(r.UserProperties[:len(r.UserProperties):len(r.UserProperties)],
		packet.UserProperty{Key: mqtt.NodeProperty, Value: b.node})
	if r.Logger == nil {
		r.Logger = b.log
	}
}

// start connects to the local broker and subscribes there.
func (b *Bridge) start() (err error) {
	b.local, err = client.Dial(b.ctx, &client.Config{
		URL:           "mqtt://local",
		Dial:          b.dialLocal,
		ClientID:      "bridge-" + b.cfg.Name,
		CleanStart:    true,
		SessionExpiry: localExpiry,
		KeepAlive:     -1, // a pipe does not break
		Username:      b.cfg.LocalUsername,
		Password:      b.cfg.LocalPassword,
		Reconnect: client.Backoff{
			Min: 50 * time.Millisecond, Max: time.Second,
			Retry: func(error) bool { return true },
		},
	})
	if err != nil {
		return err
	}
	for _, r := range b.forward {
		_, err := b.local.Subscribe(b.ctx, func(p *packet.Publish) { b.fromLocal(&r, p) }, subscription(&r, packet.V5))
		if err != nil {
			return err
		}
	}
	return nil
}

// dialLocal connects to the local broker in memory.
func (b *Bridge) dialLocal(context.Context, *url.URL) (net.Conn, error) {
	ours, theirs := net.Pipe()
	b.running.Add(1) // Close waits for the local client before it waits for these
	go func() {      //nolint:gosec // the context is for dialling; this ends with the connection
		defer b.running.Done()
		_ = b.cfg.Local.ServeLink(context.Background(), mqtt.NewConnLink(theirs, mqtt.TCP))
		theirs.Close()
	}()
	return ours, nil
}

// subscription is what a rule subscribes to.
func subscription(r *rule, v packet.Version) packet.Subscription {
	s := packet.Subscription{Filter: r.Filter, QoS: r.qos}
	if v == 0 || v >= packet.V5 {
		s.NoLocal, s.RetainAsPublished = true, true
	}
	return s
}

// run connects to the remote broker, for the first time, and then sends what is in
// the queue.
func (b *Bridge) run() {
	defer b.running.Done()
	c := b.dialRemote()
	if c == nil {
		return
	}
	b.running.Add(1)
	go b.subscribeRemote(c) // ends when it has, or with Close
	b.send(c)
}

// dialRemote tries until it succeeds, or returns nil after Close.
func (b *Bridge) dialRemote() *client.Client {
	r := &b.cfg.Remote.Reconnect
	for wait := min(max(r.Min, time.Second), r.Max); ; wait = min(2*wait, r.Max) {
		c, err := client.Dial(b.ctx, &b.cfg.Remote)
		if err == nil {
			b.remote.Store(c)
			return c
		}
		if b.ctx.Err() != nil {
			return nil
		}
		if refused, ok := errors.AsType[*client.ConnectError](err); ok && b.cfg.Remote.Bridge &&
			refused.Code == packet.UnsupportedProtocolVersion {
			if err = b.overlap(); err == nil {
				b.log.Warn("the remote broker knows no bridges: RETAIN flags of live messages are lost")
				b.cfg.Remote.Bridge = false
				continue
			}
		}
		b.disconnected(err)
		if !b.sleep(wait) {
			return nil
		}
	}
}

// sleep reports false if the bridge ends first.
func (b *Bridge) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.ctx.Done():
		return false
	}
}

// subscribeRemote subscribes on the remote broker. The client does it again after
// the session was lost.
func (b *Bridge) subscribeRemote(c *client.Client) {
	defer b.running.Done()
	for _, r := range b.subscribe {
		for {
			_, err := c.Subscribe(b.ctx, func(p *packet.Publish) { b.fromRemote(&r, p) }, subscription(&r, b.cfg.Remote.Version))
			if err == nil || b.ctx.Err() != nil {
				break
			}
			b.failed(err)
			b.log.Error("the remote broker refuses a subscription", "filter", r.Filter, "error", err)
			if !b.sleep(b.cfg.Remote.Reconnect.Max) { // an operator may allow it
				return
			}
		}
	}
}

// Shutdown sends what waits for the remote broker while it is connected, until ctx
// is done, and ends the bridge. Local messages are taken until then; a broker that
// drains first loses none. The error is ctx's.
func (b *Bridge) Shutdown(ctx context.Context) error {
	var err error
	if c := b.remote.Load(); c != nil {
		link := c.Link()
		for link != nil && err == nil {
			empty := b.queue.emptied()
			if empty == nil {
				err = c.Disconnect(ctx)
				break
			}
			select {
			case <-empty:
			case <-link.Context().Done():
				link = nil
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	return errors.Join(err, b.Close())
}

// Close ends the bridge at once and waits for its goroutines. What is in the queue
// is lost. What the local broker has not acknowledged stays with the remote one.
func (b *Bridge) Close() error {
	b.closing.Do(func() {
		b.queue.close()
		if c := b.remote.Load(); c != nil {
			b.closeRemote(c)
		}
		b.end()
		b.local.Close()
	})
	b.running.Wait()
	if c := b.remote.Load(); c != nil {
		c.Close() // if it came while the bridge was closed
	}
	return nil
}

// closeRemote ends the remote side. A handler that waits for the local broker goes
// on until the connection has ended: then its return acknowledges nothing.
func (b *Bridge) closeRemote(c *client.Client) {
	done := make(chan struct{})
	link := c.Link()
	go func() { // ends with the client, whose handlers end with b.ctx
		defer close(done)
		c.Close()
	}()
	if link != nil {
		<-link.Context().Done()
	}
	b.end()
	<-done
}
