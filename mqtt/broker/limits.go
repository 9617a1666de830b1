package broker

import "github.com/anyquic/anyquic/mqtt/session"

// limits are what Reconfigure can change. They are not modified: another set takes
// their place. A connection has those of its beginning as long as it lives.
type limits struct {
	session     session.Limits
	quotas      Quotas
	maxConns    int
	maxSessions int
	queueHalf   int // bytes: half of what a session's queue holds
}

func newLimits(c *Config) *limits {
	l := &limits{session: c.Limits, quotas: c.Quotas, maxConns: c.MaxConns, maxSessions: c.MaxSessions, queueHalf: defaultQueue / 2}
	if n := c.Limits.QueueBytes; n > 0 {
		l.queueHalf = max(n/2, 1)
	}
	return l
}

// Reconfigure puts the limits of cfg in force: Limits, Quotas, MaxConns, MaxSessions,
// MaxRetained and MaxRetainedBytes. What several clients share holds at once. Other
// fields do not count. Nobody is disconnected and nothing dropped for it: connections
// keep the limits they began with, sessions get the new ones with their next connection,
// and where there is more than a new limit allows, nothing is added. If cfg is not valid,
// nothing changes.
func (b *Broker) Reconfigure(cfg *Config) error {
	c, err := cfg.complete()
	if err != nil {
		return err
	}
	l := newLimits(&c)
	b.mu.Lock()
	b.limits.Store(l)
	b.admission.use(l, b.listeners, b.conns)
	b.mu.Unlock()
	b.retained.limit(c.MaxRetained, c.MaxRetainedBytes)
	return nil
}
