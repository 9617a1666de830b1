package bridge_test

import (
	"context"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/anyquic/anyquic/internal/pipenet"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/bridge"
	"github.com/anyquic/anyquic/mqtt/broker"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

var at net.Addr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1883}

// A site is a broker and the port that it can be reached at, which may be closed.
// Tests run in virtual time.
type site struct {
	*testing.T
	b      *broker.Broker
	mu     sync.Mutex
	port   *pipenet.Listener // guarded by mu; nil: nobody listens
	served sync.WaitGroup
	node   string
}

func newSite(t *testing.T, node string) *site {
	s := &site{T: t, node: node}
	s.restart()
	t.Cleanup(s.stop)
	return s
}

// restart makes a new broker, which knows nothing, and does not listen yet.
func (s *site) restart() {
	var err error
	s.b, err = broker.New(&broker.Config{Node: s.node})
	require.NoError(s, err)
}

func (s *site) listen() *site {
	port := pipenet.Listen(at, 16<<10)
	s.mu.Lock()
	s.port = port
	s.mu.Unlock()
	s.served.Go(func() { _ = s.b.Serve(port, mqtt.TCP) }) // until hide or stop
	return s
}

// hide ends the port and every connection through it.
func (s *site) hide() {
	s.mu.Lock()
	port := s.port
	s.port = nil
	s.mu.Unlock()
	if port != nil {
		_ = port.Close()
		port.Drop()
		s.served.Wait()
	}
}

// drop ends the connections through the port.
func (s *site) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != nil {
		s.port.Drop()
	}
}

// stop is the end of the broker, with all that it had in memory.
func (s *site) stop() {
	s.hide()
	require.NoError(s, s.b.Close())
}

// dial is client.Config.Dial for the site's port.
func (s *site) dial(ctx context.Context, _ *url.URL) (net.Conn, error) {
	s.mu.Lock()
	port := s.port
	s.mu.Unlock()
	if port == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: at, Err: net.ErrClosed}
	}
	return port.Dial(ctx)
}

// client connects to the broker in memory, whether it listens or not.
func (s *site) client(id string, change ...func(*client.Config)) *client.Client {
	s.Helper()
	cfg := &client.Config{
		URL: "mqtt://" + s.node, ClientID: id, SessionExpiry: time.Hour, Reconnect: client.Backoff{Disabled: true},
		Dial: func(context.Context, *url.URL) (net.Conn, error) {
			ours, theirs := net.Pipe()
			b := s.b
			go func() { _ = b.ServeLink(context.Background(), mqtt.NewConnLink(theirs, mqtt.TCP)) }() // until the client closes
			return ours, nil
		},
	}
	for _, f := range change {
		f(cfg)
	}
	c, err := client.Dial(s.Context(), cfg)
	require.NoError(s, err)
	s.Cleanup(func() { c.Close() })
	return c
}

// An inbox is what a subscriber has got.
type inbox struct {
	mu   sync.Mutex
	list []*packet.Publish // guarded by mu
}

func (i *inbox) add(p *packet.Publish) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.list = append(i.list, client.Clone(p))
}

func (i *inbox) take() []*packet.Publish {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.list
	i.list = nil
	return list
}

// payloads returns what has arrived, when nothing more is on its way.
func (i *inbox) payloads() []string {
	synctest.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []string
	for _, p := range i.list {
		all = append(all, string(p.Payload))
	}
	return all
}

// subscribe collects the site's messages, those of bridges included.
func (s *site) subscribe(filter string) *inbox {
	s.Helper()
	box := new(inbox)
	c := s.client("subscriber-of-" + s.node)
	_, err := c.Subscribe(s.Context(), box.add, packet.Subscription{Filter: filter, QoS: 2, RetainAsPublished: true})
	require.NoError(s, err)
	return box
}

func (s *site) publish(c *client.Client, topic, payload string, qos packet.QoS) {
	s.Helper()
	_, err := c.Publish(s.Context(), &packet.Publish{Topic: topic, Payload: []byte(payload), QoS: qos})
	require.NoError(s, err)
}

// bridge connects two sites.
func (s *site) bridge(to *site, cfg bridge.Config) *bridge.Bridge {
	s.Helper()
	if cfg.Name == "" {
		cfg.Name = s.node + "-to-" + to.node
	}
	cfg.Local = s.b
	cfg.Remote.URL = "mqtt://" + to.node
	if cfg.Remote.Dial == nil {
		cfg.Remote.Dial = to.dial
	}
	b, err := bridge.New(&cfg)
	require.NoError(s, err)
	s.Cleanup(func() { require.NoError(s, b.Close()) })
	return b
}

// connected waits until a bridge is, and has subscribed.
func connected(t *testing.T, b *bridge.Bridge) {
	t.Helper()
	for range 1000 {
		synctest.Wait()
		if b.Status().Connected {
			return
		}
		time.Sleep(time.Second)
	}
	require.Fail(t, "the bridge does not connect", "%v", b.Status().Err)
}

var everything = []bridge.Rule{{Filter: "#"}}

// via returns the brokers that a message names.
func via(p *packet.Publish) []string { return slices.Clip(mqtt.Via(p.Properties)) }
