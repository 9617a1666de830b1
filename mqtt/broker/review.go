package broker

import (
	"context"
	"slices"
	"time"

	"github.com/anyquic/anyquic/mqtt/topic"
)

// Reauthorize asks the Authorizer again about every subscription of every session,
// and removes those that are no longer allowed: for after its rules have changed.
// Messages that wait for a client to be sent for the first time and that no
// subscription of its brings any more are dropped, if the client may not subscribe to
// their topics. Sessions without a connection are asked about as the client that they
// had last. It returns how many subscriptions it removed. An error of the Authorizer,
// or the end of ctx, ends it.
func (b *Broker) Reauthorize(ctx context.Context) (removed int, err error) {
	if b.cfg.ACL == nil || !b.begin() {
		return 0, nil
	}
	defer b.running.Done()
	for _, c := range b.clients() {
		c.mu.Lock()
		cn, who := c.conn, c.who
		c.mu.Unlock()
		if cn != nil {
			info := cn.info()
			who = &info
		}
		n, err := b.review(ctx, c, who)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// reauthorizeRestored is Reauthorize for sessions from the store: rules may have
// changed while the broker was down.
func (b *Broker) reauthorizeRestored() {
	if n, err := b.Reauthorize(b.ctx); err != nil && b.ctx.Err() == nil {
		b.log.Error("mqtt: sessions from the store were not all held against the rules", "err", err)
	} else if n > 0 {
		b.log.Info("mqtt: subscriptions from the store that are no longer allowed have ended", "subscriptions", n)
	}
}

// review asks the Authorizer about all that c's session gets, as Reauthorize says. No
// lock is held.
func (b *Broker) review(ctx context.Context, c *client, who *ClientInfo) (removed int, err error) {
	c.mu.Lock()
	filters := c.filters()
	asked := c.askedFor(filters)
	waiting := c.waitingTopics()
	c.mu.Unlock()
	denied, err := b.deniedFilters(ctx, who, filters, asked)
	if err != nil {
		return 0, err
	}
	removed = b.revoke(c, denied)
	if len(waiting) == 0 {
		return removed, nil
	}
	no := make(map[string]bool, len(denied))
	for _, f := range denied {
		no[f] = true
	}
	left := topic.NewTree[struct{}, struct{}]()
	for _, f := range filters {
		if !no[f] {
			left.Subscribe(f, struct{}{}, struct{}{})
		}
	}
	var found topic.Result[struct{}, struct{}]
	for name := range waiting {
		left.Match(name, &found)
		ok := !found.Empty()
		found.Reset()
		if !ok {
			if ok, err = b.authorize(ctx, who, ActionSubscribe, name); err != nil {
				return removed, err
			}
		}
		if ok {
			delete(waiting, name)
		}
	}
	if len(waiting) > 0 {
		b.count.dropDenied.Add(uint64(c.discard(time.Now(), func(name string) bool { return waiting[name] })))
	}
	return removed, nil
}

// waitingTopics returns the topics of what waits for the client. The caller holds mu.
func (c *client) waitingTopics() map[string]bool {
	topics := make(map[string]bool)
	c.eachWaiting(func(name string) bool {
		topics[name] = true
		return false
	})
	return topics
}

// eachWaiting drops what waits for the client, on topics that drop says yes to, and
// returns how many messages that were. The caller holds mu, and calls settle later.
func (c *client) eachWaiting(drop func(string) bool) (dropped int) {
	dropped = c.s.Discard(drop)
	waits := len(c.spill.list) - c.spill.next
	c.spill.list, c.spill.next = slices.DeleteFunc(c.spill.list[c.spill.next:], func(e spilled) bool {
		if !drop(e.m.Publish.Topic) {
			return false
		}
		c.spill.bytes -= e.cost()
		c.left(&e)
		return true
	}), 0
	dropped += waits - len(c.spill.list)
	if waits > 0 && c.spill.empty() && c.conn != nil {
		c.conn.spilling.Store(false)
	}
	return dropped + c.replay.discard(drop)
}

// discard is eachWaiting with all that follows from there being room.
func (c *client) discard(now time.Time, drop func(string) bool) int {
	c.mu.Lock()
	n := c.eachWaiting(drop)
	c.refill(now)
	c.wakeWaiting()
	c.kick(now)
	c.mu.Unlock()
	c.settle(now)
	return n
}

// review asks about everything that cn's session gets once more. What cannot be found
// out is denied.
func (cn *conn) review() {
	c := cn.client
	info := cn.info()
	if _, err := cn.b.review(cn.link.Context(), c, &info); err != nil {
		c.mu.Lock()
		filters := c.filters()
		c.mu.Unlock()
		cn.b.revoke(c, filters)
	}
}

// revision returns the Authorizer's; 0 without one.
func (b *Broker) revision() uint64 {
	if b.cfg.ACL == nil {
		return 0
	}
	return b.cfg.ACL.Revision()
}

// mayStill reports whether a client, who need not be there any more, may publish to a
// topic now: for what it has asked for earlier. An error, which has been logged, means
// that it could not be found out, as when ctx is done. No lock is held; it may take as
// long as Config.HookTimeout.
func (b *Broker) mayStill(ctx context.Context, src *source, who *ClientInfo, name string) (bool, error) {
	if b.cfg.ACL == nil {
		return true, nil
	}
	src.flush() // whoever has output from this source must not wait with us
	if src.cn != nil {
		src.cn.holds.Add(1)
	}
	ok, err := b.authorize(ctx, who, ActionPublish, name)
	if err == nil && !ok {
		err = ctx.Err() // it may have said no because nobody waits any more
	}
	src.now = time.Now()
	if src.cn != nil {
		src.cn.release(src.now)
	}
	return ok, err
}
