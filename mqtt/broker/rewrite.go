package broker

import (
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/rewrite"
	"github.com/anyquic/anyquic/mqtt/session"
)

// Rewrite maps topics as they come from clients: what is published, wills included,
// and what is subscribed to and unsubscribed from. Subscribers see the topics that
// the rules make. A message whose topic becomes no topic name is refused with Topic
// Name invalid (0x90), a filter that becomes none with Topic Filter invalid (0x8F),
// and the others of its SUBSCRIBE are not affected. Filters that become the same
// are one subscription. With delayed publishing the rules are for the topic that the
// message is for.
type Rewrite struct {
	Publish, Subscribe rewrite.Rules
}

// rewriteName returns m with the topic that the rules make of its own.
func (b *Broker) rewriteName(m *session.Message) (*session.Message, packet.ReasonCode) {
	if len(b.cfg.Rewrite.Publish) == 0 {
		return m, packet.Success
	}
	prefix, target := splitDelayed(m.Publish.Topic)
	mapped, err := b.cfg.Rewrite.Publish.Name(target)
	switch {
	case err != nil:
		return nil, packet.TopicNameInvalid
	case mapped == target:
		return m, packet.Success
	}
	n := *m
	n.Publish.Topic = prefix + mapped
	return &n, packet.Success
}

// noFilter stands for a filter that could not be mapped. The session refuses it with
// Topic Filter invalid (0x8F): a share name has no wildcards ([MQTT-4.8.2-2]).
const noFilter = "$share/+/"

// rewriteFilters maps the filters of a SUBSCRIBE or UNSUBSCRIBE, in place.
func (b *Broker) rewriteFilters(p packet.Packet) {
	rules := b.cfg.Rewrite.Subscribe
	if len(rules) == 0 {
		return
	}
	switch p := p.(type) {
	case *packet.Subscribe:
		for i := range p.Subscriptions {
			s := &p.Subscriptions[i]
			mapped, err := rules.Filter(s.Filter)
			if err != nil {
				mapped, s.NoLocal = noFilter, false // which a share must not have
			}
			s.Filter = mapped
		}
	case *packet.Unsubscribe:
		for i, filter := range p.Filters {
			mapped, err := rules.Filter(filter)
			if err != nil {
				mapped = noFilter
			}
			p.Filters[i] = mapped
		}
	}
}
