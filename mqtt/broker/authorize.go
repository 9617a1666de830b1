package broker

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// Bounds of the decisions that a source remembers.
const (
	maxDecisions     = 128
	maxDecisionTopic = 1 << 10  // bytes; longer topics are asked for each time
	maxDecisionBytes = 16 << 10 // of all topics
)

// decisions are what an Authorizer has said about publishing to topics. They
// belong to one reading goroutine, so that they need no lock.
type decisions struct {
	revision uint64
	bytes    int
	allowed  map[string]bool
	said     bool // the log knows that something was denied
}

// get returns a decision that still holds.
func (d *decisions) get(topic string, revision uint64) (allowed, ok bool) {
	if d.revision != revision {
		clear(d.allowed)
		d.bytes, d.revision = 0, revision
		return false, false
	}
	allowed, ok = d.allowed[topic]
	return allowed, ok
}

func (d *decisions) put(topic string, revision uint64, allowed bool) {
	if len(topic) > maxDecisionTopic || revision != d.revision {
		return
	}
	if len(d.allowed) >= maxDecisions || d.bytes+len(topic) > maxDecisionBytes {
		clear(d.allowed)
		d.bytes = 0
	}
	if d.allowed == nil {
		d.allowed = make(map[string]bool)
	}
	d.allowed[topic] = allowed
	d.bytes += len(topic)
}

// authorize asks the Authorizer. An error has been logged.
func (b *Broker) authorize(ctx context.Context, info *ClientInfo, a Action, name string) (bool, error) {
	ok, err := call(ctx, &b.aclHooks, "authorizer", func(ctx context.Context) (bool, error) {
		return b.cfg.ACL.Authorize(ctx, info, a, name)
	})
	if err != nil {
		b.count.hookFailed.Add(1)
		b.log.Warn("mqtt: authorizer failed: denied", "client", info.ClientID, "action", a.String(), "err", err)
		return false, err
	}
	return ok, nil
}

// mayPublish reports whether the source's client may publish to a topic. No lock
// is held: it may take as long as Config.HookTimeout.
func (src *source) mayPublish(topic string) bool {
	if reserved(topic) {
		src.b.count.dropDenied.Add(1)
		return false
	}
	acl := src.b.cfg.ACL
	if acl == nil || src.cn == nil {
		return true
	}
	if src.decisions == nil {
		src.decisions = new(decisions)
	}
	revision := acl.Revision()
	allowed, ok := src.decisions.get(topic, revision)
	if !ok {
		src.flush() // whoever has output from this source must not wait with us
		src.cn.holds.Add(1)
		info := src.cn.info()
		var err error
		if allowed, err = src.b.authorize(src.cn.link.Context(), &info, ActionPublish, topic); err == nil {
			src.decisions.put(topic, revision, allowed)
		}
		src.now = time.Now()
		src.cn.release(src.now)
	}
	if !allowed {
		src.b.count.dropDenied.Add(1)
		src.saidDenied(ActionPublish, topic)
	}
	return allowed
}

// saidDenied logs the first denial of a stream; the others are counted.
func (src *source) saidDenied(a Action, topic string) {
	if src.decisions == nil {
		src.decisions = new(decisions)
	}
	if src.decisions.said {
		return
	}
	src.decisions.said = true
	src.b.log.LogAttrs(context.Background(), slog.LevelInfo, "mqtt: denied; further denials of this connection are only counted",
		slog.String("client", src.cn.id), slog.String("user", src.cn.username), slog.String("remote", addrString(src.cn.link)),
		slog.String("action", a.String()), slog.String("topic", topic))
}

// authorizeSubscribe decides on each filter of a SUBSCRIBE that is about to be
// given to the machine. No lock is held.
func (src *source) authorizeSubscribe(p *packet.Subscribe) {
	src.denied = nil
	src.revision = src.b.revision()
	if src.b.cfg.ACL == nil {
		return
	}
	filters := make([]string, len(p.Subscriptions))
	for i := range p.Subscriptions {
		filters[i] = p.Subscriptions[i].Filter
	}
	src.flush()
	src.cn.holds.Add(1) // silence is our own doing
	info := src.cn.info()
	denied, err := src.b.deniedFilters(src.cn.link.Context(), &info, filters, filters)
	if err != nil { // the hook failed; whatever it has not allowed is denied
		denied = filters
	}
	if len(denied) > 0 {
		src.b.count.deniedFilters.Add(uint64(len(denied)))
		src.saidDenied(ActionSubscribe, denied[0])
		src.denied = make(map[string]struct{}, len(denied))
		for _, f := range denied {
			src.denied[f] = struct{}{}
		}
	}
	src.now = time.Now()
	src.cn.release(src.now)
}

// deniedFilters returns those of the filters that a client may not subscribe to, where
// it has asked for what is in asked, in the same order. An error means that it could
// not be found out.
func (b *Broker) deniedFilters(ctx context.Context, info *ClientInfo, filters, asked []string) ([]string, error) {
	var denied []string
	for i, f := range filters {
		plain := asked[i]
		if _, rest, shared, err := topic.ParseShare(plain); err == nil && shared {
			plain = rest
		}
		ok, err := b.authorize(ctx, info, ActionSubscribe, plain)
		if err != nil {
			return nil, err
		}
		if !ok {
			denied = append(denied, f)
		}
	}
	return denied, nil
}

// granted returns the codes for the filters of a SUBSCRIBE, nil if none is refused.
func (src *source) granted(p *packet.Subscribe, isNew []bool) []packet.ReasonCode {
	most := src.b.limits.Load().quotas.Subscriptions
	full := most > 0 && src.b.subs.len()+len(p.Subscriptions) > most
	if len(src.denied) == 0 && !full && len(src.asked) == 0 {
		return nil
	}
	codes := make([]packet.ReasonCode, len(p.Subscriptions))
	for i, s := range p.Subscriptions {
		codes[i] = packet.ReasonCode(s.QoS)
		if _, no := src.denied[s.Filter]; no {
			codes[i] = packet.NotAuthorized // SUBACK of 3.1.1 says 0x80
		} else if full && isNew[i] || src.askedTooMuch(&s) {
			codes[i] = packet.QuotaExceeded
		}
	}
	return codes
}

// recheck asks about the session that CONNECT is about to resume before anything of it
// is sent: see review. It reports false if the client was refused because it could not
// be found out. No lock is held.
func (cn *conn) recheck(p *packet.Connect) bool {
	if cn.b.cfg.ACL == nil || p.CleanStart {
		return true
	}
	cn.b.mu.Lock()
	old := cn.b.sessions[cn.id]
	cn.b.mu.Unlock()
	if old == nil || !cn.owns(old) {
		return true
	}
	info := cn.info()
	if _, err := cn.b.review(cn.link.Context(), old, &info); err != nil {
		cn.deny(p, err)
		return false
	}
	return true
}

// owns reports whether cn's client may have a session: its own, or any if
// nobody has to prove anything.
func (cn *conn) owns(c *client) bool { return cn.b.cfg.Auth == nil || c.owner == cn.username }

// revoke removes subscriptions from a session and the tree.
func (b *Broker) revoke(c *client, filters []string) int {
	if len(filters) == 0 {
		return 0
	}
	c.subscribing.Lock()
	defer c.subscribing.Unlock()
	c.mu.Lock()
	filters = slices.DeleteFunc(filters, func(f string) bool {
		if !c.s.Revoke(f) {
			return true
		}
		c.asked.set(f, "")
		return false
	})
	c.mu.Unlock()
	for _, f := range filters {
		b.subs.tree.Unsubscribe(f, c)
	}
	b.count.deniedFilters.Add(uint64(len(filters)))
	return len(filters)
}
