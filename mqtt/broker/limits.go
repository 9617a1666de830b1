package broker

import "github.com/anyquic/anyquic/mqtt/session"

// limits are what Reconfigure can change. They are not modified: another set takes
// their place. A connection has those of its beginning as long as it lives.
type limits struct {
	session     session.Limits
	maxConns    int
	maxSessions int
	queueHalf   int // bytes: half of what a session's queue holds
}

func newLimits(c *Config) *limits {
	l := &limits{session: c.Limits, maxConns: c.MaxConns, maxSessions: c.MaxSessions, queueHalf: defaultQueue / 2}
	if n := c.Limits.QueueBytes; n > 0 {
		l.queueHalf = max(n/2, 1)
	}
	return l
}

// Reconfigure puts the limits of cfg in force: Limits, MaxConns, MaxSessions,
// MaxRetained and MaxRetainedBytes. Other fields do not count. Nobody is disconnected
// and nothing dropped for it: connections keep the limits they began with, sessions
// get the new ones with their next connection, and where there is more than a new
// limit allows, nothing is added. If cfg is not valid, nothing changes.
func (b *Broker) Reconfigure(cfg *Config) error {
	c, err := cfg.complete()
	if err != nil {
		return err
	}
	b.limits.Store(newLimits(&c))
	b.retained.limit(c.MaxRetained, c.MaxRetainedBytes)
	return nil
}
