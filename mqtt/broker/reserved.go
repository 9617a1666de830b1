package broker

import "strings"

// sysTopic is below which the broker publishes about itself. Filters that begin
// with a wildcard do not match it [MQTT-4.7.2-1].
const sysTopic = "$SYS"

// reserved reports whether the broker alone may publish to a topic (MQTT 5,
// Section 4.7.2).
func reserved(name string) bool {
	rest, ok := strings.CutPrefix(name, sysTopic)
	return ok && (rest == "" || rest[0] == '/')
}
