package bench

import (
	"context"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// blocked publishes Rate messages a second to FanOut subscribers of one topic for
// Duration, and again with one of them more that reads nothing, and reports how
// long messages take to those that read.
func (b *MQTT) blocked(ctx context.Context, t *mqttRun) ([]Sample, error) {
	if t.carrier() != "mqtt" {
		return nil, errNoTCP
	}
	var samples []Sample
	for _, block := range []bool{false, true} {
		got, err := b.besides(ctx, t, block)
		if err != nil {
			return nil, err
		}
		samples = append(samples, got...)
	}
	return samples, nil
}

func (b *MQTT) besides(ctx context.Context, t *mqttRun, block bool) ([]Sample, error) {
	w := newStopwatch(b.Rate * b.FanOut * int(b.Duration/time.Second+1))
	g, err := b.groups(ctx, t.MQTTTarget, 1, b.FanOut, w.receive)
	if err != nil {
		return nil, err
	}
	defer g.close()
	suffix := ", all read"
	if block {
		suffix = ", one does not"
		c, dam, err := b.deaf(ctx, t.MQTTTarget)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		defer dam.open()
	}
	sent, err := b.paced(ctx, g.publishers, w)
	if err != nil {
		return nil, err
	}
	return w.samples(ctx, t, suffix, sent*int64(b.FanOut))
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
