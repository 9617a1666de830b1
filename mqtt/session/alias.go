package session

// aliasesIn are the topic aliases that a client has set on one stream; index
// 0 is alias 1. Aliases end with the connection [MQTT-3.3.2-7].
type aliasesIn []string

// set returns by how many bytes the topics have grown.
func (a *aliasesIn) set(alias uint16, topic string) int {
	for len(*a) < int(alias) {
		*a = append(*a, "")
	}
	p := &(*a)[alias-1]
	grown := len(topic) - len(*p)
	*p = topic
	return grown
}

// bytes is the length of all topics.
func (a aliasesIn) bytes() int {
	n := 0
	for _, topic := range a {
		n += len(topic)
	}
	return n
}

// maxAliasBytes bounds the topics that a connection has us remember, on all its
// streams. A topic may have 65535 bytes, those of a sensible client are few and
// short.
const maxAliasBytes = 1 << 20

// get returns the topic of an alias, "" if it is not set.
func (a aliasesIn) get(alias uint16) string {
	if int(alias) > len(a) {
		return ""
	}
	return a[alias-1]
}

// aliasesOut are the aliases that the server uses on the control stream. Topics
// get them in the order in which they come, until the client's maximum, or
// ours, is reached.
type aliasesOut struct {
	max    uint16
	topics map[string]uint16
}

// maxAliasesOut bounds what a client's Topic Alias Maximum can make us remember.
const maxAliasesOut = 64

// minAliasTopic is the shortest topic that an alias is worth its three bytes for.
const minAliasTopic = 4

// get returns the alias of a topic, and whether the client knows it already.
// It is 0 if the topic has none and can get none.
func (a *aliasesOut) get(topic string) (alias uint16, known bool) {
	if a.max == 0 || len(topic) < minAliasTopic {
		return 0, false
	}
	if alias, known = a.topics[topic]; known || len(a.topics) >= int(a.max) {
		return alias, known
	}
	return uint16(len(a.topics)) + 1, false
}

// learned notes that the client was told an alias that get returned.
func (a *aliasesOut) learned(topic string, alias uint16) {
	if a.topics == nil {
		a.topics = make(map[string]uint16)
	}
	a.topics[topic] = alias
}
