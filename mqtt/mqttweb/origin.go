package mqttweb

import (
	"slices"
	"strings"
)

// websocketOrigins returns the patterns of package websocket that mean the same
// as those of package webtransport, and whether any origin will do.
func websocketOrigins(origins []string) (patterns []string, any bool) {
	if slices.Contains(origins, "*") {
		return nil, true
	}
	for _, o := range origins {
		if !strings.Contains(o, "://") {
			o = "https://" + o
		}
		// An IPv6 address has brackets, which mean something in a pattern.
		patterns = append(patterns, strings.NewReplacer("[", `\[`, "]", `\]`).Replace(o))
	}
	return patterns, false
}
