package broker

import (
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
)

// accept is what becomes of a message that c may publish, c's will included. It
// returns the reason code for its acknowledgement.
func (b *Broker) accept(src *source, c *client, m *session.Message) packet.ReasonCode {
	m, code := b.rewriteName(m)
	if code.Failed() {
		b.count.dropRewrite.Add(1)
		return code
	}
	prefix, target := splitDelayed(m.Publish.Topic)
	if reserved(target) {
		b.count.dropDenied.Add(1)
		return packet.NotAuthorized
	}
	if prefix != "" {
		code = b.delayed.put(src.now, m, prefix, target)
		if code.Failed() {
			b.count.dropDelayed.Add(1)
		}
		return code
	}
	if code = b.route(src, m); code == packet.QuotaExceeded {
		src.retainRefused(c)
	}
	return code
}
