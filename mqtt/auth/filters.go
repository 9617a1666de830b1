package auth

import "strings"

// next cuts the first level off a topic. more is false after the last.
func next(s string) (level, rest string, more bool) {
	level, rest, more = strings.Cut(s, "/")
	return level, rest, more
}

// covers reports whether every topic that filter matches is matched by rule,
// which is a filter too. Topics that begin with $ are not matched by a wildcard
// at the beginning [MQTT-4.7.2-1].
func covers(rule, filter string) bool {
	r, rRest, rMore := next(rule)
	f, fRest, fMore := next(filter)
	if (r == "#" || r == "+") && strings.HasPrefix(f, "$") {
		return false
	}
	for {
		switch {
		case r == "#":
			return true
		case f == "#", r != "+" && r != f:
			return false
		case !fMore:
			return !rMore || rRest == "#" // "a/#" matches "a" too
		case !rMore:
			return false
		}
		r, rRest, rMore = next(rRest)
		f, fRest, fMore = next(fRest)
	}
}

// overlaps reports whether there is a topic that both filters match.
func overlaps(a, b string) bool {
	x, xRest, xMore := next(a)
	y, yRest, yMore := next(b)
	wild := func(s string) bool { return s == "#" || s == "+" }
	if wild(x) && strings.HasPrefix(y, "$") || wild(y) && strings.HasPrefix(x, "$") {
		return false
	}
	for {
		switch {
		case x == "#", y == "#":
			return true
		case x != "+" && y != "+" && x != y:
			return false
		case !xMore && !yMore:
			return true
		case !xMore:
			return yRest == "#"
		case !yMore:
			return xRest == "#"
		}
		x, xRest, xMore = next(xRest)
		y, yRest, yMore = next(yRest)
	}
}
