package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyquic/anyquic/internal/timerwheel"
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// A client is a session and, while it has one, its connection. It ends with
// the session; a client that comes back with a clean start is another client.
type client struct {
	b     *Broker
	id    string
	owner string           // whom the session belongs to, with Config.Auth: Identity.Username
	timer timerwheel.Timer // calls tick; armed for the machine's deadline or earlier
	local *Local           // that this stands for in the tree: there is no session; nil: a client of the network

	// subscribing is held while a SUBSCRIBE or UNSUBSCRIBE is carried out, so
	// that those from two streams change machine and tree in the same order.
	// It is taken before mu.
	subscribing sync.Mutex

	mu      sync.Mutex
	s       *session.Session             // guarded by mu
	conn    *conn                        // guarded by mu; nil: offline
	gone    bool                         // guarded by mu: ended, or another client has its place
	ending  []string                     // guarded by mu: when gone, the filters that forget removes
	touched bool                         // guarded by mu: a source will call kick
	half    int                          // guarded by mu; bytes: half of what its queue holds
	replay  replay                       // guarded by mu: retained messages that wait for room
	spill   spill                        // guarded by mu: messages beyond a full queue
	paid    []*owed                      // guarded by mu: left the spill, to be paid by settle
	mustPay atomic.Bool                  // paid is not empty
	journal *journal                     // nil without a store
	partial map[uint16]map[string]uint64 // guarded by mu: see partial.go; from the store
	who     *ClientInfo                  // guarded by mu: see identity.go; nil: it is not kept
	asked   asked                        // guarded by mu: what filters were rewritten from
	pressure
}

// newClient returns a client with a new session, not yet registered.
func (b *Broker) newClient(id string, l *limits) *client {
	c := &client{b: b, id: id, s: session.New(id, l.session)}
	c.timer.Init(b.wheel, c.tick)
	if b.durable != nil {
		c.journal = &journal{d: b.durable, id: id, of: c}
		c.s.SetJournal(c.journal)
	}
	return c
}

// rearm sets the timer after something that may have brought the machine's
// deadline closer; later deadlines are found out when the earlier is due.
// The caller holds mu.
func (c *client) rearm() {
	if at := c.s.Deadline(); !at.IsZero() && !c.gone {
		c.timer.Reset(at)
	}
}

// tick runs on the wheel's goroutine.
func (c *client) tick() {
	if !c.b.wills.takes(c) {
		c.tickNow()
	}
}

func (c *client) tickNow() { c.tickFor(nil) }

// tickFor is tickNow with a source, which may have a ruling on the will; nil: it makes
// one if it needs it.
func (c *client) tickFor(src *source) {
	now := time.Now()
	c.mu.Lock()
	if src != nil && src.ruled.will != c.s.Will() {
		src.ruled = ruling{} // the client was back, perhaps with another
	}
	if c.gone {
		c.mu.Unlock()
		return
	}
	if c.conn != nil {
		// Who is held back cannot be heard, which is our doing and not a
		// reason to call it dead.
		if until := c.conn.excused(now); now.Before(until) {
			c.timer.Reset(until)
			c.mu.Unlock()
			return
		}
	}
	fx := c.ifEnds(func() []session.Effect { return c.s.Tick(nil, now) })
	c.rearm()
	c.kick(now)
	c.mu.Unlock()
	if len(fx) > 0 {
		if src == nil {
			src = new(source)
			src.init(c.b, nil)
		}
		src.now = now
		c.b.apply(src, c, fx)
		src.flush()
	}
}

// kick starts a writing goroutine for each stream that has output and none.
// The caller holds mu.
func (c *client) kick(now time.Time) {
	cn := c.conn
	if cn == nil {
		return
	}
	if !cn.out.writing && (c.s.HasOutput(cn.out.id) || cn.closing) {
		c.startWriter(&cn.out, now)
	}
	for _, o := range cn.data {
		if !o.writing && c.s.HasOutput(o.id) {
			c.startWriter(o, now)
		}
	}
}

// disconnect ends the connection for a reason that the machine cannot know.
func (c *client) disconnect(src *source, code packet.ReasonCode, reason string, link mqtt.LinkCode) {
	c.mu.Lock()
	fx := c.disconnectLocked(src.now, code, reason)
	c.mu.Unlock()
	for i := range fx {
		fx[i].Link = link
	}
	c.b.apply(src, c, fx)
}

func (c *client) disconnectLocked(now time.Time, code packet.ReasonCode, reason string) []session.Effect {
	if c.conn == nil || c.conn.closing {
		return nil
	}
	return c.s.Disconnect(nil, now, code, reason)
}
