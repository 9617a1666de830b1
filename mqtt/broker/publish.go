package broker

import (
	"github.com/anyquic/anyquic/mqtt/packet"
	"github.com/anyquic/anyquic/mqtt/session"
	"github.com/anyquic/anyquic/mqtt/topic"
)

// accept is what becomes of a message that c may publish, c's will included. It
// returns the reason code for its acknowledgement.
func (b *Broker) accept(src *source, c *client, m *session.Message) packet.ReasonCode {
	_, asked := splitDelayed(m.Publish.Topic)
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
	if topic.Levels(target) > src.topicLevels() {
		b.count.dropLevels.Add(1)
		return packet.TopicNameInvalid
	}
	if prefix != "" {
		who := src.setter
		if who == nil {
			who = c.identity()
		}
		code = b.delayed.put(src.now, m, prefix, target, who, asked)
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

// topicLevels is how many levels a topic of the source's client may have.
func (src *source) topicLevels() int {
	l := src.b.limits.Load()
	if src.cn != nil {
		l = src.cn.limits
	}
	if n := l.session.TopicLevels; n > 0 {
		return int(n)
	}
	return topic.MaxLevels
}
