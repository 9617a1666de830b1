package broker

import (
	"time"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// takeover makes room for cn: it ends the connection of old, which may be nil,
// and decides whether its session goes on. If so, it returns old with its mutex
// held; otherwise nil. The effects are old's, to be applied without locks.
// The caller holds Broker.mu.
//
// The new connection waits for nothing: the old one is told by its own
// goroutines, which have DrainTimeout for it.
func (cn *conn) takeover(old *client, cleanStart bool, now time.Time) (*client, []session.Effect) {
	if old == nil {
		return nil, nil
	}
	old.mu.Lock()
	cn.setter = old.who
	filters := old.filters()
	var fx []session.Effect
	if old.conn == nil {
		// What is due by now comes first: the wheel may be a little late. With
		// a connection that could only be its end, which comes anyway.
		fx = old.s.Tick(fx, now)
	}
	if was := old.conn; was != nil {
		old.leaveReplay(now)
		fx = old.s.Detach(fx, now)
		was.takenOver(now)
		cn.superseded = was
		old.conn = nil
		old.drained()
		old.wakeWaiting()
	}
	if cleanStart {
		fx = old.s.End(fx, now) // [MQTT-3.1.2-4]
	}
	if !old.s.Ended() {
		return old, fx
	}
	if !old.gone { // or another is about to forget it, with the filters that it had
		old.gone, old.ending = true, filters
	}
	old.mu.Unlock()
	return nil, fx
}

// takenOver tells the connection's client that another has its session
// [MQTT-3.1.4-3]. The caller holds client.mu and detaches the conn.
func (cn *conn) takenOver(now time.Time) {
	if cn.closing {
		return
	}
	if cn.version >= packet.V5 {
		cn.farewell, _ = (&packet.Disconnect{Code: packet.SessionTakenOver}).Append(nil, cn.version)
	}
	cn.resetCode = uint64(packet.SessionTakenOver)
	cn.end(now, packet.SessionTakenOver, "another connection took the session", mqtt.LinkNormal)
}

// ifEnds calls f, which may end the session. The caller holds mu.
func (c *client) ifEnds(f func() []session.Effect) []session.Effect {
	filters := c.filters()
	fx := f()
	if c.s.Ended() {
		c.gone, c.ending = true, filters
	}
	return fx
}

// filters returns the filters that the session subscribes to, for when it ends
// and has forgotten them. The caller holds mu.
func (c *client) filters() []string {
	var all []string
	for s := range c.s.Subscriptions() {
		all = append(all, s.Filter)
	}
	return all
}

// forget removes a client whose session has ended.
func (b *Broker) forget(c *client) {
	c.mu.Lock()
	c.gone = true
	filters := c.ending
	c.ending = nil
	b.count.ended(c.s.Stats())
	c.replay = replay{}
	c.dropSpill()
	c.timer.Stop()
	c.wakeWaiting()
	c.mu.Unlock()
	c.settle(time.Now())
	for _, f := range filters {
		b.subs.tree.Unsubscribe(f, c)
	}
	b.mu.Lock()
	if b.sessions[c.id] == c {
		delete(b.sessions, c.id)
	}
	b.mu.Unlock()
}
