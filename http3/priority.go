package http3

import (
	"strings"

	"github.com/anyquic/anyquic/transport"
)

// defaultPriority is that of a request which does not say.
//
// https://www.rfc-editor.org/rfc/rfc9218#section-4
var defaultPriority = transport.Priority{Urgency: 3}

// parsePriority parses the value of a priority field: a dictionary of
// structured fields (RFC 9651). What it does not say, or says in a way that is
// not valid, keeps its default.
//
// https://www.rfc-editor.org/rfc/rfc9218#section-4
func parsePriority(value string) transport.Priority {
	p := defaultPriority
	for item := range strings.SplitSeq(value, ",") {
		item, _, _ = strings.Cut(item, ";") // parameters mean nothing
		key, v, has := strings.Cut(strings.Trim(item, " \t"), "=")
		switch key {
		case "u":
			p.Urgency = defaultPriority.Urgency
			if has && len(v) == 1 && v[0] >= '0' && v[0] <= '7' {
				p.Urgency = v[0] - '0'
			}
		case "i":
			p.Incremental = !has || v == "?1"
		}
	}
	return p
}

// formatPriority is the opposite of parsePriority.
func formatPriority(p transport.Priority) string {
	s := "u=" + string('0'+min(p.Urgency, 7))
	if p.Incremental {
		s += ", i"
	}
	return s
}
