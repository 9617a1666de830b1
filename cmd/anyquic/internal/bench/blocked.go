package bench

import (
	"context"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// blocked publishes Rate messages a second to FanOut subscribers of one topic for
// Duration, and for as long with one of them more that reads nothing, and reports how
// long messages take to those that read. Both take turns, so that a machine whose
// speed drifts treats them alike.
func (b *MQTT) blocked(ctx context.Context, t *mqttRun) ([]Sample, error) {
	if t.carrier() != "mqtt" {
		return nil, errNoTCP
	}
	half := *b
	half.Duration /= 2
	kinds := map[bool]*besides{false: {}, true: {}}
	for _, block := range []bool{false, true, true, false} {
		if err := half.besides(ctx, t, block, kinds[block]); err != nil {
			return nil, err
		}
	}
	samples := append(kinds[false].samples(t, ", all read"), kinds[true].samples(t, ", one does not")...)
	if all := percentile(kinds[false].took, 0.99); all > 0 {
		samples = append(samples, t.sample("p99 with the one to without", "", float64(percentile(kinds[true].took, 0.99))/float64(all)))
	}
	return samples, nil
}

// besides is what subscribers got beside one that reads nothing, or without it.
type besides struct {
	took     []time.Duration
	expected int64
}

func (s *besides) samples(t *mqttRun, suffix string) []Sample {
	slices.Sort(s.took)
	return delays(t, suffix, s.took, s.expected)
}

func (b *MQTT) besides(ctx context.Context, t *mqttRun, block bool, add *besides) error {
	w := newStopwatch(b.Rate * b.FanOut * int(b.Duration/time.Second+1))
	g, err := b.groups(ctx, t.MQTTTarget, 1, b.FanOut, w.receive)
	if err != nil {
		return err
	}
	defer g.close()
	if block {
		c, dam, err := b.deaf(ctx, t.MQTTTarget)
		if err != nil {
			return err
		}
		defer c.Close()
		defer dam.open()
	}
	sent, err := b.paced(ctx, g.publishers, w)
	if err != nil {
		return err
	}
	expected := sent * int64(b.FanOut)
	if err := await(ctx, &w.received, expected, patience); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	add.took = append(add.took, w.took...)
	add.expected += expected
	return nil
}

// deaf connects a subscriber that reads nothing once it has subscribed.
func (b *MQTT) deaf(ctx context.Context, t MQTTTarget) (*client.Client, *dam, error) {
	d := new(dam)
	c, err := client.Dial(ctx, &client.Config{
		URL: t.URL, Version: b.Version, CleanStart: true, KeepAlive: -1,
		Reconnect: client.Backoff{Disabled: true},
		Dial: func(ctx context.Context, u *url.URL) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
			if tcp, ok := c.(*net.TCPConn); ok {
				err = tcp.SetReadBuffer(64 << 10)
			}
			return &dammed{c, d}, err
		},
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Subscribe(ctx, nil, packet.Subscription{Filter: topic(0), QoS: b.QoS}); err != nil {
		c.Close()
		return nil, nil, err
	}
	d.mu.Lock()
	return c, d, nil
}

// A dam is closed while its mutex is locked.
type dam struct{ mu sync.Mutex }

func (d *dam) open() { d.mu.Unlock() }

// dammed is a connection of which nothing is read while the dam is closed.
type dammed struct {
	net.Conn
	dam *dam
}

func (c *dammed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.dam.mu.Lock()
	defer c.dam.mu.Unlock()
	return n, err
}
