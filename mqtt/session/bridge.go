package session

import (
	"strings"

	"github.com/anyquic/anyquic/mqtt"
	"github.com/anyquic/anyquic/mqtt/packet"
)

// What a client of MQTT 3.x gets that says with its CONNECT that it is a bridge. One
// of MQTT 5 has the options of its subscriptions and user properties for that.

// bridgeOptions are the options of its subscriptions: its own messages do not come
// back to it, and the RETAIN flag of others stays.
func (s *Session) bridgeOptions(p *packet.Subscribe) {
	for i := range p.Subscriptions {
		sub := &p.Subscriptions[i]
		sub.RetainAsPublished = true
		sub.NoLocal = !strings.HasPrefix(sub.Filter, "$share/") // [MQTT-3.8.3-4]
	}
}

// mark says in m, which the client has published, that it came by a bridge.
func (s *Session) mark(m *Message) {
	if !s.bridge {
		return
	}
	p := packet.Properties{}
	if m.Publish.Properties != nil {
		p = *m.Publish.Properties
	}
	p.User = append(p.User[:len(p.User):len(p.User)], packet.UserProperty{Key: mqtt.ViaProperty, Value: s.clientID})
	m.Publish.Properties = &p
}

// mayCross reports whether m has come by no bridge yet. What has says where it has
// been, which would be lost in MQTT 3.x, and then nobody could tell that it goes
// round.
func (s *Session) mayCross(m *Message) bool { return len(mqtt.Via(m.Publish.Properties)) == 0 }
