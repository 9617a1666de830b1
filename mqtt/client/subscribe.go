package client

import (
	"context"
	"slices"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// Subscribe subscribes to filters and waits for the server's answer, across
// connections if need be. Messages go to handler, or to Config.OnMessage if it is
// nil. The codes are the server's, one for each subscription; if one of them is a
// failure then the error is a [*SubscribeError] that names the first.
//
// A filter that was subscribed to before changes its options and its handler. If
// ctx ends before the answer comes, the server may have made the subscription;
// Unsubscribe ends it.
//
// On MQTT 5 a message goes to the handlers whose subscription the server names. If
// it names none, as on 3.x, or none that this Client has made, then it goes to
// every handler with a filter that matches, once each. A server of 3.x may send a
// copy for each of several filters that overlap, and nothing tells such copies from
// messages of their own: each goes to every handler.
func (c *Client) Subscribe(ctx context.Context, handler func(*packet.Publish), subs ...packet.Subscription) ([]packet.ReasonCode, error) {
	return c.request(ctx, &request{
		subscribe: &packet.Subscribe{Subscriptions: slices.Clone(subs)},
		handler:   handler,
	})
}

// Unsubscribe ends subscriptions and waits for the server's answer, as Subscribe
// does. Messages may arrive until it returns.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) ([]packet.ReasonCode, error) {
	if c.cfg.Streams == Control || len(filters) == 0 {
		return c.unsubscribe(ctx, filters)
	}
	// Some servers know a subscription only on the stream that it was made on.
	c.mu.Lock()
	at := make(map[slot][]int)
	for i, f := range filters {
		n := c.m.ofRequest(&request{unsubscribe: &packet.Unsubscribe{Filters: []string{f}}})
		at[n] = append(at[n], i)
	}
	c.mu.Unlock()
	codes := make([]packet.ReasonCode, len(filters))
	var failed error
	for _, indexes := range at {
		some := make([]string, len(indexes))
		for i, index := range indexes {
			some[i] = filters[index]
		}
		got, err := c.unsubscribe(ctx, some)
		if failed == nil {
			failed = err
		}
		for i, code := range got {
			codes[indexes[i]] = code
		}
	}
	return codes, failed
}

func (c *Client) unsubscribe(ctx context.Context, filters []string) ([]packet.ReasonCode, error) {
	return c.request(ctx, &request{unsubscribe: &packet.Unsubscribe{Filters: slices.Clone(filters)}})
}

func (c *Client) request(ctx context.Context, r *request) ([]packet.ReasonCode, error) {
	r.wait = make(chan requestOutcome, 1)
	c.mu.Lock()
	if err := c.unusable(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	if err := c.m.request(r); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.newRoutes()
	c.flush()
	c.unlock()
	c.calls.Add(1)
	defer c.calls.Add(-1)
	select {
	case o := <-r.wait:
		return o.codes, o.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.m.giveUpRequest(r)
	c.newRoutes()
	c.freed()
	c.unlock()
	select {
	case o := <-r.wait: // it was answered at the same moment
		return o.codes, o.err
	default:
		return nil, ctx.Err()
	}
}

// routes are a copy of the subscriptions for the dispatcher.
type routes struct {
	version uint64
	byID    map[uint32][]subscription // those of one call, which have one handler
	subs    []subscription            // those with a handler
}

// newRoutes makes new routes if the subscriptions have changed. mu is held.
func (c *Client) newRoutes() {
	if old := c.routes.Load(); old != nil && old.version == c.m.subsVersion {
		return
	}
	r := &routes{version: c.m.subsVersion, byID: make(map[uint32][]subscription)}
	for _, s := range c.m.subscriptions {
		if s.handler == nil {
			continue
		}
		r.subs = append(r.subs, s)
		if s.subID != 0 {
			r.byID[s.subID] = append(r.byID[s.subID], s)
		}
	}
	c.routes.Store(r)
}

// deliver calls the handlers of p.
func (c *Client) deliver(p *packet.Publish) {
	if r := c.routes.Load(); r != nil && len(r.subs) > 0 && r.deliver(p) {
		return
	}
	if c.cfg.OnMessage != nil {
		c.cfg.OnMessage(p)
	}
}

func (r *routes) deliver(p *packet.Publish) (handled bool) {
	if p.Properties != nil && len(p.Properties.SubscriptionIDs) > 0 {
		for _, id := range p.Properties.SubscriptionIDs {
			subs := r.byID[id]
			named := func(s subscription) bool { return matches(s.Filter, p.Topic) }
			if slices.ContainsFunc(subs, named) {
				subs[0].handler(p)
				handled = true
			}
		}
		if handled {
			return true
		}
		// The identifier is of a subscription that was replaced since, or of
		// one that an earlier client made in this session.
	}
	for i := range r.subs {
		if s := &r.subs[i]; matches(s.Filter, p.Topic) && !r.called(r.subs[:i], s.group, p.Topic) {
			s.handler(p)
			handled = true
		}
	}
	return handled
}

// called reports whether a filter of the same Subscribe call, which has the same
// handler, has matched before.
func (r *routes) called(before []subscription, group uint32, name string) bool {
	for i := range before {
		if before[i].group == group && matches(before[i].Filter, name) {
			return true
		}
	}
	return false
}

// matches is topic.Matches for filters that may be shared ones.
func matches(filter, name string) bool {
	if _, rest, ok, err := topic.ParseShare(filter); ok && err == nil {
		filter = rest
	}
	return topic.Matches(filter, name)
}
