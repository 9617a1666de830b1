package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/mqttquic"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/transport"
)

// vanished lets QUIC subscribers vanish without a word and then publishes Messages
// to them and to one that lives, once as fast as it goes and once Pace of them a
// second. It reports what the vanished cost the broker in memory, and the
// publisher in time against the same without them.
func (b *MQTT) vanished(ctx context.Context, t *mqttRun) ([]Sample, error) {
	if !strings.HasPrefix(t.URL, "mqtt+quic:") {
		return nil, errNoQUIC
	}
	if t.Proc == nil {
		return nil, errForeign
	}
	paces := []struct {
		name      string
		perSecond int
	}{{"flat out", 0}, {fmt.Sprintf("at %d msg/s", b.Pace), b.Pace}}
	var samples []Sample
	for _, pace := range paces {
		b.progress("round %d: publishing %s to one subscriber of %s", t.round, pace.name, t.Name)
		alone, _, err := b.publishAll(ctx, t.MQTTTarget, pace.perSecond)
		if err != nil {
			return nil, err
		}
		b.progress("round %d: publishing %s to %d vanished subscribers of %s", t.round, pace.name, b.Vanished, t.Name)
		with, lost, memory, err := b.withVanished(ctx, t.MQTTTarget, pace.perSecond)
		if err != nil {
			return nil, err
		}
		sample := func(metric, unit string, v float64) {
			samples = append(samples, t.sample(metric+", "+pace.name, unit, v))
		}
		sample("alone", "ms", float64(alone)/float64(time.Millisecond))
		sample("with the vanished", "ms", float64(with)/float64(time.Millisecond))
		sample("slower", "%", 100*(float64(with)/float64(alone)-1))
		sample("lost by the living", "messages", float64(lost))
		sample("memory of the vanished", "MiB", memory/(1<<20))
	}
	return samples, nil
}

// withVanished is publishAll after subscribers have vanished, and what the
// broker's memory has grown by, in bytes.
func (b *MQTT) withVanished(ctx context.Context, t MQTTTarget, perSecond int) (took time.Duration, lost int64, memory float64, err error) {
	engine := b.Engine
	if t.Engine != nil {
		engine = t.Engine
	}
	d := &vanishingDialer{Dialer: &mqttquic.Dialer{Transport: engine}}
	defer d.close()
	to := t
	to.Dialers = []client.LinkDialer{d}
	clients, err := b.connect(ctx, to, b.Vanished, "ghost", nil)
	defer closeAll(clients)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, b.layToRest(ctx, t)) }()
	g, gctx := errgroup.WithContext(ctx)
	for _, c := range clients {
		g.Go(func() error {
			_, err := c.Subscribe(gctx, nil, packet.Subscription{Filter: topic(0), QoS: b.QoS})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, 0, err
	}
	d.vanish()

	before, err := t.Proc.Memory()
	if err != nil {
		return 0, 0, 0, err
	}
	took, lost, err = b.publishAll(ctx, t, perSecond)
	if err != nil {
		return 0, 0, 0, err
	}
	after, err := t.Proc.Memory()
	return took, lost, float64(after.InUse()) - float64(before.InUse()), err
}

// layToRest ends the sessions and connections that the broker still has for the
// vanished, by taking them over, so that they are not there in the next round.
func (b *MQTT) layToRest(ctx context.Context, t MQTTTarget) error {
	clients, err := b.connect(ctx, t, b.Vanished, "ghost", nil)
	if err != nil {
		return err
	}
	for _, c := range clients {
		err = errors.Join(err, c.Disconnect(ctx))
	}
	return err
}

// publishAll publishes Messages to topic 0 with one living subscriber, as many a
// second as said or as fast as it goes (0), and returns how long it took until
// the broker had taken them all, and what the subscriber did not get.
func (b *MQTT) publishAll(ctx context.Context, t MQTTTarget, perSecond int) (took time.Duration, lost int64, err error) {
	var received atomic.Int64
	pair, err := b.groups(ctx, t, 1, 1, func(*packet.Publish) { received.Add(1) })
	if err != nil {
		return 0, 0, err
	}
	defer pair.close()
	start := time.Now()
	p := &packet.Publish{Topic: topic(0), QoS: b.QoS, Payload: make([]byte, b.Size)}
	for i := range b.Messages {
		if perSecond > 0 {
			if early := time.Duration(i)*time.Second/time.Duration(perSecond) - time.Since(start); early > time.Millisecond {
				time.Sleep(early)
			}
		}
		if err := pair.publishers[0].PublishAsync(ctx, p, nil); err != nil {
			return 0, 0, fmt.Errorf("publish: %w", err)
		}
	}
	// The broker answers when it has taken everything before.
	if _, err := pair.publishers[0].Publish(ctx, &packet.Publish{Topic: "bench/end", QoS: packet.AtLeastOnce}); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	if err := await(ctx, &received, int64(b.Messages), patience); err != nil {
		return 0, 0, err
	}
	return took, int64(b.Messages) - received.Load(), nil
}

// A vanishingDialer makes QUIC connections that can all be cut off at once, as
// if their machine had lost its power.
type vanishingDialer struct {
	*mqttquic.Dialer // of which nothing but the scheme is used, and the Transport

	mu        sync.Mutex
	sockets   []*mutableSocket // guarded by mu
	endpoints []transport.Endpoint
}

func (d *vanishingDialer) DialLink(ctx context.Context, u *url.URL, config *tls.Config) (mqtt.Link, error) {
	to, err := net.ResolveUDPAddr("udp", u.Host)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	socket := &mutableSocket{PacketConn: udp}
	ep, err := d.Transport.Open(socket, nil)
	if err != nil {
		udp.Close()
		return nil, err
	}
	d.mu.Lock()
	d.sockets = append(d.sockets, socket)
	d.endpoints = append(d.endpoints, ep)
	d.mu.Unlock()
	config = config.Clone()
	config.NextProtos = []string{mqttquic.ALPN}
	c, err := ep.Dial(ctx, to, &transport.Config{TLS: config, IdleTimeout: 10 * time.Minute, MaxStreams: -1, MaxUniStreams: -1})
	if err != nil {
		return nil, err
	}
	return mqttquic.Wrap(c, false), nil
}

func (d *vanishingDialer) vanish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sockets {
		s.muted.Store(true)
	}
}

func (d *vanishingDialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ep := range d.endpoints {
		ep.Close()
	}
}

// A mutableSocket drops what it reads and writes once it is muted. It hides the
// batch methods of a UDP socket, which would go around it.
type mutableSocket struct {
	net.PacketConn
	muted atomic.Bool
}

func (s *mutableSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := s.PacketConn.ReadFrom(p)
		if err != nil || !s.muted.Load() {
			return n, from, err
		}
	}
}

func (s *mutableSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.muted.Load() {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, to)
}
