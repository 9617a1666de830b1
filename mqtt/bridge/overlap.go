package bridge

import (
	"fmt"
	"strings"
)

// overlap returns an error if what the bridge forwards could come back to it by what
// it subscribes to, on a remote broker without No Local.
func (b *Bridge) overlap() error {
	for _, f := range b.forward {
		there, ok, err := f.mapping.Filter(f.Filter)
		if !ok || err != nil {
			there = "#" // it cannot be said
		}
		for _, s := range b.subscribe {
			if overlaps(there, s.Filter) {
				return fmt.Errorf("bridge: the remote broker does not know the mark of a bridge, and what is forwarded from %q would come back by %q: use MQTT 5, or rules that do not overlap", f.Filter, s.Filter)
			}
		}
	}
	return nil
}

// overlaps reports whether a topic can match both filters.
func overlaps(a, b string) bool {
	moreA, moreB := true, true
	for moreA && moreB {
		var x, y string
		x, a, moreA = strings.Cut(a, "/")
		y, b, moreB = strings.Cut(b, "/")
		switch {
		case x == "#" || y == "#":
			return true
		case x != y && x != "+" && y != "+":
			return false
		}
	}
	// "a/#" matches "a".
	return !moreA && !moreB || moreA && a == "#" || moreB && b == "#"
}
