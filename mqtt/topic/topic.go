// Package topic holds the rules of MQTT's topic names and topic filters and the
// two data structures made of them: who subscribed to what ([Tree]), and what
// is retained where ([Retained]).
//
// The rules are those of MQTT 5, Sections 4.7 and 4.8.2. MQTT 3.1 and 3.1.1
// have the same ones; they lack shared subscriptions, but a filter that starts
// with "$share/" can match nothing a client may publish, so one reading serves
// all three.
//
// A topic is a list of levels with a "/" between each two of them. A level may
// be empty: "/" has two levels, "a//b" three. Case matters and nothing is
// normalised.
//
// Tree and Retained stand on the same trie (trie.go), which explains how they
// are read without a lock while others write.
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLevels is how many levels a broker ought to accept in a name or a filter
// that came from the network; it answers more with reason code 0x90 or 0x8F.
//
// MQTT sets no limit but the 65,535 bytes of a string, which is room for 65,536
// levels. Nothing in this package needs the limit to be safe: no function
// recurses, and a filter costs memory for its bytes, not for its levels. What
// the limit bounds is the work of one Match: each level of a name costs a look-up
// for every filter that has kept up with it, and nobody's names are 128 levels deep.
const MaxLevels = 128

// maxBytes is what the two-byte length of a UTF-8 string can say (MQTT 5, Section 1.5.4).
const maxBytes = 65535

// What is wrong with a name or a filter matches one of these.
var (
	// ErrEncoding: it is not a string as MQTT defines it; the packet that
	// carried it is malformed.
	ErrEncoding = errors.New("topic: not an MQTT string")
	// ErrSyntax: it is a string, but no name or no filter.
	ErrSyntax = errors.New("topic: bad syntax")
)

var (
	errUTF8      = fmt.Errorf("%w: ill-formed UTF-8", ErrEncoding)
	errNUL       = fmt.Errorf("%w: contains U+0000", ErrEncoding)
	errLong      = fmt.Errorf("%w: longer than 65535 bytes", ErrEncoding)
	errEmpty     = fmt.Errorf("%w: empty", ErrSyntax)
	errNameWild  = fmt.Errorf("%w: a name contains + or #", ErrSyntax)
	errPlus      = fmt.Errorf("%w: + does not fill its level", ErrSyntax)
	errHash      = fmt.Errorf("%w: # is not the last level", ErrSyntax)
	errShareName = fmt.Errorf("%w: $share without a share name", ErrSyntax)
	errShareWild = fmt.Errorf("%w: share name contains + or #", ErrSyntax)
	errShareRest = fmt.Errorf("%w: $share without a filter", ErrSyntax)
)

// ValidName reports what keeps name from being a topic name, nil if nothing does.
// The error matches [ErrEncoding] or [ErrSyntax]. The number of levels is not
// checked; see [Levels].
func ValidName(name string) error {
	if err := validString(name); err != nil {
		return err
	}
	// [MQTT-3.3.2-2]: a name has no wildcards.
	if strings.IndexByte(name, '+') >= 0 || strings.IndexByte(name, '#') >= 0 {
		return errNameWild
	}
	return nil
}

// ValidFilter reports what keeps filter from being a topic filter, nil if
// nothing does. A filter that starts with "$share/" must also be a shared
// subscription as Section 4.8.2 wants it. The error matches [ErrEncoding] or
// [ErrSyntax]. The number of levels is not checked; see [Levels].
func ValidFilter(filter string) error {
	if err := validString(filter); err != nil {
		return err
	}
	_, rest, ok, err := ParseShare(filter)
	if err != nil {
		return err
	}
	if ok {
		filter = rest
	}
	return validWildcards(filter)
}

func validWildcards(filter string) error {
	for p, more := 0, true; more; {
		var level string
		level, p, more = nextLevel(filter, p)
		if len(level) == 1 {
			// [MQTT-4.7.1-1]: # is the last character of the filter.
			if level == "#" && more {
				return errHash
			}
			continue
		}
		// [MQTT-4.7.1-1], [MQTT-4.7.1-2]: a wildcard has the level to itself.
		if strings.IndexByte(level, '+') >= 0 {
			return errPlus
		}
		if strings.IndexByte(level, '#') >= 0 {
			return errHash
		}
	}
	return nil
}

func validString(s string) error {
	switch {
	case s == "": // [MQTT-4.7.3-1]
		return errEmpty
	case len(s) > maxBytes: // [MQTT-4.7.3-3]
		return errLong
	case strings.IndexByte(s, 0) >= 0: // [MQTT-4.7.3-2]
		return errNUL
	case !utf8.ValidString(s): // [MQTT-1.5.4-1]
		return errUTF8
	}
	return nil
}

// Levels returns how many levels a name or a filter has; compare it with
// [MaxLevels]. The "$share" and the share name of a shared subscription count.
func Levels(s string) int {
	return strings.Count(s, "/") + 1
}

const sharePrefix = "$share/"

// ParseShare takes a shared subscription apart (Section 4.8.2):
// "$share/group/rest". ok is false, and err nil, for a filter that is none;
// "$share" without a "/" is none. err is what is wrong with the share name, or
// that nothing follows it; rest is not checked further.
func ParseShare(filter string) (group, rest string, ok bool, err error) {
	after, found := strings.CutPrefix(filter, sharePrefix)
	if !found {
		return "", "", false, nil
	}
	group, rest, found = strings.Cut(after, "/")
	switch {
	case group == "": // [MQTT-4.8.2-1]
		return "", "", false, errShareName
	case strings.ContainsAny(group, "+#"): // [MQTT-4.8.2-2]
		return "", "", false, errShareWild
	case !found || rest == "": // [MQTT-4.8.2-2]
		return "", "", false, errShareRest
	}
	return group, rest, true, nil
}

// Matches reports whether a filter matches a name. Both must be valid. The
// filter of a shared subscription is the rest that [ParseShare] returns.
func Matches(filter, name string) bool {
	// [MQTT-4.7.2-1]: a filter that starts with a wildcard does not match a
	// name that starts with $.
	if strings.HasPrefix(name, "$") && startsWild(filter) {
		return false
	}
	_, ok := follow(filter, name, 0)
	return ok >= matchedAll
}

// startsWild reports whether the first level of a valid filter is a wildcard.
func startsWild(filter string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#')
}

// nextLevel returns the level of s that starts at p and where the next one
// starts. more is false if there is none; the position is then len(s)+1, which
// says "behind the last level" everywhere in this package. (len(s) cannot: an
// empty last level starts there.)
func nextLevel(s string, p int) (level string, next int, more bool) {
	if i := strings.IndexByte(s[p:], '/'); i >= 0 {
		return s[p : p+i], p + i + 1, true
	}
	return s[p:], len(s) + 1, false
}

// How far a run of filter levels matched a name.
type matched uint8

const (
	matchedNot  matched = iota // some level differs, or the name is too short
	matchedPart                // every level of the run matched; the name has more
	matchedAll                 // every level of both
	matchedRest                // the run ended in #, which matched what was left, be it nothing
)

// follow matches the levels of run, a filter or a whole-level piece of one,
// with the levels of name from position p, and returns the position behind the
// last level used.
func follow(run, name string, p int) (int, matched) {
	// Most runs are literal; if the name starts with the run's very bytes, up
	// to the end of a level, the levels are equal.
	if e := p + len(run); e <= len(name) && name[p:e] == run {
		if e == len(name) {
			return e + 1, matchedAll
		}
		if name[e] == '/' {
			return e + 1, matchedPart
		}
	}
	for rp := 0; rp <= len(run); {
		rl, next, more := nextLevel(run, rp)
		if rl == "#" && !more {
			return len(name) + 1, matchedRest
		}
		if p > len(name) {
			return p, matchedNot
		}
		var nl string
		nl, p, _ = nextLevel(name, p)
		if rl != "+" && rl != nl {
			return p, matchedNot
		}
		rp = next
	}
	if p > len(name) {
		return p, matchedAll
	}
	return p, matchedPart
}
