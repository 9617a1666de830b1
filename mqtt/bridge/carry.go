package bridge

import (
	"errors"
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/client"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// fromLocal takes a message of the local broker over. It does not wait: a local
// broker must not be slowed down by a remote one.
func (b *Bridge) fromLocal(r *rule, p *packet.Publish) {
	via := mqtt.Via(p.Properties)
	tooMany := len(via) >= b.cfg.MaxHops || len(via) > 0 && b.old()
	if n := len(via); n > 0 && via[n-1] == b.node {
		via = via[:n-1] // brought here by a bridge of this broker
	}
	if tooMany || slices.Contains(via, b.node) {
		b.drop(Loop, p.Topic, nil)
		return
	}
	m, ok := b.translate(r, p)
	if !ok {
		return
	}
	addNode(m, b.node)
	dropped, ok := b.queue.add(m, time.Now())
	for range dropped {
		b.drop(QueueFull, p.Topic, nil)
	}
	if !ok {
		b.drop(QueueFull, p.Topic, nil)
	}
}

// fromRemote hands a message of the remote broker to the local one. With QoS 1 and 2
// it returns when that has acknowledged it, which acknowledges it to the remote one.
func (b *Bridge) fromRemote(r *rule, p *packet.Publish) {
	via := mqtt.Via(p.Properties)
	if slices.Contains(via, b.node) || len(via) >= b.cfg.MaxHops {
		b.drop(Loop, p.Topic, nil)
		return
	}
	m, ok := b.translate(r, p)
	if !ok {
		return
	}
	if remote := b.remoteNode.Load(); remote != nil && *remote != "" {
		addNode(m, *remote)
	}
	addNode(m, b.node)
	_, err := b.local.Publish(b.ctx, m)
	switch {
	case err == nil:
		b.counts.received.Add(1)
	case b.ctx.Err() == nil:
		b.drop(Refused, p.Topic, err)
	}
}

// unclaimed takes the messages of a session that is older than this bridge: they
// come before it has subscribed, or of what it does not subscribe to any more.
func (b *Bridge) unclaimed(p *packet.Publish) {
	found := false
	for i := range b.subscribe {
		if r := &b.subscribe[i]; topic.Matches(r.Filter, p.Topic) {
			b.fromRemote(r, p)
			found = true
		}
	}
	if !found {
		b.drop(NoRule, p.Topic, nil)
	}
}

// old reports whether the remote broker is of MQTT 3.x, where the names are lost.
func (b *Bridge) old() bool {
	v := b.cfg.Remote.Version
	return v != 0 && v < packet.V5
}

// translate returns the message that p becomes, which shares the payload.
func (b *Bridge) translate(r *rule, p *packet.Publish) (*packet.Publish, bool) {
	name, ok, err := r.mapping.Name(p.Topic)
	if !ok || err != nil {
		b.drop(NoRule, p.Topic, err)
		return nil, false
	}
	m := &packet.Publish{Topic: name, Payload: p.Payload, QoS: min(p.QoS, r.qos), Retain: p.Retain}
	if q := p.Properties; q != nil {
		m.Properties = &packet.Properties{
			PayloadFormat: q.PayloadFormat, MessageExpiry: q.MessageExpiry, ContentType: q.ContentType,
			ResponseTopic: q.ResponseTopic, CorrelationData: q.CorrelationData,
			User: slices.Clone(q.User),
		}
	}
	return m, true
}

// addNode adds a broker to those that m names.
func addNode(m *packet.Publish, node string) {
	if m.Properties == nil {
		m.Properties = new(packet.Properties)
	}
	if via := mqtt.Via(m.Properties); len(via) > 0 && via[len(via)-1] == node {
		return
	}
	m.Properties.User = append(m.Properties.User, packet.UserProperty{Key: mqtt.ViaProperty, Value: node})
}

// send hands the queue's messages to the remote side's client, in order, until the
// bridge ends.
func (b *Bridge) send(c *client.Client) {
	for {
		e := b.queue.next(b.ctx)
		if e == nil {
			return
		}
		m, ok := b.adapt(c, e)
		if !ok {
			b.queue.remove(e)
			continue
		}
		err := c.PublishAsync(b.ctx, m, func(err error) { b.sent(e, err) })
		if err != nil {
			if b.ctx.Err() != nil {
				return
			}
			b.sent(e, err)
		}
	}
}

// adapt returns what the remote broker can take of a message, false if that is
// nothing.
func (b *Bridge) adapt(c *client.Client, e *entry) (*packet.Publish, bool) {
	m := *e.m
	if m.Properties != nil && m.Properties.MessageExpiry.Set {
		// [MQTT-3.3.2-6]
		left := time.Duration(m.Properties.MessageExpiry.Value)*time.Second - time.Since(e.at)
		if left <= 0 {
			b.drop(Expired, m.Topic, nil)
			return nil, false
		}
		props := *m.Properties
		props.MessageExpiry = packet.Some(uint32((left + time.Second - 1) / time.Second))
		m.Properties = &props
	}
	if ack := c.Connack(); ack != nil && ack.Properties != nil {
		m.QoS = min(m.QoS, packet.QoS(ack.Properties.MaximumQoS.Or(2)))
		m.Retain = m.Retain && ack.Properties.RetainAvailable.Or(1) != 0
		remote := mqtt.Node(ack.Properties)
		if remote != "" && slices.Contains(mqtt.Via(m.Properties), remote) {
			b.drop(Loop, m.Topic, nil)
			return nil, false
		}
	}
	if b.old() {
		m.Properties = nil
	}
	return &m, true
}

// sent says what became of a message. It may be called by any goroutine.
func (b *Bridge) sent(e *entry, err error) {
	var failed *client.PublishError
	switch {
	case err == nil:
		b.counts.forwarded.Add(1)
	case errors.As(err, &failed) && errors.Is(failed.Err, client.ErrClosed):
		return // Close, which loses the queue
	case errors.As(err, &failed) && failed.State == client.MaybeSent:
		// The remote broker had it before it lost the session: once more could be
		// twice.
		b.counts.unknown.Add(1)
	default:
		b.drop(Refused, e.m.Topic, err)
	}
	b.queue.remove(e)
}
