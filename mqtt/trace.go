package mqtt

import "github.com/anyquic/anyquic/mqtt/packet"

// Bridges carry messages from broker to broker. So that no message goes round, it
// says where it has been: each bridge adds a user property with the name of its
// broker, in order. MQTT 3.x has no properties: what comes from a client that says
// with its CONNECT that it is a bridge gets one when it arrives, and what has one
// is not sent to such a client.
const (
	// ViaProperty is the user property of a message that names a broker from
	// which a bridge has taken it or to which one has brought it.
	ViaProperty = "bridge-via"

	// NodeProperty is the user property by which a bridge and a broker tell each
	// other their names, in CONNECT and CONNACK.
	NodeProperty = "bridge-node"
)

// Via returns the brokers that p names, oldest first.
func Via(p *packet.Properties) (nodes []string) {
	if p == nil {
		return nil
	}
	for _, u := range p.User {
		if u.Key == ViaProperty {
			nodes = append(nodes, u.Value)
		}
	}
	return nodes
}

// Node returns the name that the other side of a connection has told, or "".
func Node(p *packet.Properties) string {
	if p == nil {
		return ""
	}
	for _, u := range p.User {
		if u.Key == NodeProperty {
			return u.Value
		}
	}
	return ""
}
