package broker

import (
	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// What was sent in a handshake that is not complete may be a replay, and a
// replayed CONNECT would take over the live session. So nothing has an effect
// before, unless the listener says so.

// earlyPolicy returns what of the link may take effect before its handshake.
func (cn *conn) earlyPolicy() mqtt.EarlyPolicy {
	if l, ok := cn.link.(mqtt.EarlyLink); ok {
		return l.Early()
	}
	return mqtt.EarlyOff
}

// early reports whether CONNECT may take effect before the handshake, and has what
// follows wait for it if need be.
func (cn *conn) early(policy mqtt.EarlyPolicy, p *packet.Connect) bool {
	if policy <= mqtt.EarlyConnect {
		return policy == mqtt.EarlyOff // the handshake is over
	}
	if policy == mqtt.EarlyIdempotent {
		cn.unproven.Store(true)
		return p.Will == nil && !cn.b.disturbs(p)
	}
	return true
}

// disturbs reports whether p would end a session or another's connection, or take
// something from a session.
func (b *Broker) disturbs(p *packet.Connect) bool {
	b.mu.Lock()
	c := b.sessions[p.ClientID]
	b.mu.Unlock()
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.CleanStart || c.conn != nil || c.s.Lessens(p)
}

// handshake waits until the client is known. It reports false if that fails.
func (cn *conn) handshake(id string) bool {
	if err := cn.timedHandshake(cn.link.Context()); err != nil {
		cn.refused(id, packet.UnspecifiedError, "handshake: "+err.Error())
		return false
	}
	cn.unproven.Store(false)
	return true
}

// prove waits for the handshake if t must not take effect before.
func (cn *conn) prove(t packet.Type) error {
	switch t {
	case packet.SUBSCRIBE, packet.UNSUBSCRIBE, packet.PINGREQ:
		return nil
	}
	if err := cn.link.Handshake(cn.link.Context()); err != nil {
		return err
	}
	cn.unproven.Store(false)
	return nil
}
