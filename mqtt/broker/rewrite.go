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
// are one subscription. Config.ACL is asked about topics and filters before the rules,
// as EMQX does it. With delayed publishing the rules are for the topic that the
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

// rewriteFilters maps the filters of a SUBSCRIBE or UNSUBSCRIBE, in place, and what
// authorizeSubscribe has found out about them. Of filters that become the same, all are
// denied if one is.
func (src *source) rewriteFilters(p packet.Packet) {
	src.asked = nil
	rules := src.b.cfg.Rewrite.Subscribe
	if len(rules) == 0 {
		return
	}
	switch p := p.(type) {
	case *packet.Subscribe:
		denied := src.denied
		if len(denied) > 0 {
			src.denied = make(map[string]struct{}, len(denied))
		}
		for i := range p.Subscriptions {
			s := &p.Subscriptions[i]
			mapped, err := rules.Filter(s.Filter)
			if err != nil {
				mapped, s.NoLocal = noFilter, false // which a share must not have
			}
			if _, no := denied[s.Filter]; no {
				src.denied[mapped] = struct{}{}
			}
			if mapped != s.Filter {
				if src.asked == nil {
					src.asked = make(map[string]string)
				}
				src.asked[mapped] = s.Filter
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

// asked is what the client has asked for where its filters were rewritten, by the
// filters that it got: access control is about the former.
type asked struct {
	filters map[string]string
	bytes   int // of what was asked for
}

// maxAsked is the most that a client's asked holds, in bytes: about what its filters may
// have together.
const maxAsked = 4 << 20

// set notes what filter was; empty: it was not rewritten, or is there no more.
func (a *asked) set(filter, was string) {
	if old, ok := a.filters[filter]; ok {
		a.bytes -= len(old)
		delete(a.filters, filter)
	}
	if was == "" {
		return
	}
	if a.filters == nil {
		a.filters = make(map[string]string)
	}
	a.filters[filter] = was
	a.bytes += len(was)
}

// askedFor returns what the client has asked for to get filters. The caller holds mu.
func (c *client) askedFor(filters []string) []string {
	if len(c.asked.filters) == 0 {
		return filters
	}
	all := make([]string, len(filters))
	for i, f := range filters {
		all[i] = f
		if was, ok := c.asked.filters[f]; ok {
			all[i] = was
		}
	}
	return all
}

// askedTooMuch reports whether there is no room for what s was before it was rewritten.
func (src *source) askedTooMuch(s *packet.Subscription) bool {
	was := src.asked[s.Filter]
	if was == "" {
		return false
	}
	c := src.cn.client
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked.bytes+len(was) > maxAsked
}
