package session

import "github.com/anyquic/anyquic/mqtt/packet"

// Discard drops the messages that wait to be sent for the first time and whose topics
// drop says yes to, and returns how many those were. What is in flight goes on.
func (s *Session) Discard(drop func(topic string) bool) (dropped int) {
	keep := func(e *entry) bool {
		if !drop(e.msg.Publish.Topic) {
			return true
		}
		s.bytes -= e.cost()
		s.tellDropped(e)
		dropped++
		return false
	}
	s.eachLane(func(l *lane) {
		l.qos0.filter(keep)
		l.qos12.filter(keep)
	})
	return dropped
}

// Will returns the will that waits to be published, or removed; nil: there is none. It
// must not be changed, and is another one for each connection.
func (s *Session) Will() *packet.Publish {
	if s.will == nil {
		return nil
	}
	return &s.will.Publish
}
